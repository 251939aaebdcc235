//! A view of the source at one moment, shared by the sessions that read chunks.
//!
//! One session (or the replication connection that made the slot) holds an exported snapshot open; every reader opens a
//! transaction of its own on it. Dropping the holder ends the export, readers that began before go on.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use godwit_model::{Chunk, EndpointConfig, Error, ReadSpec, Result, RowReader, Snapshot, Table, Task, codes};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::chunk::{self, Measured};
use crate::connect::{self, Session};
use crate::leftover::Claim;
use crate::read::ChunkReader;
use crate::{error, quote};

/// What keeps the exported snapshot alive; only its lifetime matters.
pub(crate) trait Holder: Send + Sync {}

impl<T: Send + Sync> Holder for T {}

/// Sessions that wait for the next chunk.
#[derive(Default)]
pub(crate) struct Idle(std::sync::Mutex<Vec<Session>>);

impl Idle {
    fn take(&self) -> Option<Session> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| sessions.pop()).find(|session| !session.is_closed())
    }

    /// For a session without an open transaction.
    pub(crate) fn give_back(&self, session: Session) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

pub(crate) struct ExportedSnapshot {
    endpoint: EndpointConfig,
    /// First in each reader's transaction.
    claim: String,
    name: String,
    exact: bool,
    taken_at: Instant,
    /// For plans, which would otherwise each cost a connection.
    planner: Mutex<Option<Session>>,
    /// Sessions whose chunk is read, without a transaction: a small chunk costs less than a connection.
    readers: Arc<Idle>,
    _holder: Box<dyn Holder>,
}

impl ExportedSnapshot {
    /// A snapshot that someone else exported and `holder` keeps.
    pub(crate) fn held_by(task: &Task, name: String, exact: bool, holder: Box<dyn Holder>) -> Self {
        ExportedSnapshot {
            endpoint: task.source.clone(),
            claim: claim(task),
            name,
            exact,
            taken_at: Instant::now(),
            planner: Mutex::new(None),
            readers: Arc::default(),
            _holder: holder,
        }
    }

    /// A new one, kept by a session of ours.
    pub(crate) async fn open(task: &Task) -> Result<Self> {
        let session = connect::sql(&task.source, "godwit snapshot").await?;
        let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}", claim(task));
        session.batch_execute(&sql).await.map_err(error::from_server)?;
        let name: String = session.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(error::from_server)?.get(0);
        Ok(Self::held_by(task, name, false, Box::new(session)))
    }

    /// A session with a transaction on this snapshot.
    async fn reader(&self) -> Result<Session> {
        let session = match self.readers.take() {
            Some(session) => session,
            None => connect::sql(&self.endpoint, "godwit load").await?,
        };
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; {}",
            quote::literal(&self.name),
            self.claim
        );
        session.batch_execute(&sql).await.map_err(|problem| {
            let error = error::from_server(problem);
            // 22023 or 42704: the holder is gone, so a new snapshot is all it takes.
            if error.is_transient() { error } else { Error::new(&codes::RETRYABLE, "the snapshot is no longer there").caused_by(error) }
        })?;
        Ok(session)
    }
}

/// Whose readers they are, for who has the task next. A task that only loads has no slot that tells it from another of its
/// name, and nobody who would end its readers.
fn claim(task: &Task) -> String {
    if task.phases.changes { format!("SELECT {}", Claim::of_reader(&task.name).sql()) } else { String::new() }
}

/// By number, one by one (`OFFSET 0` keeps it so): the guess that a partition tree has a thousand members would read the
/// whole catalog for each table.
const LEAVES: &str = "
SELECT l.oid, coalesce(pg_relation_filenode(l.oid), 0)::oid, pg_relation_size(l.oid) / current_setting('block_size')::int8,
       coalesce(pg_table_size(l.oid), 0), greatest(l.reltuples, 0)::float8,
       l.relkind = 'r', coalesce(a.amname = 'heap', false), l.oid::regclass::text
FROM (SELECT $1::text::regclass::oid AS oid UNION SELECT t.relid FROM pg_partition_tree($1::text::regclass) t WHERE t.isleaf) t
CROSS JOIN LATERAL (SELECT * FROM pg_class c WHERE c.oid = t.oid OFFSET 0) l LEFT JOIN pg_am a ON a.oid = l.relam
WHERE l.relkind <> 'p'
ORDER BY l.oid";

async fn measure(client: &Client, table: &Table) -> Result<Vec<Measured>> {
    let name = quote::table(&table.name);
    let rows = client.query(LEAVES, &[&name]).await.map_err(error::from_server)?;
    rows.iter()
        .map(|row| {
            if !row.get::<_, bool>(5) {
                return Err(Error::new(&codes::TASK_UNSUPPORTED, format!("{} is no table with rows of its own", row.get::<_, &str>(7)))
                    .at(format!("table {}", table.name))
                    .remedy("leave the table out of the selection"));
            }
            let heap: bool = row.get(6);
            Ok(Measured {
                oid: row.get(0),
                filenode: row.get(1),
                // Only a heap is known to keep its rows in order of blocks; others are one chunk.
                blocks: if heap { to_count(row.get(2)) } else { 0 },
                bytes: to_count(row.get(3)),
                rows: row.get::<_, f64>(4) as u64,
            })
        })
        .collect()
}

fn to_count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[async_trait]
impl Snapshot for ExportedSnapshot {
    fn is_exact(&self) -> bool {
        self.exact
    }

    fn taken_at(&self) -> Instant {
        self.taken_at
    }

    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
        let mut planner = self.planner.lock().await;
        let session = match planner.take() {
            Some(session) => session,
            None => connect::sql(&self.endpoint, "godwit plan").await?,
        };
        let relations = measure(&session, table).await?;
        *planner = Some(session);
        Ok(relations.into_iter().flat_map(|relation| chunk::cut(relation, chunk_bytes)).collect())
    }

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>> {
        let range = chunk::parse(&spec.chunk.spec)?;
        let session = self.reader().await?;
        Ok(Box::new(ChunkReader::open(session, self.readers.clone(), range, spec).await?))
    }
}
