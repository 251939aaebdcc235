//! Which layout each relation of the stream has now.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{Error, Layout, LayoutColumn, LayoutId, Result, TableName, Value, codes};

use crate::pgoutput::Relation;
use crate::schema::type_name;

#[derive(Debug, Default)]
pub(super) struct Layouts {
    now: HashMap<u32, (Known, Layout)>,
    types: HashMap<u32, String>,
    last: u32,
    /// The catalog was asked for the sake of the relation that comes next.
    fresh: bool,
}

/// What decoding a row needs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: LayoutId,
    /// One for each column.
    pub(super) keys: Arc<[bool]>,
    /// Which of the columns that the stream tells belong to the layout.
    kept: Arc<[bool]>,
}

impl Known {
    /// A row as it is told, without the columns that the target computes.
    pub(super) fn cut(&self, mut image: Vec<Value>) -> Result<Vec<Value>> {
        if image.len() != self.kept.len() {
            return Err(Error::new(&codes::LOG_UNDECODABLE, "the source's log holds a row whose width is not that of its table"));
        }
        self.leave_computed(&mut image);
        Ok(image)
    }

    /// The same for the first values of a row.
    pub(super) fn leave_computed(&self, image: &mut Vec<Value>) {
        if self.keys.len() < self.kept.len() {
            let mut kept = self.kept.iter();
            image.retain(|_| kept.next().copied().unwrap_or(false));
        }
    }
}

impl Layouts {
    pub(super) fn relations_are_new(&mut self) {
        self.fresh = true;
    }

    pub(super) fn relations_are_used(&mut self) {
        self.fresh = false;
    }

    pub(super) fn are_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn name_type(&mut self, oid: u32, schema: String, name: String) {
        self.types.insert(oid, format!("{schema}.{name}"));
    }

    /// A new layout, if this relation's differs from its last one. Columns that are computed are not part of it.
    pub(super) fn take_in(&mut self, relation: &Relation, table: TableName, computes: impl Fn(&str) -> bool) -> Option<Layout> {
        let kept: Arc<[bool]> = relation.columns.iter().map(|column| !computes(&column.name)).collect();
        let columns = relation.columns.iter().zip(kept.iter()).filter(|(_, kept)| **kept).map(|(column, _)| LayoutColumn {
            name: column.name.clone(),
            type_name: self.type_name(column.type_oid, column.type_modifier),
            key: column.key,
        });
        let mut layout = Layout { id: LayoutId(0), table, columns: columns.collect(), full_old_images: relation.identity == b'f' };
        if let Some((known, before)) = self.now.get_mut(&relation.oid) {
            layout.id = known.id;
            if layout == *before {
                known.kept = kept;
                return None;
            }
        }
        self.last += 1;
        layout.id = LayoutId(self.last);
        let keys = layout.columns.iter().map(|column| column.key).collect();
        self.now.insert(relation.oid, (Known { id: layout.id, keys, kept }, layout.clone()));
        Some(layout)
    }

    fn type_name(&self, oid: u32, modifier: i32) -> String {
        type_name(oid, modifier, self.types.get(&oid).cloned())
    }

    pub(super) fn layout(&self, relation: u32) -> Option<&Layout> {
        self.now.get(&relation).map(|(_, layout)| layout)
    }

    pub(super) fn of(&self, relation: u32) -> Result<Known> {
        let known = self.now.get(&relation).map(|(known, _)| known.clone());
        known.ok_or_else(|| Error::new(&codes::LOG_UNDECODABLE, "the source's log holds a row of a table it did not describe"))
    }
}
