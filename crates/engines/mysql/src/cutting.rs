//! A person's SQL cut into its statements, as the server's parser and its client program would cut it.
//!
//! What a quote or a backslash means depends on the session's `sql_mode`, which statements of the text may set: so one
//! statement is cut at a time, under the mode that the session has by then. A body (`BEGIN ... END` of a routine, a trigger,
//! an event) is one statement with or without the client program's `DELIMITER`. What does not end is refused: a string
//! that holds more than it seems would be taken for one statement.

use godwit_model::{Error, Result, codes};

/// What of `sql_mode` decides where a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) escapes: bool,
    pub(crate) ansi_quotes: bool,
}

impl Mode {
    pub(crate) fn of(sql_mode: &str) -> Self {
        let has = |name: &str| sql_mode.split(',').any(|mode| mode == name);
        Mode { escapes: !has("NO_BACKSLASH_ESCAPES"), ansi_quotes: has("ANSI_QUOTES") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// With the comments before it, without what ends it.
    pub(crate) text: &'a str,
    /// Its first words, in capitals; names in quotes are not among them.
    words: Vec<String>,
    /// Between two lines of `DELIMITER` a semicolon stood outside of a body: the server may find several in it.
    pub(crate) may_be_several: bool,
}

/// What comes after it was cut.
pub(crate) struct Cutter<'a> {
    rest: &'a str,
    delimiter: &'a str,
}

/// Leading words that are kept: enough for `CREATE OR REPLACE DEFINER = a@b SQL SECURITY ... VIEW`.
const ENOUGH: usize = 10;
const SEMICOLON: &str = ";";

impl<'a> Cutter<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Cutter { rest: text, delimiter: SEMICOLON }
    }

    /// None: nothing but comments is left.
    pub(crate) fn next(&mut self, mode: Mode) -> Result<Option<Statement<'a>>> {
        while !self.rest.is_empty() {
            if let Some((delimiter, after)) = delimiter_command(self.rest) {
                (self.delimiter, self.rest) = (delimiter, after);
                continue;
            }
            let (statement, after) = self.cut(mode)?;
            self.rest = after;
            if statement.is_some() {
                return Ok(statement);
            }
        }
        Ok(None)
    }

    fn cut(&self, mode: Mode) -> Result<(Option<Statement<'a>>, &'a str)> {
        let mut reader = Reader { delimiter: self.delimiter, ..Reader::default() };
        let mut at = 0;
        while at < self.rest.len() {
            let here = &self.rest[at..];
            // comments before such a line are of no statement
            if !reader.has_begun && delimiter_command(here).is_some() {
                return Ok((None, here));
            }
            if reader.ends_at(here) {
                let after = &here[self.delimiter_at(here)..];
                return Ok((reader.statement(&self.rest[..at]), after));
            }
            let (piece, length) = piece(here, mode, reader.in_version).ok_or_else(|| unended(here))?;
            let length = if piece == Piece::Word { self.before_delimiter(&here[..length]) } else { length };
            reader.read(piece, &here[..length]);
            at += length;
        }
        if reader.in_version || (reader.delimiter == SEMICOLON && reader.body.depth > 0) {
            return Err(unended(self.rest));
        }
        Ok((reader.statement(self.rest), ""))
    }

    /// How much of a word stands before the delimiter: `END$$` is two things.
    fn before_delimiter(&self, word: &str) -> usize {
        word.find(self.delimiter).unwrap_or(word.len())
    }

    /// The length of what ends a statement here.
    fn delimiter_at(&self, here: &str) -> usize {
        if here.starts_with(self.delimiter) { self.delimiter.len() } else { SEMICOLON.len() }
    }
}

fn unended(text: &str) -> Error {
    let begin: String = text.trim_start().chars().take(40).collect();
    Error::new(&codes::TASK_VALUE, format!("what begins with `{begin}` has no end: a quote, a comment or a body (BEGIN ... END)"))
        .remedy("end it; around a body, lines `DELIMITER //` and `DELIMITER ;` say where it ends")
}

/// What a line `DELIMITER x` says, and what follows the line.
fn delimiter_command(text: &str) -> Option<(&str, &str)> {
    let line = text.trim_start();
    let (word, rest) = line.split_at_checked("DELIMITER".len())?;
    if !word.eq_ignore_ascii_case("DELIMITER") || !rest.starts_with([' ', '\t']) {
        return None;
    }
    let end = rest.find('\n').unwrap_or(rest.len());
    let delimiter = rest[..end].split_whitespace().next()?;
    Some((delimiter, &rest[end..]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Space,
    Comment,
    Quoted,
    Word,
    /// `/*!50003`: what follows is read by servers of that version.
    Opening,
    Closing,
    Other,
}

/// What a text begins with, and its length; None: it has no end.
fn piece(text: &str, mode: Mode, in_version: bool) -> Option<(Piece, usize)> {
    let first = text.chars().next()?;
    let rest_of_line = || text.find('\n').unwrap_or(text.len());
    let run = |belongs: fn(char) -> bool| text.find(|c| !belongs(c)).unwrap_or(text.len());
    Some(match first {
        _ if first.is_whitespace() => (Piece::Space, run(char::is_whitespace)),
        '#' => (Piece::Comment, rest_of_line()),
        '-' if is_dashed(text) => (Piece::Comment, rest_of_line()),
        '/' if text.starts_with("/*") => match version_comment(text) {
            Some(length) => (Piece::Opening, length),
            None => (Piece::Comment, 2 + text[2..].find("*/")? + 2),
        },
        '*' if in_version && text.starts_with("*/") => (Piece::Closing, 2),
        '`' => (Piece::Quoted, quoted(text, false)?),
        '\'' => (Piece::Quoted, quoted(text, mode.escapes)?),
        '"' => (Piece::Quoted, quoted(text, mode.escapes && !mode.ansi_quotes)?),
        _ if is_of_word(first) => (Piece::Word, run(is_of_word)),
        _ => (Piece::Other, first.len_utf8()),
    })
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Two dashes are a comment only before a blank.
fn is_dashed(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| rest.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control()))
}

/// The length of `/*!50003` or `/*M!100301`. 999999 is no server's: what dumps tell their readers with it is a comment.
fn version_comment(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("/*!").or_else(|| text.strip_prefix("/*M!"))?;
    let digits = rest.bytes().take(6).take_while(u8::is_ascii_digit).count();
    (!rest.starts_with("999999")).then(|| text.len() - rest.len() + digits)
}

/// Doubled quotes are two pieces side by side, which is as good.
fn quoted(text: &str, escapes: bool) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' && escapes {
            characters.next();
        } else if c == quote {
            return Some(at + quote.len_utf8());
        }
    }
    None
}

/// What of a statement was read so far.
#[derive(Default)]
struct Reader<'a> {
    delimiter: &'a str,
    /// By more than blanks and comments.
    has_begun: bool,
    in_version: bool,
    words: Vec<String>,
    body: Body,
    /// A semicolon stood outside of its body.
    has_ended: bool,
    may_be_several: bool,
}

impl Reader<'_> {
    /// Under another delimiter a semicolon ends a statement too, unless it may stand in a body.
    fn ends_at(&self, here: &str) -> bool {
        if self.in_version {
            return false;
        }
        let is_plain = self.delimiter == SEMICOLON;
        (here.starts_with(self.delimiter) && !(is_plain && self.body.depth > 0))
            || (here.starts_with(SEMICOLON) && !is_plain && !self.has_body())
    }

    fn read(&mut self, piece: Piece, text: &str) {
        match piece {
            Piece::Space | Piece::Comment => return,
            Piece::Opening => self.in_version = true,
            Piece::Closing => self.in_version = false,
            Piece::Word => self.word(text.to_uppercase()),
            Piece::Quoted => self.body.last.clear(),
            Piece::Other => {
                self.has_ended |= text == SEMICOLON && self.body.depth == 0;
                text.clone_into(&mut self.body.last);
            }
        }
        self.may_be_several |= self.has_ended && text != SEMICOLON;
        self.has_begun = true;
    }

    fn word(&mut self, word: String) {
        let had_body = self.has_body();
        if self.words.len() < ENOUGH {
            self.words.push(word.clone());
        }
        match (had_body, self.has_body()) {
            (true, _) => self.body.word(word),
            // `BEGIN NOT ATOMIC`; a package ends with an END of its own
            (false, true) => self.body.depth = usize::from(self.words[0] == "BEGIN" || word == "PACKAGE"),
            (false, false) => {}
        }
    }

    /// Whether semicolons may stand in it.
    fn has_body(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        matches!(words[..], ["BEGIN", "NOT", ..])
            || matches!(made(&words), Some("PROCEDURE" | "FUNCTION" | "TRIGGER" | "EVENT" | "PACKAGE"))
    }

    fn statement(self, text: &str) -> Option<Statement<'_>> {
        self.has_begun.then(|| Statement { text: text.trim(), words: self.words, may_be_several: self.may_be_several })
    }
}

/// What a statement that begins with these words makes.
fn made<'w>(words: &[&'w str]) -> Option<&'w str> {
    const KINDS: [&str; 13] = [
        "TABLE",
        "VIEW",
        "INDEX",
        "DATABASE",
        "SCHEMA",
        "SEQUENCE",
        "USER",
        "ROLE",
        "PROCEDURE",
        "FUNCTION",
        "TRIGGER",
        "EVENT",
        "PACKAGE",
    ];
    let (first, rest) = words.split_first()?;
    rest.iter().find(|word| KINDS.contains(word)).copied().filter(|_| *first == "CREATE")
}

/// How deep in `BEGIN` and `CASE` the text stands.
#[derive(Default)]
struct Body {
    depth: usize,
    /// The word or sign before.
    last: String,
}

impl Body {
    fn word(&mut self, word: String) {
        match (self.last.as_str(), word.as_str()) {
            // a column of that name
            (".", _) => {}
            ("END", "IF" | "LOOP" | "WHILE" | "REPEAT" | "FOR") => self.depth += 1,
            ("END", "CASE") => {}
            (_, "BEGIN" | "CASE") => self.depth += 1,
            (_, "END") => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.last = word;
    }
}

impl Statement<'_> {
    fn begins_with(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(own, word)| own == word)
    }

    /// Whether statements behind it need it, on whatever session they run: `SET`, `USE`.
    pub(crate) fn is_setting(&self) -> bool {
        self.begins_with(&["USE"]) || (self.begins_with(&["SET"]) && !self.begins_with(&["SET", "STATEMENT"]))
    }

    /// Whether it begins or ends what is the step's own: its transaction and its locks.
    pub(crate) fn is_of_transaction(&self) -> bool {
        let begins = self.begins_with(&["BEGIN"]) && !self.begins_with(&["BEGIN", "NOT"]);
        let others = [&["START", "TRANSACTION"][..], &["COMMIT"], &["LOCK", "TABLES"], &["LOCK", "TABLE"], &["UNLOCK", "TABLES"]];
        begins || others.iter().any(|words| self.begins_with(words))
    }

    pub(crate) fn is_rollback(&self) -> bool {
        self.begins_with(&["ROLLBACK"])
    }

    pub(crate) fn makes_trigger(&self) -> bool {
        made(&self.words.iter().map(String::as_str).collect::<Vec<_>>()) == Some("TRIGGER")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mode = Mode { escapes: false, ansi_quotes: false };
    const THEIRS: Mode = Mode { escapes: true, ansi_quotes: false };

    fn all(text: &str, mode: Mode) -> Result<Vec<Statement<'_>>> {
        let mut cutter = Cutter::new(text);
        std::iter::from_fn(|| cutter.next(mode).transpose()).collect()
    }

    fn texts(text: &str, mode: Mode) -> Vec<&str> {
        all(text, mode).unwrap().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let text =
            "-- one; \nCREATE TABLE a (t text DEFAULT 'x;''y' /* ; */ COMMENT \"a;b\"); # two;\n CREATE TABLE `b;``c` (a int);;\n--;\n";
        assert_eq!(
            texts(text, OURS),
            ["-- one; \nCREATE TABLE a (t text DEFAULT 'x;''y' /* ; */ COMMENT \"a;b\")", "# two;\n CREATE TABLE `b;``c` (a int)", "--"]
        );
        assert_eq!(texts("SELECT 1 -- why;\n;\n-- end;\n/* ; */", OURS), ["SELECT 1 -- why;"]);
        assert_eq!(texts("SELECT 5--1; SELECT 2", OURS), ["SELECT 5--1", "SELECT 2"]);
    }

    #[test]
    fn a_backslash_means_what_the_session_says() {
        let text = r#"SET @a = 'it\'; SET @b = ';x'"#;
        assert_eq!(texts(text, OURS), [r"SET @a = 'it\'", "SET @b = ';x'"]);
        assert!(all(text, THEIRS).is_err(), "a quote stays open");
        assert_eq!(texts(r#"SET @a = "\";"; SELECT 1"#, THEIRS), [r#"SET @a = "\";""#, "SELECT 1"]);
        let ansi = Mode { ansi_quotes: true, ..THEIRS };
        assert_eq!(texts(r#"SELECT "a\"; SELECT 1"#, ansi), [r#"SELECT "a\""#, "SELECT 1"]);
        assert_eq!(Mode::of("STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES"), OURS);
        assert_eq!(Mode::of(""), THEIRS);
    }

    #[test]
    fn bodies_are_one_statement() {
        let procedure = "CREATE OR REPLACE DEFINER=`a;`@`%` PROCEDURE p() BEGIN IF a THEN SET @x = CASE 1 WHEN 1 THEN 2 END; END IF; \
             CASE b WHEN 1 THEN SELECT NEW.end; END CASE; BEGIN SELECT t.begin; END; LOOP SELECT 1; END LOOP; END";
        let trigger =
            "/*!50003 CREATE*/ /*!50017 DEFINER=a@b*/ /*!50003 TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET NEW.a = 1; END */";
        let event = "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS now() ENDS now() DO DELETE FROM a";
        let ended = format!("{procedure};");
        let block = "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END";
        let text = format!(
            "{procedure};\n{event};{block}; SELECT 3;\nDELIMITER ;;\n{trigger};;\n delimiter // \n{procedure};//\nSELECT 4; SELECT 5//DELIMITER ;\nBEGIN; SELECT 6; COMMIT"
        );
        let expected = [procedure, event, block, "SELECT 3", trigger, &ended, "SELECT 4", "SELECT 5", "BEGIN", "SELECT 6", "COMMIT"];
        let found = all(&text, OURS).unwrap();
        assert_eq!(found.iter().map(|one| one.text).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|one| !one.may_be_several));
        assert!(found[4].makes_trigger() && !found[0].makes_trigger());
        let dollars = all("DELIMITER $$\nCREATE PROCEDURE p() BEGIN SELECT 1; END$$\nCREATE PROCEDURE q() DELETE FROM t$$", OURS).unwrap();
        let dollars: Vec<&str> = dollars.iter().map(|statement| statement.text.trim()).collect();
        assert_eq!(dollars, ["CREATE PROCEDURE p() BEGIN SELECT 1; END", "CREATE PROCEDURE q() DELETE FROM t"]);
        let several = all("DELIMITER //\nCREATE PROCEDURE p() SELECT 1; CREATE TABLE a (a int)//", OURS).unwrap();
        assert!(several.len() == 1 && several[0].may_be_several);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for text in [
            "SELECT 'a",
            "SELECT `a",
            "CREATE TABLE a (a int); /* x",
            "CREATE PROCEDURE p() BEGIN SELECT 1;",
            "SELECT \"a",
            "/*!50003 SELECT 1;",
        ] {
            assert!(all(text, OURS).unwrap_err().is(&codes::TASK_VALUE), "{text}");
        }
    }

    #[test]
    fn settings_of_dumps_are_known() {
        let dump = "/*M!999999\\- don't mind */ \n-- Dump\n/*!40101 SET @OLD=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\nUSE `a`;
            SET STATEMENT max_statement_time = 1 FOR DELETE FROM a; LOCK TABLES `a` WRITE; START TRANSACTION; START SLAVE; ROLLBACK;";
        let found = all(dump, OURS).unwrap();
        let kinds: Vec<(bool, bool)> = found.iter().map(|one| (one.is_setting(), one.is_of_transaction())).collect();
        let (setting, own, other) = ((true, false), (false, true), (false, false));
        assert_eq!(kinds, [setting, setting, other, own, own, other, other]);
        assert!(found[6].is_rollback());
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_loss(text in "(['\"`;/*! \\\\\n#-]|BEGIN|END|CREATE EVENT|DELIMITER |[a-é$]){0,30}") {
            for mode in [OURS, THEIRS] {
                for statement in all(&text, mode).unwrap_or_default() {
                    prop_assert!(text.contains(statement.text) && !statement.text.is_empty());
                }
            }
        }
    }
}
