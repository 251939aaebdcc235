//! What must be right before a task runs. Findings, each with its remedy; nothing is left behind.

use godwit_model::{Create, Existing, Finding, Result, SourceNeeds, TableMapping, TableName, TargetNeeds, Writes, codes};
use rusqlite::Connection;

use crate::capture::{MOST_COLUMNS, Names};
use crate::catalog::Catalog;
use crate::error::Told;
use crate::schema::Shape;
use crate::triggers::Capture;

/// What a check needs to know of the task.
pub(crate) struct SourceQuestions {
    tables: Vec<TableName>,
    changes: bool,
    may_write: bool,
}

impl SourceQuestions {
    pub(crate) fn new(needs: &SourceNeeds<'_>) -> Self {
        let tables = needs.tables.iter().map(|table| table.name.clone()).collect();
        SourceQuestions { tables, changes: needs.changes, may_write: needs.task.writes == Writes::Marker }
    }
}

pub(crate) fn source(connection: &Connection, asked: &SourceQuestions, names: &Names) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(encoding(connection)?);
    if asked.changes {
        findings.extend(journal(connection)?);
        findings.extend(writes(asked));
        findings.push(Finding::note("busy_timeout", BUSY_NOTE));
        findings.push(Finding::note("capture", CAPTURE_NOTE));
    }
    let catalog = Catalog::of_names(connection, asked.tables.iter().map(|table| &table.name))?;
    for table in &asked.tables {
        let Some(shape) = catalog.find(connection, &table.name)? else {
            let what = format!("table {table} is not there");
            findings.push(Finding::blocker("tables", &codes::TABLE_MISSING, what, "select tables that are there"));
            continue;
        };
        findings.extend(collations(connection, &shape)?);
        if asked.changes {
            findings.extend(capture(&shape, names));
        }
    }
    Ok(findings)
}

const BUSY_NOTE: &str = "Godwit writes to this file for some milliseconds now and then: every connection of your applications needs a \
                         busy_timeout (PRAGMA busy_timeout=5000), else its writes may fail with SQLITE_BUSY";
const CAPTURE_NOTE: &str = "changes are captured by triggers named godwit_*: while they are there, a column they log cannot be dropped, and a \
                            schema change of a selected table stops the task";

fn journal(connection: &Connection) -> Result<Option<Finding>> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).told()?;
    let what = format!("the file's journal mode is {mode}: reading it would block its users");
    let remedy = "run PRAGMA journal_mode=WAL on the source's file";
    Ok((!mode.eq_ignore_ascii_case("wal")).then(|| Finding::blocker("journal_mode", &codes::SETTING_UNSUITABLE, what, remedy)))
}

fn encoding(connection: &Connection) -> Result<Option<Finding>> {
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0)).told()?;
    let what = format!("the file keeps its text as {encoding}: invalid text could not be carried byte by byte");
    let remedy = "write the file anew with PRAGMA encoding='UTF-8' (sqlite3 .dump and .read)";
    Ok((encoding != "UTF-8").then(|| Finding::blocker("encoding", &codes::SETTING_UNSUITABLE, what, remedy)))
}

fn writes(asked: &SourceQuestions) -> Option<Finding> {
    let what = "`writes: never` allows no triggers: changes of a SQLite file cannot be captured";
    let remedy = "allow `writes: marker`, or load only (`phases: [schema, load]`)";
    (!asked.may_write).then(|| Finding::blocker("writes", &codes::TASK_CONTRADICTION, what, remedy))
}

fn capture(shape: &Shape, names: &Names) -> Option<Finding> {
    if shape.carried().len() > MOST_COLUMNS {
        let what = format!("table {} has more than {MOST_COLUMNS} columns", shape.name);
        return Some(Finding::blocker("columns", &codes::TYPE_UNSUPPORTED, what, "leave it out with `select.except`"));
    }
    if let Err(error) = Capture::new(names, 1, shape) {
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        return Some(Finding::blocker("capture", error.code(), error.what(), remedy));
    }
    let what =
        format!("table {} has no key: each change is replayed by comparing whole rows, and its load starts anew after a crash", shape.name);
    shape.key.is_none().then(|| Finding::warning("key", what, "give it an INTEGER PRIMARY KEY or a unique index over NOT NULL columns"))
}

fn collations(connection: &Connection, shape: &Shape) -> Result<Option<Finding>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM pragma_collation_list WHERE name = ?1 COLLATE NOCASE").told()?;
    let columns = shape.columns.iter().map(|column| &column.collation);
    let parts = shape.uniques.iter().flat_map(|index| &index.parts).map(|part| &part.collation);
    for collation in columns.chain(parts) {
        if !statement.exists([collation]).told()? {
            let what = format!("table {} compares by `{collation}`, a collation of the application's own", shape.name);
            return Ok(Some(Finding::blocker("collation", &codes::TYPE_UNSUPPORTED, what, "leave it out with `select.except`")));
        }
    }
    Ok(None)
}

/// Tries a write that is rolled back.
pub(crate) fn may_write(connection: &mut Connection) -> Vec<Finding> {
    let tried = connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE godwit_try (a); ROLLBACK;").told();
    if !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err() {
        tracing::debug!("the tried write was rolled back by SQLite itself");
    }
    match tried {
        Ok(()) => Vec::new(),
        Err(error) if error.is(&codes::BUSY) => {
            vec![Finding::warning(
                "rights",
                "the file is locked by a writer at the moment",
                "check again; long write transactions delay Godwit's markers",
            )]
        }
        Err(error) => {
            vec![Finding::blocker(
                "rights",
                &codes::RIGHTS_MISSING,
                format!("the file cannot be written: {}", error.what()),
                "give this user the right to write the file and its folder",
            )]
        }
    }
}

/// What a check of the target asks.
pub(crate) struct TargetQuestions {
    mappings: Vec<TableMapping>,
    creates: bool,
    replaces: bool,
}

impl TargetQuestions {
    pub(crate) fn new(needs: &TargetNeeds<'_>) -> Self {
        let creates = matches!(needs.task.schema.create, Create::All | Create::Tables) && needs.task.phases.schema;
        let mappings = needs.mappings.iter().map(|mapping| TableMapping::clone(mapping)).collect();
        TargetQuestions { mappings, creates, replaces: needs.task.existing == Existing::Replace }
    }
}

/// For a file that is there.
pub(crate) fn target(connection: &Connection, asked: &TargetQuestions) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(encoding(connection)?);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).told()?;
    if !mode.eq_ignore_ascii_case("wal") {
        let what = format!("the target's journal mode is {mode}: its readers and Godwit's writes block each other");
        findings.push(Finding::warning("journal_mode", what, "run PRAGMA journal_mode=WAL on the target's file"));
    }
    let catalog = Catalog::of_names(connection, asked.mappings.iter().map(|mapping| &mapping.target.name))?;
    for mapping in &asked.mappings {
        match catalog.find(connection, &mapping.target.name)? {
            Some(shape) if !asked.replaces => findings.extend(present(&shape, mapping)),
            None if !asked.creates => findings.push(missing(mapping)),
            _ => {}
        }
    }
    Ok(findings)
}

fn missing(mapping: &TableMapping) -> Finding {
    let what = format!("table {} is not in the target, and the task does not create it", mapping.target);
    Finding::blocker("tables", &codes::TABLE_MISSING, what, "create it, or let the task do so (`schema.create: tables`)")
}

fn present(shape: &Shape, mapping: &TableMapping) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(trigger) = shape.user_triggers().next() {
        let what = format!("table {} has a trigger ({}) that would fire for every row Godwit writes", mapping.target, trigger.name);
        findings.push(Finding::blocker("triggers", &codes::SETTING_UNSUITABLE, what, "drop it until the migration is finished"));
    }
    for column in &mapping.columns {
        match shape.columns.iter().find(|present| present.name.eq_ignore_ascii_case(&column.target)) {
            Some(present) if !present.generated => {}
            _ => findings.push(mismatch(mapping, &format!("has no column {} that can be written", column.target))),
        }
    }
    if mapping.has_key() && !has_key(shape, mapping) {
        findings.push(mismatch(mapping, "has no unique key over the source's key columns, or compares it in another way"));
    }
    findings
}

fn has_key(shape: &Shape, mapping: &TableMapping) -> bool {
    let wanted: HashSetOf = mapping.key_targets().into_iter().map(str::to_ascii_lowercase).collect();
    let named = |column: usize| shape.columns[column].name.to_ascii_lowercase();
    let by_rowid = shape.integer_key.is_some_and(|column| wanted == HashSetOf::from([named(column)]));
    let by_index = shape.uniques.iter().any(|index| {
        let columns: Option<HashSetOf> = index.parts.iter().map(|part| part.column.map(named)).collect();
        // A coarser comparison would make one row of two.
        let fine = !mapping.key_is_exact || index.parts.iter().all(|part| part.collation.eq_ignore_ascii_case("BINARY"));
        !index.partial && columns.as_ref() == Some(&wanted) && fine
    });
    by_rowid || by_index
}

type HashSetOf = std::collections::HashSet<String>;

fn mismatch(mapping: &TableMapping, what: &str) -> Finding {
    let what = format!("the target's table {} {what}", mapping.target);
    Finding::blocker("structure", &codes::SCHEMA_MISMATCH, what, "change it, or let Godwit make it (`existing: replace`)")
}
