//! A schema's file of a person's own, cut into steps: a `pg_dump` by its entries, any other by its statements.
//!
//! A statement whose kind is known to wait waits: indexes that are not unique until after the load, foreign keys,
//! triggers, rules, policies, rights, comments and refreshes until finish. All others run before the load, in their
//! order. Settings hold for the statements behind them; the transaction is the step's own.

use godwit_model::{SchemaItem, Stage};

use super::dump::staged_by_kind;
use super::entries;

pub(crate) fn staged(text: &str) -> Vec<SchemaItem> {
    let entries = entries::split(text);
    if !entries.is_empty() {
        return staged_by_kind(entries);
    }
    let mut settings: Vec<String> = Vec::new();
    let mut items = Vec::new();
    for statement in statements(text) {
        let words = leading_words(statement);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["BEGIN" | "COMMIT" | "END", ..] | ["START", "TRANSACTION", ..] => {}
            ["SET", "LOCAL", ..] => settings.push(statement.to_owned()),
            ["SET", ..] => settings.push(format!("SET LOCAL {}", after_words(statement, &words))),
            _ => items.push(item(items.len() + 1, statement, &words, &settings)),
        }
    }
    items
}

fn item(number: usize, statement: &str, words: &[String], settings: &[String]) -> SchemaItem {
    let sql = settings.iter().cloned().chain([statement.to_owned()]).collect();
    let id = format!("FILE {number}: {}", words.iter().take(4).cloned().collect::<Vec<_>>().join(" "));
    SchemaItem { id, stage: stage(statement, words), table: None, sql }
}

fn stage(statement: &str, words: &[String]) -> Stage {
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !matches!(*word, "OR" | "REPLACE")).collect();
    match words[..] {
        ["CREATE", "INDEX" | "STATISTICS", ..] => Stage::AfterLoad,
        ["CREATE", "TRIGGER" | "RULE" | "POLICY", ..]
        | ["CREATE", "CONSTRAINT" | "EVENT", "TRIGGER", ..]
        | ["GRANT" | "REVOKE" | "COMMENT", ..]
        | ["REFRESH", "MATERIALIZED", ..] => Stage::AtFinish,
        ["ALTER", "TABLE", ..] if waits(statement) => Stage::AtFinish,
        _ => Stage::BeforeLoad,
    }
}

/// An `ALTER TABLE` that adds a foreign key or turns row security or triggers on.
fn waits(statement: &str) -> bool {
    let plain = outside_quotes(statement).to_ascii_uppercase();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let has = |one: &str, two: &str| words.windows(2).any(|pair| pair[0] == one && pair[1].trim_start_matches('(') == two);
    has("FOREIGN", "KEY") || plain.contains("FOREIGN KEY(") || has("ROW", "LEVEL") || has("ENABLE", "TRIGGER") || has("DISABLE", "TRIGGER")
}

/// The first words of a statement in capitals, comments before them passed over.
fn leading_words(statement: &str) -> Vec<String> {
    const ENOUGH: usize = 6;
    let plain = outside_quotes(statement);
    let word = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').to_ascii_uppercase();
    plain.split_whitespace().take(ENOUGH).map(word).filter(|word| !word.is_empty()).collect()
}

/// What follows `SET` or `SET SESSION`.
fn after_words<'a>(statement: &'a str, words: &[String]) -> &'a str {
    let skip = if words.get(1).is_some_and(|word| word == "SESSION") { 2 } else { 1 };
    let start = statement.to_ascii_uppercase().find("SET").unwrap_or(0);
    let mut rest = &statement[start..];
    for _ in 0..skip {
        rest = rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
    }
    rest
}

fn outside_quotes(text: &str) -> String {
    pieces(text).into_iter().filter(|(piece, _)| *piece == Piece::Plain).map(|(_, text)| text).collect::<Vec<_>>().join(" ")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Plain,
    Comment,
    /// A literal, an identifier in quotes, a text between dollars.
    Quoted,
}

/// The text cut where quotes and comments begin and end; all of it, in order.
fn pieces(text: &str) -> Vec<(Piece, &str)> {
    let mut pieces = Vec::new();
    let (mut at, mut plain) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let Some((piece, length)) = special(rest, text[..at].chars().next_back(), escapes(&text[plain..at])) else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if plain < at {
            pieces.push((Piece::Plain, &text[plain..at]));
        }
        pieces.push((piece, &rest[..length]));
        at += length;
        plain = at;
    }
    if plain < text.len() {
        pieces.push((Piece::Plain, &text[plain..]));
    }
    pieces
}

/// Whether the literal that begins here is one with backslashes: `E'...'`.
fn escapes(before: &str) -> bool {
    let mut letters = before.chars().rev();
    matches!(letters.next(), Some('e' | 'E')) && !letters.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// A quote or comment at the beginning, and its length.
fn special(rest: &str, before: Option<char>, escapes: bool) -> Option<(Piece, usize)> {
    if rest.starts_with("--") {
        return Some((Piece::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Piece::Comment, nested_comment(rest)));
    }
    if rest.starts_with('\'') || rest.starts_with('"') {
        return Some((Piece::Quoted, quoted(rest, escapes)));
    }
    let inside_a_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
    if rest.starts_with('$') && !inside_a_name {
        let end = rest[1..].find('$')? + 2;
        let tag = &rest[..end];
        let name = &tag[1..end - 1];
        let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
        return is_tag.then(|| (Piece::Quoted, rest[end..].find(tag).map_or(rest.len(), |close| end + close + tag.len())));
    }
    None
}

fn nested_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Doubled quotes are two pieces side by side, which is as good.
fn quoted(rest: &str, escapes: bool) -> usize {
    let quote = rest.as_bytes()[0];
    let mut at = 1;
    while let Some(byte) = rest.as_bytes().get(at) {
        at += 1;
        match byte {
            b'\\' if escapes => at += 1,
            byte if *byte == quote => break,
            _ => {}
        }
    }
    at.min(rest.len())
}

/// Cut at the semicolons that end statements; those inside a body `BEGIN ATOMIC ... END` end none.
fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut body = Body::default();
    for (piece, part) in pieces(text) {
        if piece == Piece::Plain {
            for (offset, letter) in part.char_indices() {
                body.read(letter);
                if letter == ';' && body.depth == 0 {
                    found.push(text[start..at + offset].trim());
                    start = at + offset + 1;
                }
            }
        }
        body.read(' ');
        at += part.len();
    }
    found.push(text[start..].trim());
    found.retain(|statement| !outside_quotes(statement).trim().is_empty());
    found
}

/// How deep in `BEGIN ATOMIC` and `CASE` the text stands.
#[derive(Default)]
struct Body {
    depth: usize,
    word: String,
    last: String,
}

impl Body {
    fn read(&mut self, letter: char) {
        if letter.is_alphanumeric() || letter == '_' {
            self.word.extend(letter.to_uppercase());
            return;
        }
        if self.word.is_empty() {
            return;
        }
        match self.word.as_str() {
            "ATOMIC" if self.last == "BEGIN" => self.depth += 1,
            "CASE" if self.depth > 0 => self.depth += 1,
            "END" if self.depth > 0 => self.depth -= 1,
            _ => {}
        }
        self.last = std::mem::take(&mut self.word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "
-- a person's own; with a semicolon
BEGIN;
SET search_path TO shop;
CREATE TABLE a (id int PRIMARY KEY, t text DEFAULT 'x;''y' /* ; /* ; */ */);
CREATE UNIQUE INDEX u ON a (t);
CREATE INDEX \"i;j\" ON a (t);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $b$ BEGIN RETURN NEW; END $b$;
CREATE FUNCTION g(i int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN i > 0 THEN 1 END; SELECT 2; END;
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
ALTER TABLE ONLY a ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES b (id);
ALTER TABLE a ADD CHECK (t <> E'FOREIGN KEY \\'; ');
ALTER TABLE a ENABLE ROW LEVEL SECURITY;
COMMIT;
";

    #[test]
    fn statements_wait_by_their_kind() {
        let items = staged(SCRIPT);
        let stages: Vec<Stage> = items.iter().map(|item| item.stage).collect();
        use Stage::{AfterLoad, AtFinish, BeforeLoad};
        assert_eq!(
            stages,
            [BeforeLoad, BeforeLoad, AfterLoad, BeforeLoad, BeforeLoad, AtFinish, AtFinish, BeforeLoad, AtFinish],
            "{items:#?}"
        );
        assert!(items.iter().all(|item| item.sql.len() == 2 && item.sql[0] == "SET LOCAL search_path TO shop"), "{items:#?}");
        assert!(items[4].sql[1].ends_with("SELECT 2; END"), "{items:#?}");
    }

    #[test]
    fn a_partitioned_key_is_attached_before_the_load() {
        let entry = |name: &str, kind: &str, sql: &str| format!("--\n-- Name: {name}; Type: {kind}; Schema: s; Owner: o\n--\n\n{sql}\n\n");
        let text = [
            entry("i", "INDEX", "CREATE INDEX i ON ONLY s.t USING btree (b);"),
            entry("t t_pkey", "CONSTRAINT", "ALTER TABLE ONLY s.t ADD CONSTRAINT t_pkey PRIMARY KEY (a);"),
            entry("p p_pkey", "CONSTRAINT", "ALTER TABLE ONLY s.p ADD CONSTRAINT p_pkey PRIMARY KEY (a);"),
            entry("p_i", "INDEX", "CREATE INDEX p_i ON s.p USING btree (b);"),
            entry("p_i", "INDEX ATTACH", "ALTER INDEX s.i ATTACH PARTITION s.p_i;"),
            entry("p_pkey", "INDEX ATTACH", "ALTER INDEX s.t_pkey ATTACH PARTITION s.p_pkey;"),
        ];
        let stages: Vec<Stage> = staged(&text.concat()).iter().map(|item| item.stage).collect();
        use Stage::{AfterLoad, BeforeLoad};
        assert_eq!(stages, [AfterLoad, BeforeLoad, BeforeLoad, AfterLoad, AfterLoad, BeforeLoad]);
    }

    #[test]
    fn any_text_is_cut_without_loss() {
        for text in ["$", "$a", "$a$ x", "'", "\"", "/*", "--", "é$é$;é$é$", "E'\\", "a$b$c;d", "$1;$2"] {
            let whole: String = pieces(text).into_iter().map(|(_, part)| part).collect();
            assert_eq!(whole, text);
            staged(text);
        }
    }
}
