//! One mistake in a task file, and how all of them become one error with their lines shown.
//!
//! A shown line is the file's own text, before references are resolved. Lines that may hold a password are masked.

use std::fmt::Write as _;

use godwit_model::{Code, Error};

use crate::suggest;

/// A place in the file. Lines and columns count from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

impl Spot {
    pub const START: Spot = Spot { line: 1, column: 1, width: 0 };
}

#[derive(Debug)]
pub struct Problem {
    code: &'static Code,
    what: String,
    remedy: Option<String>,
    spot: Spot,
}

impl Problem {
    pub fn new(code: &'static Code, what: impl Into<String>, spot: Spot) -> Self {
        Problem { code, what: what.into(), remedy: None, spot }
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// More would scroll the first one out of sight.
const MOST_SHOWN: usize = 20;

/// The first problem in the file's order becomes the error; the others stand in its detail.
///
/// # Panics
/// If there is no problem; callers have one.
pub fn into_error(mut problems: Vec<Problem>, file: &str, text: &str) -> Error {
    problems.sort_by_key(|problem| problem.spot);
    let total = problems.len();
    let mut problems = problems.into_iter();
    let first = problems.next().expect("a refused file has a problem");
    let mut detail = snippet(text, first.spot);
    for problem in problems.take(MOST_SHOWN - 1) {
        let _ = write!(
            detail,
            "\n\nerror {}: {}\n  at {}\n{}",
            problem.code,
            problem.what,
            place(file, problem.spot),
            snippet(text, problem.spot)
        );
        if let Some(remedy) = &problem.remedy {
            let _ = write!(detail, "\n  {remedy}");
        }
    }
    if total > MOST_SHOWN {
        let _ = write!(detail, "\n\n... and {} more", total - MOST_SHOWN);
    }
    let error = Error::new(first.code, first.what).at(place(file, first.spot)).detail(detail).effect("nothing was changed");
    match first.remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

pub fn place(file: &str, spot: Spot) -> String {
    format!("{file}:{}:{}", spot.line, spot.column)
}

/// The line with a caret under the place.
fn snippet(text: &str, spot: Spot) -> String {
    // What a terminal shows beside the line number.
    const WIDEST: usize = 110;
    let lines: Vec<&str> = text.lines().collect();
    let Some(line) = lines.get(spot.line - 1) else { return format!("{:>5} |", spot.line) };
    let margin = format!("{:>5} | ", spot.line);
    let line = printable(line);
    if may_hold_secret(&lines, spot.line - 1) {
        return format!("{margin}{}", masked(&line));
    }
    let skipped = if spot.column > WIDEST { spot.column - WIDEST / 2 } else { 0 };
    let shown: String = line.chars().skip(skipped).take(WIDEST).collect();
    let room = shown.chars().count();
    let before = (spot.column - 1).saturating_sub(skipped).min(room);
    let carets = spot.width.clamp(1, (room - before).max(1));
    format!("{margin}{shown}\n      | {}{}", " ".repeat(before), "^".repeat(carets))
}

/// No control codes reach the terminal; one character stays one character.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether the line names a password or a URL with one, or lies inside a block that such a line opened.
fn may_hold_secret(lines: &[&str], index: usize) -> bool {
    let mut indent = usize::MAX;
    for line in lines[..=index].iter().rev().filter(|line| !line.trim().is_empty()) {
        let this = line.len() - line.trim_start().len();
        if this < indent || indent == usize::MAX {
            if names_secret(line) {
                return true;
            }
            indent = this;
        }
        if indent == 0 {
            break;
        }
    }
    // A value that begins on the line before, at whatever indentation.
    let before = lines[..index].iter().rev().find(|line| !line.trim().is_empty());
    before.is_some_and(|line| names_secret(line) && !line.trim_end().ends_with(['}', ']']) && opens(line))
}

/// A word like `password`, also misspelled, or a URL with a login.
fn names_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    let is_secret = |word: &str| {
        ["pass", "pwd", "secret", "token"].iter().any(|part| word.contains(part)) || suggest::nearest(word, ["password"]).is_some()
    };
    (line.contains("://") && line.contains('@')) || line.split(|c: char| !c.is_alphanumeric()).any(is_secret)
}

/// Whether the line's last key has no value yet, or one whose quotes or block are still open.
fn opens(line: &str) -> bool {
    let line = line.trim_end();
    line.ends_with([':', '|', '>', '-', '+', '\\', ',']) || line.matches('"').count() % 2 == 1 || line.matches('\'').count() % 2 == 1
}

/// Up to the first colon: the key, nothing of the value.
fn masked(line: &str) -> String {
    let key = line.split_once(':').map_or("", |(key, _)| key);
    // A colon inside a password would leave a part of it to see.
    let plain = key.trim_start_matches([' ', '-', '{']).chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain && names_key(key) { format!("{key}: ***") } else { "***".to_owned() }
}

fn names_key(key: &str) -> bool {
    const KEYS: &[&str] = &["url", "source", "target", "password", "password_command", "engine", "host", "user", "database", "tls"];
    KEYS.contains(&key.trim_start_matches([' ', '-', '{']).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        let text = "name: a\nmode: nigrate\n";
        assert_eq!(snippet(text, Spot { line: 2, column: 7, width: 7 }), "    2 | mode: nigrate\n      |       ^^^^^^^");
        assert_eq!(snippet(text, Spot { line: 9, column: 1, width: 0 }), "    9 |");
        assert!(snippet(&"x".repeat(5000), Spot { line: 1, column: 4000, width: 9000 }).len() < 300);
    }

    #[test]
    fn lines_with_a_password_are_masked() {
        let cases = [
            ("source:\n  password: hunter2\n", 2),
            ("source:\n  pasword: hunter2\n  passwrd: hunter2", 3),
            ("source:\n  password: |\n    first\n    hunter2\n", 4),
            ("source:\n  password:\n    hunter2\n", 3),
            ("source:\n  password: \"first\n hunter2\"\n", 3),
            ("source: postgres://u:hunter2@h/d\n", 1),
            ("source: {url: postgres://h/d, password: hunter2}\n", 1),
            ("source:\n  url: postgres://u:hunter2@h/d\n", 2),
        ];
        for (text, line) in cases {
            let shown = snippet(text, Spot { line, column: 3, width: 1 });
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
