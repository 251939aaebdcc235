//! `godwit plan`: what a task would do.

use std::fmt::Write as _;
use std::path::Path;

use godwit_model::{Error, Result, SchemaItem, Stage, Table, TableMapping, codes};
use godwit_pipeline::{PlanReport, script};
use serde_json::{Value as Json, json};

use crate::answer::Answer;
use crate::cli::Plan;
use crate::signal::Signals;
use crate::values::{bytes, count, counted};
use crate::wiring::Stores;

const STAGES: [(Stage, &str); 5] = [
    (Stage::BeforeLoad, "before the load"),
    (Stage::Key, "with a table's last row"),
    (Stage::Index, "with a table's last row, indexes"),
    (Stage::AfterLoad, "after the load"),
    (Stage::AtFinish, "at finish"),
];

pub async fn plan(args: Plan) -> Result<Answer> {
    let stores = Stores::load(&args.place.task).await?;
    let mut signals = Signals::listen()?;
    let report = signals.or(async { stores.survey().plan().await }).await?;
    let mut text = tables(&report) + &steps(&report) + &not_carried(&report);
    if let Some(path) = &args.sql {
        write_sql(path, &report)?;
        let _ = writeln!(text, "written: {}", path.display());
    }
    text.push_str("nothing was changed\n");
    Ok(Answer::new(false, as_json(&report), text))
}

fn pairs(report: &PlanReport) -> impl Iterator<Item = (&Table, &TableMapping)> {
    report.description.tables.iter().zip(&report.mappings)
}

fn tables(report: &PlanReport) -> String {
    let mut text = String::new();
    for (table, mapping) in pairs(report) {
        let key = if mapping.has_key() { mapping.key_targets().join(", ") } else { "none".to_owned() };
        let (rows, size) = (count(table.estimated_rows), bytes(table.estimated_bytes));
        let _ = writeln!(text, "table {} -> {}  about {rows} rows, {size}; key: {key}", mapping.source, mapping.target);
        for column in &mapping.columns {
            let from = if column.source == column.target { String::new() } else { format!("{} -> ", column.source) };
            let _ = writeln!(text, "    {from}{} {}", column.target, column.type_name);
        }
        for left_out in left_out(table, mapping) {
            let _ = writeln!(text, "    {left_out}");
        }
    }
    text
}

fn left_out(table: &Table, mapping: &TableMapping) -> Vec<String> {
    let missing = table.columns.iter().filter(|column| !mapping.columns.iter().any(|mapped| mapped.source == column.name));
    missing
        .map(|column| match column.generated {
            true => format!("{} (computed at the target)", column.name),
            false => format!("{} left out", column.name),
        })
        .collect()
}

fn steps(report: &PlanReport) -> String {
    let mut text = String::new();
    for (stage, when) in STAGES {
        let items: Vec<&SchemaItem> = report.description.items.iter().filter(|item| item.stage == stage).collect();
        if items.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{when}: {}", counted(items.len() as u64, "step"));
        for item in items {
            let _ = writeln!(text, "    {}", item.id);
        }
    }
    text
}

fn not_carried(report: &PlanReport) -> String {
    let missing = &report.description.not_carried;
    if missing.is_empty() {
        return String::new();
    }
    missing.iter().fold(format!("not carried: {}\n", missing.len()), |mut text, what| {
        let _ = writeln!(text, "    {}: {}", what.object, what.reason);
        text
    })
}

fn write_sql(path: &Path, report: &PlanReport) -> Result<()> {
    let sql = script::write(&report.description.items);
    std::fs::write(path, sql).map_err(|cause| {
        Error::new(&codes::USAGE, "the file for the DDL cannot be written")
            .at(path.display().to_string())
            .remedy("name another file with --sql")
            .caused_by(cause)
    })
}

fn as_json(report: &PlanReport) -> Json {
    let tables: Vec<Json> = pairs(report)
        .map(|(table, mapping)| {
            let columns: Vec<Json> = mapping
                .columns
                .iter()
                .map(|column| json!({"from": column.source, "to": column.target, "type": column.type_name}))
                .collect();
            json!({
                "from": mapping.source.to_string(), "to": mapping.target.to_string(), "columns": columns, "key": mapping.key_targets(),
                "left_out": left_out(table, mapping), "estimated_rows": table.estimated_rows, "estimated_bytes": table.estimated_bytes,
            })
        })
        .collect();
    let when = |stage: Stage| STAGES.iter().find(|(known, _)| *known == stage).map(|(_, when)| *when);
    let steps: Vec<Json> =
        report.description.items.iter().map(|item| json!({"id": item.id, "when": when(item.stage), "sql": item.sql})).collect();
    let missing: Vec<Json> =
        report.description.not_carried.iter().map(|what| json!({"object": what.object, "reason": what.reason})).collect();
    json!({"result": "plan", "tables": tables, "steps": steps, "not_carried": missing})
}
