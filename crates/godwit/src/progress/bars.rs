//! Bars on a terminal: one for the load, one line for changes; what happened scrolls by above them.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::happening::{Happening, Progress};
use super::lines::{lag, words};
use super::screen::Screen;
use crate::values::{count, counted, time};

const LOAD: &str = "{prefix:>9} [{bar:32}] {msg}";
const CHANGES: &str = "{prefix:>9} {spinner} {msg}";

pub struct Bars {
    all: MultiProgress,
    load: Option<ProgressBar>,
    changes: Option<ProgressBar>,
}

impl Bars {
    pub fn new() -> Self {
        Bars { all: MultiProgress::new(), load: None, changes: None }
    }

    fn load(&mut self, progress: &Progress) {
        let bar = self.load.get_or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0).with_style(style(LOAD).progress_chars("=> ")));
            bar.set_prefix("load");
            bar
        });
        let load = &progress.load;
        bar.set_length(load.estimated_rows.max(load.rows).max(1));
        bar.set_position(load.rows);
        let left = match load.left_ms {
            Some(left) if progress.phase == "load" => format!(", about {} left", time(Duration::from_millis(left))),
            _ => String::new(),
        };
        let tables = format!("{} of {}", load.tables_loaded, counted(load.tables, "table"));
        bar.set_message(format!("{}, {} ({}/s){left}", tables, counted(load.rows, "row"), count(load.rows_per_second)));
    }

    fn changes(&mut self, progress: &Progress) {
        let bar = self.changes.get_or_insert_with(|| self.all.add(ProgressBar::new_spinner().with_style(style(CHANGES))));
        bar.set_prefix(progress.phase.clone());
        let changes = &progress.changes;
        let lag = lag(progress).map(|lag| format!(", {lag} behind")).unwrap_or_default();
        bar.set_message(format!("{} ({}/s){lag}", counted(changes.changes, "change"), count(changes.changes_per_second)));
        bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}

impl Screen for Bars {
    fn show(&mut self, happening: &Happening) {
        match happening {
            Happening::Progress(progress) => match progress.phase.as_str() {
                "load" => self.load(progress),
                "catch-up" | "streaming" | "finish" => {
                    self.changes(progress);
                }
                _ => {}
            },
            other => {
                if matches!(other, Happening::Phase { .. })
                    && let Some(bar) = self.load.take()
                {
                    bar.finish_and_clear();
                }
                if let Some(line) = words(other) {
                    // nothing to be done about a terminal that went away
                    let _ = self.all.println(line);
                }
            }
        }
    }

    fn close(&mut self) {
        for bar in self.load.take().into_iter().chain(self.changes.take()) {
            bar.finish_and_clear();
        }
    }
}
