//! SQL text cut into tokens, as far as DDL of the user's own must be understood: which names a definition mentions,
//! where its parts begin and end. Comments and white space are kept with the token they follow, so that text put
//! together again says the same.

/// An identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A bare or quoted name; bare ones may be keywords.
    Name {
        name: String,
        bare: bool,
    },
    Text(String),
    /// Numbers, operators, parameters: as written.
    Other(String),
    Open,
    Close,
    Comma,
}

impl Token {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Name { name, bare: true } if name.eq_ignore_ascii_case(word))
    }

    pub(crate) fn is_name(&self, wanted: &str) -> bool {
        matches!(self, Token::Name { name, .. } if name.eq_ignore_ascii_case(wanted))
    }

    fn write(&self) -> String {
        match self {
            Token::Name { name, bare: true } => name.clone(),
            Token::Name { name, bare: false } => quoted(name),
            Token::Text(text) => literal(text),
            Token::Other(text) => text.clone(),
            Token::Open => "(".into(),
            Token::Close => ")".into(),
            Token::Comma => ",".into(),
        }
    }
}

/// All tokens; comments are dropped.
pub(crate) fn tokens(sql: &str) -> Vec<Token> {
    let mut rest = sql;
    let mut found = Vec::new();
    while let Some((token, after)) = next(rest) {
        found.extend(token);
        rest = after;
    }
    found
}

/// Text that SQLite reads as these tokens.
pub(crate) fn written(tokens: &[Token]) -> String {
    tokens.iter().map(Token::write).collect::<Vec<_>>().join(" ")
}

fn next(sql: &str) -> Option<(Option<Token>, &str)> {
    let first = sql.chars().next()?;
    Some(match first {
        c if c.is_ascii_whitespace() => (None, &sql[1..]),
        '-' if sql.starts_with("--") => (None, sql.split_once('\n').map_or("", |(_, after)| after)),
        '/' if sql.starts_with("/*") => (None, sql[2..].split_once("*/").map_or("", |(_, after)| after)),
        '\'' => quotation(sql, '\'', Token::Text),
        '"' | '`' => quotation(sql, first, |name| Token::Name { name, bare: false }),
        '[' => {
            let (name, after) = sql[1..].split_once(']').unwrap_or((&sql[1..], ""));
            (Some(Token::Name { name: name.into(), bare: false }), after)
        }
        '(' => (Some(Token::Open), &sql[1..]),
        ')' => (Some(Token::Close), &sql[1..]),
        ',' => (Some(Token::Comma), &sql[1..]),
        'x' | 'X' if sql[1..].starts_with('\'') => blob(sql),
        c if starts_name(c) => {
            let end = sql.find(|c: char| !continues_name(c)).unwrap_or(sql.len());
            (Some(Token::Name { name: sql[..end].into(), bare: true }), &sql[end..])
        }
        c if c.is_ascii_digit() => {
            let end = number_end(sql);
            (Some(Token::Other(sql[..end].into())), &sql[end..])
        }
        _ => operator(sql),
    })
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_name(c: char) -> bool {
    starts_name(c) || c.is_ascii_digit() || c == '$'
}

fn quotation(sql: &str, quote: char, make: impl FnOnce(String) -> Token) -> (Option<Token>, &str) {
    let mut text = String::new();
    let mut rest = &sql[1..];
    while let Some((before, after)) = rest.split_once(quote) {
        text.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                text.push(quote);
                rest = more;
            }
            None => return (Some(make(text)), after),
        }
    }
    text.push_str(rest);
    (Some(make(text)), "")
}

fn blob(sql: &str) -> (Option<Token>, &str) {
    let end = sql[2..].find('\'').map_or(sql.len(), |at| at + 3);
    (Some(Token::Other(sql[..end].into())), &sql[end..])
}

fn number_end(sql: &str) -> usize {
    let mut previous = ' ';
    for (at, c) in sql.char_indices() {
        let sign_of_exponent = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !sql.starts_with("0x");
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign_of_exponent) {
            return at;
        }
        previous = c;
    }
    sql.len()
}

fn operator(sql: &str) -> (Option<Token>, &str) {
    const LONG: [&str; 9] = ["->>", "->", "||", "<<", ">>", "<=", ">=", "<>", "!="];
    let long = LONG.iter().find(|operator| sql.starts_with(**operator)).map(|operator| operator.len());
    let double = sql.starts_with("==").then_some(2);
    let end = long.or(double).unwrap_or_else(|| sql.chars().next().map_or(1, char::len_utf8));
    (Some(Token::Other(sql[..end].into())), &sql[end..])
}

/// The tokens between the first top-level parenthesis and its partner, and what follows it.
pub(crate) fn in_parentheses(tokens: &[Token]) -> Option<(&[Token], &[Token])> {
    let open = tokens.iter().position(|token| *token == Token::Open)?;
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some((&tokens[open + 1..at], &tokens[at + 1..]));
        }
    }
    None
}

/// Parts between top-level commas.
pub(crate) fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0usize;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => {
                found.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&tokens[start..]);
    found
}

/// What a CREATE INDEX indexes: the text of each part without collation and direction, and the WHERE clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexText {
    pub(crate) parts: Vec<String>,
    pub(crate) filter: Option<String>,
}

/// None: not understood.
pub(crate) fn index_text(sql: &str) -> Option<IndexText> {
    let all = tokens(sql);
    let on = all.iter().position(|token| token.is_word("ON"))?;
    let (columns, after) = in_parentheses(&all[on + 2..])?;
    let parts = parts(columns).into_iter().map(|part| written(without_direction(part))).collect();
    let filter = match after.first() {
        None => None,
        Some(token) if token.is_word("WHERE") => Some(written(&after[1..])),
        Some(_) => return None,
    };
    Some(IndexText { parts, filter })
}

fn without_direction(part: &[Token]) -> &[Token] {
    let part = match part.split_last() {
        Some((last, before)) if last.is_word("ASC") || last.is_word("DESC") => before,
        _ => part,
    };
    match part {
        [before @ .., collate, _] if collate.is_word("COLLATE") => before,
        _ => part,
    }
}

/// Whether any name among the tokens is one of these.
pub(crate) fn mentions(tokens: &[Token], names: &[&str]) -> bool {
    tokens.iter().any(|token| names.iter().any(|name| token.is_name(name)))
}

/// The tokens with column names changed; a name that calls a function or names a collation is none of a column's.
pub(crate) fn renamed(tokens: &[Token], new_name: impl Fn(&str) -> Option<String>) -> Vec<Token> {
    let mut result = tokens.to_vec();
    for at in 0..tokens.len() {
        let Token::Name { name, .. } = &tokens[at] else { continue };
        let calls = tokens.get(at + 1) == Some(&Token::Open);
        let collates = at > 0 && tokens[at - 1].is_word("COLLATE");
        if calls || collates {
            continue;
        }
        if let Some(new) = new_name(name) {
            result[at] = Token::Name { name: new, bare: false };
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_operators() {
        let sql = "CREATE TABLE \"x\"\"y\" ([a b] TEXT DEFAULT 'it''s', `c` /* no, */ INT, -- end\n ünï x'00', CHECK(c<>-1e+5))";
        let all = tokens(sql);
        assert!(all.contains(&Token::Name { name: "x\"y".into(), bare: false }));
        assert!(all.contains(&Token::Name { name: "a b".into(), bare: false }));
        assert!(all.contains(&Token::Text("it's".into())));
        assert!(all.contains(&Token::Name { name: "ünï".into(), bare: true }));
        assert!(all.contains(&Token::Other("1e+5".into())));
        let (inner, after) = in_parentheses(&all).unwrap();
        assert!(after.is_empty());
        assert_eq!(parts(inner).len(), 4);
        assert_eq!(tokens(&written(&all)), all);
    }

    #[test]
    fn an_index_is_taken_apart() {
        let text = index_text("CREATE UNIQUE INDEX i ON t (lower(a) COLLATE nocase DESC, b) WHERE b > 'x)'").unwrap();
        assert_eq!(text.parts, ["lower ( a )", "b"]);
        assert_eq!(text.filter.as_deref(), Some("b > 'x)'"));
    }

    #[test]
    fn columns_are_renamed_and_functions_are_not() {
        let all = tokens("lower(lower) = \"LOWER\" COLLATE lower");
        let new = renamed(&all, |name| name.eq_ignore_ascii_case("lower").then(|| "up".to_owned()));
        assert_eq!(written(&new), "lower ( \"up\" ) = \"up\" COLLATE lower");
    }
}
