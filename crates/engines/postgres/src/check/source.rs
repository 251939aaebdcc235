//! The source's settings, rights and surroundings.

use godwit_model::{EndpointConfig, Finding, Result, Severity, SourceNeeds, Writes, codes};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{tables, trial};
use crate::{connect, error, establish, names};

pub(crate) async fn source(client: &Client, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    version(client, &mut findings).await?;
    pooler(client, &needs.task.source, &mut findings).await?;
    encoding(client, &mut findings).await?;
    tables::check(client, needs, &mut findings).await?;
    if needs.changes {
        standby(client, needs, &mut findings).await?;
        settings(client, &mut findings).await?;
        replication_right(client, &mut findings).await?;
        old_transactions(client, &mut findings).await?;
        match needs.task.writes {
            Writes::Marker => trial::publication(client, needs, &mut findings).await?,
            Writes::Never => given(client, needs, &mut findings).await?,
        }
        if findings.iter().all(|finding| finding.severity != Severity::Blocker) {
            trial::slot(client, needs, &mut findings).await?;
        }
    }
    collations(client, &mut findings).await?;
    role_timeouts(client, &mut findings).await?;
    Ok(findings)
}

pub(super) async fn version(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let number: i32 = client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.map_err(error::from_server)?.get(0);
    if number < 140_000 {
        let what = format!("the server is PostgreSQL {}", number / 10_000);
        findings.push(Finding::blocker("version", &codes::VERSION_UNSUPPORTED, what, "PostgreSQL 14 or newer is needed"));
    }
    Ok(())
}

/// A pooler that gives every transaction another backend breaks snapshots, slots and settings. It shows itself by a
/// backend that serves two connections at once, or by one connection that two backends serve.
pub(super) async fn pooler(client: &Client, endpoint: &EndpointConfig, findings: &mut Vec<Finding>) -> Result<()> {
    let first = backend(client).await?;
    let other = connect::sql(endpoint, "godwit check").await?;
    // inside a transaction it keeps its backend, and the first connection must be given another one
    other.batch_execute("BEGIN").await.map_err(error::from_server)?;
    let between = backend(&other).await?;
    let second = backend(client).await?;
    other.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
    if first != second || between == first {
        findings.push(Finding::blocker(
            "pooler",
            &codes::SETTING_UNSUITABLE,
            "the server's backends are handed from connection to connection: a pooler is in between",
            "give the server's own address and port, or a pool in session mode",
        ));
    }
    Ok(())
}

/// Asked in the simple protocol: a statement that is prepared by name would be lost or met again behind a pooler.
async fn backend(client: &Client) -> Result<Option<String>> {
    let messages = client.simple_query("SELECT pg_backend_pid()").await.map_err(error::from_server)?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn encoding(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let encoding: String = client.query_one("SELECT current_setting('server_encoding')", &[]).await.map_err(error::from_server)?.get(0);
    if encoding == "SQL_ASCII" {
        findings.push(Finding::blocker(
            "encoding",
            &codes::SETTING_UNSUITABLE,
            "the database has the encoding SQL_ASCII: its texts may hold bytes of any charset",
            "move the data into a database with a real encoding first",
        ));
    }
    Ok(())
}

/// An index made under another version of a collation may not find what is there.
pub(super) async fn collations(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname), quote_ident(current_database())
        FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE c.collversion IS NOT NULL AND c.collversion <> pg_collation_actual_version(c.oid) ORDER BY 1";
    let rows = client.query(sql, &[]).await.map_err(error::from_server)?;
    if let Some(first) = rows.first() {
        let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let what = format!("collations changed their version since they were made: {}", names.join(", "));
        let refresh: Vec<String> = names.iter().map(|name| format!("ALTER COLLATION {name} REFRESH VERSION")).collect();
        let remedy = format!(
            "REINDEX DATABASE {}; {} -- REINDEX of the indexes that use them is enough",
            first.get::<_, &str>(1),
            refresh.join("; ")
        );
        findings.push(Finding::warning("collation_version", what, remedy));
    }
    // since version 15 a database has one of its own
    let sql =
        "SELECT to_jsonb(d) ->> 'datcollversion', quote_ident(d.datname), d.oid FROM pg_database d WHERE d.datname = current_database()";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    let (Some(made), name, oid) = (row.get::<_, Option<&str>>(0), row.get::<_, &str>(1), row.get::<_, u32>(2)) else { return Ok(()) };
    let sql = "SELECT pg_database_collation_actual_version($1)";
    let now: Option<String> = client.query_one(sql, &[&oid]).await.map_err(error::from_server)?.get(0);
    if now.as_deref().is_some_and(|now| now != made) {
        let what = format!("the database's collation has version {}, and was {made} when it was made", now.unwrap_or_default());
        let remedy = format!(
            "REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION -- REINDEX of the indexes on texts is enough"
        );
        findings.push(Finding::warning("collation_version", what, remedy));
    }
    Ok(())
}

async fn standby(client: &Client, needs: &SourceNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    if client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(error::from_server)?.get(0) {
        let remedy = match needs.task.writes {
            Writes::Marker => "name the primary: publications and markers can be written only there",
            Writes::Never => {
                "name the primary: this version does not follow changes at a standby; loading alone works (`phases: [schema, load]`)"
            }
        };
        findings.push(Finding::blocker("standby", &codes::SETTING_UNSUITABLE, "the source is a standby", remedy));
    }
    Ok(())
}

/// Nothing may be made: what capture needs must be there, each with the statements that an administrator runs.
async fn given(client: &Client, needs: &SourceNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    if needs.tables.is_empty() {
        return Ok(());
    }
    let name = names::of_task(&needs.task.name);
    for lack in establish::lacking(client, &name, needs.tables).await? {
        let remedy = format!("let an administrator run: {}", lack.statements.join("; "));
        findings.push(Finding::blocker("publication", &codes::SETTING_UNSUITABLE, lack.what, remedy));
    }
    Ok(())
}

const SETTINGS: &str = "
SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int8, (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int8, (SELECT count(*) FROM pg_stat_replication),
       current_setting('synchronous_standby_names'), current_setting('max_slot_wal_keep_size')";

/// For a task, and what it needs for a moment (verify of a table without a key).
const ROOM: i64 = 2;

async fn settings(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let row = client.query_one(SETTINGS, &[]).await.map_err(error::from_server)?;
    if row.get::<_, &str>(0) != "logical" {
        findings.push(Finding::blocker(
            "wal_level",
            &codes::SETTING_UNSUITABLE,
            format!("wal_level is {}", row.get::<_, &str>(0)),
            "ALTER SYSTEM SET wal_level = logical -- then restart the server (managed services: rds.logical_replication = 1, cloudsql.logical_decoding = on)",
        ));
    }
    for (check, most, used, setting) in [
        ("replication_slots", row.get::<_, i64>(1), row.get::<_, i64>(2), "max_replication_slots"),
        ("wal_senders", row.get(3), row.get(4), "max_wal_senders"),
    ] {
        if used >= most {
            let what = format!("all {most} of {setting} are in use");
            let remedy = format!(
                "ALTER SYSTEM SET {setting} = {} -- then restart the server; not needed if one of them is this task's own",
                used + ROOM
            );
            findings.push(Finding::warning(check, what, remedy));
        }
    }
    let standbys: &str = row.get(5);
    if standbys.contains('*') || standbys.contains("godwit") {
        findings.push(Finding::blocker(
            "synchronous_standby_names",
            &codes::SETTING_UNSUITABLE,
            format!("synchronous_standby_names = '{standbys}' would take Godwit for a standby, and users' commits would wait for it"),
            "name the standbys one by one",
        ));
    }
    if row.get::<_, &str>(6) != "-1" {
        let what = format!("max_slot_wal_keep_size is {}: beyond that the server drops what a slot still needs", row.get::<_, &str>(6));
        let remedy =
            "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf() -- or more than the source writes while the load runs";
        findings.push(Finding::warning("slot_wal_keep", what, remedy));
    }
    Ok(())
}

/// Managed services give the right by a role of their own instead of the attribute.
async fn replication_right(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT r.rolreplication OR r.rolsuper OR EXISTS (
            SELECT FROM pg_roles m WHERE m.rolname IN ('rds_replication', 'azure_pg_admin', 'cloudsqlsuperuser') AND pg_has_role(current_user, m.oid, 'member')),
        current_user::text FROM pg_roles r WHERE r.rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    if !row.get::<_, bool>(0) {
        let role: &str = row.get(1);
        findings.push(Finding::blocker(
            "replication_right",
            &codes::RIGHTS_MISSING,
            format!("the role {role} may not replicate"),
            format!("ALTER ROLE {0} REPLICATION -- managed services: GRANT rds_replication TO {0}", crate::quote::identifier(role)),
        ));
    }
    Ok(())
}

/// Whatever is open when the slot is made is waited for.
async fn old_transactions(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT pid, coalesce(usename::text, ''), extract(epoch FROM now() - xact_start)::int8 FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start < now() - interval '1 minute'
          AND backend_xid IS NOT NULL ORDER BY xact_start LIMIT 10";
    for row in client.query(sql, &[]).await.map_err(error::from_server)? {
        let (pid, user, age): (i32, &str, i64) = (row.get(0), row.get(1), row.get(2));
        let what = format!("the transaction of pid {pid} ({user}) has been open for {age} s");
        let remedy = format!("let it end: making the slot waits for it; what it did is lost with `SELECT pg_terminate_backend({pid})`");
        findings.push(Finding::warning("long_transaction", what, remedy));
    }
    let sql = "SELECT gid, owner::text, extract(epoch FROM now() - prepared)::int8 FROM pg_prepared_xacts WHERE prepared < now() - interval '5 seconds' LIMIT 10";
    for row in client.query(sql, &[]).await.map_err(error::from_server)? {
        let (gid, owner, age): (&str, &str, i64) = (row.get(0), row.get(1), row.get(2));
        let what = format!("the transaction {gid} of {owner} was prepared {age} s ago and never ended");
        findings.push(Finding::warning(
            "prepared_transaction",
            what,
            format!(
                "end it as its application would: `COMMIT PREPARED {0}`, or `ROLLBACK PREPARED {0}`, which loses what it did",
                crate::quote::literal(gid)
            ),
        ));
    }
    Ok(())
}

async fn role_timeouts(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT s.setting FROM pg_db_role_setting d CROSS JOIN LATERAL unnest(d.setconfig) AS s(setting)
        WHERE (d.setdatabase = 0 OR d.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND (d.setrole = 0 OR d.setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user))
          AND s.setting ~ '^(statement_timeout|lock_timeout|idle_in_transaction_session_timeout|transaction_timeout|idle_session_timeout)='";
    for row in client.query(sql, &[]).await.map_err(error::from_server)? {
        let setting: &str = row.get(0);
        findings.push(Finding::note("role_timeouts", format!("{setting} is set on the role or database; Godwit's sessions set their own")));
    }
    Ok(())
}
