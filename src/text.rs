//! Text from outside (a CA, a web server, a file), made safe to print.

use std::fmt::Display;

/// How much [`excerpt`] returns, in characters.
pub const MAX_EXCERPT_CHARS: usize = 1000;

/// Escapes every character that could move the cursor, colour the screen, break the line or reverse the
/// reading direction.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether the character is a bidi control, a zero-width character, a line separator, a variation selector or a tag, or
/// one that looks like a blank and is none: it shows nothing itself, and may change how the others look.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0100}'..='\u{e01ef}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Returns the first [`MAX_EXCERPT_CHARS`] characters of `text`, with `…` if more follow.
pub fn excerpt(text: &str) -> String {
    beginning(text, MAX_EXCERPT_CHARS)
}

/// Returns the first `max_chars` characters of `text`, with `…` if more follow. A run of blanks is one blank: with many, a
/// terminal would show the words after them at the beginning of a line, where they could look like a line of getcrt's.
pub fn beginning(text: &str, max_chars: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    let mut is_after_blank = false;
    for character in text.chars() {
        let is_blank = character.is_whitespace() && !character.is_control();
        if is_blank && is_after_blank {
            continue;
        }
        is_after_blank = is_blank;
        if count == max_chars {
            shown.push('…');
            break;
        }
        shown.push(character);
        count += 1;
    }
    shown
}

/// Returns a URL without the user name and the password that may be in it.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("//") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}//{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

/// Returns the items in one line, separated by commas.
pub fn comma_separated<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// How many items [`first_few`] names.
const FEW: usize = 3;

/// Returns the first few items in one line, each of them as an [`excerpt`], and how many more there are.
pub fn first_few<T: Display>(items: &[T]) -> String {
    let shown = items
        .iter()
        .take(FEW)
        .map(|item| excerpt(&item.to_string()));
    let mut line = comma_separated(shown);
    if items.len() > FEW {
        line += &format!(" and {} more", items.len() - FEW);
    }
    line
}

/// Groups the items that have the same text, in the order in which the texts come first.
pub fn group_by_text<T>(items: Vec<(String, T)>) -> Vec<(String, Vec<T>)> {
    let mut groups: Vec<(String, Vec<T>)> = Vec::new();
    for (text, item) in items {
        match groups.iter_mut().find(|(other, _)| *other == text) {
            Some((_, group)) => group.push(item),
            None => groups.push((text, vec![item])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    #[test]
    fn blanks_do_not_move_words() {
        assert_eq!(beginning("no  \u{3000} hint:   run", 100), "no hint: run");
        assert_eq!(beginning("ab   cd", 3), "ab …");
        assert_eq!(beginning("abc", 3), "abc");
    }

    #[test]
    fn urls_without_credentials() {
        for (url, shown) in [
            ("http://user:pw@a.test:80/x?y=@z", "http://a.test:80/x?y=@z"),
            ("//u:p@a.test", "//a.test"),
            ("https://a.test/@x", "https://a.test/@x"),
            ("/x@y", "/x@y"),
            ("http://a@b@c.test", "http://c.test"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn words_stay_and_commands_do_not() {
        assert_eq!(
            printable("Größe 5 \"x\" 名前 e\u{301}"),
            "Größe 5 \"x\" 名前 e\u{301}"
        );
        assert_eq!(
            printable("a\u{1b}[31m\r\nb\u{202e}\u{9b}"),
            "a\\u{1b}[31m\\r\\nb\\u{202e}\\u{9b}"
        );
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn what_is_printed_commands_nothing(text: String) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(char::is_control));
            let turned = ['\u{202e}', '\u{2066}', '\u{200f}', '\u{feff}', '\u{2028}'];
            prop_assert!(!shown.contains(turned));
            prop_assert!(shown.len() <= 10 * text.len());
        }
    }
}
