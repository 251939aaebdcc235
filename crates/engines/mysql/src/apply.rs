//! Applies groups of changes: one transaction over any number of groups, each under a savepoint.
//!
//! The session is the transaction. Where the server has rolled all of it back, nothing goes on from a savepoint.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{
    Applied, Applier, Checkpoint, Entry, Error, Group, Lease, Mismatch, Result, TableMapping, TableName, WriteKind, codes, failpoint,
};

use crate::durability::Durability;
use crate::script::execute;
use crate::sending::{Sending, Trouble};
use crate::shape::Shape;
use crate::statements::Plan;
use crate::writers::Writer;
use crate::{lease, transaction};

pub(crate) struct MySqlApplier {
    writer: Writer,
    lease: Lease,
    durability: Durability,
    tables: HashMap<TableName, Known>,
    state: State,
}

/// What the session is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// In a transaction.
    Open,
    /// A call did not come to its end, or failed: nobody knows what the session holds.
    Unknown,
}

struct Known {
    mapping: Arc<TableMapping>,
    shape: Shape,
}

impl MySqlApplier {
    /// Tables are looked at when they are first written to: of thousands most rest.
    pub(crate) async fn open(mut writer: Writer, lease: &Lease) -> Result<Self> {
        let durability = Durability::read(&mut writer).await?;
        Ok(MySqlApplier { writer, lease: lease.clone(), durability, tables: HashMap::new(), state: State::Idle })
    }

    #[cfg(test)]
    pub(crate) fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Reads the target table unless it is known under this very mapping.
    async fn know(&mut self, mapping: &Arc<TableMapping>) -> Result<()> {
        if self.tables.get(&mapping.target).is_some_and(|known| Arc::ptr_eq(&known.mapping, mapping) || known.mapping == *mapping) {
            return Ok(());
        }
        let shape = Shape::read(&mut self.writer, mapping).await?;
        self.tables.insert(mapping.target.clone(), Known { mapping: mapping.clone(), shape });
        Ok(())
    }

    /// From here to the answer the session is in the middle of something.
    fn enter(&mut self) -> Result<State> {
        match std::mem::replace(&mut self.state, State::Unknown) {
            State::Unknown => Err(Error::new(&codes::RETRYABLE, "what this session was told last is not known to have happened")),
            state => Ok(state),
        }
    }

    async fn run(&mut self, state: State, group: &Group) -> Outcome {
        let mut sending = Sending::new(&mut self.writer, group.writes.len());
        if state == State::Idle {
            transaction::OPENING.iter().for_each(|sql| sending.add(sql));
        }
        sending.add("SAVEPOINT godwit_group");
        let answer = send(&mut sending, &self.tables, group).await;
        Outcome { answer, has_begun: sending.has_begun() }
    }

    async fn judged(&mut self, state: State, group: &Group, outcome: Outcome) -> Result<(State, Applied)> {
        let applied = match outcome.answer {
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Refused { write, error }) => {
                Applied::Refused(error.at_least_at(|| format!("table {}", group.writes[write].mapping.target)))
            }
            Ok(touched) => match unexpected(group, &touched) {
                None => return Ok((State::Open, Applied::AsExpected)),
                Some(mismatch) => Applied::Unexpected(mismatch),
            },
        };
        // before the group's own savepoint is set, its name is that of the group before
        if !outcome.has_begun {
            return Ok((state, applied));
        }
        execute(&mut self.writer, "ROLLBACK TO SAVEPOINT godwit_group")
            .await
            .map_err(|error| if error.is(&codes::SERVER_REFUSED) { transaction::rolled_back() } else { error })?;
        Ok((State::Open, applied))
    }
}

/// What became of a group: the rows each write touched, and whether any of it was sent.
struct Outcome {
    answer: Result<Vec<u64>, Trouble>,
    has_begun: bool,
}

async fn send(sending: &mut Sending<'_>, tables: &HashMap<TableName, Known>, group: &Group) -> Result<Vec<u64>, Trouble> {
    for (index, write) in group.writes.iter().enumerate() {
        let known = tables.get(&write.mapping.target);
        let shape = &known.ok_or_else(|| Trouble::Failed(Error::internal("a write for a table that was not looked at")))?.shape;
        sending.write(index, Plan::new(shape, write), &write.rows).await?;
    }
    sending.finish().await
}

fn unexpected(group: &Group, touched: &[u64]) -> Option<Mismatch> {
    let mut writes = group.writes.iter().zip(touched).enumerate();
    writes.find_map(|(index, (write, touched))| {
        let expected = write.rows.len() as u64;
        let counts = write.strict && write.kind != WriteKind::Truncate;
        (counts && *touched != expected).then_some(Mismatch { write: index, expected, touched: *touched })
    })
}

#[async_trait]
impl Applier for MySqlApplier {
    async fn apply(&mut self, group: &Group) -> Result<Applied> {
        let state = self.enter()?;
        for write in &group.writes {
            self.know(&write.mapping).await?;
        }
        let outcome = self.run(state, group).await;
        let (state, applied) = self.judged(state, group, outcome).await?;
        self.state = state;
        Ok(applied)
    }

    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        let state = self.enter()?;
        if state == State::Idle {
            transaction::open(&mut self.writer).await?;
        }
        let ended = lease::commit_at(&mut self.writer, &self.lease, (previous, next), entries).await;
        match &ended {
            // rolled back, and known to be
            Err(error) if error.is(&codes::LEASE_LOST) || error.is(&codes::TARGET_CHANGED) => self.state = State::Idle,
            Err(_) => {}
            Ok(()) => {
                self.state = State::Idle;
                // committed, and nobody knows it yet
                failpoint("apply.commit.sent");
            }
        }
        ended
    }

    async fn durable(&mut self) -> Result<()> {
        if self.state == State::Open {
            return Err(Error::internal("durability was asked for inside a transaction"));
        }
        self.enter()?;
        self.durability.wait(&mut self.writer, &self.lease).await?;
        self.state = State::Idle;
        Ok(())
    }

    async fn abandon(&mut self) -> Result<()> {
        if self.enter()? == State::Open {
            execute(&mut self.writer, "ROLLBACK").await?;
        }
        self.state = State::Idle;
        Ok(())
    }
}
