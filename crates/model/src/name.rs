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
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Whether `pattern`, in which `*` stands for any run of characters, covers the whole of `text`. Case counts.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
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
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What the one `*` of `pattern` covers in `text` (empty without a star); None: no match.
pub fn glob_captures(pattern: &str, text: &str) -> Option<String> {
    match pattern.split_once('*') {
        None => (pattern == text).then(String::new),
        Some((before, after)) => Some(text.strip_prefix(before)?.strip_suffix(after)?.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::glob_matches as matches;

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
}
