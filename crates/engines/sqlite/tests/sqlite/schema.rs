//! Descriptions, DDL for plain and mapped tables, checks.

use godwit_model::*;

use crate::world::World;

const SHOP: &str = "
    CREATE TABLE customer (id INTEGER PRIMARY KEY AUTOINCREMENT, full_name TEXT NOT NULL COLLATE NOCASE DEFAULT 'none', ssn TEXT UNIQUE,
        email TEXT, up TEXT AS (upper(full_name)) STORED, secret TEXT AS (ssn || 'x'), CHECK (length(full_name) > 0), CONSTRAINT c CHECK (ssn <> 'full_name'), UNIQUE (full_name, email));
    CREATE TABLE item (customer INTEGER REFERENCES customer (id) ON DELETE CASCADE, no INT, price NUMERIC DEFAULT (1 + 1), PRIMARY KEY (customer, no)) WITHOUT ROWID;
    CREATE TABLE plain (a TEXT PRIMARY KEY, b ANY) STRICT;
    CREATE TABLE nokey (a, b);
    CREATE TABLE nullable_key (a TEXT PRIMARY KEY, b);
    CREATE TABLE quirk (id INTEGER PRIMARY KEY DESC, b);
    CREATE INDEX by_name ON customer (lower(full_name), email DESC) WHERE email IS NOT NULL;
    CREATE INDEX by_ssn ON customer (ssn);
    CREATE UNIQUE INDEX plain_b ON plain (b);
    CREATE VIEW v AS SELECT a FROM plain;
    CREATE VIEW names AS SELECT full_name FROM customer;
    CREATE VIEW of_names AS SELECT * FROM names;
    CREATE TRIGGER plain_t AFTER INSERT ON plain BEGIN SELECT 1; END;
    CREATE VIRTUAL TABLE search USING fts5 (body);
    PRAGMA user_version = 12;
    INSERT INTO customer (id, full_name) VALUES (7, 'x');
";

fn mapped(world: &mut World) {
    world.task.map = vec![MapRule {
        from: TableName::new("main", "customer"),
        to: Some(TableName::new("main", "client")),
        columns: vec![("full_name".into(), ColumnRule::Rename("name".into())), ("ssn".into(), ColumnRule::LeaveOut)],
    }];
}

fn make(world: &World, description: &Description) {
    let target = world.target_user();
    for stage in [Stage::BeforeLoad, Stage::AfterLoad, Stage::AtFinish] {
        for item in description.items.iter().filter(|item| item.stage == stage) {
            for sql in &item.sql {
                target.execute_batch(sql).unwrap_or_else(|error| panic!("{}: {error}: {sql}", item.id));
            }
        }
    }
}

fn objects(user: &rusqlite::Connection) -> Vec<String> {
    let mut statement = user
        .prepare("SELECT type || ' ' || name || ' ' || ifnull(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'search%' ORDER BY 1")
        .unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn without_a_mapping_every_text_is_kept() {
    let world = World::new(SHOP);
    let description = world.source().describe(&world.task).await.unwrap();
    make(&world, &description);
    assert_eq!(objects(&world.user()), objects(&world.target_user()));
    assert_eq!(description.not_carried.iter().map(|object| object.object.as_str()).collect::<Vec<_>>(), ["VIRTUAL TABLE main.search"]);
    let version: i64 = world.target_user().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 12);
    let sequences = world.source().sequences(&world.task).await.unwrap();
    assert_eq!(sequences, [SequenceValue { name: TableName::new("main", "customer"), last: Value::Int(7), called: true }]);
}

#[tokio::test]
async fn keys_are_what_identifies_a_row() {
    let world = World::new(SHOP);
    let tables = world.tables().await;
    let keys: Vec<(&str, Vec<&str>, bool)> = tables.iter().map(|t| (t.name.name.as_str(), t.key_names(), t.key_is_exact)).collect();
    let expected: [(&str, Vec<&str>, bool); 6] = [
        ("customer", vec!["id"], true),
        ("item", vec!["customer", "no"], true),
        ("nokey", vec![], true),
        ("nullable_key", vec![], true),
        ("plain", vec!["a"], true),
        ("quirk", vec![], true),
    ];
    assert_eq!(keys, expected);
    assert!(tables[0].columns[4].generated && !tables[0].columns[3].generated);
    assert_eq!(tables[0].uniques.len(), 2);
}

#[tokio::test]
async fn a_mapped_table_is_made_with_its_new_names() {
    let mut world = World::new(SHOP);
    mapped(&mut world);
    let description = world.source().describe(&world.task).await.unwrap();
    make(&world, &description);
    let target = world.target_user();
    target.execute_batch("PRAGMA foreign_keys = ON; INSERT INTO client (name, email) VALUES ('Ann', 'a'); INSERT INTO item (customer, no) VALUES (1, 1);").unwrap();
    let (up, price): (String, i64) = target
        .query_row("SELECT up, price FROM client JOIN item ON customer = client.id", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((up.as_str(), price), ("ANN", 2));
    for refused in [
        "INSERT INTO client (name) VALUES ('')",
        "INSERT INTO client (name, email) VALUES ('ANN', 'a')",
        "INSERT INTO item VALUES (9, 9, 9)",
    ] {
        assert!(target.execute_batch(refused).is_err(), "{refused}");
    }
    target.execute_batch("DELETE FROM client; INSERT INTO client (name) VALUES ('q')").unwrap();
    let id: i64 = target.query_row("SELECT id FROM client", [], |row| row.get(0)).unwrap();
    assert_eq!(id, 2, "AUTOINCREMENT is kept");
    let listed: Vec<&str> = description.not_carried.iter().map(|object| object.object.as_str()).collect();
    for object in [
        "INDEX main.by_ssn",
        "VIEW main.names",
        "VIEW main.of_names",
        "generated column secret of table main.customer",
        "a UNIQUE constraint of table main.customer",
    ] {
        assert!(listed.contains(&object), "{object} in {listed:?}");
    }
    assert!(listed.iter().any(|object| object.starts_with("CHECK")), "{listed:?}");
    assert!(description.items.iter().any(|item| item.id == "INDEX main.by_name" && item.table == Some(TableName::new("main", "client"))));
}

#[tokio::test]
async fn names_that_sqlite_does_not_tell_apart_are_refused() {
    let mut world = World::new("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY);");
    let rule = |to: TableName| vec![MapRule { from: TableName::new("main", "a"), to: Some(to), columns: vec![] }];
    world.task.map = rule(TableName::new("main", "B"));
    assert!(world.source().describe(&world.task).await.unwrap_err().is(&codes::NAMES_COLLIDE));
    world.task.map = rule(TableName::new("shop", "a"));
    assert!(world.source().describe(&world.task).await.unwrap_err().is(&codes::TASK_UNSUPPORTED));
}

async fn blockers(world: &World) -> Vec<&'static str> {
    let tables = world.tables().await;
    let findings = world.source().check(&SourceNeeds { task: &world.task, tables: &tables, changes: true }).await.unwrap();
    assert!(findings.iter().any(|finding| finding.check == "busy_timeout"));
    findings.iter().filter(|finding| finding.severity == Severity::Blocker).map(|finding| finding.check).collect()
}

#[tokio::test]
async fn checks_of_the_source() {
    let world = World::new(SHOP);
    assert!(blockers(&world).await.is_empty());
    assert!(world.source().traces().await.unwrap().is_empty());
    world.user().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let findings = blockers(&world).await;
    assert_eq!(findings, ["journal_mode"]);
    let world = World::new("CREATE TABLE h (rowid, _rowid_, oid)");
    assert_eq!(blockers(&world).await, ["capture"]);
}

#[tokio::test]
async fn checks_of_the_target() {
    let world = World::new("CREATE TABLE a (id INTEGER PRIMARY KEY, v); CREATE TABLE b (k TEXT PRIMARY KEY NOT NULL);");
    let description = world.source().describe(&world.task).await.unwrap();
    let mappings = world.mappings().await;
    let target = world.target();
    let needs = TargetNeeds { task: &world.task, description: &description, mappings: &mappings };
    assert!(target.check(&needs).await.unwrap().is_empty());
    assert!(!world.path("target.db").exists());
    world
        .target_user()
        .execute_batch("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL); CREATE TRIGGER x AFTER INSERT ON a BEGIN SELECT 1; END;")
        .unwrap();
    let findings = target.check(&needs).await.unwrap();
    let blockers: Vec<&str> = findings.iter().filter(|f| f.severity == Severity::Blocker).map(|f| f.check).collect();
    assert_eq!(blockers, ["triggers", "structure", "structure"]);
}

#[tokio::test]
async fn what_is_no_database_is_said() {
    let mut world = World::new("CREATE TABLE a (id INTEGER PRIMARY KEY)");
    std::fs::write(world.path("text.db"), "this is a text and no database at all, however long it may be").unwrap();
    world.task.source.database = world.path("text.db").to_str().unwrap().into();
    assert!(world.source().describe(&world.task).await.unwrap_err().is(&codes::NOT_A_DATABASE));
    world.task.source.database = world.path("missing.db").to_str().unwrap().into();
    assert!(world.source().describe(&world.task).await.unwrap_err().is(&codes::UNREACHABLE));
    assert!(!world.path("missing.db").exists());
    world.task.source.options = vec![("mode".into(), "memory".into())];
    assert!(godwit_sqlite::source(&world.task).err().unwrap().is(&codes::TASK_UNKNOWN_KEY));
}

#[tokio::test]
async fn one_file_under_two_names_is_known() {
    let mut world = World::new("CREATE TABLE a (id INTEGER PRIMARY KEY)");
    assert_ne!(world.source().capabilities().identity, world.target().capabilities().identity);
    std::os::unix::fs::symlink(world.path("source.db"), world.path("link.db")).unwrap();
    world.task.target.database = world.path("link.db").to_str().unwrap().into();
    assert_eq!(world.source().capabilities().identity, world.target().capabilities().identity);
}
