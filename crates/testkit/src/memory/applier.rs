//! Groups of changes in real transactions.

use async_trait::async_trait;
use godwit_model::{Applied, Applier, Checkpoint, Entry, Error, Group, Kind, Lease, Mismatch, Result, WriteKind, codes};

use super::godwit::{Advance, Fenced};
use super::open::Open;
use super::store::{CommitAs, Core, MemoryStore};
use super::write;

pub(super) struct MemoryApplier {
    store: MemoryStore,
    lease: Lease,
    generation: u64,
    open: Option<Open>,
    origin: Option<String>,
    /// After a transient error nothing may follow.
    broken: bool,
}

impl MemoryApplier {
    pub fn new(store: MemoryStore, lease: Lease, generation: u64) -> Self {
        MemoryApplier { store, lease, generation, open: None, origin: None, broken: false }
    }

    fn usable(&self) -> Result<()> {
        if self.broken {
            return Err(Error::internal("an applier was used after a transient error"));
        }
        self.store.quiet(|core| core.alive(self.generation))
    }

    /// Remembers whether the error ends this applier.
    fn judged<T>(&mut self, answer: Result<T>) -> Result<T> {
        self.broken |= answer.as_ref().is_err_and(Error::is_transient);
        answer
    }

    fn run(&mut self, group: &Group) -> Result<Applied> {
        self.usable()?;
        self.origin = Some(group.origin.clone()).filter(|origin| !origin.is_empty());
        let open = &mut self.open;
        self.store.change(|core| {
            let open = open.get_or_insert_with(|| core.begin(false));
            core.refresh(open)?;
            core.savepoint(open);
            let applied = run_writes(core, open, group);
            match &applied {
                Ok(Applied::AsExpected) => core.release_savepoint(open)?,
                _ => core.roll_back_to_savepoint(open)?,
            }
            applied
        })
    }

    fn settle(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        self.usable()?;
        let open = self.open.take();
        let fenced = Fenced { lease: &self.lease, entries, checkpoint: Some(Advance { previous, next }) };
        let how = CommitAs { origin: self.origin.take(), asynchronous: true, fenced: Some(fenced) };
        self.store.change(|core| {
            let mut open = open.unwrap_or_else(|| core.begin(false));
            core.commit(&mut open, how)
        })
    }
}

fn run_writes(core: &mut Core, open: &mut Open, group: &Group) -> Result<Applied> {
    for (index, one) in group.writes.iter().enumerate() {
        match write::run(core, open, one) {
            Ok(touched) => {
                let expected = one.rows.len() as u64;
                if one.strict && one.kind != WriteKind::Truncate && touched != expected {
                    return Ok(Applied::Unexpected(Mismatch { write: index, expected, touched }));
                }
            }
            Err(error) if is_refusal(&error) => return Ok(Applied::Refused(as_refusal(error))),
            Err(error) => return Err(error),
        }
    }
    Ok(Applied::AsExpected)
}

/// A key that is there is `KEY_EXISTS` for a load, and a surplus row for apply.
fn as_refusal(error: Error) -> Error {
    if !error.is(&codes::KEY_EXISTS) {
        return error;
    }
    let conflict = Error::new(&codes::CONFLICT, error.what());
    match error.place() {
        Some(place) => conflict.at(place),
        None => conflict,
    }
}

/// What the store says of a row, not of itself or of us.
fn is_refusal(error: &Error) -> bool {
    [&codes::KEY_EXISTS, &codes::VALUE_REFUSED, &codes::SERVER_REFUSED].iter().any(|code| error.is(code))
}

#[async_trait]
impl Applier for MemoryApplier {
    async fn apply(&mut self, group: &Group) -> Result<Applied> {
        let answer = self.run(group);
        self.judged(answer)
    }

    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        let answer = self.settle(previous, next, entries);
        debug_assert!(answer.as_ref().err().is_none_or(|error| error.kind() != Kind::Input), "a commit asks nothing of the task file");
        self.judged(answer)
    }

    async fn durable(&mut self) -> Result<()> {
        self.usable()?;
        self.store.change(Core::flush);
        Ok(())
    }

    async fn abandon(&mut self) -> Result<()> {
        if let Some(mut open) = self.open.take() {
            self.store.change(|core| core.abort(&mut open));
        }
        self.usable()
    }
}

impl Drop for MemoryApplier {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            self.store.change(|core| core.abort(&mut open));
        }
    }
}
