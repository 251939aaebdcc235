//! Digests of rows, computed by the server.
//!
//! Scheme `mysql-1`: a row is the text of its columns one after the other, `N` for NULL, else the value's length, a colon
//! and its bytes; long values stand for themselves by their SHA-256. Its hash is the first half of the SHA-256 of that, its
//! block the second half of the SHA-256 of the key's text. Text counts as UTF-8 whatever its character set, numbers as
//! plain digits, and everything becomes bytes before it is joined: no collation and no session setting plays a part but
//! the time zone, which all our sessions have in common. (SHA2 alone: MySQL gives MD5 up.)

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{BlockDigest, DigestPlan, Error, Examiner, KeyedHash, KeyedHashes, Result, Row, RowBatch, Value};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Value as Cell};
use tokio::sync::Mutex;

use crate::connect::Sessions;
use crate::read::decoded;
use crate::rows::same_key;
use crate::types::Kind;
use crate::values::Codec;
use crate::{error, quote};

/// Statements that travel together.
const MOST_TOGETHER: usize = 200;

pub(crate) struct ServerExaminer {
    place: Place,
}

enum Place {
    /// Each question sees what is committed then.
    Any(Arc<Sessions>),
    /// A connection with a transaction open, whose moment is looked at.
    One(Mutex<Conn>),
}

impl ServerExaminer {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Self {
        ServerExaminer { place: Place::Any(sessions) }
    }

    pub(crate) fn of(conn: Conn) -> Self {
        ServerExaminer { place: Place::One(Mutex::new(conn)) }
    }

    async fn ask<T>(&self, question: impl AsyncFnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        match &self.place {
            Place::One(conn) => question(&mut *conn.lock().await).await,
            Place::Any(sessions) => {
                let mut conn = sessions.take().await?;
                let answer = question(&mut conn).await?;
                sessions.give_back(conn);
                Ok(answer)
            }
        }
    }
}

/// The bytes that stand for a value that is not NULL. Two values give the same bytes only if they are the same.
fn bytes_of(column: &str, kind: &Kind) -> String {
    match kind {
        // a column that fills up with zeros shows the same number otherwise
        Kind::Int { .. } | Kind::Year | Kind::Bit { .. } => format!("CAST({column}+0 AS CHAR)"),
        // a FLOAT as its exact double; keeps the sign of zero, drops the digits that only the display has
        Kind::Float | Kind::Double => format!("CAST(CAST({column} AS DOUBLE) AS CHAR)"),
        Kind::Decimal { .. }
        | Kind::Date
        | Kind::Time { .. }
        | Kind::DateTime { .. }
        | Kind::Timestamp { .. }
        | Kind::Uuid
        | Kind::Inet4
        | Kind::Inet6 => format!("CAST({column} AS CHAR)"),
        Kind::Text { .. } | Kind::Enum { .. } | Kind::Set { .. } | Kind::Json => format!("CONVERT({column} USING utf8mb4)"),
        Kind::Bytes { .. } => column.to_owned(),
        Kind::Geometry => format!("HEX({column})"),
    }
}

/// Whether a value may be larger than what the server joins to one text (`max_allowed_packet`): past that it says NULL.
fn is_long(type_name: &str, kind: &Kind) -> bool {
    let lower = type_name.trim_start().to_ascii_lowercase();
    matches!(kind, Kind::Json | Kind::Geometry)
        || ["text", "mediumtext", "longtext", "blob", "mediumblob", "longblob"]
            .iter()
            .any(|name| lower.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric())))
}

/// One column's part of a row's text; NULL only if the server could not make it.
fn part(column: &(String, String)) -> Result<String> {
    let (name, type_name) = column;
    let (quoted, kind) = (quote::identifier(name), Kind::parse(type_name)?);
    let value = bytes_of(&quoted, &kind);
    let told = match is_long(type_name, &kind) {
        true => format!("SHA2({value}, 256)"),
        false => format!("CONCAT(LENGTH({value}), ':', CAST({value} AS BINARY))"),
    };
    Ok(format!("IF({quoted} IS NULL, 'N', {told})"))
}

fn sha<'a>(columns: impl IntoIterator<Item = &'a (String, String)>) -> Result<String> {
    let parts = columns.into_iter().map(part).collect::<Result<Vec<_>>>()?;
    Ok(format!("SHA2(CONCAT({}), 256)", quote::list(parts)))
}

fn number(sha: &str, from: usize) -> String {
    format!("CAST(CONV(SUBSTR({sha}, {from}, 16), 16, 10) AS UNSIGNED)")
}

fn row_hash(plan: &DigestPlan) -> Result<String> {
    Ok(number(&sha(&plan.columns)?, 1))
}

fn block(plan: &DigestPlan) -> Result<String> {
    let key = key_of(plan)?;
    let sha = if key.is_empty() { sha(&plan.columns)? } else { sha(key)? };
    Ok(format!("{} % {}", number(&sha, 17), plan.blocks.max(1)))
}

fn key_of(plan: &DigestPlan) -> Result<Vec<&(String, String)>> {
    let column = |index: &usize| plan.columns.get(*index);
    plan.key.iter().map(column).collect::<Option<_>>().ok_or_else(|| Error::internal("a key of columns that are not there"))
}

fn unhashed() -> Error {
    Error::internal("the server could not hash a row").remedy("raise `max_allowed_packet`: a row must fit into it")
}

async fn digest(conn: &mut Conn, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
    let sql = format!(
        "SELECT block, COUNT(*), COUNT(hash), CAST(IFNULL(SUM(hash), 0) AS CHAR) \
         FROM (SELECT {} AS block, {} AS hash FROM {}) AS hashed GROUP BY block",
        block(plan)?,
        row_hash(plan)?,
        quote::table(&plan.table)
    );
    let found: Vec<(Option<u32>, u64, u64, String)> = conn.query(sql).await.map_err(error::from_server)?;
    let digest = |(block, rows, hashed, sum): (Option<u32>, u64, u64, String)| {
        let block = block.filter(|_| rows == hashed).ok_or_else(unhashed)?;
        let sum = sum.parse().map_err(|_| Error::internal("a sum of hashes is no number"))?;
        Ok(BlockDigest { block, rows, sum })
    };
    found.into_iter().map(digest).collect()
}

async fn hashes(conn: &mut Conn, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let key = key_of(plan)?;
    let mut codecs = key.iter().map(|(_, type_name)| Codec::of(type_name)).collect::<Result<Vec<_>>>()?;
    let mut selected: Vec<String> = key.iter().zip(&codecs).map(|((name, _), codec)| codec.selected(&quote::identifier(name))).collect();
    selected.push(row_hash(plan)?);
    codecs.push(Codec::of("bigint unsigned")?);
    let wanted = quote::list(blocks.iter().map(u32::to_string));
    let sql = format!("SELECT {} FROM {} WHERE {} IN ({wanted})", quote::list(selected), quote::table(&plan.table), block(plan)?);
    let mut answer = conn.query_iter(sql).await.map_err(error::from_server)?;
    let mut hashes = Vec::new();
    while let Some(row) = answer.next().await.map_err(error::from_server)? {
        let mut key: Row = decoded(&codecs, row)?;
        hashes.push(KeyedHash { hash: hash_of(key.pop())?, key });
    }
    Ok(hashes)
}

fn hash_of(value: Option<Value>) -> Result<u64> {
    let large = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match value {
        Some(Value::Int(number)) => u64::try_from(number).map_err(|_| unhashed()),
        Some(Value::Native(text)) => large(&text).ok_or_else(unhashed),
        _ => Err(unhashed()),
    }
}

/// One small statement for each key: which row is whose answer is the server's own comparison, and each is found by the
/// index.
async fn hashes_of(conn: &mut Conn, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
    let key = key_of(plan)?;
    if !keys.is_empty() && (key.is_empty() || key.len() != keys.stride()) {
        return Err(Error::internal("keys have another width than their table's key"));
    }
    let codecs = key.iter().map(|(_, type_name)| Codec::of(type_name)).collect::<Result<Vec<_>>>()?;
    let named: Vec<(String, &Codec)> = key.iter().map(|(name, _)| quote::identifier(name)).zip(&codecs).collect();
    let start = format!("SELECT {} FROM {} WHERE ", row_hash(plan)?, quote::table(&plan.table));
    let rows: Vec<&[Value]> = keys.rows().collect();
    let mut found = Vec::with_capacity(rows.len());
    for some in rows.chunks(MOST_TOGETHER) {
        let mut sql = Vec::new();
        for row in some {
            sql.extend_from_slice(if sql.is_empty() { b"" } else { b"; " });
            sql.extend_from_slice(start.as_bytes());
            same_key(&named, row, &mut sql)?;
        }
        let mut answers = conn.query_iter(sql).await.map_err(error::from_server)?;
        for _ in some {
            found.push(one_of(answers.collect::<AnyRow>().await.map_err(error::from_server)?)?);
        }
    }
    Ok(found)
}

struct AnyRow(mysql_async::Row);

impl FromRow for AnyRow {
    fn from_row_opt(row: mysql_async::Row) -> Result<Self, mysql_async::FromRowError> {
        Ok(AnyRow(row))
    }
}

fn one_of(rows: Vec<AnyRow>) -> Result<Option<u64>> {
    let Some(AnyRow(row)) = rows.into_iter().next() else { return Ok(None) };
    match row.as_ref(0) {
        Some(Cell::Bytes(text)) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(unhashed),
        _ => Err(unhashed()),
    }
}

#[async_trait]
impl Examiner for ServerExaminer {
    fn scheme(&self) -> &'static str {
        "mysql-1"
    }

    async fn digest(&self, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
        self.ask(async |conn| digest(conn, plan).await).await.map_err(|error| error.at_least_at(|| format!("table {}", plan.table)))
    }

    async fn hashes(&self, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
        self.ask(async |conn| hashes(conn, plan, blocks).await).await.map_err(|error| error.at_least_at(|| format!("table {}", plan.table)))
    }

    async fn hashes_of(&self, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
        self.ask(async |conn| hashes_of(conn, plan, keys).await)
            .await
            .map_err(|error| error.at_least_at(|| format!("table {}", plan.table)))
    }
}
