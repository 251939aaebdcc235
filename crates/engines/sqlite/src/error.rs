//! Turns what SQLite says into the one error of the contracts.
//!
//! Texts of user triggers (`RAISE`) may hold values: they go to the detail, which never reaches a log.

use godwit_model::{Code, Error, codes};
use rusqlite::ErrorCode;

/// Extended code of a failed `RAISE` in a trigger.
const CONSTRAINT_TRIGGER: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER;

/// The error in the contracts' words.
pub(crate) fn from_sqlite(error: rusqlite::Error) -> Error {
    let code = error.sqlite_error().map(|inner| (inner.code, inner.extended_code));
    let text = message(&error);
    match code {
        Some((ErrorCode::ConstraintViolation, CONSTRAINT_TRIGGER)) => {
            Error::new(&codes::VALUE_REFUSED, "a trigger refused the statement").detail(text)
        }
        Some((kind, extended)) => {
            let (code, remedy) = meaning(kind, extended);
            let error = Error::new(code, format!("SQLite says: {text}"));
            if remedy.is_empty() { error } else { error.remedy(remedy) }
        }
        None => unexpected(&error),
    }
}

/// What SQLite itself said, without the statement's text.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// An answer of another shape than asked for, or a value we could not bind: ours, not the user's.
fn unexpected(error: &rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::ToSqlConversionFailure(_) => Error::internal("a value that the row image does not hold was to be written"),
        rusqlite::Error::QueryReturnedNoRows => Error::internal("a query that always has a row had none"),
        other => Error::internal(format!("the SQLite driver failed: {other}")),
    }
}

fn meaning(kind: ErrorCode, extended: i32) -> (&'static Code, &'static str) {
    match kind {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SchemaChanged | ErrorCode::FileLockingProtocolFailed => {
            (&codes::BUSY, "another connection holds the file; it is tried again")
        }
        ErrorCode::DiskFull => (&codes::FULL, "free some space on the file's disk"),
        ErrorCode::SystemIoFailure => (&codes::UNREACHABLE, "look at the disk that holds the file"),
        ErrorCode::CannotOpen => (&codes::UNREACHABLE, "check the path and that its folder is there and may be written"),
        ErrorCode::NotADatabase => (&codes::NOT_A_DATABASE, "name a SQLite database file"),
        ErrorCode::DatabaseCorrupt => (&codes::SERVER_REFUSED, "the file is damaged: run PRAGMA integrity_check and restore it"),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            (&codes::RIGHTS_MISSING, "give this user the right to write the file and its folder")
        }
        ErrorCode::ConstraintViolation if is_duplicate(extended) => (&codes::CONFLICT, "look at the row in the target"),
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => (&codes::VALUE_REFUSED, "make the target's table accept the value"),
        ErrorCode::TooBig => (&codes::VALUE_TOO_LARGE, "SQLite's own limit for a value is exceeded"),
        ErrorCode::OperationInterrupted | ErrorCode::OutOfMemory => (&codes::RETRYABLE, ""),
        _ => (&codes::SERVER_REFUSED, ""),
    }
}

fn is_duplicate(extended: i32) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    matches!(extended, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID | SQLITE_CONSTRAINT_UNIQUE)
}

/// Whether the store refused this one statement for what it holds: the transaction itself is intact.
pub(crate) fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig))
}

/// Whether a row with that key, or another unique value, is there already.
pub(crate) fn is_duplicate_row(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code().is_some_and(is_duplicate)
}

/// `?` for rusqlite calls: `connection.execute(..).told()?`.
pub(crate) trait Told<T> {
    fn told(self) -> godwit_model::Result<T>;
}

impl<T> Told<T> for rusqlite::Result<T> {
    fn told(self) -> godwit_model::Result<T> {
        self.map_err(from_sqlite)
    }
}
