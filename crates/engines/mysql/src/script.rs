//! Many statements in one message, every answer of which is read.
//!
//! A server runs the statements of a message one by one and ends with the first that fails: those behind it never ran. So
//! a COMMIT that stands behind a proof takes effect only if the proof held, and nothing waits for a word of ours between.

use godwit_model::{Error, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error;

/// Statements on their way, in their order.
#[derive(Default)]
pub(crate) struct Script {
    text: Vec<u8>,
    statements: usize,
}

/// What a server said of one statement. With `client_found_rows` an UPDATE counts the rows it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    pub(crate) warnings: u16,
}

/// The statement that failed, and why. Those before it took effect, in the transaction that is open (if one still is).
pub(crate) struct Failed {
    pub(crate) statement: usize,
    pub(crate) problem: mysql_async::Error,
}

impl Failed {
    /// The server's number; None where it was not the server that refused.
    pub(crate) fn number(&self) -> Option<u16> {
        number_of(&self.problem)
    }
}

pub(crate) fn number_of(problem: &mysql_async::Error) -> Option<u16> {
    match problem {
        mysql_async::Error::Server(said) => Some(said.code),
        _ => None,
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        error::from_server(failed.problem)
    }
}

impl Script {
    /// Adds one statement: without a semicolon, and one that answers with a count and not with rows.
    pub(crate) fn add(&mut self, statement: impl AsRef<[u8]>) {
        self.begin().extend_from_slice(statement.as_ref());
    }

    /// Adds one statement that the caller writes to the end of the text.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        if self.statements > 0 {
            self.text.extend_from_slice(b";\n");
        }
        self.statements += 1;
        &mut self.text
    }

    pub(crate) fn len(&self) -> usize {
        self.statements
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.statements == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Sends everything and reads every answer. Not safe to drop and go on: the session is of no further use then.
    ///
    /// An error behind the first statement is told by the driver only when the answer before it is put aside, and an
    /// answer that failed looks like an empty last one: so each is put aside before it counts.
    pub(crate) async fn run(self, conn: &mut Conn) -> Result<Vec<Answer>, Failed> {
        let mut answers = Vec::with_capacity(self.statements);
        if self.statements == 0 {
            return Ok(answers);
        }
        let failed = |statement: usize, problem| Failed { statement, problem };
        let mut result = conn.query_iter(self.text).await.map_err(|problem| failed(0, problem))?;
        loop {
            let answer = Answer { rows: result.affected_rows(), warnings: result.warnings() };
            let is_last = result.is_empty();
            result.next().await.map_err(|problem| failed(answers.len(), problem))?;
            answers.push(answer);
            if is_last {
                break;
            }
        }
        result.drop_result().await.map_err(|problem| failed(answers.len(), problem))?;
        match answers.len() == self.statements {
            true => Ok(answers),
            false => Err(failed(answers.len(), mysql_async::DriverError::PacketOutOfOrder.into())),
        }
    }
}

/// Runs one statement for its effect.
pub(crate) async fn execute(conn: &mut Conn, sql: impl AsRef<[u8]>) -> Result<u64> {
    let mut script = Script::default();
    script.add(sql);
    let answers = script.run(conn).await?;
    Ok(answers.first().map_or(0, |answer| answer.rows))
}
