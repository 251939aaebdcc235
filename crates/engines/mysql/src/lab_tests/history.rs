//! Random histories: what the stream tells, replayed strictly, is what the tables hold.

use std::sync::Arc;

use godwit_model::{Kind, Marker, Table};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::model::{Model, Reader, Transaction};
use super::{Lab, second_reader};
use crate::establish::look;
use crate::position::Place;

const TABLES: [&str; 4] = [
    "CREATE TABLE one (id INT PRIMARY KEY, n BIGINT, t LONGTEXT, s VARCHAR(300) CHARACTER SET latin1)",
    "CREATE TABLE two (k1 SMALLINT UNSIGNED, k2 VARCHAR(40) COLLATE utf8mb4_bin, a DECIMAL(12,3), b BLOB, d DATETIME(3), PRIMARY KEY (k2, k1))",
    "CREATE TABLE heap (a INT, b VARCHAR(20), c DOUBLE, e ENUM('x','y'))",
    "CREATE TABLE other (a INT PRIMARY KEY, t TEXT)",
];

async fn world(lab: &Lab) -> Vec<Arc<Table>> {
    lab.run(&TABLES).await;
    vec![lab.table("one").await, lab.table("two").await, lab.table("heap").await]
}

fn long(random: &mut fastrand::Rng) -> String {
    let length = if random.u8(..10) == 0 { random.usize(200..3000) } else { random.usize(0..20) };
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

fn statement(random: &mut fastrand::Rng) -> String {
    let (id, other, text) = (random.i32(0..60), random.i32(0..60), long(random));
    let short = &text[..text.len().min(20)];
    match random.u8(..17) {
        0..=2 => format!("INSERT INTO one (id, n, t, s) VALUES ({id}, {other}, '{text}', NULL)"),
        3 => format!("INSERT INTO one (id, n, t, s) VALUES ({id}, NULL, NULL, 'ü{short}') ON DUPLICATE KEY UPDATE n = {other}, s = 'é'"),
        4 => format!("REPLACE INTO one (id, n, t, s) VALUES ({id}, {other}, '{text}', '')"),
        5 => format!("UPDATE one SET n = {other} WHERE id BETWEEN {id} AND {id} + 5"),
        6 => format!("UPDATE one SET t = '{text}' WHERE id = {id}"),
        7 => format!("UPDATE IGNORE one SET id = {other}, s = NULL WHERE id = {id}"),
        8 => format!("DELETE FROM one WHERE id = {id}"),
        9 | 10 => format!("INSERT INTO two (k1, k2, a, b, d) VALUES ({id}, 'K{other}', {other}.125, '{text}', '2024-02-29 12:00:00.5')"),
        11 => format!("UPDATE IGNORE two SET k2 = UPPER(k2), k1 = k1 + 1, a = -a WHERE k1 = {id}"),
        12 => format!("UPDATE two SET b = NULL, d = NULL WHERE k1 < {id} LIMIT 3"),
        13 => format!("DELETE FROM two WHERE k1 = {id}"),
        14 => format!(
            "INSERT INTO heap (a, b, c, e) VALUES ({id}, '{short}', 0.5, 'y'), ({id}, '{short}', 0.5, 'y'), (NULL, NULL, NULL, NULL)"
        ),
        15 => format!("UPDATE heap SET c = c + 1, b = NULL WHERE a = {id}"),
        _ => format!("DELETE FROM heap WHERE a < {id} LIMIT 2"),
    }
}

/// One session's work. Errors of users (a key is there, a deadlock) are a part of it.
async fn work(mut conn: Conn, seed: u64, transactions: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..transactions {
        let image = ["FULL", "MINIMAL", "NOBLOB"][random.usize(..3)];
        conn.query_drop(format!("SET SESSION binlog_row_image = {image}")).await.unwrap();
        conn.query_drop("BEGIN").await.unwrap();
        for step in 0..random.usize(1..8) {
            let sql = match random.u8(..10) {
                0 => format!("SAVEPOINT s{}", step % 3),
                1 => format!("ROLLBACK TO s{}", random.u8(..3)),
                2 => format!("INSERT INTO other VALUES ({}, 'x') ON DUPLICATE KEY UPDATE t = CONCAT(t, 'y')", random.u8(..)),
                _ => statement(&mut random),
            };
            let _ = conn.query_drop(sql).await;
        }
        conn.query_drop(if random.u8(..5) == 0 { "ROLLBACK" } else { "COMMIT" }).await.unwrap();
        match random.u8(..60) {
            0 => conn.query_drop("FLUSH BINARY LOGS").await.unwrap(),
            1 => conn.query_drop(format!("SET GLOBAL log_bin_compress = {}", random.u8(..2))).await.unwrap(),
            2 => conn
                .query_drop(format!("SET GLOBAL binlog_row_metadata = {}", ["NO_LOG", "MINIMAL", "FULL"][random.usize(..3)]))
                .await
                .unwrap(),
            _ => {}
        }
    }
}

async fn all_at_work(lab: &Lab, seed: u64, sessions: u64, transactions: usize) {
    let mut working = tokio::task::JoinSet::new();
    for session in 0..sessions {
        let conn = lab.conn().await;
        working.spawn(work(conn, seed ^ session << 32, transactions));
    }
    while let Some(done) = working.join_next().await {
        done.unwrap();
    }
}

const LARGE: &str = "INSERT INTO one (id, n, t, s) SELECT 1000 + CAST(seq AS SIGNED), seq, REPEAT('l', 3000), 's' FROM seq_1_to_2000";

#[tokio::test]
async fn a_history_replayed_is_what_the_tables_hold() {
    let Some(lab) = Lab::open("history").await else { return };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let tables = world(&lab).await;
    lab.run(&["FLUSH BINARY LOGS"]).await;
    let first_file = second_reader::newest_file(&lab).await;
    let from = lab.here().await;
    all_at_work(&lab, seed, 4, 250).await;
    lab.run(&[
        "BEGIN",
        LARGE,
        "COMMIT",
        LARGE.replace("1000 +", "-10000 +").as_str(),
        "DELETE FROM one WHERE id > 1000 AND id % 2",
        "TRUNCATE heap",
    ])
    .await;
    all_at_work(&lab, seed + 1, 2, 50).await;
    let marker = lab.mark("end").await;

    let mut reader = Reader::new(lab.stream(&from, &tables).await);
    reader.impatient = true;
    let told = reader.until(&marker).await.unwrap();
    let mut replayed = Model::new(&tables);
    told.iter().for_each(|transaction| replayed.apply(transaction));
    let truth = Model::read(&mut lab.conn().await, &tables).await;
    assert!(replayed.is_equal(&truth), "seed {seed}");
    assert!(told.iter().any(|transaction| transaction.pieces > 3), "a large transaction comes in pieces");
    assert!(told.len() > 500, "{}", told.len());

    second_reader::agrees(&lab, &first_file, &tables, &told).await;
    the_rest_from_anywhere(&lab, &tables, &told, &marker).await;
    lab.close().await;
}

async fn the_rest_from_anywhere(lab: &Lab, tables: &[Arc<Table>], told: &[Transaction], marker: &Marker) {
    for at in (0..told.len() - 1).step_by(told.len() / 12) {
        let mut reader = Reader::new(lab.stream(&told[at].position, tables).await);
        let rest = reader.until(marker).await.unwrap();
        assert!(rest == told[at + 1..], "from {}", told[at].position);
    }
}

#[tokio::test]
async fn a_stream_that_was_cut_goes_on_where_it_was() {
    let Some(lab) = Lab::open("cut").await else { return };
    let tables = world(&lab).await;
    let from = lab.here().await;
    let (mut told, mut cuts): (Vec<Transaction>, usize) = (Vec::new(), 0);
    let mut marker = None;
    let writers = async {
        all_at_work(&lab, fastrand::u64(..), 2, 250).await;
        lab.mark("end").await
    };
    tokio::pin!(writers);
    // the stream may tell of the marker before the session that placed it has its answer
    let is_whole = |told: &[Transaction], marker: &Option<Marker>| {
        marker.as_ref().is_some_and(|marker| told.last().is_some_and(|last| last.markers.contains(marker)))
    };
    while !is_whole(&told, &marker) {
        let at = told.last().map_or(&from, |last| &last.position).clone();
        let mut reader = Reader::new(lab.stream(&at, &tables).await);
        let mut until_cut = fastrand::usize(1..80);
        while !is_whole(&told, &marker) {
            let next = tokio::select! {
                next = reader.transaction() => next,
                made = &mut writers, if marker.is_none() => { marker = Some(made); continue }
            };
            match next {
                Ok(transaction) => told.push(transaction),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Transient, "{error}");
                    cuts += 1;
                    break;
                }
            }
            until_cut = until_cut.saturating_sub(1);
            if until_cut == 0 {
                cut(&lab).await;
                until_cut = usize::MAX;
            }
        }
    }
    assert!(cuts > 3, "{cuts}");
    let mut replayed = Model::new(&tables);
    told.iter().for_each(|transaction| replayed.apply(transaction));
    assert!(replayed.is_equal(&Model::read(&mut lab.conn().await, &tables).await));
    let whole = Reader::new(lab.stream(&from, &tables).await).until(&marker.unwrap()).await.unwrap();
    assert!(whole == told, "the same as without a cut");
    lab.close().await;
}

/// Kills the threads that send the log.
async fn cut(lab: &Lab) {
    let mut conn = lab.conn().await;
    let threads: Vec<u64> = conn.query("SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'").await.unwrap();
    for thread in threads {
        let _ = conn.query_drop(format!("KILL {thread}")).await;
    }
}

#[tokio::test]
async fn a_snapshot_and_the_stream_behind_it_are_the_final_state() {
    let Some(lab) = Lab::open("snapshots").await else { return };
    let tables = world(&lab).await;
    let mut taken: Vec<(Place, Model)> = Vec::new();
    let seed = fastrand::u64(..);
    let mut working = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for session in 0..3u64 {
        let conn = lab.conn().await;
        let stopped = stopped.clone();
        working.spawn(async move {
            let mut conn = Some(conn);
            let mut random = fastrand::Rng::with_seed(seed + session);
            while !*stopped.borrow() {
                let mut mine = conn.take().unwrap();
                mine.query_drop("SET autocommit = 1").await.unwrap();
                for _ in 0..20 {
                    mine.query_drop("BEGIN").await.unwrap();
                    for _ in 0..random.usize(1..4) {
                        let _ = mine.query_drop(statement(&mut random)).await;
                    }
                    mine.query_drop("COMMIT").await.unwrap();
                }
                conn = Some(mine);
            }
        });
    }
    for _ in 0..100 {
        let mut seen = look(&lab.endpoint).await.unwrap().unwrap();
        let model = Model::read(&mut seen.conn, &tables).await;
        taken.push((Place::parse(&seen.position).unwrap(), model));
    }
    stop.send(true).unwrap();
    while let Some(done) = working.join_next().await {
        done.unwrap();
    }
    let marker = lab.mark("end").await;
    let truth = Model::read(&mut lab.conn().await, &tables).await;
    let told = Reader::new(lab.stream(&taken[0].0.position(), &tables).await).until(&marker).await.unwrap();
    let mut moved = 0;
    for (place, mut model) in taken {
        let behind = |transaction: &&Transaction| Place::parse(&transaction.position).unwrap().gtids.ahead_of(&place.gtids).is_some();
        let rest: Vec<&Transaction> = told.iter().filter(behind).collect();
        moved += usize::from(rest.len() > 10);
        rest.into_iter().for_each(|transaction| model.apply(transaction));
        assert!(model.is_equal(&truth), "from {place}");
    }
    assert!(moved > 90, "users were at work: {moved}");
    lab.close().await;
}
