//! Which captured layout goes where. Pure.
//!
//! A layout is compared with the one the table had before: by name with the table's description the first time, exactly
//! (names and types, in order) from then on. The first layout of each table is a fact, so that a restart compares alike.

use std::sync::Arc;

use godwit_model::{DdlPolicy, Entry, Error, Layout, LayoutId, Result, TableName, codes};
use hashbrown::HashMap;

use crate::facts::{self, Facts};
use crate::load::Route;
use crate::project::{LayoutDifference, Projection};

pub(crate) struct Routes {
    routes: Vec<Route>,
    policy: DdlPolicy,
    /// None: a table that is not selected.
    projections: HashMap<LayoutId, Option<Arc<Projection>>>,
    /// Columns (name, type) each table's changes came with last.
    shapes: HashMap<TableName, Vec<(String, String)>>,
}

impl Routes {
    pub fn new(routes: Vec<Route>, policy: DdlPolicy, facts: &Facts) -> Result<Self> {
        let mut shapes = HashMap::new();
        for route in &routes {
            if let Some(shape) = facts.shape(&route.table.name)? {
                shapes.insert(route.table.name.clone(), shape);
            }
        }
        Ok(Routes { routes, policy, projections: HashMap::new(), shapes })
    }

    /// Takes a layout in; gives the fact to store with the next commit if it is the first or, by policy, the new one.
    pub fn layout(&mut self, layout: &Layout) -> Result<Option<Entry>> {
        let Some(route) = self.routes.iter().find(|route| route.table.name == layout.table).cloned() else {
            self.projections.insert(layout.id, None);
            return Ok(None);
        };
        let shape: Vec<(String, String)> = layout.columns.iter().map(|c| (c.name.clone(), c.type_name.clone())).collect();
        let news = match self.shapes.get(&layout.table) {
            Some(known) if *known == shape => None,
            Some(known) => {
                self.judge(&layout.table, &describe(known, &shape))?;
                Some(())
            }
            None => {
                let difference = LayoutDifference::between(layout, &route.table);
                if !difference.is_none() {
                    self.judge(&layout.table, &describe_names(&difference))?;
                }
                Some(())
            }
        };
        let projection = Projection::new(route.mapping.clone(), layout)?;
        self.projections.insert(layout.id, Some(Arc::new(projection)));
        Ok(news.map(|()| {
            let entry = facts::shape_entry(&layout.table, &shape);
            self.shapes.insert(layout.table.clone(), shape);
            entry
        }))
    }

    /// A schema change that the stream announced in words.
    pub fn schema(&self, table: &TableName, what: &str) -> Result<()> {
        match self.routes.iter().any(|route| route.table.name == *table) {
            true => self.judge(table, what),
            false => Ok(()),
        }
    }

    pub fn projection(&self, layout: LayoutId) -> Result<Option<&Arc<Projection>>> {
        match self.projections.get(&layout) {
            Some(projection) => Ok(projection.as_ref()),
            None => Err(Error::new(&codes::LOG_DAMAGED, format!("the change log uses layout {} before it says what it is", layout.0))
                .at("change log")),
        }
    }

    fn judge(&self, table: &TableName, what: &str) -> Result<()> {
        if self.policy == DdlPolicy::Ignore {
            tracing::warn!(%table, what, "schema change ignored, as the task says");
            return Ok(());
        }
        Err(Error::new(&codes::DDL_STOPPED, format!("the table was altered at the source: {what}"))
            .at(format!("table {table}"))
            .remedy("start anew with `run --resync` after the target was altered alike, or set `schema: {changes: ignore}` where columns were only added")
            .effect("every transaction before the schema change is applied, none after it"))
    }
}

fn describe_names(difference: &LayoutDifference) -> String {
    let list = |word: &str, names: &[String]| (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")));
    [list("added", &difference.added), list("dropped or renamed", &difference.gone)].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn describe(known: &[(String, String)], now: &[(String, String)]) -> String {
    let absent = |from: &[(String, String)], name: &str| !from.iter().any(|(there, _)| there == name);
    let difference = LayoutDifference {
        added: now.iter().filter(|(name, _)| absent(known, name)).map(|(name, _)| name.clone()).collect(),
        gone: known.iter().filter(|(name, _)| absent(now, name)).map(|(name, _)| name.clone()).collect(),
    };
    let retyped = now.iter().filter(|(name, kind)| known.iter().any(|(there, before)| there == name && before != kind));
    let retyped: Vec<&str> = retyped.map(|(name, _)| name.as_str()).collect();
    let mut words: Vec<String> = Some(describe_names(&difference)).filter(|words| !words.is_empty()).into_iter().collect();
    if !retyped.is_empty() {
        words.push(format!("another type for {}", retyped.join(", ")));
    }
    if words.is_empty() {
        words.push("its columns were put in another order".to_owned());
    }
    words.join("; ")
}
