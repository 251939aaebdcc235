//! The stream of captured changes.
//!
//! SQLite offers no notification to other processes: the stream asks `PRAGMA data_version`, which costs a look at
//! shared memory, and reads only when another connection has committed. What became visible since the last look is one
//! source transaction, but for a marker: it is one by itself, so that all before it is whole, and the place behind it is
//! exact. Records never change, so a long transaction is read in pieces, each in a short read of its own, and
//! no read stays open while the pieces travel. All state moves on after an answer has come: a dropped call loses nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use godwit_model::{
    ByteCount, Captured, ChangeBatch, ChangeStream, Error, Layout, LayoutColumn, LayoutId, Marker, Micros, Position, Result, Row, Table,
    TableName, Value, codes,
};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::capture::{self, CapturedTable, Names};
use crate::connect::{Location, Purpose};
use crate::error::Told;
use crate::schema::{MAIN, Shape};
use crate::session::Session;
use crate::tokens::quoted;
use crate::triggers::old_image;
use crate::values;

/// Between two looks while changes come in: below the time a commit with fsync takes.
const LOOK_BUSY: Duration = Duration::from_millis(3);
/// Between two looks when nothing happened for a while: an idle file costs 50 looks a second.
const LOOK_IDLE: Duration = Duration::from_millis(20);
/// So long after the last change the slower looks begin.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// One piece of a transaction: bounds what the stream holds.
const PIECE_BYTES: usize = 1 << 20;
/// One row's share of the task's memory.
const ROW_SHARE: u64 = 4;
const LEAST_ROW: u64 = 1 << 20;
/// Trimming waits for so many records, or for `TRIM_AFTER`: each trim takes the users' write lock.
const TRIM_RECORDS: i64 = 1_000;
const TRIM_AFTER: Duration = Duration::from_secs(1);
/// Records in one trim's transaction: well under 5 ms.
const TRIM_AT_ONCE: i64 = 500;
/// Trims in one confirm: bounds how long the confirming caller waits; the rest goes with the next.
const TRIMS: usize = 20;
/// Between two trims, so that users who wait for the lock get it.
const TRIM_PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct Changes {
    reader: Session,
    trimmer: Session,
    view: Arc<View>,
    announced: Vec<bool>,
    /// The last record that was put into the queue.
    last: i64,
    /// The last record of the transaction that is being read.
    until: Option<i64>,
    queue: VecDeque<Captured>,
    seen: Option<Seen>,
    last_change: Instant,
    trimmed: i64,
    trimmed_at: Instant,
}

/// What does not change while the stream lives.
struct View {
    names: Names,
    captured: Vec<CapturedTable>,
    /// Where in `streamed` a table's number is; None: captured and not asked for.
    places: HashMap<u32, Option<usize>>,
    streamed: Vec<Streamed>,
    /// What one row may weigh.
    row_bytes: usize,
}

/// A table of the stream.
struct Streamed {
    layout: Arc<Layout>,
    /// Places of the columns that an old image holds; None: all.
    key: Option<Vec<usize>>,
}

/// What the last look saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    data: i64,
    schema: i64,
}

/// What a look found.
enum Look {
    Nothing,
    UpTo { seen: Seen, highest: i64 },
}

/// A piece of a transaction.
struct Piece {
    items: Vec<Item>,
    last: i64,
    /// It ends with a marker, and so does its transaction.
    marked: bool,
}

enum Item {
    Changes { batch: ChangeBatch, tables: Vec<usize> },
    Marker(String),
}

impl Changes {
    pub(crate) async fn open(
        location: &Location,
        names: &Names,
        from: &Position,
        tables: &[Arc<Table>],
        memory: ByteCount,
    ) -> Result<Self> {
        let from = capture::number(from)?;
        let read = location.clone();
        let reader = Session::open("changes", move || read.open(Purpose::Read)).await?;
        let write = location.clone();
        let trimmer = Session::open("trim", move || write.open(Purpose::WriteSource)).await?;
        let (names, tables) = (names.clone(), tables.to_vec());
        let row_bytes = usize::try_from((memory.0 / ROW_SHARE).max(LEAST_ROW)).unwrap_or(usize::MAX);
        let view = reader.run(move |connection| View::read(connection, names, from, &tables, row_bytes)).await?;
        let announced = vec![false; view.streamed.len()];
        let now = Instant::now();
        Ok(Changes {
            reader,
            trimmer,
            view: Arc::new(view),
            announced,
            last: from,
            until: None,
            queue: VecDeque::new(),
            seen: None,
            last_change: now,
            trimmed: from,
            trimmed_at: now,
        })
    }

    /// Looks until there is something behind the last record.
    async fn look(&mut self) -> Result<()> {
        let (view, seen) = (self.view.clone(), self.seen);
        let look = self.reader.run(move |connection| look(connection, &view, seen)).await?;
        if let Look::UpTo { seen, highest } = look {
            self.seen = Some(seen);
            if highest > self.last {
                self.last_change = Instant::now();
                self.until = Some(highest);
                self.queue.push_back(Captured::Begin);
                return Ok(());
            }
            if highest < self.last {
                return Err(Error::new(&codes::SOURCE_CHANGED, "the source's file is older than what was read from it")
                    .remedy("if the file was restored, run with --resync"));
            }
        }
        let wait = if self.last_change.elapsed() < BUSY_FOR { LOOK_BUSY } else { LOOK_IDLE };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn read_piece(&mut self, until: i64) -> Result<()> {
        let (view, last) = (self.view.clone(), self.last);
        let piece = self.reader.run(move |connection| read_piece(connection, &view, last, until)).await?;
        self.last = piece.last;
        let marked = piece.marked;
        for item in piece.items {
            match item {
                Item::Marker(name) => self.queue.push_back(Captured::Marker(Marker(name))),
                Item::Changes { batch, tables } => {
                    self.announce(&tables);
                    self.queue.push_back(Captured::Changes(batch));
                }
            }
        }
        if self.last == until {
            self.until = None;
        }
        if marked || self.until.is_none() {
            self.queue.push_back(Captured::Commit { position: capture::position(self.last), time: now(), origin: None });
        }
        if marked && self.until.is_some() {
            self.queue.push_back(Captured::Begin);
        }
        Ok(())
    }

    fn announce(&mut self, tables: &[usize]) {
        for place in tables {
            if !std::mem::replace(&mut self.announced[*place], true) {
                self.queue.push_back(Captured::Layout(self.view.streamed[*place].layout.clone()));
            }
        }
    }

    async fn trim(&mut self, confirmed: i64) -> Result<()> {
        for _ in 0..TRIMS {
            let view = self.view.clone();
            let more = self.trimmer.run(move |connection| capture::trim(connection, &view.names, confirmed, TRIM_AT_ONCE)).await;
            match more {
                Ok(true) => tokio::time::sleep(TRIM_PAUSE).await,
                Ok(false) => break,
                // Users hold the lock: what is left goes next time.
                Err(error) if error.is(&codes::BUSY) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.trimmed = confirmed;
        self.trimmed_at = Instant::now();
        Ok(())
    }
}

#[async_trait]
impl ChangeStream for Changes {
    async fn next(&mut self) -> Result<Captured> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Ok(item);
            }
            match self.until {
                Some(until) => self.read_piece(until).await?,
                None => self.look().await?,
            }
        }
    }

    async fn confirm(&mut self, position: &Position) -> Result<()> {
        let confirmed = capture::number(position)?;
        let behind = confirmed - self.trimmed;
        if behind >= TRIM_RECORDS || (behind > 0 && self.trimmed_at.elapsed() >= TRIM_AFTER) {
            self.trim(confirmed).await?;
        }
        Ok(())
    }
}

impl View {
    fn read(connection: &mut Connection, names: Names, from: i64, tables: &[Arc<Table>], row_bytes: usize) -> Result<View> {
        let transaction = connection.transaction().told()?;
        let captured =
            capture::captured(&transaction, &names)?.ok_or_else(|| capture::lost("the source's file has no change log of this task"))?;
        capture::holds(&transaction, &names, from)?;
        let mut places = HashMap::new();
        let mut streamed = Vec::new();
        let wanted: HashMap<&str, &Table> = tables.iter().map(|wanted| (wanted.name.name.as_str(), &**wanted)).collect();
        for (table, shape) in captured.iter().zip(capture::all_unchanged(&transaction, &names, &captured)?) {
            let asked = wanted.get(table.name.as_str());
            places.insert(table.number, asked.map(|_| streamed.len()));
            if let Some(asked) = asked {
                must_have_its_key(asked, &shape)?;
                streamed.push(Streamed::new(table, &shape));
            }
        }
        let known: HashSet<&str> = captured.iter().map(|table| table.name.as_str()).collect();
        if let Some(missing) = tables.iter().find(|wanted| !known.contains(wanted.name.name.as_str())) {
            return Err(Error::new(&codes::OUT_OF_SIGHT, "changes of this table were never captured")
                .at(format!("table {}", missing.name))
                .remedy("run with --resync"));
        }
        Ok(View { names, captured, places, streamed, row_bytes })
    }

    /// Before a record's values are copied out of SQLite's memory.
    fn must_fit(&self, row: &rusqlite::Row<'_>) -> Result<()> {
        let mut bytes = 0;
        for index in FIRST_VALUE..row.as_ref().column_count() {
            bytes += match row.get_ref(index).told()? {
                ValueRef::Text(text) | ValueRef::Blob(text) => text.len(),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
            };
        }
        if bytes <= self.row_bytes {
            return Ok(());
        }
        let what = format!("a row of {bytes} bytes was changed; {} fit", self.row_bytes);
        let error = Error::new(&codes::VALUE_TOO_LARGE, what)
            .remedy("raise `limits: {memory}` to at least four times the size of the row")
            .effect("everything before this row's transaction is taken over, nothing of it");
        let place = self.places.get(&row.get::<_, u32>(1).told()?).copied().flatten();
        Err(match place.and_then(|place| self.streamed.get(place)) {
            Some(table) => error.at(format!("table {}", table.layout.table)).detail(table.key_text(row)?),
            None => error,
        })
    }
}

/// What is logged of an old row is the key that the table had when its triggers were made.
fn must_have_its_key(described: &Table, shape: &Shape) -> Result<()> {
    let mut was = described.key_names();
    let mut is: Vec<&str> = shape.key.iter().flatten().map(|part| shape.columns[part.column].name.as_str()).collect();
    was.sort_unstable();
    is.sort_unstable();
    if was == is {
        return Ok(());
    }
    let named = |key: &[&str]| if key.is_empty() { "no key".to_owned() } else { format!("the key ({})", key.join(", ")) };
    Err(Error::new(&codes::DDL_STOPPED, format!("the table had {} when it was described and has {} now", named(&was), named(&is)))
        .at(format!("table {}", described.name))
        .remedy("change the target's table alike, then start anew with `run --resync`"))
}

impl Streamed {
    fn new(table: &CapturedTable, shape: &Shape) -> Self {
        let image = old_image(shape);
        let column = |(place, index): (usize, usize)| LayoutColumn {
            name: shape.columns[index].name.clone(),
            type_name: shape.columns[index].type_name.clone(),
            key: shape.key.is_some() && image.contains(&place),
        };
        let layout = Layout {
            id: LayoutId(table.number),
            table: TableName::new(MAIN, &table.name),
            columns: shape.carried().into_iter().enumerate().map(column).collect(),
            full_old_images: shape.key.is_none(),
        };
        Streamed { layout: Arc::new(layout), key: shape.key.is_some().then_some(image) }
    }

    /// For a person's terminal.
    fn key_text(&self, row: &rusqlite::Row<'_>) -> Result<String> {
        let mut parts = Vec::new();
        for place in self.key.iter().flatten() {
            let value = values::read(row.get_ref(FIRST_VALUE + place).told()?);
            parts.push(format!("{} = {value:?}", self.layout.columns[*place].name));
        }
        Ok(format!("key {}", parts.join(", ")))
    }

    fn new_image(&self, row: &rusqlite::Row<'_>) -> Result<Row> {
        values::read_row(row, FIRST_VALUE, self.layout.columns.len()).told()
    }

    fn old_image(&self, row: &rusqlite::Row<'_>) -> Result<Row> {
        let Some(key) = &self.key else { return self.new_image(row) };
        let mut image = vec![Value::Absent; self.layout.columns.len()];
        for place in key {
            image[*place] = values::read(row.get_ref(FIRST_VALUE + place).told()?);
        }
        Ok(image)
    }
}

/// Columns of the log before a record's values: n, t, op.
const FIRST_VALUE: usize = 3;

fn look(connection: &mut Connection, view: &View, seen: Option<Seen>) -> Result<Look> {
    let data = pragma(connection, "data_version")?;
    if seen.is_some_and(|seen| seen.data == data) {
        return Ok(Look::Nothing);
    }
    let transaction = connection.transaction().told()?;
    let data = pragma(&transaction, "data_version")?;
    let schema = pragma(&transaction, "schema_version")?;
    if seen.is_none_or(|seen| seen.schema != schema) {
        if capture::captured(&transaction, &view.names)?.is_none() {
            return Err(capture::lost("the change log of this task was removed from the source's file"));
        }
        capture::all_unchanged(&transaction, &view.names, &view.captured)?;
    }
    let highest = capture::highest(&transaction, &view.names)?;
    Ok(Look::UpTo { seen: Seen { data, schema }, highest })
}

fn pragma(connection: &Connection, name: &str) -> Result<i64> {
    connection.prepare_cached(&format!("PRAGMA {name}")).told()?.query_row([], |row| row.get(0)).told()
}

fn read_piece(connection: &mut Connection, view: &View, last: i64, until: i64) -> Result<Piece> {
    let sql = format!("SELECT * FROM {} WHERE n > ?1 AND n <= ?2 ORDER BY n", quoted(&view.names.log));
    let mut statement = connection.prepare_cached(&sql).told()?;
    let mut rows = statement.query([last, until]).told()?;
    let mut piece = Gathered { items: Vec::new(), batch: ChangeBatch::default(), tables: Vec::new(), old: None, weight: 0 };
    let (mut last, mut marked) = (last, false);
    while let Some(row) = rows.next().told()? {
        let number: i64 = row.get(0).told()?;
        if number != last + 1 {
            return Err(capture::lost("changes are missing in the log in the source's file"));
        }
        view.must_fit(row)?;
        piece.take(view, row)?;
        last = number;
        marked = matches!(piece.items.last(), Some(Item::Marker(_))) && piece.batch.is_empty();
        if marked {
            break;
        }
        if piece.weight >= PIECE_BYTES && piece.old.is_none() {
            break;
        }
    }
    if rows.next().told()?.is_none() && last != until {
        return Err(capture::lost("changes are missing in the log in the source's file"));
    }
    piece.flush();
    Ok(Piece { items: piece.items, last, marked })
}

/// A piece while it is read.
struct Gathered {
    items: Vec<Item>,
    batch: ChangeBatch,
    tables: Vec<usize>,
    /// The old image of an update whose new one comes next.
    old: Option<Row>,
    weight: usize,
}

impl Gathered {
    fn take(&mut self, view: &View, row: &rusqlite::Row<'_>) -> Result<()> {
        let operation: String = row.get(2).told()?;
        match operation.as_str() {
            "b" => return Ok(()),
            "m" => {
                self.flush();
                self.items.push(Item::Marker(row.get(FIRST_VALUE).told()?));
                return Ok(());
            }
            _ => {}
        }
        let number: u32 = row.get(1).told()?;
        let place = view.places.get(&number).ok_or_else(|| undecodable("a table that is not known"))?;
        if let Some(place) = *place {
            self.change(place, &view.streamed[place], &operation, row)?;
        }
        Ok(())
    }

    fn change(&mut self, place: usize, table: &Streamed, operation: &str, row: &rusqlite::Row<'_>) -> Result<()> {
        let (id, full) = (table.layout.id, table.layout.full_old_images);
        if !self.tables.contains(&place) {
            self.tables.push(place);
        }
        let before = self.batch.values.len();
        match operation {
            "i" => self.batch.push_insert(id, table.new_image(row)?),
            "u" => self.batch.push_update(id, self.old.take(), full, table.new_image(row)?),
            "d" => self.batch.push_delete(id, table.old_image(row)?, full),
            "o" => self.old = Some(table.old_image(row)?),
            "x" => return Err(lost_order(table)),
            _ => return Err(undecodable("an operation that is not known")),
        }
        self.weight += self.batch.values[before..].iter().map(Value::weight).sum::<usize>() + size_of::<godwit_model::Change>();
        Ok(())
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.items.push(Item::Changes { batch, tables: std::mem::take(&mut self.tables) });
        }
    }
}

fn lost_order(table: &Streamed) -> Error {
    let what = "a row that refers to itself had its key changed: SQLite does not show in which order its foreign key changed it";
    Error::new(&codes::OUT_OF_SIGHT, what).at(format!("table {}", table.layout.table)).remedy("run with --resync")
}

fn undecodable(what: &str) -> Error {
    Error::new(&codes::LOG_UNDECODABLE, format!("Godwit's log in the source's file holds {what}"))
}

/// When the transaction was seen: SQLite does not say when it was committed.
fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
