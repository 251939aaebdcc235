//! Digests of rows, computed by the server.
//!
//! The canonical text of a row is `ROW(...)::text`: every value as its type's output function gives it under the fixed
//! session settings, quoted so that NULL, '' and a comma inside a value stay apart. Blocks are dealt by another hash of
//! the key's text.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use godwit_model::{BlockDigest, DigestPlan, Error, Examiner, KeyedHash, KeyedHashes, Result, RowBatch, Value, codes};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect::Session;
use crate::sessions::Sessions;
use crate::{error, keyed, quote};

pub(crate) struct ServerExaminer {
    seat: Seat,
}

enum Seat {
    /// Each question sees what is committed then.
    Any(Arc<Sessions>),
    /// A session with a transaction open, whose snapshot is looked at.
    One(Session),
}

impl ServerExaminer {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Self {
        ServerExaminer { seat: Seat::Any(sessions) }
    }

    pub(crate) fn of(session: Session) -> Self {
        ServerExaminer { seat: Seat::One(session) }
    }

    async fn ask<T>(&self, question: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        match &self.seat {
            Seat::One(session) => question(session).await,
            Seat::Any(sessions) => {
                let session = sessions.take().await?;
                let answer = question(&session).await?;
                session.give_back();
                Ok(answer)
            }
        }
    }
}

/// Two seeds, so that a row's block says nothing of its hash.
const ROW_SEED: i64 = 0;
const BLOCK_SEED: i64 = 1;

fn names(plan: &DigestPlan, indices: impl Iterator<Item = usize>) -> String {
    indices.map(|index| format!("t.{}", quote::identifier(&plan.columns[index].0))).collect::<Vec<_>>().join(", ")
}

fn row_hash(plan: &DigestPlan) -> String {
    format!("hashtextextended(ROW({})::text COLLATE \"C\", {ROW_SEED})", names(plan, 0..plan.columns.len()))
}

fn block(plan: &DigestPlan) -> String {
    let key = if plan.key.is_empty() { names(plan, 0..plan.columns.len()) } else { names(plan, plan.key.iter().copied()) };
    format!("((hashtextextended(ROW({key})::text COLLATE \"C\", {BLOCK_SEED}) & 9223372036854775807) % {})::int4", plan.blocks.max(1))
}

/// Rows of inheritance children belong to the children; those of partitions to the root.
async fn relation(client: &Client, plan: &DigestPlan) -> Result<String> {
    let name = quote::table(&plan.table);
    let row = client.query_opt("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)", &[&name]).await;
    match row.map_err(error::from_server)? {
        Some(row) if row.get(0) => Ok(name),
        Some(_) => Ok(format!("ONLY {name}")),
        None => Err(Error::new(&codes::TABLE_MISSING, format!("there is no table {}", plan.table)).at(format!("table {}", plan.table))),
    }
}

async fn digest(client: &Client, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
    let from = relation(client, plan).await?;
    let sql = format!(
        "SELECT block, count(*), sum(hash)::text, count(*) FILTER (WHERE hash < 0)
         FROM (SELECT {} AS block, {} AS hash FROM {from} AS t) AS hashed GROUP BY block ORDER BY block",
        block(plan),
        row_hash(plan)
    );
    let rows = client.query(&sql, &[]).await.map_err(error::from_server)?;
    let digests = rows.iter().map(|row| {
        let (block, count, sum, negative): (i32, i64, &str, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let sum: i128 = sum.parse().map_err(|_| Error::internal("a sum of hashes is no number"))?;
        Ok(BlockDigest { block: block.unsigned_abs(), rows: count.unsigned_abs(), sum: unsigned_sum(sum, negative.unsigned_abs()) })
    });
    digests.collect()
}

/// The sum of the same hashes read as unsigned numbers.
fn unsigned_sum(signed: i128, negative: u64) -> u128 {
    (signed as u128).wrapping_add(u128::from(negative) << 64)
}

async fn hashes(client: &Client, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
    let from = relation(client, plan).await?;
    let keys: String = plan.key.iter().map(|index| format!("{}, ", names(plan, std::iter::once(*index)))).collect();
    let wanted = blocks.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT {keys}{} FROM {from} AS t WHERE {} = ANY('{{{wanted}}}'::int4[])", row_hash(plan), block(plan));
    let mut stream = Box::pin(client.simple_query_raw(&sql).await.map_err(error::from_server)?);
    let mut hashes = Vec::new();
    while let Some(message) = stream.try_next().await.map_err(error::from_server)? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let value = |index: usize| row.get(index).map_or(Value::Null, |text| Value::Native(Bytes::copy_from_slice(text.as_bytes())));
        let key = (0..plan.key.len()).map(value).collect();
        hashes.push(KeyedHash { key, hash: parse_hash(row.get(plan.key.len()))? });
    }
    Ok(hashes)
}

fn parse_hash(text: Option<&str>) -> Result<u64> {
    let hash = text.and_then(|text| text.parse::<i64>().ok());
    hash.map(i64::cast_unsigned).ok_or_else(|| Error::internal("a row's hash is no number"))
}

async fn hashes_of(client: &Client, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let from = relation(client, plan).await?;
    let key: Vec<_> = plan.key.iter().map(|index| plan.columns[*index].clone()).collect();
    let sql = format!("SELECT d.place, {} FROM {from} AS t JOIN {} ON {}", row_hash(plan), keyed::as_table(keys)?, keyed::same_key(&key));
    let mut found = vec![None; keys.len()];
    for message in client.simple_query(&sql).await.map_err(error::from_server)? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let place = row.get(0).and_then(|text| text.parse::<usize>().ok()).and_then(|place| place.checked_sub(1));
        let slot =
            place.and_then(|place| found.get_mut(place)).ok_or_else(|| Error::internal("a key's place is not among those asked for"))?;
        *slot = Some(parse_hash(row.get(1))?);
    }
    Ok(found)
}

#[async_trait]
impl Examiner for ServerExaminer {
    fn scheme(&self) -> &'static str {
        "postgres-1"
    }

    async fn digest(&self, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
        self.ask(async |client| digest(client, plan).await).await
    }

    async fn hashes(&self, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
        self.ask(async |client| hashes(client, plan, blocks).await).await
    }

    async fn hashes_of(&self, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
        self.ask(async |client| hashes_of(client, plan, keys).await).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_sums_become_unsigned_ones() {
        let hashes = [-1_i64, 5, i64::MIN];
        let signed = hashes.iter().map(|hash| i128::from(*hash)).sum();
        let unsigned: u128 = hashes.iter().map(|hash| u128::from(hash.cast_unsigned())).sum();
        assert_eq!(unsigned_sum(signed, 2), unsigned);
    }
}
