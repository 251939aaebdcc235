use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::processes::ServerProcesses;
use super::{MySqlOptions, MySqlServer, MySqlVersion, shared_mysql};

/// Set for the copy of this test program that is going to be killed.
const VICTIM: &str = "GODWIT_TESTKIT_MYSQL_VICTIM";

fn start(version: MySqlVersion) -> Option<MySqlServer> {
    MySqlServer::start(version, &MySqlOptions::default())
}

fn every_version() -> impl Iterator<Item = MySqlServer> {
    MySqlVersion::ALL.into_iter().filter_map(start)
}

fn takes_connections(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn processes_of(server: &MySqlServer) -> ServerProcesses {
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

fn value(server: &MySqlServer, expression: &str) -> String {
    let rows = server.query("", &format!("SELECT {expression}"));
    rows.into_iter().flatten().next().flatten().unwrap()
}

#[test]
fn every_version_starts_and_suits_migration() {
    for server in every_version() {
        let version = value(&server, "version()");
        let expected = match server.version() {
            MySqlVersion::MariaDb10_11 => "10.11.",
            MySqlVersion::MariaDb11_8 => "11.8.",
            MySqlVersion::MySql9 => "9.",
        };
        assert!(version.starts_with(expected), "{version}");
        assert_eq!(version.contains("MariaDB"), server.version().is_mariadb());
        for (variable, wanted) in [
            ("log_bin", "1"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("time_zone", "+00:00"),
            ("character_set_server", "utf8mb4"),
            ("innodb_flush_log_at_trx_commit", "2"),
        ] {
            assert_eq!(value(&server, &format!("@@global.{variable}")), wanted, "{version}: {variable}");
        }
        if !server.version().is_mariadb() {
            assert_eq!(value(&server, "concat(@@global.gtid_mode, @@global.enforce_gtid_consistency)"), "ONON");
        }
    }
}

#[test]
fn each_server_has_an_identity_of_its_own() {
    for version in MySqlVersion::ALL {
        let (Some(one), Some(other)) = (start(version), start(version)) else { return };
        assert_ne!(value(&one, "@@server_id"), value(&other, "@@server_id"));
        if !version.is_mariadb() {
            assert_ne!(value(&one, "@@server_uuid"), value(&other, "@@server_uuid"));
        }
    }
}

#[test]
fn a_server_and_its_data_go_with_the_value() {
    for server in every_version() {
        let (port, data, processes) = (server.port(), server.data_dir(), processes_of(&server));
        assert!(takes_connections(port));
        assert_eq!(processes.list().len(), 1);

        drop(server);

        assert!(!takes_connections(port));
        assert!(!data.exists());
        assert_eq!(processes.list(), []);
    }
}

#[test]
fn restart_keeps_port_and_data() {
    for server in every_version() {
        let port = server.port();
        server.create_database("kept");

        server.restart();

        assert_eq!(server.port(), port);
        assert!(server.attempt("", "CREATE DATABASE kept").unwrap_err().contains("database exists"));
    }
}

#[test]
fn a_stopped_server_is_stopped_in_good_order() {
    for server in every_version() {
        server.stop();
        assert!(!takes_connections(server.port()));
        assert_eq!(processes_of(&server).list(), []);
        assert!(server.attempt("", "SELECT 1").is_err());

        server.restart();

        assert!(!recovered(&server), "{}", server.log());
        server.run("", "SELECT 1");
    }
}

/// As each family says it.
fn recovered(server: &MySqlServer) -> bool {
    let log = server.log();
    log.contains("Starting crash recovery") || log.contains("Starting XA crash recovery") || log.contains("Crash recovery finished")
}

#[test]
fn a_killed_server_leaves_no_process_and_recovers() {
    for version in MySqlVersion::ALL {
        let Some(server) = MySqlServer::start(version, &MySqlOptions::default().with_fsync()) else { continue };
        assert_eq!(value(&server, "concat(@@global.innodb_flush_log_at_trx_commit, @@global.sync_binlog)"), "11");
        server.create_database("d");
        server.run("d", "CREATE TABLE kept (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO kept VALUES (1), (2)");

        server.kill();
        assert!(!takes_connections(server.port()));
        assert_eq!(processes_of(&server).list(), []);
        server.restart();

        assert_eq!(value(&server, "count(*) FROM d.kept"), "2");
        assert!(recovered(&server), "{}", server.log());
    }
}

#[test]
fn after_a_crash_what_was_committed_is_there() {
    for server in every_version() {
        let logged = |server: &MySqlServer| server.query("", "SHOW BINARY LOGS").len();
        server.create_database("d");
        server.run(
            "d",
            "CREATE TABLE kept (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO kept VALUES (1); BEGIN; INSERT INTO kept VALUES (2)",
        );
        let logs = logged(&server);

        server.crash();

        assert_eq!(server.query("d", "SELECT a FROM kept"), [[Some("1".to_owned())]]);
        assert_eq!(logged(&server), logs + 1);
    }
}

#[test]
fn a_paused_server_answers_after_resume_only() {
    let Some(server) = start(MySqlVersion::MariaDb10_11) else { return };
    server.pause();
    thread::scope(|scope| {
        let answer = scope.spawn(|| server.attempt("", "SELECT 1"));
        thread::sleep(Duration::from_millis(300));
        assert!(!answer.is_finished());

        server.resume();

        answer.join().unwrap().unwrap();
    });
}

#[test]
fn a_paused_server_can_be_dropped() {
    for server in every_version() {
        let processes = processes_of(&server);
        server.pause();

        drop(server);

        assert_eq!(processes.list(), []);
    }
}

#[test]
fn settings_are_in_force() {
    for version in MySqlVersion::ALL {
        let options = MySqlOptions::default().with_setting("binlog-row-image", "MINIMAL").with_setting("max-connections", "17");
        let Some(server) = MySqlServer::start(version, &options) else { continue };
        let both = "concat(@@global.binlog_row_image, @@global.max_connections)";
        assert_eq!(value(&server, both), "MINIMAL17");

        server.set("max-connections", "19");
        server.restart();

        assert_eq!(value(&server, both), "MINIMAL19");
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    for version in MySqlVersion::ALL {
        if start(version).is_none() {
            continue;
        }
        let options = MySqlOptions::default().with_setting("no-such-option", "1");
        let problem = thread::spawn(move || MySqlServer::start(version, &options)).join().unwrap_err();
        let problem = problem.downcast_ref::<String>().unwrap();
        assert!(problem.contains("no-such-option"), "{problem}");
    }
}

#[test]
fn the_shared_server_is_one_for_each_version() {
    let mut ports = Vec::new();
    for version in MySqlVersion::ALL {
        let (Some(first), Some(second)) = (shared_mysql(version), shared_mysql(version)) else { continue };
        assert!(std::ptr::eq(first, second));
        assert_eq!(first.version(), version);
        assert!(!ports.contains(&first.port()));
        ports.push(first.port());
    }
}

#[test]
fn a_query_gives_text_and_tells_null() {
    for version in MySqlVersion::ALL {
        let Some(server) = shared_mysql(version) else { continue };
        let database = format!("query_{}", version as usize);
        assert_eq!(server.create_database(&database), format!("mysql://root@127.0.0.1:{}/{database}", server.port()));
        server.run(&database, "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, NULL), (2, 'NULL'), (3, 'é\n')");

        let rows = server
            .query(&database, "SET @least = 0; SELECT a, b FROM t WHERE a > @least ORDER BY a; SELECT 4, ''; SELECT 5, 6 WHERE FALSE");

        let expected = [("1", None), ("2", Some("NULL")), ("3", Some("é\n")), ("4", Some(""))];
        assert_eq!(rows, expected.map(|(a, b)| vec![Some(a.to_owned()), b.map(str::to_owned)]));
        let refusal = server.attempt(&database, "SELECT 1; SELECT wrong").unwrap_err();
        assert!(refusal.contains("1054"), "{refusal}");
        assert!(server.attempt(&database, "SELECT x'ff'").unwrap_err().contains("HEX()"));
    }
}

#[tokio::test]
async fn a_query_may_be_asked_inside_of_a_runtime() {
    let Some(server) = shared_mysql(MySqlVersion::MariaDb10_11) else { return };
    assert_eq!(value(server, "'so'"), "so");
}

#[test]
fn the_programs_dump_and_read_the_log() {
    for server in every_version() {
        let (dump, binlog) = match server.version().is_mariadb() {
            true => ("mariadb-dump", "mariadb-binlog"),
            false => ("mysqldump", "mysqlbinlog"),
        };
        server.create_database("d");
        server.run("d", "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (42)");
        let asked = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(server.program(program));
            command.args(["--no-defaults", "-h127.0.0.1", "-uroot", &format!("-P{}", server.port())]).args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };

        assert!(asked(dump, &["d"]).contains("(42)"));
        let log = asked(binlog, &["--read-from-remote-server", "-v", "bin.000001"]);
        assert!(log.contains("### INSERT INTO `d`.`t`") && log.contains("@1=42"), "{log}");
    }
}

/// The part of the next test that gets killed; by itself it does nothing.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let own = MySqlVersion::ALL.map(|version| start(version).unwrap());
    let common = shared_mysql(MySqlVersion::MariaDb10_11).unwrap();
    for server in own.iter().chain([common]) {
        println!("\nserver {} {}", server.port(), server.data_dir().display());
    }
    println!("all");
    thread::sleep(Duration::from_secs(60)); // it is killed long before
}

#[test]
fn no_server_outlives_a_killed_test_process() {
    if every_version().count() < MySqlVersion::ALL.len() {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["servers::mysql_tests::victim", "--exact", "--nocapture"]).env(VICTIM, "1");
    let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "all").collect();
    let servers: Vec<(u16, &Path)> = lines.iter().filter_map(|line| parse(line)).collect();
    assert_eq!(servers.len(), 4, "{lines:?}");
    assert!(servers.iter().all(|(port, _)| takes_connections(*port)));

    victim.kill().unwrap();
    victim.wait().unwrap();

    for (port, data) in servers {
        let folder = data.parent().unwrap();
        await_that("the server's folder is gone", || !folder.exists());
        assert_eq!(named_like(folder).list(), []);
        // a killed process is out of the list a moment before its last thread lets the port go
        await_that("nobody listens", || !takes_connections(port));
    }
}

fn parse(line: &str) -> Option<(u16, &Path)> {
    let (port, data) = line.strip_prefix("server ")?.split_once(' ')?;
    Some((port.parse().unwrap(), Path::new(data)))
}
