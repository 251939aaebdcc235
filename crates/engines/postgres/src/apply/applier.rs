//! The one applier of a task: a session, an open transaction, a savepoint per group.
//!
//! Everything of a group is sent before the first answer is awaited, but for COPY, which needs a word of the server before
//! it begins; every answer is read before the group is judged. Commits are asynchronous; `durable` writes one tiny synchronous transaction behind them, whose flush covers
//! them all.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::{FutureExt as _, SinkExt as _, TryFutureExt as _, poll};
use godwit_model::{
    Applied, Applier, Checkpoint, Entry, Error, Group, Lease, Mismatch, Result, TableMapping, TableName, TableWrite, WriteKind, codes,
    failpoint,
};
use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use super::piece::{cut, lines, nothing};
use super::statement::{self, TargetTable, build, row_columns};
use super::table;
use crate::connect::Session;
use crate::{error, lease, writer};

/// Statements kept prepared; column sets of partial updates can be many, and each costs memory on the server.
const MOST_STATEMENTS: usize = 1000;

/// Rows from which on an insert is worth the wait for the server's word that COPY needs.
const LEAST_COPIED: usize = 256;
/// In the place of a kind.
const COPY: u8 = u8::MAX;

#[derive(Clone, PartialEq, Eq, Hash)]
struct StatementKey {
    table: TableName,
    kind: u8,
    columns: Vec<usize>,
}

struct KnownTable {
    mapping: Arc<TableMapping>,
    target: TargetTable,
}

pub(crate) struct PostgresApplier {
    session: Session,
    lease: Lease,
    /// Whether the session keeps triggers still; the server's own that check deferrable constraints are among them.
    is_replica: bool,
    /// Whether a transaction is open; if so, with the last group's savepoint still set.
    open: bool,
    tables: HashMap<TableName, KnownTable>,
    statements: HashMap<StatementKey, Statement>,
    move_checkpoint: Statement,
}

/// Row counts of a generic plan are guesses; an index is always right here, because every write goes by key.
const SETTINGS: &str = "SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; SET jit = off";

/// Until the end of the transaction; `statement::out_of_role` is its other half.
const INTO_ROLE: &str = "SET LOCAL session_replication_role = replica";

impl PostgresApplier {
    /// Tables are looked at when they are first written to: of thousands most rest.
    pub(crate) async fn open(session: Session, lease: &Lease, is_replica: bool) -> Result<Self> {
        session.batch_execute(SETTINGS).await.map_err(error::from_server)?;
        let move_checkpoint = session.prepare(lease::MOVE_CHECKPOINT).await.map_err(error::from_server)?;
        Ok(PostgresApplier {
            session,
            lease: lease.clone(),
            is_replica,
            open: false,
            tables: HashMap::new(),
            statements: HashMap::new(),
            move_checkpoint,
        })
    }

    /// Reads the target table unless it is known under this very mapping.
    async fn know(&mut self, mapping: &Arc<TableMapping>) -> Result<()> {
        if self.tables.get(&mapping.target).is_some_and(|known| Arc::ptr_eq(&known.mapping, mapping) || known.mapping == *mapping) {
            return Ok(());
        }
        let target = table::read(&self.session, mapping).await?;
        self.statements.retain(|key, _| key.table != mapping.target);
        self.tables.insert(mapping.target.clone(), KnownTable { mapping: mapping.clone(), target });
        Ok(())
    }

    async fn way(&mut self, write: &TableWrite) -> Result<Way> {
        self.know(&write.mapping).await?;
        let target = &self.tables.get(&write.mapping.target).expect("the table is known by now").target;
        let by_copy = write.kind == WriteKind::Insert && target.takes_copy && write.rows.len() >= LEAST_COPIED;
        let gives_rows = !matches!(write.kind, WriteKind::Delete | WriteKind::DeleteWhole | WriteKind::Truncate);
        let is_checked = self.is_replica && target.checks_late && gives_rows;
        let out_of_role = is_checked.then(|| statement::out_of_role(target));
        let statement = self.prepared(write, false).await?;
        let copy = if by_copy { Some(self.prepared(write, true).await?) } else { None };
        Ok(Way { statement, copy, out_of_role })
    }

    async fn prepared(&mut self, write: &TableWrite, copy: bool) -> Result<Statement> {
        let kind = if copy { COPY } else { write.kind as u8 };
        let key = StatementKey { table: write.mapping.target.clone(), kind, columns: write.columns.clone() };
        if let Some(statement) = self.statements.get(&key) {
            return Ok(statement.clone());
        }
        let target = &self.tables.get(&write.mapping.target).expect("the table is known by now").target;
        let sql = if copy { statement::copy(target, &write.columns) } else { build(target, write.kind, &write.columns) };
        let is_bare = copy || write.kind == WriteKind::Truncate;
        let width = if is_bare { 0 } else { row_columns(write.kind, &target.key, &write.columns).len() };
        let statement = self.session.prepare_typed(&sql, &vec![Type::TEXT; width]).await.map_err(error::from_server)?;
        if self.statements.len() >= MOST_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(key, statement.clone());
        Ok(statement)
    }

    /// Opens the transaction if need be and sets the savepoint of a new group.
    fn opening(&self, origin: &str) -> String {
        let before = if self.open { "RELEASE SAVEPOINT godwit_group".to_owned() } else { writer::begin(&self.lease, origin) };
        format!("{before}; SAVEPOINT godwit_group; SET CONSTRAINTS ALL DEFERRED")
    }

    async fn undo_group(&mut self) -> Result<()> {
        self.session.batch_execute("ROLLBACK TO SAVEPOINT godwit_group").await.map_err(error::from_server)
    }

    /// Sends all writes and reads all answers. The rows each write touched, or the first refusal.
    async fn run(&self, opening: &str, group: &Group, ways: &[Way]) -> Result<Vec<u64>, Trouble> {
        let mut flight = Flight { touched: vec![0; ways.len()], sent: Vec::new() };
        flight.send(None, self.session.batch_execute(opening).map_ok(|()| 0)).await;
        for (index, (write, way)) in group.writes.iter().zip(ways).enumerate() {
            if let Some(out_of_role) = &way.out_of_role {
                flight.send(Some(index), self.session.batch_execute(out_of_role).map_ok(|()| 0)).await;
            }
            self.send(&mut flight, index, write, way).await?;
            if way.out_of_role.is_some() {
                flight.send(None, self.session.batch_execute(INTO_ROLE).map_ok(|()| 0)).await;
            }
        }
        let last = ways.len().checked_sub(1);
        flight.send(last, self.session.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").map_ok(|()| 0)).await;
        flight.land().await?;
        Ok(flight.touched)
    }

    async fn send<'a>(&'a self, flight: &mut Flight<'a>, index: usize, write: &TableWrite, way: &'a Way) -> Result<(), Trouble> {
        let Some(copy) = &way.copy else {
            for parameters in cut(write) {
                flight.send(Some(index), self.session.execute_raw(&way.statement, parameters?)).await;
            }
            return Ok(());
        };
        // What the server has against this insert it says here, and nothing before it has failed: a COPY that does
        // not even begin is answered twice, and the session's answers would no longer be those to its questions.
        flight.send(Some(index), self.session.execute_raw(&way.statement, nothing(write))).await;
        flight.land().await?;
        flight.touched[index] += self.copy(index, copy, write).await?;
        Ok(())
    }

    async fn copy(&self, index: usize, statement: &Statement, write: &TableWrite) -> Result<u64, Trouble> {
        let begun = self.session.copy_in::<_, Bytes>(statement).await;
        let mut sink = Box::pin(begun.map_err(|problem| Trouble::Failed(lost_count(problem)))?);
        let refused = |problem| Trouble::Refused(Refusal { write: Some(index), problem });
        for block in lines(write) {
            sink.send(block?).await.map_err(refused)?;
        }
        sink.as_mut().finish().await.map_err(refused)
    }

    async fn refused(&mut self, group: &Group, refusal: Refusal) -> Result<Applied> {
        let Some(write) = refusal.write else { return Err(error::from_server(refusal.problem)) };
        self.open = true;
        let can_go_on = writer::is_refusal(&refusal.problem);
        let place = group.writes.get(write).map(|write| format!("table {}", write.mapping.target));
        let error = writer::refusal(refusal.problem).at_least_at(|| place.unwrap_or_else(|| "the target".to_owned()));
        if !can_go_on {
            return Err(error);
        }
        self.undo_group().await?;
        Ok(Applied::Refused(error))
    }

    /// Why the checkpoint did not move.
    async fn unmoved(&mut self) -> Error {
        if let Err(problem) = self.session.batch_execute("ROLLBACK").await {
            return error::from_server(problem);
        }
        self.open = false;
        match lease::read(&self.session, &self.lease.task).await {
            Err(error) => error,
            Ok(Some(record)) if record.epoch == self.lease.epoch => {
                Error::new(&codes::TARGET_CHANGED, "the checkpoint in the target is not the one this process moved last")
                    .at("table godwit.lease")
                    .effect("the transaction was rolled back")
                    .remedy("find out who changed the row or restored the target, then run again")
            }
            Ok(_) => lease::lost(&self.lease),
        }
    }
}

/// How a write is made.
struct Way {
    statement: Statement,
    copy: Option<Statement>,
    /// What takes the write out of the replica role, so that deferrable constraints are checked.
    out_of_role: Option<String>,
}

/// The first write that failed; None: the transaction did not even open.
struct Refusal {
    write: Option<usize>,
    problem: tokio_postgres::Error,
}

enum Trouble {
    Refused(Refusal),
    /// Not the server's answer to a write: the session is of no further use.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error)
    }
}

/// A session that may have one answer too many is left, whatever the server said.
fn lost_count(problem: tokio_postgres::Error) -> Error {
    let state = problem.code().map_or_else(String::new, |state| format!(" (SQLSTATE {})", state.code()));
    Error::new(&codes::CONNECTION_LOST, format!("the target did not let a COPY begin{state}")).caused_by(problem)
}

type Answer<'a> = MaybeDone<BoxFuture<'a, Result<u64, tokio_postgres::Error>>>;

/// Statements on their way, in their order.
struct Flight<'a> {
    /// Rows touched, by write.
    touched: Vec<u64>,
    /// Whose statement it is; None: the one that opens the transaction.
    sent: Vec<(Option<usize>, Answer<'a>)>,
}

impl<'a> Flight<'a> {
    async fn send(&mut self, write: Option<usize>, statement: impl Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a) {
        let mut answer = maybe_done(statement.boxed());
        // The first poll puts a message on its way.
        let _ = poll!(&mut answer);
        self.sent.push((write, answer));
    }

    /// Reads all answers; the first refusal counts, since the others follow from it.
    async fn land(&mut self) -> Result<(), Trouble> {
        let mut refusal = None;
        for (write, mut answer) in self.sent.drain(..) {
            match (answer_of(Pin::new(&mut answer)).await, write) {
                (Ok(rows), Some(write)) => self.touched[write] += rows,
                (Ok(_), None) => {}
                (Err(problem), write) => refusal = refusal.or(Some(Refusal { write, problem })),
            }
        }
        refusal.map_or(Ok(()), |refusal| Err(Trouble::Refused(refusal)))
    }
}

async fn answer_of<F: Future>(mut answer: Pin<&mut MaybeDone<F>>) -> F::Output {
    answer.as_mut().await;
    answer.take_output().expect("the answer was awaited")
}

fn unexpected(group: &Group, touched: &[u64]) -> Option<Mismatch> {
    let counted = |write: &TableWrite| write.strict && write.kind != WriteKind::Truncate;
    let mut writes = group.writes.iter().zip(touched).enumerate();
    writes.find_map(|(index, (write, touched))| {
        let expected = write.rows.len() as u64;
        (counted(write) && *touched != expected).then_some(Mismatch { write: index, expected, touched: *touched })
    })
}

#[async_trait]
impl Applier for PostgresApplier {
    async fn apply(&mut self, group: &Group) -> Result<Applied> {
        let mut ways = Vec::with_capacity(group.writes.len());
        for write in &group.writes {
            ways.push(self.way(write).await?);
        }
        let opening = self.opening(&group.origin);
        let touched = match self.run(&opening, group, &ways).await {
            Ok(touched) => touched,
            Err(Trouble::Refused(refusal)) => return self.refused(group, refusal).await,
            Err(Trouble::Failed(error)) => return Err(error),
        };
        self.open = true;
        let Some(mismatch) = unexpected(group, &touched) else { return Ok(Applied::AsExpected) };
        self.undo_group().await?;
        Ok(Applied::Unexpected(mismatch))
    }

    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        if !self.open {
            self.session.batch_execute(&writer::begin(&self.lease, "")).await.map_err(error::from_server)?;
            self.open = true;
        }
        lease::write_entries(&self.session, &self.lease.task, entries).await?;
        let epoch = lease::to_signed(self.lease.epoch)?;
        let sequence = lease::to_signed(next.sequence.0)?;
        let old_position = previous.map(|old| old.position.0.to_vec());
        let old_log = previous.map(lease::log_bytes);
        let old_sequence = previous.map(|old| lease::to_signed(old.sequence.0)).transpose()?;
        let (task, position, log) = (self.lease.task.as_str(), &next.position.0[..], lease::log_bytes(next));
        let parameters: [&(dyn ToSql + Sync); 8] = [&task, &epoch, &position, &log, &sequence, &old_position, &old_log, &old_sequence];
        let (moved, committed) = {
            let mut moved = pin!(maybe_done(self.session.query_one(&self.move_checkpoint, &parameters)));
            let _ = poll!(&mut moved);
            let mut committed = pin!(maybe_done(self.session.batch_execute("COMMIT")));
            let _ = poll!(&mut committed);
            failpoint("apply.commit.sent");
            (answer_of(moved).await, answer_of(committed).await)
        };
        match moved {
            Err(problem) if writer::is_division_by_zero(&problem) => Err(self.unmoved().await),
            Err(problem) => Err(error::from_server(problem)),
            Ok(_) => {
                committed.map_err(error::from_server)?;
                self.open = false;
                Ok(())
            }
        }
    }

    async fn durable(&mut self) -> Result<()> {
        if self.open {
            return Err(Error::internal("durability was asked for inside a transaction"));
        }
        // A transaction that writes nothing to the log would not flush it.
        let sql = "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'godwit_flush', ''); COMMIT";
        self.session.batch_execute(sql).await.map_err(error::from_server)
    }

    async fn abandon(&mut self) -> Result<()> {
        if self.open {
            self.session.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
            self.open = false;
        }
        Ok(())
    }
}
