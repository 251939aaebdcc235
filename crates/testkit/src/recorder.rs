//! An observer that keeps every event and lets a test wait for one.

use std::sync::Mutex;

use godwit_model::{Event, Observer, Phase};
use tokio::sync::watch;

type Hook = Box<dyn Fn(&Event) + Send>;

/// Keeps events in the order they came.
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    hook: Mutex<Option<Hook>>,
    count: watch::Sender<usize>,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { events: Mutex::default(), hook: Mutex::default(), count: watch::channel(0).0 }
    }
}

impl Recorder {
    /// Calls this with every event to come, in the midst of what it tells of.
    pub fn on_event(&self, hook: impl Fn(&Event) + Send + 'static) {
        *self.hook.lock().expect("no hook panics") = Some(Box::new(hook));
    }

    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// The first event, past or to come, of which `wanted` gives something.
    pub async fn first<T>(&self, wanted: impl FnMut(&Event) -> Option<T>) -> T {
        self.first_behind(0, wanted).await
    }

    /// As `first`, among events behind the first `seen`; `events().len()` is a place to go on from.
    pub async fn first_behind<T>(&self, seen: usize, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let mut news = self.count.subscribe();
        let mut next = seen;
        loop {
            let fresh: Vec<Event> = self.lock().get(next..).unwrap_or_default().to_vec();
            next += fresh.len();
            if let Some(found) = fresh.iter().find_map(&mut wanted) {
                return found;
            }
            news.changed().await.expect("the recorder itself holds the sender");
        }
    }

    pub async fn until_consistent(&self) {
        self.first(|event| matches!(event, Event::Consistent).then_some(())).await;
    }

    pub async fn until_phase(&self, phase: Phase) {
        self.first(|event| matches!(event, Event::Phase(reached) if *reached == phase).then_some(())).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("nothing panics while it holds the events")
    }
}

impl Observer for Recorder {
    fn event(&self, event: Event) {
        if let Some(hook) = &*self.hook.lock().expect("no hook panics") {
            hook(&event);
        }
        let count = {
            let mut events = self.lock();
            events.push(event);
            events.len()
        };
        self.count.send_replace(count);
    }
}
