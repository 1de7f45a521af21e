//! Whether a line on stderr is one of those in `messages.md`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex};
use std::thread;

use super::messages::{record, rows};

/// A piece of a line of the list.
enum Part {
    Text(String),
    /// A word in capitals, and what it stands for.
    Word(fn(&str) -> bool),
    Cause,
}

/// A line of the list.
struct Entry {
    is_cause: bool,
    line: String,
    parts: Vec<Part>,
}

/// Numbers of lines of the list.
type Numbers = BTreeSet<usize>;

static LIST: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(is_cause, line, _): (bool, String, String)| Entry {
        is_cause,
        parts: parts(&line),
        line,
    };
    rows().into_iter().map(entry).collect()
});

/// The lines of the list that were seen, each with the test that saw it; written down at once, for
/// nobody can tell which test is the last.
static SEEN: LazyLock<Mutex<(File, BTreeSet<String>)>> =
    LazyLock::new(|| Mutex::new((File::create(record()).unwrap(), BTreeSet::new())));

/// The first line of `stderr` that is not on the list. Those that are count as seen by this test.
pub fn unlisted(stderr: &str) -> Option<&str> {
    let mut seen = Numbers::new();
    for line in stderr.lines() {
        let entries = listed(line, false);
        if entries.is_none() {
            return Some(line);
        }
        seen.extend(entries.into_iter().flatten());
    }
    let thread = thread::current();
    let test = thread.name().and_then(|name| name.rsplit("::").next());
    let mut noted = SEEN.lock().unwrap();
    for number in seen {
        let note = format!("{}\t{}\n", test.unwrap_or("main"), LIST[number].line);
        if noted.1.insert(note.clone()) {
            noted.0.write_all(note.as_bytes()).unwrap();
        }
    }
    None
}

/// The lines of the list by which `text` is a line, or a cause, in all ways there are.
fn listed(text: &str, is_cause: bool) -> Option<Numbers> {
    let entries = LIST.iter().enumerate();
    let entries = entries.filter(|(_, entry)| entry.is_cause == is_cause);
    let ways = entries.filter_map(|(number, entry)| {
        let mut numbers = read(&entry.parts, text)?;
        numbers.insert(number);
        Some(numbers)
    });
    ways.reduce(|one, other| &one | &other)
}

/// The causes by which `text` reads as these parts, if it does.
fn read(parts: &[Part], text: &str) -> Option<Numbers> {
    let Some((first, rest)) = parts.split_first() else {
        return text.is_empty().then(Numbers::new);
    };
    // What is no text reaches to where the next text may begin.
    let ends: Vec<usize> = match (first, rest.first()) {
        (Part::Text(text), _) => vec![text.len()],
        (_, Some(Part::Text(next))) => text.match_indices(next).map(|(start, _)| start).collect(),
        _ => vec![text.len()],
    };
    let ways = ends.into_iter().filter_map(|end| {
        let (here, after) = text.split_at_checked(end)?;
        let numbers = match first {
            Part::Text(text) => (text == here).then(Numbers::new),
            Part::Word(is_one) => is_one(here).then(Numbers::new),
            Part::Cause => listed(here, true),
        };
        Some(&numbers? | &read(rest, after)?)
    });
    ways.reduce(|one, other| &one | &other)
}

/// A line of the list, taken apart.
fn parts(line: &str) -> Vec<Part> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let letters = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let end = letters.unwrap_or(rest.len()).max(first.len_utf8());
        let word;
        (word, rest) = rest.split_at(end);
        let Some(part) = wildcard(word) else {
            text += word;
            continue;
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part);
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

fn wildcard(word: &str) -> Option<Part> {
    Some(match word {
        "NAME" | "FILE" => Part::Word(is_word),
        "NAMES" => Part::Word(|text| text.split(", ").all(is_word)),
        "LINK" => Part::Word(|text| {
            is_word(text) && (text.starts_with("https://") || text.starts_with("http://"))
        }),
        // One that is a line's first word may be padded.
        "NUMBER" => Part::Word(|text| text.trim_start().parse::<u64>().is_ok()),
        "TIME" => Part::Word(|text| text.ends_with(" GMT") && text.split_whitespace().count() == 5),
        "BASE64" => Part::Word(|text| {
            let is_one = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
            (4..=64).contains(&text.len()) && text.len() % 4 == 0 && text.bytes().all(is_one)
        }),
        "WORDS" => Part::Word(|_| true),
        "CAUSE" => Part::Cause,
        _ => return None,
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// The list has not become one that everything is on.
#[test]
fn what_is_not_on_the_list_is_noticed() {
    for line in [
        "",
        "Something new.",
        "Parsing account key... ",
        "warning: something new",
        "error: something new",
        "error: order https://ca.test/1: something new",
        "error: Error loading a.key: something new",
        "  something new",
        "  a.test: something new",
        "hint: something new",
        "thread 'main' panicked at src/main.rs:1:1:",
    ] {
        assert_eq!(unlisted(&format!("{line}\n")), Some(line));
    }
    assert_eq!(unlisted("Found domains: a.test, b.test"), None);
}
