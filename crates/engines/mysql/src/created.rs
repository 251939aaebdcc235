//! `SHOW CREATE TABLE` taken apart: the one place where the server says everything that a table is.
//!
//! `information_schema` says less: it turns bytes of binary defaults into question marks, and knows nothing of an index's
//! block size, of application-time periods, of a partition's algorithm (seen on MariaDB 10.11). The statement can be asked
//! for one table only, so many are sent in one packet and answered one after the other.

use std::borrow::Cow;
use std::collections::HashMap;

use godwit_model::{Error, Result, TableName, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::tokens::{Piece, Token, deeper, in_parentheses, parts, pieces, written};
use crate::{error, quote};

/// Statements in one packet.
const ASKED_AT_ONCE: usize = 500;
/// Names are told from words by their quotes.
const QUOTED: &str = "SET SESSION sql_quote_show_create = 1";

/// A table's definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Created {
    pub(crate) columns: Vec<ColumnText>,
    /// `PERIOD FOR`: the period's name and its columns.
    pub(crate) periods: Vec<Vec<Piece>>,
    pub(crate) keys: Vec<KeyText>,
    /// Of the table, not of a column.
    pub(crate) checks: Vec<CheckText>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    /// Behind the last parenthesis, up to the partitions.
    pub(crate) options: Vec<Piece>,
    /// From `PARTITION BY` on; empty: none.
    pub(crate) partitions: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnText {
    pub(crate) name: String,
    /// The type is the first.
    pub(crate) clauses: Vec<Clause>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clause {
    pub(crate) kind: ClauseKind,
    pub(crate) text: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClauseKind {
    /// With its character set and collation.
    Type,
    Generated,
    NotNull,
    Null,
    Default,
    OnUpdate,
    Check,
    /// Comment, visibility, AUTO_INCREMENT and whatever else there is.
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyText {
    /// `PRIMARY KEY`, `UNIQUE KEY`, `KEY`, `FULLTEXT KEY`, `SPATIAL KEY`.
    pub(crate) kind: String,
    /// None: the primary key.
    pub(crate) name: Option<String>,
    pub(crate) parts: Vec<Vec<Piece>>,
    pub(crate) options: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckText {
    pub(crate) name: String,
    /// From `CHECK` on.
    pub(crate) text: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) table: TableName,
    pub(crate) referred: Vec<String>,
    /// `ON DELETE CASCADE` and the like.
    pub(crate) actions: Vec<Piece>,
}

impl KeyText {
    pub(crate) fn is_primary(&self) -> bool {
        self.name.is_none()
    }

    pub(crate) fn is_unique(&self) -> bool {
        self.is_primary() || self.kind == "UNIQUE KEY"
    }

    /// The column that the first part is.
    pub(crate) fn leads_with(&self) -> Option<&str> {
        match self.parts.first()?.first()?.token {
            Token::Name(ref name) => Some(name),
            _ => None,
        }
    }
}

impl ColumnText {
    pub(crate) fn clause(&self, kind: ClauseKind) -> Option<&Clause> {
        self.clauses.iter().find(|clause| clause.kind == kind)
    }

    pub(crate) fn counts_up(&self) -> bool {
        self.clauses.iter().any(|clause| clause.text.first().is_some_and(|piece| piece.is_word("AUTO_INCREMENT")))
    }
}

/// The definitions of these tables, all of which must be there.
pub(crate) async fn read(conn: &mut Conn, names: &[&TableName]) -> Result<HashMap<TableName, Created>> {
    let mut found = HashMap::new();
    for some in names.chunks(ASKED_AT_ONCE) {
        let mut statements = vec![QUOTED.to_owned()];
        statements.extend(some.iter().map(|name| format!("SHOW CREATE TABLE {}", quote::table(name))));
        let mut answers = conn.query_iter(statements.join("; ")).await.map_err(error::from_server)?;
        answers.collect::<Row>().await.map_err(error::from_server)?;
        for name in some {
            let rows: Vec<Row> = answers.collect().await.map_err(error::from_server)?;
            let text = rows.first().and_then(|row| row.as_ref(1));
            let Some(Value::Bytes(text)) = text else { return Err(not_understood(name)) };
            found.insert((*name).clone(), parse(name, text).ok_or_else(|| not_understood(name))?);
        }
        answers.drop_result().await.map_err(error::from_server)?;
    }
    for (name, created) in &mut found {
        restore_defaults(conn, name, created).await?;
    }
    Ok(found)
}

/// Characters of more than three bytes are question marks in a default as it is shown, and themselves in the one that is
/// asked for. A column that is never NULL tells it beside a row only: of an empty table what is shown stays.
async fn restore_defaults(conn: &mut Conn, table: &TableName, created: &mut Created) -> Result<()> {
    let of = quote::table(table);
    for column in &mut created.columns {
        let quoted = quote::identifier(&column.name);
        let default = column.clauses.iter_mut().find(|clause| clause.kind == ClauseKind::Default);
        let Some(text) = default.and_then(|clause| clause.text.get_mut(1)) else { continue };
        if !matches!(&text.token, Token::Text(shown) if shown.contains(&b'?')) {
            continue;
        }
        let beside_none = format!("SELECT DEFAULT(t.{quoted}) FROM (SELECT 1 AS one) o LEFT JOIN {of} t ON FALSE");
        let sql = format!("{beside_none} UNION ALL (SELECT DEFAULT(t.{quoted}) FROM {of} t LIMIT 1)");
        let rows: Vec<Row> = conn.query(sql).await.map_err(error::from_server)?;
        let told = rows.iter().find_map(|row| match row.as_ref(0) {
            Some(Value::Bytes(told)) => Some(told.clone()),
            _ => None,
        });
        if let Some(told) = told {
            text.token = Token::Text(told);
        }
    }
    Ok(())
}

fn not_understood(name: &TableName) -> Error {
    Error::new(&codes::SERVER_REFUSED, "what the server says of the table's definition is not understood")
        .at(format!("table {name}"))
        .remedy("report it with the text of SHOW CREATE TABLE; until then leave the table out, or make it by hand (schema.create: none)")
}

/// Up to 10.11.18 the name of a foreign key is shown as it is, with its own quotes not doubled.
fn quoted_whole(text: &[u8]) -> Cow<'_, [u8]> {
    const BEFORE: &[u8] = b"  CONSTRAINT `";
    const BEHIND: &[u8] = b"` FOREIGN KEY (";
    let name_of = |line: &[u8]| -> Option<usize> {
        let rest = line.strip_prefix(BEFORE)?;
        let end = rest.windows(BEHIND.len()).position(|bytes| bytes == BEHIND)?;
        let is_doubled = |run: &[u8]| run[0] != b'`' || run.len().is_multiple_of(2);
        (!rest[..end].chunk_by(|one, other| (*one == b'`') == (*other == b'`')).all(is_doubled)).then_some(end)
    };
    if text.split(|byte| *byte == b'\n').all(|line| name_of(line).is_none()) {
        return Cow::Borrowed(text);
    }
    let mended = |line: &[u8]| match name_of(line) {
        None => line.to_vec(),
        Some(end) => {
            let name = &line[BEFORE.len()..BEFORE.len() + end];
            let doubled = name.iter().flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == b'`')));
            BEFORE.iter().copied().chain(doubled).chain(line[BEFORE.len() + end..].iter().copied()).collect()
        }
    };
    Cow::Owned(text.split(|byte| *byte == b'\n').map(mended).collect::<Vec<_>>().join(&b'\n'))
}

/// None: not understood.
fn parse(name: &TableName, text: &[u8]) -> Option<Created> {
    let all = pieces(&quoted_whole(text));
    let (inner, after) = in_parentheses(&all)?;
    let mut created = Created::default();
    for part in parts(inner) {
        add(name, &mut created, part)?;
    }
    let cut = after.windows(2).position(|pair| pair[0].is_word("PARTITION") && pair[1].is_word("BY")).unwrap_or(after.len());
    created.options = after[..cut].to_vec();
    created.partitions = after[cut..].to_vec();
    Some(created)
}

fn add(table: &TableName, created: &mut Created, part: &[Piece]) -> Option<()> {
    let first = part.first()?;
    if let Token::Name(name) = &first.token {
        created.columns.push(ColumnText { name: name.clone(), clauses: clauses(&part[1..]) });
    } else if first.is_word("PERIOD") {
        created.periods.push(part.to_vec());
    } else if first.is_word("CONSTRAINT") {
        add_constraint(table, created, name_of(part.get(1)?)?, &part[2..])?;
    } else {
        created.keys.push(key(part)?);
    }
    Some(())
}

fn name_of(piece: &Piece) -> Option<String> {
    match &piece.token {
        Token::Name(name) => Some(name.clone()),
        _ => None,
    }
}

fn add_constraint(table: &TableName, created: &mut Created, name: String, text: &[Piece]) -> Option<()> {
    if text.first()?.is_word("CHECK") {
        created.checks.push(CheckText { name, text: text.to_vec() });
        return Some(());
    }
    if !text.first()?.is_word("FOREIGN") {
        return None;
    }
    let (columns, after) = in_parentheses(text)?;
    let (referred, actions) = in_parentheses(after)?;
    let to = after.iter().take_while(|piece| !piece.is(&Token::Open)).filter_map(name_of).collect::<Vec<_>>();
    let to = match &to[..] {
        [own] => TableName::new(table.schema.clone(), own.clone()),
        [schema, other] => TableName::new(schema.clone(), other.clone()),
        _ => return None,
    };
    let names = |list: &[Piece]| list.iter().filter_map(name_of).collect();
    let (columns, referred) = (names(columns), names(referred));
    created.foreign_keys.push(ForeignKey { name, columns, table: to, referred, actions: actions.to_vec() });
    Some(())
}

fn key(part: &[Piece]) -> Option<KeyText> {
    let words = part.iter().take_while(|piece| matches!(piece.token, Token::Word(_))).count();
    let kind = written(&part[..words]);
    if !kind.ends_with("KEY") {
        return None;
    }
    let (inner, options) = in_parentheses(part)?;
    let name = part.get(words).and_then(name_of);
    if name.is_none() != (kind == "PRIMARY KEY") {
        return None;
    }
    Some(KeyText { kind, name, parts: parts(inner).into_iter().map(<[Piece]>::to_vec).collect(), options: options.to_vec() })
}

/// A clause begins at a word that no clause before it can hold outside of parentheses; what follows the word at once is
/// its own (`DEFAULT NULL`, `NOT NULL`).
fn clauses(text: &[Piece]) -> Vec<Clause> {
    let mut found = vec![Clause { kind: ClauseKind::Type, text: Vec::new() }];
    let (mut depth, mut held) = (0, true);
    for piece in text {
        let begins = if depth == 0 && !held { begun_by(piece) } else { None };
        depth = deeper(depth, piece);
        held = matches!(begins, Some(ClauseKind::NotNull | ClauseKind::Default));
        match (begins, found.last_mut()) {
            (Some(kind), _) => found.push(Clause { kind, text: vec![piece.clone()] }),
            (None, Some(last)) => last.text.push(piece.clone()),
            (None, None) => {}
        }
    }
    found
}

fn begun_by(piece: &Piece) -> Option<ClauseKind> {
    const OTHERS: [&str; 12] = [
        "AUTO_INCREMENT",
        "COMMENT",
        "INVISIBLE",
        "VISIBLE",
        "WITH",
        "WITHOUT",
        "COLUMN_FORMAT",
        "STORAGE",
        "SRID",
        "REF_SYSTEM_ID",
        "ENGINE_ATTRIBUTE",
        "SECONDARY_ENGINE_ATTRIBUTE",
    ];
    let Token::Word(word) = &piece.token else {
        // an option of the table's engine
        return matches!(piece.token, Token::Name(_)).then_some(ClauseKind::Other);
    };
    Some(match word.to_ascii_uppercase().as_str() {
        "GENERATED" => ClauseKind::Generated,
        "NOT" => ClauseKind::NotNull,
        "NULL" => ClauseKind::Null,
        "DEFAULT" => ClauseKind::Default,
        "ON" => ClauseKind::OnUpdate,
        "CHECK" => ClauseKind::Check,
        word if OTHERS.contains(&word) => ClauseKind::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_the_name_of_a_foreign_key_is_understood_doubled_or_not() {
        for (shown, meant) in [("f`2", "f``2"), ("f``2", "f``2"), ("plain", "plain")] {
            let text = format!("CREATE TABLE `t` (\n  CONSTRAINT `{shown}` FOREIGN KEY (`a`) REFERENCES `b` (`c`)\n)");
            assert_eq!(quoted_whole(text.as_bytes()), text.replace(shown, meant).as_bytes());
        }
    }

    const TEXT: &str = "CREATE TABLE `t` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `l` datetime(6) DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6),
  `m` timestamp NULL DEFAULT NULL,
  `n` varchar(9) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT 'NOT NULL, )' COMMENT 'DEFAULT',
  `o` int(11) GENERATED ALWAYS AS (`id` * 2) STORED COMMENT 'x',
  `p` int(11) NOT NULL INVISIBLE DEFAULT (case when `id` = 1 then 2 else NULL end) CHECK (`p` is not null),
  PERIOD FOR `w` (`l`, `m`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `k``1` (`n`(3) DESC,`o`) USING HASH COMMENT ', x',
  FULLTEXT KEY `f` (`n`),
  CONSTRAINT `c` CHECK (`id` > 0),
  CONSTRAINT `fk` FOREIGN KEY (`id`) REFERENCES `other`.`k` (`a`) ON DELETE CASCADE
) ENGINE=InnoDB COMMENT='PARTITION BY'
 PARTITION BY HASH (`id`)
PARTITIONS 2";

    fn clause(column: &ColumnText, kind: ClauseKind) -> String {
        column.clause(kind).map(|clause| written(&clause.text)).unwrap_or_default()
    }

    #[test]
    fn a_definition_is_taken_apart() {
        let created = parse(&TableName::new("db", "t"), TEXT.as_bytes()).unwrap();
        let column = |at: usize| &created.columns[at];
        assert!(column(0).counts_up() && column(0).clause(ClauseKind::NotNull).is_some());
        assert_eq!(clause(column(1), ClauseKind::OnUpdate), "ON UPDATE current_timestamp(6)");
        assert_eq!(clause(column(2), ClauseKind::Default), "DEFAULT NULL");
        assert!(column(2).clause(ClauseKind::NotNull).is_none());
        assert_eq!(clause(column(3), ClauseKind::Type), "varchar(9) CHARACTER SET latin1 COLLATE latin1_bin");
        assert_eq!(clause(column(3), ClauseKind::Default), "DEFAULT 'NOT NULL, )'");
        assert_eq!(clause(column(3), ClauseKind::Other), "COMMENT 'DEFAULT'");
        assert_eq!(clause(column(4), ClauseKind::Generated), "GENERATED ALWAYS AS (`id` * 2) STORED");
        assert_eq!(clause(column(5), ClauseKind::Default), "DEFAULT (case when `id` = 1 then 2 else NULL end)");
        assert_eq!(clause(column(5), ClauseKind::Check), "CHECK (`p` is not null)");
        assert_eq!(created.keys.len(), 3);
        assert_eq!((created.keys[1].name.as_deref(), created.keys[1].parts.len()), (Some("k`1"), 2));
        assert_eq!(written(&created.keys[1].options), "USING HASH COMMENT ', x'");
        assert_eq!(created.foreign_keys[0].table, TableName::new("other", "k"));
        assert_eq!(written(&created.foreign_keys[0].actions), "ON DELETE CASCADE");
        assert_eq!(written(&created.options), "ENGINE=InnoDB COMMENT='PARTITION BY'");
        assert_eq!(written(&created.partitions), "PARTITION BY HASH (`id`) PARTITIONS 2");
    }
}
