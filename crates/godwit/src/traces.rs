//! What a stop leaves at the source, and the three ways on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::values::bytes;
use crate::wiring::Stores;

/// A person waits for the end of the command; a source that does not answer by then is named as such.
const ASK_FOR: Duration = Duration::from_secs(5);

/// What lies at the source when nobody is at work.
pub struct Remains {
    /// The task file, for the commands.
    task: PathBuf,
    /// None: the source did not answer.
    traces: Option<Vec<String>>,
    backlog: Option<u64>,
}

impl Remains {
    pub async fn ask(stores: &Stores, task: &Path) -> Remains {
        let traces = tokio::time::timeout(ASK_FOR, stores.source.traces()).await;
        let backlog = tokio::time::timeout(ASK_FOR, stores.source.backlog()).await;
        Remains {
            task: task.to_owned(),
            traces: traces.ok().and_then(Result::ok).map(|traces| traces.into_iter().map(|trace| trace.what).collect()),
            backlog: backlog.ok().and_then(Result::ok).flatten(),
        }
    }

    /// Empty if nothing is left.
    pub fn text(&self) -> String {
        let what = match &self.traces {
            Some(traces) if traces.is_empty() => return String::new(),
            Some(traces) => format!("At the source remain: {}.", shortened(traces)),
            None => "The source could not be asked what remains there.".to_owned(),
        };
        let backlog = self.backlog.map(|size| format!(" {} wait there, and that grows until you do one of these:", bytes(size)));
        let task = self.task.display();
        format!(
            "{what}{}\n  go on        godwit run {task}\n  switch over  godwit finish {task}\n  give up      godwit clean {task}\n",
            backlog.unwrap_or_else(|| " The source keeps its log for them until you do one of these:".to_owned())
        )
    }

    pub fn json(&self) -> Json {
        json!({"traces": self.traces, "backlog_bytes": self.backlog})
    }
}

/// The first few by name: triggers may be many.
fn shortened(traces: &[String]) -> String {
    const NAMED: usize = 4;
    let named = traces.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match traces.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{named} and {more} more"),
        _ => named,
    }
}
