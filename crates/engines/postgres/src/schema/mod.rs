//! What the store holds, and the steps that make it elsewhere.
//!
//! `catalog` reads tables, `key` chooses what identifies a row, `selection` says which tables a task means. Steps come
//! from `dump` where everything is asked for under its own name and `pg_dump` is there; else `ddl` and its neighbours
//! write them, and `remainder` lists what then stays behind.

mod catalog;
mod constraints;
mod ddl;
mod describe;
mod dump;
mod entries;
mod indexes;
mod key;
mod remainder;
mod sequences;
mod types;

pub(crate) use catalog::{CatalogTable, Persistence, TableKind, read_named};
pub(crate) use describe::describe;
pub(crate) use sequences::{read_values, sequence_names, set_values};
