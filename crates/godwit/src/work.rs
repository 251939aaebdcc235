//! What can be asked of a task at work, and the answers; the same whether the asker is this process or another.

use std::fmt::Write as _;
use std::sync::Arc;

use godwit_model::{Error, Result, Table, Trace, codes};
use godwit_pipeline::{Completion, DifferenceKind, Job, Leftover, Removal, Running, TableReport, VerifyReport};
use godwit_store::StateFolder;
use serde_json::{Value as Json, json};

use crate::answer::Answer;
use crate::state;
use crate::values::{count, counted, key};

/// Keys shown of one table; more is for a query.
const KEYS_SHOWN: usize = 20;

/// Compares both sides; with `repair` the rows that differ are copied anew and both sides compared again.
pub async fn verify(running: &mut Running, repair: bool) -> Result<Answer> {
    let found = running.verify().await?;
    if !repair || found.is_equal() {
        return Ok(verified(&found, None));
    }
    if !running.job().task.phases.changes {
        return Err(Error::new(
            &codes::TASK_UNSUPPORTED,
            "a task that only loads has no stream of changes in which rows could be repaired",
        )
        .remedy("load anew with `godwit run --resync`")
        .effect("nothing was changed"));
    }
    let repaired = running.repair(&found).await?;
    let after = running.verify().await?;
    Ok(verified(&after, Some((repaired, &found))))
}

fn verified(report: &VerifyReport, repaired: Option<(u64, &VerifyReport)>) -> Answer {
    let equal = report.is_equal();
    let mut text = String::new();
    if let Some((rows, before)) = repaired {
        let _ = writeln!(text, "repaired: {} copied anew from the source", counted(rows, "row"));
        text.push_str(&table_lines(before, "before"));
    }
    text.push_str(&table_lines(report, "now"));
    text.push_str(if equal { "equal\n" } else { "NOT EQUAL\n" });
    let json = json!({
        "result": "verify", "equal": equal, "rows": report.rows(), "repaired": repaired.map(|(rows, _)| rows), "tables": tables_json(report),
    });
    Answer::new(!equal, json, text).with_keys(keys(repaired.map_or(report, |(_, before)| before)))
}

/// How a finish went on: with a proof, or with differences and nothing removed.
pub async fn complete(running: &mut Running, read_only_source: bool, changes: u64) -> Result<Answer> {
    let found = running.complete(read_only_source).await;
    let not_finished = found.as_ref().map_or(true, |found| !found.is_equal());
    if read_only_source && not_finished {
        admit_writers(running.job()).await?;
    }
    let found = found?;
    let (report, equal) = (&found.rows, found.is_equal());
    let mut text = report.as_ref().map(|report| table_lines(report, "now")).unwrap_or_default();
    text.push_str(&structure_lines(&found));
    if changes > 0 {
        let _ = writeln!(text, "{} applied by this process", counted(changes, "change"));
    }
    text.push_str(match (report, equal) {
        (None, _) => "finished; not verified, as the task says\n",
        (_, true) if found.left.is_empty() => "finished: source and target are equal\n",
        (_, true) => "finished: source and target hold equal rows; their structure differs as listed above\n",
        (_, false) => {
            "NOT EQUAL: nothing was removed, the task can go on\n  look at the rows, then `godwit verify --repair`, then finish again\n"
        }
    });
    let json = json!({
        "result": "finish", "equal": report.as_ref().map(VerifyReport::is_equal), "rows": report.as_ref().map(VerifyReport::rows),
        "changes": changes, "tables": report.as_ref().map(tables_json), "structure": structure_json(&found),
        "structure_not_compared": found.owned_by_others,
    });
    Ok(Answer::new(!equal, json, text).with_keys(report.as_ref().map(keys).unwrap_or_default()))
}

/// What of the target's structure is not as at the source, each with the statements that mend it.
fn structure_lines(found: &Completion) -> String {
    let mut text = String::new();
    for Leftover { what, why, statements } in &found.left {
        let _ = writeln!(text, "  differs: {what}: {why}");
        for statement in statements {
            let _ = writeln!(text, "    {};", statement.trim_end().trim_end_matches(';'));
        }
    }
    if found.owned_by_others > 0 {
        let tables = counted(found.owned_by_others as u64, "table");
        let _ = writeln!(text, "  the structure of {tables} was not made by the task, and was not compared");
    }
    text
}

fn structure_json(found: &Completion) -> Vec<Json> {
    let one = |left: &Leftover| json!({"what": left.what, "why": left.why, "statements": left.statements});
    found.left.iter().map(one).collect()
}

/// A finish that did not come to its end must not keep users out.
async fn admit_writers(job: &Job) -> Result<()> {
    let described = job.source.describe(&job.task).await?;
    let tables: Vec<Arc<Table>> = described.tables.into_iter().map(Arc::new).collect();
    job.source.set_read_only(&tables, false).await
}

/// Both sides are equal and the work has stopped: what Godwit left goes, then the proof is given.
pub async fn remove_finished(job: Job, folder: Arc<StateFolder>, mut proof: Answer) -> Result<Answer> {
    state::keep_proof(&folder, &proof)?;
    let (removed, stays) = remove(job, folder, true).await?;
    let _ = writeln!(proof.text, "removed: {}", counted(removed.len() as u64, "thing"));
    proof.text.push_str(&lines("stays", &stays));
    if let Json::Object(fields) = &mut proof.json {
        fields.insert("removed".to_owned(), json!(removed));
        fields.insert("stays".to_owned(), json!(stays));
    }
    Ok(proof)
}

/// Gives the task up.
pub async fn clean(job: Job, folder: Arc<StateFolder>) -> Result<Answer> {
    let (removed, stays) = remove(job, folder, false).await?;
    let mut text = lines("removed", &removed) + &lines("stays", &stays);
    text.push_str("cleaned: what was copied stays at the target\n");
    Ok(Answer::new(false, json!({"result": "clean", "removed": removed, "stays": stays}), text))
}

fn lines(verb: &str, things: &[String]) -> String {
    things.iter().fold(String::new(), |text, what| text + verb + ": " + what + "\n")
}

/// What was removed, and what others made and stays.
async fn remove(job: Job, folder: Arc<StateFolder>, after_finish: bool) -> Result<(Vec<String>, Vec<String>)> {
    let Removal { removed, stays } = job.remove(after_finish).await?;
    // the job holds the folder too
    drop(job);
    state::remove(folder)?;
    let words = |traces: Vec<Trace>| traces.into_iter().map(|trace| trace.what).collect();
    Ok((words(removed), words(stays)))
}

fn table_lines(report: &VerifyReport, when: &str) -> String {
    let width = report.tables.iter().map(|table| table.target.to_string().chars().count()).max().unwrap_or(0);
    report.tables.iter().fold(String::new(), |mut text, table| {
        let _ = writeln!(text, "  {:width$}  {:>12} rows  {}", table.target.to_string(), count(table.rows), verdict(table, when));
        text
    })
}

fn verdict(table: &TableReport, when: &str) -> String {
    if table.is_equal() {
        return "equal".to_owned();
    }
    let of = |kind| table.differences.iter().filter(|difference| difference.kind == kind).count() as u64;
    let counts = [
        (of(DifferenceKind::Missing), "missing"),
        (of(DifferenceKind::Surplus), "surplus"),
        (of(DifferenceKind::Different), "different"),
        (table.unlisted, "not looked at one by one"),
        (table.unsettled, "changed too often to be compared"),
    ];
    let words: Vec<String> =
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{} {what}", count(*number))).collect();
    format!("{when}: {}", words.join(", "))
}

fn tables_json(report: &VerifyReport) -> Vec<Json> {
    let table = |table: &TableReport| {
        let of = |kind| table.differences.iter().filter(|difference| difference.kind == kind).count();
        json!({
            "source": table.source.to_string(), "target": table.target.to_string(), "rows": table.rows, "equal": table.is_equal(),
            "missing": of(DifferenceKind::Missing), "surplus": of(DifferenceKind::Surplus), "different": of(DifferenceKind::Different),
            "unlisted": table.unlisted, "unsettled": table.unsettled,
        })
    };
    report.tables.iter().map(table).collect()
}

fn keys(report: &VerifyReport) -> String {
    let mut text = String::new();
    for table in &report.tables {
        for difference in table.differences.iter().take(KEYS_SHOWN) {
            let kind = match difference.kind {
                DifferenceKind::Missing => "missing",
                DifferenceKind::Surplus => "surplus",
                DifferenceKind::Different => "different",
            };
            let key = if difference.key.is_empty() { "a row without a key".to_owned() } else { format!("({})", key(&difference.key)) };
            let _ = writeln!(text, "  {} {kind}: {key}", table.target);
        }
        if table.differences.len() > KEYS_SHOWN {
            let _ = writeln!(text, "  {} and {} more", table.target, count((table.differences.len() - KEYS_SHOWN) as u64));
        }
    }
    text
}
