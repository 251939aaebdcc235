//! When the change log is synced. Pure: the clock is a parameter.
//!
//! A slow stream is synced at once, because whoever made the change may be waiting for its sight at the target. A busy
//! one is synced in a rhythm that slows down while it stays busy: every sync wakes replay, and what it finds becomes a
//! group at the target, so that few syncs make large groups, in which changes of one key become one.

use std::time::Duration;

use tokio::time::Instant;

/// Transactions per second from which on a stream is busy. A backlog is read many times as fast.
const BUSY: u128 = 2_000;
/// ... if it is at least so many, since a few transactions at one moment say nothing.
const AT_LEAST: u64 = 20;
/// Between the beginnings of two syncs of a busy stream, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);
#[derive(Debug)]
pub(crate) struct Rhythm {
    /// When the last sync began.
    began: Instant,
    pause: Duration,
    /// Since then.
    transactions: u64,
    weight: usize,
    /// So much is synced at once: readers find it in memory, and a large transaction is applied while the rest of it
    /// still arrives.
    heavy: usize,
}

impl Rhythm {
    pub fn new(heavy: usize, now: Instant) -> Self {
        Rhythm { began: now, pause: Duration::ZERO, transactions: 0, weight: 0, heavy }
    }

    pub fn changes(&mut self, weight: usize) {
        self.weight += weight;
    }

    pub fn transaction(&mut self) {
        self.transactions += 1;
    }

    /// Whether a sync must not wait for anything, not even for the end of the transaction.
    pub fn is_heavy(&self) -> bool {
        self.weight >= self.heavy
    }

    /// When the next sync may begin.
    pub fn due(&self) -> Instant {
        if self.is_heavy() { self.began } else { self.began + self.pause }
    }

    /// A sync begins.
    pub fn begin(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        let is_busy = self.transactions >= AT_LEAST && u128::from(self.transactions) * 1_000_000 >= BUSY * passed.as_micros();
        let pause = if is_busy { (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) } else { Duration::ZERO };
        *self = Rhythm { pause, ..Rhythm::new(self.heavy, now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses that follow when so many transactions came between syncs, each sync as early as it may be.
    fn pauses(transactions: &[u64]) -> Vec<u128> {
        let mut now = Instant::now();
        let mut rhythm = Rhythm::new(10, now);
        let mut pauses = Vec::new();
        for count in transactions {
            (0..*count).for_each(|_| rhythm.transaction());
            now = rhythm.due().max(now + Duration::from_millis(1));
            rhythm.begin(now);
            pauses.push(rhythm.due().duration_since(now).as_millis());
        }
        pauses
    }

    #[test]
    fn a_slow_stream_is_synced_at_once() {
        assert_eq!(pauses(&[1, 4, 19, 0, 3]), [0; 5]);
    }

    #[test]
    fn a_busy_stream_is_synced_ever_less_often_until_it_is_slow_again() {
        assert_eq!(pauses(&[30, 120, 240, 500, 900, 50, 1]), [4, 8, 16, 32, 32, 0, 0]);
    }

    #[test]
    fn much_is_synced_at_once() {
        let now = Instant::now();
        let mut rhythm = Rhythm { pause: LONGEST_PAUSE, ..Rhythm::new(10, now) };
        rhythm.changes(9);
        assert_eq!(rhythm.due(), now + LONGEST_PAUSE);
        rhythm.changes(1);
        assert_eq!(rhythm.due(), now);
    }
}
