//! What must be right before a task runs: findings, each with its remedy. Only questions are asked, so nothing is left behind.

use std::collections::HashMap;

use godwit_model::{Existing, Finding, Result, SourceNeeds, Table, TableName, TargetNeeds, Writes, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::connect::{Flavor, Server};
use crate::durability::Durability;
use crate::error::from_server;
use crate::quote;
use crate::values::Codec;

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
    if needs.changes {
        let names = [
            "log_bin",
            "binlog_format",
            "binlog_row_image",
            "server_id",
            "gtid_mode",
            "read_only",
            "expire_logs_days",
            "binlog_expire_logs_seconds",
            "binlog_row_value_options",
            "encrypt_binlog",
            "log_slave_updates",
            "log_replica_updates",
        ];
        let settings = Settings::read(conn, &names).await?;
        findings.extend(log(server, &settings));
        findings.extend(images(&settings));
        if needs.task.writes == Writes::Marker && settings.is_on("read_only") {
            let what = "the server is read-only: no marker can be written there";
            findings.push(Finding::blocker("read_only", &codes::SETTING_UNSUITABLE, what, "name the server that takes writes"));
        }
        findings.extend(filters(conn, server, needs.tables.iter().map(|table| &table.name)).await?);
    }
    for table in needs.tables {
        findings.extend(columns(table));
        if needs.changes && table.key.is_none() {
            let what = format!("table {} has no key: each change is replayed by comparing whole rows", table.name);
            findings.push(Finding::warning("key", what, "give it a primary key"));
        }
    }
    Ok(findings)
}

/// The versions that were tried; docs/engines says which.
fn versions(server: &Server) -> Vec<Finding> {
    let (least, name) = match server.flavor {
        Flavor::MariaDb => (100_600, "MariaDB 10.6"),
        Flavor::MySql => (80_000, "MySQL 8.0"),
    };
    let what = format!("the server is {}: versions before {name} are not supported", server.text);
    let old = server.version < least;
    old.then(|| Finding::blocker("version", &codes::SETTING_UNSUITABLE, what, "upgrade it first")).into_iter().collect()
}

fn log(server: &Server, settings: &Settings) -> Vec<Finding> {
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
    if server.flavor == Flavor::MySql && !settings.is_on("gtid_mode") {
        blocker(
            "gtid_mode",
            "the server numbers its transactions not (gtid_mode is not ON)".to_owned(),
            "set gtid_mode and enforce_gtid_consistency to ON",
        );
    }
    if settings.get("binlog_row_value_options").contains("PARTIAL_JSON") {
        blocker(
            "binlog_row_value_options",
            "the log holds parts of JSON values only".to_owned(),
            "SET GLOBAL binlog_row_value_options = ''",
        );
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
async fn filters<'t>(conn: &mut Conn, server: &Server, tables: impl Iterator<Item = &'t TableName>) -> Result<Vec<Finding>> {
    let sql = if server.flavor == Flavor::MySql && server.version >= 80_200 { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let asked = conn.query_first::<mysql_async::Row, _>(sql).await.map_err(from_server);
    let row = match asked {
        Ok(row) => row,
        Err(error) if error.is(&codes::RIGHTS_MISSING) => {
            let remedy = "GRANT REPLICATION CLIENT and REPLICATION SLAVE ON *.* to the account (MariaDB: BINLOG MONITOR)";
            return Ok(vec![Finding::blocker("rights", &codes::RIGHTS_MISSING, "the account may not ask where the log ends", remedy)]);
        }
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
    findings.extend(Durability::read(conn).await?.finding());
    if settings.number("lower_case_table_names").is_some_and(|folds| folds != 0) {
        findings.extend(folded(needs));
    }
    findings.extend(triggers(conn, needs).await?);
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
