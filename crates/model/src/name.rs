//! Names of tables and the globs that select them.

use std::fmt;

/// A table as its store knows it: exact spelling, no quotes. SQLite's schema is `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName { schema: schema.into(), name: name.into() }
    }

    /// The glob that covers this name alone.
    pub fn pattern(&self) -> String {
        let escaped = |name: &str| name.replace('\\', "\\\\").replace('*', "\\*").replace('.', "\\.");
        format!("{}.{}", escaped(&self.schema), escaped(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Whether `pattern`, in which `*` stands for any run of characters, covers the whole of `text`. Case counts.
/// A backslash takes the star, dot or backslash after it literally.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let pattern = glob_pieces(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&GlobPiece::Star) {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&GlobPiece::Literal(text[t])) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|piece| *piece == GlobPiece::Star)
}

#[derive(Clone, Copy, PartialEq)]
enum GlobPiece {
    Star,
    Literal(char),
}

fn glob_pieces(pattern: &str) -> Vec<GlobPiece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        pieces.push(match c {
            '*' => GlobPiece::Star,
            '\\' => GlobPiece::Literal(characters.next().unwrap_or('\\')),
            c => GlobPiece::Literal(c),
        });
    }
    pieces
}

/// Splits `schema.table` of globs at the first dot that is no literal one; None without such a dot.
pub(crate) fn glob_split(pattern: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let at = pattern.char_indices().find_map(|(at, c)| {
        let found = c == '.' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })?;
    Some((&pattern[..at], &pattern[at + 1..]))
}

/// The only text that `pattern` covers; None: it has a star.
pub(crate) fn glob_literal(pattern: &str) -> Option<String> {
    glob_pieces(pattern).iter().map(GlobPiece::literal).collect()
}

/// What the one `*` of `pattern` covers in `text` (empty without a star); None: no match.
pub fn glob_captures(pattern: &str, text: &str) -> Option<String> {
    let pieces = glob_pieces(pattern);
    let literal = |pieces: &[GlobPiece]| pieces.iter().filter_map(GlobPiece::literal).collect::<String>();
    match pieces.iter().position(|piece| *piece == GlobPiece::Star) {
        None => (literal(&pieces) == text).then(String::new),
        Some(at) => Some(text.strip_prefix(&literal(&pieces[..at]))?.strip_suffix(&literal(&pieces[at + 1..]))?.to_owned()),
    }
}

/// `pattern` with its one `*` replaced by what another's covered.
pub(crate) fn glob_fill(pattern: &str, covered: &str) -> String {
    let mut filled = String::with_capacity(pattern.len() + covered.len());
    for piece in glob_pieces(pattern) {
        match piece {
            GlobPiece::Star => filled.push_str(covered),
            GlobPiece::Literal(c) => filled.push(c),
        }
    }
    filled
}

impl GlobPiece {
    fn literal(&self) -> Option<char> {
        match self {
            GlobPiece::Star => None,
            GlobPiece::Literal(c) => Some(*c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob_matches as matches;
    use super::{TableName, glob_split};

    #[test]
    fn a_names_pattern_covers_it_alone() {
        let name = TableName::new("a.b", "c*\\d");
        let pattern = name.pattern();
        let (schema, table) = glob_split(&pattern).unwrap();
        assert!(matches(schema, &name.schema) && matches(table, &name.name), "{pattern}");
        assert!(!matches(table, "cx\\d"));
    }

    #[test]
    fn a_star_covers_any_run() {
        assert!(matches("public.*", "public.a"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "aXXbYbYc"));
        assert!(!matches("a*b", "ac"));
        assert!(!matches("public.*_tmp", "public.tmp"));
        assert!(matches("public.*_tmp", "public._tmp"));
        assert!(!matches("Public.*", "public.a"));
    }

    #[test]
    fn a_backslash_makes_the_next_character_literal() {
        assert!(matches("a\\*", "a*"));
        assert!(!matches("a\\*", "ab"));
        assert!(matches("a\\\\*", "a\\b"));
        assert_eq!(super::glob_captures("x\\*y*", "x*yzz").as_deref(), Some("zz"));
        assert_eq!(super::glob_fill("\\*a*", "b"), "*ab");
        assert_eq!(super::glob_split("a\\.b.c"), Some(("a\\.b", "c")));
    }
}
