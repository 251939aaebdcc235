//! From the layout a change was captured with to the columns that arrive.

use std::sync::Arc;

use godwit_model::{Error, Layout, Result, Table, TableMapping, Value, codes};

/// Where each mapped column stands in one layout.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub mapping: Arc<TableMapping>,
    /// For each of the mapping's columns its index in the layout.
    places: Vec<usize>,
}

/// How a layout differs from the table the mapping was made for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct LayoutDifference {
    pub added: Vec<String>,
    pub gone: Vec<String>,
}

impl LayoutDifference {
    /// Compares by name: a layout's columns against those the table had when the task began.
    pub fn between(layout: &Layout, table: &Table) -> Self {
        let known = |name: &str| table.columns.iter().any(|column| column.name == name);
        let there = |name: &str| layout.columns.iter().any(|column| column.name == name);
        LayoutDifference {
            added: layout.columns.iter().filter(|c| !known(&c.name)).map(|c| c.name.clone()).collect(),
            gone: table.columns.iter().filter(|c| !c.generated && !there(&c.name)).map(|c| c.name.clone()).collect(),
        }
    }

    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.gone.is_empty()
    }
}

impl Projection {
    pub fn new(mapping: Arc<TableMapping>, layout: &Layout) -> Result<Self> {
        let places = mapping
            .columns
            .iter()
            .map(|column| {
                layout.columns.iter().position(|there| there.name == column.source).ok_or_else(|| {
                    Error::new(&codes::DDL_STOPPED, format!("column `{}` is no longer in the source's log", column.source))
                        .at(format!("table {}", mapping.source))
                        .remedy("the table was altered at the source; alter the target alike, or start the task anew with `run --resync`")
                        .effect("everything before the schema change is applied, nothing after it")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Projection { mapping, places })
    }

    /// The mapped columns of an image, in the mapping's order.
    pub fn row<'a>(&'a self, image: &'a [Value]) -> impl Iterator<Item = &'a Value> + 'a {
        self.places.iter().map(|place| &image[*place])
    }

    /// The key's values of an image, in the key's order.
    pub fn key<'a>(&'a self, image: &'a [Value]) -> impl Iterator<Item = &'a Value> + 'a {
        self.mapping.key.iter().map(|index| &image[self.places[*index]])
    }
}
