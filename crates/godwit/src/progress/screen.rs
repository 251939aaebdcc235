//! Where happenings are shown.

use std::io::IsTerminal as _;

use super::bars::Bars;
use super::happening::Happening;
use super::json::JsonLines;
use super::lines::Lines;
use crate::cli::Output;

/// Called by one thread.
pub trait Screen: Send {
    fn show(&mut self, happening: &Happening);

    /// Leaves the terminal as it should be for what comes next.
    fn close(&mut self);
}

/// The screen that fits where stderr goes.
pub fn for_stderr(output: Output) -> Box<dyn Screen> {
    match output {
        Output::Json => Box::new(JsonLines::default()),
        Output::Text if std::io::stderr().is_terminal() => Box::new(Bars::new()),
        Output::Text => Box::new(Lines::default()),
    }
}
