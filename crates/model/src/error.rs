//! The one error of the contracts: what happened, where, what to do, what was (not) changed.
//!
//! Callers ask questions (`is_transient`, `kind`, `code`), they do not match on variants. A row's values never stand in
//! an error that may reach a log: `detail` is shown to a person's terminal only.

use std::fmt;

use crate::codes;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What must happen next. The exit status and the retry rule follow from this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer to the question asked is no (differences found, check failed). Exit 1.
    No,
    /// Wrong use or bad input: the task file or the command line must change. Exit 2.
    Input,
    /// Not now: unreachable, held by another, a lock or a connection lost. The pipeline retries these. Exit 3.
    Transient,
    /// Stopped by a signal before the goal. Exit 3.
    Interrupted,
    /// A person must decide: a DDL, a value, a lost position, a broken invariant. Exit 4, never retried.
    Person,
}

impl Kind {
    pub fn exit_status(self) -> u8 {
        match self {
            Kind::No => 1,
            Kind::Input => 2,
            Kind::Transient | Kind::Interrupted => 3,
            Kind::Person => 4,
        }
    }
}

/// A documented error code; `GW` and four digits, a page in `docs/errors/`.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub number: u16,
    pub kind: Kind,
    /// A short sentence without a full stop, lower case.
    pub title: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GW{:04}", self.number)
    }
}

/// See the module's doc. Boxed inside, so that `Result` stays small.
pub struct Error(Box<Inner>);

struct Inner {
    code: &'static Code,
    what: String,
    place: Option<String>,
    detail: Option<String>,
    remedy: Option<String>,
    effect: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// `what` says in one sentence what happened; no row values, no secrets.
    pub fn new(code: &'static Code, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { code, what: what.into(), place: None, detail: None, remedy: None, effect: None, source: None }))
    }

    /// A broken invariant of our own. Never for bad input.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(&codes::INTERNAL, what)
    }

    /// Where: an endpoint, a table, a line of the task file.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    /// Where, unless a nearer place is known already.
    #[must_use]
    pub fn at_least_at(mut self, place: impl FnOnce() -> String) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some(place());
        }
        self
    }

    /// May hold keys and values: for a person's terminal, never for a log.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// What to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// What was, or was not, changed.
    #[must_use]
    pub fn effect(mut self, effect: impl Into<String>) -> Self {
        self.0.effect = Some(effect.into());
        self
    }

    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub fn code(&self) -> &'static Code {
        self.0.code
    }

    pub fn is(&self, code: &Code) -> bool {
        self.0.code.number == code.number
    }

    pub fn kind(&self) -> Kind {
        self.0.code.kind
    }

    pub fn is_transient(&self) -> bool {
        self.kind() == Kind::Transient
    }

    pub fn what(&self) -> &str {
        &self.0.what
    }

    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    pub fn effect_text(&self) -> Option<&str> {
        self.0.effect.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.what)?;
        if let Some(place) = &self.0.place {
            write!(f, " (at {place})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            write!(f, "; because {next}")?;
            cause = next.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
