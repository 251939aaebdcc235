//! What must be right before a task runs: findings, each with its remedy. Only questions are asked, so nothing is left behind.

use std::collections::HashMap;

use godwit_model::{Existing, Finding, Result, SourceNeeds, Table, TableName, TargetNeeds, Writes, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::connect::{Flavor, Server};
use crate::durability::Durability;
use crate::error::from_server;
use crate::rights::{self, Level, Rights};
use crate::values::Codec;
use crate::{cascades, fitting, quote};

/// Changes that are kept for less than this are gone before a person has read why a task stopped.
const LEAST_KEPT: u64 = 24 * 3600;

/// Global settings by their names; what a version does not have is missing.
struct Settings(HashMap<String, String>);

impl Settings {
    async fn read(conn: &mut Conn, names: &[&str]) -> Result<Self> {
        let wanted = quote::list(names.iter().map(|name| quote::literal(name)));
        let rows: Vec<(String, String)> =
            conn.query(format!("SHOW GLOBAL VARIABLES WHERE variable_name IN ({wanted})")).await.map_err(from_server)?;
        Ok(Settings(rows.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name).to_ascii_uppercase().as_str(), "ON" | "1" | "YES")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }
}

pub(crate) async fn source(conn: &mut Conn, server: &Server, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
    let mut findings = versions(server);
    let rights = Rights::read(conn).await?;
    let tables = needs.tables.iter().map(|table| Level::Table(table.name.clone()));
    findings.extend(rights.findings(&rights::reading(tables)));
    findings.extend(rights::unseen(&rights, needs.task));
    if needs.changes {
        findings.extend(rights.findings(&rights::following(server.flavor, needs.task)));
        let names = [
            "log_bin",
            "binlog_format",
            "binlog_row_image",
            "server_id",
            "read_only",
            "expire_logs_days",
            "binlog_expire_logs_seconds",
            "sync_binlog",
        ];
        let settings = Settings::read(conn, &names).await?;
        findings.extend(log(&settings));
        findings.extend(images(&settings));
        if needs.task.writes == Writes::Marker && settings.is_on("read_only") {
            let what = "the server is read-only: no marker can be written there";
            findings.push(Finding::blocker("read_only", &codes::SETTING_UNSUITABLE, what, "name the server that takes writes"));
        }
        let names: Vec<TableName> = needs.tables.iter().map(|table| table.name.clone()).collect();
        findings.extend(cascades::finding(conn, &names).await?);
        findings.extend(filters(conn, needs.tables.iter().map(|table| &table.name)).await?);
    }
    findings.extend(needs.tables.iter().flat_map(|table| columns(table)));
    Ok(findings)
}

/// docs/engines says which versions were tried.
fn versions(server: &Server) -> Vec<Finding> {
    const LEAST: u32 = 100_600;
    let blocker = |what: &str, remedy: &str| {
        let what = format!("the server is {}: {what}", server.text);
        vec![Finding::blocker("version", &codes::TASK_UNSUPPORTED, what, remedy)]
    };
    match server.flavor {
        Flavor::MySql => blocker("this version moves MariaDB databases, not yet MySQL's", "use a MariaDB server"),
        Flavor::MariaDb if server.version < LEAST => blocker("versions before 10.6 are not supported", "upgrade it first"),
        Flavor::MariaDb => Vec::new(),
    }
}

fn log(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut blocker = |check, what: String, remedy: &str| findings.push(Finding::blocker(check, &codes::SETTING_UNSUITABLE, what, remedy));
    if !settings.is_on("log_bin") {
        blocker("log_bin", "the server writes no binary log".to_owned(), "start it with log_bin");
        return findings;
    }
    if !settings.get("binlog_format").is_empty() && settings.get("binlog_format") != "ROW" {
        let what = format!("the binary log holds statements (binlog_format is {})", settings.get("binlog_format"));
        blocker("binlog_format", what, "SET GLOBAL binlog_format = 'ROW', and let every session connect anew");
    }
    if settings.number("server_id") == Some(0) {
        blocker(
            "server_id",
            "server_id is 0: the server gives its log to nobody".to_owned(),
            "SET GLOBAL server_id to a number that no other server of yours has",
        );
    }
    if settings.number("sync_binlog") != Some(1) {
        let what = "the server does not write its log to the disk with each commit (sync_binlog is not 1): where its machine stops, \
            it may forget changes that the target has";
        findings.push(Finding::warning("sync_binlog", what, "SET GLOBAL sync_binlog = 1"));
    }
    let days = settings.number("expire_logs_days").unwrap_or(0) * 24 * 3600;
    let kept = settings.number("binlog_expire_logs_seconds").filter(|seconds| *seconds > 0).unwrap_or(days);
    if kept > 0 && kept < LEAST_KEPT {
        let what = format!("the server forgets its log after {kept} s: a task that stands still longer must begin anew");
        findings.push(Finding::warning("binlog_expire", what, "SET GLOBAL binlog_expire_logs_seconds to some days"));
    }
    findings
}

/// Of an inserted row MINIMAL leaves out what the column's default gives, and NOBLOB a large column that the statement did
/// not name; nothing says what it holds.
fn images(settings: &Settings) -> Option<Finding> {
    let image = settings.get("binlog_row_image");
    if !matches!(image, "MINIMAL" | "NOBLOB") {
        return None;
    }
    let lack = format!("the log does not hold all columns of inserted rows (binlog_row_image is {image})");
    let remedy = "SET GLOBAL binlog_row_image = 'FULL', and let every session connect anew";
    Some(Finding::blocker("binlog_row_image", &codes::SETTING_UNSUITABLE, lack, remedy))
}

/// Databases that the server keeps out of its log.
async fn filters<'t>(conn: &mut Conn, tables: impl Iterator<Item = &'t TableName>) -> Result<Vec<Finding>> {
    let asked = conn.query_first::<mysql_async::Row, _>("SHOW MASTER STATUS").await.map_err(from_server);
    let row = match asked {
        Ok(row) => row,
        // said with the others that lack
        Err(error) if error.is(&codes::RIGHTS_MISSING) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let listed = |at: usize| -> Vec<String> {
        let text: String = row.as_ref().and_then(|row| row.get_opt(at)).and_then(Result::ok).unwrap_or_default();
        text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let (only, never) = (listed(2), listed(3));
    let mut findings = Vec::new();
    let mut databases: Vec<&str> = tables.map(|table| table.schema.as_str()).chain(["godwit"]).collect();
    databases.sort_unstable();
    databases.dedup();
    for database in databases {
        let is_out = (!only.is_empty() && !only.iter().any(|name| name == database)) || never.iter().any(|name| name == database);
        if is_out {
            let what = format!("the server does not log changes of database {database} (binlog_do_db, binlog_ignore_db)");
            findings.push(Finding::blocker(
                "binlog_do_db",
                &codes::SETTING_UNSUITABLE,
                what,
                "take the filter out of the server's configuration",
            ));
        }
    }
    Ok(findings)
}

fn columns(table: &Table) -> Vec<Finding> {
    let unknown = |column: &godwit_model::Column| {
        let error = Codec::of(&column.type_name).err()?;
        let what = format!("column `{}` of table {}: {}", column.name, table.name, error.what());
        Some(Finding::blocker("types", error.code(), what, error.remedy_text().unwrap_or("leave the column out").to_owned()))
    };
    table.columns.iter().filter(|column| !column.generated).filter_map(unknown).collect()
}

pub(crate) async fn target(conn: &mut Conn, server: &Server, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
    let mut findings = versions(server);
    let settings =
        Settings::read(conn, &["read_only", "innodb_flush_log_at_trx_commit", "lower_case_table_names", "innodb_read_only"]).await?;
    if settings.is_on("read_only") || settings.is_on("innodb_read_only") {
        let what = "the server is read-only";
        findings.push(Finding::blocker("read_only", &codes::SETTING_UNSUITABLE, what, "name the server that takes writes"));
    }
    let databases = needs.mappings.iter().map(|mapping| mapping.target.schema.as_str());
    findings.extend(Rights::read(conn).await?.findings(&rights::writing(needs.task, databases)));
    findings.extend(Durability::read(conn).await?.finding());
    if settings.number("lower_case_table_names").is_some_and(|folds| folds != 0) {
        findings.extend(folded(needs));
    }
    findings.extend(triggers(conn, needs).await?);
    findings.extend(fitting::findings(conn, server, needs).await?);
    Ok(findings)
}

/// Names that the server makes one.
fn folded(needs: &TargetNeeds<'_>) -> Vec<Finding> {
    let mut seen: HashMap<(String, String), &TableName> = HashMap::new();
    let mut findings = Vec::new();
    for mapping in needs.mappings {
        let name = (mapping.target.schema.to_lowercase(), mapping.target.name.to_lowercase());
        if let Some(other) = seen.insert(name, &mapping.target) {
            let what = format!("{other} and {} are one table to this server (lower_case_table_names)", mapping.target);
            findings.push(Finding::blocker("names", &codes::NAMES_COLLIDE, what, "give one of them another name in `map`"));
        }
    }
    findings
}

/// The server has no way to keep triggers from firing for one session.
async fn triggers(conn: &mut Conn, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
    if needs.mappings.is_empty() || needs.task.existing == Existing::Replace {
        return Ok(Vec::new());
    }
    let pairs = needs
        .mappings
        .iter()
        .map(|mapping| format!("({}, {})", quote::literal(&mapping.target.schema), quote::literal(&mapping.target.name)));
    let sql = format!(
        "SELECT event_object_schema, event_object_table, trigger_name FROM information_schema.triggers \
         WHERE (event_object_schema, event_object_table) IN ({}) ORDER BY 1, 2, 3",
        quote::list(pairs)
    );
    let rows: Vec<(String, String, String)> = conn.query(sql).await.map_err(from_server)?;
    let finding = |(schema, table, trigger): (String, String, String)| {
        let what = format!("table {schema}.{table} has the trigger `{trigger}`, which would fire for every row that Godwit writes");
        Finding::blocker("triggers", &codes::SETTING_UNSUITABLE, what, "drop it before, and make it again when the task is finished")
    };
    Ok(rows.into_iter().map(finding).collect())
}
