//! Faults around any implementation of a contract: refuse, lose the answer, hold, slow down.
//!
//! A `FaultPlan` decides for every call by its name, from a seed, and counts what it did. Names are `contract.method`:
//! `source.mark`, `stream.next`, `applier.commit` ... A wrapper passes everything else through. What is of no use after an
//! error (a stream, an applier, a reader) stays broken: its connection is gone.

#[macro_use]
mod examiner;
mod plan;
mod reader;
mod source;
mod target;

use std::sync::Arc;

use godwit_model::{RowReader, Source, Target};

pub use plan::{Fault, FaultPlan, Hold};

pub fn source(inner: Arc<dyn Source>, plan: &Arc<FaultPlan>) -> Arc<dyn Source> {
    Arc::new(source::FaultySource::new(inner, plan.clone()))
}

pub fn target(inner: Arc<dyn Target>, plan: &Arc<FaultPlan>) -> Arc<dyn Target> {
    Arc::new(target::FaultyTarget::new(inner, plan.clone()))
}

pub fn reader(inner: Box<dyn RowReader>, plan: &Arc<FaultPlan>) -> Box<dyn RowReader> {
    Box::new(reader::FaultyReader::new(inner, plan.clone()))
}
