//! What the source holds, made at the target.

use godwit_model::{ChunkMode, ColumnRule, Create, MapRule, SourceNeeds, Stage, TableName, TargetNeeds, Value};

use super::load::ALL_TYPES;
use super::pair::{Pair, mappings};

const SHOP: &str = "
CREATE SCHEMA shop;
CREATE TABLE shop.client (id serial PRIMARY KEY, name text NOT NULL, ssn text, age int CHECK (age > 0), lower_name text GENERATED ALWAYS AS (lower(name)) STORED);
CREATE TABLE shop.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, client int NOT NULL REFERENCES shop.client ON DELETE CASCADE, code varchar(8) UNIQUE, total numeric(10,2) DEFAULT 0);
CREATE INDEX orders_client_idx ON shop.orders (client DESC, code) INCLUDE (total);
CREATE INDEX orders_big_idx ON shop.orders (id) WHERE total > 100;
CREATE TABLE shop.uniq (a int NOT NULL, b text NOT NULL);
CREATE UNIQUE INDEX uniq_idx ON shop.uniq (b, a);
INSERT INTO shop.client (name, ssn, age) VALUES ('Ann', '1', 3), ('Bob', '2', NULL);
INSERT INTO shop.orders (client, code, total) VALUES (1, 'x', 5), (2, 'y', 500.25);
INSERT INTO shop.uniq VALUES (1, 'a');
";

#[tokio::test]
async fn renamed_tables_get_their_keys_indexes_and_foreign_keys() {
    for major in [15, 18] {
        let Some(pair) = Pair::new(major, |task| {
            let rule = |from: &str, to: Option<&str>, columns: Vec<(String, ColumnRule)>| MapRule {
                from: TableName::new("shop", from),
                to: to.map(|to| TableName::new("store", to)),
                columns,
            };
            task.map = vec![
                rule("*", Some("*"), vec![]),
                rule(
                    "client",
                    Some("customer"),
                    vec![("name".into(), ColumnRule::Rename("full_name".into())), ("ssn".into(), ColumnRule::LeaveOut)],
                ),
            ];
        }) else {
            return;
        };
        pair.at_source(SHOP).await;
        let description = pair.source.describe(&pair.task).await.unwrap();
        let mappings = mappings(&pair.task, &description);
        let lease = pair.lease().await;
        pair.perform(&lease, &description, Stage::BeforeLoad).await;
        assert_eq!(pair.load(&lease, &mappings, &description, ChunkMode::Insert).await, 5);
        pair.assert_equal(&mappings).await;
        pair.perform(&lease, &description, Stage::AfterLoad).await;
        pair.perform(&lease, &description, Stage::AtFinish).await;
        let sequences = pair.source.sequences(&pair.task).await.unwrap();
        pair.target.set_sequences(&lease, &sequences).await.unwrap();
        assert_eq!(pair.ask_target("INSERT INTO store.customer (full_name) VALUES ('Cy') RETURNING id").await.as_deref(), Some("3"));
        pair.target.set_sequences(&lease, &sequences).await.unwrap();
        assert_eq!(pair.ask_target("INSERT INTO store.customer (full_name) VALUES ('Di') RETURNING id").await.as_deref(), Some("4"));
        let always = pair.ask_target("SELECT is_identity || identity_generation FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'id'").await;
        assert_eq!(always.as_deref(), Some("YESALWAYS"));
        let indexes =
            pair.ask_target("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'store'").await;
        assert_eq!(indexes.as_deref(), Some("client_pkey orders_big_idx orders_client_idx orders_code_key orders_pkey uniq_idx"));
        let keys = pair.ask_target("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'").await;
        assert_eq!(keys.as_deref(), Some("FOREIGN KEY (client) REFERENCES store.customer(id) ON DELETE CASCADE"));
        let left: Vec<&str> = description.not_carried.iter().map(|left| left.object.as_str()).collect();
        assert!(
            left.contains(&"COLUMN shop.client.lower_name") && left.contains(&"CONSTRAINT client_age_check of shop.client"),
            "{left:?}"
        );
        assert!(matches!(sequences[0].last, Value::Int(2)));
    }
}

const REST: &str = r#"
CREATE FUNCTION double(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
CREATE TABLE base (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int DEFAULT double(2));
CREATE VIEW seen AS SELECT id, double(v) FROM base;
CREATE MATERIALIZED VIEW held AS SELECT count(*) AS n FROM base;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted BEFORE INSERT ON base FOR EACH ROW EXECUTE FUNCTION note();
CREATE STATISTICS st ON id, v FROM base;
CREATE RULE silent AS ON DELETE TO base DO INSTEAD NOTHING;
CREATE TABLE child (base_id int REFERENCES base, extra text);
CREATE TABLE heir (more text) INHERITS (child);
COMMENT ON TABLE base IS 'the base';
CREATE VIEW grouped AS SELECT base.*, count(*) AS n FROM base LEFT JOIN child ON base_id = id GROUP BY base.id;
CREATE INDEX parts_note_idx ON parts (note);
CREATE UNIQUE INDEX held_idx ON held (n);
CREATE TABLE tree (a int, b int, c text, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (b);
CREATE TABLE tree_1_1 PARTITION OF tree_1 FOR VALUES FROM (0) TO (10);
CREATE TABLE tree_rest PARTITION OF tree DEFAULT;
INSERT INTO tree VALUES (1, 1, 'x'), (50, 1, 'y');
CREATE TABLE "sp ace" (id int PRIMARY KEY, "o d" int UNIQUE CHECK ("o d" > 0));
CREATE SEQUENCE alone START 7;
CREATE PUBLICATION theirs FOR TABLE base;
INSERT INTO base (v) VALUES (1), (2);
SELECT nextval('alone');
"#;

#[tokio::test]
async fn pg_dump_carries_every_kind() {
    // PostgreSQL 18 is tried where GODWIT_PG_DUMP names a pg_dump that is new enough.
    let major = if std::env::var_os("GODWIT_PG_DUMP").is_some() { 18 } else { 15 };
    let Some(pair) = Pair::new(major, |_| {}) else { return };
    pair.at_source(&format!("{ALL_TYPES}{REST}")).await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    assert!(description.items.iter().any(|item| item.id == "VIEW public.seen"), "pg_dump was not used: {:?}", description.not_carried);
    let mappings = mappings(&pair.task, &description);
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    pair.load(&lease, &mappings, &description, ChunkMode::Insert).await;
    pair.assert_equal(&mappings).await;
    pair.perform(&lease, &description, Stage::AfterLoad).await;
    pair.perform(&lease, &description, Stage::AtFinish).await;
    pair.target.set_sequences(&lease, &pair.source.sequences(&pair.task).await.unwrap()).await.unwrap();
    assert_eq!(pair.ask_target("SELECT n FROM held").await.as_deref(), Some("2"));
    assert_eq!(pair.ask_target("SELECT nextval('alone')").await.as_deref(), Some("8"));
    assert_eq!(pair.ask_target("SELECT count(*) FROM parts_eu").await.as_deref(), Some("250"));
    let left: Vec<&str> = description.not_carried.iter().map(|left| left.object.as_str()).collect();
    assert_eq!(left, ["PUBLICATION theirs"]);
}

#[tokio::test]
async fn a_sound_pair_passes_the_check_and_a_poor_role_does_not() {
    let Some(mut pair) = Pair::new(18, |_| {}) else { return };
    pair.at_source(SHOP).await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let tables: Vec<_> = description.tables.iter().cloned().map(std::sync::Arc::new).collect();
    let needs = SourceNeeds { task: &pair.task, tables: &tables, changes: true };
    let blockers = |findings: Vec<godwit_model::Finding>| {
        findings.into_iter().filter(|f| f.severity == godwit_model::Severity::Blocker).map(|f| f.check).collect::<Vec<_>>()
    };
    assert_eq!(blockers(pair.source.check(&needs).await.unwrap()), Vec::<&str>::new());
    let target_needs = TargetNeeds { task: &pair.task, description: &description, mappings: &mappings };
    assert_eq!(blockers(pair.target.check(&target_needs).await.unwrap()), Vec::<&str>::new());
    assert_eq!(pair.ask_source("SELECT count(*) FROM pg_publication").await.as_deref(), Some("0"));
    pair.at_source("DO $$ BEGIN CREATE ROLE poor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$").await;
    pair.task.source.user = Some("poor".into());
    let poor = godwit_postgres::source(&pair.task).unwrap();
    let needs = SourceNeeds { task: &pair.task, tables: &tables, changes: true };
    let found = blockers(poor.check(&needs).await.unwrap());
    for check in ["read_right", "ownership", "replication_right", "publication"] {
        assert!(found.contains(&check), "{check} in {found:?}");
    }
}

#[tokio::test]
async fn a_source_is_closed_to_writers_and_opened_again() {
    let Some(pair) = Pair::new(15, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY); DO $$ BEGIN CREATE ROLE writing LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT, INSERT ON t TO writing").await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let tables: Vec<_> = description.tables.into_iter().map(std::sync::Arc::new).collect();
    let may = "SELECT has_table_privilege('writing', 't', 'INSERT')";
    pair.source.set_read_only(&tables, true).await.unwrap();
    assert_eq!(pair.ask_source(may).await.as_deref(), Some("f"));
    pair.source.set_read_only(&tables, false).await.unwrap();
    assert_eq!(pair.ask_source(may).await.as_deref(), Some("t"));
}
