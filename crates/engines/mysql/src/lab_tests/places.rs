//! Positions that serve, and those that do not.

use godwit_model::{LoadBlock, Position, ReadSpec, Snapshot as _, TableMapping, codes};
use godwit_testkit::servers::{MySqlOptions, MySqlServer, MySqlVersion};
use mysql_async::prelude::Queryable;

use super::model::Reader;
use super::{Lab, endpoint, soon};
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
    purge(&lab).await;
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

/// All files but the last.
async fn purge(lab: &Lab) {
    let mut conn = lab.conn().await;
    let files: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
    let last: String = files.last().unwrap().get(0).unwrap();
    // a file goes only when it is no longer needed for recovery
    for _ in 0..100 {
        conn.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.unwrap();
        let left: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
        if left.len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
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
    let here = Place::parse(&here).unwrap();
    let mut idle = reader.until_idle().await;
    while Place::parse(&idle).unwrap().gtids != here.gtids {
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

/// What a stream of `t` tells up to a marker, and where it stands behind each transaction.
async fn passed(lab: &Lab, from: &Position) -> Vec<Position> {
    let tables = [lab.table("t").await];
    let marker = lab.mark("passed").await;
    let told = Reader::new(lab.stream(from, &tables).await).until(&marker).await.unwrap();
    told.into_iter().map(|transaction| transaction.position).collect()
}

async fn is_refused(lab: &Lab, position: &Position) {
    let tables = [lab.table("t").await];
    let error = establish(&lab.endpoint, &lab.task, 1, Some(position)).await.err().unwrap_or_else(|| panic!("{position}"));
    assert!(error.is(&codes::SOURCE_CHANGED), "{position}: {error}");
    let error = Changes::open(&lab.endpoint, &lab.task.name, position, &tables).await.err().unwrap_or_else(|| panic!("{position}"));
    assert!(error.is(&codes::SOURCE_CHANGED), "{position}: {error}");
}

/// The log begins anew and comes farther than before, within the same second: only the transactions are others.
#[tokio::test]
async fn a_log_that_was_begun_anew_is_another_one() {
    let Some(lab) = Lab::open("anew").await else { return };
    lab.run(&[TABLE]).await;
    lab.run(&["RESET MASTER"]).await;
    let from = lab.here().await;
    let at = "SET SESSION timestamp = 1000000000";
    lab.run(&[
        at,
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t VALUES (2, 'a')",
        "SET SESSION gtid_domain_id = 7",
        "INSERT INTO t VALUES (3, 'a')",
    ])
    .await;
    let positions = passed(&lab, &from).await;
    for position in &positions {
        let known = establish(&lab.endpoint, &lab.task, 1, Some(position)).await.unwrap();
        assert_eq!(known.position, *position);
    }
    lab.run(&["RESET MASTER", at]).await;
    let mut again = vec![at.to_owned()];
    again.extend((10..20).map(|id| format!("INSERT INTO t VALUES ({id}, 'b')")));
    again.push("SET SESSION gtid_domain_id = 7".to_owned());
    again.extend((20..30).map(|id| format!("INSERT INTO t VALUES ({id}, 'b')")));
    lab.run(&again.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for position in &positions {
        is_refused(&lab, position).await;
    }
    // what says nothing of its last transaction is taken as it is
    let place = Place { last: None, ..Place::parse(&positions[0]).unwrap() };
    assert!(establish(&lab.endpoint, &lab.task, 1, Some(&place.position())).await.is_ok());
    lab.close().await;
}

/// The position serves although the file of its last transaction is gone: that of the next ones is there.
#[tokio::test]
async fn a_position_serves_when_its_last_transaction_was_purged() {
    let Some(lab) = Lab::open("gone").await else { return };
    lab.run(&[TABLE]).await;
    let from = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (1, 'a')"]).await;
    let position = passed(&lab, &from).await.pop().unwrap();
    lab.run(&["FLUSH BINARY LOGS"]).await;
    purge(&lab).await;
    lab.run(&["INSERT INTO t VALUES (2, 'b')"]).await;
    assert_eq!(passed(&lab, &position).await.len(), 2);
    lab.close().await;
}

/// Its log has other bytes, other places and other times of commit.
#[tokio::test]
async fn a_promoted_replica_is_the_same_store() {
    let options = MySqlOptions::default().with_setting("log-slave-updates", "ON");
    let Some(first) = MySqlServer::start(MySqlVersion::MariaDb10_11, &options) else { return };
    let Some(replica) = MySqlServer::start(MySqlVersion::MariaDb11_8, &options) else { return };
    let master =
        format!("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root', MASTER_SSL = 0", first.port());
    replica.run("", &format!("{master}, MASTER_USE_GTID = slave_pos; START SLAVE"));
    let here = endpoint;
    let mut lab = Lab::at(here(first.port()), "promoted").await;
    lab.run(&[TABLE]).await;
    let from = lab.here().await;
    let at = |second: u32| format!("SET SESSION timestamp = {}", 1_000_000_000 + second);
    lab.run(&[&at(0), "BEGIN", "INSERT INTO t VALUES (1, 'a')", &at(5), "UPDATE t SET v = 'b'", &at(9), "COMMIT", &at(11), "TRUNCATE t"])
        .await;
    let positions = passed(&lab, &from).await;
    let end: String = lab.conn().await.query_first("SELECT @@gtid_binlog_pos").await.unwrap().unwrap();
    let waited = replica.query("", &format!("SELECT MASTER_GTID_WAIT('{end}', 60)"));
    assert_eq!(waited, [[Some("0".to_owned())]]);
    replica.run("", "STOP SLAVE; RESET SLAVE ALL");
    lab.endpoint = here(replica.port());
    let mut left = positions.len();
    for position in &positions {
        let known = establish(&lab.endpoint, &lab.task, 1, Some(position)).await.unwrap();
        assert_eq!(known.position, *position);
        left -= 1;
        assert_eq!(passed(&lab, position).await.len(), left.max(1), "{position}");
    }
    // another one under the same number: the time tells
    let other = positions[0].to_string().replace(":1000000000:", ":1000000001:");
    is_refused(&lab, &Position::from(other)).await;
}

/// A crash of the machine costs the log its end, here the last event of the last transaction; its number is given again.
#[tokio::test]
async fn a_transaction_that_lost_its_end_was_not_read() {
    let Some(server) = MySqlServer::start(MySqlVersion::MariaDb10_11, &MySqlOptions::default()) else { return };
    let lab = Lab::at(endpoint(server.port()), "torn").await;
    lab.run(&[TABLE]).await;
    let from = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (1, 'a')"]).await;
    let positions = passed(&lab, &from).await;
    server.kill();
    let newest = std::fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.to_string_lossy().contains("/bin.0")).max().unwrap();
    let log = std::fs::OpenOptions::new().write(true).open(newest).unwrap();
    let (head, number, checksum) = (19, 8, 4);
    log.set_len(log.metadata().unwrap().len() - (head + number + checksum)).unwrap();
    server.restart();
    lab.run(&["INSERT INTO t VALUES (2, 'b')"]).await;
    is_refused(&lab, &positions[1]).await;
    let tables = [lab.table("t").await];
    let marker = lab.mark("behind").await;
    let told = Reader::new(lab.stream(&positions[0], &tables).await).until(&marker).await.unwrap();
    assert_eq!(told.iter().map(|transaction| transaction.changes.len()).collect::<Vec<_>>(), [1, 0]);
}
