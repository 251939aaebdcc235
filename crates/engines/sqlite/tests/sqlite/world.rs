//! Files, tasks and a strict replay of captured changes in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use godwit_model::*;
use rusqlite::Connection;

pub struct World {
    pub folder: tempfile::TempDir,
    pub task: Task,
}

impl World {
    /// A source file in WAL mode with this schema.
    pub fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let task = task(&folder.path().join("source.db"), &folder.path().join("target.db"));
        let world = World { folder, task };
        let user = world.user();
        user.pragma_update(None, "journal_mode", "WAL").unwrap();
        user.execute_batch(sql).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A user's own connection to the source.
    pub fn user(&self) -> Connection {
        open(&self.path("source.db"))
    }

    pub fn target_user(&self) -> Connection {
        open(&self.path("target.db"))
    }

    pub fn source(&self) -> Arc<dyn Source> {
        godwit_sqlite::source(&self.task).unwrap()
    }

    pub fn target(&self) -> Arc<dyn Target> {
        godwit_sqlite::target(&self.task).unwrap()
    }

    pub async fn tables(&self) -> Vec<Arc<Table>> {
        self.source().describe(&self.task).await.unwrap().tables.into_iter().map(Arc::new).collect()
    }

    pub async fn mappings(&self) -> Vec<Arc<TableMapping>> {
        let tables = self.tables().await;
        TableMapping::resolve_all(&self.task.map, tables.iter().map(|t| &**t)).unwrap().into_iter().map(Arc::new).collect()
    }
}

pub fn open(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}

fn endpoint(path: &std::path::Path) -> EndpointConfig {
    EndpointConfig {
        engine: "sqlite".into(),
        host: String::new(),
        port: None,
        user: None,
        password: None,
        database: path.to_str().unwrap().into(),
        tls: Tls::default(),
        options: vec![],
    }
}

pub fn task(source: &std::path::Path, target: &std::path::Path) -> Task {
    Task {
        name: TaskName::parse("shop").unwrap(),
        mode: Mode::Migrate,
        source: endpoint(source),
        target: endpoint(target),
        writes: Writes::Marker,
        log_budget: LogBudget { size: None, then: BudgetEnd::Stop },
        existing: Existing::Refuse,
        select: Selection::default(),
        map: vec![],
        phases: Phases { schema: true, load: true, changes: true },
        from: None,
        schema: SchemaPolicy { create: Create::All, owners: Owners::Current, grants: Grants::List, changes: DdlPolicy::Carry },
        limits: Limits {
            memory: ByteCount(256 << 20),
            source_connections: 4,
            target_connections: 4,
            change_log: ByteCount(1 << 30),
            snapshot_age: Duration::from_secs(300),
        },
        verify_at_finish: true,
    }
}

/// Capture under way on a world.
pub struct Stream {
    pub source: Arc<dyn Source>,
    pub changes: Box<dyn ChangeStream>,
    markers: u32,
    pub last: Position,
}

impl Stream {
    pub async fn begin(world: &World) -> Self {
        let source = world.source();
        let tables = world.tables().await;
        let established = source.establish(&tables, None).await.unwrap();
        let changes = source.changes(&established.position, &tables).await.unwrap();
        Stream { source, changes, markers: 0, last: established.position }
    }

    /// Everything up to now.
    pub async fn drain(&mut self) -> Vec<Captured> {
        self.markers += 1;
        let marker = Marker(format!("m{}", self.markers));
        self.source.mark(&marker).await.unwrap();
        let mut found = Vec::new();
        let mut passed = false;
        loop {
            let item = self.changes.next().await.unwrap();
            passed |= matches!(&item, Captured::Marker(name) if *name == marker);
            if let Captured::Commit { position, .. } = &item {
                self.last = position.clone();
            }
            let end = passed && matches!(item, Captured::Commit { .. });
            found.push(item);
            if end {
                return found;
            }
        }
    }
}

/// Tables in memory, changed by captured changes alone; strict: a missing or surplus row panics.
#[derive(Default)]
pub struct Replay {
    layouts: HashMap<LayoutId, Arc<Layout>>,
    keyed: BTreeMap<String, BTreeMap<String, Row>>,
    keyless: BTreeMap<String, Vec<Row>>,
    /// Tables whose text keys know no case.
    pub nocase: Vec<&'static str>,
    pub operations: Vec<String>,
    inside: bool,
}

fn text(row: &[Value]) -> String {
    format!("{row:?}")
}

impl Replay {
    pub fn take_all(&mut self, items: Vec<Captured>) {
        for item in items {
            self.take(item);
        }
    }

    pub fn take(&mut self, item: Captured) {
        match item {
            Captured::Layout(layout) => {
                self.layouts.insert(layout.id, layout);
            }
            Captured::Begin => assert!(!std::mem::replace(&mut self.inside, true)),
            Captured::Commit { .. } => assert!(std::mem::replace(&mut self.inside, false)),
            Captured::Changes(batch) => {
                assert!(self.inside);
                for change in &batch.changes {
                    self.change(&batch, change);
                }
            }
            Captured::Marker(_) => assert!(self.inside),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn key(&self, layout: &Layout, row: &[Value]) -> String {
        let key: Vec<Value> = layout.columns.iter().zip(row).filter(|(column, _)| column.key).map(|(_, value)| value.clone()).collect();
        assert!(key.iter().all(Value::is_known), "a key is known");
        let key = text(&key);
        if self.nocase.contains(&layout.table.name.as_str()) { key.to_ascii_lowercase() } else { key }
    }

    fn change(&mut self, batch: &ChangeBatch, change: &Change) {
        let layout = self.layouts.get(&change.layout).expect("a layout comes before its changes").clone();
        let images = batch.images(change);
        let table = layout.table.name.clone();
        self.operations.push(format!("{:?} {table}", change.operation));
        if layout.full_old_images {
            let rows = self.keyless.entry(table).or_default();
            if change.operation != ChangeOperation::Insert {
                let old = images.old.expect("full old images");
                let at = rows.iter().position(|row| text(row) == text(old)).expect("the old row is there");
                rows.swap_remove(at);
            }
            if change.operation != ChangeOperation::Delete {
                rows.push(images.new.to_vec());
            }
            return;
        }
        let new_key = (!images.new.is_empty()).then(|| self.key(&layout, images.new));
        let old_key = images.old.map(|old| self.key(&layout, old));
        let rows = self.keyed.entry(table.clone()).or_default();
        match change.operation {
            ChangeOperation::Insert => {
                assert!(rows.insert(new_key.unwrap(), images.new.to_vec()).is_none(), "insert of a key that is there in {table}");
            }
            ChangeOperation::Update => {
                let new_key = new_key.unwrap();
                let old_key = old_key.unwrap_or_else(|| new_key.clone());
                assert!(rows.remove(&old_key).is_some(), "update of a row that is not there in {table}: {old_key}");
                assert!(rows.insert(new_key, images.new.to_vec()).is_none(), "update onto a key that is there in {table}");
            }
            ChangeOperation::Delete => {
                assert!(rows.remove(&old_key.unwrap()).is_some(), "delete of a row that is not there in {table}");
            }
            ChangeOperation::Truncate => panic!("SQLite has no truncate"),
        }
    }

    fn rows(&self, table: &str) -> Vec<String> {
        let keyed = self.keyed.get(table).into_iter().flat_map(|rows| rows.values());
        let keyless = self.keyless.get(table).into_iter().flatten();
        let mut rows: Vec<String> = keyed.chain(keyless).map(|row| text(row)).collect();
        rows.sort();
        rows
    }

    /// The table in the file holds what the replayed one holds.
    pub fn assert_equals(&self, user: &Connection, table: &str, columns: &str) {
        assert_eq!(self.rows(table), rows_of(user, table, columns), "table {table}");
    }
}

pub fn values(row: &rusqlite::Row<'_>, count: usize) -> Row {
    use rusqlite::types::ValueRef;
    let value = |at| match row.get_ref(at).unwrap() {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::text(text),
            Err(_) => Value::Native(text.to_vec().into()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec().into()),
    };
    (0..count).map(value).collect()
}

/// All rows of a table as sorted text.
pub fn rows_of(user: &Connection, table: &str, columns: &str) -> Vec<String> {
    let table = table.replace('"', "\"\"");
    let mut statement = user.prepare(&format!("SELECT {columns} FROM \"{table}\"")).unwrap();
    let width = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        found.push(text(&values(row, width)));
    }
    found.sort();
    found
}
