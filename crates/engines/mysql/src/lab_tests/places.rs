//! Positions that serve, and those that do not.

use godwit_model::{LoadBlock, Position, ReadSpec, Snapshot as _, TableMapping, codes};
use mysql_async::prelude::Queryable;

use super::model::Reader;
use super::{Lab, soon};
use crate::changes::Changes;
use crate::establish::establish;
use crate::position::Place;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))";

#[tokio::test]
async fn a_position_that_was_purged_is_lost() {
    let Some(lab) = Lab::open("purged").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let old = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (1, 'a')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS"]).await;
    let new = lab.here().await;
    let mut conn = lab.conn().await;
    let files: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
    let last: String = files.last().unwrap().get(0).unwrap();
    // the file goes only when it is no longer needed for recovery
    for _ in 0..100 {
        conn.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.unwrap();
        let left: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
        if left.len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let error = establish(&lab.endpoint, &lab.task, 1, Some(&old)).await.err().unwrap();
    assert!(error.is(&codes::POSITION_LOST), "{error}");
    let error = Changes::open(&lab.endpoint, &lab.task.name, &old, &tables).await.err().unwrap();
    assert!(error.is(&codes::POSITION_LOST), "{error}");
    let none = Position::from("none".to_owned());
    assert!(establish(&lab.endpoint, &lab.task, 1, Some(&none)).await.err().unwrap().is(&codes::POSITION_LOST));
    let kept = establish(&lab.endpoint, &lab.task, 1, Some(&new)).await.unwrap();
    assert!(kept.snapshot.is_none() && kept.position == new);
    lab.close().await;
}

#[tokio::test]
async fn a_position_of_another_store_is_refused() {
    let Some(lab) = Lab::open("elsewhere").await else { return };
    lab.run(&[TABLE]).await;
    let place = Place::parse(&lab.here().await).unwrap();
    let refused = async |text: String| {
        let error =
            establish(&lab.endpoint, &lab.task, 1, Some(&Position::from(text.clone()))).await.err().unwrap_or_else(|| panic!("{text}"));
        assert!(error.is(&codes::SOURCE_CHANGED), "{text}: {error}");
    };
    let store = place.store.clone().unwrap();
    let last = *place.gtids.last(0).unwrap();
    refused(format!("0-{}-{}@{store}", last.server, last.sequence + 1_000_000)).await;
    refused(format!("0-{}-{}@0123456789abcdef", last.server, last.sequence)).await;
    refused(format!("0-{}-{}@{store}", last.server + 1, last.sequence)).await;
    refused(format!("{},7-1-1@{store}", place.gtids)).await;
    refused("bin.000001:4".to_owned()).await;
    // a standby that lagged was promoted: it never had the position, and its own numbers are higher by now
    let (next, promoted) = (last.sequence + 1000, last.server + 7);
    lab.run(&[&format!("SET SESSION server_id = {promoted}, SESSION gtid_seq_no = {next}"), "INSERT INTO t VALUES (1, 'x')"]).await;
    refused(format!("0-{}-{}@{store}", last.server, last.sequence + 500)).await;
    let place = Place::parse(&lab.here().await).unwrap();
    // as a person writes it: the store's mark comes to it
    let known = establish(&lab.endpoint, &lab.task, 1, Some(&Position::from(place.gtids.to_string()))).await.unwrap();
    assert_eq!(known.position, place.position());
    lab.close().await;
}

#[tokio::test]
async fn a_source_that_has_nothing_of_godwits_any_more_lost_the_position() {
    let Some(lab) = Lab::open("removed").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    for removed in ["DROP TABLE godwit.marker", "DROP DATABASE godwit", "DELETE FROM godwit.marker"] {
        let position = lab.here().await;
        lab.run(&[removed]).await;
        let error = establish(&lab.endpoint, &lab.task, 1, Some(&position)).await.err().unwrap();
        assert!(error.is(&codes::POSITION_LOST), "{removed}: {error}");
        let error = Changes::open(&lab.endpoint, &lab.task.name, &position, &tables).await.err().unwrap();
        assert!(error.is(&codes::POSITION_LOST), "{removed}: {error}");
    }
    lab.close().await;
}

#[tokio::test]
async fn a_stream_of_nothing_tells_how_far_it_is() {
    let Some(lab) = Lab::open("idle").await else { return };
    lab.run(&[TABLE, "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let mut reader = Reader::new(lab.stream(&from, &tables).await);
    lab.run(&["INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "CREATE TABLE w (a INT)"]).await;
    let here = lab.here().await;
    let mut idle = reader.until_idle().await;
    while idle != here {
        idle = reader.until_idle().await;
    }
    let marker = lab.mark("end").await;
    assert_eq!(reader.until(&marker).await.unwrap().len(), 1);
    // and what comes behind an idle position is all there is behind it
    let told = Reader::new(lab.stream(&idle, &tables).await).until(&marker).await.unwrap();
    assert_eq!(told.len(), 1);
    lab.close().await;
}

#[tokio::test]
async fn markers_are_found_and_others_are_not() {
    let Some(mut lab) = Lab::open("markers").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    lab.run(&["SET GLOBAL binlog_row_image = MINIMAL"]).await;
    let (mine, first) = (lab.task.clone(), lab.mark("same").await);
    lab.task = godwit_testkit::task::task("another");
    let foreign = lab.mark("same").await;
    assert_eq!(first, foreign);
    lab.task = mine;
    lab.mark("same").await;
    let end = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&end).await.unwrap();
    let markers: Vec<&str> = told.iter().flat_map(|told| &told.markers).map(|marker| marker.0.as_str()).collect();
    assert_eq!(markers, ["same", "same", "end"], "one of the same name comes again, another task's does not");
    lab.close().await;
}

#[tokio::test]
async fn p0_waits_for_a_prepared_xa_transaction() {
    let Some(lab) = Lab::open("xa_open").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let name = lab.database.clone();
    lab.run(&[
        &format!("XA START '{name}'"),
        "INSERT INTO t VALUES (1, 'x')",
        &format!("XA END '{name}'"),
        &format!("XA PREPARE '{name}'"),
    ])
    .await;
    let found = establish(&lab.endpoint, &lab.task, 1, None);
    tokio::pin!(found);
    let early = tokio::time::timeout(std::time::Duration::from_millis(400), &mut found).await;
    assert!(early.is_err(), "it is still prepared");
    lab.run(&[&format!("XA COMMIT '{name}'")]).await;
    let founded = soon(found).await.unwrap();
    let snapshot = founded.snapshot.unwrap();
    let mapping = TableMapping::resolve(&[], &tables[0]).unwrap();
    let mut rows = 0;
    for chunk in snapshot.plan(&tables[0], 1 << 30).await.unwrap() {
        let spec = ReadSpec { mapping: &mapping, chunk: &chunk, native: false, block_bytes: 1 << 20 };
        let mut reader = snapshot.read(&spec).await.unwrap();
        while let Some(LoadBlock::Rows(batch)) = reader.next().await.unwrap() {
            rows += batch.len();
        }
    }
    assert_eq!(rows, 1, "its row is in the snapshot");
    lab.close().await;
}
