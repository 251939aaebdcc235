//! Keys of every kind, found again by load, stream and re-read.

use std::sync::Arc;

use godwit_model::{ChunkMode, Create, DigestPlan, Lease, Position, RowBatch, Stage, Table, TableMapping};
use godwit_testkit::contract::Follower;

use super::pair::{Pair, mappings};

/// A source that was loaded into its target and is followed.
struct Followed {
    pair: Pair,
    lease: Lease,
    mappings: Vec<Arc<TableMapping>>,
    tables: Vec<Arc<Table>>,
    follower: Follower,
    at: Position,
}

impl Followed {
    async fn new(major: u16, task: &str, sql: &str) -> Option<Self> {
        let name = godwit_testkit::task::name(&format!("{task}_{major}"));
        let pair = Pair::new(major, |task| {
            task.schema.create = Create::Tables;
            task.name = name;
        })?;
        pair.at_source(sql).await;
        let description = pair.source.describe(&pair.task).await.unwrap();
        let mappings = mappings(&pair.task, &description);
        let lease = pair.lease().await;
        pair.perform(&lease, &description, Stage::BeforeLoad).await;
        let tables: Vec<_> = description.tables.iter().cloned().map(Arc::new).collect();
        let at = pair.source.establish(&tables, None).await.unwrap().position;
        pair.load(&lease, &mappings, &description, ChunkMode::Insert).await;
        let follower = Follower::new(&*pair.target, &lease, &mappings).await;
        Some(Followed { pair, lease, mappings, tables, follower, at })
    }

    async fn change(&mut self, sql: &str) {
        self.pair.at_source(sql).await;
        self.at = self.follower.follow(&*self.pair.source, &self.tables, &self.at).await;
    }

    async fn assert_same(&self, order: &str) {
        for mapping in &self.mappings {
            let table = &mapping.source.name;
            let sql = format!("SELECT coalesce(string_agg(t::text, ' ' ORDER BY {order}), '') FROM \"{}\" t", table.replace('"', "\"\""));
            assert_eq!(self.pair.ask_target(&sql).await, self.pair.ask_source(&sql).await, "{table}");
        }
        self.pair.assert_equal(&self.mappings).await;
    }

    /// Rows found by the keys that the examiner gave, written over those that are there.
    async fn read_again(&mut self) {
        for mapping in &self.mappings {
            let hashes = self.pair.source.examiner().hashes(&DigestPlan::of_source(mapping, 1), &[0]).await.unwrap();
            let mut keys = RowBatch::new(mapping.key.len());
            hashes.iter().for_each(|row| keys.push(row.key.iter().cloned()));
            let found = self.pair.source.rows(mapping, &keys).await.unwrap();
            assert_eq!(found.len(), keys.len(), "every key of {} is found", mapping.source);
            self.follower.upsert(mapping, found).await;
        }
    }

    async fn end(self) {
        self.pair.target.release(&self.lease).await.unwrap();
        self.pair.source.remove_traces().await.unwrap();
    }
}

/// A type; three keys to load; what the first becomes: equal to it where the type's equality is coarser than its bytes.
const KEYS: [(&str, [&str; 3], &str); 16] = [
    ("bigint", ["-9", "9", "1000000000"], "-1000000000"),
    ("float8", ["'0'", "'NaN'", "'-Infinity'"], "'-0'"),
    ("float4", ["'0.1'", "'1e-45'", "'Infinity'"], "'-0'"),
    ("numeric", ["1.0", "'NaN'", "'Infinity'"], "1.00"),
    ("text", ["''", "'a'", "'a '"], "'A'"),
    ("char(4)", ["E'a\\t'", "'a'", "''"], "E'a\\t\\t'"),
    ("citext", ["'Ann'", "'bob'", "''"], "'ANN'"),
    ("text COLLATE blind", ["'Straße'", "'b'", "''"], "'STRASSE'"),
    ("bytea", ["'\\x00'", "'\\x0000'", "''"], "'\\xff00'"),
    (
        "uuid",
        ["'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'f0000000-0000-0000-0000-000000000000'"],
        "'00000000-0000-0000-0000-000000000002'",
    ),
    ("timestamptz", ["'infinity'", "'-infinity'", "'0044-03-15 BC'"], "'2000-01-01'"),
    ("interval", ["'1 month'", "'1 second'", "'-1 day'"], "'30 days'"),
    ("inet", ["'10.0.0.1'", "'10.0.0.1/24'", "'::1'"], "'10.0.0.2'"),
    ("mood", ["'sad'", "'a \"b\", c'", "'ok'"], "'ünï'"),
    ("int[]", ["'{1,NULL}'", "'{}'", "'{{1},{2}}'"], "'[0:1]={1,NULL}'"),
    ("jsonb", ["'{\"a\": 1.0}'", "'null'", "'[1, 2]'"], "'{\"a\": 1.00}'"),
];

async fn keys_of_every_kind(major: u16) {
    let mut sql = "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'a \"b\", c', 'ok', 'ünï');
        CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false);"
        .to_owned();
    let mut changes = String::new();
    for (number, (type_name, [a, b, c], other)) in KEYS.iter().enumerate() {
        sql += &format!(
            "CREATE TABLE k{number} (k {type_name} PRIMARY KEY, v int); INSERT INTO k{number} VALUES ({a}, 1), ({b}, 2), ({c}, 3);"
        );
        changes += &format!(
            "UPDATE k{number} SET v = 11 WHERE v = 1; UPDATE k{number} SET k = {other} WHERE v = 11; DELETE FROM k{number} WHERE v = 2;
             INSERT INTO k{number} VALUES ({b}, 4); UPDATE k{number} SET v = 33 WHERE v = 3;"
        );
    }
    let Some(mut followed) = Followed::new(major, "keys", &sql).await else { return };
    followed.assert_same("v").await;
    followed.change(&changes).await;
    followed.assert_same("v").await;
    followed.read_again().await;
    followed.assert_same("v").await;
    followed.end().await;
}

#[tokio::test]
async fn keys_of_every_kind_are_found_and_keep_their_bytes_on_15() {
    keys_of_every_kind(15).await;
}

#[tokio::test]
async fn keys_of_every_kind_are_found_and_keep_their_bytes_on_18() {
    keys_of_every_kind(18).await;
}

#[tokio::test]
async fn an_unchanged_large_value_stays_when_its_key_changes() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, small text, large text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL;
        INSERT INTO t VALUES (1, 'a', repeat('x', 20000)), (2, 'b', repeat('y', 20000))";
    let Some(mut followed) = Followed::new(18, "large", sql).await else { return };
    followed.change("UPDATE t SET id = 3, small = 'c' WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET small = NULL").await;
    followed.assert_same("id").await;
    followed.end().await;
}

#[tokio::test]
async fn odd_names_generated_and_identity_columns_arrive() {
    let sql = "CREATE TABLE \"Order\" (\"select\" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"a b\" int, twice int GENERATED ALWAYS AS (\"a b\" * 2) STORED);
        CREATE TABLE \"x\"\"y\" (\"q\"\"r\" text PRIMARY KEY, v int); CREATE TABLE ünï (ä int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, ö text);
        INSERT INTO \"Order\" (\"a b\") VALUES (1), (2); INSERT INTO \"x\"\"y\" VALUES ('', 1), ('it''s', 2); INSERT INTO ünï (ö) VALUES ('é')";
    let Some(mut followed) = Followed::new(18, "odd", sql).await else { return };
    followed.assert_same("1").await;
    followed
        .change(
            "INSERT INTO \"Order\" (\"a b\") VALUES (3); UPDATE \"Order\" SET \"a b\" = 9 WHERE \"select\" = 1; UPDATE \"x\"\"y\" SET \"q\"\"r\" = '\"' WHERE v = 1;
             DELETE FROM \"x\"\"y\" WHERE v = 2; INSERT INTO ünï VALUES (70, '😀')",
        )
        .await;
    followed.assert_same("t::text").await;
    followed.end().await;
}

#[tokio::test]
async fn equal_rows_without_a_key_are_told_apart_one_by_one() {
    let sql = "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT 1, NULL FROM generate_series(1, 5); INSERT INTO t VALUES (1, '')";
    let Some(mut followed) = Followed::new(15, "keyless", sql).await else { return };
    let one = |value: &str| format!("(SELECT ctid FROM t WHERE b {value} LIMIT 1)");
    followed
        .change(&format!(
            "DELETE FROM t WHERE ctid = {}; UPDATE t SET b = 'x' WHERE ctid = {}; UPDATE t SET a = 2 WHERE b = ''; INSERT INTO t VALUES (1, NULL)",
            one("IS NULL"),
            one("IS NULL")
        ))
        .await;
    followed.assert_same("t::text").await;
    followed.end().await;
}

#[tokio::test]
async fn text_of_another_encoding_arrives_as_the_same_characters() {
    let Some(pair) = Pair::new(15, |task| task.schema.create = Create::Tables) else { return };
    let name = format!("latin_{}", pair.task.source.database);
    pair.at_source(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")).await;
    let mut task = pair.task.clone();
    task.source.database = name.clone();
    task.name = godwit_testkit::task::name("latin");
    let pair = pair.with_source(task, &name);
    pair.at_source("CREATE TABLE t (id text PRIMARY KEY, v text[]); INSERT INTO t VALUES ('é', '{ä,\"ß \"}'), ('plain', NULL)").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    let tables: Vec<_> = description.tables.iter().cloned().map(Arc::new).collect();
    let at = pair.source.establish(&tables, None).await.unwrap().position;
    pair.load(&lease, &mappings, &description, ChunkMode::Insert).await;
    let mut follower = Follower::new(&*pair.target, &lease, &mappings).await;
    pair.at_source("UPDATE t SET v = '{Ü}' WHERE id = 'é'; INSERT INTO t VALUES ('ÿ', '{¿}')").await;
    follower.follow(&*pair.source, &tables, &at).await;
    let sql = "SELECT string_agg(t::text, ' ' ORDER BY id COLLATE \"C\") FROM t";
    assert_eq!(pair.ask_target(sql).await, pair.ask_source(sql).await);
    pair.source.remove_traces().await.unwrap();
}

#[tokio::test]
async fn a_source_that_hides_rows_from_the_role_is_an_error_and_not_half_a_copy() {
    let Some(mut pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    let role = "DO $$ BEGIN CREATE ROLE half_blind LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;";
    pair.at_source(&format!(
        "{role} CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10); GRANT SELECT ON t TO half_blind;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON t USING (id > 5)"
    ))
    .await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mapping = &mappings(&pair.task, &description)[0];
    pair.task.source.user = Some("half_blind".into());
    let source = godwit_postgres::source(&pair.task).unwrap();
    let snapshot = source.snapshot().await.unwrap();
    let mut refused = None;
    for chunk in snapshot.plan(&description.tables[0], 1 << 20).await.unwrap() {
        let spec = godwit_model::ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
        refused = match snapshot.read(&spec).await {
            Ok(mut reader) => reader.next().await.err(),
            Err(error) => Some(error),
        };
    }
    let error = refused.expect("five of ten rows are no table");
    assert_ne!(error.kind(), godwit_model::Kind::Transient, "{error}");
}

#[tokio::test]
async fn triggers_and_foreign_keys_of_the_target_do_nothing_of_their_own() {
    let sql = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, n int);
        INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1, 0), (2, 2, 0)";
    let Some(mut followed) = Followed::new(18, "triggers", sql).await else { return };
    followed
        .pair
        .at_target(
            "ALTER TABLE c ADD FOREIGN KEY (p) REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE;
             CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n = NEW.n + 100; RETURN NEW; END $$;
             CREATE TRIGGER twice BEFORE INSERT OR UPDATE ON c FOR EACH ROW EXECUTE FUNCTION twice()",
        )
        .await;
    followed
        .change("DELETE FROM p WHERE id = 1; UPDATE p SET id = 3 WHERE id = 2; INSERT INTO p VALUES (4); INSERT INTO c VALUES (5, 4, 1)")
        .await;
    followed.assert_same("1").await;
    followed.end().await;
}

#[tokio::test]
async fn a_name_that_the_target_would_cut_is_a_blocker() {
    let (long, short) = ("n".repeat(64), "ü".repeat(31));
    let Some(mut pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    for (name, expected) in [(&long, 1), (&short, 0)] {
        let columns = vec![("v".to_owned(), godwit_model::ColumnRule::Rename(name.clone()))];
        pair.task.map = vec![godwit_model::MapRule { from: godwit_model::TableName::new("public", "t"), to: None, columns }];
        let description = pair.source.describe(&pair.task).await.unwrap();
        let mappings = mappings(&pair.task, &description);
        let needs = godwit_model::TargetNeeds { task: &pair.task, description: &description, mappings: &mappings };
        let found = pair.target.check(&needs).await.unwrap();
        assert_eq!(found.iter().filter(|finding| finding.check == "long_name").count(), expected, "{name}: {found:?}");
    }
}
