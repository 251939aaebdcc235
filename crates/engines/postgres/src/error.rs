//! The driver's and the server's errors as the model's.
//!
//! The SQLSTATE alone decides the code, and so whether the pipeline tries again. What a server says may quote a row:
//! DETAIL always, and the message itself where a value was refused. That text goes to a person's terminal (`detail`),
//! never into `what`, which may be logged.

use std::error::Error as _;
use std::io;

use godwit_model::{Code, Error, codes};

/// What a server said, from whichever client read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerMessage {
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

/// Any error of the SQL client.
pub(crate) fn from_server(problem: tokio_postgres::Error) -> Error {
    match problem.as_db_error() {
        Some(said) => from_message(&ServerMessage {
            state: said.code().code().to_owned(),
            message: said.message().to_owned(),
            detail: said.detail().map(str::to_owned),
            hint: said.hint().map(str::to_owned),
        }),
        None => from_client(problem),
    }
}

fn from_client(problem: tokio_postgres::Error) -> Error {
    let text = problem.to_string();
    let is_io = problem.source().is_some_and(|source| source.is::<io::Error>());
    // The client tells these kinds apart only by their text.
    if text == "authentication error" || text == "invalid configuration" {
        return authentication("the server and this client found no way to authenticate").caused_by(problem);
    }
    if problem.is_closed() || is_io || text == "unexpected message from server" {
        return Error::new(&codes::CONNECTION_LOST, "the connection to the server was lost").caused_by(problem);
    }
    Error::internal(format!("the client could not use an answer: {text}"))
}

/// What a socket did while a connection was in use.
pub(crate) fn lost(problem: io::Error) -> Error {
    Error::new(&codes::CONNECTION_LOST, "the connection to the server was lost").caused_by(problem)
}

/// A server that could be reached a moment ago does not answer.
pub(crate) fn silent() -> Error {
    Error::new(&codes::CONNECTION_LOST, "the server has not answered")
}

pub(crate) fn authentication(what: &str) -> Error {
    Error::new(&codes::AUTHENTICATION, what).remedy("check user and password of the endpoint, and the server's pg_hba.conf")
}

/// Whether the server's rules (pg_hba.conf) have no place for this role, database, address and encryption together.
pub(crate) fn is_not_admitted(error: &Error) -> bool {
    error.is(&codes::AUTHENTICATION) && error.what().ends_with("(SQLSTATE 28000)")
}

impl ServerMessage {
    /// The body of an ErrorResponse or NoticeResponse. Fields up to the first that cannot be read: what was read of an
    /// error is better than none of it.
    pub(crate) fn parse(mut body: &[u8]) -> Self {
        let mut said = ServerMessage::default();
        while let Some((kind, rest)) = body.split_first().filter(|(kind, _)| **kind != 0) {
            let Some(end) = memchr::memchr(0, rest) else { break };
            let value = String::from_utf8_lossy(&rest[..end]).into_owned();
            match kind {
                b'C' => said.state = value,
                b'M' => said.message = value,
                b'D' => said.detail = Some(value),
                b'H' => said.hint = Some(value),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        said
    }
}

pub(crate) fn from_message(said: &ServerMessage) -> Error {
    let code = code_of(&said.state);
    let class = said.state.get(..2).unwrap_or_default();
    let quotes_a_value = matches!(class, "22" | "23" | "38" | "39" | "44" | "P0");
    let what = if quotes_a_value {
        format!("the server refused a value (SQLSTATE {})", said.state)
    } else {
        format!("{} (SQLSTATE {})", said.message, said.state)
    };
    let message = quotes_a_value.then_some(said.message.as_str());
    let detail = message.into_iter().chain(said.detail.as_deref()).collect::<Vec<_>>().join("; ");
    let mut error = Error::new(code, what);
    if !detail.is_empty() {
        error = error.detail(detail);
    }
    match remedy_of(&said.state, code).or(said.hint.as_deref()) {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// One table from SQLSTATE to code. The transient ones are few and named: a retry that cannot help hides a trouble.
fn code_of(state: &str) -> &'static Code {
    match state {
        "25P03" | "25P04" | "57P01" | "57P02" | "57P05" => &codes::CONNECTION_LOST,
        "57P03" => &codes::UNREACHABLE,
        "25P02" | "57014" | "55P03" => &codes::RETRYABLE,
        "55006" => &codes::BUSY,
        "53100" => &codes::FULL,
        "3D000" => &codes::DATABASE_MISSING,
        "42P01" => &codes::TABLE_MISSING,
        "42501" => &codes::RIGHTS_MISSING,
        "25006" | "53400" => &codes::SETTING_UNSUITABLE,
        _ => match state.get(..2).unwrap_or_default() {
            "08" => &codes::CONNECTION_LOST,
            "40" => &codes::RETRYABLE,
            "53" => &codes::BUSY,
            "28" => &codes::AUTHENTICATION,
            "22" | "23" | "44" => &codes::VALUE_REFUSED,
            _ => &codes::SERVER_REFUSED,
        },
    }
}

fn remedy_of(state: &str, code: &Code) -> Option<&'static str> {
    match *code {
        codes::AUTHENTICATION => Some("check user and password of the endpoint, and the server's pg_hba.conf"),
        codes::TABLE_MISSING => {
            Some("it was dropped or renamed meanwhile: put it back, or give the task up (`clean`) and begin anew without it")
        }
        codes::DATABASE_MISSING => Some("create the database, or name one that is there"),
        codes::RIGHTS_MISSING => Some("`godwit check --grants` prints the statements that give every right the task needs"),
        codes::SETTING_UNSUITABLE if state == "25006" => Some("name the primary: a standby takes no writes"),
        codes::SETTING_UNSUITABLE => Some("raise the server's limit (max_replication_slots, max_wal_senders), or free what is not used"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: &str) -> Error {
        let detail = Some("Key (id)=(secret) exists.".to_owned());
        from_message(&ServerMessage { state: state.to_owned(), message: "value \"secret\" is bad".to_owned(), detail, hint: None })
    }

    #[test]
    fn what_a_retry_can_cure_is_transient() {
        for state in ["08006", "57P01", "57P02", "57P03", "53300", "53100", "40001", "40P01", "55P03", "25P02", "55006"] {
            assert!(said(state).is_transient(), "{state}");
        }
        for state in ["28P01", "42501", "3D000", "23505", "22P02", "42601", "XX001", "", "ü"] {
            assert!(!said(state).is_transient(), "{state}");
        }
    }

    #[test]
    fn a_value_never_stands_in_what() {
        let error = said("23505");
        assert!(!error.what().contains("secret"), "{error}");
        assert!(error.detail_text().is_some_and(|detail| detail.contains("secret")));
        assert!(said("42601").detail_text().is_some_and(|detail| detail.contains("Key")));
    }
}
