//! Writes on their way: statements gathered into messages, every answer counted for its write.

use godwit_model::{Error, Result, RowBatch, codes};
use mysql_async::prelude::Queryable as _;

use crate::error;
use crate::script::{Failed, Script};
use crate::statements::{Count, Plan, Rows};
use crate::writers::Writer;

/// Sends writes in the open transaction of a session.
pub(crate) struct Sending<'a> {
    writer: &'a mut Writer,
    script: Script,
    owners: Vec<Option<Owner>>,
    /// Rows touched, by write.
    touched: Vec<u64>,
    /// Rows of a search that were not there.
    missing: Vec<usize>,
    has_begun: bool,
}

/// Whose a statement is.
#[derive(Clone, Copy)]
struct Owner {
    write: usize,
    count: Count,
    gives_values: bool,
}

pub(crate) enum Trouble {
    /// The transaction is intact.
    Refused { write: usize, error: Error },
    /// The session is of no further use.
    Failed(Error),
}

impl Trouble {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Trouble::Refused { error, .. } | Trouble::Failed(error) => error,
        }
    }
}

impl<'a> Sending<'a> {
    pub(crate) fn new(writer: &'a mut Writer, writes: usize) -> Self {
        Sending { writer, script: Script::default(), owners: Vec::new(), touched: vec![0; writes], missing: Vec::new(), has_begun: false }
    }

    /// A statement that is not a write's.
    pub(crate) fn add(&mut self, sql: &str) {
        self.script.add(sql);
        self.owners.push(None);
    }

    /// All statements of one write; what fills a message is sent.
    pub(crate) async fn write(&mut self, write: usize, plan: Plan<'_>, rows: &RowBatch) -> Result<(), Trouble> {
        match plan.searches() {
            true => self.search(write, plan, rows).await,
            false => self.send(write, plan, Rows::All(rows)).await,
        }
    }

    async fn send(&mut self, write: usize, plan: Plan<'_>, rows: Rows<'_>) -> Result<(), Trouble> {
        let gives_values = plan.gives_values();
        let mut statements = plan.statements(rows, self.writer.message);
        let mut text = Vec::new();
        while !statements.is_done() {
            text.clear();
            let count = statements.write(&mut text).map_err(|error| unsaid(write, error))?;
            self.put(&text, Owner { write, count, gives_values }).await?;
        }
        Ok(())
    }

    /// Updates every row by its key, and inserts those that were not found.
    async fn search(&mut self, write: usize, plan: Plan<'_>, rows: &RowBatch) -> Result<(), Trouble> {
        self.flush().await?;
        let mut text = Vec::new();
        for (place, row) in rows.rows().enumerate() {
            text.clear();
            plan.update_found(row, &mut text).map_err(|error| unsaid(write, error))?;
            self.put(&text, Owner { write, count: Count::Found(place), gives_values: true }).await?;
        }
        self.flush().await?;
        let missing = std::mem::take(&mut self.missing);
        self.send(write, plan.inserting(), Rows::Some(rows, &missing)).await
    }

    async fn put(&mut self, text: &[u8], owner: Owner) -> Result<(), Trouble> {
        if text.len() > self.writer.most {
            let error = Error::new(&codes::VALUE_TOO_LARGE, "a row is larger than the largest message the target takes")
                .remedy("raise `max_allowed_packet` of the target");
            return Err(Trouble::Refused { write: owner.write, error });
        }
        if self.script.bytes() + text.len() > self.writer.message.max(text.len()) {
            self.flush().await?;
        }
        self.script.add(text);
        self.owners.push(Some(owner));
        Ok(())
    }

    /// Rows that each write touched.
    pub(crate) async fn finish(&mut self) -> Result<Vec<u64>, Trouble> {
        self.flush().await?;
        Ok(std::mem::take(&mut self.touched))
    }

    /// Whether anything was sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Sends what waits and reads all answers.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let script = std::mem::take(&mut self.script);
        let owners = std::mem::take(&mut self.owners);
        self.has_begun |= !script.is_empty();
        let answers = match script.run(self.writer).await {
            Ok(answers) => answers,
            Err(failed) => return Err(judge(owners.get(failed.statement).copied().flatten(), failed)),
        };
        for (place, (answer, owner)) in answers.iter().zip(&owners).enumerate() {
            let Some(owner) = owner else { continue };
            if answer.warnings > 0 && owner.gives_values {
                self.examine(owner.write, place + 1 == answers.len()).await?;
            }
            match owner.count {
                Count::Rows => self.touched[owner.write] += answer.rows,
                Count::Sure(rows) => self.touched[owner.write] += rows,
                Count::Found(row) if answer.rows == 0 => self.missing.push(row),
                Count::Found(_) => self.touched[owner.write] += 1,
                Count::Nothing => {}
            }
        }
        Ok(())
    }

    /// A server that warns may have taken a value otherwise than it was given. It tells of its last statement alone what
    /// it warned of; other writes come again one by one.
    async fn examine(&mut self, write: usize, is_last: bool) -> Result<(), Trouble> {
        let mut error = Error::new(&codes::VALUE_REFUSED, "the target would change a value that it is given")
            .remedy("give the target's columns the source's types");
        if is_last {
            let told: Vec<(String, u16, String)> =
                self.writer.query("SHOW WARNINGS").await.map_err(|problem| Trouble::Failed(error::from_server(problem)))?;
            let Some((_, number, text)) = told.into_iter().find(|(_, number, _)| !is_harmless(*number)) else { return Ok(()) };
            error = Error::new(&codes::VALUE_REFUSED, format!("the target would change a value that it is given (warning {number})"))
                .remedy("give the target's columns the source's types")
                .detail(text);
        }
        Err(Trouble::Refused { write, error })
    }
}

/// Deprecated syntax; a statement that is unsafe for a log of statements.
fn is_harmless(number: u16) -> bool {
    matches!(number, 1287 | 1592 | 1681)
}

/// A value that cannot be said to this server.
fn unsaid(write: usize, error: Error) -> Trouble {
    match error.is(&codes::VALUE_REFUSED) || error.is(&codes::VALUE_TOO_LARGE) {
        true => Trouble::Refused { write, error },
        false => Trouble::Failed(error),
    }
}

/// Whether the server understood a write and will not have it, and the transaction is what it was. A deadlock or a lock
/// that was waited for too long may have rolled back all of it.
fn judge(owner: Option<Owner>, failed: Failed) -> Trouble {
    let error = Error::from(failed);
    let refusals = [
        &codes::CONFLICT,
        &codes::VALUE_REFUSED,
        &codes::VALUE_TOO_LARGE,
        &codes::RIGHTS_MISSING,
        &codes::SERVER_REFUSED,
        &codes::TABLE_MISSING,
    ];
    match owner {
        Some(owner) if refusals.iter().any(|code| error.is(code)) => Trouble::Refused { write: owner.write, error: named(error) },
        _ => Trouble::Failed(error),
    }
}

fn named(error: Error) -> Error {
    if error.is(&codes::CONFLICT) {
        let kept = error.detail_text().unwrap_or_default().to_owned();
        return Error::new(&codes::CONFLICT, error.what().replace("refused a value", "holds a unique value of this row in another one"))
            .detail(kept)
            .remedy("another row of the target holds this value: one that is not the source's must go by hand, others are mended by `verify --repair`");
    }
    match error.is(&codes::VALUE_REFUSED) {
        true => error.remedy("look at the row at the source and at the target's column and constraints"),
        false => error,
    }
}
