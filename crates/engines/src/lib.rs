//! The one list of engines.
