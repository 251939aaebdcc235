//! `godwit check`: what stands in the task's way.

use std::fmt::Write as _;
use std::sync::Arc;

use godwit_engines::Rights;
use godwit_model::{Create, EndpointConfig, Finding, Result, Severity};
use godwit_pipeline::{CheckReport, Survey};
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

/// The catalogs are read by a role that may log in and do nothing else; structure, which needs more, is not asked for.
async fn grants(stores: &Stores) -> Result<Answer> {
    let mut task = (*stores.task).clone();
    task.schema.create = Create::None;
    let survey = Survey { task: Arc::new(task), ..stores.survey() };
    let (here, there): (Vec<_>, Vec<_>) = match survey.plan().await {
        Ok(plan) => plan.mappings.into_iter().map(|mapping| (mapping.source, mapping.target)).unzip(),
        // that it cannot be asked is said with its rights
        Err(_) => (Vec::new(), Vec::new()),
    };
    let source = godwit_engines::source_rights(&stores.task, &here).await?;
    let target = godwit_engines::target_rights(&stores.task, &there).await?;
    let mut text = section("source", &stores.task.source, &source) + &section("target", &stores.task.target, &target);
    if here.is_empty() {
        text.push_str("-- not all: no table that is selected was seen; run these, then ask again\n");
    }
    let complete = !here.is_empty() && is_complete(&source) && is_complete(&target);
    let json = json!({
        "result": "grants", "complete": complete, "source": required(&source), "target": required(&target),
        "source_optional": optional(&source), "target_optional": optional(&target),
    });
    Ok(Answer::new(false, json, text))
}

fn is_complete(rights: &Rights) -> bool {
    matches!(rights, Rights::OfTheFile | Rights::Grants { incomplete: None, .. })
}

fn required(rights: &Rights) -> Json {
    match rights {
        Rights::Grants { statements, .. } => json!(statements.required),
        Rights::OfTheFile => Json::Null,
    }
}

fn optional(rights: &Rights) -> Json {
    match rights {
        Rights::Grants { statements, .. } => json!(statements.optional),
        Rights::OfTheFile => Json::Null,
    }
}

/// SQL as it stands: what is not a statement is a comment.
fn section(side: &str, endpoint: &EndpointConfig, rights: &Rights) -> String {
    let mut text = format!("-- at the {side}, {}\n", endpoint.display());
    match rights {
        Rights::OfTheFile => text.push_str("-- no rights to grant; the process must be able to read and write the file and its folder\n"),
        Rights::Grants { statements, incomplete } => {
            if let Some(why) = incomplete {
                let _ = writeln!(text, "-- not all: it could not be asked ({})", why.replace(['\n', '\r'], " "));
            }
            statements.required.iter().for_each(|statement| text.push_str(&format!("{statement}\n")));
            if !statements.optional.is_empty() {
                let _ = writeln!(text, "-- where the service allows it, at the {side}:");
            }
            statements.optional.iter().for_each(|statement| text.push_str(&format!("{statement}\n")));
        }
    }
    text
}
