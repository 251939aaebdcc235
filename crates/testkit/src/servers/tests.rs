use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::processes::ServerProcesses;
use super::{Postgres, PostgresOptions, shared, simple_query, tool};

/// Set for the copy of this test program that is going to be killed.
const VICTIM: &str = "GODWIT_TESTKIT_VICTIM";

fn start(major: u16) -> Option<Postgres> {
    Postgres::start(major, &PostgresOptions::default())
}

fn takes_connections(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn processes_of(server: &Postgres) -> ServerProcesses {
    named_like(server.data_dir().parent().unwrap())
}

fn named_like(folder: &Path) -> ServerProcesses {
    ServerProcesses::named(folder.file_name().unwrap().to_str().unwrap())
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in 20 seconds: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Its own version, logical decoding and prepared transactions, by a statement that fails where they are missing.
fn assert_suits_migration(server: &Postgres) {
    let statement = format!(
        "DO $$ BEGIN ASSERT current_setting('server_version_num')::int / 10000 = {}; \
         ASSERT current_setting('wal_level') = 'logical'; ASSERT current_setting('max_prepared_transactions') = '10'; \
         ASSERT current_setting('server_encoding') = 'UTF8'; END $$",
        server.major()
    );
    simple_query::run(server.port(), &statement).unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('s', 'pgoutput'), pg_drop_replication_slot('s')";
    simple_query::run(server.port(), slot).unwrap();
}

#[test]
fn every_version_starts_and_suits_migration() {
    for major in [14, 15, 16, 17, 18] {
        let Some(server) = start(major) else { continue };
        assert_suits_migration(&server);
    }
}

#[test]
fn a_server_and_its_data_go_with_the_value() {
    let Some(server) = start(18) else { return };
    let (port, data, processes) = (server.port(), server.data_dir(), processes_of(&server));
    assert!(takes_connections(port));
    assert!(processes.list().len() > 3);

    drop(server);

    assert!(!takes_connections(port));
    assert!(!data.exists());
    assert_eq!(processes.list(), []);
}

#[test]
fn restart_keeps_port_and_data() {
    for major in [15, 18] {
        let Some(server) = start(major) else { continue };
        let port = server.port();
        server.create_database("kept");

        server.restart();

        assert_eq!(server.port(), port);
        assert_eq!(simple_query::run(port, "CREATE DATABASE kept").unwrap_err(), "database \"kept\" already exists");
    }
}

#[test]
fn a_killed_server_leaves_no_process_and_recovers() {
    for major in [15, 18] {
        let Some(server) = Postgres::start(major, &PostgresOptions::default().with_fsync()) else { continue };
        simple_query::run(server.port(), "CREATE TABLE kept AS SELECT 1").unwrap();

        server.kill9();
        assert!(!takes_connections(server.port()));
        assert_eq!(processes_of(&server).list(), []);

        server.restart();
        simple_query::run(server.port(), "SELECT * FROM kept").unwrap();
        assert!(server.log().contains("was not properly shut down"));
    }
}

#[test]
fn a_paused_server_answers_after_resume_only() {
    let Some(server) = start(18) else { return };
    server.pause();
    let port = server.port();
    let answer = thread::spawn(move || simple_query::run(port, "SELECT 1"));
    thread::sleep(Duration::from_millis(300));
    assert!(!answer.is_finished());

    server.resume();

    answer.join().unwrap().unwrap();
}

#[test]
fn a_paused_server_can_be_dropped() {
    let Some(server) = start(15) else { return };
    let processes = processes_of(&server);
    server.pause();

    drop(server);

    assert_eq!(processes.list(), []);
}

#[test]
fn settings_and_access_rules_are_in_force() {
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all other 127.0.0.1/32 reject\n";
    let options = PostgresOptions::default().with_setting("wal_level", "replica").with_access_rules(rules);
    let Some(server) = Postgres::start(18, &options) else { return };
    let check = "DO $$ BEGIN ASSERT current_setting('wal_level') = 'replica'; \
                 ASSERT (SELECT count(*) = 2 FROM pg_hba_file_rules); END $$";
    simple_query::run(server.port(), check).unwrap();
}

#[test]
fn a_standby_starts_on_a_base_backup() {
    let Some(primary) = start(18) else { return };
    let Some(pg_basebackup) = tool(18, "pg_basebackup") else { return };
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut command = Command::new(pg_basebackup);
    command.args(["-R", "-c", "fast", "-d", &primary.url("postgres"), "-D"]).arg(&backup);
    assert!(command.status().unwrap().success());

    let options = PostgresOptions::default().with_data_of(&backup);
    let Some(standby) = Postgres::start(18, &options) else { return };

    let check = "DO $$ BEGIN ASSERT pg_is_in_recovery(); END $$";
    simple_query::run(standby.port(), check).unwrap();
}

#[test]
fn the_shared_server_is_one() {
    let (Some(first), Some(second)) = (shared(18), shared(18)) else { return };
    assert!(std::ptr::eq(first, second));
    assert!(takes_connections(first.port()));
}

#[test]
fn the_tools_dump_and_restore() {
    let Some(server) = start(18) else { return };
    let from = server.create_database("from_here");
    let (Some(psql), Some(pg_dump)) = (tool(18, "psql"), tool(18, "pg_dump")) else { return };
    let made = Command::new(&psql).args([&from, "-qc", "CREATE TABLE t(a) AS SELECT 42"]).status().unwrap();
    assert!(made.success());

    let dump = Command::new(pg_dump).arg(&from).output().unwrap();

    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(String::from_utf8_lossy(&dump.stdout).contains("42"));
}

#[test]
fn the_old_tools_are_old() {
    for program in ["pg_dump", "pg_restore", "psql", "pgbench"] {
        let Some(program) = tool(15, program) else { return };
        let version = Command::new(program).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&version.stdout).contains(" 15."));
    }
}

/// The part of the next test that gets killed; by itself it does nothing.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let (Some(own), Some(common)) = (start(15), shared(18)) else { return };
    for server in [&own, common] {
        println!("\nserver {} {}", server.port(), server.data_dir().display());
    }
    println!("all");
    thread::sleep(Duration::from_secs(60)); // it is killed long before
}

#[test]
fn no_server_outlives_a_killed_test_process() {
    if start(15).is_none() || start(18).is_none() {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["servers::tests::victim", "--exact", "--nocapture"]).env(VICTIM, "1");
    let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "all").collect();
    let servers: Vec<(u16, &Path)> = lines.iter().filter_map(|line| parse(line)).collect();
    assert_eq!(servers.len(), 2, "{lines:?}");
    assert!(servers.iter().all(|(port, _)| takes_connections(*port)));

    victim.kill().unwrap();
    victim.wait().unwrap();

    for (port, data) in servers {
        let folder = data.parent().unwrap();
        await_that("the server's folder is gone", || !folder.exists());
        assert_eq!(named_like(folder).list(), []);
        assert!(!takes_connections(port));
    }
}

fn parse(line: &str) -> Option<(u16, &Path)> {
    let (port, data) = line.strip_prefix("server ")?.split_once(' ')?;
    Some((port.parse().unwrap(), Path::new(data)))
}
