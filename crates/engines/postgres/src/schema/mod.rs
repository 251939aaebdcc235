//! What the store holds, and the steps that make it elsewhere.
//!
//! `look` says how a table looks now, `altered` what a schema change made of it, `structure` what tables are
//! besides their rows. `catalog` reads tables, `key` chooses what identifies a row. Steps come from `dump` where `pg_dump` is there: `entries`
//! cuts its text, `depends` knows what leans on what, `part` chooses what holds for this task. Tables that are mapped,
//! and all of them without `pg_dump`, are made by `ddl` and its neighbours; `remainder` lists what stays behind. `adapt`
//! speaks for the target: which of these steps it can perform.

mod adapt;
mod altered;
mod attributes;
mod catalog;
mod constraints;
mod ddl;
mod depends;
mod describe;
mod dump;
mod entries;
mod indexes;
mod key;
mod look;
mod part;
mod remainder;
mod script;
mod sequences;
mod structure;
mod types;

pub(crate) use adapt::Here;
pub(crate) use altered::altered;
pub(crate) use catalog::{CatalogColumn, CatalogTable, Persistence, TableKind, read_named, selected_names};
pub(crate) use describe::describe;
pub(crate) use look::{of_names as appearances, type_name};
pub(crate) use script::staged;
pub(crate) use sequences::{MOVED_AT_ONCE, read_values, sequence_names, set_values};
pub(crate) use structure::{of_source as structure_of_source, of_target as structure_of_target};
