//! A part of a database: what pg_dump says holds beside tables that are left out or mapped.

use godwit_model::{ChunkMode, ColumnRule, Description, Grants, MapRule, Owners, Stage, TableName, Task};

use super::pair::{Pair, mappings};

const UGLY: &str = r#"
CREATE SCHEMA tools; CREATE SCHEMA attic; CREATE SCHEMA "Odd.Name";
CREATE FUNCTION tools.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
CREATE FUNCTION attic.unused() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE tools.mood AS ENUM ('fine', 'so so');
CREATE SEQUENCE shared_seq START 100;
CREATE TABLE person (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, secret text, mood tools.mood DEFAULT 'fine', twice int DEFAULT tools.twice(4));
ALTER TABLE person SET (fillfactor = 60); ALTER TABLE person ALTER name SET STORAGE EXTERNAL, ALTER name SET STATISTICS 7;
COMMENT ON TABLE person IS 'it''s one'; COMMENT ON COLUMN person.secret IS 'gone with it'; COMMENT ON COLUMN person.name IS 'called';
CREATE TABLE gone (id int PRIMARY KEY, v int);
CREATE TABLE "Odd.Name"."or""der" (id int PRIMARY KEY DEFAULT nextval('shared_seq'), person int REFERENCES person, gone int REFERENCES gone, "a b" text);
CREATE TABLE whole (id serial PRIMARY KEY, n int CHECK (tools.twice(n) > 0), g int GENERATED ALWAYS AS (n + 1) STORED,
    at timestamptz, EXCLUDE USING gist (int4range(id, id + 1) WITH &&), UNIQUE (n, id)) WITH (fillfactor = 70);
ALTER TABLE whole ALTER at SET STATISTICS 50;
CREATE INDEX whole_n_idx ON whole (tools.twice(n)) WHERE n > 1;
ALTER TABLE whole CLUSTER ON whole_pkey;
CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
CREATE TABLE nothing ();
CREATE TABLE heir (more text) INHERITS (gone);
CREATE TABLE parts (k int, v text) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE VIEW of_whole AS SELECT n, tools.twice(n) FROM whole;
CREATE VIEW of_person AS SELECT name FROM person;
CREATE VIEW of_gone AS SELECT v FROM gone;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM of_whole;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted BEFORE UPDATE ON whole FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER noted BEFORE UPDATE ON person FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER noted BEFORE UPDATE ON gone FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE whole DISABLE TRIGGER noted;
CREATE RULE quiet AS ON DELETE TO whole DO INSTEAD NOTHING;
COMMENT ON TABLE whole IS 'kept'; COMMENT ON TABLE gone IS 'not wanted';
CREATE STATISTICS st ON n, at FROM whole;
INSERT INTO person (name, secret) VALUES ('Ann', 'x'), ('Bob', 'y');
INSERT INTO gone VALUES (1, 1); INSERT INTO heir VALUES (2, 2, 'h');
INSERT INTO "Odd.Name"."or""der" (person, gone, "a b") VALUES (1, 1, 'z');
INSERT INTO whole (n) VALUES (1), (2); INSERT INTO computed VALUES (1), (2);
INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
INSERT INTO parts VALUES (1, 'a'), (7, 'b');
"#;

fn part(task: &mut Task) {
    task.select.except = vec!["public.gone".into()];
    let columns = vec![("secret".to_owned(), ColumnRule::LeaveOut)];
    task.map = vec![MapRule { from: TableName::new("public", "person"), to: Some(TableName::new("crm", "human")), columns }];
}

async fn move_all(pair: &Pair, description: &Description) {
    let mappings = mappings(&pair.task, description);
    let lease = pair.lease().await;
    pair.perform(&lease, description, Stage::BeforeLoad).await;
    pair.load(&lease, &mappings, description, ChunkMode::Insert).await;
    pair.assert_equal(&mappings).await;
    pair.perform(&lease, description, Stage::AfterLoad).await;
    pair.perform(&lease, description, Stage::AtFinish).await;
    pair.target.set_sequences(&lease, &pair.source.sequences(&pair.task).await.unwrap()).await.unwrap();
}

fn left(description: &Description) -> Vec<&str> {
    description.not_carried.iter().map(|left| left.object.as_str()).collect()
}

fn major() -> u16 {
    // PostgreSQL 18 is tried where GODWIT_PG_DUMP names a pg_dump that is new enough.
    if std::env::var_os("GODWIT_PG_DUMP").is_some() { 18 } else { 15 }
}

#[tokio::test]
async fn what_does_not_lean_on_a_table_left_out_is_the_servers_own() {
    let Some(pair) = Pair::new(major(), part) else { return };
    pair.at_source(UGLY).await;
    let description = pair.target.adapt(pair.source.describe(&pair.task).await.unwrap()).await.unwrap();
    let mut left = left(&description);
    left.sort_unstable();
    let expected = [
        "FK CONSTRAINT Odd.Name.or\"der or\"der_gone_fkey",
        "INHERITANCE of public.heir",
        "TRIGGER public.person noted",
        "VIEW public.of_gone",
        "VIEW public.of_person",
    ];
    assert_eq!(left, expected, "{:#?}", description.not_carried);
    move_all(&pair, &description).await;
    let ask = |sql: &'static str| pair.ask_target(sql);
    assert_eq!(ask("SELECT count(*) || ' ' || sum(n) FROM of_whole").await.as_deref(), Some("2 3"));
    assert_eq!(ask("SELECT n FROM counted").await.as_deref(), Some("2"));
    assert_eq!(ask("SELECT count(*) FROM nothing").await.as_deref(), Some("2"));
    assert_eq!(ask("SELECT string_agg(tableoid::regclass::text, ' ' ORDER BY k) FROM parts").await.as_deref(), Some("parts_1 parts_rest"));
    assert_eq!(ask("SELECT tgenabled FROM pg_trigger WHERE tgname = 'noted'").await.as_deref(), Some("D"));
    assert_eq!(ask("SELECT reloptions::text FROM pg_class WHERE relname = 'whole'").await.as_deref(), Some("{fillfactor=70}"));
    assert_eq!(ask("SELECT obj_description('whole'::regclass)").await.as_deref(), Some("kept"));
    assert_eq!(ask("SELECT indisclustered FROM pg_index WHERE indexrelid = 'whole_pkey'::regclass").await.as_deref(), Some("t"));
    assert_eq!(ask("INSERT INTO crm.human (name) VALUES ('Cy') RETURNING id || ' ' || twice || mood").await.as_deref(), Some("3 8fine"));
    assert_eq!(ask(r#"INSERT INTO "Odd.Name"."or""der" (person) VALUES (3) RETURNING id"#).await.as_deref(), Some("101"));
    let attributes = ask("SELECT reloptions::text || (SELECT attstorage::text || '/' || attstattarget || col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = c.oid AND attname = 'name')
        || obj_description(c.oid) FROM pg_class c WHERE oid = 'crm.human'::regclass").await;
    assert_eq!(attributes.as_deref(), Some("{fillfactor=60}e/7calledit's one"));
    let key = ask("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'").await;
    assert_eq!(key.as_deref(), Some("FOREIGN KEY (person) REFERENCES crm.human(id)"));
}

#[tokio::test]
async fn objects_of_other_schemas_come_where_they_are_needed() {
    let Some(pair) = Pair::new(major(), |task| task.select.tables = vec!["public.whole".into()]) else { return };
    pair.at_source(UGLY).await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let makes = |id: &str| description.items.iter().any(|item| item.id == id);
    assert!(makes("FUNCTION tools.twice(integer)") && makes("SCHEMA tools") && makes("VIEW public.of_whole"));
    assert!(!makes("FUNCTION attic.unused()") && !makes("TYPE tools.mood"));
    let left = left(&description);
    assert!(left.contains(&"SCHEMA attic (2 objects)") && left.contains(&"SCHEMA tools (1 objects)"), "{left:?}");
    move_all(&pair, &description).await;
}

#[tokio::test]
async fn a_column_of_another_tables_row_type_is_refused_by_name() {
    let Some(pair) = Pair::new(major(), |task| task.select.except = vec!["public.a".into()]) else { return };
    pair.at_source("CREATE TABLE a (x int); CREATE TABLE b (id int PRIMARY KEY, held a[])").await;
    let error = pair.source.describe(&pair.task).await.unwrap_err();
    assert!(error.is(&godwit_model::codes::TASK_UNSUPPORTED) && error.to_string().contains("`held`"), "{error}");
}

#[tokio::test]
async fn a_role_that_the_target_lacks_is_listed() {
    let Some(pair) = Pair::new(major(), |task| (task.schema.owners, task.schema.grants) = (Owners::Keep, Grants::Keep)) else { return };
    // both databases are on one server: the role is taken away between
    pair.at_source(
        "CREATE ROLE part_gone; CREATE TABLE a (id int PRIMARY KEY); ALTER TABLE a OWNER TO part_gone; GRANT SELECT ON a TO PUBLIC;
        ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON a TO part_gone USING (true)",
    )
    .await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    pair.at_source("DROP TABLE a; DROP ROLE part_gone").await;
    let description = pair.target.adapt(description).await.unwrap();
    let left = left(&description);
    assert!(left.contains(&"OWNER of TABLE public.a") && left.contains(&"POLICY public.a seen"), "{left:?}");
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    pair.perform(&lease, &description, Stage::AtFinish).await;
    assert_eq!(pair.ask_target("SELECT has_table_privilege('pg_monitor', 'a', 'SELECT')").await.as_deref(), Some("t"));
}

#[tokio::test]
async fn a_role_without_rights_moves_what_it_may_make() {
    let Some(mut pair) = Pair::new(major(), |_| {}) else { return };
    let role = "DO $$ BEGIN CREATE ROLE part_poor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    pair.at_source(role).await;
    pair.at_source(
        "CREATE FUNCTION raw(int4, int4) RETURNS int4 LANGUAGE internal STRICT IMMUTABLE AS 'int4pl';
        CREATE VIEW over_raw AS SELECT raw(1, 2);
        CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION fired() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION fired(); ALTER EVENT TRIGGER watch DISABLE;
        CREATE CAST (varbit AS int4) WITH INOUT; CREATE TYPE ours AS (x int); CREATE CAST (ours AS int4) WITH INOUT;
        CREATE EXTENSION hstore; CREATE TABLE t (id int PRIMARY KEY, h hstore); INSERT INTO t VALUES (1, 'a=>1')",
    )
    .await;
    pair.at_target("DO $$ BEGIN EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO part_poor', current_database()); END $$; GRANT CREATE ON SCHEMA public TO part_poor").await;
    pair.task.target.user = Some("part_poor".into());
    pair.target = godwit_postgres::target(&pair.task).unwrap();
    let description = pair.target.adapt(pair.source.describe(&pair.task).await.unwrap()).await.unwrap();
    let left = left(&description);
    assert_eq!(
        left,
        ["CAST CAST (bit varying AS integer)", "FUNCTION public.raw(integer, integer)", "VIEW public.over_raw", "EVENT TRIGGER watch"]
    );
    move_all(&pair, &description).await;
    assert_eq!(pair.ask_target("SELECT h->'a' FROM t").await.as_deref(), Some("1"));
}
