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

/// Whether the character is a bidi control, a zero-width character, a line separator or a tag: it shows
/// nothing itself and changes how the others look.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{61c}'
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

/// Returns the first `max_chars` characters of `text`, with `…` if more follow.
pub fn beginning(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
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

    use super::printable;
    use crate::property_tests;

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
