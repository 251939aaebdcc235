//! Counts what SQLite has to do for a task's questions: steps of its machine, and connections, each of which reads the whole
//! schema. No time is looked at.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use godwit_model::*;
use rusqlite::Connection;

/// One in so many steps is counted.
const GRAIN: i32 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    connections: u64,
    steps: u64,
}

static COUNTED: Mutex<Option<HashMap<PathBuf, Counted>>> = Mutex::new(None);

fn counted<T>(path: &Path, act: impl FnOnce(&mut Counted) -> T) -> T {
    let mut all = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    act(all.get_or_insert_default().entry(path.to_owned()).or_default())
}

/// Called for each connection that is opened.
pub(crate) fn count(mut connection: Connection, path: &Path) -> Connection {
    counted(path, |counted| counted.connections += 1);
    let path = path.to_owned();
    let step = move || {
        counted(&path, |counted| counted.steps += GRAIN.unsigned_abs() as u64);
        false
    };
    connection.progress_handler(GRAIN, Some(step)).unwrap();
    connection
}

fn endpoint(path: &Path) -> EndpointConfig {
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

fn task(folder: &Path) -> Task {
    Task {
        name: TaskName::parse("shop").unwrap(),
        mode: Mode::Migrate,
        source: endpoint(&folder.join("source.db")),
        target: endpoint(&folder.join("target.db")),
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

/// Counters, keys by an index, tables without a key, indexes, references.
fn fill(path: &Path, tables: usize) {
    let user = Connection::open(path).unwrap();
    user.pragma_update(None, "journal_mode", "WAL").unwrap();
    user.pragma_update(None, "foreign_keys", false).unwrap();
    user.execute_batch("BEGIN").unwrap();
    for number in 0..tables {
        let sql = match number % 4 {
            0 => format!("CREATE TABLE t{number} (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT); CREATE INDEX v{number} ON t{number} (v)"),
            1 => format!("CREATE TABLE t{number} (id TEXT NOT NULL PRIMARY KEY, v TEXT REFERENCES t{})", number - 1),
            2 => format!("CREATE TABLE t{number} (id, v); CREATE TRIGGER u{number} AFTER INSERT ON t{number} BEGIN SELECT 1; END"),
            _ => format!("CREATE TABLE t{number} (id INTEGER, v UNIQUE, PRIMARY KEY (id)) WITHOUT ROWID"),
        };
        user.execute_batch(&format!("{sql}; INSERT INTO t{number} VALUES (1, 'a');")).unwrap();
    }
    user.execute_batch("COMMIT").unwrap();
}

/// Everything that a task asks and does, but making and dropping objects, which is told apart: for each of them SQLite itself
/// looks through its schema table.
async fn moved(tables: usize) -> [Counted; 2] {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    let paths = [folder.path().join("source.db"), folder.path().join("target.db")];
    fill(&paths[0], tables);
    let mut made = [0, 0];
    let steps = |paths: &[PathBuf; 2]| [0, 1].map(|side| counted(&paths[side], |counted| counted.steps));
    let (source, target) = (crate::source(&task).unwrap(), crate::target(&task).unwrap());
    let description = source.describe(&task).await.unwrap();
    let all: Vec<Arc<Table>> = description.tables.iter().cloned().map(Arc::new).collect();
    let names: Vec<TableName> = all.iter().map(|table| table.name.clone()).collect();
    let mappings = TableMapping::resolve_all(&task.map, &description.tables).unwrap();
    let mappings: Vec<Arc<TableMapping>> = mappings.into_iter().map(Arc::new).collect();
    source.check(&SourceNeeds { task: &task, tables: &all, changes: true }).await.unwrap();
    target.install().await.unwrap();
    let holder = Holder { host: "here".into(), boot: "now".into(), pid: 1, started: 1 };
    let record = target.take_lease(&task.name, &holder, None).await.unwrap().unwrap();
    let lease = Lease { task: task.name.clone(), epoch: record.epoch };
    target.check(&TargetNeeds { task: &task, description: &description, mappings: &mappings }).await.unwrap();
    assert_eq!(target.present(&names).await.unwrap(), []);

    let before = steps(&paths);
    for stage in [Stage::BeforeLoad, Stage::AfterLoad] {
        let items: Vec<&SchemaItem> = description.items.iter().filter(|item| item.stage == stage).collect();
        target.perform(&lease, &items, &[]).await.unwrap();
    }
    let established = source.establish(&all, None).await.unwrap();
    (0..2).for_each(|side| made[side] += steps(&paths)[side] - before[side]);

    let snapshot = established.snapshot.unwrap();
    for (table, mapping) in all.iter().zip(&mappings) {
        let done = |key: String| Entry { key, value: Bytes::from_static(b"1") };
        target.record(&lease, &[done(format!("plan/{}", table.name))]).await.unwrap();
        let chunks = snapshot.plan(table, 1 << 20).await.unwrap();
        for chunk in &chunks {
            let mut rows = snapshot.read(&ReadSpec { mapping, chunk, native: true, block_bytes: 4_000 }).await.unwrap();
            let write = ChunkWrite { mapping, mode: ChunkMode::Insert, done: &done(format!("chunk/{}", table.name)) };
            assert_eq!(target.write_chunk(&lease, &write, &mut *rows).await.unwrap(), ChunkWritten::Written { rows: 1 });
        }
    }
    drop(snapshot);
    drop(source.changes(&established.position, &all).await.unwrap());
    drop(target.applier(&lease, &mappings).await.unwrap());
    assert_eq!(source.appearances(&names).await.unwrap().len(), tables);
    assert_eq!(source.selected(&task).await.unwrap(), names);
    assert_eq!(target.present(&names).await.unwrap().len(), tables);
    target.set_sequences(&lease, &source.sequences(&task).await.unwrap()).await.unwrap();
    let wanted = source.structure(&mappings).await.unwrap();
    assert_eq!(target.structure(&mappings, &wanted).await.unwrap(), wanted);
    for mapping in &mappings {
        let (first, second) = (DigestPlan::of_source(mapping, 4), DigestPlan::of_target(mapping, 4));
        assert_eq!(source.examiner().digest(&first).await.unwrap(), target.examiner().digest(&second).await.unwrap());
    }

    let before = steps(&paths);
    source.remove_traces().await.unwrap();
    (0..2).for_each(|side| made[side] += steps(&paths)[side] - before[side]);
    assert_eq!(source.traces().await.unwrap(), []);
    let counted = [0, 1].map(|side| counted(&paths[side], |counted| *counted));
    [0, 1].map(|side| Counted { steps: counted[side].steps - made[side], ..counted[side] })
}

#[tokio::test]
async fn what_is_asked_of_a_file_grows_with_its_tables_and_not_faster() {
    let (few, many) = (moved(40).await, moved(160).await);
    for (few, many) in few.iter().zip(&many) {
        assert_eq!(many.connections, few.connections, "each reads the whole schema");
        // trees get a level, and a question for each table that reads all of them would make it sixteen times as much
        assert!(many.steps * 2 < few.steps * 9, "{} and {} steps", few.steps, many.steps);
    }
}
