//! What a statement that stands in the log as text does to tables: as much of it as a stream must know.
//!
//! Only the first words and the names are read. Comments are skipped, but what servers execute of them (`/*! .. */`) is read;
//! quotes, escapes and the default database are the session's own. Whatever is not surely understood is `Unclear`: then a
//! stream stops, for a change that is overlooked is lost.

use std::borrow::Cow;

use godwit_model::TableName;

use crate::binlog::Query;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    /// A word on an XA transaction, in it or on one that was prepared earlier.
    Xa,
    Truncate(TableName),
    /// The structure of these tables, or which rows are in them, is another afterwards.
    Tables(Vec<TableName>),
    /// All tables of a database are gone, or may be.
    Database(String),
    /// Rows were changed, by a statement instead of row by row. Of which tables the statement does not tell: those that it
    /// names may be views or have triggers, and functions that it calls change others.
    Rows,
    /// Nothing that changes a table's rows or columns.
    Harmless,
    Unclear,
}

impl Statement {
    /// A name in it whose characters are not known holds `UNKNOWN` in their place.
    pub(crate) fn read(query: &Query<'_>) -> Self {
        let (Some(sql), Ok(database)) = (text(query), std::str::from_utf8(query.database)) else { return Statement::Unclear };
        let Some(tokens) = tokens(&sql, query.sql_mode) else { return Statement::Unclear };
        Words { tokens: &tokens, database }.statement().unwrap_or(Statement::Unclear)
    }
}

/// Stands for what is not ASCII and cannot be told.
pub(crate) const UNKNOWN: char = char::REPLACEMENT_CHARACTER;

/// Numbers of collations, by their character sets, as `information_schema.COLLATIONS` has them: latin1; utf8mb3 and utf8mb4;
/// big5, sjis, gbk and cp932. Above 2047 are MariaDB's newer ones of utf8mb3 and utf8mb4 (with utf16 between them, which no
/// client speaks).
fn is_latin1(client: u16) -> bool {
    matches!(client, 5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 | 1032 | 1071)
}

fn is_utf8(client: u16) -> bool {
    matches!(client,
        33 | 45 | 46 | 76 | 83 | 192..=247 | 255..=323 | 576..=578 | 608..=610 | 1057 | 1069 | 1070 | 1107 | 1216 | 1238 | 1248 | 1270 | 2048..)
}

/// The second byte of a character may be one that is a quote or a backslash elsewhere; or it is not known which set it is.
fn may_hide_quotes(client: u16) -> bool {
    matches!(client & 1023, 0 | 1 | 13 | 28 | 84 | 87 | 88 | 95 | 96 | 248..=250)
}

/// The statement as its client wrote it. What is ASCII alone is the same in every character set that clients may have.
fn text<'a>(query: &'a Query<'_>) -> Option<Cow<'a, str>> {
    if query.sql.is_ascii() || is_utf8(query.client) {
        return Some(String::from_utf8_lossy(&query.sql));
    }
    if may_hide_quotes(query.client) {
        return None;
    }
    let is_known = |byte: &u8| byte.is_ascii() || is_latin1(query.client) && *byte > 0xA0;
    // latin1's 0xA0 is a blank to the server, and below it stand characters of another order than Unicode's
    let character = |byte: &u8| if is_known(byte) { char::from(*byte) } else { UNKNOWN };
    Some(query.sql.iter().map(character).collect())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Not quoted: a keyword, or a name.
    Word(String),
    /// A quoted name.
    Name(String),
    Text,
    Symbol(char),
}

const ANSI_QUOTES: u64 = 1 << 2;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// None: a quote or comment does not end.
fn tokens(sql: &str, sql_mode: u64) -> Option<Vec<Token>> {
    let mut rest = sql;
    let mut found = Vec::new();
    let mut executed = false;
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            c if is_blank(c) || c == '\0' => (None, &rest[1..]),
            '#' => (None, rest.split_once('\n').map_or("", |(_, after)| after)),
            '-' if is_dash_comment(rest) => (None, rest.split_once('\n').map_or("", |(_, after)| after)),
            '/' if rest.starts_with("/*") => match executable(rest) {
                Some(code) => {
                    executed = true;
                    (None, code)
                }
                None => (None, rest[2..].split_once("*/")?.1),
            },
            '*' if executed && rest.starts_with("*/") => {
                executed = false;
                (None, &rest[2..])
            }
            '`' => quoted(rest, false).map(|(name, after)| (Some(Token::Name(name)), after))?,
            '"' if sql_mode & ANSI_QUOTES != 0 => quoted(rest, false).map(|(name, after)| (Some(Token::Name(name)), after))?,
            '"' | '\'' => quoted(rest, sql_mode & NO_BACKSLASH_ESCAPES == 0).map(|(_, after)| (Some(Token::Text), after))?,
            c if is_of_word(c) => {
                let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                (Some(Token::Word(rest[..end].to_owned())), &rest[end..])
            }
            c => (Some(Token::Symbol(c)), &rest[c.len_utf8()..]),
        };
        found.extend(token);
        rest = after;
    }
    (!executed).then_some(found)
}

/// To the server a blank of Unicode's is a part of a name.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn is_dash_comment(rest: &str) -> bool {
    rest.strip_prefix("--").is_some_and(|after| after.chars().next().is_none_or(|c| is_blank(c) || c.is_ascii_control()))
}

/// The code in a comment that servers execute, `/*!50100 .. */` and MariaDB's `/*M! .. */`; whether this server's version did
/// does not matter.
fn executable(rest: &str) -> Option<&str> {
    let code = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!"))?;
    Some(code.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// What stands between the first character and its next one, doubled ones once; and what follows.
fn quoted(rest: &str, has_escapes: bool) -> Option<(String, &str)> {
    let mut characters = rest.char_indices().peekable();
    let (_, quote) = characters.next()?;
    let mut content = String::new();
    while let Some((at, c)) = characters.next() {
        if has_escapes && c == '\\' {
            content.push(characters.next()?.1);
        } else if c != quote {
            content.push(c);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((content, &rest[at + quote.len_utf8()..]));
        }
    }
    None
}

/// The words of a statement that are still to be read. Every method gives None where it finds what it does not expect.
struct Words<'a> {
    tokens: &'a [Token],
    database: &'a str,
}

impl Words<'_> {
    fn peek_word(&self) -> Option<String> {
        match self.tokens.first() {
            Some(Token::Word(word)) => Some(word.to_ascii_uppercase()),
            _ => None,
        }
    }

    fn next_word(&mut self) -> Option<String> {
        let word = self.peek_word()?;
        self.skip();
        Some(word)
    }

    fn skip(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    /// Whether this word comes next; then it is taken.
    fn accept(&mut self, word: &str) -> bool {
        let found = self.peek_word().is_some_and(|next| next == word);
        if found {
            self.skip();
        }
        found
    }

    fn accept_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.accept(word))
    }

    fn accept_symbol(&mut self, symbol: char) -> bool {
        let found = self.tokens.first() == Some(&Token::Symbol(symbol));
        if found {
            self.skip();
        }
        found
    }

    fn is_over(&self) -> bool {
        self.tokens.iter().all(|token| *token == Token::Symbol(';'))
    }

    fn one_name(&mut self) -> Option<String> {
        let name = match self.tokens.first()? {
            Token::Word(name) | Token::Name(name) => name.clone(),
            Token::Text | Token::Symbol(_) => return None,
        };
        self.skip();
        Some(name)
    }

    fn table(&mut self) -> Option<TableName> {
        let first = self.one_name()?;
        match self.accept_symbol('.') {
            true => Some(TableName { schema: first, name: self.one_name()? }),
            false => Some(TableName { schema: self.database.to_owned(), name: first }),
        }
    }

    fn if_exists(&mut self) -> Option<()> {
        if self.accept("IF") {
            self.accept("NOT");
            return self.accept("EXISTS").then_some(());
        }
        Some(())
    }

    fn statement(&mut self) -> Option<Statement> {
        // a statement in parentheses begins with a query
        if self.tokens.first() == Some(&Token::Symbol('(')) {
            return Some(Statement::Rows);
        }
        Some(match self.next_word()?.as_str() {
            "BEGIN" => self.nothing_but(&["WORK"], Statement::Begin)?,
            "START" if self.accept("TRANSACTION") => Statement::Begin,
            "COMMIT" => self.nothing_but(&["WORK"], Statement::Commit)?,
            "ROLLBACK" => self.rollback()?,
            "SAVEPOINT" => Statement::Savepoint(self.one_name()?),
            "XA" => Statement::Xa,
            "TRUNCATE" => {
                self.accept("TABLE");
                Statement::Truncate(self.table()?)
            }
            "CREATE" => self.create()?,
            "DROP" => self.drop()?,
            "ALTER" => self.alter()?,
            "RENAME" => self.rename()?,
            "REPAIR" => {
                self.accept_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
                let is_of_tables = self.accept_any(&["TABLE", "TABLES"]);
                if is_of_tables { Statement::Tables(self.tables()?) } else { Statement::Harmless }
            }
            "SET" => self.set()?,
            "ANALYZE" => {
                self.accept_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
                // ANALYZE of a statement executes it
                if self.accept_any(&["TABLE", "TABLES"]) { Statement::Harmless } else { Statement::Rows }
            }
            // queries, calls and expressions are logged where a function or a procedure changes rows
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH" | "SELECT" | "VALUES" | "CALL" | "DO" => Statement::Rows,
            "RELEASE" | "OPTIMIZE" | "CHECK" | "GRANT" | "REVOKE" | "FLUSH" | "INSTALL" | "UNINSTALL" | "RESET" | "PURGE" | "CHANGE"
            | "USE" | "KILL" | "SHUTDOWN" | "SIGNAL" => Statement::Harmless,
            _ => Statement::Unclear,
        })
    }

    fn nothing_but(&mut self, words: &[&str], statement: Statement) -> Option<Statement> {
        self.accept_any(words);
        self.is_over().then_some(statement)
    }

    fn rollback(&mut self) -> Option<Statement> {
        self.accept("WORK");
        if !self.accept("TO") {
            return self.is_over().then_some(Statement::Rollback);
        }
        self.accept("SAVEPOINT");
        Some(Statement::RollbackTo(self.one_name()?))
    }

    /// The kind of object that a CREATE or DROP is about, and whether OR REPLACE and TEMPORARY stood before it.
    fn object(&mut self) -> Option<(String, bool, bool)> {
        const OBJECTS: [&str; 17] = [
            "TABLE",
            "TABLES",
            "INDEX",
            "DATABASE",
            "SCHEMA",
            "VIEW",
            "TRIGGER",
            "PROCEDURE",
            "FUNCTION",
            "PACKAGE",
            "EVENT",
            "USER",
            "ROLE",
            "SERVER",
            "SEQUENCE",
            "TABLESPACE",
            "PREPARE",
        ];
        let (mut replaces, mut temporary) = (false, false);
        while !self.tokens.is_empty() {
            match self.peek_word() {
                Some(word) if OBJECTS.contains(&word.as_str()) => {
                    self.skip();
                    return Some((word, replaces, temporary));
                }
                Some(word) => {
                    replaces |= word == "REPLACE";
                    temporary |= word == "TEMPORARY";
                }
                None => {}
            }
            self.skip();
        }
        None
    }

    fn create(&mut self) -> Option<Statement> {
        let (object, replaces, temporary) = self.object()?;
        Some(match object.as_str() {
            "TABLE" if self.has_query() => Statement::Rows,
            _ if temporary => Statement::Harmless,
            // a sequence may take the place of a table too
            "TABLE" | "SEQUENCE" => {
                self.if_exists()?;
                let table = self.table()?;
                // a table that is there already is left as it is
                if replaces { Statement::Tables(vec![table]) } else { Statement::Harmless }
            }
            "INDEX" => self.index()?,
            "DATABASE" | "SCHEMA" => {
                self.if_exists()?;
                let database = self.one_name()?;
                if replaces { Statement::Database(database) } else { Statement::Harmless }
            }
            _ => Statement::Harmless,
        })
    }

    /// Whether the table is made of a query, which may call functions. Where rows are logged, such a table is logged as an
    /// empty one, and then its rows.
    fn has_query(&self) -> bool {
        let is_query = |pair: &[Token]| match pair {
            [Token::Word(word), after] => {
                word.eq_ignore_ascii_case("SELECT") || word.eq_ignore_ascii_case("VALUES") && *after == Token::Symbol('(')
            }
            _ => false,
        };
        self.tokens.windows(2).any(is_query)
    }

    /// `[IF [NOT] EXISTS] name [USING type] ON table`.
    fn index(&mut self) -> Option<Statement> {
        self.if_exists()?;
        self.one_name()?;
        if self.accept("USING") {
            self.next_word()?;
        }
        self.accept("ON").then_some(())?;
        Some(Statement::Tables(vec![self.table()?]))
    }

    fn drop(&mut self) -> Option<Statement> {
        let (object, _, temporary) = self.object()?;
        Some(match object.as_str() {
            _ if temporary => Statement::Harmless,
            "TABLE" | "TABLES" => {
                self.if_exists()?;
                Statement::Tables(self.tables()?)
            }
            "INDEX" => self.index()?,
            "DATABASE" | "SCHEMA" => {
                self.if_exists()?;
                Statement::Database(self.one_name()?)
            }
            _ => Statement::Harmless,
        })
    }

    /// A list of tables, and words that may follow it.
    fn tables(&mut self) -> Option<Vec<TableName>> {
        let mut tables = vec![self.table()?];
        while self.accept_symbol(',') {
            tables.push(self.table()?);
        }
        Some(tables)
    }

    fn alter(&mut self) -> Option<Statement> {
        while self.accept_any(&["ONLINE", "OFFLINE", "IGNORE"]) {}
        match self.peek_word()?.as_str() {
            "TABLE" => {
                self.skip();
                self.if_exists()?;
                let mut tables = vec![self.table()?];
                tables.extend(self.others_of_alter()?);
                Some(Statement::Tables(tables))
            }
            // of what another object is, no table changes
            "DATABASE" | "SCHEMA" | "VIEW" | "PROCEDURE" | "FUNCTION" | "EVENT" | "USER" | "ROLE" | "SERVER" | "SEQUENCE" | "DEFINER"
            | "ALGORITHM" | "SQL" => Some(Statement::Harmless),
            _ => None,
        }
    }

    /// Tables that an ALTER TABLE speaks of besides its own: a new name, a partition's exchange or conversion.
    fn others_of_alter(&mut self) -> Option<Vec<TableName>> {
        let mut tables = Vec::new();
        let mut depth = 0usize;
        while let Some(token) = self.tokens.first() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth > 0 {
                self.skip();
            } else if self.accept("RENAME") {
                if !self.accept_any(&["COLUMN", "INDEX", "KEY"]) {
                    self.accept_any(&["TO", "AS"]);
                    self.accept_symbol('=');
                    tables.push(self.table()?);
                }
            } else if self.accept("TABLE") {
                tables.push(self.table()?);
            } else {
                self.skip();
            }
        }
        Some(tables)
    }

    fn rename(&mut self) -> Option<Statement> {
        if self.accept("USER") {
            return Some(Statement::Harmless);
        }
        self.accept_any(&["TABLE", "TABLES"]).then_some(())?;
        self.if_exists()?;
        let mut tables = Vec::new();
        loop {
            tables.push(self.table()?);
            if self.accept("WAIT") {
                self.next_word()?;
            }
            self.accept("NOWAIT");
            self.accept("TO").then_some(())?;
            tables.push(self.table()?);
            if !self.accept_symbol(',') {
                break;
            }
        }
        self.is_over().then_some(Statement::Tables(tables))
    }

    /// `SET STATEMENT variable = value, .. FOR statement` is logged as it was written.
    fn set(&mut self) -> Option<Statement> {
        if !self.accept("STATEMENT") {
            return Some(Statement::Harmless);
        }
        let mut depth = 0usize;
        loop {
            match self.tokens.first()? {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 && self.accept("FOR") {
                return self.statement();
            }
            self.skip();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query<'a>(sql: &'a [u8], sql_mode: u64, client: u16) -> Query<'a> {
        Query { database: b"shop", sql: Cow::Borrowed(sql), sql_mode, client }
    }

    fn read(sql: &str) -> Statement {
        Statement::read(&query(sql.as_bytes(), 0, 45))
    }

    fn shop(name: &str) -> TableName {
        TableName::new("shop", name)
    }

    fn tables(names: &[&str]) -> Statement {
        Statement::Tables(names.iter().map(|name| shop(name)).collect())
    }

    #[test]
    fn what_a_transaction_is_made_of() {
        assert_eq!(read("BEGIN"), Statement::Begin);
        assert_eq!(read("COMMIT"), Statement::Commit);
        assert_eq!(read("ROLLBACK"), Statement::Rollback);
        assert_eq!(read("SAVEPOINT `a``b`"), Statement::Savepoint("a`b".into()));
        assert_eq!(read("ROLLBACK TO `q`"), Statement::RollbackTo("q".into()));
        assert_eq!(read("ROLLBACK WORK TO SAVEPOINT q"), Statement::RollbackTo("q".into()));
        assert_eq!(read("XA COMMIT X'61',X'',1"), Statement::Xa);
        assert_eq!(read("BEGIN NOT ATOMIC DROP TABLE t; END"), Statement::Unclear);
    }

    #[test]
    fn tables_are_named_whatever_stands_around_them() {
        for sql in [
            "alter table t add column a int",
            "ALTER /* a comment */ TABLE -- another\n `t` ENGINE=InnoDB",
            "ALTER ONLINE IGNORE TABLE IF EXISTS t DROP a",
            "ALTER TABLE shop . t COMMENT 'it''s; ALTER TABLE x'",
            "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
            "DROP TABLE IF EXISTS `t` /* generated by server */",
            "drop table t wait 10",
            "CREATE OR REPLACE TABLE t (a int)",
            "CREATE OR REPLACE SEQUENCE t START WITH 7",
            "CREATE UNIQUE INDEX IF NOT EXISTS i USING BTREE ON t (a)",
            "CREATE INDEX `on` ON t (a)",
            "DROP INDEX i ON t",
            "SET STATEMENT max_statement_time=(10), lock_wait_timeout=1 FOR ALTER TABLE t FORCE",
            "REPAIR NO_WRITE_TO_BINLOG TABLE t",
            "# alter\nalter table t force;",
        ] {
            assert_eq!(read(sql), tables(&["t"]), "{sql}");
        }
        assert_eq!(read("RENAME TABLE t TO u, `v` wait 5 to x"), tables(&["t", "u", "v", "x"]));
        assert_eq!(read("ALTER TABLE t RENAME TO u"), tables(&["t", "u"]));
        assert_eq!(read("ALTER TABLE t RENAME COLUMN a TO b, RENAME INDEX i TO j"), tables(&["t"]));
        assert_eq!(read("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u"), tables(&["t", "u"]));
        assert_eq!(read("ALTER TABLE t CONVERT TABLE u TO PARTITION p VALUES LESS THAN (1)"), tables(&["t", "u"]));
        assert_eq!(read("ALTER TABLE t ADD CHECK (`table` > 1), ADD CONSTRAINT FOREIGN KEY (a) REFERENCES other (b)"), tables(&["t"]));
        assert_eq!(read("DROP TABLES a, x.`b`, c"), Statement::Tables(vec![shop("a"), TableName::new("x", "b"), shop("c")]));
        assert_eq!(read("DROP DATABASE IF EXISTS `a b`"), Statement::Database("a b".into()));
        assert_eq!(read("create or replace schema x"), Statement::Database("x".into()));
        assert_eq!(read("TRUNCATE TABLE t"), Statement::Truncate(shop("t")));
        assert_eq!(read("truncate `t` nowait"), Statement::Truncate(shop("t")));
        assert_eq!(read("set statement max_statement_time=10 for truncate table t"), Statement::Truncate(shop("t")));
    }

    #[test]
    fn what_touches_no_rows_and_no_columns() {
        for sql in [
            "CREATE TABLE t (a int)",
            "CREATE TABLE IF NOT EXISTS t LIKE u",
            "CREATE TABLE t (a int DEFAULT 1, `select` int) PARTITION BY LIST (a) (PARTITION p VALUES IN (1, 2))",
            "CREATE SEQUENCE IF NOT EXISTS t",
            "CREATE OR REPLACE TEMPORARY SEQUENCE t",
            "CREATE TEMPORARY TABLE t (a int)",
            "DROP TEMPORARY TABLE IF EXISTS `t` /* generated by server */",
            "DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`",
            "CREATE DEFINER=`root`@`%` TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
            "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=root@localhost SQL SECURITY DEFINER VIEW v AS SELECT * FROM t",
            "DROP VIEW t",
            "CREATE DATABASE x",
            "ALTER DATABASE x CHARACTER SET utf8mb4",
            "CREATE USER 'a'@'%' IDENTIFIED BY 'x'",
            "GRANT ALL ON shop.t TO 'a'@'%'",
            "ANALYZE TABLE t",
            "ANALYZE NO_WRITE_TO_BINLOG TABLES t, u",
            "analyze local table t PERSISTENT FOR ALL",
            "OPTIMIZE TABLE t",
            "FLUSH TABLES",
            "SET PASSWORD FOR 'a'@'%' = 'x'",
            "RENAME USER a TO b",
        ] {
            assert_eq!(read(sql), Statement::Harmless, "{sql}");
        }
    }

    #[test]
    fn rows_that_are_changed_by_statements() {
        for sql in [
            "INSERT INTO `t` SELECT * FROM shop.u",
            "/* hello */ update u set a = 1",
            "SET STATEMENT max_statement_time = 1 FOR DELETE FROM u",
            "REPLACE u VALUES (1)",
            "LOAD DATA INFILE 'x' INTO TABLE u",
            "CALL p()",
            "DO f()",
            "SELECT f()",
            "VALUES (f())",
            "WITH x AS (SELECT 1) UPDATE t SET a = 1",
            "(SELECT f())",
            "ANALYZE UPDATE t SET a = 1",
            "ANALYZE FORMAT=JSON DELETE FROM t",
            "CREATE TABLE u AS SELECT f()",
            "CREATE TABLE u (a INT) REPLACE SELECT f()",
            "CREATE TEMPORARY TABLE u AS VALUES (f())",
        ] {
            assert_eq!(read(sql), Statement::Rows, "{sql}");
        }
        for sql in ["FROBNICATE t", "", "ALTER t", "DROP TABLE"] {
            assert_eq!(read(sql), Statement::Unclear, "{sql}");
        }
    }

    #[test]
    fn quotes_are_the_sessions_own() {
        let sql = r#"ALTER TABLE "t" COMMENT 'a\' RENAME TO u '"#;
        assert_eq!(Statement::read(&query(sql.as_bytes(), ANSI_QUOTES, 45)), tables(&["t"]));
        assert_eq!(read(sql), Statement::Unclear, "a text is no name");
        let open = Statement::read(&query(sql.as_bytes(), ANSI_QUOTES | NO_BACKSLASH_ESCAPES, 45));
        assert_eq!(open, Statement::Unclear, "without escapes the last quote does not end");
    }

    #[test]
    fn names_are_of_the_clients_character_set() {
        let by = |client: u16, sql: &[u8]| Statement::read(&query(sql, 0, client));
        assert_eq!(read("DROP TABLE ünï"), tables(&["ünï"]));
        assert_eq!(by(8, b"DROP TABLE \xFCn\xEF"), tables(&["ünï"]));
        assert_eq!(by(8, b"DROP TABLE \x80x"), tables(&["\u{FFFD}x"]));
        // cp1251, latin2, ujis
        assert_eq!(by(51, b"ALTER TABLE t COMMENT '\xC7\xE0'"), tables(&["t"]));
        assert_eq!(by(9, b"DROP TABLE `\xE8 x`"), tables(&["\u{FFFD} x"]));
        assert_eq!(by(1036, b"DROP TABLE \xA4\xA2"), tables(&["\u{FFFD}\u{FFFD}"]));
        assert_eq!(by(45, b"DROP TABLE t /* \xFF */"), tables(&["t"]));
        // sjis: its second bytes may be quotes
        assert_eq!(by(13, b"DROP TABLE `\x83\x60`"), Statement::Unclear);
        assert_eq!(by(13, b"DROP TABLE t"), tables(&["t"]));
    }

    #[test]
    fn blanks_are_the_servers_own() {
        assert_eq!(read("DROP\tTABLE\u{b}t\u{3000}u"), tables(&["t\u{3000}u"]));
        assert_eq!(Statement::read(&query(b"DROP TABLE t\xA0", 0, 8)), tables(&["t\u{FFFD}"]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..80), mode in any::<u64>()) {
            Statement::read(&query(&bytes, mode, 8));
        }

        #[test]
        fn any_words_are_read(words in proptest::collection::vec("(ALTER|TABLE|DROP|t|`|'|\\(|\\)|/\\*!|\\*/|RENAME|TO|,|\\.|SET|STATEMENT|FOR) ?", 0..12)) {
            read(&words.concat());
        }
    }
}
