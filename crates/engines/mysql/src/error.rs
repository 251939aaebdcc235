//! The driver's and the server's errors as the model's.
//!
//! The server's error number alone decides the code, and so whether the pipeline tries again. What a server says may quote
//! a row's values: then it goes to a person's terminal (`detail`), never into `what`, which may be logged.

use std::io;

use godwit_model::{Code, Error, codes};
use mysql_async::{DriverError, ServerError};

/// Any error of the client.
pub(crate) fn from_server(problem: mysql_async::Error) -> Error {
    match problem {
        mysql_async::Error::Server(said) => from_message(&said),
        mysql_async::Error::Io(problem) => lost().caused_by(problem),
        mysql_async::Error::Driver(problem) => from_driver(problem),
        other => Error::internal(format!("the client could not use an answer: {other}")),
    }
}

fn from_driver(problem: DriverError) -> Error {
    match problem {
        DriverError::ConnectionClosed | DriverError::PoolDisconnected | DriverError::PacketOutOfOrder => lost().caused_by(problem),
        other => Error::internal(format!("the client could not use an answer: {other}")),
    }
}

pub(crate) fn lost() -> Error {
    Error::new(&codes::CONNECTION_LOST, "the connection to the server was lost")
}

/// Whether the server was never reached, or could not be understood: for whoever connects.
pub(crate) fn from_connecting(problem: mysql_async::Error) -> Error {
    if let mysql_async::Error::Server(said) = problem {
        return from_message(&said);
    }
    let text = root_cause(&problem);
    Error::new(&codes::UNREACHABLE, format!("the server could not be reached: {text}"))
        .remedy("check host, port and the server itself; `tls` if it speaks another encryption")
        .caused_by(problem)
}

fn root_cause(problem: &mysql_async::Error) -> String {
    let mut cause: &dyn std::error::Error = problem;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(io) => io.to_string(),
        None => cause.to_string(),
    }
}

pub(crate) fn from_message(said: &ServerError) -> Error {
    let code = code_of(said.code);
    let number = said.code;
    if quotes_a_value(number) {
        let refused = if number == NOT_UNDERSTOOD { "statement" } else { "value" };
        return Error::new(code, format!("the server refused a {refused} (error {number})")).detail(said.message.clone());
    }
    let error = Error::new(code, format!("{} (error {number})", said.message));
    match remedy_of(code) {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// A statement that is no SQL, which the server quotes with the values in it.
const NOT_UNDERSTOOD: u16 = 1064;

/// Whether the server's text may hold values of rows.
fn quotes_a_value(number: u16) -> bool {
    matches!(
        number,
        1048 | 1062
            | NOT_UNDERSTOOD
            | 1169
            | 1264
            | 1265
            | 1292
            | 1300
            | 1364
            | 1366
            | 1367
            | 1406
            | 1411
            | 1416
            | 1451
            | 1452
            | 1525
            | 1526
            | 1557
            | 1586
            | 1644
            | 1690
            | 3140
            | 3819
            | 4025
    )
}

/// One table from the server's number to the code. The transient ones are few and named: a retry that cannot help hides a
/// trouble.
fn code_of(number: u16) -> &'static Code {
    match number {
        // shutdown in progress, aborting, lost, killed, server gone, connection killed by a person
        1053 | 1152 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 2006 | 2013 | 4031 => &codes::CONNECTION_LOST,
        // deadlock, lock wait timeout, query interrupted, snapshot too old for the table, record changed since last read
        1205 | 1213 | 1317 | 1412 | 1020 | 1689 | 1969 | 3024 | 3058 | 3572 => &codes::RETRYABLE,
        // too many connections, of all or of this user
        1040 | 1203 | 1226 => &codes::BUSY,
        // disk full, table full, temporary file
        1021 | 1026 | 1114 => &codes::FULL,
        1049 => &codes::DATABASE_MISSING,
        1146 => &codes::TABLE_MISSING,
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 => &codes::RIGHTS_MISSING,
        1045 | 1130 | 1131 | 1132 | 1133 | 1251 | 1275 | 1524 | 1698 | 1862 | 3118 | 4151 => &codes::AUTHENTICATION,
        // read only: --read-only, super_read_only, in a read only transaction
        1290 | 1836 | 3100 => &codes::SETTING_UNSUITABLE,
        1153 | 1301 => &codes::VALUE_TOO_LARGE,
        1062 | 1169 | 1557 | 1586 => &codes::CONFLICT,
        NOT_UNDERSTOOD => &codes::SERVER_REFUSED,
        number if quotes_a_value(number) => &codes::VALUE_REFUSED,
        _ => &codes::SERVER_REFUSED,
    }
}

fn remedy_of(code: &Code) -> Option<&'static str> {
    match *code {
        codes::AUTHENTICATION => Some("check user and password of the endpoint, and from which hosts the account may come"),
        codes::TABLE_MISSING => {
            Some("it was dropped or renamed meanwhile: put it back, or give the task up (`clean`) and begin anew without it")
        }
        codes::DATABASE_MISSING => Some("create the database, or name one that is there"),
        codes::RIGHTS_MISSING => Some("`godwit check --grants` prints the statements that give every right the task needs"),
        codes::SETTING_UNSUITABLE => Some("name the server that takes writes: this one is read-only"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16) -> Error {
        from_message(&ServerError { code, message: "Duplicate entry 'secret' for key 'x'".to_owned(), state: "23000".to_owned() })
    }

    #[test]
    fn what_a_retry_can_cure_is_transient() {
        for code in [1205, 1213, 1040, 2013, 1053, 1927, 1021] {
            assert!(said(code).is_transient(), "{code}");
        }
        for code in [1045, 1049, 1062, 1064, 1146, 1406, 0] {
            assert!(!said(code).is_transient(), "{code}");
        }
    }

    #[test]
    fn a_value_never_stands_in_what() {
        let error = said(1062);
        assert!(!error.what().contains("secret"), "{error}");
        assert!(error.detail_text().is_some_and(|detail| detail.contains("secret")));
    }
}
