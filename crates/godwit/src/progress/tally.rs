//! Counts what the pipeline says, and what follows from it: rates, what is left, lag. Pure: the clock is a parameter.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use godwit_model::{Event, Phase, PipelineStage, TableName};

use super::happening::{ChangeProgress, Happening, LoadProgress, Progress, StageTime};

/// Rates are those of the last few seconds: steady enough to read, quick enough to show a stall.
const RATE_OVER: Duration = Duration::from_secs(5);
/// Samples within that time; more tellings per second than this would add nothing.
const MOST_SAMPLES: usize = 64;
/// Lag says something for this long; an idle task reports none.
const LAG_HOLDS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Tally {
    began: Instant,
    phase: Option<Phase>,
    load: LoadProgress,
    /// Chunks left and rows loaded of each table that is not complete.
    loading: HashMap<TableName, (u64, u64)>,
    changes: ChangeProgress,
    lag: Option<(Instant, Duration, u64)>,
    stages: [(u64, Duration); STAGES.len()],
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    rows: u64,
    changes: u64,
}

const STAGES: [(PipelineStage, &str); 5] = [
    (PipelineStage::Read, "read"),
    (PipelineStage::Logged, "logged"),
    (PipelineStage::Mapped, "mapped"),
    (PipelineStage::Applied, "applied"),
    (PipelineStage::Committed, "committed"),
];

impl Tally {
    pub fn new(now: Instant) -> Self {
        Tally {
            began: now,
            phase: None,
            load: LoadProgress::default(),
            loading: HashMap::new(),
            changes: ChangeProgress::default(),
            lag: None,
            stages: Default::default(),
            samples: VecDeque::new(),
        }
    }

    /// Takes an event in; gives what is worth telling at once.
    pub fn take(&mut self, event: Event, now: Instant) -> Option<Happening> {
        match event {
            Event::Phase(phase) => self.phase(phase),
            Event::TablePlanned { table, chunks, estimated_rows } => {
                self.load.tables += 1;
                self.load.estimated_rows += estimated_rows;
                let told = Happening::TablePlanned { table: table.to_string(), chunks, estimated_rows };
                self.loading.insert(table, (chunks, 0));
                Some(told)
            }
            Event::ChunkLoaded { table, rows } => self.chunk(table, rows),
            Event::SchemaStep { id } => Some(Happening::SchemaStep { step: id }),
            Event::Consistent => {
                self.changes.consistent = true;
                Some(Happening::Consistent)
            }
            Event::Reopened { table } => {
                self.changes.consistent = false;
                let text = format!(
                    "table {table} was altered or rewritten at the source: its rows are compared and read again; until the target is consistent again it is not one state of the source"
                );
                Some(Happening::Note { text })
            }
            Event::Committed { transactions, changes } => {
                self.changes.transactions += transactions;
                self.changes.changes += changes;
                None
            }
            Event::Lag { age, bytes } => {
                self.lag = Some((now, age, bytes));
                None
            }
            Event::Timing { stage, changes, took } => {
                self.timing(stage, changes, took);
                None
            }
            Event::Retrying { what, wait } => Some(Happening::Retrying { what, wait_ms: milliseconds(wait) }),
            Event::Note(text) => Some(Happening::Note { text }),
            Event::Warning(text) => Some(Happening::Warning { text }),
        }
    }

    fn phase(&mut self, phase: Phase) -> Option<Happening> {
        let again = self.phase.replace(phase) == Some(phase);
        if phase < Phase::Streaming {
            self.changes.consistent = false;
        }
        (!again).then(|| Happening::Phase { phase: phase.word().to_owned() })
    }

    fn chunk(&mut self, table: TableName, rows: u64) -> Option<Happening> {
        self.load.rows += rows;
        let (left, loaded) = self.loading.get_mut(&table)?;
        *left = left.saturating_sub(1);
        *loaded += rows;
        let (left, rows) = (*left, *loaded);
        if left > 0 {
            return None;
        }
        self.loading.remove(&table);
        self.load.tables_loaded += 1;
        Some(Happening::TableLoaded { table: table.to_string(), rows })
    }

    fn timing(&mut self, stage: PipelineStage, changes: u64, took: Duration) {
        let place = STAGES.iter().position(|(known, _)| *known == stage).expect("every stage is in the table");
        self.stages[place].0 += changes;
        self.stages[place].1 += took;
    }

    /// Changes applied so far.
    pub fn changes(&self) -> u64 {
        self.changes.changes
    }

    /// Where the task stands now.
    pub fn tell(&mut self, now: Instant) -> Progress {
        let past = self.sample(now);
        let over = now.duration_since(past.at).as_secs_f64().max(0.001);
        let per_second = |count: u64| (count as f64 / over) as u64;
        let mut load = self.load.clone();
        load.rows_per_second = per_second(load.rows - past.rows);
        load.left_ms = (load.rows_per_second > 0).then(|| load.estimated_rows.saturating_sub(load.rows) * 1000 / load.rows_per_second);
        let lag = self.lag.filter(|(at, ..)| now.duration_since(*at) < LAG_HOLDS);
        let changes = ChangeProgress {
            changes_per_second: per_second(self.changes.changes - past.changes),
            lag_ms: lag.map(|(_, age, _)| milliseconds(age)),
            lag_bytes: lag.map(|(.., bytes)| bytes),
            ..self.changes.clone()
        };
        Progress {
            phase: self.phase.map(Phase::word).unwrap_or("start").to_owned(),
            elapsed_ms: milliseconds(now.duration_since(self.began)),
            load,
            changes,
            stages: self.stage_times(),
        }
    }

    /// Remembers this moment; gives the one to measure from.
    fn sample(&mut self, now: Instant) -> Sample {
        while self.samples.len() >= MOST_SAMPLES || self.samples.get(1).is_some_and(|next| now.duration_since(next.at) >= RATE_OVER) {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, rows: self.load.rows, changes: self.changes.changes });
        let first = self.samples[0];
        if self.samples.len() > 1 { first } else { Sample { at: self.began, rows: 0, changes: 0 } }
    }

    fn stage_times(&mut self) -> Vec<StageTime> {
        let times = std::mem::take(&mut self.stages);
        let named = STAGES.iter().zip(times).filter(|(_, (_, took))| !took.is_zero());
        let time = |((_, name), (changes, took)): (&(PipelineStage, &str), (u64, Duration))| StageTime {
            stage: (*name).to_owned(),
            changes,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        };
        named.map(time).collect()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new("main", "orders")
    }

    #[test]
    fn a_load_tells_its_rate_and_what_is_left() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.take(Event::TablePlanned { table: table(), chunks: 4, estimated_rows: 1000 }, start);
        tally.tell(start);
        tally.take(Event::ChunkLoaded { table: table(), rows: 400 }, start);
        let told = tally.tell(start + Duration::from_secs(2));
        assert_eq!((told.load.rows, told.load.rows_per_second, told.load.left_ms), (400, 200, Some(3000)));
    }

    #[test]
    fn a_table_is_loaded_with_its_last_chunk() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        tally.take(Event::TablePlanned { table: table(), chunks: 2, estimated_rows: 10 }, now);
        assert_eq!(tally.take(Event::ChunkLoaded { table: table(), rows: 4 }, now), None);
        let told = tally.take(Event::ChunkLoaded { table: table(), rows: 5 }, now);
        assert_eq!(told, Some(Happening::TableLoaded { table: "main.orders".into(), rows: 9 }));
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for second in 0..20 {
            tally.take(Event::Committed { transactions: 1, changes: if second < 10 { 1000 } else { 10 } }, start);
            tally.tell(start + Duration::from_secs(second));
        }
        let told = tally.tell(start + Duration::from_secs(20));
        assert!((5..=20).contains(&told.changes.changes_per_second), "{told:?}");
    }

    #[test]
    fn old_lag_is_not_told() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.take(Event::Lag { age: Duration::from_secs(9), bytes: 5 }, start);
        assert_eq!(tally.tell(start).changes.lag_bytes, Some(5));
        assert_eq!(tally.tell(start + Duration::from_secs(3)).changes.lag_bytes, None);
    }

    #[test]
    fn a_phase_is_told_once() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        assert!(tally.take(Event::Phase(Phase::Load), now).is_some());
        assert!(tally.take(Event::Phase(Phase::Load), now).is_none());
    }
}
