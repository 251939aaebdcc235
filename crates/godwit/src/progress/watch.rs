//! From the pipeline's events to the screen and to those who listen.
//!
//! Events come from many threads that must not wait for a terminal: they are counted under a short lock, and what is
//! worth telling goes into a queue that one thread of our own empties.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use godwit_model::{Event, Observer};
use tokio::sync::broadcast;

use super::happening::Happening;
use super::screen::{self, Screen};
use super::tally::Tally;
use crate::cli::Output;

/// How often progress is told: as often as an eye can follow.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// What waits for the screen: a burst of schema steps fits; when a terminal stands still, more is dropped and counted.
const QUEUE: usize = 4096;
/// What waits for a listener; one that is slower misses some.
const LISTENER_QUEUE: usize = 256;

/// One that gets what the screen gets.
pub type Listener = broadcast::Receiver<Happening>;

/// Shows a task at work until it is closed.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    tally: Mutex<Tally>,
    queue: SyncSender<Told>,
    dropped: AtomicU64,
    listeners: broadcast::Sender<Happening>,
}

enum Told {
    This(Happening),
    End,
}

impl Watch {
    pub fn begin(output: Output) -> Self {
        let (queue, told) = sync_channel(QUEUE);
        let (listeners, _) = broadcast::channel(LISTENER_QUEUE);
        let tally = Mutex::new(Tally::new(Instant::now()));
        let shared = Arc::new(Shared { tally, queue, dropped: AtomicU64::new(0), listeners });
        let of_thread = shared.clone();
        let spawned =
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || paint(&of_thread, &told, screen::for_stderr(output)));
        if let Err(cause) = &spawned {
            tracing::warn!(%cause, "no thread to show progress");
        }
        Watch { shared, thread: spawned.ok() }
    }

    pub fn observer(&self) -> Arc<dyn Observer> {
        self.shared.clone()
    }

    pub fn listen(&self) -> Listener {
        self.shared.listeners.subscribe()
    }

    /// Changes applied so far, as the pipeline told.
    pub fn changes(&self) -> u64 {
        self.shared.tally().changes()
    }

    /// Shows what another process tells.
    pub fn show(&self, happening: Happening) {
        self.shared.tell(happening);
    }

    /// Shows what is left to show and leaves the terminal to others.
    pub fn close(&mut self) {
        if let Some(thread) = self.thread.take() {
            // fails only if the thread is gone
            let _ = self.shared.queue.send(Told::End);
            if thread.join().is_err() {
                tracing::warn!("the thread that shows progress died");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // numbers for people: a half-made one is no reason to die
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: Happening) {
        if self.queue.try_send(Told::This(happening)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Observer for Shared {
    fn event(&self, event: Event) {
        let told = self.tally().take(event, Instant::now());
        if let Some(happening) = told {
            self.tell(happening);
        }
    }
}

fn paint(shared: &Shared, told: &Receiver<Told>, mut screen: Box<dyn Screen>) {
    let mut next = Instant::now() + TELL_EVERY;
    loop {
        match told.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Told::This(happening)) => show(shared, &mut *screen, happening),
            Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + TELL_EVERY;
                let progress = shared.tally().tell(Instant::now());
                // a process that shows another's work has none of its own
                if progress.phase != "start" {
                    show(shared, &mut *screen, Happening::Progress(progress));
                }
                note_dropped(shared, &mut *screen);
            }
        }
    }
    screen.close();
}

fn show(shared: &Shared, screen: &mut dyn Screen, happening: Happening) {
    screen.show(&happening);
    // fails when nobody listens
    let _ = shared.listeners.send(happening);
}

fn note_dropped(shared: &Shared, screen: &mut dyn Screen) {
    let dropped = shared.dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        screen.show(&Happening::Note { text: format!("{dropped} messages were not shown") });
    }
}
