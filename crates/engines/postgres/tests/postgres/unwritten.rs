//! A source that may not be written to: its markers are places of its log.

use std::sync::Arc;

use godwit_model::{Marker, Source, SourceNeeds, Table, Task, Writes, codes};
use godwit_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::Client;

use super::capture::{Reader, client, task, versions};

/// What an administrator prepared, and a role that may only read.
struct Case {
    admin: Client,
    source: Arc<dyn Source>,
    task: Task,
    tables: Vec<Arc<Table>>,
}

impl Case {
    async fn prepare(server: &Postgres, name: &str, schema: &str) -> Case {
        let admin = client(&server.create_database(name)).await;
        admin.batch_execute(schema).await.unwrap();
        let role = format!("reader_{name}");
        let rights = format!(
            "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
             ALTER ROLE {role} SET default_transaction_read_only = on"
        );
        admin.batch_execute(&rights).await.unwrap();
        let mut task = task(server, name);
        task.writes = Writes::Never;
        task.source.user = Some(role);
        let source = godwit_postgres::source(&task).unwrap();
        let tables = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        Case { admin, source, task, tables }
    }

    async fn begin(server: &Postgres, name: &str) -> (Case, Reader) {
        let schema = format!("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION godwit_{name} FOR TABLE t");
        let case = Case::prepare(server, name, &schema).await;
        let p0 = case.source.establish(&case.tables, None).await.unwrap().position;
        let reader = Reader::new(case.source.changes(&p0, &case.tables).await.unwrap());
        (case, reader)
    }

    async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    async fn mark(&self, name: &str) {
        self.source.mark(&Marker(name.to_owned())).await.unwrap();
    }

    /// What stands in the way, with what to do.
    async fn blockers(&self) -> Vec<(String, String)> {
        let needs = SourceNeeds { task: &self.task, tables: &self.tables, changes: true };
        let findings = self.source.check(&needs).await.unwrap();
        let blockers = findings.into_iter().filter(|finding| finding.code.is_some());
        blockers.map(|finding| (finding.what, finding.remedy.unwrap())).collect()
    }

    async fn end(self, reader: Reader) {
        drop(reader);
        self.source.remove_traces().await.unwrap();
        assert_eq!(self.source.traces().await.unwrap(), []);
        let left = self.source.left_to_others().await.unwrap();
        assert!(left.len() == 1 && left[0].what.contains("publication"), "{left:?}");
    }
}

fn inserts(told: &[String]) -> usize {
    told.iter().filter(|line| line.starts_with("insert")).count()
}

#[tokio::test]
async fn everything_visible_lies_before_a_marker_whoever_commits_meanwhile() {
    const ROUNDS: usize = 60;
    const WRITERS: i32 = 3;
    for server in versions() {
        let name = "visible";
        let (case, mut reader) = Case::begin(server, name).await;
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (sql, stop) = (client(&server.url(name)).await, stop.clone());
            writers.spawn(async move {
                // visible before it is flushed, and long before it is sent
                sql.batch_execute("SET synchronous_commit = off").await.unwrap();
                for number in 0.. {
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        return;
                    }
                    sql.execute("INSERT INTO t VALUES ($1)", &[&(number * WRITERS + writer)]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut told = 0;
        for round in 0..ROUNDS {
            let visible: i64 = case.admin.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
            let marker = format!("m{round}");
            case.mark(&marker).await;
            told += inserts(&reader.until_marker(&marker).await);
            assert!(told as i64 >= visible, "{told} were told before the marker, {visible} visible before it");
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        while writers.join_next().await.is_some() {}
        case.end(reader).await;
    }
}

#[tokio::test]
async fn nothing_is_written_and_what_an_administrator_made_stays() {
    for server in versions() {
        let (case, mut reader) = Case::begin(server, "spotless").await;
        case.run("SELECT pg_create_logical_replication_slot('witness', 'pgoutput')").await;
        for round in 0..3 {
            case.run(&format!("INSERT INTO t VALUES ({round})")).await;
            case.mark("again").await;
            assert_eq!(inserts(&reader.until_marker("again").await), 1);
        }
        let refused = case.source.set_read_only(&case.tables, true).await.unwrap_err();
        assert!(refused.is(&codes::TASK_CONTRADICTION), "{refused}");
        case.source.set_read_only(&case.tables, false).await.unwrap();
        case.end(reader).await;
        let messages = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('witness', NULL, NULL, 'proto_version', '1',
            'publication_names', 'godwit_spotless', 'messages', 'true') WHERE get_byte(data, 0) = ascii('M')";
        assert_eq!(case_number(server, "spotless", messages).await, 0);
        let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'godwit'";
        assert_eq!(case_number(server, "spotless", made).await, 0);
        let publications = "SELECT count(*) FROM pg_publication WHERE pubname = 'godwit_spotless'";
        assert_eq!(case_number(server, "spotless", publications).await, 1);
        client(&server.url("spotless")).await.batch_execute("SELECT pg_drop_replication_slot('witness')").await.unwrap();
    }
}

async fn case_number(server: &Postgres, database: &str, sql: &str) -> i64 {
    client(&server.url(database)).await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_marker_at_the_boundary_of_a_page_or_file_is_reached_on_an_idle_server() {
    for major in [15, 18] {
        // without another slot nothing can be done to make the server flush
        let options = PostgresOptions::default().with_setting("max_replication_slots", "1");
        let Some(server) = Postgres::start(major, &options) else { return };
        let (case, mut reader) = Case::begin(&server, "boundary").await;
        // it writes a record of its own every 15 s, behind which every place is passed
        stop_background_writer(&case.admin).await;
        for round in 0..3 {
            case.run("SELECT pg_switch_wal()").await;
            case.mark(&format!("file {round}")).await;
            assert!(reader.until_marker(&format!("file {round}")).await.is_empty());
        }
        for round in 0..3 {
            fill_page(&case.admin).await;
            case.mark(&format!("page {round}")).await;
            assert!(reader.until_marker(&format!("page {round}")).await.is_empty());
        }
        case.end(reader).await;
    }
}

async fn stop_background_writer(admin: &Client) {
    let writer = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'background writer'";
    let writer: String = admin.query_one(writer, &[]).await.unwrap().get(0);
    assert!(std::process::Command::new("kill").args(["-STOP", &writer]).status().unwrap().success());
}

#[tokio::test]
async fn a_marker_does_not_wait_for_a_server_that_flushes_nothing() {
    for major in [14, 15, 18] {
        // asleep when it is stopped
        let options = PostgresOptions::default().with_setting("bgwriter_delay", "10s").with_setting("autovacuum", "off");
        let Some(server) = Postgres::start(major, &options) else { return };
        let (case, mut reader) = Case::begin(&server, "unflushed").await;
        stop_background_writer(&case.admin).await;
        let open = client(&server.url("unflushed")).await;
        open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        case.mark("open").await;
        // nobody else would ever flush what is open
        assert!(reader.until_marker("open").await.is_empty());
        open.batch_execute("COMMIT").await.unwrap();
        case.mark("done").await;
        assert_eq!(reader.until_marker("done").await, ["begin", "insert t (1)", "commit"]);
        case.end(reader).await;
        let slots = "SELECT count(*) FROM pg_replication_slots";
        assert_eq!(case_number(&server, "unflushed", slots).await, 0);
    }
}

/// Writes until the log ends where a page ends.
async fn fill_page(admin: &Client) {
    const PAGE: i64 = 8192;
    const END: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8";
    let end = async || -> i64 { admin.query_one(END, &[]).await.unwrap().get(0) };
    let emit = async |length: i64| {
        let sql = format!("SELECT pg_logical_emit_message(false, 'filler', repeat('x', {length}))");
        admin.batch_execute(&sql).await.unwrap();
    };
    for _ in 0..200 {
        let before = end().await;
        if before % PAGE == 24 || before % PAGE == 40 {
            return;
        }
        let rest = PAGE - before % PAGE;
        if rest < 1000 {
            emit(1000).await;
            continue;
        }
        // what a record takes besides its content is found by trying
        emit(300).await;
        let overhead = end().await - before - 300;
        emit(rest - 300 - overhead - overhead).await;
    }
    panic!("the log never ended at a page's end");
}

#[tokio::test]
async fn a_marker_passes_what_an_open_transaction_left_unflushed() {
    for server in versions() {
        let (case, mut reader) = Case::begin(server, "unflushed").await;
        let open = client(&server.url("unflushed")).await;
        open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        case.mark("open").await;
        assert!(reader.until_marker("open").await.is_empty());
        open.batch_execute("COMMIT").await.unwrap();
        case.mark("done").await;
        assert_eq!(reader.until_marker("done").await, ["begin", "insert t (1)", "commit"]);
        case.end(reader).await;
    }
}

#[tokio::test]
async fn markers_outlive_their_stream_and_a_crash_of_the_server() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_fsync()) else { return };
    let (case, mut reader) = Case::begin(&server, "crashed").await;
    case.run("INSERT INTO t VALUES (1)").await;
    case.mark("one").await;
    reader.until_marker("one").await;
    let durable = reader.last.clone().unwrap();
    drop(reader);
    case.run("INSERT INTO t VALUES (2)").await;
    case.mark("two").await;
    server.kill9();
    server.restart();
    let admin = client(&server.url("crashed")).await;
    admin.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    let mut reader = Reader::new(case.source.changes(&durable, &case.tables).await.unwrap());
    assert_eq!(reader.until_marker("two").await, ["begin", "insert t (2)", "commit"]);
    case.mark("three").await;
    assert_eq!(reader.until_marker("three").await, ["begin", "insert t (3)", "commit"]);
    case.end(reader).await;
}

#[tokio::test]
async fn what_an_administrator_must_make_is_said_and_its_statements_suffice() {
    for server in versions() {
        let schema = "CREATE TABLE keyed (id int PRIMARY KEY, v text); CREATE TABLE keyless (v text);
            CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE other (id int PRIMARY KEY)";
        let mut case = Case::prepare(server, "given", schema).await;
        case.tables.retain(|table| table.name.name != "other");
        let mut wrong = vec![
            "DROP PUBLICATION IF EXISTS godwit_given; ALTER TABLE keyless REPLICA IDENTITY DEFAULT",
            "ALTER PUBLICATION godwit_given ADD TABLE other",
            "ALTER PUBLICATION godwit_given DROP TABLE keyed",
            "ALTER PUBLICATION godwit_given SET (publish_via_partition_root = true)",
            "ALTER PUBLICATION godwit_given SET (publish = 'insert, update')",
            "ALTER TABLE parted_1 REPLICA IDENTITY NOTHING",
            "DROP PUBLICATION godwit_given; CREATE PUBLICATION godwit_given FOR ALL TABLES",
        ];
        if server.major() >= 15 {
            wrong.extend([
                "ALTER PUBLICATION godwit_given SET TABLE keyed WHERE (id > 0), keyless, parted",
                "ALTER PUBLICATION godwit_given SET TABLE keyed (id), keyless, parted",
                "ALTER PUBLICATION godwit_given SET TABLES IN SCHEMA public",
            ]);
        }
        if server.major() >= 18 {
            wrong.push("ALTER PUBLICATION godwit_given SET (publish_generated_columns = none)");
        }
        for wrong in wrong {
            case.run(wrong).await;
            let blockers = case.blockers().await;
            assert!(!blockers.is_empty(), "{wrong}");
            let refused = case.source.establish(&case.tables, None).await.err().unwrap();
            assert!(refused.is(&codes::SETTING_UNSUITABLE), "{refused}");
            for (_, remedy) in blockers {
                case.run(remedy.strip_prefix("let an administrator run: ").unwrap()).await;
            }
            assert_eq!(case.blockers().await, [], "{wrong}");
        }
        let p0 = case.source.establish(&case.tables, None).await.unwrap().position;
        case.run("ALTER PUBLICATION godwit_given DROP TABLE keyed").await;
        let narrowed = case.source.changes(&p0, &case.tables).await.err().unwrap();
        assert!(narrowed.is(&codes::OUT_OF_SIGHT), "{narrowed}");
        case.source.remove_traces().await.unwrap();
    }
}

#[tokio::test]
async fn a_publication_that_others_made_is_neither_changed_nor_dropped() {
    let Some(server) = versions().last() else { return };
    let mut case = Case::prepare(server, "theirs", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION godwit_theirs").await;
    (case.task.writes, case.task.source.user) = (Writes::Marker, Some("postgres".to_owned()));
    let source = godwit_postgres::source(&case.task).unwrap();
    let refused = source.establish(&case.tables, None).await.err().unwrap();
    assert!(refused.is(&codes::SETTING_UNSUITABLE), "{refused}");
    source.remove_traces().await.unwrap();
    let publications = "SELECT count(*) FROM pg_publication WHERE pubname = 'godwit_theirs'";
    assert_eq!(case_number(server, "theirs", publications).await, 1);
}
