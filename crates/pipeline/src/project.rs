//! From the layout a change was captured with to the columns that arrive.

use std::sync::Arc;

use godwit_model::{Error, Layout, Result, TableMapping, Value, codes};

/// Where each mapped column stands in one layout.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub mapping: Arc<TableMapping>,
    places: Vec<Place>,
}

/// For one of the mapping's columns.
#[derive(Clone, Debug)]
enum Place {
    /// Its index in the layout.
    At(usize),
    /// The layout is older than the column: what rows of that time hold in it, `Absent` where that cannot be told.
    Instead(Value),
}

impl Projection {
    pub fn new(mapping: Arc<TableMapping>, layout: &Layout) -> Result<Self> {
        let place = |name: &str| layout.columns.iter().position(|there| there.name == name).map(Place::At);
        let places = mapping.columns.iter().map(|column| place(&column.source).ok_or_else(|| gone(&mapping, &column.source)));
        Ok(Projection { places: places.collect::<Result<_>>()?, mapping })
    }

    /// Of a layout that is not quite the table's: `place` says where a column's values may be taken, `instead` what stands for
    /// one that has no place in it.
    pub fn of_older(mapping: Arc<TableMapping>, place: impl Fn(&str) -> Option<usize>, instead: impl Fn(&str) -> Value) -> Self {
        let found = |name: &str| place(name).map_or_else(|| Place::Instead(instead(name)), Place::At);
        let places = mapping.columns.iter().map(|column| found(&column.source)).collect();
        Projection { places, mapping }
    }

    /// One of the mapping's columns of an image.
    pub fn value<'a>(&'a self, image: &'a [Value], column: usize) -> &'a Value {
        self.places[column].of(image)
    }

    /// The mapped columns of an image, in the mapping's order.
    pub fn row<'a>(&'a self, image: &'a [Value]) -> impl Iterator<Item = &'a Value> + 'a {
        self.places.iter().map(|place| place.of(image))
    }

    /// The key's values of an image, in the key's order.
    pub fn key<'a>(&'a self, image: &'a [Value]) -> impl Iterator<Item = &'a Value> + 'a {
        self.mapping.key.iter().map(|index| self.places[*index].of(image))
    }
}

impl Place {
    fn of<'a>(&'a self, image: &'a [Value]) -> &'a Value {
        match self {
            Place::At(index) => &image[*index],
            Place::Instead(value) => value,
        }
    }
}

fn gone(mapping: &TableMapping, column: &str) -> Error {
    Error::new(&codes::DDL_STOPPED, format!("column `{column}` is no longer in the source's log"))
        .at(format!("table {}", mapping.source))
        .remedy("the table was altered at the source; alter the target alike, or start the task anew with `run --resync`")
        .effect("everything before the schema change is applied, nothing after it")
}
