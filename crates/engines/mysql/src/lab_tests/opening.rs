//! What a stream and a look do where a server does not answer, or does not show yet what it has sent.

use std::time::Duration;

use godwit_model::{Kind, Position, codes};
use godwit_testkit::network::{Direction, Proxy, Which};
use mysql_async::prelude::Queryable;

use super::model::Reader;
use super::{Lab, SERVER, endpoint, soon};
use crate::changes::Changes;
use crate::establish::{establish, look};
use crate::position::Place;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))";
/// For what must not come.
const A_WHILE: Duration = Duration::from_millis(400);

/// Somebody in between forgets a connection after so many of the server's bytes. Whether the stream is open by then.
async fn opens_through(bytes: u64, lab: &Lab, from: &Position, tables: &[std::sync::Arc<godwit_model::Table>]) -> bool {
    let proxy = Proxy::before(SERVER.as_ref().unwrap().port());
    let endpoint = endpoint(proxy.port());
    proxy.swallow_after(bytes, Direction::ToClient, Which::All);
    let opening = Changes::open(&endpoint, &lab.task.name, from, tables);
    tokio::pin!(opening);
    while proxy.cuts() == 0 {
        tokio::select! {
            opened = &mut opening => {
                drop(opened.unwrap());
                return true;
            }
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    // nobody will answer: only the clock goes on
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = tokio::time::timeout(Duration::from_secs(600), opening).await.expect("it has a limit").err();
    let took = began.elapsed();
    tokio::time::resume();
    let Some(error) = error else { return true };
    assert_eq!(error.kind(), Kind::Transient, "after {bytes} bytes: {error}");
    assert!(took < Duration::from_secs(200), "after {bytes} bytes: {took:?}");
    false
}

#[tokio::test]
async fn an_opening_that_is_never_answered_is_a_lost_connection() {
    let Some(lab) = Lab::open("unanswered").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let mut times = 0;
    while !opens_through(1 + times * 60, &lab, &from, &tables).await {
        times += 1;
    }
    assert!(times > 10, "{times}");
    lab.close().await;
}

#[tokio::test]
async fn a_look_shows_all_that_a_stream_has_given() {
    let Some(lab) = Lab::open("shown").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let mut reader = Reader::new(lab.stream(&lab.here().await, &tables).await);
    // a commit is in the log and waits for a replica that never comes
    lab.run(&[
        "SET GLOBAL rpl_semi_sync_master_timeout = 20000",
        "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC",
        "SET GLOBAL rpl_semi_sync_master_enabled = ON",
    ])
    .await;
    let mut conn = lab.conn().await;
    let writing = tokio::spawn(async move { conn.query_drop("INSERT INTO t VALUES (1, 'x')").await });
    let given = reader.transaction().await.unwrap().position;
    let looking = look(&lab.endpoint);
    tokio::pin!(looking);
    let early = tokio::time::timeout(A_WHILE, &mut looking).await;
    assert!(early.is_err(), "its row does not show yet");
    lab.run(&["SET GLOBAL rpl_semi_sync_master_enabled = OFF"]).await;
    soon(writing).await.unwrap().unwrap();
    let mut seen = soon(looking).await.unwrap().unwrap();
    assert!(Place::parse(&seen.position).unwrap().shows(&Place::parse(&given).unwrap()));
    let rows: Option<u64> = seen.conn.query_first(format!("SELECT COUNT(*) FROM {}.t", lab.database)).await.unwrap();
    assert_eq!(rows, Some(1));
    drop(seen);
    lab.close().await;
}

/// An XA transaction that is prepared, the end of the log before and behind that, and what was found from each of them.
struct Across {
    lab: Lab,
    name: String,
    before: Position,
    behind: Position,
}

impl Across {
    async fn open(name: &str) -> Option<Self> {
        let lab = Lab::open(name).await?;
        lab.run(&[TABLE]).await;
        let name = lab.database.clone();
        let before = end(&lab).await;
        lab.run(&[
            &format!("XA START '{name}'"),
            "INSERT INTO t VALUES (1, 'x')",
            &format!("XA END '{name}'"),
            &format!("XA PREPARE '{name}'"),
        ])
        .await;
        let behind = end(&lab).await;
        Some(Across { lab, name, before, behind })
    }
}

/// As a person asks for it.
async fn end(lab: &Lab) -> Position {
    let end: String = lab.conn().await.query_first("SELECT @@gtid_binlog_pos").await.unwrap().unwrap();
    Position::from(end)
}

async fn begins(lab: &Lab, from: &Position) -> godwit_model::Result<()> {
    let task = godwit_model::Task { from: Some(from.clone()), ..lab.task.clone() };
    establish(&lab.endpoint, &task, 1, Some(from)).await.map(|_| ())
}

#[tokio::test]
async fn a_persons_position_that_an_xa_transaction_lies_across_is_refused() {
    let Some(Across { lab, name, before, behind }) = Across::open("xa_across").await else { return };
    let beginning = begins(&lab, &behind);
    tokio::pin!(beginning);
    assert!(tokio::time::timeout(A_WHILE, &mut beginning).await.is_err(), "how it ends is not known");
    lab.run(&[&format!("XA COMMIT '{name}'")]).await;
    let error = soon(beginning).await.unwrap_err();
    assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
    // long after it, too
    lab.run(&["INSERT INTO t VALUES (2, 'y')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'z')"]).await;
    let error = begins(&lab, &behind).await.unwrap_err();
    assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
    begins(&lab, &before).await.unwrap();
    begins(&lab, &end(&lab).await).await.unwrap();
    // what a stream gave follows a P0 that none lies across: it may lie between the halves of one on other tables
    establish(&lab.endpoint, &lab.task, 1, Some(&behind)).await.unwrap();
    lab.close().await;
}

#[tokio::test]
async fn an_xa_transaction_that_is_rolled_back_lies_across_nothing() {
    let Some(Across { lab, name, before, behind }) = Across::open("xa_undone").await else { return };
    lab.run(&[&format!("XA ROLLBACK '{name}'"), "INSERT INTO t VALUES (2, 'y')"]).await;
    begins(&lab, &behind).await.unwrap();
    begins(&lab, &before).await.unwrap();
    lab.close().await;
}

async fn senders(lab: &Lab) -> Vec<u64> {
    lab.conn().await.query("SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump' ORDER BY ID").await.unwrap()
}

#[tokio::test]
async fn tables_that_are_opened_again_and_again_take_no_memory() {
    let Some(lab) = Lab::open("reopened").await else { return };
    lab.run(&[TABLE]).await;
    let tables = [lab.table("t").await];
    let from = lab.here().await;
    let mut stream = lab.stream(&from, &tables).await;
    stream.most_remembered = 10_000;
    let mut reader = Reader::new(stream);
    let first = senders(&lab).await;
    for id in 0..100 {
        // gives the table another number in the log
        lab.run(&["FLUSH TABLES", &format!("INSERT INTO t VALUES ({id}, 'x')")]).await;
    }
    let marker = lab.mark("end").await;
    let told = reader.until(&marker).await.unwrap();
    assert_eq!(told.len(), 101);
    assert!(senders(&lab).await.iter().any(|sender| !first.contains(sender)), "it is another stream by now");
    let whole = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    assert!(told == whole, "the same as without a new stream");
    lab.close().await;
}
