//! Which captured layout goes where. Pure.
//!
//! A layout means nothing before a change uses it: one that only a rolled-back transaction had stays in the log, and an
//! older one may be said again. What a change was captured with is compared with how its table looked last, by name and
//! type; how it looked is a fact, so that a restart compares alike.

use std::sync::Arc;

use godwit_model::{Appearance, DdlPolicy, Entry, Error, Layout, LayoutColumn, LayoutId, Position, Result, TableName, Value, codes};
use hashbrown::HashMap;

use crate::carry;
use crate::facts::{self, Facts};
use crate::load::Route;
use crate::project::Projection;

pub(crate) struct Routes {
    /// By the source table's name.
    routes: HashMap<TableName, Route>,
    policy: DdlPolicy,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    /// Of layouts that were used. None: a table that is not selected.
    projections: HashMap<LayoutId, Option<Arc<Projection>>>,
    looks: HashMap<TableName, Appearance>,
    /// Tables whose changes may still use older layouts.
    behind: HashMap<TableName, Older>,
    /// Those of them that were altered for the sake of the transaction that comes first.
    first: Vec<TableName>,
}

/// What stands for columns that an older layout does not have, or has under another name.
#[derive(Default)]
struct Older {
    fills: Vec<(String, Value)>,
    renamed: Vec<(String, String)>,
}

impl Older {
    fn fill(&self, name: &str) -> Value {
        self.fills.iter().find(|(there, _)| there == name).map_or(Value::Absent, |(_, value)| value.clone())
    }

    /// The name of that time.
    fn name_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed.iter().find(|(_, new)| new == name).map_or(name, |(old, _)| old)
    }
}

/// Where a change goes.
pub(crate) enum Fate {
    Elsewhere,
    To(Arc<Projection>),
    /// Its table was altered: the target must be, before the change's transaction.
    Altered(Arc<Layout>),
}

impl Routes {
    /// `position`: of the checkpoint from which the log is read.
    pub fn new(routes: Vec<Route>, policy: DdlPolicy, facts: &Facts, position: Option<&Position>) -> Result<Self> {
        let (mut looks, mut behind, mut first) = (HashMap::new(), HashMap::new(), Vec::new());
        for route in &routes {
            let name = &route.table.name;
            if let Some(look) = facts.look(name)? {
                looks.insert(name.clone(), look);
            }
            if facts.is_loose(name) {
                behind.insert(name.clone(), Older::default());
            } else if let Some(ahead) = facts.ahead(name)?.filter(|ahead| ahead.position.as_ref() == position) {
                behind.insert(name.clone(), Older { fills: ahead.fills, renamed: ahead.renamed });
                first.push(name.clone());
            }
        }
        let routes = routes.into_iter().map(|route| (route.table.name.clone(), route)).collect();
        Ok(Routes { routes, policy, layouts: HashMap::new(), projections: HashMap::new(), looks, behind, first })
    }

    /// Takes note of a layout. Each segment of the log says all that are in use once more.
    pub fn layout(&mut self, layout: &Arc<Layout>) {
        if self.layouts.get(&layout.id) == Some(layout) {
            return;
        }
        self.projections.remove(&layout.id);
        self.layouts.insert(layout.id, layout.clone());
    }

    /// Gives the fact to store with the next commit if this is the first that is heard of the table.
    pub fn fate(&mut self, id: LayoutId) -> Result<(Fate, Option<Entry>)> {
        if let Some(known) = self.projections.get(&id) {
            return Ok((known.clone().map_or(Fate::Elsewhere, Fate::To), None));
        }
        let layout = self.layouts.get(&id).cloned().ok_or_else(|| {
            Error::new(&codes::LOG_DAMAGED, format!("the change log uses layout {} before it says what it is", id.0)).at("change log")
        })?;
        let Some(route) = self.routes.get(&layout.table).cloned() else {
            self.projections.insert(id, None);
            return Ok((Fate::Elsewhere, None));
        };
        if let Some(older) = self.behind.get(&layout.table) {
            let look = self.looks.get(&layout.table).map_or(&[][..], |look| &look.columns[..]);
            let now = |column: &LayoutColumn, name: &str| look.iter().any(|(there, kind)| *there == name && *kind == column.type_name);
            let known = |name: &str| look.iter().any(|(there, _)| there == name);
            let place = |name: &str| {
                let names = [name, older.name_of(name)];
                names
                    .into_iter()
                    .find_map(|old| layout.columns.iter().position(|column| column.name == old && (now(column, name) || !known(name))))
            };
            let projection = Projection::of_older(route.mapping.clone(), place, |name| older.fill(name));
            return Ok((self.to(id, projection), None));
        }
        let columns = carry::stated(&layout);
        let mut news = None;
        match self.looks.get(&layout.table) {
            Some(look) if look.fits(&columns) => {}
            Some(look) => match self.policy {
                DdlPolicy::Carry => return Ok((Fate::Altered(layout), None)),
                DdlPolicy::Ignore if carry::is_only_wider(look, &columns) => {
                    tracing::warn!(table = %layout.table, what = carry::describe(look, &columns), "schema change ignored, as the task says");
                }
                DdlPolicy::Ignore | DdlPolicy::Stop => return Err(carry::stopped(&layout.table, &carry::describe(look, &columns))),
            },
            None => {
                let look = Appearance { columns, ..Appearance::default() };
                let described = Appearance { columns: carry::described(&route.table, &look), ..Appearance::default() };
                let wider = self.policy == DdlPolicy::Ignore && carry::is_only_wider(&described, &look.columns);
                if !wider && !described.fits(&look.columns) {
                    return Err(carry::stopped(&layout.table, &carry::describe(&described, &look.columns)));
                }
                news = Some(facts::look_entry(&layout.table, &look));
                self.looks.insert(layout.table.clone(), look);
            }
        }
        Ok((self.to(id, Projection::new(route.mapping.clone(), &layout)?), news))
    }

    fn to(&mut self, id: LayoutId, projection: Projection) -> Fate {
        let projection = Arc::new(projection);
        self.projections.insert(id, Some(projection.clone()));
        Fate::To(projection)
    }

    /// The transaction that comes first is over.
    pub fn first_is_over(&mut self) {
        if !self.first.is_empty() {
            self.first.drain(..).for_each(|table| drop(self.behind.remove(&table)));
            self.projections.clear();
        }
    }

    /// A schema change that the stream announced in words: whether rows may have changed outside of the log.
    pub fn announced(&self, table: &TableName, what: &str) -> Result<bool> {
        if self.behind.contains_key(table) || !self.routes.contains_key(table) {
            return Ok(false);
        }
        match self.policy {
            DdlPolicy::Carry => Ok(true),
            DdlPolicy::Ignore => {
                tracing::warn!(%table, what, "schema change ignored, as the task says");
                Ok(false)
            }
            DdlPolicy::Stop => Err(carry::stopped(table, what)),
        }
    }
}
