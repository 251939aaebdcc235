//! One JSON object per line, with a version, for programs.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::happening::Happening;
use super::screen::Screen;
use crate::answer::JSON_VERSION;

/// Programs draw curves from this; more often would only fill their disks.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct JsonLines {
    told: Option<Instant>,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    #[serde(flatten)]
    happening: &'a Happening,
}

impl Screen for JsonLines {
    fn show(&mut self, happening: &Happening) {
        if matches!(happening, Happening::Progress(_)) {
            if self.told.is_some_and(|told| told.elapsed() < EVERY) {
                return;
            }
            self.told = Some(Instant::now());
        }
        let line = serde_json::to_string(&Line { v: JSON_VERSION, happening }).expect("a happening can be written as JSON");
        // a reader that went away does not stop the task
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    fn close(&mut self) {}
}
