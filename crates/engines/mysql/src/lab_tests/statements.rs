//! What stands in the log as a statement: what stops a stream, and what does not.

use godwit_model::{ChangeOperation, Code, Result, codes};

use mysql_async::prelude::Queryable;

use super::Lab;
use super::model::{Reader, Transaction};

/// `prepare`, then a row, then `statements`, then a row and a marker; what a stream of `t` tells of it.
async fn told(lab: &Lab, prepare: &[&str], statements: &[&str]) -> Result<Vec<Transaction>> {
    let fresh = [
        "DROP TABLE IF EXISTS t, u, v, my, p",
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))",
        "CREATE TABLE u (id INT PRIMARY KEY, v VARCHAR(20))",
        "CREATE TABLE v LIKE t",
    ];
    lab.run(&fresh).await;
    lab.run(prepare).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let mut reader = Reader::new(lab.stream(&from, &tables).await);
    lab.run(&["INSERT INTO t VALUES (1, 'before')"]).await;
    lab.run(statements).await;
    let marker = lab.mark("end").await;
    let mut told = vec![reader.transaction().await.unwrap()];
    assert_eq!(told[0].changes.len(), 1, "what lies before is delivered");
    told.extend(reader.until(&marker).await?);
    Ok(told)
}

async fn stops(lab: &Lab, prepare: &[&str], statements: &[&str], code: &Code) {
    match told(lab, prepare, statements).await {
        Ok(told) => panic!("{statements:?} passed: {told:?}"),
        Err(error) => {
            assert!(error.is(code), "{statements:?}: {error}");
            if *code == codes::DDL_STOPPED {
                assert!(error.place().is_some_and(|place| place.ends_with(&format!("{}.t", lab.database))), "{statements:?}: {error:?}");
            }
        }
    }
}

/// How many changes of rows come between the first row and the marker.
async fn passes(lab: &Lab, prepare: &[&str], statements: &[&str]) -> usize {
    let told = told(lab, prepare, statements).await.unwrap_or_else(|error| panic!("{statements:?}: {error}"));
    told[1..].iter().map(|transaction| transaction.changes.len()).sum()
}

#[tokio::test]
async fn a_schema_change_of_a_selected_table_stops() {
    let Some(lab) = Lab::open("ddl").await else { return };
    let elsewhere = format!("ALTER TABLE `{}`.`t` ADD COLUMN x INT", lab.database);
    let forms = [
        "ALTER TABLE t ADD COLUMN x INT",
        "ALTER TABLE t ADD COLUMN x INT, ALGORITHM=INSTANT",
        "/* hello */ alter /*!50000 online */ table t -- there\n modify v VARCHAR(30)",
        "ALTER TABLE t FORCE",
        "ALTER TABLE t RENAME COLUMN v TO w",
        "ALTER TABLE t RENAME TO t2",
        "ALTER TABLE t ADD UNIQUE (v)",
        "CREATE INDEX i ON t (v)",
        "CREATE UNIQUE INDEX IF NOT EXISTS i USING BTREE ON t (v)",
        "RENAME TABLE u TO u2, t TO t2",
        "DROP TABLE u, t",
        "DROP TABLE IF EXISTS t",
        "CREATE OR REPLACE TABLE t (a INT PRIMARY KEY)",
        "CREATE OR REPLACE TABLE t AS SELECT 1 AS a",
        "SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE t DROP COLUMN v",
        "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, v)",
        "ALTER TABLE t CONVERT TO CHARACTER SET latin1",
        elsewhere.as_str(),
    ];
    for form in forms {
        stops(&lab, &["DROP TABLE IF EXISTS t2, u2"], &[form], &codes::DDL_STOPPED).await;
    }
    stops(&lab, &["CREATE INDEX i ON t (v)"], &["DROP INDEX i ON t"], &codes::DDL_STOPPED).await;
    stops(
        &lab,
        &["CREATE TABLE p (id INT PRIMARY KEY, v VARCHAR(20)) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000))"],
        &["ALTER TABLE p EXCHANGE PARTITION p0 WITH TABLE t"],
        &codes::DDL_STOPPED,
    )
    .await;
    let database = lab.database.clone();
    stops(&lab, &[], &[&format!("DROP DATABASE {database}"), &format!("CREATE DATABASE {database}")], &codes::DDL_STOPPED).await;
    lab.close().await;
}

#[tokio::test]
async fn what_does_not_touch_a_selected_table_passes() {
    let Some(lab) = Lab::open("passes").await else { return };
    let other = format!("{}_other", lab.database);
    let other_table = format!("CREATE TABLE {other}.t (a INT)");
    let forms = [
        "ALTER TABLE u ADD COLUMN t INT, COMMENT 'ALTER TABLE t'",
        "CREATE TABLE w (t INT) COMMENT 'it''s not t'",
        "CREATE TABLE IF NOT EXISTS t (nothing INT)",
        "RENAME TABLE u TO x",
        "DROP TABLE v, w, x",
        "CREATE TABLE w AS SELECT * FROM t",
        "CREATE INDEX t ON w (v)",
        "TRUNCATE w",
        "CREATE OR REPLACE VIEW tv AS SELECT * FROM t",
        "CREATE OR REPLACE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = UPPER(NEW.v)",
        "CREATE OR REPLACE PROCEDURE pr() BEGIN DROP TABLE t; END",
        "CREATE OR REPLACE FUNCTION fu() RETURNS INT NO SQL RETURN 1",
        "CREATE TEMPORARY TABLE t3 (a INT)",
        "DROP TEMPORARY TABLE t3",
        "ANALYZE TABLE t",
        "OPTIMIZE TABLE t",
        "FLUSH TABLES",
        "CREATE OR REPLACE USER b_someone IDENTIFIED BY 'x'",
        "GRANT SELECT ON t.* TO b_someone",
        "DROP USER b_someone",
        "CREATE OR REPLACE SEQUENCE sq",
        "SELECT NEXTVAL(sq)",
        &format!("CREATE DATABASE {other}"),
        &other_table,
        &format!("ALTER TABLE {other}.t ADD COLUMN b INT"),
        &format!("DROP DATABASE {other}"),
        "SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE w FORCE",
        "DROP TRIGGER tr",
        "DROP SEQUENCE sq",
        "DROP TABLE w",
    ];
    assert_eq!(passes(&lab, &[], &forms).await, 0);
    lab.close().await;
}

#[tokio::test]
async fn a_truncate_is_told() {
    let Some(lab) = Lab::open("truncate").await else { return };
    let told = told(&lab, &[], &["TRUNCATE TABLE t", "INSERT INTO t VALUES (1, 'again')"]).await.unwrap();
    let operations: Vec<ChangeOperation> = told.iter().flat_map(|told| &told.changes).map(|change| change.operation.clone()).collect();
    assert_eq!(operations, [ChangeOperation::Insert, ChangeOperation::Truncate, ChangeOperation::Insert]);
    lab.close().await;
}

#[tokio::test]
async fn rows_changed_by_logged_statements_stop() {
    let Some(lab) = Lab::open("statement").await else { return };
    // under READ COMMITTED the server refuses to
    let statement = "SET SESSION binlog_format = STATEMENT, SESSION tx_isolation = 'REPEATABLE-READ'";
    for form in ["INSERT INTO t VALUES (2, 'x')", "UPDATE t SET v = 'x'", "DELETE FROM t", "UPDATE u JOIN t USING (id) SET t.v = 'y'"] {
        stops(&lab, &[], &[statement, form], &codes::OUT_OF_SIGHT).await;
    }
    for form in ["INSERT INTO u VALUES (2, 'x')", "DELETE FROM u", "ANALYZE UPDATE t SET v = 'x'"] {
        stops(&lab, &[], &[statement, form], &codes::OUT_OF_SIGHT).await;
    }
    // what it names is not what it changes
    stops(&lab, &["CREATE OR REPLACE VIEW tv AS SELECT * FROM t"], &[statement, "UPDATE tv SET v = 'x'"], &codes::OUT_OF_SIGHT).await;
    let trigger = "CREATE TRIGGER tr AFTER INSERT ON u FOR EACH ROW INSERT INTO t VALUES (NEW.id, 'tr')";
    stops(&lab, &[trigger], &[statement, "INSERT INTO u VALUES (2, 'x')"], &codes::OUT_OF_SIGHT).await;
    let function = "CREATE OR REPLACE FUNCTION f() RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (9, 'f'); RETURN 1; END";
    for form in [
        "SELECT f()",
        "DO f()",
        "SET @x = f()",
        "INSERT INTO u SELECT f(), 'x'",
        "CREATE TABLE w AS SELECT f()",
        "CREATE TEMPORARY TABLE w AS SELECT f()",
    ] {
        let prepare = ["SET GLOBAL log_bin_trust_function_creators = 1", "DROP TABLE IF EXISTS w", function];
        stops(&lab, &prepare, &[statement, form], &codes::OUT_OF_SIGHT).await;
    }
    lab.close().await;
}

/// What sessions that log rows write as text all the same.
#[tokio::test]
async fn what_the_server_logs_as_text_by_itself_passes() {
    let Some(lab) = Lab::open("text").await else { return };
    let forms = [
        "CREATE TEMPORARY TABLE t3 AS SELECT * FROM t",
        "INSERT INTO t3 SELECT * FROM t3",
        "CREATE TABLE w AS SELECT * FROM t",
        "CREATE OR REPLACE TABLE w AS SELECT t.* FROM t, t3",
        "CREATE TABLE IF NOT EXISTS w AS SELECT * FROM t",
        "CREATE TABLE w2 LIKE t3",
        "DROP TEMPORARY TABLE t3",
        "DROP TABLE w, w2",
    ];
    assert_eq!(passes(&lab, &[], &forms).await, 0);
    lab.close().await;
}

/// After a restart of the server a table in memory is empty, and the log says so when it is first looked at.
#[tokio::test]
async fn a_table_in_memory_that_a_restart_emptied_stops_nothing() {
    let Some(lab) = Lab::open("memory").await else { return };
    lab.run(&["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE TABLE m (id INT) ENGINE = MEMORY"]).await;
    lab.run(&["INSERT INTO m VALUES (1)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    super::SERVER.as_ref().unwrap().restart();
    lab.run(&["SELECT * FROM m", "INSERT INTO t VALUES (1, 'x')"]).await;
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    assert_eq!(told[0].changes.len(), 1);
    lab.close().await;
}

#[tokio::test]
async fn a_sequence_in_the_place_of_a_table_stops() {
    let Some(lab) = Lab::open("sequence").await else { return };
    stops(&lab, &[], &["CREATE OR REPLACE SEQUENCE t"], &codes::DDL_STOPPED).await;
    lab.run(&["DROP SEQUENCE t"]).await;
    lab.close().await;
}

/// Names of other character sets than the server's matter only where they may be a selected table's.
#[tokio::test]
async fn schema_changes_in_national_characters_pass() {
    let Some(lab) = Lab::open("national").await else { return };
    let forms = |charset: &str| {
        [
            format!("SET NAMES {charset}"),
            "CREATE TABLE `\u{e4}\u{20ac}` (a INT COMMENT '\u{e9}')".to_owned(),
            "ALTER TABLE `\u{e4}\u{20ac}` ADD COLUMN b INT".to_owned(),
            "TRUNCATE `\u{e4}\u{20ac}`".to_owned(),
            "DROP TABLE `\u{e4}\u{20ac}`".to_owned(),
        ]
    };
    for charset in ["latin1", "latin2", "cp1251", "utf8mb4"] {
        let forms = forms(charset);
        let statements: Vec<&str> = forms.iter().map(String::as_str).collect();
        assert_eq!(passes(&lab, &[], &statements).await, 0, "{charset}");
        stops(&lab, &[], &[statements[0], "ALTER TABLE t COMMENT '\u{e9}'"], &codes::DDL_STOPPED).await;
    }
    lab.close().await;
}

#[tokio::test]
async fn any_number_of_savepoints_passes() {
    let Some(lab) = Lab::open("savepoints").await else { return };
    lab.run(&["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE TABLE my (a INT) ENGINE = MyISAM"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let mut conn = lab.conn().await;
    let many = "BEGIN NOT ATOMIC DECLARE n INT DEFAULT 0; START TRANSACTION; INSERT INTO t VALUES (1, 'x'); INSERT INTO my VALUES (1); \
                WHILE n < 100010 DO SET n = n + 1; EXECUTE IMMEDIATE CONCAT('SAVEPOINT s', n); END WHILE; \
                INSERT INTO t VALUES (2, 'x'); ROLLBACK TO s100000; COMMIT; END";
    conn.query_drop(many).await.unwrap();
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    assert_eq!(told[0].changes.len(), 1);
    lab.close().await;
}

#[tokio::test]
async fn xa_transactions_stop_where_they_touch() {
    let Some(lab) = Lab::open("xa").await else { return };
    let xa = |sql: &'static str, end: &[&'static str]| [&["XA START 'b1'", sql, "XA END 'b1'"], end].concat();
    stops(&lab, &[], &xa("INSERT INTO t VALUES (2, 'x')", &["XA PREPARE 'b1'", "XA COMMIT 'b1'"]), &codes::LOG_UNDECODABLE).await;
    assert_eq!(passes(&lab, &[], &xa("INSERT INTO u VALUES (2, 'x')", &["XA PREPARE 'b1'", "XA COMMIT 'b1'"])).await, 0);
    assert_eq!(passes(&lab, &[], &xa("INSERT INTO u VALUES (2, 'x')", &["XA PREPARE 'b1'", "XA ROLLBACK 'b1'"])).await, 0);
    assert_eq!(passes(&lab, &[], &xa("INSERT INTO t VALUES (2, 'x')", &["XA COMMIT 'b1' ONE PHASE"])).await, 1);
    assert_eq!(passes(&lab, &[], &xa("INSERT INTO t VALUES (2, 'x')", &["XA ROLLBACK 'b1'"])).await, 0);
    lab.close().await;
}

#[tokio::test]
async fn what_was_undone_is_not_told_although_it_is_logged() {
    let Some(lab) = Lab::open("undone").await else { return };
    let plain = "CREATE TABLE my (a INT) ENGINE = MyISAM";
    // beside a table without transactions the log keeps rows that a savepoint undid, and says so behind them
    let work = [
        "BEGIN",
        "INSERT INTO t VALUES (2, 'kept')",
        "SAVEPOINT q",
        "INSERT INTO t VALUES (3, 'undone')",
        "INSERT INTO my VALUES (2)",
        "SAVEPOINT r",
        "DELETE FROM t",
        "ROLLBACK TO q",
        "INSERT INTO t VALUES (4, 'kept')",
        "COMMIT",
    ];
    assert_eq!(passes(&lab, &[plain], &work).await, 2);
    let all = ["BEGIN", "INSERT INTO t VALUES (2, 'undone')", "INSERT INTO my VALUES (2)", "ROLLBACK"];
    assert_eq!(passes(&lab, &[plain], &all).await, 0);
    // a temporary table that is made or dropped in between keeps all of it in the log, with ROLLBACK at its end
    let temporary = ["BEGIN", "INSERT INTO t VALUES (2, 'undone')", "CREATE TEMPORARY TABLE tt (a INT)", "ROLLBACK"];
    assert_eq!(passes(&lab, &[], &temporary).await, 0);
    lab.close().await;
}
