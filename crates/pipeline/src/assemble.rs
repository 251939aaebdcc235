//! Gathers records of the change log into groups of whole source transactions. Pure.
//!
//! A group ends where it is heavy enough, where a marker must be met exactly, or where its reader has nothing more. A
//! transaction that is heavier than a group is handed over in parts; it then shares its target transaction with no other,
//! so that taking it back (`Abandon`) takes nothing else back.

use std::sync::Arc;

use godwit_model::{Change, ChangeBatch, Entry, Error, Layout, Marker, Micros, Position, Result, Sequence, TableName, codes};
use godwit_store::Record;

use crate::project::Projection;
use crate::routes::{Fate, Routes};
use hashbrown::{HashMap, HashSet};

/// Transactions in one group, at most: bounds the time a single-row fallback may take.
const MOST_TRANSACTIONS: usize = 10_000;

/// The age of a group without any transaction.
const NOTHING_WAITS: Micros = Micros(i64::MAX);

/// Changes of one transaction, each with where it goes.
#[derive(Debug, Default)]
pub(crate) struct Part {
    batches: Vec<Routed>,
    changes: u64,
    selected: u64,
    weight: usize,
    markers: Vec<Marker>,
}

#[derive(Debug)]
struct Routed {
    batch: ChangeBatch,
    /// The first change behind each run of changes with one projection (None: of a table that is not selected).
    runs: Vec<(usize, Option<Arc<Projection>>)>,
}

impl Part {
    /// The changes of selected tables, each with its batch and where it goes.
    pub fn changes(&self) -> impl Iterator<Item = (&Projection, &ChangeBatch, &Change)> {
        self.batches.iter().flat_map(Routed::changes)
    }
}

impl Routed {
    fn changes(&self) -> impl Iterator<Item = (&Projection, &ChangeBatch, &Change)> {
        let first = |run: usize| run.checked_sub(1).map_or(0, |before| self.runs[before].0);
        let runs = self.runs.iter().enumerate().map(move |(run, (end, projection))| (first(run)..*end, projection));
        let selected = runs.filter_map(|(range, projection)| projection.as_deref().map(|projection| (range, projection)));
        selected.flat_map(move |(range, projection)| self.batch.changes[range].iter().map(move |change| (projection, &self.batch, change)))
    }
}

/// Where a group ends: the commit record of its last transaction.
#[derive(Debug, PartialEq)]
pub(crate) struct End {
    pub position: Position,
    pub sequence: Sequence,
    /// Facts that hold from here on.
    pub entries: Vec<Entry>,
    pub markers: Vec<Marker>,
    pub transactions: u64,
    pub changes: u64,
    /// Those of them that are of selected tables.
    pub selected: u64,
    /// When the group's first transaction was committed at the source.
    pub oldest: Micros,
}

impl End {
    fn nothing(sequence: Sequence, position: &Position) -> Self {
        End {
            position: position.clone(),
            sequence,
            entries: Vec::new(),
            markers: Vec::new(),
            transactions: 0,
            changes: 0,
            selected: 0,
            oldest: NOTHING_WAITS,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Work {
    /// Changes to write, transaction by transaction; `end` None: the last one goes on in the next group.
    Group { parts: Vec<Part>, end: Option<End> },
    /// What was written of the transaction under way is void.
    Abandon,
    /// The target must be altered before the transaction that follows the last group. Nothing comes after this.
    Alter(Altering),
}

/// What the transaction under way says of schema changes.
#[derive(Debug, Default)]
pub(crate) struct Altering {
    /// The last layout of each table that was altered.
    pub layouts: HashMap<TableName, Arc<Layout>>,
    /// Tables whose rows may have changed outside of the log.
    pub announced: HashSet<TableName>,
    /// Tables with other layouts before the last: what rows of those say of columns that are gone has no place any more.
    pub several: HashSet<TableName>,
}

/// Parts of a table may have its columns in another order.
fn has_same_columns(one: &Layout, other: &Layout) -> bool {
    one.columns.len() == other.columns.len() && one.columns.iter().all(|column| other.columns.contains(column))
}

pub(crate) struct Assembler {
    routes: Routes,
    /// A group heavier than this is handed over.
    heavy: usize,
    whole: Vec<Part>,
    end: Option<End>,
    weight: usize,
    open: Option<Part>,
    /// Facts to be written with the next commit.
    entries: Vec<Entry>,
    /// Parts of the open transaction were handed over already.
    handed_over: bool,
    /// The group must end at the last whole transaction.
    cut: bool,
    abandoned: bool,
    /// The open transaction needs an altered target: the rest of it is only looked through.
    altering: Option<Altering>,
    /// That transaction is whole.
    must_alter: bool,
    /// The log holds something that stops the task; what came before it is still handed over.
    stopped: Option<Error>,
}

impl Assembler {
    pub fn new(routes: Routes, heavy: usize) -> Self {
        Assembler {
            routes,
            heavy,
            whole: Vec::new(),
            end: None,
            weight: 0,
            open: None,
            entries: Vec::new(),
            handed_over: false,
            cut: false,
            abandoned: false,
            altering: None,
            must_alter: false,
            stopped: None,
        }
    }

    /// Whether something must be taken before the next record may be pushed.
    pub fn is_full(&self) -> bool {
        let open = self.open.as_ref().map_or(0, |part| part.weight);
        self.cut
            || self.abandoned
            || self.must_alter
            || self.stopped.is_some()
            || self.weight + open > self.heavy
            || self.whole.len() >= MOST_TRANSACTIONS
    }

    /// Whether whole transactions wait.
    pub fn has_whole(&self) -> bool {
        self.end.is_some()
    }

    pub fn push(&mut self, sequence: Sequence, record: Record) -> Result<()> {
        match record {
            Record::Begin => self.open = Some(Part::default()),
            Record::Changes(batch) => self.changes(batch)?,
            Record::Marker(marker) => self.part()?.markers.push(marker),
            Record::Layout(layout) => self.routes.layout(&layout),
            Record::Schema { table, what } => match self.routes.announced(&table, &what) {
                Ok(true) => {
                    self.altering.get_or_insert_default().announced.insert(table);
                }
                Ok(false) => {}
                Err(error) => self.stopped = Some(error),
            },
            Record::Commit { position, time, .. } => self.commit(sequence, position, time)?,
            Record::Abort => {
                self.open = None;
                self.altering = None;
                self.abandoned = std::mem::take(&mut self.handed_over);
            }
            Record::Progress { position } => self.progress(sequence, position),
        }
        Ok(())
    }

    /// What is to be done next; None: nothing is complete. After the last group before a stop, the error.
    pub fn take(&mut self) -> Result<Option<Work>> {
        if std::mem::take(&mut self.abandoned) {
            return Ok(Some(Work::Abandon));
        }
        if let Some(end) = self.end.take() {
            self.weight = 0;
            self.cut = false;
            self.handed_over = false;
            return Ok(Some(Work::Group { parts: std::mem::take(&mut self.whole), end: Some(end) }));
        }
        if let Some(error) = self.stopped.take() {
            return Err(error);
        }
        if std::mem::take(&mut self.must_alter) {
            return Ok(self.altering.take().map(Work::Alter));
        }
        match &mut self.open {
            Some(open) if open.weight > self.heavy => {
                self.handed_over = true;
                let rest = Part { markers: std::mem::take(&mut open.markers), ..Part::default() };
                let heavy = std::mem::replace(open, rest);
                Ok(Some(Work::Group { parts: vec![heavy], end: None }))
            }
            _ => Ok(None),
        }
    }

    /// The checkpoint follows an idle source: whoever goes on without this change log begins there, and finds what was
    /// acknowledged since neither here nor at the source.
    fn progress(&mut self, sequence: Sequence, position: Position) {
        if self.open.is_some() {
            return;
        }
        let end = self.end.get_or_insert_with(|| End::nothing(sequence, &position));
        end.position = position;
        end.sequence = sequence;
    }

    fn part(&mut self) -> Result<&mut Part> {
        self.open
            .as_mut()
            .ok_or_else(|| Error::new(&codes::LOG_DAMAGED, "the change log holds a change outside of a transaction").at("change log"))
    }

    fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
        if self.stopped.is_some() {
            return Ok(());
        }
        let mut runs = Vec::new();
        let mut end = 0;
        for run in batch.changes.chunk_by(|left, right| left.layout == right.layout) {
            end += run.len();
            let (fate, news) = match self.routes.fate(run[0].layout) {
                Ok(fate) => fate,
                Err(error) if error.is(&codes::LOG_DAMAGED) => return Err(error),
                Err(error) => {
                    self.stopped = Some(error);
                    return Ok(());
                }
            };
            self.entries.extend(news);
            let projection = match fate {
                Fate::Elsewhere => None,
                Fate::To(projection) => {
                    let table = &projection.mapping.source;
                    if let Some(altering) = self.altering.as_mut().filter(|altering| altering.layouts.contains_key(table)) {
                        // altered and altered back in one transaction
                        altering.layouts.remove(table);
                        altering.announced.insert(table.clone());
                    }
                    Some(projection)
                }
                Fate::Altered(layout) => {
                    let (table, altering) = (layout.table.clone(), self.altering.get_or_insert_default());
                    let earlier = altering.layouts.insert(table.clone(), layout.clone());
                    if earlier.is_some_and(|earlier| !has_same_columns(&earlier, &layout)) {
                        altering.several.insert(table);
                    }
                    None
                }
            };
            runs.push((end, projection));
        }
        if self.altering.is_some() {
            // it is read once more when the target is altered
            self.open = Some(Part::default());
            return Ok(());
        }
        let routed = Routed { batch, runs };
        let part = self.part()?;
        part.weight += routed.batch.weight();
        part.changes += routed.batch.len() as u64;
        part.selected += routed.changes().count() as u64;
        part.batches.push(routed);
        Ok(())
    }

    fn commit(&mut self, sequence: Sequence, position: Position, time: Micros) -> Result<()> {
        self.part()?;
        let Some(mut part) = self.open.take() else { return Ok(()) };
        if self.altering.is_some() {
            self.abandoned = std::mem::take(&mut self.handed_over);
            self.must_alter = true;
            return Ok(());
        }
        self.routes.first_is_over();
        let before = self.end.take();
        let mut end = before.unwrap_or_else(|| End::nothing(sequence, &position));
        self.cut = !part.markers.is_empty() || self.handed_over;
        self.weight += part.weight;
        end.position = position;
        end.sequence = sequence;
        end.entries.append(&mut self.entries);
        end.markers.append(&mut part.markers);
        end.transactions += 1;
        end.changes += part.changes;
        end.selected += part.selected;
        end.oldest = end.oldest.min(time);
        self.whole.push(part);
        self.end = Some(end);
        Ok(())
    }
}
