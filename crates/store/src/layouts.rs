//! Which layouts a reader needs to know, so that every segment can be read from its own start.
//!
//! The newest layout of each table opens every segment. An older one may still be used, by a transaction that was
//! streamed before the table changed; it is said again, as a record of its own, before its first use in a segment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{ChangeBatch, Error, Layout, LayoutId, Result, TableName};

/// A layout as it stands in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) layout: Arc<Layout>,
    /// Said again though its table has a newer one.
    pub(crate) again: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// Every layout announced since the log was opened, or found when it was: one per table and schema change.
    known: HashMap<LayoutId, Arc<Layout>>,
    newest: HashMap<TableName, LayoutId>,
    /// Said in the segment that is written now.
    said: HashSet<LayoutId>,
}

impl Layouts {
    /// What recovery found in the last segment.
    pub(crate) fn found(said: Vec<Said>) -> Self {
        let mut layouts = Layouts::default();
        for Said { layout, again } in &said {
            if *again { layouts.resay(layout) } else { layouts.say(layout) }
        }
        layouts
    }

    /// Takes note of a layout that stands in the present segment.
    pub(crate) fn say(&mut self, layout: &Arc<Layout>) {
        self.newest.insert(layout.table.clone(), layout.id);
        self.resay(layout);
    }

    /// As `say`, for a layout that is not the newest of its table.
    pub(crate) fn resay(&mut self, layout: &Arc<Layout>) {
        self.known.insert(layout.id, layout.clone());
        self.said.insert(layout.id);
    }

    /// Layouts that must be said before this batch.
    pub(crate) fn unsaid(&self, batch: &ChangeBatch) -> Result<Vec<Arc<Layout>>> {
        let mut missing: Vec<Arc<Layout>> = Vec::new();
        let mut last = None;
        for change in &batch.changes {
            if last == Some(change.layout) || self.said.contains(&change.layout) {
                last = Some(change.layout);
                continue;
            }
            let layout = self.known.get(&change.layout).ok_or_else(|| unknown(change.layout))?;
            if !missing.iter().any(|other| other.id == layout.id) {
                missing.push(layout.clone());
            }
        }
        Ok(missing)
    }

    /// A new segment begins: only the newest layouts are said in it. Returns them, by their numbers.
    pub(crate) fn begin_segment(&mut self) -> Vec<Arc<Layout>> {
        self.said = self.newest.values().copied().collect();
        self.newest()
    }

    /// The newest layout of each table, by their numbers.
    pub(crate) fn newest(&self) -> Vec<Arc<Layout>> {
        let mut layouts: Vec<_> = self.newest.values().filter_map(|id| self.known.get(id)).cloned().collect();
        layouts.sort_unstable_by_key(|layout| layout.id);
        layouts
    }
}

fn unknown(id: LayoutId) -> Error {
    Error::internal(format!("a change uses layout {} which was not announced", id.0))
}
