//! Rows on their way from one server to another.

use godwit_model::{ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Create, LoadBlock, ReadSpec, RowBatch, Stage, Value, codes};

use super::pair::{Pair, entry, mappings};

pub const ALL_TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'a "quoted", one');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN short AS varchar(5) CHECK (value <> 'no');
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE "Odd ""table" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    n numeric, f8 float8, f4 float4, b bool, t text, v varchar(10), c char(5), bin bytea, d date, ts timestamp, tz timestamptz,
    i interval, j json, jb jsonb, u uuid, ip inet, m mood, ms mood[], p pair, ps pair[], s short, ss short[], r int4range, sp span,
    arr int[], arr2 text[][], bits bit(3), vb varbit, mac macaddr, pt point, bx box, reg regclass, tsv tsvector, x xml, mo money, ch "char", na name
);
INSERT INTO "Odd ""table" (n, f8, f4, b, t, v, c, bin, d, ts, tz, i, j, jb, u, ip, m, ms, p, ps, s, ss, r, sp, arr, arr2, bits, vb, mac, pt, bx, reg, tsv, x, mo, ch, na) VALUES
 ('NaN', 'NaN', '-0', true, '', 'ä', E'a\t', '\x00ff', 'infinity', '0044-03-15 BC', '-infinity', '1 mon -2 days 03:04:05.678901', '{"b":1,"a":2,"a":3}', '{"n": 12345678901234567890.12}',
  '00000000-0000-0000-0000-000000000001', '10.0.0.1', 'sad', '{sad,NULL,"a \"quoted\", one"}', '(1,"a,b")', '{"(1,\"x\")"}', 'abc', '{a,NULL}', '[1,5)', '[1.5,2.5]',
  '{1,NULL,3}', '{{a,"b\"c"},{NULL,"NULL"}}', B'101', B'1', '08:00:2b:01:02:03', '(1.5,2)', '(1,1),(0,0)', 'pg_class', 'a:1 b:2', '<a>1</a>', '12.34', 'x', 'name'),
 (repeat('9', 900)::numeric, 'Infinity', 1.1, false, E'line\nfeed\\back\ttab', NULL, 'abc  ', '', '2024-02-29', '2024-01-01 24:00:00', '2024-01-01 00:00:00+05', '1 year',
  '[]', '{}', NULL, '::1/64', 'ok', '{}', NULL, NULL, NULL, NULL, 'empty', NULL, '{}', '{}', B'000', B'', NULL, NULL, NULL, NULL, '', NULL, NULL, NULL, ''),
 (1.10, 1e-300, NULL, NULL, 'NULL', '\N', '', '\x5c', NULL, NULL, NULL, NULL, 'null', 'null', NULL, NULL, NULL, NULL, '(,)', '{NULL}', '', '{""}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'pg_type', NULL, NULL, NULL, NULL, NULL);
CREATE TABLE plain (id int PRIMARY KEY, payload text);
INSERT INTO plain SELECT g, repeat(chr(65 + g % 26), 40) FROM generate_series(1, 3000) g;
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless SELECT g % 3, NULLIF(repeat('z', g % 2), '') FROM generate_series(1, 10) g;
CREATE TABLE parts (id int, region text, note text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us (note text, region text NOT NULL, id int NOT NULL);
ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN ('us');
INSERT INTO parts SELECT g, CASE WHEN g % 2 = 0 THEN 'eu' ELSE 'us' END, 'note ' || g FROM generate_series(1, 500) g;
"#;

#[tokio::test]
async fn every_type_arrives_as_it_was() {
    for major in [14, 15, 16, 17, 18] {
        let Some(pair) = Pair::new(major, |task| task.schema.create = Create::Tables) else { return };
        pair.at_source(ALL_TYPES).await;
        let description = pair.source.describe(&pair.task).await.unwrap();
        let mappings = mappings(&pair.task, &description);
        let lease = pair.lease().await;
        pair.perform(&lease, &description, Stage::BeforeLoad).await;
        assert_eq!(pair.load(&lease, &mappings, &description, ChunkMode::Insert).await, 3 + 3000 + 10 + 500);
        pair.assert_equal(&mappings).await;
        pair.at_target("UPDATE plain SET payload = 'other' WHERE id < 10; DELETE FROM plain WHERE id > 2990").await;
        let (keyed, tables): (Vec<_>, Vec<_>) =
            mappings.iter().cloned().zip(description.tables.clone()).filter(|(mapping, _)| mapping.has_key()).unzip();
        let keyed_only = godwit_model::Description { tables, ..description.clone() };
        pair.load(&lease, &keyed, &keyed_only, ChunkMode::Upsert).await;
        pair.assert_equal(&mappings).await;
        pair.perform(&lease, &description, Stage::AfterLoad).await;
        pair.perform(&lease, &description, Stage::AtFinish).await;
    }
}

#[tokio::test]
async fn rows_travel_as_text_values_too() {
    let Some(pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, ''), (2, NULL), (3, E'a\\tb\\\\')").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mapping = &mappings(&pair.task, &description)[0];
    let snapshot = pair.source.snapshot().await.unwrap();
    let chunk = snapshot.plan(&description.tables[0], 1 << 20).await.unwrap().remove(0);
    let spec = ReadSpec { mapping, chunk: &chunk, native: false, block_bytes: 1 };
    let mut rows = snapshot.read(&spec).await.unwrap();
    let mut seen = Vec::new();
    while let Some(LoadBlock::Rows(batch)) = rows.next().await.unwrap() {
        seen.extend(batch.rows().map(|row| row[1].clone()).collect::<Vec<_>>());
    }
    assert_eq!(seen, [Value::Native("".into()), Value::Null, Value::Native("a\tb\\".into())]);
    assert_eq!(rows.finish().await.unwrap(), ChunkEnd::Valid { rows: 3 });
    let mut keys = RowBatch::new(1);
    keys.push([Value::Native("3".into())]);
    keys.push([Value::Native("9".into())]);
    let found = pair.source.rows(mapping, &keys).await.unwrap();
    assert_eq!((found.len(), &found.row(0)[1]), (1, &Value::Native("a\tb\\".into())));
}

#[tokio::test]
async fn a_table_rewritten_between_two_chunks_is_stale() {
    let Some(pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5000)").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mapping = &mappings(&pair.task, &description)[0];
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    let snapshot = pair.source.snapshot().await.unwrap();
    let chunk = snapshot.plan(&description.tables[0], 16 * 1024).await.unwrap().remove(0);
    pair.at_source("VACUUM FULL t").await;
    let spec = ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
    let mut rows = snapshot.read(&spec).await.unwrap();
    let done = entry("chunk");
    let write = ChunkWrite { mapping, mode: ChunkMode::Insert, done: &done };
    assert_eq!(pair.target.write_chunk(&lease, &write, rows.as_mut()).await.unwrap(), ChunkWritten::Stale);
    assert_eq!(pair.ask_target("SELECT count(*) FROM t").await.as_deref(), Some("0"));
    assert!(!pair.target.ledger(&pair.task.name).await.unwrap().iter().any(|entry| entry.key == "chunk"));
}

#[tokio::test]
async fn a_key_that_is_there_stops_a_plain_load() {
    let Some(pair) = Pair::new(15, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mapping = &mappings(&pair.task, &description)[0];
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    pair.at_target("INSERT INTO t VALUES (2)").await;
    let snapshot = pair.source.snapshot().await.unwrap();
    let chunk = snapshot.plan(&description.tables[0], 1 << 20).await.unwrap().remove(0);
    let spec = ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
    let done = entry("chunk");
    let write = ChunkWrite { mapping, mode: ChunkMode::Insert, done: &done };
    let mut rows = snapshot.read(&spec).await.unwrap();
    let error = pair.target.write_chunk(&lease, &write, rows.as_mut()).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS), "{error:?}");
}

#[tokio::test]
async fn a_key_made_behind_rows_that_share_it_names_the_table_and_undoes_what_came_with_it() {
    let Some(pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE s (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let lease = pair.lease().await;
    let of = |stage| description.items.iter().filter(move |item| item.stage == stage).collect::<Vec<_>>();
    let (tables, keys) = (of(Stage::BeforeLoad), of(Stage::Key));
    let marks = |number: &str| [entry(&format!("{number} of s")), entry(&format!("{number} of t"))];
    pair.target.perform(&lease, &tables, &marks("table")).await.unwrap();
    pair.at_target("INSERT INTO t VALUES (2), (2)").await;
    let error = pair.target.perform(&lease, &keys, &marks("key")).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS) && error.place() == Some("table public.t"), "{error:?}");
    assert!(!error.what().contains('2') && error.detail_text().is_some_and(|detail| detail.contains("(id)=(2)")), "{error:?}");
    assert_eq!(pair.ask_target("SELECT count(*) FROM pg_index WHERE indrelid = 's'::regclass").await.as_deref(), Some("0"));
    assert!(!pair.target.ledger(&pair.task.name).await.unwrap().iter().any(|entry| entry.key.starts_with("key ")));
    pair.at_target("DELETE FROM t").await;
    pair.target.perform(&lease, &keys, &marks("key")).await.unwrap();
}

/// Their connections may be lost on the way, and nobody has told the server.
#[tokio::test]
async fn readers_of_an_earlier_attempt_are_ended() {
    let Some(pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source(
        "CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 30000) g",
    )
    .await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let tables: Vec<_> = description.tables.iter().cloned().map(std::sync::Arc::new).collect();
    let mapping = &mappings(&pair.task, &description)[0];
    let established = pair.source.establish(&tables, None).await.unwrap();
    let (exact, later) = (established.snapshot.unwrap(), pair.source.snapshot().await.unwrap());
    let chunk = exact.plan(&tables[0], 1 << 30).await.unwrap().remove(0);
    let spec = ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
    let (mut first, mut second) = (exact.read(&spec).await.unwrap(), later.read(&spec).await.unwrap());
    assert!(first.next().await.unwrap().is_some() && second.next().await.unwrap().is_some());
    pair.source.establish(&tables, Some(&established.position)).await.unwrap();
    // their locks are waited for, and go
    let dropped = tokio::time::timeout(std::time::Duration::from_secs(60), pair.at_source("DROP TABLE t")).await;
    assert!(dropped.is_ok(), "a reader keeps its lock");
    let open = "SELECT string_agg(application_name, ', ') FROM pg_stat_activity WHERE datname = current_database() AND application_name IN ('godwit load', 'godwit snapshot')";
    while pair.ask_source(open).await.is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop((first, second));
    pair.source.remove_traces().await.unwrap();
}

#[tokio::test]
async fn chunks_under_the_slots_own_snapshot_show_p0_and_nothing_later() {
    for major in [15, 18] {
        let Some(pair) = Pair::new(major, |task| task.schema.create = Create::Tables) else { return };
        pair.at_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)").await;
        let description = pair.source.describe(&pair.task).await.unwrap();
        let tables: Vec<_> = description.tables.iter().cloned().map(std::sync::Arc::new).collect();
        let established = pair.source.establish(&tables, None).await.unwrap();
        pair.at_source("INSERT INTO t VALUES (5000); DELETE FROM t WHERE id < 10").await;
        let snapshot = established.snapshot.unwrap();
        assert!(snapshot.is_exact());
        let mapping = &mappings(&pair.task, &description)[0];
        let mut rows = 0;
        for chunk in snapshot.plan(&tables[0], 16 * 1024).await.unwrap() {
            let spec = ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
            let mut reader = snapshot.read(&spec).await.unwrap();
            while reader.next().await.unwrap().is_some() {}
            if let ChunkEnd::Valid { rows: read } = reader.finish().await.unwrap() {
                rows += read;
            }
        }
        assert_eq!(rows, 1000);
        assert!(pair.source.establish(&tables, Some(&established.position)).await.unwrap().snapshot.is_none());
        assert!(pair.source.backlog().await.unwrap().is_some());
        assert!(!pair.source.traces().await.unwrap().is_empty());
        drop(snapshot);
        pair.source.remove_traces().await.unwrap();
        assert_eq!(pair.source.traces().await.unwrap(), []);
    }
}
