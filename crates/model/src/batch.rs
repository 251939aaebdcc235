//! Rows that travel together.

use crate::value::Value;

/// One row of its own, for keys and tests.
pub type Row = Vec<Value>;

/// A row-major block: one flat vector of values with a fixed stride.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowBatch {
    stride: usize,
    values: Vec<Value>,
}

impl RowBatch {
    /// An empty batch whose rows have `stride` values each (at least one).
    pub fn new(stride: usize) -> Self {
        assert!(stride > 0, "a row has at least one column");
        RowBatch { stride, values: Vec::new() }
    }

    /// Makes room for so many more rows.
    pub fn reserve(&mut self, rows: usize) {
        self.values.reserve_exact(rows * self.stride);
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.stride).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Appends one row; panics if the iterator does not yield exactly `stride` values.
    pub fn push(&mut self, row: impl IntoIterator<Item = Value>) {
        let before = self.values.len();
        self.values.extend(row);
        assert_eq!(self.values.len() - before, self.stride, "a row has the batch's width");
    }

    pub fn row(&self, index: usize) -> &[Value] {
        &self.values[index * self.stride..(index + 1) * self.stride]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[Value]> + Clone + '_ {
        self.values.chunks_exact(self.stride.max(1))
    }

    pub fn weight(&self) -> usize {
        self.values.iter().map(Value::weight).sum()
    }
}
