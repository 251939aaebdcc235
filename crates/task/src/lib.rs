//! The task file: from YAML to a checked task.
//!
//! A file is read (`yaml`), its references are resolved (`reference`), it is held against the form's schema (`form`,
//! `schema`, `check`), and what is sound becomes a task (`assemble`, `endpoint`, `pattern`). Every mistake of a file is
//! reported at once, with its place; nothing is connected to. Secrets are held in types that do not print, and a message
//! quotes the file only as it was written. The help that users read is made from the same form (`explain`, `pages`).

mod dialect;
mod environment;
mod measure;
mod suggest;

mod problem;
mod yaml;

mod form;
mod later;
mod schema;

mod check;
mod reference;

mod libpq;
mod url;

mod pattern;

mod assemble;
mod endpoint;

mod load;

mod explain;
mod fingerprint;
mod pages;

#[cfg(test)]
mod tests;

pub use environment::{COMMAND_TIMEOUT, Environment, MAX_REFERENCED_BYTES, Surroundings};
pub use explain::{all_fields, explain_field, json_schema, nearest_field};
pub use fingerprint::fingerprint;
pub use load::{Loaded, load, parse};
pub use pages::explain_code;
pub use yaml::MAX_FILE_BYTES;
