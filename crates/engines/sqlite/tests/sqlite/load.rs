//! Snapshots, chunks, and writing them.

use bytes::Bytes;
use godwit_model::*;

use crate::target::{holder, leased};
use crate::world::{World, rows_of};

const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT);
    CREATE TABLE b (x TEXT COLLATE NOCASE, y INTEGER, v, PRIMARY KEY (x, y)) WITHOUT ROWID;
    CREATE TABLE c (u TEXT NOT NULL, v);
    CREATE UNIQUE INDEX c_u ON c (u COLLATE NOCASE);
    CREATE TABLE k (v, w);
    CREATE TABLE empty (id INTEGER PRIMARY KEY);
    CREATE TABLE blobs (id BLOB PRIMARY KEY NOT NULL, v) ;
    WITH RECURSIVE s(x) AS (VALUES(-1500) UNION ALL SELECT x+1 FROM s WHERE x < 1500)
        INSERT INTO a SELECT x * 1000003, 'row ' || x FROM s;
    INSERT INTO b SELECT CASE id % 3 WHEN 0 THEN 'A' WHEN 1 THEN 'b' ELSE 'C' END, id, id * 0.5 FROM a;
    INSERT INTO c SELECT 'K' || id, NULL FROM a; INSERT INTO c VALUES (CAST(x'ff' AS TEXT), 1), ('', x'00');
    INSERT INTO k SELECT id % 5, 'd' FROM a;
    INSERT INTO blobs SELECT CAST('b' || id AS BLOB), 1 FROM a;
";
const TABLES: [&str; 6] = ["a", "b", "c", "k", "empty", "blobs"];

async fn copy(world: &World, snapshot: &dyn Snapshot, mode: ChunkMode) -> Result<u64> {
    let target = world.target();
    let lease = leased(&*target).await;
    let description = world.source().describe(&world.task).await.unwrap();
    for item in description.items.iter().filter(|item| item.stage == Stage::BeforeLoad) {
        if target.ledger(&lease.task).await.unwrap().iter().all(|entry| entry.key != item.id) {
            target.perform(&lease, &[item], &[Entry { key: item.id.clone(), value: Bytes::from_static(b"1") }]).await.unwrap();
        }
    }
    let mut rows = 0;
    for (table, mapping) in description.tables.iter().zip(world.mappings().await) {
        let chunks = snapshot.plan(table, 20_000).await.unwrap();
        // The open-ended last one first: order does not matter.
        for (at, chunk) in chunks.iter().enumerate().rev() {
            let spec = ReadSpec { mapping: &mapping, chunk, native: true, block_bytes: 4_000 };
            let mut reader = snapshot.read(&spec).await.unwrap();
            let done = Entry { key: format!("chunk/{}/{at}", mapping.target), value: Bytes::from_static(b"done") };
            match target.write_chunk(&lease, &ChunkWrite { mapping: &mapping, mode, done: &done }, &mut *reader).await? {
                ChunkWritten::Written { rows: written } => rows += written,
                ChunkWritten::Stale => panic!("never stale"),
            }
        }
    }
    Ok(rows)
}

fn assert_same(world: &World) {
    for table in TABLES {
        assert_eq!(rows_of(&world.user(), table, "*"), rows_of(&world.target_user(), table, "*"), "{table}");
    }
}

#[tokio::test]
async fn every_row_is_copied_once_in_chunks() {
    let world = World::new(SCHEMA);
    let snapshot = world.source().snapshot().await.unwrap();
    let rows = copy(&world, &*snapshot, ChunkMode::Insert).await.unwrap();
    assert_eq!(rows, 5 * 3001 + 2);
    assert_same(&world);
    let plan = snapshot.plan(&world.tables().await[0], 20_000).await.unwrap();
    assert!(plan.len() > 3 && plan.len() < 10, "{}", plan.len());
    let error = copy(&world, &*snapshot, ChunkMode::Insert).await.err().unwrap();
    assert!(error.is(&codes::KEY_EXISTS));
}

#[tokio::test]
async fn the_snapshot_of_establish_shows_exactly_p0() {
    let world = World::new(SCHEMA);
    let source = world.source();
    let tables = world.tables().await;
    let established = source.establish(&tables, None).await.unwrap();
    let snapshot = established.snapshot.unwrap();
    assert!(snapshot.is_exact());
    let user = world.user();
    user.execute_batch(
        "DELETE FROM a WHERE id > 0; UPDATE a SET id = id - 1; INSERT INTO k VALUES (9, 9); UPDATE b SET x = 'z' WHERE y < 0;",
    )
    .unwrap();
    copy(&world, &*snapshot, ChunkMode::Insert).await.unwrap();
    let target = world.target();
    let changes: i64 = world.target_user().query_row("SELECT count(*) FROM a WHERE id > 0", [], |row| row.get(0)).unwrap();
    assert_eq!(changes, 1500);
    drop(target);
}

#[tokio::test]
async fn plans_of_an_older_snapshot_cover_a_newer_one() {
    let world = World::new(SCHEMA);
    let source = world.source();
    let tables = world.tables().await;
    let first = source.snapshot().await.unwrap();
    copy(&world, &*first, ChunkMode::Insert).await.unwrap();
    let plan = first.plan(&tables[0], 20_000).await.unwrap();
    let user = world.user();
    user.execute_batch("VACUUM; INSERT INTO a VALUES (9000000000, 'behind'), (-9000000000, 'before'); UPDATE a SET v = 'new' WHERE id = 0")
        .unwrap();
    let second = source.snapshot().await.unwrap();
    assert!(!second.is_exact());
    let mapping = &world.mappings().await[0];
    let mut rows = 0;
    for chunk in &plan {
        let spec = ReadSpec { mapping, chunk, native: false, block_bytes: 1 << 20 };
        let mut reader = second.read(&spec).await.unwrap();
        while let Some(LoadBlock::Rows(block)) = reader.next().await.unwrap() {
            rows += block.len();
        }
        assert!(matches!(reader.finish().await.unwrap(), ChunkEnd::Valid { .. }));
    }
    assert_eq!(rows, 3003);
}

#[tokio::test]
async fn rows_are_read_again_by_key() {
    let world = World::new(SCHEMA);
    let source = world.source();
    let mappings = world.mappings().await;
    let mapping = mappings.iter().find(|mapping| mapping.source.name == "b").unwrap();
    let mut keys = RowBatch::new(2);
    keys.push([Value::text("a"), Value::Int(0)]);
    keys.push([Value::text("a"), Value::Int(77)]);
    let rows = source.rows(mapping, &keys).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows.row(0), [Value::text("A"), Value::Int(0), Value::Float(0.0)]);
}

#[tokio::test]
async fn a_dropped_chunk_leaves_nothing_open() {
    let world = World::new(SCHEMA);
    let snapshot = world.source().snapshot().await.unwrap();
    copy(&world, &*snapshot, ChunkMode::Insert).await.unwrap();
    let target = world.target();
    let record = target.lease(&world.task.name).await.unwrap().unwrap();
    let lease = Lease { task: world.task.name.clone(), epoch: record.epoch };
    let mapping = &world.mappings().await[0];
    let done = Entry { key: "never".into(), value: Bytes::from_static(b"x") };
    let write = ChunkWrite { mapping, mode: ChunkMode::Upsert, done: &done };
    let mut reader = OneThenHang { first: Some(RowBatch::new(2)) };
    reader.first.as_mut().unwrap().push([Value::Int(424_242), Value::text("half")]);
    let hung = tokio::time::timeout(std::time::Duration::from_millis(300), target.write_chunk(&lease, &write, &mut reader)).await;
    assert!(hung.is_err());
    target.renew(&lease).await.unwrap();
    assert!(target.ledger(&world.task.name).await.unwrap().iter().all(|entry| entry.key != "never"));
    assert_same(&world);
}

struct OneThenHang {
    first: Option<RowBatch>,
}

#[async_trait::async_trait]
impl RowReader for OneThenHang {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        match self.first.take() {
            Some(rows) => Ok(Some(LoadBlock::Rows(rows))),
            None => std::future::pending().await,
        }
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        Ok(ChunkEnd::Stale)
    }
}

#[tokio::test]
async fn a_stale_chunk_is_rolled_back() {
    let world = World::new("CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT)");
    let snapshot = world.source().snapshot().await.unwrap();
    copy(&world, &*snapshot, ChunkMode::Insert).await.unwrap();
    let target = world.target();
    let taken = target.lease(&world.task.name).await.unwrap();
    let record = target.take_lease(&world.task.name, &holder(2), taken.as_ref()).await.unwrap().unwrap();
    let lease = Lease { task: world.task.name.clone(), epoch: record.epoch };
    struct Stale(Option<RowBatch>);
    #[async_trait::async_trait]
    impl RowReader for Stale {
        async fn next(&mut self) -> Result<Option<LoadBlock>> {
            Ok(self.0.take().map(LoadBlock::Rows))
        }
        async fn finish(&mut self) -> Result<ChunkEnd> {
            Ok(ChunkEnd::Stale)
        }
    }
    let mut rows = RowBatch::new(2);
    rows.push([Value::Int(1), Value::Null]);
    let done = Entry { key: "c".into(), value: Bytes::from_static(b"x") };
    let mapping = &world.mappings().await[0];
    let write = ChunkWrite { mapping, mode: ChunkMode::Insert, done: &done };
    assert_eq!(target.write_chunk(&lease, &write, &mut Stale(Some(rows))).await.unwrap(), ChunkWritten::Stale);
    assert!(rows_of(&world.target_user(), "a", "*").is_empty());
}
