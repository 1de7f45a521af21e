//! Link headers (RFC 8288): where a response leads, and how that is related to it.

/// A link of a response.
#[derive(Debug, PartialEq)]
pub struct Link {
    /// Where it leads.
    pub target: String,
    /// How the target is related to the response, in lower case: `alternate`, for example. There may be several.
    relation_types: Vec<String>,
}

impl Link {
    /// Whether this is one of its relation types. `relation_type` is in lower case.
    pub fn has_type(&self, relation_type: &str) -> bool {
        self.relation_types
            .iter()
            .any(|other| other == relation_type)
    }
}

/// Returns the links of one Link header (RFC 8288 §3). It stops at the first thing that is not a link.
pub fn parse(header: &str) -> Vec<Link> {
    let mut parser = Parser { rest: header };
    let mut links = Vec::new();
    loop {
        // The separators of a list (RFC 9110 §5.6.1).
        parser.take_while(|c| c == ',' || is_space(c));
        match parser.link() {
            Some(link) => links.push(link),
            None => return links,
        }
    }
}

/// A header that is read from left to right.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Reads `<target>` and the parameters that follow.
    fn link(&mut self) -> Option<Link> {
        if !self.take('<') {
            return None;
        }
        let target = self.take_while(|c| c != '>').to_owned();
        if !self.take('>') {
            return None;
        }
        let mut relation_types = None;
        while let Some((name, value)) = self.parameter() {
            // RFC 8288 §3.3: only the first `rel` counts.
            if name.eq_ignore_ascii_case("rel") && relation_types.is_none() {
                relation_types = Some(value.to_ascii_lowercase());
            }
        }
        let relation_types = relation_types.unwrap_or_default();
        Some(Link {
            target,
            relation_types: relation_types
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Reads `; name`, `; name=value` or `; name="value"`. The name and the value may be empty.
    fn parameter(&mut self) -> Option<(&'a str, String)> {
        self.take_while(is_space);
        if !self.take(';') {
            return None;
        }
        self.take_while(is_space);
        let name = self.take_while(|c| !is_space(c) && !matches!(c, '=' | ';' | ','));
        self.take_while(is_space);
        if !self.take('=') {
            return Some((name, String::new()));
        }
        self.take_while(is_space);
        let value = if self.take('"') {
            self.rest_of_quoted_string()
        } else {
            let token = self.take_while(|c| !matches!(c, ';' | ','));
            token.trim_end_matches(is_space).to_owned()
        };
        Some((name, value))
    }

    /// Reads up to the closing quote, which may be missing. A backslash takes away the meaning of the next character
    /// (RFC 9110 §5.6.4).
    fn rest_of_quoted_string(&mut self) -> String {
        let mut value = String::new();
        let mut characters = self.rest.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => value.extend(characters.next()),
                other => value.push(other),
            }
        }
        self.rest = characters.as_str();
        value
    }

    /// Whether the next character is `expected`. If so, it is read.
    fn take(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads the characters that belong, which may be none.
    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

fn is_space(character: char) -> bool {
    character == ' ' || character == '\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    fn targets(header: &str, relation_type: &str) -> Vec<String> {
        let links = parse(header).into_iter();
        links
            .filter(|link| link.has_type(relation_type))
            .map(|link| link.target)
            .collect()
    }

    #[test]
    fn links_that_are_alternates() {
        for (header, expected) in [
            (r#"<a>;rel="alternate""#, vec!["a"]),
            ("<a>;rel=alternate", vec!["a"]),
            ("<a> ; rel = alternate ", vec!["a"]),
            ("\t<a>\t;\trel\t=\t\"alternate\"\t", vec!["a"]),
            ("<a>;REL=Alternate", vec!["a"]),
            (r#"<a>;rel="alternate index""#, vec!["a"]),
            (r#"<a>;rel="up  ALTERNATE""#, vec!["a"]),
            ("<a>;rel=alternate,<b>;rel=alternate", vec!["a", "b"]),
            ("<a>;rel=up, ,, <b>;rel=alternate,", vec!["b"]),
            ("<a,b;c>;rel=alternate", vec!["a,b;c"]),
            ("<a>;x;;y=;rel=alternate;z", vec!["a"]),
            (r#"<a>;title="x, y; z";rel=alternate"#, vec!["a"]),
            (r#"<a>;title="<x>;\"rel=\\";rel=alternate"#, vec!["a"]),
            (r#"<a>;title="b>,<c>;rel=up";rel=alternate,<d>"#, vec!["a"]),
            // These are not alternates.
            (r#"<a>;title="a;rel=alternate""#, vec![]),
            (r#"<a>;title=";rel=alternate"#, vec![]),
            (r#"<a>;title=",<b>;rel=alternate""#, vec![]),
            ("<a>;rel=up;rel=alternate", vec![]),
            ("<a>;rel;rel=alternate", vec![]),
            (r#"<a>;rel="alternate-index""#, vec![]),
            ("<a>;rev=alternate", vec![]),
            ("<a>;rel*=alternate", vec![]),
            ("<a>", vec![]),
            ("<a;rel=alternate", vec![]),
            ("a;rel=alternate", vec![]),
            ("rel=alternate", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(targets(header, "alternate"), expected, "{header}");
        }
    }

    #[test]
    fn a_link_may_have_several_types() {
        let header = r#"<a>;rel="help Terms-Of-Service", <b>;rel=index"#;
        assert_eq!(targets(header, "help"), ["a"]);
        assert_eq!(targets(header, "terms-of-service"), ["a"]);
        assert_eq!(targets(header, "index"), ["b"]);
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        /// The same with the characters that mean something, so that more of it is read.
        #[test]
        fn any_text_is_read(header in "([<>;,=\"\\\\ \t]|<a>|rel|alternate|\\PC){0,30}") {
            let length: usize = parse(&header).iter().map(|link| link.target.len()).sum();
            prop_assert!(length <= header.len());
        }

        /// Whatever stands in a title, the link is found, and the one after it.
        #[test]
        fn titles_are_skipped(title in "\\PC{0,20}") {
            let quoted = title.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("<a>; title=\"{quoted}\"; rel=alternate, <b>; rel=alternate");
            prop_assert_eq!(targets(&header, "alternate"), ["a", "b"]);
        }
    }
}
