//! What a server holds, described, made in another database of it, and described again.

use std::sync::Arc;

use godwit_model::{ColumnRule, Description, Feature, MapRule, Stage, Table, TableMapping, TableName, Task, Value, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{describe, sequences};
use crate::connect::{Endpoint, Purpose, Server};
use crate::{catalog, created, look, present, structure};

const ODD: &str = include_str!("odd.sql");

/// The laboratory's server, where there is one.
use crate::lab::config as lab;

struct World {
    conn: Conn,
    server: Server,
    task: Task,
    source: String,
    target: String,
}

impl World {
    /// Two databases of the test's own; the second is not there yet. None: no laboratory.
    async fn new(name: &str, sql: &str) -> Option<World> {
        let (source, target) = (format!("godwit_c_{name}"), format!("godwit_c_{name}_to"));
        let endpoint = Endpoint::new(&lab("")?).unwrap();
        let mut conn = endpoint.connect(Purpose::Read).await.unwrap();
        let server = endpoint.ask(&mut conn).await.unwrap();
        // as a user's session
        conn.query_drop("SET sql_mode = 'STRICT_TRANS_TABLES'").await.unwrap();
        for database in [&source, &target] {
            conn.query_drop(format!("DROP DATABASE IF EXISTS `{database}`")).await.unwrap();
        }
        conn.query_drop(format!("CREATE DATABASE `{source}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE `{source}`"))
            .await
            .unwrap();
        conn.query_drop(sql).await.unwrap();
        let conn = endpoint.connect(Purpose::Read).await.unwrap();
        let mut task = godwit_testkit::task::task("lab");
        (task.source, task.target) = (lab(&source)?, lab(&target)?);
        task.map = vec![rule(&source, "*", Some((&target, "*")), &[])];
        Some(World { conn, server, task, source, target })
    }

    async fn describe(&mut self) -> Description {
        describe(&mut self.conn, &self.server, &self.task).await.unwrap()
    }

    async fn make(&mut self, description: &Description) {
        for stage in [Stage::BeforeLoad, Stage::Key, Stage::Index, Stage::AfterLoad, Stage::AtFinish] {
            for item in description.items.iter().filter(|item| item.stage == stage) {
                for sql in &item.sql {
                    self.conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{}: {error}: {sql}", item.id));
                }
            }
        }
    }

    async fn sql(&mut self, sql: &str) {
        self.conn.query_drop(sql.replace("{s}", &self.source).replace("{t}", &self.target)).await.unwrap();
    }

    /// The server's own text, line by line, sorted: its indexes stand in the order in which they were made.
    async fn shown(&mut self, database: &str, table: &str) -> Vec<String> {
        let (_, text): (String, Vec<u8>) =
            self.conn.query_first(format!("SHOW CREATE TABLE {}.{}", q(database), q(table))).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&text).replace(database, "DB");
        let counter = text.find(" AUTO_INCREMENT=").map(|at| text[at + 16..].split(' ').next().unwrap_or_default().to_owned());
        let text = counter.map_or(text.clone(), |counter| text.replace(&format!(" AUTO_INCREMENT={counter}"), ""));
        let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
        lines.sort();
        lines
    }

    fn mappings(&self, description: &Description) -> Vec<Arc<TableMapping>> {
        TableMapping::resolve_all(&self.task.map, &description.tables).unwrap().into_iter().map(Arc::new).collect()
    }

    async fn at_target(&mut self) -> Description {
        let mut task = self.task.clone();
        task.source.database.clone_from(&self.target);
        task.map.clear();
        describe(&mut self.conn, &self.server, &task).await.unwrap()
    }

    async fn features(&mut self, description: &Description) -> (Vec<Feature>, Vec<Feature>) {
        let mappings = self.mappings(description);
        let wanted = structure::of_source(&mut self.conn, &self.server, &mappings).await.unwrap();
        let own = structure::of_target(&mut self.conn, &self.server, &mappings, &wanted).await.unwrap();
        (wanted, own)
    }
}

fn q(name: &str) -> String {
    crate::quote::identifier(name)
}

fn rule(schema: &str, name: &str, to: Option<(&str, &str)>, columns: &[(&str, ColumnRule)]) -> MapRule {
    MapRule {
        from: TableName::new(schema, name),
        to: to.map(|(schema, name)| TableName::new(schema, name)),
        columns: columns.iter().map(|(name, what)| ((*name).to_owned(), what.clone())).collect(),
    }
}

/// A table without what statistics say of it, and without its database.
fn bare(table: &Table) -> Table {
    let mut uniques = table.uniques.clone();
    uniques.sort_by(|one, other| one.name.cmp(&other.name));
    Table { name: TableName::new("", table.name.name.clone()), estimated_rows: 0, estimated_bytes: 0, uniques, ..table.clone() }
}

fn sorted(features: &[Feature]) -> Vec<(String, String, String)> {
    let mut all: Vec<_> = features.iter().map(|f| (f.table.to_string(), f.what.clone(), f.definition.clone())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn every_kind_of_table_is_made_as_it_was() {
    let Some(mut world) = World::new("odd", ODD).await else { return };
    let described = world.describe().await;
    assert_eq!(described.tables.len(), 12);
    assert!(described.items.iter().flat_map(|item| &item.sql).all(|sql| !sql.contains("AUTO_INCREMENT=")), "the counter is a sequence");
    world.make(&described).await;
    let (source, target) = (world.source.clone(), world.target.clone());
    for table in &described.tables {
        assert_eq!(world.shown(&source, &table.name.name).await, world.shown(&target, &table.name.name).await);
    }
    let again = world.at_target().await;
    let tables = |description: &Description| description.tables.iter().map(bare).collect::<Vec<_>>();
    assert_eq!(tables(&described), tables(&again));
    let columns = |description: &Description| description.looks.iter().map(|look| look.columns.clone()).collect::<Vec<_>>();
    assert_eq!(columns(&described), columns(&again));
    assert!(described.looks.iter().all(|look| !look.stamp.is_empty()));
    let wide = again.tables.iter().find(|table| table.name.name == "wide").unwrap();
    assert_eq!(wide.columns[1].type_name, "enum('😀','?','it''s','\\?') CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
    assert!(wide.columns[2].type_name.starts_with("set('a','😀','🚀?')"));
    let charset =
        |database: String| format!("SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{database}'");
    let made: Option<String> = world.conn.query_first(charset(target)).await.unwrap();
    assert_eq!(made.as_deref(), Some("utf8mb4_unicode_ci"));
    assert_eq!(described.not_carried, []);
    // the default of a column that is never NULL is told beside a row only
    world.sql("INSERT INTO `{t}`.wide (id, e) VALUES (1, 1)").await;
    let (wanted, own) = world.features(&described).await;
    assert!(wanted.len() > 150);
    assert_eq!(sorted(&wanted), sorted(&own));
}

#[tokio::test]
async fn defaults_give_the_same_values() {
    let Some(mut world) = World::new("values", ODD).await else { return };
    let described = world.describe().await;
    world.make(&described).await;
    for database in ["{s}", "{t}"] {
        world.sql(&format!("INSERT INTO `{database}`.`Order` (id, ee, ll, u, l, n, pp, rr) VALUES (5, POINT(1, 2), 'x', NULL, '2020-01-01', '2020-01-01', '2020-01-01', '2020-01-01')")).await;
    }
    let sql = "SELECT count(*) FROM (SELECT * FROM `{s}`.`Order` UNION SELECT * FROM `{t}`.`Order`) both_of_them";
    let sql = sql.replace("{s}", &world.source).replace("{t}", &world.target);
    world.sql("INSERT INTO `{t}`.wide (id, e) VALUES (1, '😀')").await;
    let sql_of_wide = sql.replace("`Order`", "wide");
    let different: Option<u64> = world.conn.query_first(sql_of_wide).await.unwrap();
    assert_eq!(different, Some(1));
    let different: Option<u64> = world.conn.query_first(sql).await.unwrap();
    assert_eq!(different, Some(1));
    let bytes: Option<(String, String)> =
        world.conn.query_first(format!("SELECT HEX(p), d FROM `{}`.`Order`", world.target)).await.unwrap();
    assert_eq!(bytes, Some(("00FF41".to_owned(), "a\\b\"c`d\n\tz".to_owned())));
}

#[tokio::test]
async fn keys_are_what_identifies_a_row() {
    let Some(mut world) = World::new("keys", ODD).await else { return };
    world.sql("USE `{s}`; CREATE TABLE f (a double PRIMARY KEY); CREATE TABLE c (a varchar(5) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY); \
        CREATE TABLE pad (a varchar(5) COLLATE utf8mb4_bin PRIMARY KEY); CREATE TABLE prefix (a text NOT NULL, UNIQUE KEY (a(5))); \
        CREATE TABLE hash (a text NOT NULL UNIQUE); CREATE TABLE whole (a blob NOT NULL, PRIMARY KEY (a(5)))").await;
    let described = world.describe().await;
    let key = |name: &str| {
        let table = described.tables.iter().find(|table| table.name.name == name).unwrap();
        (table.key_names().join(","), table.key_is_exact)
    };
    assert_eq!(key("Order"), ("id".to_owned(), true));
    assert_eq!(key("order"), ("k".to_owned(), false), "'a' is 'a ' there");
    assert_eq!(key("keyed"), ("b".to_owned(), true));
    assert_eq!(key("ünï"), (String::new(), true));
    assert_eq!(key("T234567890123456789012345678901234567890123456789012345678901234").0, "id,e,s");
    assert_eq!((key("f").1, key("c").1, key("pad").1, key("whole").1), (false, true, false, false));
    assert_eq!((key("prefix").0, key("hash").0), (String::new(), String::new()));
    let order = described.tables.iter().find(|table| table.name.name == "Order").unwrap();
    assert!(order.columns[order.column("aa").unwrap()].generated && order.columns[order.column("bb").unwrap()].generated);
    assert!(!order.columns[order.column("l").unwrap()].generated && !order.columns[order.column("u").unwrap()].generated);
    let uniques: Vec<(&str, usize)> = order.uniques.iter().map(|unique| (unique.name.as_str(), unique.columns.len())).collect();
    assert_eq!(uniques, [("cc", 1), ("u1", 0), ("uh", 1)]);
}

const SHOP: &str = "
CREATE TABLE customer (id int AUTO_INCREMENT PRIMARY KEY, full_name varchar(40) NOT NULL DEFAULT 'none', ssn varchar(11), email varchar(40),
    up varchar(40) AS (upper(full_name)) STORED, secret varchar(40) AS (concat(ssn, 'full_name')) VIRTUAL, deep varchar(50) AS (concat(secret, '!')) VIRTUAL,
    hint varchar(9) DEFAULT (left(ssn, 3)), UNIQUE KEY by_name (full_name, email), KEY by_ssn (ssn), KEY by_deep (deep),
    CHECK (length(full_name) > 0), CONSTRAINT c CHECK (ssn <> 'full_name'), CONSTRAINT d CHECK (email <> full_name));
CREATE TABLE item (customer int, no int, price decimal(9,2) DEFAULT 1.5, PRIMARY KEY (customer, no),
    CONSTRAINT fk FOREIGN KEY (customer) REFERENCES customer (id) ON DELETE CASCADE);
CREATE TABLE part (customer int PRIMARY KEY) PARTITION BY RANGE (customer) (PARTITION customer VALUES LESS THAN (5));
";

fn shop_rules(world: &mut World) {
    let rename = |to: &str| ColumnRule::Rename(to.to_owned());
    let (source, target) = (world.source.clone(), world.target.clone());
    world.task.map.push(rule(
        &source,
        "customer",
        Some((&target, "client")),
        &[("full_name", rename("na`me")), ("ssn", ColumnRule::LeaveOut)],
    ));
    world.task.map.push(rule(&source, "part", None, &[("customer", rename("client"))]));
    world.task.map.push(rule(&source, "item", None, &[("customer", rename("client"))]));
}

#[tokio::test]
async fn a_mapped_table_is_made_with_its_new_names() {
    let Some(mut world) = World::new("mapped", SHOP).await else { return };
    shop_rules(&mut world);
    let described = world.describe().await;
    world.make(&described).await;
    world.sql("INSERT INTO `{t}`.client (`na``me`, email) VALUES ('Ann', 'a'); INSERT INTO `{t}`.item (client, no) VALUES (1, 1)").await;

    let up: Option<(String, String)> = world
        .conn
        .query_first(format!("SELECT up, price FROM `{0}`.client JOIN `{0}`.item ON client = client.id", world.target))
        .await
        .unwrap();
    assert_eq!(up, Some(("ANN".to_owned(), "1.50".to_owned())));
    for refused in [
        "INSERT INTO `{t}`.client (`na``me`) VALUES ('')",
        "INSERT INTO `{t}`.client (`na``me`, email) VALUES ('ANN', 'a')",
        "INSERT INTO `{t}`.client (`na``me`, email) VALUES ('q', 'q')",
        "INSERT INTO `{t}`.item VALUES (9, 9, 9)",
    ] {
        assert!(world.conn.query_drop(refused.replace("{t}", &world.target)).await.is_err(), "{refused}");
    }
    let (source, target) = (world.source.clone(), world.target.clone());
    let parts = world.shown(&target, "part").await.join(" ");
    assert!(parts.contains("RANGE (`client`)") && parts.contains("PARTITION `customer`"), "{parts}");
    let mut left: Vec<String> = described.not_carried.iter().map(|left| left.object.replace(&source, "S")).collect();
    left.sort();
    let expected = [
        "COLUMN S.customer.deep",
        "COLUMN S.customer.secret",
        "CONSTRAINT c of S.customer",
        "DEFAULT of S.customer.hint",
        "INDEX by_deep of S.customer",
        "INDEX by_ssn of S.customer",
    ];
    assert_eq!(left, expected);
    let (wanted, own) = world.features(&described).await;
    assert_eq!(sorted(&wanted), sorted(&own));
}

#[tokio::test]
async fn what_differs_is_mended_by_its_own_statements() {
    let Some(mut world) = World::new("structure", SHOP).await else { return };
    world.sql("CREATE TABLE `{s}`.p (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (5))").await;
    let described = world.describe().await;
    world.make(&described).await;
    world.sql(
        "USE `{s}`; ALTER TABLE customer MODIFY full_name varchar(40) NULL COMMENT 'it''s', MODIFY email varchar(40) NOT NULL DEFAULT 'a\\\\b' CHECK (email <> ''), \
         DROP INDEX by_name, ADD UNIQUE KEY by_name (email), DROP CONSTRAINT d, ADD CONSTRAINT e CHECK (email > 'a'), COMMENT 'new', \
         DROP KEY by_ssn, ADD KEY more (ssn, email), ADD COLUMN twice int AS (length(email)) STORED, DROP COLUMN deep; \
         ALTER TABLE item DROP FOREIGN KEY fk, MODIFY price decimal(9,2) NOT NULL DEFAULT 2; ALTER TABLE p ADD PARTITION (PARTITION b VALUES LESS THAN (9))",
    )
    .await;
    let (_, own) = world.features(&described).await;
    let not_null = own.iter().find(|own| own.what == "NOT NULL of full_name").unwrap();
    world.sql(&not_null.remove.join("; ")).await;
    let (_, own) = world.features(&described).await;
    assert!(own.iter().all(|own| own.what != "NOT NULL of full_name"), "it gave way by itself");
    for _ in 0..2 {
        let (wanted, own) = world.features(&described).await;
        if sorted(&wanted) == sorted(&own) {
            break;
        }
        let other = |feature: &Feature| own.iter().find(|own| own.table == feature.table && own.what == feature.what).cloned();
        let mut sql: Vec<String> = Vec::new();
        let wants = |own: &&Feature| wanted.iter().any(|wanted| wanted.table == own.table && wanted.what == own.what);
        sql.extend(own.iter().rev().filter(|own| !wants(own)).flat_map(|own| own.remove.clone()));
        for feature in &wanted {
            match other(feature) {
                None => sql.extend(feature.make.clone()),
                Some(own) if own.definition == feature.definition => {}
                Some(_) if !feature.change.is_empty() => sql.extend(feature.change.clone()),
                Some(own) => sql.extend([own.remove, feature.make.clone()].concat()),
            }
        }
        for statement in sql {
            world.conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
        }
    }
    let (source, target) = (world.source.clone(), world.target.clone());
    for table in ["customer", "item", "p"] {
        assert_eq!(world.shown(&source, table).await, world.shown(&target, table).await);
    }
}

#[tokio::test]
async fn stamps_change_with_the_table_and_with_nothing_else() {
    let Some(mut world) = World::new("stamps", "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a int); CREATE TABLE `p ö` (id int PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2").await else { return };
    let names = [TableName::new(world.source.clone(), "t"), TableName::new(world.source.clone(), "p ö")];
    let mut seen: Vec<Vec<String>> = Vec::new();
    let steps = [
        (false, "INSERT INTO `{s}`.t (a) VALUES (1), (2); INSERT INTO `{s}`.`p ö` VALUES (1), (2)"),
        (false, "ANALYZE TABLE `{s}`.t; FLUSH TABLES"),
        (false, "UPDATE `{s}`.t SET a = 3; DELETE FROM `{s}`.t"),
        (true, "ALTER TABLE `{s}`.t ADD b int DEFAULT 5; TRUNCATE `{s}`.`p ö`"),
        (true, "ALTER TABLE `{s}`.t DROP b; ALTER TABLE `{s}`.`p ö` ADD PARTITION PARTITIONS 1"),
        (true, "ALTER TABLE `{s}`.t ADD b int DEFAULT 6, ALGORITHM=INSTANT; ALTER TABLE `{s}`.`p ö` TRUNCATE PARTITION p1"),
        (true, "TRUNCATE `{s}`.t; ALTER TABLE `{s}`.`p ö` COALESCE PARTITION 1"),
        (true, "ALTER TABLE `{s}`.t ENGINE=InnoDB; ALTER TABLE `{s}`.`p ö` ADD x int"),
        (true, "DROP TABLE `{s}`.t; CREATE TABLE `{s}`.t (id int); DROP TABLE `{s}`.`p ö`; CREATE TABLE `{s}`.`p ö` (id int)"),
    ];
    async fn stamps(world: &mut World, names: &[TableName]) -> Vec<String> {
        let looks = look::appearances(&mut world.conn, &world.server, names).await.unwrap();
        names.iter().map(|name| looks.iter().find(|look| look.table == *name).unwrap().look.stamp.clone()).collect()
    }
    seen.push(stamps(&mut world, &names).await);
    for (changes, sql) in steps {
        world.sql(sql).await;
        let now = stamps(&mut world, &names).await;
        for at in 0..names.len() {
            let is_new = seen.iter().all(|seen| seen[at] != now[at]);
            let is_last = seen.last().unwrap()[at] == now[at];
            assert_eq!((is_new, is_last), (changes, !changes), "{sql}: {seen:?} {now:?}");
        }
        seen.push(now);
    }
    assert!(look::appearances(&mut world.conn, &world.server, &[TableName::new("x", "y")]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_account_of_few_rights_gets_stamps_and_is_told_of_hidden_columns() {
    let Some(mut world) = World::new("rights", "CREATE TABLE t (id int PRIMARY KEY, a int)").await else { return };
    world.sql("CREATE OR REPLACE USER godwit_c_few IDENTIFIED BY ''; GRANT SELECT ON `{s}`.* TO godwit_c_few; CREATE OR REPLACE USER godwit_c_less IDENTIFIED BY ''; GRANT SELECT (id) ON `{s}`.t TO godwit_c_less").await;
    let mut task = world.task.clone();
    for (user, sees) in [("godwit_c_few", true), ("godwit_c_less", false)] {
        task.source.user = Some(user.to_owned());
        let mut conn = Endpoint::new(&task.source).unwrap().connect(Purpose::Read).await.unwrap();
        let answer = describe(&mut conn, &world.server, &task).await;
        if sees {
            let look = &answer.unwrap().looks[0];
            assert!(look.stamp.ends_with(" -"), "{look:?}");
        } else {
            assert!(answer.unwrap_err().is(&codes::RIGHTS_MISSING));
        }
    }
}

#[tokio::test]
async fn tables_without_transactions_are_refused_by_name() {
    let sql =
        "CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE my (id int PRIMARY KEY) ENGINE=MyISAM; CREATE TABLE ar (id int) ENGINE=Aria";
    let Some(mut world) = World::new("loose", sql).await else { return };
    let refused = describe(&mut world.conn, &world.server, &world.task).await.unwrap_err();
    assert!(refused.is(&codes::TASK_UNSUPPORTED), "{refused}");
    let names = format!("{0}.ar (Aria), {0}.my (MyISAM)", world.source);
    assert!(refused.what().ends_with(&names), "{refused}");
}

#[tokio::test]
async fn what_is_selected_and_what_is_there() {
    let sql = "CREATE TABLE A (id int AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT=7; CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE `b.c` (id bigint unsigned AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT=18446744073709551000;
        CREATE VIEW v AS SELECT 1 AS x; CREATE SEQUENCE q; CREATE TABLE d (id int DEFAULT nextval(q));
        CREATE TABLE kept (id int PRIMARY KEY) WITH SYSTEM VERSIONING;
        CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.id = 1; CREATE TRIGGER other BEFORE INSERT ON A FOR EACH ROW SET NEW.id = 1;
        CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1";
    let Some(mut world) = World::new("selected", sql).await else { return };
    let (source, target) = (world.source.clone(), world.target.clone());
    let described = world.describe().await;
    let names = |description: &Description| description.tables.iter().map(|table| table.name.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&described), ["A", "a", "b.c", "d"]);
    let mut left: Vec<String> = described.not_carried.iter().map(|left| left.object.replace(&source, "S")).collect();
    left.sort();
    let expected = [
        "DEFAULT of S.d.id",
        "EVENT S.ev",
        "FUNCTION S.f",
        "PROCEDURE S.p",
        "SEQUENCE S.q",
        "SYSTEM VERSIONED S.kept",
        "TRIGGER S.other",
        "TRIGGER S.tr",
        "VIEW S.v",
    ];
    assert_eq!(left, expected);
    let values = sequences(&mut world.conn, &world.server, &world.task).await.unwrap();
    let values: Vec<(TableName, Value, bool)> = values.into_iter().map(|value| (value.name, value.last, value.called)).collect();
    let name = |name: &str| TableName::new(target.clone(), name);
    assert_eq!(values, [(name("A"), Value::Int(7), false), (name("b.c"), Value::Native("18446744073709551000".into()), false)]);
    world.make(&described).await;
    world.sql("INSERT INTO `{t}`.a VALUES (1); CREATE TABLE `{t}`.points (id int, FOREIGN KEY (id) REFERENCES `{t}`.a (id)); CREATE TABLE `{t}`.d2 (id int, FOREIGN KEY (id) REFERENCES A (id))".replace("REFERENCES A", "REFERENCES `{t}`.A").as_str()).await;
    let asked = [name("A"), name("a"), name("gone"), name("d2")];
    let found = present::read(&mut world.conn, &world.server, &asked).await.unwrap();
    let found: Vec<(String, bool, Vec<TableName>)> =
        found.into_iter().map(|found| (found.table.name.name, found.has_rows, found.referenced_by)).collect();
    assert_eq!(found, [("A".to_owned(), false, vec![]), ("a".to_owned(), true, vec![name("points")]), ("d2".to_owned(), false, vec![])]);
    world.task.select.tables = vec![format!("{source}.*"), "mysql.*".to_owned(), "godwit.*".to_owned()];
    world.task.select.except = vec![format!("{source}.b\\.c"), format!("{source}.d")];
    assert_eq!(names(&world.describe().await), ["A", "a"]);
    world.task.source.database.clear();
    let selected = catalog::selected(&mut world.conn, &world.task.select, "").await.unwrap();
    assert_eq!(selected, [TableName::new(source.clone(), "A"), TableName::new(source, "a")]);
}

/// What the server counts as questions and as statements sent.
async fn questions(world: &mut World) -> u64 {
    let row: Option<(String, u64)> = world.conn.query_first("SHOW SESSION STATUS LIKE 'Com_select'").await.unwrap();
    row.unwrap().1
}

#[tokio::test]
async fn many_tables_take_as_many_questions_as_one() {
    let Some(mut world) = World::new("many", "CREATE TABLE t0 (id int PRIMARY KEY)").await else { return };
    let mut costs = Vec::new();
    for tables in [1, 60] {
        let made: Vec<String> = (1..tables).map(|at| format!("CREATE TABLE `{{s}}`.t{at} (id int PRIMARY KEY, a int, KEY (a))")).collect();
        if !made.is_empty() {
            world.sql(&made.join(";")).await;
        }
        world.describe().await;
        let before = questions(&mut world).await;
        let described = world.describe().await;
        let mappings = world.mappings(&described);
        structure::of_source(&mut world.conn, &world.server, &mappings).await.unwrap();
        let names: Vec<TableName> = described.tables.iter().map(|table| table.name.clone()).collect();
        look::appearances(&mut world.conn, &world.server, &names).await.unwrap();
        present::read(&mut world.conn, &world.server, &names).await.unwrap();
        costs.push(questions(&mut world).await - before);
    }
    assert_eq!(costs[0], costs[1]);
}

#[tokio::test]
async fn a_table_that_is_gone_is_said() {
    let Some(mut world) = World::new("gone", "CREATE TABLE t (id int PRIMARY KEY)").await else { return };
    let (there, gone) = (TableName::new(world.source.clone(), "t"), TableName::new(world.source.clone(), "no"));
    let error = created::read(&mut world.conn, &[&there, &gone, &there]).await.unwrap_err();
    assert!(error.is(&codes::TABLE_MISSING));
    assert_eq!(created::read(&mut world.conn, &[&there]).await.unwrap().len(), 1, "the session is usable");
}
