//! SQLite as a source: each question goes to a connection of its own or to the one for short writes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{
    Altered, Appearance, ByteCount, Capabilities, ChangeStream, Description, Error, Established, Examiner, Feature, Finding, Look, Marker,
    Position, Result, RowBatch, SequenceValue, Snapshot, Source, SourceNeeds, Table, TableAppearance, TableMapping, TableName, Task, Trace,
    codes,
};
use rusqlite::Connection;

use crate::capture::{self, Names};
use crate::catalog::names_of_selected;
use crate::changes::Changes;
use crate::connect::{Location, Purpose};
use crate::digest::SqliteExaminer;
use crate::error::Told;
use crate::pool::Pool;
use crate::schema::{Frame, MAIN};
use crate::session::Session;
use crate::snapshot::{SqliteSnapshot, rows_of};
use crate::{check, describe, fence, structure};

/// Tries for one of our writes to the user's file; with the wait for the lock about half a minute.
const TRIES: usize = 60;
/// Between two tries, so that waiting users go first.
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

pub(crate) struct SqliteSource {
    location: Location,
    names: Names,
    readers: Arc<Pool>,
    writers: Pool,
    examiner: SqliteExaminer,
    memory: ByteCount,
}

impl SqliteSource {
    pub(crate) fn new(task: &Task) -> Result<Self> {
        let location = Location::new(&task.source)?;
        let readers = Arc::new(Pool::new(&location, Purpose::Read, "read"));
        Ok(SqliteSource {
            examiner: SqliteExaminer::new(location.clone(), readers.clone()),
            readers,
            writers: Pool::new(&location, Purpose::WriteSource, "write"),
            names: Names::new(&task.name),
            memory: task.limits.memory,
            location,
        })
    }

    async fn read<T: Send + 'static>(&self, job: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        self.placed(self.readers.run(move |connection| job(&*connection.transaction().told()?)).await)
    }

    /// Short writes to the user's file: a lock that others hold is waited for in small steps.
    async fn write<T: Send + 'static>(&self, job: impl Fn(&mut Connection) -> Result<T> + Send + Sync + 'static) -> Result<T> {
        let session = self.placed(self.writers.take().await)?;
        let answer = with_tries(&session, Arc::new(job)).await;
        match answer {
            Ok(_) => self.writers.give_back(session).await,
            Err(_) => session.close().await,
        }
        self.placed(answer)
    }

    fn placed<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| error.at_least_at(|| self.location.label().to_owned()))
    }

    async fn remove_triggers(&self) -> Result<()> {
        self.in_parts(|_, names, connection| capture::remove_part(connection, names)).await
    }

    /// Until a part was the last. Users get the lock between the parts: whoever waits for it asks again within this time.
    async fn in_parts(&self, act: impl Fn(usize, &Names, &mut Connection) -> Result<bool> + Clone + Send + Sync + 'static) -> Result<()> {
        for part in 0.. {
            let (names, act) = (self.names.clone(), act.clone());
            if self.write(move |connection| act(part, &names, connection)).await? {
                break;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        Ok(())
    }

    async fn establish_anew(&self, tables: &[Arc<Table>]) -> Result<Established> {
        let tables: Arc<Vec<String>> = Arc::new(tables.iter().map(|table| table.name.name.clone()).collect());
        self.remove_triggers().await?;
        let (names, all) = (self.names.clone(), tables.clone());
        self.write(move |connection| capture::establish_log(connection, &names, &all)).await?;
        self.in_parts(move |part, names, connection| capture::establish_part(connection, names, &tables, part)).await?;
        let names = self.names.clone();
        let opened = SqliteSnapshot::open(&self.location, true, move |connection| capture::highest(connection, &names)).await;
        let (snapshot, highest) = self.placed(opened)?;
        Ok(Established { position: capture::position(highest), snapshot: Some(Box::new(snapshot)) })
    }
}

async fn with_tries<T: Send + 'static>(
    session: &Session,
    job: Arc<impl Fn(&mut Connection) -> Result<T> + Send + Sync + 'static>,
) -> Result<T> {
    for _ in 1..TRIES {
        let this = job.clone();
        match session.run(move |connection| this(connection)).await {
            Err(error) if error.is(&codes::BUSY) => tokio::time::sleep(BETWEEN_TRIES).await,
            answer => return answer,
        }
    }
    session.run(move |connection| job(connection)).await
}

#[async_trait]
impl Source for SqliteSource {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.location)
    }

    async fn check(&self, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
        let asked = check::SourceQuestions::new(needs);
        let names = self.names.clone();
        let mut findings = self.read(move |connection| check::source(connection, &asked, &names)).await?;
        if needs.changes {
            let location = self.location.clone();
            let session = Session::open("check", move || location.open(Purpose::WriteSource)).await?;
            findings.extend(session.run(|connection| Ok(check::may_write(connection))).await?);
            session.close().await;
        }
        Ok(findings)
    }

    async fn describe(&self, task: &Task) -> Result<Description> {
        let task = task.clone();
        self.read(move |connection| describe::describe(connection, &task)).await
    }

    async fn establish(&self, tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established> {
        let Some(known) = known else { return self.establish_anew(tables).await };
        // The stream's own opening checks everything a known position needs.
        drop(
            Changes::open(&self.location, &self.names, known, tables, self.memory)
                .await
                .map_err(|error| error.at_least_at(|| self.location.label().to_owned()))?,
        );
        Ok(Established { position: known.clone(), snapshot: None })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let (snapshot, ()) = self.placed(SqliteSnapshot::open(&self.location, false, |_| Ok(())).await)?;
        Ok(Box::new(snapshot))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        Ok(Box::new(self.placed(Changes::open(&self.location, &self.names, from, tables, self.memory).await)?))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        let (names, marker) = (self.names.clone(), marker.0.clone());
        self.write(move |connection| capture::mark(connection, &names, &marker)).await
    }

    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>> {
        let tables = tables.to_vec();
        self.read(move |connection| {
            let mut looks = Vec::new();
            for table in tables {
                if let Some(frame) = Frame::find(connection, &table.name)? {
                    looks.push(TableAppearance { table, look: frame.look() });
                }
            }
            Ok(looks)
        })
        .await
    }

    /// Capture triggers name the columns a table had when they were made.
    async fn altered(&self, before: &Table, _look: &Appearance, _columns: &[(String, String)]) -> Result<Altered> {
        Err(Error::new(&codes::DDL_STOPPED, "the table was altered, which a SQLite file's capture does not follow")
            .at(format!("table {}", before.name))
            .remedy("alter the target alike, then run with --resync"))
    }

    async fn selected(&self, task: &Task) -> Result<Vec<TableName>> {
        let select = task.select.clone();
        self.read(move |connection| {
            Ok(names_of_selected(connection, &select)?.into_iter().map(|name| TableName::new(MAIN, name)).collect())
        })
        .await
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
        let mappings = mappings.to_vec();
        self.read(move |connection| structure::of_tables(connection, &mappings)).await
    }

    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
        let (mapping, keys) = (mapping.clone(), keys.clone());
        self.read(move |connection| {
            let key: Vec<String> = mapping.key_sources().into_iter().map(str::to_owned).collect();
            let columns: Vec<String> = mapping.columns.iter().map(|column| column.source.clone()).collect();
            rows_of(connection, &mapping.source.name, &key, &columns, &keys)
        })
        .await
    }

    async fn sequences(&self, task: &Task) -> Result<Vec<SequenceValue>> {
        let task = task.clone();
        self.read(move |connection| describe::sequences(connection, &task)).await
    }

    async fn backlog(&self) -> Result<Option<u64>> {
        let names = self.names.clone();
        self.read(move |connection| {
            let sql = "SELECT sum(pgsize) FROM dbstat WHERE name = ?1 AND aggregate = TRUE";
            let bytes: Option<i64> = connection.query_row(sql, [&names.log], |row| row.get(0)).told()?;
            Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
        })
        .await
    }

    async fn set_read_only(&self, tables: &[Arc<Table>], on: bool) -> Result<()> {
        let (names, tables) = (self.names.clone(), tables.to_vec());
        self.write(move |connection| fence::set(connection, &names, &tables, on)).await
    }

    async fn traces(&self) -> Result<Vec<Trace>> {
        let names = self.names.clone();
        let found = self.read(move |connection| capture::traces(connection, &names)).await?;
        Ok(found.into_iter().map(|what| Trace { what }).collect())
    }

    async fn left_to_others(&self) -> Result<Vec<Trace>> {
        Ok(Vec::new())
    }

    async fn remove_traces(&self) -> Result<()> {
        self.remove_triggers().await?;
        let names = self.names.clone();
        self.write(move |connection| capture::remove_log(connection, &names)).await
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }

    /// A marker of ours is written, and a read begun before it is committed: so the read shows all before the marker and
    /// nothing else, and the stream ends a transaction with the marker.
    async fn look(&self) -> Result<Option<Look>> {
        let (reading, writing) = (self.location.clone(), self.location.clone());
        let reader = Session::open("look", move || reading.open(Purpose::Read)).await?;
        let writer = Session::open("write", move || writing.open(Purpose::WriteSource)).await?;
        let names = self.names.clone();
        let marked = with_tries(&writer, Arc::new(move |connection: &mut Connection| capture::begin_marked(connection, &names, "look")));
        let number = self.placed(marked.await)?;
        let names = self.names.clone();
        let begun = reader.run(move |connection| {
            connection.execute_batch("BEGIN").told()?;
            capture::highest(connection, &names).map(|_| ())
        });
        let begun = begun.await;
        let committed = writer.run(|connection| connection.execute_batch("COMMIT").told()).await;
        writer.close().await;
        self.placed(begun.and(committed))?;
        let examiner = Box::new(SqliteExaminer::of(self.location.clone(), reader));
        Ok(Some(Look { position: capture::position(number), examiner }))
    }

    fn shows(&self, look: &Position, commit: &Position) -> Result<bool> {
        Ok(capture::number(commit)? <= capture::number(look)?)
    }
}

pub(crate) fn capabilities(location: &Location) -> Capabilities {
    let version = format!("SQLite {}", rusqlite::version());
    Capabilities { dialect: "sqlite", follows_unwritten: false, identity: location.identity(), version }
}
