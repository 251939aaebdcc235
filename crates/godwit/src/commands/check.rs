//! `godwit check`: what stands in the task's way.

use std::fmt::Write as _;

use godwit_engines::Rights;
use godwit_model::{Finding, Result, Severity, TableName, Task};
use godwit_pipeline::CheckReport;
use serde_json::{Value as Json, json};

use crate::answer::Answer;
use crate::cli::Check;
use crate::signal::Signals;
use crate::wiring::Stores;

pub async fn check(args: Check) -> Result<Answer> {
    let stores = Stores::load(&args.place.task).await?;
    let mut signals = Signals::listen()?;
    if args.grants {
        return signals.or(grants(&stores)).await;
    }
    let report = signals.or(async { stores.survey().check().await }).await?;
    Ok(answer(&report, &stores.warnings))
}

pub fn answer(report: &CheckReport, warnings: &[String]) -> Answer {
    let mut text = warnings.iter().fold(String::new(), |text, warning| text + "warning  task_file: " + warning + "\n");
    for finding in &report.findings {
        let _ = writeln!(text, "{}", line(finding));
        if let Some(remedy) = finding.remedy.as_deref().filter(|remedy| !remedy.is_empty()) {
            let _ = writeln!(text, "         do: {remedy}");
        }
    }
    let of = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let (blockers, others) = (of(Severity::Blocker), of(Severity::Warning));
    let _ = match report.is_clear() {
        true => writeln!(text, "clear: the task can run ({others} warnings)"),
        false => writeln!(text, "NOT CLEAR: {blockers} to mend first, {others} warnings; nothing was changed"),
    };
    let findings: Vec<Json> = report.findings.iter().map(as_json).collect();
    let json = json!({"result": "check", "clear": report.is_clear(), "findings": findings, "warnings": warnings});
    Answer::new(!report.is_clear(), json, text)
}

/// One line for a finding, without its remedy.
pub fn line(finding: &Finding) -> String {
    let code = finding.code.map(|code| format!(" {code}")).unwrap_or_default();
    format!("{:<8}{code} {}: {}", word(finding.severity), finding.check, finding.what)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Blocker => "blocker",
    }
}

fn as_json(finding: &Finding) -> Json {
    json!({
        "check": finding.check, "severity": word(finding.severity), "code": finding.code.map(|code| code.to_string()),
        "what": finding.what, "remedy": finding.remedy,
    })
}

/// The tables are asked of the source where the role may read them; else those that the task names.
async fn grants(stores: &Stores) -> Result<Answer> {
    let task = &stores.task;
    let planned = stores.survey().plan().await.ok();
    let complete = planned.is_some();
    let (here, there): (Vec<_>, Vec<_>) = match planned {
        Some(plan) => plan.mappings.into_iter().map(|mapping| (mapping.source, mapping.target)).unzip(),
        None => (named_tables(task), Vec::new()),
    };
    let (source, target) = (godwit_engines::source_rights(task, &here)?, godwit_engines::target_rights(task, &there)?);
    let mut text = String::new();
    if !complete {
        text.push_str("-- the source cannot be asked yet: tables that the task selects by a pattern are not listed\n");
    }
    text.push_str(&section(&format!("at the source, {}", task.source.display()), &source));
    text.push_str(&section(&format!("at the target, {}", task.target.display()), &target));
    let statements = |rights: &Rights| match rights {
        Rights::Grants(statements) => json!(statements),
        Rights::OfTheFile => Json::Null,
    };
    let json = json!({"result": "grants", "complete": complete, "source": statements(&source), "target": statements(&target)});
    Ok(Answer::new(false, json, text))
}

fn named_tables(task: &Task) -> Vec<TableName> {
    let plain = task.select.tables.iter().filter(|pattern| !pattern.contains(['*', '\\']));
    plain.filter_map(|pattern| pattern.split_once('.')).map(|(schema, name)| TableName::new(schema, name)).collect()
}

fn section(title: &str, rights: &Rights) -> String {
    match rights {
        Rights::Grants(statements) => format!("-- {title}\n{}\n", statements.join("\n")),
        Rights::OfTheFile => {
            format!("-- {title}: no rights to grant; the process must be able to read and write the file and its folder\n")
        }
    }
}
