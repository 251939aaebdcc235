//! What Godwit's objects on a source are called. One task, one name.

use godwit_model::TaskName;

/// The prefix of the message that begins each of Godwit's own transactions; its content says whose it is.
pub(crate) const PROVENANCE: &str = "godwit_origin";

/// The slot, the publication, and what the session that streams calls itself.
pub(crate) fn of_task(task: &TaskName) -> String {
    format!("godwit_{task}")
}

/// The prefix of a task's markers among the log's messages.
pub(crate) fn marker_prefix(task: &TaskName) -> String {
    format!("godwit_mark_{task}")
}
