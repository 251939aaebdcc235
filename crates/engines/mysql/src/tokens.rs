//! The server's own DDL text cut into tokens, as far as it must be understood: where a definition's parts begin and end,
//! which names it mentions.
//!
//! The server writes texts with backslashes whatever the session's `sql_mode` says (seen on MariaDB 10.11 under
//! `NO_BACKSLASH_ESCAPES`: a backslash comes doubled, a quote within an expression as `\'`). Sessions of ours read them
//! without. So a text is kept as the bytes it stands for and written anew. A binary default stands there as it is, bytes
//! that are no UTF-8 and all: it is written in hexadecimal.

use crate::{hex, quote};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// In backquotes: always a name of the user's.
    Name(String),
    /// Bare: a word of the language, a function, a number.
    Word(String),
    Text(Vec<u8>),
    /// Operators and the like, as written.
    Other(String),
    Open,
    Close,
    Comma,
}

/// A token and whether a space stands before it: that decides what `f (`, `_latin1'a'` and `1e-5` mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) token: Token,
    pub(crate) spaced: bool,
}

impl Piece {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Word(own) if own.eq_ignore_ascii_case(word))
    }

    pub(crate) fn is(&self, token: &Token) -> bool {
        self.token == *token
    }
}

/// All tokens. What stands in comments for versions of the server is the server's own DDL too; other comments go.
pub(crate) fn pieces(sql: &[u8]) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut rest = sql;
    let mut spaced = false;
    while let Some(first) = rest.first() {
        if let Some(after) = skipped(rest) {
            (rest, spaced) = (after, true);
            continue;
        }
        let (token, after) = next(*first, rest);
        found.push(Piece { token, spaced });
        (rest, spaced) = (after, false);
    }
    found
}

/// What follows white space, or the beginning or the end of a comment.
fn skipped(sql: &[u8]) -> Option<&[u8]> {
    match sql {
        [first, after @ ..] if first.is_ascii_whitespace() => Some(after),
        [b'*', b'/', after @ ..] => Some(after),
        [b'/', b'*', b'!', after @ ..] | [b'/', b'*', b'M', b'!', after @ ..] => {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            Some(&after[digits..])
        }
        [b'/', b'*', after @ ..] => {
            let end = after.windows(2).position(|pair| pair == b"*/").map_or(after.len(), |at| at + 2);
            Some(&after[end..])
        }
        _ => None,
    }
}

fn next(first: u8, sql: &[u8]) -> (Token, &[u8]) {
    match first {
        b'(' => (Token::Open, &sql[1..]),
        b')' => (Token::Close, &sql[1..]),
        b',' => (Token::Comma, &sql[1..]),
        b'`' => {
            let (name, after) = quoted(&sql[1..], b'`', false);
            (Token::Name(lossy(&name)), after)
        }
        b'\'' | b'"' => {
            let (text, after) = quoted(&sql[1..], first, true);
            (Token::Text(text), after)
        }
        _ if is_of_word(first) => {
            let end = sql.iter().position(|byte| !is_of_word(*byte)).unwrap_or(sql.len());
            (Token::Word(lossy(&sql[..end])), &sql[end..])
        }
        _ => (Token::Other(char::from(first).to_string()), &sql[1..]),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'@') || !byte.is_ascii()
}

fn quoted(sql: &[u8], quote: u8, escapes: bool) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::new();
    let mut rest = sql;
    loop {
        match rest {
            [] => return (text, rest),
            [b'\\', escaped, after @ ..] if escapes => {
                unescape(*escaped, &mut text);
                rest = after;
            }
            [one, other, after @ ..] if *one == quote && *other == quote => {
                text.push(quote);
                rest = after;
            }
            [one, after @ ..] if *one == quote => return (text, after),
            [one, after @ ..] => {
                text.push(*one);
                rest = after;
            }
        }
    }
}

fn unescape(escaped: u8, text: &mut Vec<u8>) {
    match escaped {
        b'0' => text.push(0),
        b'b' => text.push(8),
        b't' => text.push(b'\t'),
        b'n' => text.push(b'\n'),
        b'r' => text.push(b'\r'),
        b'Z' => text.push(26),
        // patterns keep theirs
        b'%' | b'_' => text.extend([b'\\', escaped]),
        other => text.push(other),
    }
}

/// Text that sessions of ours read as these tokens.
pub(crate) fn written(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        if piece.spaced && !text.is_empty() {
            text.push(' ');
        }
        match &piece.token {
            Token::Name(name) => text.push_str(&quote::identifier(name)),
            Token::Word(word) | Token::Other(word) => text.push_str(word),
            Token::Text(bytes) => write_text(bytes, &mut text),
            Token::Open => text.push('('),
            Token::Close => text.push(')'),
            Token::Comma => text.push(','),
        }
    }
    text
}

fn write_text(bytes: &[u8], text: &mut String) {
    if let Ok(readable) = std::str::from_utf8(bytes) {
        text.push_str(&quote::literal(readable));
        return;
    }
    text.push(' ');
    text.push_str(&hex::literal(bytes));
}

/// The tokens between the first parenthesis that opens and its partner, and what follows it.
pub(crate) fn in_parentheses(pieces: &[Piece]) -> Option<(&[Piece], &[Piece])> {
    let open = pieces.iter().position(|piece| piece.is(&Token::Open))?;
    let mut depth = 0usize;
    for (at, piece) in pieces.iter().enumerate().skip(open) {
        depth = deeper(depth, piece);
        if depth == 0 {
            return Some((&pieces[open + 1..at], &pieces[at + 1..]));
        }
    }
    None
}

/// How many parentheses are open behind this piece.
pub(crate) fn deeper(depth: usize, piece: &Piece) -> usize {
    match piece.token {
        Token::Open => depth + 1,
        Token::Close => depth.saturating_sub(1),
        _ => depth,
    }
}

/// Parts between commas that stand in no parentheses.
pub(crate) fn parts(pieces: &[Piece]) -> Vec<&[Piece]> {
    let (mut depth, mut start) = (0, 0);
    let mut found = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        depth = deeper(depth, piece);
        if depth == 0 && piece.is(&Token::Comma) {
            found.push(&pieces[start..at]);
            start = at + 1;
        }
    }
    if start < pieces.len() {
        found.push(&pieces[start..]);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_written_as_our_sessions_read_them() {
        let line = b"`x``y` varchar(9) /*M!100301 COMPRESSED*/ DEFAULT 'a\\\\b''c\\'\\n%' CHECK (`a b` in (1,2) or f(1e-5) = _latin1'q')";
        let text = written(&pieces(line));
        assert_eq!(text, "`x``y` varchar(9) COMPRESSED DEFAULT 'a\\b''c''\n%' CHECK (`a b` in (1,2) or f(1e-5) = _latin1'q')");
        assert_eq!(written(&pieces(b"DEFAULT '\\0\xffA'")), "DEFAULT  x'00ff41'");
        assert_eq!(written(&pieces(b"DEFAULT b'101' COMMENT '\\%'")), "DEFAULT b'101' COMMENT '\\%'");
    }

    #[test]
    fn parts_end_at_their_own_commas() {
        let all = pieces(b"(`a` int, KEY (`a`,`b`), CHECK (`a` <> ',(')) ENGINE=InnoDB");
        let (inner, after) = in_parentheses(&all).unwrap();
        assert_eq!(parts(inner).len(), 3);
        assert_eq!(written(after), "ENGINE=InnoDB");
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_somehow(sql in proptest::collection::vec(any::<u8>(), 0..60)) {
            let all = pieces(&sql);
            parts(&all);
            in_parentheses(&all);
            written(&all);
        }
    }
}
