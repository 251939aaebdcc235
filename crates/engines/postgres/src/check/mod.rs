//! Named checks, each with what was seen and what to do. They try, and leave nothing behind.

mod source;
mod tables;
mod target;
mod trial;

pub(crate) use source::source;
pub(crate) use target::target;
