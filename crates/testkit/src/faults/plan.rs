//! Which call meets which fault.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_model::{Error, Result, codes};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Fails before anything was done.
    Reject,
    /// Does it, then fails: the answer was lost.
    LostAnswer,
    /// Does it later.
    Slow(Duration),
}

/// Chances per call, out of a million, and faults ordered for certain calls.
pub struct FaultPlan {
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    reject: u32,
    lost_answer: u32,
    slow: Option<(u32, Duration)>,
    /// Only calls whose name begins with one of these meet chance; empty: all.
    only: Vec<&'static str>,
    ordered: HashMap<&'static str, VecDeque<Fault>>,
    holds: HashMap<&'static str, watch::Sender<Held>>,
    counts: BTreeMap<(&'static str, Option<Fault>), u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Held {
    #[default]
    Waiting,
    Reached,
    Released,
}

const MILLION: u32 = 1_000_000;

impl FaultPlan {
    /// Without faults until some are asked for.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            reject: 0,
            lost_answer: 0,
            slow: None,
            only: Vec::new(),
            ordered: HashMap::new(),
            holds: HashMap::new(),
            counts: BTreeMap::new(),
        };
        FaultPlan { state: Mutex::new(state) }
    }

    /// The chance that a call is rejected, 0 to 1.
    #[must_use]
    pub fn reject(self, chance: f64) -> Self {
        self.lock().reject = parts(chance);
        self
    }

    /// The chance that a call's answer is lost, 0 to 1.
    #[must_use]
    pub fn lose_answers(self, chance: f64) -> Self {
        self.lock().lost_answer = parts(chance);
        self
    }

    /// The chance that a call waits first, 0 to 1.
    #[must_use]
    pub fn slow(self, chance: f64, wait: Duration) -> Self {
        self.lock().slow = Some((parts(chance), wait));
        self
    }

    /// Only calls whose name begins so meet chance; several add up.
    #[must_use]
    pub fn only(self, prefix: &'static str) -> Self {
        self.lock().only.push(prefix);
        self
    }

    /// The next call of this name meets this fault; several wait in line.
    pub fn order(&self, call: &'static str, fault: Fault) {
        self.lock().ordered.entry(call).or_default().push_back(fault);
    }

    /// No more chance; what was ordered or is held stays.
    pub fn calm(&self) {
        let mut state = self.lock();
        (state.reject, state.lost_answer, state.slow) = (0, 0, None);
    }

    /// The next call of this name waits until it is released.
    pub fn hold(self: &Arc<Self>, call: &'static str) -> Hold {
        let sender = watch::channel(Held::Waiting).0;
        let receiver = sender.subscribe();
        self.lock().holds.insert(call, sender.clone());
        Hold { sender, receiver }
    }

    /// How many calls of this name there were, with or without a fault.
    pub fn calls(&self, call: &str) -> u64 {
        self.count(|name, _| name == call)
    }

    /// How many calls met a fault.
    pub fn faults(&self) -> u64 {
        self.count(|_, fault| fault.is_some())
    }

    fn count(&self, wanted: impl Fn(&str, Option<Fault>) -> bool) -> u64 {
        self.lock().counts.iter().filter(|((name, fault), _)| wanted(name, *fault)).map(|(_, count)| count).sum()
    }

    /// Runs the call as the plan decides.
    pub async fn around<T>(&self, call: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.decide(call);
        self.wait_if_held(call).await;
        match fault {
            None => work.await,
            Some(Fault::Reject) => Err(failed(call, "was rejected")),
            Some(Fault::LostAnswer) => {
                work.await?;
                Err(failed(call, "was done, its answer was lost"))
            }
            Some(Fault::Slow(wait)) => {
                tokio::time::sleep(wait).await; // slowness is what is asked for
                work.await
            }
        }
    }

    fn decide(&self, call: &'static str) -> Option<Fault> {
        let mut state = self.lock();
        let ordered = state.ordered.get_mut(call).and_then(VecDeque::pop_front);
        let fault = ordered.or_else(|| state.by_chance(call));
        *state.counts.entry((call, fault)).or_default() += 1;
        fault
    }

    async fn wait_if_held(&self, call: &'static str) {
        let Some(sender) = self.lock().holds.remove(call) else { return };
        let mut state = sender.subscribe();
        sender.send_if_modified(|held| {
            let first = *held == Held::Waiting;
            if first {
                *held = Held::Reached;
            }
            first
        });
        // An error means that nobody can release it any more.
        let _ = state.wait_for(|held| *held == Held::Released).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the plan")
    }
}

impl State {
    fn by_chance(&mut self, call: &str) -> Option<Fault> {
        if !self.only.is_empty() && !self.only.iter().any(|prefix| call.starts_with(prefix)) {
            return None;
        }
        let drawn = self.random.u32(0..MILLION);
        let slow = self.slow.map_or(0, |(chance, _)| chance);
        if drawn < self.reject {
            Some(Fault::Reject)
        } else if drawn < self.reject + self.lost_answer {
            Some(Fault::LostAnswer)
        } else if drawn < self.reject + self.lost_answer + slow {
            self.slow.map(|(_, wait)| Fault::Slow(wait))
        } else {
            None
        }
    }
}

/// A call that waits. Dropping it releases the call.
pub struct Hold {
    sender: watch::Sender<Held>,
    receiver: watch::Receiver<Held>,
}

impl Hold {
    /// Comes back when the call stands at its beginning.
    pub async fn reached(&mut self) {
        let _ = self.receiver.wait_for(|held| *held == Held::Reached).await;
    }

    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.sender.send_replace(Held::Released);
    }
}

fn parts(chance: f64) -> u32 {
    assert!((0.0..=1.0).contains(&chance), "a chance lies between 0 and 1");
    (chance * f64::from(MILLION)) as u32
}

fn failed(call: &str, how: &str) -> Error {
    Error::new(&codes::CONNECTION_LOST, format!("{call} {how}"))
}

/// What is broken by its first transient error and stays so.
#[derive(Default)]
pub(super) struct Broken(bool);

impl Broken {
    pub fn check(&self) -> Result<()> {
        if self.0 { Err(failed("connection", "was lost before")) } else { Ok(()) }
    }

    pub fn judged<T>(&mut self, answer: Result<T>) -> Result<T> {
        self.0 |= answer.as_ref().is_err_and(Error::is_transient);
        answer
    }
}
