//! Plain lines without control codes: for logs, pipes and continuous integration.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::happening::{Happening, Progress};
use super::screen::Screen;
use crate::values::{bytes, count, counted, printable, time};

/// Often enough to see that it lives, rarely enough to read what it said an hour ago.
const FIRST: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(30);
/// After so many lines of progress they come at the later pace.
const QUICK_LINES: u32 = 10;
/// A line of somebody else's words.
const WIDEST: usize = 400;

#[derive(Default)]
pub struct Lines {
    told: Option<Instant>,
    lines: u32,
    last: String,
}

impl Screen for Lines {
    fn show(&mut self, happening: &Happening) {
        match happening {
            Happening::Progress(progress) => self.progress(progress),
            other => {
                if let Some(line) = words(other) {
                    print(&line);
                }
            }
        }
    }

    fn close(&mut self) {}
}

impl Lines {
    fn progress(&mut self, progress: &Progress) {
        let pace = if self.lines < QUICK_LINES { FIRST } else { LATER };
        let since = self.told.get_or_insert_with(Instant::now);
        if since.elapsed() < pace {
            return;
        }
        self.told = Some(Instant::now());
        let line = match progress.phase.as_str() {
            "load" => load(progress),
            "catch-up" | "streaming" | "finish" => changes(progress),
            _ => return,
        };
        if line != self.last {
            print(&line);
            self.lines += 1;
            self.last = line;
        }
    }
}

/// One line for what happened; None: shown elsewhere.
pub fn words(happening: &Happening) -> Option<String> {
    Some(match happening {
        Happening::Phase { phase } => format!("phase: {phase}"),
        Happening::TablePlanned { .. } | Happening::Progress(_) => return None,
        Happening::TableLoaded { table, rows } => format!("loaded {} ({})", printable(table, WIDEST), counted(*rows, "row")),
        Happening::SchemaStep { step } => format!("schema: {}", printable(step, WIDEST)),
        Happening::Consistent => "consistent: the target is a true past state of the source".to_owned(),
        Happening::Retrying { what, wait_ms } => {
            format!("trying again in {}: {}", time(Duration::from_millis(*wait_ms)), printable(what, WIDEST))
        }
        Happening::Note { text } => printable(text, WIDEST),
        Happening::Warning { text } => format!("warning: {}", printable(text, WIDEST)),
    })
}

fn load(progress: &Progress) -> String {
    let load = &progress.load;
    let left = load.left_ms.map(|left| format!(", about {} left", time(Duration::from_millis(left)))).unwrap_or_default();
    let (rows, of) = (count(load.rows), count(load.estimated_rows.max(load.rows)));
    format!("load: {rows} of about {of} rows, {}/s{left}", count(load.rows_per_second))
}

fn changes(progress: &Progress) -> String {
    let changes = &progress.changes;
    let lag = lag(progress).map(|lag| format!(", {lag} behind")).unwrap_or_default();
    format!("{}: {}, {}/s{lag}", progress.phase, counted(changes.changes, "change"), count(changes.changes_per_second))
}

/// `1.2 s (3.4 MiB)`.
pub fn lag(progress: &Progress) -> Option<String> {
    let age = Duration::from_millis(progress.changes.lag_ms?);
    Some(format!("{} ({})", time(age), bytes(progress.changes.lag_bytes.unwrap_or(0))))
}

fn print(line: &str) {
    // a reader that went away does not stop the task
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
