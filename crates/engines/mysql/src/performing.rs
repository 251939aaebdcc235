//! Schema steps on a server that commits each DDL by itself.
//!
//! A step's SQL is cut into statements. Before one runs, the ledger says under the lease which statement of which step is
//! about to run: the intent. Behind the last one, one transaction removes it and writes the step's own entry. A process
//! that finds an intent of the same SQL knows that this very statement may have run, and runs it again: if the server then
//! says that what it makes is there (or what it drops is gone), it was its own. Without an intent of an earlier attempt the
//! same answer is an error, and the intent goes with it.
//!
//! What a statement changed in rows is in one transaction with the intent of the next, and so happens once. What
//! statements set for their session is set again by whoever goes on behind them.

use godwit_model::{Entry, Error, Lease, Result, SchemaItem, Stage, codes, failpoint};
use mysql_async::prelude::Queryable as _;

use crate::cutting::{Cutter, Mode, Statement};
use crate::fingerprint::fingerprint;
use crate::script::{execute, number_of};
use crate::transaction::Begun;
use crate::writers::Writer;
use crate::{error, lease, ledger};

/// The session is of no further use: steps are a person's too, whose settings end with it.
pub(crate) async fn perform(mut writer: Writer, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
    if items.len() != done.len() {
        return Err(Error::internal("as many entries as steps"));
    }
    for (item, done) in items.iter().zip(done) {
        let key = format!("{}step/{}", ledger::OWN, item.id);
        let resumed = resumed_at(&mut writer, lease, &key, item).await?;
        Step { writer: &mut writer, lease, item, key, resumed }.perform(done).await?;
    }
    Ok(())
}

struct Step<'a> {
    writer: &'a mut Writer,
    lease: &'a Lease,
    item: &'a SchemaItem,
    /// Of the intent.
    key: String,
    /// The statement that an earlier attempt was about to run.
    resumed: Option<usize>,
}

/// What stands in the ledger while a statement may be under way. A step whose SQL is another by now is none that was begun.
pub(crate) fn intent(item: &SchemaItem, place: usize) -> String {
    let sql = fingerprint(item.sql.iter().flat_map(|sql| sql.bytes().chain([0])));
    format!("{place} {sql:016x}")
}

async fn resumed_at(writer: &mut Writer, lease: &Lease, key: &str, item: &SchemaItem) -> Result<Option<usize>> {
    let Some(value) = ledger::own(writer, &lease.task, key).await? else { return Ok(None) };
    let damaged = || Error::new(&codes::TARGET_CHANGED, "an entry of the ledger is not as Godwit writes it").at("table godwit.ledger");
    let value = std::str::from_utf8(&value).map_err(|_| damaged())?;
    let place = value.split(' ').next().and_then(|place| place.parse().ok()).ok_or_else(damaged)?;
    Ok(Some(place).filter(|place| intent(item, *place) == value))
}

impl Step<'_> {
    async fn perform(mut self, done: &Entry) -> Result<()> {
        let mut mode = mode(self.writer).await?;
        judge_ahead(self.item, mode)?;
        let mut place = 0;
        for sql in &self.item.sql {
            let mut cutter = Cutter::new(sql);
            while let Some(statement) = next(&mut cutter, mode, self.item)? {
                self.one(place, &statement).await?;
                if statement.is_setting() {
                    mode = self::mode(self.writer).await?;
                }
                place += 1;
            }
        }
        let gone = self.entry("");
        self.record(&[done.clone(), gone]).await?;
        failpoint("schema.step.after");
        Ok(())
    }

    async fn one(&mut self, place: usize, statement: &Statement<'_>) -> Result<()> {
        let has_run = self.resumed.is_some_and(|resumed| place < resumed);
        if has_run && !statement.is_setting() {
            return Ok(());
        }
        if !has_run {
            let intent = self.entry(&intent(self.item, place));
            self.record(&[intent]).await?;
            failpoint("schema.step.before");
        }
        match self.writer.query_drop(statement.text).await {
            Ok(()) => Ok(()),
            Err(problem) if self.resumed == Some(place) && !statement.may_be_several && is_there(&problem) => Ok(()),
            Err(problem) => Err(self.refused(problem).await?),
        }
    }

    /// The error, when it is known that the step can be begun anew.
    async fn refused(&mut self, problem: mysql_async::Error) -> Result<Error> {
        let is_refused = number_of(&problem).is_some();
        let error = refused(problem, self.item);
        if is_refused && !error.is_transient() {
            execute(self.writer, "ROLLBACK").await?;
            let gone = self.entry("");
            self.record(&[gone]).await?;
        }
        Ok(error)
    }

    fn entry(&self, value: &str) -> Entry {
        Entry { key: self.key.clone(), value: value.to_owned().into() }
    }

    /// Commits what is open with these entries. Where DDL has ended the transaction, or a person's statement has turned
    /// `autocommit` on, each statement of the message would commit by itself: then nothing would hold the lease's row between
    /// its proof and the entries. To turn it off ends no transaction.
    async fn record(&mut self, entries: &[Entry]) -> Result<()> {
        execute(self.writer, "SET autocommit = 0").await?;
        lease::commit(self.writer, self.lease, Begun::BySteps, entries).await
    }
}

async fn mode(writer: &mut Writer) -> Result<Mode> {
    let mode: Option<String> = writer.query_first("SELECT @@sql_mode").await.map_err(error::from_server)?;
    Ok(Mode::of(&mode.unwrap_or_default()))
}

/// The next statement that runs: the transaction and its locks are the step's own.
fn next<'a>(cutter: &mut Cutter<'a>, mode: Mode, item: &SchemaItem) -> Result<Option<Statement<'a>>> {
    loop {
        let statement = cutter.next(mode).map_err(|error| error.at(item.id.clone()))?;
        match statement {
            Some(statement) if statement.is_of_transaction() => {}
            Some(statement) => return judge(&statement, item).map(|()| Some(statement)),
            None => return Ok(None),
        }
    }
}

/// What cannot be performed is best told before anything is: as far as no setting gives the text another sense.
fn judge_ahead(item: &SchemaItem, mode: Mode) -> Result<()> {
    for sql in &item.sql {
        let mut cutter = Cutter::new(sql);
        while let Some(statement) = next(&mut cutter, mode, item)? {
            if statement.is_setting() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn judge(statement: &Statement<'_>, item: &SchemaItem) -> Result<()> {
    if statement.is_rollback() {
        let what = "a ROLLBACK in a schema's step takes nothing back here: each statement stays once it ran";
        return Err(Error::new(&codes::TASK_UNSUPPORTED, what).at(item.id.clone()).remedy("leave it out, and what it would take back"));
    }
    if statement.makes_trigger() && item.stage != Stage::AtFinish {
        let what = "a trigger would fire for every row that Godwit writes, and the server cannot keep it from that";
        let remedy = "make it when the task is finished: in the file, behind a line `-- godwit step {\"run\":\"at finish\",\"table\":null,\"id\":\"TRIGGERS\"}`";
        return Err(Error::new(&codes::TASK_UNSUPPORTED, what).at(item.id.clone()).remedy(remedy));
    }
    Ok(())
}

/// What a statement makes is there already, or what it drops or renames is gone: a database, table, view, column, index,
/// primary key, foreign key, check, routine, trigger, event.
fn is_there(problem: &mysql_async::Error) -> bool {
    const MADE: [u16; 14] = [1007, 1050, 1060, 1061, 1022, 1068, 1304, 1359, 1537, 1826, 3822, 1813, 4160, 1658];
    const GONE: [u16; 8] = [1008, 1051, 1091, 1176, 1305, 1360, 1539, 3940];
    // 1005 with 121 or 150: a foreign key of that name is there (MariaDB)
    let is_foreign_key = matches!(problem, mysql_async::Error::Server(said) if said.code == 1005 && said.message.contains("errno: 121"));
    number_of(problem).is_some_and(|number| MADE.contains(&number) || GONE.contains(&number)) || is_foreign_key
}

fn refused(problem: mysql_async::Error, item: &SchemaItem) -> Error {
    let error = error::from_server(problem);
    if !error.is(&codes::CONFLICT) {
        return error.at(item.id.clone());
    }
    let place = item.table.as_ref().map_or_else(|| item.id.clone(), |table| format!("table {table}"));
    Error::new(&codes::KEY_EXISTS, "rows that were loaded share a value of a key or of a unique index")
        .at(place)
        .detail(error.detail_text().unwrap_or_default())
        .effect(format!("the rows stay, and this step was not done: {}", item.id))
        .remedy("look whether someone else writes to the target's table, or whether it takes for equal what the source tells apart; then empty the target's tables and begin anew (`clean`, `run`)")
}
