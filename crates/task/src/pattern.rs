//! Names and globs of tables as people write them, turned into the model's globs.
//!
//! `schema.table`; a part in double quotes is taken literally (its dots, stars and quotes, a quote doubled). In the
//! model's globs the same is said with a backslash before each such character.

/// Two globs, for the schema and for the table, in the model's spelling.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePattern {
    pub schema: String,
    pub name: String,
}

impl TablePattern {
    /// The error is a sentence. Without a dot the schema is `default_schema`; if there is none, it must be written.
    pub fn parse(text: &str, default_schema: Option<&str>) -> Result<Self, String> {
        let mut parts = parts(text)?.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(schema), Some(name), None) => Ok(TablePattern { schema, name }),
            (Some(name), None, _) => match default_schema {
                Some(schema) => Ok(TablePattern { schema: schema.to_owned(), name }),
                None => Err(format!("`{text}` does not say the schema: write `schema.table`, such as `public.{text}`")),
            },
            _ => Err(format!("`{text}` has more than one dot: put the part with a dot of its own in double quotes, such as '\"a.b\".c'")),
        }
    }

    /// For `Selection`.
    pub fn glob(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// How many stars a part in the model's spelling has.
pub fn stars(part: &str) -> usize {
    let mut escaped = false;
    part.chars()
        .filter(|c| {
            let star = *c == '*' && !escaped;
            escaped = *c == '\\' && !escaped;
            star
        })
        .count()
}

fn parts(text: &str) -> Result<Vec<String>, String> {
    if text.chars().any(char::is_control) {
        return Err("the name holds a control character".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = if rest.starts_with('"') { quoted(rest)? } else { plain(rest)? };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(format!("in `{text}` a dot or the end must follow the closing quote")),
        }
    }
}

fn plain(text: &str) -> Result<(String, &str), String> {
    let (part, after) = text.split_at(text.find('.').unwrap_or(text.len()));
    if part.is_empty() {
        return Err("a name of a table, or of its schema, is empty".to_owned());
    }
    if part.contains('"') {
        return Err("a quote stands inside a name: begin and end the part with a double quote and double the one inside".to_owned());
    }
    Ok((part.replace('\\', "\\\\"), after))
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut part = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if characters.next_if(|(_, next)| *next == '"').is_some() => part.push('"'),
            '"' if part.is_empty() => return Err("a name of a table, or of its schema, is empty".to_owned()),
            '"' => return Ok((part, &text[at + 1..])),
            '\\' | '*' | '.' => part.extend(['\\', c]),
            _ => part.push(c),
        }
    }
    Err("a double quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Result<String, String> {
        TablePattern::parse(text, None).map(|pattern| pattern.glob())
    }

    #[test]
    fn plain_and_quoted_parts_are_read() {
        assert_eq!(glob("public.*").unwrap(), "public.*");
        assert_eq!(glob("\"a.b\".c").unwrap(), "a\\.b.c");
        assert_eq!(glob("p.\"x*\"\"y\"").unwrap(), "p.x\\*\"y");
        assert_eq!(glob("p.a\\b").unwrap(), "p.a\\\\b");
        assert_eq!(TablePattern::parse("t", Some("main")).unwrap().glob(), "main.t");
        assert_eq!((stars("a*b*"), stars("\\*a\\\\*")), (2, 1));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "t", ".t", "s.", "a.b.c", "\"a", "\"a\"b.c", "\"\".c", "a\"b.c", "a\u{0}.b"] {
            assert!(glob(text).is_err(), "{text}");
        }
    }
}
