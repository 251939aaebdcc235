//! What `check` says of a server, and that it leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_model::{Finding, Severity, SourceNeeds, Table, TableMapping, TargetNeeds, Task, Writes};
use godwit_testkit::servers::{Pooler, Postgres, PostgresOptions};
use tokio_postgres::Client;

use super::capture::{client, task, versions};
use super::pair;

/// Everything with a name, that a check could leave: by catalog, how many and which.
const CATALOGS: &str = "
SELECT 'relations', string_agg(oid::text, ',' ORDER BY oid) FROM pg_class WHERE relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT 'schemas', string_agg(oid::text, ',' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
UNION ALL SELECT 'functions', string_agg(oid::text, ',' ORDER BY oid) FROM pg_proc
UNION ALL SELECT 'publications', string_agg(oid::text, ',' ORDER BY oid) FROM pg_publication
UNION ALL SELECT 'triggers', string_agg(oid::text, ',' ORDER BY oid) FROM pg_trigger
UNION ALL SELECT 'event triggers', string_agg(oid::text, ',' ORDER BY oid) FROM pg_event_trigger
UNION ALL SELECT 'identities', string_agg(oid::text || relreplident::text, ',' ORDER BY oid) FROM pg_class
UNION ALL SELECT 'origins', string_agg(roname, ',' ORDER BY roname) FROM pg_replication_origin
UNION ALL SELECT 'slots', string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots WHERE database = current_database()";

async fn catalogs(sql: &Client) -> BTreeMap<String, Option<String>> {
    sql.query(CATALOGS, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

struct Case {
    admin: Client,
    task: Task,
}

impl Case {
    async fn new(server: &Postgres, name: &str, schema: &str) -> Case {
        let admin = client(&server.create_database(name)).await;
        admin.batch_execute(schema).await.unwrap();
        Case { admin, task: task(server, name) }
    }

    fn with_role(mut self, role: &str) -> Case {
        self.task.source.user = Some(role.to_owned());
        self
    }

    async fn check(&self) -> Vec<Finding> {
        let source = godwit_postgres::source(&self.task).unwrap();
        let mut of_tables = self.task.clone();
        of_tables.schema.create = godwit_model::Create::None;
        let tables: Vec<Arc<Table>> = source.describe(&of_tables).await.unwrap().tables.into_iter().map(Arc::new).collect();
        source.check(&SourceNeeds { task: &self.task, tables: &tables, changes: true }).await.unwrap()
    }

    /// The finding of this name, with its remedy.
    #[track_caller]
    fn found(findings: &[Finding], check: &str, severity: Severity) -> String {
        let finding = findings.iter().find(|finding| finding.check == check);
        let finding = finding.unwrap_or_else(|| panic!("no {check} in {findings:#?}"));
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(severity == Severity::Note || finding.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{finding:?}");
        format!("{} | {}", finding.what, finding.remedy.clone().unwrap_or_default())
    }

    async fn expect(&self, check: &str, severity: Severity, words: &str) {
        let findings = self.check().await;
        let said = Self::found(&findings, check, severity);
        assert!(said.contains(words), "{said}");
    }

    /// Runs what a finding says, word for word.
    async fn perform(&self, finding: &Finding) {
        perform(&self.admin, finding.remedy.as_deref().unwrap()).await;
    }

    async fn expect_nothing(&self, check: &str) {
        let findings = self.check().await;
        assert!(findings.iter().all(|finding| finding.check != check), "{findings:#?}");
    }
}

/// What stands before the words is SQL, statement by statement.
async fn perform(admin: &Client, remedy: &str) {
    let sql = remedy.split(" -- ").next().unwrap();
    for statement in sql.split("; ") {
        admin.batch_execute(statement).await.unwrap_or_else(|problem| panic!("{problem:?} in {statement} of {remedy}"));
    }
}

/// What is more than a note, without what other tests on the same server may cause.
fn checks(findings: &[Finding]) -> Vec<&str> {
    let of_others = |check: &str| matches!(check, "trial_slot" | "long_transaction" | "prepared_transaction");
    findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
        .map(|finding| finding.check)
        .filter(|check| !of_others(check))
        .collect()
}

#[tokio::test]
async fn rights_that_lack_are_told_all_at_once_and_given_by_what_is_told() {
    for server in versions() {
        let (owner, role) = (format!("grantor{}", server.major()), format!("lacking{}", server.major()));
        let schema = format!(
            "CREATE ROLE {owner}; CREATE ROLE {role} LOGIN; CREATE SCHEMA \"Odd s\"; CREATE TABLE \"Odd s\".a (id serial PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9); GRANT SELECT ON parted TO {role};
             CREATE TABLE may (id int PRIMARY KEY); GRANT SELECT ON may TO {role}; CREATE SEQUENCE free; CREATE TABLE silent (id int PRIMARY KEY); ALTER TABLE silent REPLICA IDENTITY NOTHING;
             CREATE TABLE keyless (v int); CREATE UNLOGGED TABLE quick (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['\"Odd s\".a', 'b', 'parted', 'parted_1', 'may', 'silent', 'keyless', 'quick', 'hidden'] LOOP EXECUTE format('ALTER TABLE %s OWNER TO {owner}', t); END LOOP; END $$"
        );
        let case = Case::new(server, "lacking", &schema).await.with_role(&role);
        let findings = case.check().await;
        let told = [
            "read_right",
            "sequence_right",
            "row_security",
            "unlogged",
            "key",
            "replica_identity",
            "ownership",
            "replication_right",
            "publication",
        ];
        assert_eq!(checks(&findings), told);
        let unread = Case::found(&findings, "read_right", Severity::Blocker);
        for table in ["Odd s.a", "public.b", "public.parted_1", "public.silent", "public.keyless", "public.quick", "public.hidden"] {
            assert!(unread.contains(table), "{table} in {unread}");
        }
        assert!(!unread.contains("public.may"), "{unread}");
        for finding in findings.iter().filter(|finding| told.contains(&finding.check)) {
            case.perform(finding).await;
        }
        assert_eq!(checks(&case.check().await), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn settings_are_mended_by_what_is_told() {
    let options = PostgresOptions::default()
        .with_setting("wal_level", "replica")
        .with_setting("max_replication_slots", "1")
        .with_setting("max_slot_wal_keep_size", "64MB");
    let Some(server) = Postgres::start(15, &options) else { return };
    let schema = "CREATE TABLE t (id int PRIMARY KEY); SELECT pg_create_physical_replication_slot('taken')";
    let case = Case::new(&server, "unready", schema).await;
    let findings = case.check().await;
    assert_eq!(checks(&findings), ["wal_level", "replication_slots", "slot_wal_keep"]);
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Note) {
        case.perform(finding).await;
    }
    drop(case);
    server.restart();
    let case = Case { admin: client(&server.url("unready")).await, task: task(&server, "unready") };
    assert_eq!(checks(&case.check().await), Vec::<&str>::new());
}

#[tokio::test]
async fn full_senders_are_told_and_given_room() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_setting("max_wal_senders", "1")) else { return };
    let case = Case::new(&server, "senders", "CREATE TABLE t (id int PRIMARY KEY)").await;
    assert_eq!(checks(&case.check().await), Vec::<&str>::new());
    let mut other = case.task.clone();
    other.name = godwit_model::TaskName::parse("other").unwrap();
    let source = godwit_postgres::source(&other).unwrap();
    let tables: Vec<_> = source.describe(&other).await.unwrap().tables.into_iter().map(Arc::new).collect();
    // its snapshot is held by a sender
    let held = source.establish(&tables, None).await.unwrap();
    let findings = case.check().await;
    assert_eq!(checks(&findings), ["wal_senders"]);
    assert!(Case::found(&findings, "wal_senders", Severity::Warning).contains("max_wal_senders = 3"));
    case.perform(&findings[0]).await;
    drop((held, source, case));
    server.restart();
    let source = godwit_postgres::source(&other).unwrap();
    let _held = source.establish(&tables, None).await.unwrap();
    let case = Case { admin: client(&server.url("senders")).await, task: task(&server, "senders") };
    assert_eq!(checks(&case.check().await), Vec::<&str>::new());
}

#[tokio::test]
async fn collations_of_another_version_are_told_and_refreshed() {
    for server in versions() {
        let case =
            Case::new(server, "versioned", "CREATE TABLE t (id int PRIMARY KEY); CREATE COLLATION mine (provider = icu, locale = 'de')")
                .await;
        assert_eq!(checks(&case.check().await), Vec::<&str>::new());
        case.admin.batch_execute("UPDATE pg_collation SET collversion = '1.2.3' WHERE collname = 'mine'").await.unwrap();
        let findings = case.check().await;
        assert!(Case::found(&findings, "collation_version", Severity::Warning).contains("public.mine"));
        case.perform(findings.iter().find(|finding| finding.check == "collation_version").unwrap()).await;
        assert_eq!(checks(&case.check().await), Vec::<&str>::new());
        if server.major() < 15 {
            continue;
        }
        let sql = "CREATE DATABASE versioned_whole ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C' TEMPLATE template0";
        case.admin.batch_execute(sql).await.unwrap();
        let admin = client(&server.url("versioned_whole")).await;
        admin.batch_execute("CREATE TABLE t (id text PRIMARY KEY)").await.unwrap();
        let case = Case { admin, task: task(server, "versioned_whole") };
        assert_eq!(checks(&case.check().await), Vec::<&str>::new());
        case.admin.batch_execute("UPDATE pg_database SET datcollversion = '1.2.3' WHERE datname = current_database()").await.unwrap();
        let findings = case.check().await;
        assert!(Case::found(&findings, "collation_version", Severity::Warning).contains("1.2.3"));
        case.perform(findings.iter().find(|finding| finding.check == "collation_version").unwrap()).await;
        assert_eq!(checks(&case.check().await), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn what_the_target_lacks_is_mended_by_what_is_told() {
    for server in versions() {
        let mut case = Case::new(server, "lender", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE \"Made\" (id int PRIMARY KEY)").await;
        let source = godwit_postgres::source(&case.task).unwrap();
        let mut of_tables = case.task.clone();
        of_tables.schema.create = godwit_model::Create::Tables;
        let description = source.describe(&of_tables).await.unwrap();
        let mappings: Vec<_> = TableMapping::resolve_all(&[], &description.tables).unwrap().into_iter().map(Arc::new).collect();
        let role = format!("receiver{}", server.major());
        let sql = "CREATE DATABASE \"re ceiver\" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
        case.admin.batch_execute(sql).await.unwrap();
        let there = client(&server.url("re%20ceiver")).await;
        there
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN; REVOKE ALL ON DATABASE \"re ceiver\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"re ceiver\" TO {role};
                 REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)"
            ))
            .await
            .unwrap();
        case.task.target = pair::endpoint(server, "re ceiver");
        case.task.target.user = Some(role.clone());
        let check = async |task: &Task| {
            let needs = TargetNeeds { task, description: &description, mappings: &mappings };
            godwit_postgres::target(task).unwrap().check(&needs).await.unwrap()
        };
        let findings = check(&case.task).await;
        let told = ["create_right", "temporary_right", "replica_role", "schema_right", "encoding", "table_right"];
        assert_eq!(checks(&findings), told);
        for finding in &findings {
            match finding.check {
                // before 15 only a superuser may
                "replica_role" if server.major() < 15 => {}
                _ => perform(&there, finding.remedy.as_deref().unwrap()).await,
            }
        }
        let rest: &[&str] = if server.major() < 15 { &["replica_role", "encoding", "existing"] } else { &["encoding", "existing"] };
        assert_eq!(checks(&check(&case.task).await), rest);
        let mut kept = case.task.clone();
        kept.existing = godwit_model::Existing::Append;
        assert_eq!(checks(&check(&kept).await), &rest[..rest.len() - 1]);
        there.batch_execute("DELETE FROM t").await.unwrap();
        assert_eq!(checks(&check(&case.task).await), &rest[..rest.len() - 1]);
        // the database that was told
        case.task.target = pair::endpoint(server, "re ceiver_utf8");
        assert_eq!(case.task.target.user.as_deref(), Some("postgres"));
        assert_eq!(checks(&check(&case.task).await), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    for server in versions() {
        let schema = "CREATE TABLE t (id int PRIMARY KEY, s serial); CREATE TABLE k (v text); INSERT INTO t VALUES (1)";
        let mut case = Case::new(server, "spotless_check", schema).await;
        let there = client(&server.create_database("spotless_there")).await;
        case.task.target = pair::endpoint(server, "spotless_there");
        for writes in [Writes::Marker, Writes::Never] {
            case.task.writes = writes;
            let before = (catalogs(&case.admin).await, catalogs(&there).await);
            case.check().await;
            let source = godwit_postgres::source(&case.task).unwrap();
            let mut of_tables = case.task.clone();
            of_tables.schema.create = godwit_model::Create::Tables;
            let description = source.describe(&of_tables).await.unwrap();
            let mappings = TableMapping::resolve_all(&[], &description.tables).unwrap();
            let mappings: Vec<_> = mappings.into_iter().map(Arc::new).collect();
            let needs = TargetNeeds { task: &case.task, description: &description, mappings: &mappings };
            godwit_postgres::target(&case.task).unwrap().check(&needs).await.unwrap();
            assert_eq!((catalogs(&case.admin).await, catalogs(&there).await), before);
        }
    }
}

#[tokio::test]
async fn rows_hidden_by_policies_are_a_blocker() {
    for server in versions() {
        let role = format!("hidden{}", server.major());
        let schema = format!(
            "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE ROLE {role} LOGIN REPLICATION;
             GRANT SELECT ON t TO {role}; CREATE POLICY own ON t USING (id > 5); INSERT INTO t SELECT generate_series(1, 10)"
        );
        let case = Case::new(server, "hidden", &schema).await.with_role(&role);
        case.expect("row_security", Severity::Blocker, "BYPASSRLS").await;
        case.admin.batch_execute(&format!("ALTER ROLE {role} BYPASSRLS")).await.unwrap();
        case.expect_nothing("row_security").await;
        case.admin.batch_execute(&format!("ALTER ROLE {role} NOBYPASSRLS; ALTER TABLE t OWNER TO {role}")).await.unwrap();
        case.expect_nothing("row_security").await;
        case.admin.batch_execute("ALTER TABLE t FORCE ROW LEVEL SECURITY").await.unwrap();
        case.expect("row_security", Severity::Blocker, "public.t").await;
    }
}

#[tokio::test]
async fn timeouts_of_a_role_are_told_and_do_not_end_our_sessions() {
    for server in versions() {
        let role = format!("hurried{}", server.major());
        let schema = format!(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE ROLE {role} LOGIN REPLICATION SUPERUSER;
             ALTER ROLE {role} SET statement_timeout = '50ms'; ALTER ROLE {role} SET idle_in_transaction_session_timeout = '50ms';
             ALTER ROLE {role} SET lock_timeout = '10ms'; ALTER DATABASE hurried SET idle_session_timeout = '50ms'"
        );
        let case = Case::new(server, "hurried", &schema).await.with_role(&role);
        case.expect("role_timeouts", Severity::Note, "statement_timeout").await;
        let source = godwit_postgres::source(&case.task).unwrap();
        let tables: Vec<_> = source.describe(&case.task).await.unwrap().tables.into_iter().map(Arc::new).collect();
        let established = source.establish(&tables, None).await.unwrap();
        let (exact, later) = (established.snapshot.unwrap(), source.snapshot().await.unwrap());
        // longer than every one of the timeouts: the role's own session is ended by them
        let own = client(&format!("postgres://{role}@127.0.0.1:{}/hurried", server.port())).await;
        let ended = own.batch_execute("SELECT pg_sleep(1)").await.unwrap_err();
        assert_eq!(ended.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
        case.admin.batch_execute("RESET idle_session_timeout; SELECT pg_sleep(0.3)").await.unwrap();
        for snapshot in [exact, later] {
            assert_eq!(snapshot.plan(&tables[0], 1 << 20).await.unwrap().len(), 1);
        }
        source.remove_traces().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_without_an_encoding_is_a_blocker() {
    for server in versions() {
        let admin = client(&server.url("postgres")).await;
        let sql = "CREATE DATABASE raw ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
        admin.batch_execute(sql).await.unwrap();
        let admin = client(&server.url("raw")).await;
        admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
        Case { admin, task: task(server, "raw") }.expect("encoding", Severity::Blocker, "SQL_ASCII").await;
    }
}

#[tokio::test]
async fn what_identifies_rows_badly_is_told() {
    for server in versions() {
        let schema = "CREATE TABLE keyless (v int); CREATE TABLE silent (id int PRIMARY KEY); ALTER TABLE silent REPLICA IDENTITY NOTHING;
            CREATE UNLOGGED TABLE quick (id int PRIMARY KEY); CREATE TABLE parted (v int) PARTITION BY LIST (v);
            CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); ALTER TABLE parted_1 REPLICA IDENTITY FULL;
            ALTER TABLE parted REPLICA IDENTITY FULL";
        let case = Case::new(server, "badly", schema).await;
        let findings = case.check().await;
        assert!(Case::found(&findings, "key", Severity::Warning).contains("public.keyless"));
        assert!(Case::found(&findings, "replica_identity", Severity::Blocker).contains("public.silent"));
        assert!(Case::found(&findings, "unlogged", Severity::Blocker).contains("public.quick"));
        assert!(Case::found(&findings, "partitions", Severity::Warning).contains("public.parted"));
    }
}

/// What the log does not hold of a partitioned table, and what seems to be a key and may hold NULL.
#[tokio::test]
async fn partitions_elsewhere_and_keys_that_prove_nothing_are_seen() {
    for server in versions() {
        let schema = "CREATE TABLE quick (id int PRIMARY KEY) PARTITION BY LIST (id); \
             CREATE UNLOGGED TABLE quick_1 PARTITION OF quick FOR VALUES IN (1); \
             CREATE FOREIGN DATA WRAPPER far_away; CREATE SERVER far FOREIGN DATA WRAPPER far_away; \
             CREATE TABLE torn (id int) PARTITION BY LIST (id); CREATE FOREIGN TABLE torn_1 PARTITION OF torn FOR VALUES IN (1) SERVER far; \
             CREATE DOMAIN always AS int NOT NULL; CREATE TABLE loophole (id always UNIQUE); \
             INSERT INTO loophole VALUES ((SELECT id FROM loophole)); CREATE TABLE rights (id int PRIMARY KEY, may aclitem[])";
        let case = Case::new(server, "proven", schema).await;
        let mut unproven = "public.loophole";
        if server.major() >= 18 {
            let schema = "CREATE TABLE begun (id int UNIQUE); INSERT INTO begun VALUES (NULL); ALTER TABLE begun ADD CONSTRAINT n NOT NULL id NOT VALID";
            case.admin.batch_execute(schema).await.unwrap();
            unproven = "public.begun, public.loophole";
        } else {
            let schema =
                "CREATE TABLE plain (a int, b int); CREATE TABLE below (a int, b int GENERATED ALWAYS AS (a * 2) STORED) INHERITS (plain)";
            case.admin.batch_execute(schema).await.unwrap();
            assert!(Case::found(&case.check().await, "generated", Severity::Warning).contains("public.below"));
        }
        let findings = case.check().await;
        assert!(Case::found(&findings, "unlogged", Severity::Blocker).contains("public.quick"));
        assert!(Case::found(&findings, "foreign_partitions", Severity::Blocker).contains("public.torn"));
        assert!(Case::found(&findings, "named_values", Severity::Warning).contains("public.rights"));
        assert!(Case::found(&findings, "key", Severity::Warning).contains(unproven));
    }
}

#[tokio::test]
async fn a_new_partition_without_a_full_identity_refuses_users_while_published() {
    // why `partitions` is told
    let Some(server) = versions().last() else { return };
    let schema = "CREATE TABLE p (v int) PARTITION BY LIST (v); ALTER TABLE p REPLICA IDENTITY FULL";
    let case = Case::new(server, "newpart", schema).await;
    case.admin
        .batch_execute("CREATE PUBLICATION x FOR TABLE p; CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1)")
        .await
        .unwrap();
    let refused = case.admin.batch_execute("DELETE FROM p").await;
    assert!(refused.is_err(), "a server that inherits the identity needs no such warning");
}

#[tokio::test]
async fn a_server_that_is_not_set_up_is_told_what_it_lacks() {
    let options = PostgresOptions::default()
        .with_setting("wal_level", "replica")
        .with_setting("max_replication_slots", "1")
        .with_setting("max_wal_senders", "1")
        .with_setting("max_slot_wal_keep_size", "64MB");
    let Some(server) = Postgres::start(15, &options) else { return };
    let schema = "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE plain LOGIN; SELECT pg_create_physical_replication_slot('taken')";
    let case = Case::new(&server, "unready", schema).await.with_role("plain");
    let findings = case.check().await;
    assert!(Case::found(&findings, "wal_level", Severity::Blocker).contains("ALTER SYSTEM SET wal_level"));
    assert!(Case::found(&findings, "replication_slots", Severity::Warning).contains("max_replication_slots"));
    assert!(Case::found(&findings, "slot_wal_keep", Severity::Warning).contains("64MB"));
    assert!(Case::found(&findings, "replication_right", Severity::Blocker).contains("REPLICATION"));
    assert!(Case::found(&findings, "read_right", Severity::Blocker).contains("public.t"));
    assert!(Case::found(&findings, "ownership", Severity::Blocker).contains("public.t"));
}

#[tokio::test]
async fn a_prepared_transaction_and_a_long_one_are_named() {
    let Some(server) = Postgres::start(18, &PostgresOptions::default()) else { return };
    let case = Case::new(&server, "forgotten", "CREATE TABLE t (id int PRIMARY KEY)").await;
    case.admin.batch_execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'lost and found'").await.unwrap();
    // old enough not to be one that is about to be committed
    case.admin.batch_execute("SELECT pg_sleep(5.1)").await.unwrap();
    let findings = case.check().await;
    assert!(Case::found(&findings, "prepared_transaction", Severity::Warning).contains("ROLLBACK PREPARED 'lost and found'"));
    // the trial slot waits for it, and gives up
    assert!(Case::found(&findings, "trial_slot", Severity::Warning).contains("prepared transaction 'lost and found'"));
    case.admin.batch_execute("ROLLBACK PREPARED 'lost and found'").await.unwrap();
    let open = client(&server.url("forgotten")).await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let findings = case.check().await;
    assert!(Case::found(&findings, "trial_slot", Severity::Warning).contains("long transactions"));
    open.batch_execute("ROLLBACK").await.unwrap();
    assert!(case.check().await.iter().all(|finding| finding.severity < Severity::Warning), "all is well again");
}

#[tokio::test]
async fn a_standby_is_a_blocker_as_source_and_as_target() {
    for major in [15, 18] {
        let Some(primary) = Postgres::start(major, &PostgresOptions::default()) else { return };
        let admin = client(&primary.create_database("shop")).await;
        admin
            .batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION godwit_shop FOR TABLE t")
            .await
            .unwrap();
        drop(admin);
        primary.stop();
        let signal = primary.write_file("standby.signal", b"");
        let options = PostgresOptions::default()
            .with_data_of(&primary.data_dir())
            .with_setting("primary_conninfo", &format!("host=127.0.0.1 port={} user=postgres", primary.port()));
        let Some(standby) = Postgres::start(major, &options) else { return };
        std::fs::remove_file(signal).unwrap();
        primary.restart();
        let admin = client(&standby.url("shop")).await;
        for writes in [Writes::Marker, Writes::Never] {
            let mut task = task(&standby, "shop");
            task.writes = writes;
            let source = godwit_postgres::source(&task).unwrap();
            let tables: Vec<_> = source.describe(&task).await.unwrap().tables.into_iter().map(Arc::new).collect();
            let findings = source.check(&SourceNeeds { task: &task, tables: &tables, changes: true }).await.unwrap();
            assert!(Case::found(&findings, "standby", Severity::Blocker).contains("primary"));
            let mut named = task.clone();
            named.source.port = Some(primary.port());
            let at_primary = godwit_postgres::source(&named).unwrap();
            let findings = at_primary.check(&SourceNeeds { task: &named, tables: &tables, changes: true }).await.unwrap();
            assert!(findings.iter().all(|finding| finding.check != "standby"), "{findings:#?}");
            // loading alone is no business of the primary's
            let findings = source.check(&SourceNeeds { task: &task, tables: &tables, changes: false }).await.unwrap();
            assert!(findings.iter().all(|finding| finding.severity < Severity::Blocker), "{findings:#?}");
            let snapshot = source.snapshot().await.unwrap();
            assert_eq!(snapshot.plan(&tables[0], 1 << 20).await.unwrap().len(), 1);
            // as the task's target
            let mut reversed = task.clone();
            reversed.target = pair::endpoint(&standby, "shop");
            let needs = TargetNeeds { task: &reversed, description: &Default::default(), mappings: &[] };
            let findings = godwit_postgres::target(&reversed).unwrap().check(&needs).await.unwrap();
            Case::found(&findings, "standby", Severity::Blocker);
        }
        drop(admin);
    }
}

#[tokio::test]
async fn an_extension_that_the_target_lacks_or_only_a_superuser_makes_is_told() {
    let Some(server) = versions().last() else { return };
    let case = Case::new(server, "extended", "SELECT").await;
    client(&server.create_database("bare"))
        .await
        .batch_execute("CREATE ROLE maker LOGIN; GRANT CREATE ON DATABASE bare TO maker")
        .await
        .unwrap();
    let mut task = case.task.clone();
    task.target = pair::endpoint(server, "bare");
    task.target.user = Some("maker".to_owned());
    let step = |name: &str| godwit_model::SchemaItem {
        id: format!("EXTENSION {name}"),
        stage: godwit_model::Stage::BeforeLoad,
        table: None,
        sql: vec![format!("CREATE EXTENSION {name}")],
    };
    let description = godwit_model::Description {
        items: vec![step("no_such_thing"), step("hstore"), step("file_fdw"), step("plpgsql")],
        ..Default::default()
    };
    let needs = TargetNeeds { task: &task, description: &description, mappings: &[] };
    let findings = godwit_postgres::target(&task).unwrap().check(&needs).await.unwrap();
    let types: Vec<&Finding> = findings.iter().filter(|finding| finding.check == "types").collect();
    assert_eq!(types.len(), 2, "{types:#?}");
    assert!(types.iter().any(|finding| finding.what.contains("no_such_thing") && finding.severity == Severity::Blocker));
    let closed = types.iter().find(|finding| finding.what.contains("file_fdw")).unwrap();
    perform(&client(&server.url("bare")).await, closed.remedy.as_deref().unwrap()).await;
    let findings = godwit_postgres::target(&task).unwrap().check(&needs).await.unwrap();
    let types: Vec<&Finding> = findings.iter().filter(|finding| finding.check == "types").collect();
    assert!(types.len() == 1 && types[0].what.contains("no_such_thing"), "{types:#?}");
}

#[tokio::test]
async fn a_pooler_in_between_is_a_blocker() {
    for server in versions() {
        let Some(pooler) = Pooler::start(server) else { return };
        let mut case = Case::new(server, "pooled", "CREATE TABLE t (id int PRIMARY KEY)").await;
        case.task.target = pair::endpoint(server, "pooled");
        case.expect_nothing("pooler").await;
        case.task.source.port = Some(pooler.port());
        case.expect("pooler", Severity::Blocker, "session mode").await;
        case.task.target.port = Some(pooler.port());
        let needs = TargetNeeds { task: &case.task, description: &Default::default(), mappings: &[] };
        let findings = godwit_postgres::target(&case.task).unwrap().check(&needs).await.unwrap();
        Case::found(&findings, "pooler", Severity::Blocker);
    }
}
