//! What a check found.

use crate::error::Code;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Works, but someone should look.
    Warning,
    /// Must be mended before the task can run.
    Blocker,
}

/// Statements that give an account what a task needs, for an administrator, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantStatements {
    pub required: Vec<String>,
    /// Whatever the service allows of these makes more possible; each says what.
    pub optional: Vec<String>,
}

/// One result of a check: which check, what was seen, what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Stable name of the check: `wal_level`, `replica_identity`.
    pub check: &'static str,
    pub severity: Severity,
    pub code: Option<&'static Code>,
    pub what: String,
    pub remedy: Option<String>,
}

impl Finding {
    pub fn blocker(check: &'static str, code: &'static Code, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { check, severity: Severity::Blocker, code: Some(code), what: what.into(), remedy: Some(remedy.into()) }
    }

    pub fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { check, severity: Severity::Warning, code: None, what: what.into(), remedy: Some(remedy.into()) }
    }

    pub fn note(check: &'static str, what: impl Into<String>) -> Self {
        Finding { check, severity: Severity::Note, code: None, what: what.into(), remedy: None }
    }
}
