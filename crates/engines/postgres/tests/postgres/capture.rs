//! What logical decoding tells, and what a lost slot, a dead reader or a restart do to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use godwit_model::{
    Captured, ChangeBatch, ChangeOperation, ChangeStream, EndpointConfig, Layout, LayoutId, Marker, OldImage, Position, Secret, Source,
    Table, Task, TransactionId, Value, codes,
};
use godwit_testkit::servers::{self, Postgres, PostgresOptions};
use tokio_postgres::{Client, NoTls};

/// Every wait of these tests.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn versions() -> impl Iterator<Item = &'static Postgres> {
    [15, 18].into_iter().filter_map(servers::shared)
}

pub(super) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(super) fn task(server: &Postgres, name: &str) -> Task {
    let mut task = godwit_testkit::task::task(name);
    task.source = EndpointConfig {
        engine: "postgres".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: Some(server.port()),
        user: Some("postgres".to_owned()),
        database: name.to_owned(),
        ..task.source
    };
    task
}

/// A database of its own with a source on it.
struct Case {
    sql: Client,
    source: Arc<dyn Source>,
    task: Task,
    tables: Vec<Arc<Table>>,
    p0: Position,
}

impl Case {
    /// `name` is the database, the task, and with it the slot.
    async fn begin(server: &Postgres, name: &str, schema: &str) -> Case {
        let sql = client(&server.create_database(name)).await;
        sql.batch_execute(schema).await.unwrap();
        let task = task(server, name);
        let source = godwit_postgres::source(&task).unwrap();
        let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        let p0 = source.establish(&tables, None).await.unwrap().position;
        Case { sql, source, task, tables, p0 }
    }

    async fn stream(&self, from: &Position) -> Reader {
        Reader::new(self.source.changes(from, &self.tables).await.unwrap())
    }

    async fn mark(&self, name: &str) {
        self.source.mark(&Marker(name.to_owned())).await.unwrap();
    }

    /// What the log tells of these statements, in words.
    async fn told(&self, reader: &mut Reader, sql: &str) -> Vec<String> {
        self.sql.batch_execute(sql).await.unwrap();
        self.mark("end").await;
        reader.until_marker("end").await
    }

    async fn end(self) {
        self.source.remove_traces().await.unwrap();
        assert!(self.source.traces().await.unwrap().is_empty());
    }

    /// Waits for a number that is not 0.
    async fn until(&self, sql: &str) {
        let found = async {
            while self.number(sql).await == 0 {
                // a server tells nobody what its sessions do
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("never: {sql}"));
    }

    async fn number(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }
}

pub(super) struct Reader {
    stream: Box<dyn ChangeStream>,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    pub(super) last: Option<Position>,
}

impl Reader {
    pub(super) fn new(stream: Box<dyn ChangeStream>) -> Reader {
        Reader { stream, layouts: HashMap::new(), last: None }
    }

    async fn next(&mut self) -> godwit_model::Result<Captured> {
        let item = tokio::time::timeout(LIMIT, self.stream.next()).await.expect("the stream says something in time")?;
        match &item {
            Captured::Layout(layout) => {
                assert!(self.layouts.insert(layout.id, layout.clone()).is_none());
            }
            Captured::Commit { position, .. } | Captured::StreamedCommit { position, .. } | Captured::Idle { position } => {
                self.last = Some(position.clone());
            }
            _ => {}
        }
        Ok(item)
    }

    /// Everything up to the end of the transaction of this marker, markers and progress left out.
    pub(super) async fn until_marker(&mut self, name: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            match self.next().await.unwrap() {
                Captured::Marker(marker) if marker.0 == name => {
                    assert!(matches!(self.next().await.unwrap(), Captured::Commit { .. }));
                    assert_eq!(told.pop().as_deref(), Some("begin"));
                    return told;
                }
                item => self.tell(item, &mut told),
            }
        }
    }

    fn tell(&self, item: Captured, told: &mut Vec<String>) {
        let id = |transaction: TransactionId, part: TransactionId| if transaction == part { "whole" } else { "part" };
        match item {
            Captured::Layout(_) | Captured::Idle { .. } => {}
            Captured::Begin => told.push("begin".to_owned()),
            Captured::Changes(batch) => told.extend(self.words(&batch)),
            Captured::Commit { origin, .. } => told.push(format!("commit{}", origin.map(|by| format!(" by {by}")).unwrap_or_default())),
            Captured::StreamedChanges { transaction, part, changes } => {
                told.push(format!("streamed {} {}", id(transaction, part), changes.len()))
            }
            Captured::StreamedAbort { transaction, part } => told.push(format!("abort {}", id(transaction, part))),
            Captured::StreamedCommit { .. } => told.push("streamed commit".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn words(&self, batch: &ChangeBatch) -> Vec<String> {
        let row = |values: &[Value]| values.iter().map(word).collect::<Vec<_>>().join(",");
        let one = |change| {
            let layout = &self.layouts[&godwit_model::Change::clone(change).layout];
            let (images, table) = (batch.images(change), &layout.table.name);
            let old = match (&change.old, images.old) {
                (OldImage::Full(_), Some(old)) => format!(" full({})", row(old)),
                (_, Some(old)) => format!(" key({})", row(old)),
                _ => String::new(),
            };
            match change.operation {
                ChangeOperation::Insert => format!("insert {table} ({})", row(images.new)),
                ChangeOperation::Update => format!("update {table}{old} ({})", row(images.new)),
                ChangeOperation::Delete => format!("delete {table}{old}"),
                ChangeOperation::Truncate => format!("truncate {table}"),
            }
        };
        batch.changes.iter().map(one).collect()
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Absent => "-".to_owned(),
        Value::Unsent => "?".to_owned(),
        Value::Native(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_kind_of_change_is_told() {
    for server in (14..=18).filter_map(servers::shared) {
        let case = Case::begin(server, "kinds", "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE nokey (a int, b text)").await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO t VALUES (1, 'a'), (2, NULL), (3, '')").await;
        assert_eq!(told, ["begin", "insert t (1,a)", "insert t (2,NULL)", "insert t (3,)", "commit"]);
        let told =
            case.told(&mut reader, "UPDATE t SET v = 'b' WHERE id = 1; UPDATE t SET id = 9 WHERE id = 2; DELETE FROM t WHERE id = 3").await;
        assert_eq!(told, ["begin", "update t (1,b)", "update t key(2,-) (9,NULL)", "delete t key(3,-)", "commit"]);
        let told =
            case.told(&mut reader, "INSERT INTO nokey VALUES (1, 'x'); UPDATE nokey SET a = 2; DELETE FROM nokey; TRUNCATE t, nokey").await;
        let expected = [
            "begin",
            "insert nokey (1,x)",
            "update nokey full(1,x) (2,x)",
            "delete nokey full(2,x)",
            "truncate t",
            "truncate nokey",
            "commit",
        ];
        assert_eq!(told, expected);
        case.end().await;
    }
}

#[tokio::test]
async fn a_large_value_that_did_not_change_is_unsent_and_never_null() {
    for server in versions() {
        let schema = "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; \
                      INSERT INTO t VALUES (1, 1, repeat('x', 10000)); \
                      CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f SELECT 1, 1, repeat('y', 3000)";
        let case = Case::begin(server, "unsent", schema).await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "UPDATE t SET n = 2; UPDATE t SET id = 5").await;
        assert_eq!(told, ["begin", "update t (1,2,?)", "update t key(1,-,-) (5,2,?)", "commit"]);
        let told = case.told(&mut reader, "UPDATE f SET n = 2").await;
        assert_eq!(told[1], format!("update f full(1,1,{}) (1,2,?)", "y".repeat(3000)));
        case.end().await;
    }
}

#[tokio::test]
async fn values_read_the_same_whatever_a_role_or_database_sets() {
    for server in versions() {
        let schema = "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, i interval, f float8, b bytea, m money, d date); \
                      ALTER DATABASE settings SET DateStyle = 'SQL, DMY'; ALTER DATABASE settings SET TimeZone = 'Asia/Tokyo'; \
                      ALTER DATABASE settings SET IntervalStyle = 'iso_8601'; ALTER DATABASE settings SET bytea_output = 'escape'; \
                      ALTER DATABASE settings SET extra_float_digits = -5; ALTER DATABASE settings SET search_path = nowhere; \
                      ALTER DATABASE settings SET default_transaction_read_only = on";
        let case = Case::begin(server, "settings", schema).await;
        let mut reader = case.stream(&case.p0).await;
        let row = "INSERT INTO t VALUES (1, '2024-02-03 04:05:06.789+00', '1 day 2 hours', 0.1::float8 + 0.2::float8, '\\x00ff', '1.50', '2024-12-31')";
        let told = case.told(&mut reader, row).await;
        assert_eq!(told[1], "insert t (1,2024-02-03 04:05:06.789+00,1 day 02:00:00,0.30000000000000004,\\x00ff,$1.50,2024-12-31)");
        case.end().await;
    }
}

const SMALL_MEMORY: &str = "SELECT repeat('x', 100) FROM generate_series(1, 3000)";

#[tokio::test]
async fn large_transactions_are_streamed_and_their_parts_roll_back() {
    for major in [15, 18] {
        let options = PostgresOptions::default().with_setting("logical_decoding_work_mem", "64kB");
        let Some(server) = Postgres::start(major, &options) else { continue };
        let case = Case::begin(&server, "streamed", "CREATE TABLE t (id serial PRIMARY KEY, v text)").await;
        let mut reader = case.stream(&case.p0).await;
        let insert = format!("INSERT INTO t (v) {SMALL_MEMORY}");
        let changes = |told: &[String], kind: &str| {
            let prefix = format!("streamed {kind} ");
            told.iter().filter_map(|line| line.strip_prefix(&prefix)?.parse::<usize>().ok()).sum::<usize>()
        };

        let told = case.told(&mut reader, &insert).await;
        assert_eq!((changes(&told, "whole"), told.last().map(String::as_str)), (3000, Some("streamed commit")));
        assert!(told.len() > 5, "in more than one block");

        let told = case.told(&mut reader, &format!("BEGIN; {insert}; ROLLBACK")).await;
        assert!(told.is_empty() || told.last().unwrap() == "abort whole", "{told:?}");

        let parts = format!("BEGIN; {insert}; SAVEPOINT a; {insert}; ROLLBACK TO a; {insert}; SAVEPOINT b; {insert}; COMMIT");
        let told = case.told(&mut reader, &parts).await;
        assert!(told.contains(&"abort part".to_owned()), "{told:?}");
        assert_eq!(told.last().unwrap(), "streamed commit");
        assert!(changes(&told, "whole") >= 3000 && changes(&told, "part") >= 3000, "{told:?}");
        case.end().await;
    }
}

/// A server's own limit is many times what these rows take.
#[tokio::test]
async fn a_large_transaction_is_streamed_long_before_the_servers_own_limit() {
    for server in versions() {
        let case = Case::begin(server, "early", "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 16000) i").await;
        assert_eq!(told.last().map(String::as_str), Some("streamed commit"), "{:?}", told.len());
        let told = case.told(&mut reader, "UPDATE t SET v = '' WHERE id = 1").await;
        assert_eq!(told.last().map(String::as_str), Some("commit"), "a small one is not");
        case.end().await;
    }
}

#[tokio::test]
async fn leaves_are_told_as_their_root() {
    for server in versions() {
        let schema = "CREATE TABLE p (id int, v text, gone int, PRIMARY KEY (id)) PARTITION BY RANGE (id); ALTER TABLE p DROP gone; \
                      CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                      CREATE TABLE p2 (v text, id int NOT NULL); ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)";
        let case = Case::begin(server, "leaves", schema).await;
        assert_eq!(case.tables.len(), 1);
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO p VALUES (1, 'a'), (11, 'b'); UPDATE p SET id = 12 WHERE id = 1").await;
        assert_eq!(told, ["begin", "insert p (1,a)", "insert p (b,11)", "delete p key(1,-)", "insert p (a,12)", "commit"]);
        let made = "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (21, 'c'); TRUNCATE p";
        let told = case.told(&mut reader, made).await;
        assert_eq!(told, ["begin", "insert p (21,c)", "truncate p", "commit"]);

        case.sql.batch_execute("TRUNCATE p1").await.unwrap();
        let error = loop {
            if let Err(error) = reader.next().await {
                break error;
            }
        };
        assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
        drop(reader);
        case.end().await;
    }
}

#[tokio::test]
async fn a_schema_change_in_mid_stream_gives_a_new_layout() {
    for server in versions() {
        let case = Case::begin(server, "layouts", "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        case.sql
            .batch_execute(
                "INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD n int DEFAULT 7; INSERT INTO t VALUES (2, 'b', 8); \
                 ALTER TABLE t DROP v; INSERT INTO t VALUES (3, 9); ALTER TABLE t ALTER n TYPE numeric(10,2); INSERT INTO t VALUES (4, 1.5)",
            )
            .await
            .unwrap();
        let mut reader = case.stream(&case.p0).await;
        case.mark("end").await;
        let told = reader.until_marker("end").await;
        let rows: Vec<_> = told.iter().filter(|line| line.starts_with("insert")).collect();
        assert_eq!(rows, ["insert t (1,a)", "insert t (2,b,8)", "insert t (3,9)", "insert t (4,1.50)"]);
        let mut shapes: Vec<_> = reader
            .layouts
            .values()
            .map(|layout| (layout.id.0, layout.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect::<Vec<_>>().join(",")))
            .collect();
        shapes.sort();
        let shapes: Vec<_> = shapes.into_iter().map(|(_, shape)| shape).collect();
        assert_eq!(shapes, ["id int4,v text", "id int4,v text,n int4", "id int4,n int4", "id int4,n numeric(655366)"]);
        case.end().await;
    }
}

#[tokio::test]
async fn names_are_told_as_they_are_spelled() {
    for server in versions() {
        let schema = "CREATE SCHEMA \"a b\"; CREATE TABLE \"a b\".\"Order\" (\"x\"\"y\" int PRIMARY KEY, \"ünï\" text); \
                      CREATE TABLE \"a b\".\"tab\tbed\" (v text)";
        let case = Case::begin(server, "spelled", schema).await;
        let mut reader = case.stream(&case.p0).await;
        let told =
            case.told(&mut reader, "INSERT INTO \"a b\".\"Order\" VALUES (1, 'ß'); INSERT INTO \"a b\".\"tab\tbed\" VALUES ('q')").await;
        assert_eq!(told, ["begin", "insert Order (1,ß)", "insert tab\tbed (q)", "commit"]);
        drop(reader);
        case.source.remove_traces().await.unwrap();
        assert_eq!(case.number("SELECT count(*) FROM pg_class WHERE relreplident = 'f'").await, 0, "replica identity is given back");
        case.end().await;
    }
}

#[tokio::test]
async fn the_author_of_a_transaction_is_told() {
    for server in versions() {
        let case = Case::begin(server, "origins", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut reader = case.stream(&case.p0).await;
        let ours = "BEGIN; SELECT pg_logical_emit_message(true, 'godwit_origin', 'other first'); INSERT INTO t VALUES (1); COMMIT";
        assert_eq!(case.told(&mut reader, ours).await, ["begin", "insert t (1)", "commit by other first"]);
        let name = format!("theirs{}", server.major());
        let theirs = format!(
            "SELECT pg_replication_origin_create('{name}'); SELECT pg_replication_origin_session_setup('{name}'); INSERT INTO t VALUES (2)"
        );
        let told = case.told(&mut reader, &theirs).await;
        assert_eq!(told.last().unwrap(), &format!("commit by {name}"));
        case.sql
            .batch_execute(&format!("SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('{name}')"))
            .await
            .unwrap();
        let foreign = "SELECT pg_logical_emit_message(true, 'godwit_mark_another', 'x'); INSERT INTO t VALUES (3)";
        assert_eq!(case.told(&mut reader, foreign).await, ["begin", "insert t (3)", "commit"]);
        case.end().await;
    }
}

#[tokio::test]
async fn an_idle_source_frees_its_log() {
    for server in versions() {
        let case = Case::begin(server, "idle", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let other = client(&server.create_database("idle_other")).await;
        let mut reader = case.stream(&case.p0).await;
        other.batch_execute("CREATE TABLE noise AS SELECT generate_series(1, 100000) g").await.unwrap();
        let began = tokio::time::Instant::now();
        while case.source.backlog().await.unwrap().unwrap() > 1 << 20 {
            assert!(began.elapsed() < LIMIT);
            let Captured::Idle { position } = reader.next().await.unwrap() else { panic!("nothing of interest was written") };
            reader.stream.confirm(&position).await.unwrap();
        }
        case.end().await;
    }
}

#[tokio::test]
async fn a_stream_goes_on_behind_what_was_confirmed_without_loss_or_doubling() {
    for server in versions() {
        let case = Case::begin(server, "resumed", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO t VALUES (1)").await;
        assert_eq!(told, ["begin", "insert t (1)", "commit"]);
        let durable = reader.last.clone().unwrap();
        case.sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        case.sql
            .batch_execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'godwit_resumed'")
            .await
            .unwrap();
        let error = loop {
            if let Err(error) = reader.next().await {
                break error;
            }
        };
        assert!(error.is_transient(), "{error}");

        // Nothing was confirmed: the position decides, not the server.
        let mut again = case.stream(&durable).await;
        assert_eq!(
            case.told(&mut again, "INSERT INTO t VALUES (3)").await,
            ["begin", "insert t (2)", "commit", "begin", "insert t (3)", "commit"]
        );
        case.end().await;
    }
}

#[tokio::test]
async fn a_slot_that_is_read_by_an_older_self_is_taken_over() {
    for server in versions() {
        let case = Case::begin(server, "taken", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut old = case.stream(&case.p0).await;
        let mut new = case.stream(&case.p0).await;
        assert_eq!(case.told(&mut new, "INSERT INTO t VALUES (1)").await, ["begin", "insert t (1)", "commit"]);
        let error = loop {
            if let Err(error) = old.next().await {
                break error;
            }
        };
        assert!(error.is_transient(), "{error}");
        case.end().await;
    }
}

#[tokio::test]
async fn a_slot_that_was_made_anew_has_lost_the_position() {
    for server in versions() {
        let case = Case::begin(server, "remade", "CREATE TABLE t (id int PRIMARY KEY)").await;
        case.sql.batch_execute("ALTER PUBLICATION godwit_remade DROP TABLE t").await.unwrap();
        let unseen = case.source.changes(&case.p0, &case.tables).await.err().unwrap();
        assert!(unseen.is(&codes::OUT_OF_SIGHT), "{unseen}");
        case.sql.batch_execute("SELECT pg_drop_replication_slot('godwit_remade')").await.unwrap();
        let lost = case.source.changes(&case.p0, &case.tables).await.err().unwrap();
        assert!(lost.is(&codes::POSITION_LOST), "{lost}");
        case.sql.batch_execute("SELECT pg_create_logical_replication_slot('godwit_remade', 'pgoutput')").await.unwrap();
        let skipped = case.source.changes(&case.p0, &case.tables).await.err().unwrap();
        assert!(skipped.is(&codes::POSITION_LOST), "{skipped}");
        case.end().await;
    }
}

#[tokio::test]
async fn another_server_is_not_the_source() {
    for server in versions() {
        let case = Case::begin(server, "exchanged", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let text = case.p0.to_string();
        let (lsn, log) = text.split_once('@').unwrap();
        for other in [format!("{lsn}@1234.1"), format!("FFFF/0@{log}"), "nonsense".to_owned()] {
            let error = case.source.changes(&Position::from(other), &case.tables).await.err().unwrap();
            assert!(error.is(&codes::SOURCE_CHANGED), "{error}");
        }
        assert_eq!(case.source.establish(&case.tables, Some(&case.p0)).await.unwrap().position, case.p0);
        let error = case.source.establish(&case.tables, Some(&Position::from(format!("{lsn}@1234.1")))).await.err().unwrap();
        assert!(error.is(&codes::SOURCE_CHANGED), "{error}");
        case.end().await;
    }
}

#[tokio::test]
async fn a_paused_reader_keeps_its_stream() {
    let options = PostgresOptions::default().with_setting("wal_sender_timeout", "1500ms");
    let Some(server) = Postgres::start(18, &options) else { return };
    let mut case = Case::begin(&server, "paused", "CREATE TABLE t (id serial PRIMARY KEY, v text)").await;
    case.task.limits.memory = godwit_model::ByteCount(1 << 20);
    case.source = godwit_postgres::source(&case.task).unwrap();
    let mut reader = case.stream(&case.p0).await;
    // More than the queue and the sockets' buffers hold.
    for _ in 0..30 {
        case.sql.batch_execute("INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 1000)").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    case.mark("end").await;
    let told = reader.until_marker("end").await;
    assert_eq!(told.iter().filter(|line| line.starts_with("insert")).count(), 30_000);
    case.end().await;
}

#[tokio::test]
async fn a_source_that_restarts_is_read_on() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_fsync()) else { return };
    let case = Case::begin(&server, "restarted", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut reader = case.stream(&case.p0).await;
    assert_eq!(case.told(&mut reader, "INSERT INTO t VALUES (1)").await.len(), 3);
    let durable = reader.last.clone().unwrap();
    case.sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    server.kill9();
    assert!(
        loop {
            if let Err(error) = reader.next().await {
                break error;
            }
        }
        .is_transient()
    );
    let away = case.source.changes(&durable, &case.tables).await.err().unwrap();
    assert!(away.is(&codes::UNREACHABLE), "{away}");
    server.restart();
    let mut again = Reader::new(case.source.changes(&durable, &case.tables).await.unwrap());
    case.mark("end").await;
    assert_eq!(again.until_marker("end").await, ["begin", "insert t (2)", "commit"]);
}

#[tokio::test]
async fn an_open_transaction_is_waited_for_and_its_changes_are_not_lost() {
    for server in versions() {
        let sql = client(&server.create_database("awaited")).await;
        sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
        let other = client(&server.url("awaited")).await;
        other.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        let task = task(server, "awaited");
        let source = godwit_postgres::source(&task).unwrap();
        let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        let (established, ()) = tokio::join!(source.establish(&tables, None), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.batch_execute("COMMIT").await.unwrap();
        });
        let established = established.unwrap();
        assert!(established.snapshot.is_some_and(|snapshot| snapshot.is_exact()));
        let mut reader = Reader::new(source.changes(&established.position, &tables).await.unwrap());
        source.mark(&Marker("end".to_owned())).await.unwrap();
        assert!(reader.until_marker("end").await.is_empty(), "what was committed before P0 is in the snapshot, not in the stream");
        source.remove_traces().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_would_wait_for_us_as_for_a_standby_is_refused() {
    let options =
        PostgresOptions::default().with_setting("synchronous_standby_names", "ANY 1 (*)").with_setting("synchronous_commit", "local");
    let Some(server) = Postgres::start(15, &options) else { return };
    let sql = client(&server.url("postgres")).await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut task = task(&server, "standby");
    task.source.database = "postgres".to_owned();
    let source = godwit_postgres::source(&task).unwrap();
    let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let error = source.establish(&tables, None).await.err().unwrap();
    assert!(error.is(&codes::SETTING_UNSUITABLE), "{error}");
}

const ACCESS: &str = "host all postgres 127.0.0.1/32 trust\nhost all scram 127.0.0.1/32 scram-sha-256\n\
                      host all md5 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\n";

#[tokio::test]
async fn every_way_to_authenticate_works_for_both_kinds_of_connection() {
    let Some(server) = Postgres::start(15, &PostgresOptions::default().with_access_rules(ACCESS)) else { return };
    let sql = client(&server.create_database("login")).await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY); SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN SUPERUSER PASSWORD 'p\"w'; \
         SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'p\"w'; CREATE ROLE clear LOGIN SUPERUSER PASSWORD 'p\"w'",
    )
    .await
    .unwrap();
    for user in ["scram", "md5", "clear"] {
        let mut task = task(&server, "login");
        task.source.user = Some(user.to_owned());
        task.source.password = Some(Secret::new("p\"w"));
        let source = godwit_postgres::source(&task).unwrap();
        let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        source.establish(&tables, None).await.unwrap();
        source.remove_traces().await.unwrap();
        for password in [Some(Secret::new("wrong")), None] {
            task.source.password = password;
            let error = godwit_postgres::source(&task).unwrap().backlog().await.unwrap_err();
            assert!(error.is(&codes::AUTHENTICATION), "{user}: {error}");
        }
    }
    let mut nowhere = task(&server, "nowhere");
    let error = godwit_postgres::source(&nowhere).unwrap().backlog().await.unwrap_err();
    assert!(error.is(&codes::DATABASE_MISSING), "{error}");
    nowhere.source.host = server.data_dir().to_string_lossy().into_owned();
    nowhere.source.database = "login".to_owned();
    let error = godwit_postgres::source(&nowhere).unwrap().backlog().await.unwrap_err();
    assert!(error.is(&codes::AUTHENTICATION), "no rule for local sockets: {error}");
}

#[tokio::test]
async fn a_server_can_stop_while_its_reader_does_not_read() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default()) else { return };
    let case = Case::begin(&server, "stopped", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let _reader = case.stream(&case.p0).await;
    case.sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let began = std::time::Instant::now();
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_commit_that_waits_for_a_standby_while_the_slot_is_made_is_not_lost() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default()) else { return };
    let url = server.create_database("synchronous");
    server.set("synchronous_standby_names", "nobody");
    server.restart();
    let sql = client(&url).await;
    sql.batch_execute("SET synchronous_commit = local; CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let task = task(&server, "synchronous");
    let source = godwit_postgres::source(&task).unwrap();
    let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let user = client(&url).await;
    let commit = tokio::spawn(async move { user.batch_execute("INSERT INTO t VALUES (1)").await });
    while sql.query_one("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (established, ()) = tokio::join!(source.establish(&tables, None), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!commit.is_finished());
        server.set("synchronous_standby_names", "");
        server.reload();
    });
    let established = established.unwrap();
    commit.await.unwrap().unwrap();
    let mut reader = Reader::new(source.changes(&established.position, &tables).await.unwrap());
    source.mark(&Marker("end".to_owned())).await.unwrap();
    let told = reader.until_marker("end").await;
    assert_eq!(sql.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 1);
    assert!(told.is_empty(), "it is before P0, so the snapshot has it: {told:?}");
}

#[tokio::test]
async fn replica_identity_is_made_fit_and_given_back() {
    for server in versions() {
        let schema = "CREATE TABLE u (a int NOT NULL, b text NOT NULL, v text, UNIQUE (a, b)); \
                      CREATE TABLE n (id int PRIMARY KEY); ALTER TABLE n REPLICA IDENTITY NOTHING; CREATE TABLE k (v int)";
        let case = Case::begin(server, "identities", schema).await;
        let identities =
            "SELECT string_agg(relname::text || relreplident::text, ',' ORDER BY relname) FROM pg_class WHERE relname IN ('u', 'n', 'k')";
        let row = case.sql.query_one(identities, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "kf,ni,ui");
        let mut reader = case.stream(&case.p0).await;
        let told = case
            .told(&mut reader, "INSERT INTO u VALUES (1, 'x', 'v'); UPDATE u SET b = 'y'; INSERT INTO n VALUES (1); DELETE FROM n")
            .await;
        assert_eq!(told, ["begin", "insert u (1,x,v)", "update u key(1,x,-) (1,y,v)", "insert n (1)", "delete n key(1)", "commit"]);
        drop(reader);
        // Once more, as after a crash before the position was recorded.
        case.source.establish(&case.tables, None).await.unwrap();
        case.source.remove_traces().await.unwrap();
        let row = case.sql.query_one(identities, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "kd,nn,ud");
        case.end().await;
    }
}

/// From 18 on the server refuses an update of a published row that is told as a whole, if not all of it is told.
#[tokio::test]
async fn rows_without_a_key_may_have_computed_columns() {
    for server in versions() {
        let schema = "CREATE TABLE loose (a int, twice int GENERATED ALWAYS AS (a * 2) STORED, v text); \
                      CREATE TABLE keyed (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY, u int NOT NULL UNIQUE); \
                      CREATE TABLE parted (a int, twice int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (a); \
                      CREATE TABLE part PARTITION OF parted DEFAULT";
        let case = Case::begin(server, "computed", schema).await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO loose VALUES (1, DEFAULT, 'x'); UPDATE loose SET a = 2; DELETE FROM loose").await;
        assert_eq!(told, ["begin", "insert loose (1,x)", "update loose full(1,x) (2,x)", "delete loose full(2,x)", "commit"]);
        let told = case.told(&mut reader, "INSERT INTO keyed (id, u) VALUES (1, 5); UPDATE keyed SET id = 2").await;
        assert!(told.contains(&"insert keyed (1,5)".to_owned()) && told.last().unwrap() == "commit", "{told:?}");
        let told = case.told(&mut reader, "INSERT INTO parted VALUES (1); UPDATE parted SET a = 3").await;
        assert_eq!(told, ["begin", "insert parted (1)", "update parted full(1) (3)", "commit"]);
        // a column that came since is left out as well, and one that is computed no more is told
        let sql = "ALTER TABLE loose ADD COLUMN half int GENERATED ALWAYS AS (a / 2) STORED; INSERT INTO loose VALUES (4, DEFAULT, 'y')";
        assert_eq!(case.told(&mut reader, sql).await, ["begin", "insert loose (4,y)", "commit"]);
        let sql = "ALTER TABLE loose ALTER COLUMN twice DROP EXPRESSION; INSERT INTO loose VALUES (5, 7, 'z')";
        assert_eq!(case.told(&mut reader, sql).await, ["begin", "insert loose (5,7,z)", "commit"]);
        drop(reader);
        case.end().await;
    }
}

/// Users' updates go on, and what is told stays what the target takes.
#[tokio::test]
async fn a_computed_column_may_come_to_a_table_without_a_key_in_mid_run() {
    for server in versions() {
        let schema = "CREATE TABLE loose (a int, v text); CREATE TABLE quiet (a int); INSERT INTO quiet VALUES (1)";
        let case = Case::begin(server, "computed_later", schema).await;
        let mut reader = case.stream(&case.p0).await;
        let told = case.told(&mut reader, "INSERT INTO loose VALUES (1, 'x')").await;
        assert_eq!(told, ["begin", "insert loose (1,x)", "commit"]);
        case.sql.batch_execute("ALTER TABLE loose ADD COLUMN twice int GENERATED ALWAYS AS (a * 2) STORED").await.unwrap();
        let told = case.told(&mut reader, "UPDATE loose SET a = 2; DELETE FROM loose").await;
        assert_eq!(told, ["begin", "update loose full(1,x) (2,x)", "delete loose full(2,x)", "commit"]);
        // and of one that the stream did not speak of before
        case.sql.batch_execute("ALTER TABLE quiet ADD COLUMN twice int GENERATED ALWAYS AS (a * 2) STORED").await.unwrap();
        assert_eq!(case.told(&mut reader, "UPDATE quiet SET a = 2").await, ["begin", "update quiet full(1) (2)", "commit"]);
        // as wide as before
        let sql = "ALTER TABLE loose DROP COLUMN v, ADD COLUMN half int GENERATED ALWAYS AS (a / 2) STORED; INSERT INTO loose VALUES (4)";
        assert_eq!(case.told(&mut reader, sql).await, ["begin", "insert loose (4)", "commit"]);
        drop(reader);
        case.end().await;
    }
}

/// A commit that waits for a standby is in the log, and nobody else sees it; neither is a transaction seen that is told while
/// it is under way.
#[tokio::test]
async fn what_the_log_tells_before_it_is_seen_is_waited_for() {
    let options = [("synchronous_standby_names", "nobody"), ("synchronous_commit", "local"), ("logical_decoding_work_mem", "64kB")];
    let options = options.iter().fold(PostgresOptions::default(), |options, (name, value)| options.with_setting(name, value));
    let Some(server) = Postgres::start(18, &options) else { return };
    let schema = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)";
    let case = Case::begin(&server, "unseen", schema).await;
    let mut reader = case.stream(&case.p0).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/unseen?application_name=user", server.port());
    let halves = "ALTER TABLE t ADD COLUMN half int GENERATED ALWAYS AS (id / 2) STORED; INSERT INTO t VALUES (1)";
    let made = "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1)";
    for (sql, told) in [(halves, "insert t (1)"), (made, "insert p (1)")] {
        let user = client(&url).await;
        let sql = format!("SET synchronous_commit = on; BEGIN; {sql}; COMMIT");
        let user = tokio::spawn(async move { user.batch_execute(&sql).await });
        let shown = async {
            case.until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await;
            case.until(CAPTURE_WAITS).await;
            case.sql.batch_execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await.unwrap();
            user.await.unwrap().unwrap();
            case.mark("end").await;
        };
        let (seen, ()) = tokio::join!(reader.until_marker("end"), shown);
        assert_eq!(seen, ["begin", told, "commit"]);
    }

    // a partition that a large transaction made is waited for, too
    let user = client(&url).await;
    user.batch_execute("BEGIN; CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (9999)").await.unwrap();
    user.batch_execute("INSERT INTO p SELECT generate_series(10, 2009)").await.unwrap();
    let shown = async {
        case.mark("flush").await;
        case.until(CAPTURE_WAITS).await;
        user.batch_execute("COMMIT").await.unwrap();
        case.mark("end").await;
    };
    let read = async {
        reader.until_marker("flush").await;
        reader.until_marker("end").await
    };
    let (seen, ()) = tokio::join!(read, shown);
    assert_eq!(seen.last().unwrap(), "streamed commit");

    // and one that is rolled back, or its part, is read past
    let in_part: &[&str] = &["streamed part 1", "streamed commit"];
    for (ended, left) in [("ROLLBACK", &[][..]), ("ROLLBACK TO made; INSERT INTO t VALUES (7); COMMIT", in_part)] {
        user.batch_execute("BEGIN; SAVEPOINT made; CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (10000) TO (20000)").await.unwrap();
        user.batch_execute("INSERT INTO p SELECT generate_series(10000, 11999)").await.unwrap();
        let ends = async {
            case.mark("flush").await;
            case.until(CAPTURE_WAITS).await;
            user.batch_execute(ended).await.unwrap();
        };
        let refused = async {
            loop {
                if let Err(error) = reader.next().await {
                    break error;
                }
            }
        };
        let (error, ()) = tokio::join!(refused, ends);
        assert!(error.is(&codes::RETRYABLE), "{error}");
        let last = reader.last.clone().unwrap();
        drop(reader);
        reader = case.stream(&last).await;
        case.mark("past").await;
        let mut told = reader.until_marker("flush").await;
        told.extend(reader.until_marker("past").await);
        assert_eq!(told, left);
    }

    // what it altered does not hold others up, and is asked for again at its commit
    user.batch_execute("BEGIN; ALTER TABLE t ADD COLUMN third int GENERATED ALWAYS AS (id / 3) STORED").await.unwrap();
    user.batch_execute("INSERT INTO t SELECT generate_series(10, 2009)").await.unwrap();
    case.mark("others").await;
    let seen = reader.until_marker("others").await;
    assert!(seen.iter().any(|told| told.starts_with("streamed whole")), "{seen:?}");
    user.batch_execute("COMMIT").await.unwrap();
    let error = loop {
        if let Err(error) = reader.next().await {
            break error;
        }
    };
    assert!(error.is(&codes::RETRYABLE), "{error}");
    let last = reader.last.clone().unwrap();
    drop(reader);
    let mut reader = case.stream(&last).await;
    let told = case.told(&mut reader, "INSERT INTO t VALUES (9)").await;
    assert_eq!(told[told.len() - 3..], ["begin", "insert t (9)", "commit"]);
    assert!(told.contains(&"streamed commit".to_owned()), "{told:?}");
    drop(reader);
    case.end().await;
}

/// A session that capture opened since the user's transaction began has asked for it.
const CAPTURE_WAITS: &str =
    "SELECT count(*) FROM pg_stat_activity a WHERE application_name = 'godwit capture' AND query LIKE '%transactionid%'
    AND backend_start > (SELECT max(xact_start) FROM pg_stat_activity WHERE application_name = 'user')";

#[tokio::test]
async fn a_virtual_column_without_a_key_is_refused_before_users_are() {
    let Some(server) = servers::shared(18) else { return };
    let schema = "CREATE TABLE whole (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2)); ALTER TABLE whole REPLICA IDENTITY FULL";
    let mut case = Case::begin(server, "virtual_columns", schema).await;
    let identity = "SELECT relreplident = 'f' FROM pg_class WHERE relname = 'whole'";
    assert!(!case.sql.query_one(identity, &[]).await.unwrap().get::<_, bool>(0));
    let mut reader = case.stream(&case.p0).await;
    let told = case.told(&mut reader, "INSERT INTO whole VALUES (1); UPDATE whole SET id = 2").await;
    assert_eq!(told, ["begin", "insert whole (1)", "update whole key(1) (2)", "commit"]);
    drop(reader);
    case.source.remove_traces().await.unwrap();
    assert!(case.sql.query_one(identity, &[]).await.unwrap().get::<_, bool>(0), "given back");

    case.sql.batch_execute("CREATE TABLE loose (a int, twice int GENERATED ALWAYS AS (a * 2))").await.unwrap();
    case.tables = case.source.describe(&case.task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let refused = case.source.establish(&case.tables, None).await.err().unwrap();
    assert!(refused.is(&codes::TASK_UNSUPPORTED) && refused.to_string().contains("virtual generated column"), "{refused}");
    case.sql.batch_execute("INSERT INTO loose VALUES (1); UPDATE loose SET a = 2").await.unwrap();
    let needs = godwit_model::SourceNeeds { task: &case.task, tables: &case.tables, changes: true };
    let findings = case.source.check(&needs).await.unwrap();
    assert!(findings.iter().any(|finding| finding.check == "virtual"), "{findings:?}");
    case.end().await;
}

#[tokio::test]
async fn a_lock_of_a_user_is_not_queued_behind() {
    let Some(server) = servers::shared(18) else { return };
    let sql = client(&server.create_database("queued")).await;
    sql.batch_execute("CREATE TABLE k (v int)").await.unwrap();
    let holder = client(&server.url("queued")).await;
    holder.batch_execute("BEGIN; LOCK TABLE k IN ROW EXCLUSIVE MODE").await.unwrap();
    let task = task(server, "queued");
    let source = godwit_postgres::source(&task).unwrap();
    let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let (established, slowest) = tokio::join!(source.establish(&tables, None), async {
        let mut slowest = Duration::ZERO;
        for value in 0..40 {
            let began = std::time::Instant::now();
            sql.execute("INSERT INTO k VALUES ($1)", &[&value]).await.unwrap();
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
        slowest
    });
    established.unwrap();
    assert!(slowest < Duration::from_millis(600), "a user waited {slowest:?}");
    source.remove_traces().await.unwrap();
}

#[tokio::test]
async fn prepared_transactions_are_told_when_they_are_committed() {
    for server in versions() {
        let case = Case::begin(server, "prepared", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut reader = case.stream(&case.p0).await;
        let gid = format!("p{}", server.major());
        let told = case.told(&mut reader, &format!("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '{gid}'")).await;
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(case.told(&mut reader, &format!("COMMIT PREPARED '{gid}'")).await, ["begin", "insert t (1)", "commit"]);
        case.end().await;
    }
}

#[tokio::test]
async fn the_least_role_can_be_captured_from() {
    for server in versions() {
        let admin = client(&server.create_database("least")).await;
        let role = format!("least{}", server.major());
        admin
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE least TO {role}; CREATE SCHEMA AUTHORIZATION {role}; \
                 SET ROLE {role}; CREATE TABLE {role}.t (id int PRIMARY KEY); CREATE TABLE {role}.k (v int)"
            ))
            .await
            .unwrap();
        let mut task = task(server, "least");
        task.source.user = Some(role.clone());
        let source = godwit_postgres::source(&task).unwrap();
        let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        assert_eq!(tables.len(), 2);
        let p0 = source.establish(&tables, None).await.unwrap().position;
        let old = source.changes(&p0, &tables).await.unwrap();
        let mut reader = Reader::new(source.changes(&p0, &tables).await.unwrap());
        drop(old);
        admin.batch_execute(&format!("INSERT INTO {role}.t VALUES (1); INSERT INTO {role}.k VALUES (2)")).await.unwrap();
        source.mark(&Marker("end".to_owned())).await.unwrap();
        assert_eq!(reader.until_marker("end").await, ["begin", "insert t (1)", "insert k (2)", "commit"]);
        assert!(source.backlog().await.unwrap().is_some());
        drop(reader);
        assert_eq!(source.traces().await.unwrap().len(), 3);
        source.remove_traces().await.unwrap();
        assert!(source.traces().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_promotion_is_followed_if_it_kept_the_position() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_fsync()) else { return };
    let case = Case::begin(&server, "promoted", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut reader = case.stream(&case.p0).await;
    assert_eq!(case.told(&mut reader, "INSERT INTO t VALUES (1)").await.len(), 3);
    let durable = reader.last.clone().unwrap();
    drop(reader);
    case.sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    server.stop();
    server.write_file("standby.signal", b"");
    server.restart();
    let sql = client(&server.url("promoted")).await;
    assert!(sql.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    sql.batch_execute("CREATE TABLE more AS SELECT generate_series(1, 10000) g; INSERT INTO t VALUES (3)").await.unwrap();

    let mut again = case.stream(&durable).await;
    case.mark("end").await;
    assert_eq!(again.until_marker("end").await, ["begin", "insert t (2)", "commit", "begin", "insert t (3)", "commit"]);
    let last = again.last.clone().unwrap().to_string();
    assert!(last.ends_with(".2"), "{last}");
    drop(again);

    let diverged = Position::from(format!("{}.1", last.strip_suffix(".2").unwrap()));
    let error = case.source.changes(&diverged, &case.tables).await.err().unwrap();
    assert!(error.is(&codes::SOURCE_CHANGED), "{error}");
}

#[tokio::test]
async fn the_slot_is_made_for_failover_where_the_server_knows_it() {
    for (major, known) in [(15, false), (17, true), (18, true)] {
        let Some(server) = servers::shared(major) else { continue };
        let case = Case::begin(server, "failing_over", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let made = "SELECT coalesce(to_jsonb(s) ->> 'failover' = 'true', false) FROM pg_replication_slots s WHERE slot_name = 'godwit_failing_over'";
        assert_eq!(case.sql.query_one(made, &[]).await.unwrap().get::<_, bool>(0), known, "{major}");
        case.end().await;
    }
}

#[tokio::test]
async fn a_standby_that_kept_the_slot_in_step_is_read_on_after_a_failover() {
    // the server's worker looks at slots every half minute where little happens
    const IN_STEP_LIMIT: Duration = Duration::from_secs(300);
    if std::env::var_os("GODWIT_TEST_LONG").is_none() {
        return;
    }
    let Some(primary) = Postgres::start(18, &PostgresOptions::default().with_fsync()) else { return };
    let sql = client(&primary.create_database("kept")).await;
    sql.batch_execute("SELECT pg_create_physical_replication_slot('standby', true)").await.unwrap();
    drop(sql);
    primary.stop();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("data");
    assert!(std::process::Command::new("cp").arg("-a").arg(primary.data_dir()).arg(&copy).status().unwrap().success());
    std::fs::write(copy.join("standby.signal"), b"").unwrap();
    primary.set("synchronized_standby_slots", "standby");
    primary.restart();
    let options = PostgresOptions::default()
        .with_fsync()
        .with_data_of(&copy)
        .with_setting("primary_conninfo", &format!("host=127.0.0.1 port={} user=postgres dbname=kept", primary.port()))
        .with_setting("primary_slot_name", "standby")
        .with_setting("hot_standby_feedback", "on")
        .with_setting("sync_replication_slots", "on");
    let Some(standby) = Postgres::start(18, &options) else { return };

    let sql = client(&primary.url("kept")).await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut task = task(&primary, "kept");
    let source = godwit_postgres::source(&task).unwrap();
    let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let p0 = source.establish(&tables, None).await.unwrap().position;
    let mut reader = Reader::new(source.changes(&p0, &tables).await.unwrap());
    let there = client(&standby.url("kept")).await;
    let in_step = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'godwit_kept' AND synced AND NOT temporary";
    let deadline = std::time::Instant::now() + IN_STEP_LIMIT;
    let mut id = 0;
    // the standby keeps the slot from where it finds it in step with its own log, so something must happen meanwhile
    while there.query_one(in_step, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(std::time::Instant::now() < deadline, "the standby does not keep the slot: {}", standby.log());
        id += 1;
        sql.batch_execute(&format!("INSERT INTO t VALUES ({id}); SELECT pg_log_standby_snapshot()")).await.unwrap();
        source.mark(&Marker(format!("m{id}"))).await.unwrap();
        reader.until_marker(&format!("m{id}")).await;
        let durable = reader.last.clone().unwrap();
        reader.stream.confirm(&durable).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let durable = reader.last.clone().unwrap();
    sql.batch_execute("INSERT INTO t VALUES (-1)").await.unwrap();
    drop(reader);
    drop(sql);
    primary.stop();
    assert!(there.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    there.batch_execute("INSERT INTO t VALUES (-2)").await.unwrap();
    task.source.port = Some(standby.port());
    let source = godwit_postgres::source(&task).unwrap();
    let mut reader = Reader::new(source.changes(&durable, &tables).await.unwrap());
    source.mark(&Marker("promoted".to_owned())).await.unwrap();
    let told = reader.until_marker("promoted").await;
    assert_eq!(told, ["begin", "insert t (-1)", "commit", "begin", "insert t (-2)", "commit"]);
}

#[tokio::test]
async fn what_the_server_lacks_is_said() {
    let options = PostgresOptions::default().with_setting("wal_level", "replica");
    let Some(server) = Postgres::start(15, &options) else { return };
    let sql = client(&server.create_database("lacking")).await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let task = task(&server, "lacking");
    let source = godwit_postgres::source(&task).unwrap();
    let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let error = source.establish(&tables, None).await.err().unwrap();
    assert!(error.is(&codes::SETTING_UNSUITABLE) && error.what().contains("wal_level"), "{error}");
}

#[tokio::test]
async fn tables_that_are_not_selected_change_nothing() {
    for server in versions() {
        let case = Case::begin(server, "unselected", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut reader = case.stream(&case.p0).await;
        let noise = "CREATE TABLE late (id int); INSERT INTO late VALUES (1); ALTER TABLE late ADD x int; UPDATE late SET x = 1; \
                     TRUNCATE late; DROP TABLE late; INSERT INTO t VALUES (1)";
        assert_eq!(case.told(&mut reader, noise).await, ["begin", "insert t (1)", "commit"]);
        drop(reader);

        case.sql.batch_execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
        let error = case.source.changes(&case.p0, &case.tables).await.err().unwrap();
        assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
        case.end().await;
    }
}
