//! A log that is not what the server wrote, or not all of it.

use std::path::PathBuf;
use std::sync::Arc;

use godwit_model::{Error, Kind, Position, Table, codes};
use godwit_testkit::servers::{MySqlOptions, MySqlServer, MySqlVersion};
use mysql_async::prelude::Queryable;

use super::Lab;
use super::model::Reader;
use super::second_reader::newest_file;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)";

fn own_server() -> Option<MySqlServer> {
    MySqlServer::start(MySqlVersion::MariaDb10_11, &MySqlOptions::default())
}

async fn newest_path(lab: &Lab, server: &MySqlServer) -> PathBuf {
    server.data_dir().join(newest_file(lab).await)
}

#[tokio::test]
async fn an_event_that_is_damaged_in_the_servers_file_is_not_asked_for_for_ever() {
    let Some(server) = own_server() else { return };
    let lab = Lab::on(&server, "damaged").await;
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let path = newest_path(&lab, &server).await;
    lab.run(&["INSERT INTO t VALUES (1, 'whole')", "INSERT INTO t VALUES (2, REPEAT('w', 500))"]).await;
    let marker = lab.mark("end").await;
    lab.run(&["FLUSH BINARY LOGS"]).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(100).position(|bytes| bytes.iter().all(|byte| *byte == b'w')).unwrap();
    bytes[at] = b'v';
    std::fs::write(&path, bytes).unwrap();

    let damaged = async || -> Error {
        let mut reader = Reader::new(lab.stream(&from, &tables).await);
        assert_eq!(reader.transaction().await.unwrap().changes.len(), 1, "what lies before is delivered");
        reader.until(&marker).await.err().unwrap()
    };
    let error = damaged().await;
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.is(&codes::LOG_UNDECODABLE) && error.what().contains(&name), "{error}");
    // a server that looks at its checksums says so itself
    lab.conn().await.query_drop("SET GLOBAL master_verify_checksum = ON").await.unwrap();
    let error = damaged().await;
    assert!(error.is(&codes::LOG_UNDECODABLE), "{error}");
}

/// Kills the server, makes of its newest file what `tear` leaves of it, and starts it again.
async fn torn(lab: &Lab, server: &MySqlServer, tear: impl FnOnce(&mut Vec<u8>)) {
    let path = newest_path(lab, server).await;
    server.kill();
    let mut bytes = std::fs::read(&path).unwrap();
    tear(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    server.restart();
}

/// What a stream gives up to the tear, and then another one from where the first one was.
async fn passes(lab: &Lab, tables: &[Arc<Table>], from: &Position) {
    lab.run(&["INSERT INTO t VALUES (-1, 'behind')"]).await;
    let marker = lab.mark("end").await;
    let mut reader = Reader::new(lab.stream(from, tables).await);
    let last = reader.transaction().await.unwrap().position;
    let error = reader.transaction().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    let idle = reader.idle.expect("how far it came");
    assert_ne!(idle, last);
    let told = Reader::new(lab.stream(&idle, tables).await).until(&marker).await.unwrap();
    assert_eq!(told.len(), 2, "the row behind, and the marker");
}

#[tokio::test]
async fn a_stream_goes_on_behind_half_an_event_that_a_killed_server_left() {
    let Some(server) = own_server() else { return };
    let lab = Lab::on(&server, "half").await;
    lab.run(&[TABLE, "CREATE TABLE u (id INT)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (1, 'x')", "INSERT INTO u VALUES (1), (2)"]).await;
    torn(&lab, &server, |bytes| {
        let half = bytes[bytes.len() - 31..bytes.len() - 5].to_vec();
        bytes.extend(half);
    })
    .await;
    passes(&lab, &tables, &from).await;
}

#[tokio::test]
async fn a_stream_goes_on_behind_a_large_transaction_that_a_killed_server_left() {
    let Some(server) = own_server() else { return };
    let lab = Lab::on(&server, "large_half").await;
    lab.run(&[TABLE, "CREATE TABLE u (id INT)"]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    lab.run(&["INSERT INTO t VALUES (1, 'x')", "INSERT INTO u VALUES (1), (2)"]).await;
    let whole = std::fs::metadata(newest_path(&lab, &server).await).unwrap().len();
    lab.run(&["INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_10_to_5000"]).await;
    torn(&lab, &server, |bytes| bytes.truncate(usize::try_from(whole).unwrap() + 3_000_000)).await;
    passes(&lab, &tables, &from).await;
}
