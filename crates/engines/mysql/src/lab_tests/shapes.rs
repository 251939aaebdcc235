//! Tables whose log has more than their columns, and those that are not followed.

use std::sync::Arc;

use godwit_model::{Table, Value, codes};

use mysql_async::prelude::Queryable;

use super::Lab;
use super::model::{Model, Reader};
use crate::changes::Changes;
use crate::connect::Purpose;
use crate::establish::establish;
use crate::position::Place;

#[tokio::test]
async fn computed_and_hidden_columns_shift_nothing() {
    let Some(lab) = Lab::open("computed").await else { return };
    let table = "CREATE TABLE c (id INT, gone INT, v INT AS (id + 1) VIRTUAL, s INT AS (id + 2) STORED, t TEXT, u LONGTEXT, i INT INVISIBLE DEFAULT 5, \
                 z VARCHAR(10), PRIMARY KEY (id), UNIQUE (t), UNIQUE (u))";
    lab.run(&[table]).await;
    let tables = [lab.table("c").await];
    for image in ["FULL", "NOBLOB", "MINIMAL"] {
        let from = lab.here().await;
        let mut replayed = Model::read(&mut lab.conn().await, &tables).await;
        let set = format!("SET SESSION binlog_row_image = {image}");
        lab.run(&[
            &set,
            "INSERT INTO c (id, gone, t, u, i, z) VALUES (1, 2, 'a', 'b', 6, 'z'), (2, NULL, NULL, NULL, 7, 'y')",
            "UPDATE c SET gone = 3, z = NULL WHERE id = 1",
            "UPDATE c SET id = 9 WHERE id = 1",
            "DELETE FROM c WHERE id = 2",
            "UPDATE c SET id = 9 + id, t = CONCAT(t, 'x')",
        ])
        .await;
        let marker = lab.mark("end").await;
        let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
        told.iter().for_each(|transaction| replayed.apply(transaction));
        let truth = Model::read(&mut lab.conn().await, &tables).await;
        assert!(replayed.is_equal(&truth), "{image}: {replayed:?} {truth:?}");
        lab.run(&["DELETE FROM c"]).await;
    }
    lab.close().await;
}

#[tokio::test]
async fn a_column_that_an_update_does_not_log_is_absent() {
    let Some(lab) = Lab::open("absent").await else { return };
    lab.run(&["CREATE TABLE t (id INT PRIMARY KEY, a INT DEFAULT 7, b VARCHAR(10), c TEXT)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    lab.run(&[
        "INSERT INTO t (id) VALUES (1)",
        "SET SESSION binlog_row_image = MINIMAL",
        "UPDATE t SET b = NULL, c = NULL, a = 8 WHERE id = 1",
        "UPDATE t SET b = 'x' WHERE id = 1",
        "UPDATE t SET id = 2 WHERE id = 1",
    ])
    .await;
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    let changes: Vec<_> = told.into_iter().flat_map(|transaction| transaction.changes).collect();
    let (int, absent) = (Value::Int, Value::Absent);
    assert_eq!(changes[0].new, [int(1), int(7), Value::Null, Value::Null]);
    // b and c were NULL already: only what changes is logged
    assert_eq!(changes[1].new[..2], [int(1), int(8)]);
    assert_eq!(changes[2].new, [int(1), absent.clone(), Value::text("x"), absent.clone()]);
    assert_eq!((changes[2].old.clone(), changes[3].old.clone()), (None, Some(vec![int(1), absent.clone(), absent.clone(), absent])));
    lab.close().await;
}

/// The target's default may be another one.
#[tokio::test]
async fn an_inserted_row_of_which_a_column_is_not_logged_stops() {
    let Some(lab) = Lab::open("default").await else { return };
    lab.run(&["CREATE TABLE t (id INT PRIMARY KEY, a INT DEFAULT 7)", "CREATE TABLE b (id INT PRIMARY KEY, t TEXT)"]).await;
    let tables = [lab.table("t").await, lab.table("b").await];
    for (image, sql) in [("MINIMAL", "INSERT INTO t (id) VALUES (1)"), ("NOBLOB", "INSERT INTO b (id) VALUES (1)")] {
        let from = lab.here().await;
        lab.run(&[&format!("SET SESSION binlog_row_image = {image}"), sql]).await;
        let marker = lab.mark("end").await;
        let error = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.err().unwrap_or_else(|| panic!("{image}"));
        assert!(error.is(&codes::OUT_OF_SIGHT), "{image}: {error}");
    }
    lab.close().await;
}

#[tokio::test]
async fn a_row_of_which_nothing_is_logged_stops() {
    let Some(lab) = Lab::open("nothing").await else { return };
    lab.run(&["CREATE TABLE t (id INT DEFAULT 1, a INT DEFAULT 7)", "CREATE TABLE k (id INT DEFAULT 3 PRIMARY KEY, a INT)"]).await;
    let minimal = "SET SESSION binlog_row_image = MINIMAL";
    let (tables, from) = ([lab.table("t").await, lab.table("k").await], lab.here().await);
    // without a key the server logs all columns
    lab.run(&[minimal, "INSERT INTO t () VALUES (), ()"]).await;
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    assert_eq!(told[0].changes.len(), 2);
    lab.run(&[minimal, "INSERT INTO k () VALUES ()"]).await;
    let marker = lab.mark("later").await;
    let error = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.err().unwrap();
    assert!(error.is(&codes::LOG_UNDECODABLE), "{error}");
    lab.close().await;
}

#[tokio::test]
async fn tables_that_cannot_be_followed_are_refused() {
    let Some(lab) = Lab::open("refused").await else { return };
    lab.run(&[
        "CREATE TABLE my (id INT PRIMARY KEY) ENGINE = MyISAM",
        "CREATE TABLE sv (id INT PRIMARY KEY) WITH SYSTEM VERSIONING",
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE VIEW vw AS SELECT * FROM t",
    ])
    .await;
    let from = lab.here().await;
    for name in ["my", "sv", "vw"] {
        let error = Changes::open(&lab.endpoint, &lab.task.name, &from, &[lab.table(name).await]).await.err().unwrap();
        assert!(error.is(&codes::TASK_UNSUPPORTED), "{error}");
    }
    lab.close().await;
}

/// A stream of `described` under a log that has the table otherwise.
async fn refuses(lab: &Lab, described: Table) {
    let from = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (NULL, 1, 2, 'x', 'a') ON DUPLICATE KEY UPDATE b = b + 1"]).await;
    let marker = lab.mark("end").await;
    let what = format!("{:?}", described.columns);
    let error = Reader::new(lab.stream(&from, &[Arc::new(described)]).await).until(&marker).await.err();
    let error = error.unwrap_or_else(|| panic!("{what}"));
    assert!(error.is(&codes::DDL_STOPPED), "{error}");
}

#[tokio::test]
async fn a_description_that_the_log_denies_stops() {
    let Some(lab) = Lab::open("denied").await else { return };
    lab.run(&["CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b INT UNSIGNED, c VARCHAR(10), e ENUM('a', 'b'))"]).await;
    let table = lab.table("t").await;
    let with = |change: &dyn Fn(&mut Table)| {
        let mut table = (*table).clone();
        change(&mut table);
        table
    };
    let missing = with(&|table| drop(table.columns.pop()));
    let retyped = with(&|table| table.columns[1].type_name = "bigint(20)".into());
    let swapped = with(&|table| table.columns.swap(2, 3));
    for described in [missing, retyped, swapped] {
        refuses(&lab, described).await;
    }
    // only a log with names can tell these
    lab.run(&["SET GLOBAL binlog_row_metadata = FULL"]).await;
    let renamed = with(&|table| table.columns[1].name = "other".into());
    let signed = with(&|table| table.columns[2].type_name = "int(10)".into());
    let members = with(&|table| table.columns[4].type_name = table.columns[4].type_name.replace("'a','b'", "'b','a'"));
    for described in [renamed, signed, members] {
        refuses(&lab, described).await;
    }
    lab.close().await;
}

#[tokio::test]
async fn a_row_larger_than_the_servers_packets_arrives() {
    let Some(lab) = Lab::open("large").await else { return };
    lab.run(&["CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB, c LONGBLOB)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let rows = ["INSERT INTO t VALUES (1, REPEAT('x', 12000000), REPEAT('z', 9000000))", "UPDATE t SET b = REPEAT('y', 12000001)"];
    lab.run(&[rows[0], rows[1], "SET GLOBAL log_bin_compress = 1"]).await;
    lab.run(&["UPDATE t SET b = REPEAT('w', 12000002), id = 2", "SET GLOBAL log_bin_compress = 0"]).await;
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    let mut replayed = Model::new(&tables);
    told.iter().for_each(|transaction| replayed.apply(transaction));
    let mut conn = lab.endpoint.with_packets_of(1 << 30).connect(Purpose::Read).await.unwrap();
    assert!(replayed.is_equal(&Model::read(&mut conn, &tables).await));

    // behind such an event the server does not tell a place's GTIDs
    let founded = establish(&lab.endpoint, &lab.task, 1, None).await.unwrap();
    let end: String = conn.query_first("SELECT @@gtid_binlog_pos").await.unwrap().unwrap();
    assert_eq!(Place::parse(&founded.position).unwrap().gtids.to_string(), end);
    lab.run(&["FLUSH BINARY LOGS"]).await;
    lab.close().await;
}
