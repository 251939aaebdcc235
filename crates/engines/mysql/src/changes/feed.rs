//! The stream itself: events in, items out.
//!
//! Whatever is read of a transaction is in this value when `next` waits, so that a dropped call loses nothing. A statement in
//! the log is either known to leave the selected tables alone, or it stops the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use godwit_model::{Captured, ChangeStream, Error, LayoutId, Micros, Position, Result, Table, TableName, TaskName, codes};

use super::beginning::{self, sum_of};
use super::sight;
use super::tables::{Streamed, Tables, ddl_stopped};
use super::transaction::{Transaction, announce};
use crate::binlog::{Binlog, Event, GtidEvent, Header, LoggedType, Query, Raw, RowsEvent, TableMap, decode, undecodable};
use crate::connect::{Endpoint, Purpose};
use crate::gtid::Gtid;
use crate::marker::MarkerTable;
use crate::patience::{answered, answered_of};
use crate::position::{Place, ServerSum};
use crate::statement::Statement;

/// What the client may keep of tables before the log is asked for anew.
const MOST_REMEMBERED: usize = 64 << 20;
/// A stream that passes much of no interest says this often how far it is.
const TELL_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Changes {
    log: Binlog,
    endpoint: Endpoint,
    task: TaskName,
    pub(crate) most_remembered: usize,
    reading: Reading,
    /// What ended the stream, until it was said.
    failed: Option<Error>,
    /// After an error nothing more is read.
    is_over: bool,
}

/// All that is known while the log is read; knows no connection.
struct Reading {
    tables: Tables,
    markers: MarkerTable,
    /// The end of the last transaction.
    place: Place,
    server: ServerSum,
    transaction: Option<Transaction>,
    /// The tables whose rows may follow, by the log's number.
    mapped: HashMap<u64, Mapped>,
    announced: Vec<LayoutId>,
    queue: VecDeque<Captured>,
    /// Whether transactions of no interest lie behind the last position that was given.
    has_passed: bool,
    told: Instant,
}

enum Mapped {
    Selected { table: Arc<Streamed>, columns: Vec<LoggedType> },
    Markers { columns: Vec<LoggedType> },
    Other,
}

impl Changes {
    pub(crate) async fn open(endpoint: &Endpoint, task: &TaskName, from: &Position, tables: &[Arc<Table>]) -> Result<Self> {
        let place = Place::parse(from)?;
        let mut conn = answered(endpoint.connect(Purpose::Read)).await?;
        let server = sight::must_hold(endpoint, &mut conn, task, &place).await?;
        let sight = answered_of(tables.len(), sight::look(&mut conn, tables)).await?;
        let tables = Tables::new(tables, &sight)?;
        let log = Binlog::open(endpoint, &place.gtids).await?;
        let reading = Reading {
            tables,
            markers: MarkerTable::of(task),
            place,
            server: sum_of(&server),
            transaction: None,
            mapped: HashMap::new(),
            announced: Vec::new(),
            queue: VecDeque::new(),
            has_passed: false,
            told: Instant::now(),
        };
        let (endpoint, task) = (endpoint.clone(), task.clone());
        Ok(Changes { log, endpoint, task, most_remembered: MOST_REMEMBERED, reading, failed: None, is_over: false })
    }

    /// Safe to drop while pending: until another stream is open this one stays.
    async fn event(&mut self) -> Result<Raw> {
        if self.log.remembers() > self.most_remembered && self.reading.transaction.is_none() {
            let place = &self.reading.place;
            // who answers now may be another server
            let mut conn = answered(self.endpoint.connect(Purpose::Read)).await?;
            sight::must_hold(&self.endpoint, &mut conn, &self.task, place).await?;
            self.log = Binlog::open(&self.endpoint, &place.gtids).await?;
        }
        self.log.next().await
    }
}

#[async_trait]
impl ChangeStream for Changes {
    async fn next(&mut self) -> Result<Captured> {
        loop {
            if let Some(item) = self.reading.queue.pop_front() {
                return Ok(item);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.is_over {
                return Err(Error::new(&codes::CONNECTION_LOST, "the stream of changes has ended"));
            }
            let raw = self.event().await;
            let read = raw.and_then(|raw| self.reading.take(raw.header(), raw.body()));
            if let Err(error) = read {
                self.is_over = true;
                self.reading.give_up();
                self.failed = Some(error);
            }
        }
    }

    /// The server keeps its log by its own rules: it is told nothing.
    async fn confirm(&mut self, position: &Position) -> Result<()> {
        Place::parse(position).map(|_| ())
    }
}

impl Reading {
    fn take(&mut self, header: Header, body: &[u8]) -> Result<()> {
        let event = decode(header, body)?;
        if let Some(transaction) = &mut self.transaction {
            transaction.beginning.take(header, body, &event);
        }
        match event {
            Event::Gtid(event) => self.begin(event, beginning::Reader::new(header, body)),
            Event::TableMap(map) => self.map(&map),
            Event::Rows(rows) => self.rows(&rows),
            Event::Query(query) => self.statement(header, &query),
            Event::Xid => self.end(header),
            Event::XaPrepare => self.prepared(),
            Event::Heartbeat => {
                self.tell_passed();
                Ok(())
            }
            Event::Incident => Err(Error::new(&codes::OUT_OF_SIGHT, "the source says that changes are missing in its log (an incident)")
                .remedy("run with --resync")),
            Event::FormatDescription | Event::Rotate | Event::GtidList(_) | Event::Silent => Ok(()),
        }
    }

    fn begin(&mut self, event: GtidEvent, beginning: beginning::Reader) -> Result<()> {
        if let Some(mut unfinished) = self.transaction.take() {
            // the server was killed while it wrote it; it is not in the server either
            let gtid = unfinished.event.gtid;
            tracing::warn!(%gtid, "the source's log holds a transaction without an end, which is left out");
            unfinished.forget_all()?;
        }
        if self.place.gtids.covers(&event.gtid) {
            let last = self.place.gtids.last(event.gtid.domain).map(ToString::to_string).unwrap_or_default();
            return Err(undecodable(format!("the source's log holds {} behind {last}: its order is not that of its numbers", event.gtid))
                .remedy("set gtid_strict_mode = ON at the source, and let each of its own masters have a domain; then run with --resync"));
        }
        self.transaction = Some(Transaction::new(event, beginning));
        Ok(())
    }

    fn under_way(&mut self) -> Result<&mut Transaction> {
        self.transaction.as_mut().ok_or_else(no_transaction)
    }

    fn map(&mut self, map: &TableMap<'_>) -> Result<()> {
        let mapped = match self.tables.get(&map.table) {
            Some(table) => {
                let logged = map.open()?;
                table.must_agree(&logged)?;
                Mapped::Selected { table: table.clone(), columns: logged.columns }
            }
            None if self.markers.is(&map.table) => {
                let logged = map.open()?;
                self.markers.must_agree(&logged)?;
                Mapped::Markers { columns: logged.columns }
            }
            None => Mapped::Other,
        };
        self.mapped.insert(map.id, mapped);
        Ok(())
    }

    fn rows(&mut self, rows: &RowsEvent<'_>) -> Result<()> {
        let transaction = self.transaction.as_mut().ok_or_else(no_transaction)?;
        match self.mapped.get(&rows.table_id) {
            Some(Mapped::Other) => {}
            Some(Mapped::Markers { columns }) => {
                for marker in self.markers.read(rows, columns)? {
                    transaction.mark(marker);
                }
            }
            Some(Mapped::Selected { table, columns }) => {
                if transaction.event.prepared {
                    return Err(xa().at(format!("table {}", table.layout.table)));
                }
                if !self.announced.contains(&table.layout.id) {
                    announce(&table.layout, &mut self.queue);
                    self.announced.push(table.layout.id);
                }
                let batch = transaction.batch();
                let (values, changes) = (batch.values.len(), batch.changes.len());
                table.take(rows, columns, batch)?;
                if transaction.grown(values, changes) {
                    self.hand_on();
                }
            }
            // ends a statement without naming a table
            None if rows.table_id == DUMMY_TABLE => {}
            None => return Err(undecodable("the source's log holds rows of a table that it did not describe")),
        }
        Ok(())
    }

    /// Begins to tell of a transaction before its end. Where it began is told first: if it has none, the next stream need
    /// not pass again what lies before it.
    fn hand_on(&mut self) {
        let Some(mut transaction) = self.transaction.take() else { return };
        self.tell_passed();
        transaction.hand_on(&mut self.queue);
        self.transaction = Some(transaction);
    }

    /// After an error: nothing but how far the transactions of no interest are passed. A file that a killed server left
    /// torn is left behind only by who stands at its last whole transaction (seen on 10.11).
    fn give_up(&mut self) {
        self.queue.clear();
        self.transaction = None;
        self.tell_passed();
    }

    fn statement(&mut self, header: Header, query: &Query<'_>) -> Result<()> {
        let event = self.under_way()?.event;
        let statement = Statement::read(query);
        if self.may_be_of_selected(&statement) {
            return Err(unclear(&event.gtid));
        }
        match statement {
            Statement::Begin | Statement::Harmless => {}
            Statement::Commit if self.under_way()?.has_changes() => return Err(without_transaction()),
            Statement::Commit => return self.end(header),
            Statement::Rollback => {
                self.under_way()?.forget_all()?;
                return self.end(header);
            }
            Statement::Savepoint(name) => self.under_way()?.savepoint(&name),
            Statement::RollbackTo(name) => self.under_way()?.back_to(&name)?,
            // what one holds that is committed elsewhere was refused where it was prepared
            Statement::Xa => {}
            Statement::Truncate(name) => self.truncate(&name)?,
            Statement::Tables(names) => self.must_be_others(&names)?,
            Statement::Database(name) => {
                if let Some(table) = self.tables.in_database(&name) {
                    return Err(ddl_stopped(table, format!("the database `{name}` was dropped")));
                }
            }
            Statement::Rows => return Err(logged_as_statement(&event.gtid)),
            Statement::Unclear => return Err(unclear(&event.gtid)),
        }
        if event.standalone { self.end(header) } else { Ok(()) }
    }

    /// Whether it is of a table or database whose name is not known in full.
    fn may_be_of_selected(&self, statement: &Statement) -> bool {
        let may_be = |name: &TableName| self.tables.may_be(&name.schema, Some(&name.name));
        match statement {
            Statement::Truncate(name) => may_be(name),
            Statement::Tables(names) => names.iter().any(may_be),
            Statement::Database(name) => self.tables.may_be(name, None),
            _ => false,
        }
    }

    fn must_be_others(&self, names: &[TableName]) -> Result<()> {
        match names.iter().find_map(|name| self.tables.get(name)) {
            None => Ok(()),
            Some(table) => Err(table.stopped("the table was altered, renamed or dropped")),
        }
    }

    fn truncate(&mut self, name: &TableName) -> Result<()> {
        let Some(table) = self.tables.get(name).cloned() else { return Ok(()) };
        if !self.announced.contains(&table.layout.id) {
            announce(&table.layout, &mut self.queue);
            self.announced.push(table.layout.id);
        }
        self.under_way()?.batch().push_truncate(table.layout.id);
        Ok(())
    }

    fn prepared(&mut self) -> Result<()> {
        let transaction = self.transaction.take().ok_or_else(no_transaction)?;
        if transaction.has_changes() {
            return Err(xa());
        }
        self.pass(&transaction);
        Ok(())
    }

    fn end(&mut self, header: Header) -> Result<()> {
        let transaction = self.transaction.take().ok_or_else(|| undecodable("the source's log ends a transaction that did not begin"))?;
        if !transaction.is_of_interest() {
            self.pass(&transaction);
            return Ok(());
        }
        self.place.pass(transaction.event.gtid, transaction.beginning.read(), self.server);
        self.mapped.clear();
        let time = Micros(i64::from(header.time) * 1_000_000);
        transaction.commit(self.place.position(), time, &mut self.queue);
        (self.has_passed, self.told) = (false, Instant::now());
        Ok(())
    }

    /// Behind a transaction that nobody wants to hear of.
    fn pass(&mut self, transaction: &Transaction) {
        self.mapped.clear();
        self.place.pass(transaction.event.gtid, transaction.beginning.read(), self.server);
        self.has_passed = true;
        if self.told.elapsed() >= TELL_AFTER {
            self.tell_passed();
        }
    }

    fn tell_passed(&mut self) {
        if self.transaction.is_none() && std::mem::take(&mut self.has_passed) {
            self.queue.push_back(Captured::Idle { position: self.place.position() });
            self.told = Instant::now();
        }
    }
}

/// The number of no table: servers end a statement with it that changed nothing that is logged.
const DUMMY_TABLE: u64 = 0xFF_FFFF;

/// Such groups end with a COMMIT as text, others with an event that engines of two phases are asked for. InnoDB's changes have
/// one too where their transaction also changed an Aria table (seen on 10.11): then log and table are not committed as one,
/// and a crash may come in between. The GTID's own flag does not tell: a transaction that also changes a table without
/// transactions lacks it too.
fn without_transaction() -> Error {
    undecodable("the source's log holds changes of a selected table that were not committed together with the log")
        .remedy(
            "make the selected tables InnoDB tables, and the Aria tables that change in the same transactions too; then run with --resync",
        )
        .effect("everything before these changes was taken over, nothing of them")
}

fn xa() -> Error {
    undecodable("the source's log holds an XA transaction on a selected table, which this version does not follow")
        .remedy("let the application use XA COMMIT .. ONE PHASE or plain transactions; then run with --resync")
        .effect("everything before this transaction was taken over, nothing of it")
}

fn no_transaction() -> Error {
    undecodable("the source's log holds changes that belong to no transaction with a GTID")
}

fn logged_as_statement(gtid: &Gtid) -> Error {
    Error::new(&codes::OUT_OF_SIGHT, "a statement that changes rows is in the source's log as text, and not the rows that it changed")
        .at(format!("transaction {gtid}"))
        .remedy("end the sessions that began before binlog_format was set to ROW, and let none set another; then run with --resync")
        .effect("everything before this transaction was taken over, nothing of it")
}

fn unclear(gtid: &Gtid) -> Error {
    Error::new(&codes::OUT_OF_SIGHT, "the source's log holds a statement as text of which it cannot be told what it does to the tables")
        .at(format!("transaction {gtid}"))
        .remedy("let clients that speak big5, cp932, gbk or sjis use utf8mb4; then run with --resync")
        .effect("everything before this transaction was taken over, nothing of it")
}
