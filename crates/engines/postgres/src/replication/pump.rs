//! The task that owns a replication stream's socket.
//!
//! A server ends a stream that says nothing for `wal_sender_timeout`, so the socket is served by a task of its own: it
//! goes on telling the server what is durable here while the reader is slow or paused. What arrives waits in a queue
//! that is bounded by bytes; when the queue is full the socket is left unread and the server's log grows instead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use godwit_model::{Error, Result, codes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Replication;
use super::copy::{LogMessage, status_update};
use super::wire::{Frame, Wire};
use crate::error::{self, ServerMessage};
use crate::position::Lsn;

/// How often the server hears from us at the latest (its default timeout is 60 s).
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// A new confirmed position is told after this pause, so that many confirmations cost one message.
const CONFIRM_PAUSE: Duration = Duration::from_millis(50);
/// A server that said nothing for this long is asked for a word ...
const ASK_AFTER: Duration = Duration::from_secs(30);
/// ... and given up after this: TCP alone does not see a server that died behind a proxy. Long, because a server that
/// decodes a huge transaction of other tables may say nothing for minutes, and would begin it anew.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
/// How long a reader may let the queue be full. A server that is told to stop first waits until we took all it has to
/// say, so holding a stream that nobody reads would hold up its restart; a new stream goes on at the same position.
const PATIENCE: Duration = Duration::from_secs(60);
/// We speak so often that a server has no reason to ask, but one: it is stopping, and asks without a pause until all it
/// sent is confirmed. Whatever is not confirmed by then is sent again after its start.
const MOST_QUESTIONS: u32 = 10;
/// Questions further apart than this are not of that kind.
const WITHOUT_A_PAUSE: Duration = Duration::from_secs(1);
/// A busy stream is read in turns, with a pause in between far below what anyone sees as lag ...
const PAUSE: Duration = Duration::from_millis(2);
/// ... and a backlog in turns that are further apart. By then the server's kernel sends what it holds in large pieces,
/// and a message costs the server's send half of what one on its own does [two cores, loopback: 0.55 s of the sender's
/// time for 200,000 messages, 1.2 s with pauses of 2 ms, 1.4 s without].
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
const PACE_WINDOW: Duration = Duration::from_millis(10);
/// Messages in one window from which on a stream is busy; a transaction is at least three.
const BUSY_MESSAGES: f64 = 60.0;
/// Messages in one window from which on it is a backlog.
const BACKLOG_MESSAGES: f64 = 400.0;
/// From this size on what was read is handed over though more is there.
const TURN_BYTES: usize = 256 << 10;
/// Most packets in the queue; bytes are what bounds it, this only keeps many tiny packets from outgrowing them.
const MOST_PACKETS: usize = 256;

/// Messages that were read together, and their share of the queue.
pub(crate) struct Received {
    pub(crate) messages: VecDeque<LogMessage>,
    _share: Option<OwnedSemaphorePermit>,
}

/// What a stream may hold, and how long the server waits for a word of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_bytes: usize,
    pub(crate) row_bytes: usize,
    pub(crate) silence: Duration,
}

/// The reader's end. Dropping it ends the task and closes the connection.
pub(crate) struct Pump {
    packets: mpsc::Receiver<Result<Received>>,
    durable: watch::Sender<Lsn>,
    task: JoinHandle<()>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pump {
    /// Starts the stream. `durable` is what is confirmed from the start.
    pub(crate) async fn start(replication: Replication, command: &str, durable: Lsn, limits: Limits) -> Result<Self> {
        let mut wire = replication.start(command).await?;
        wire.limit_frames(limits.row_bytes);
        let (sender, packets) = mpsc::channel(MOST_PACKETS);
        let (durable, confirmed) = watch::channel(durable);
        let bytes = limits.queue_bytes.clamp(1, u32::MAX as usize);
        let queue = Queue { sender, room: Arc::new(Semaphore::new(bytes)), bytes };
        let interval = STATUS_INTERVAL.min(limits.silence / 3);
        let now = Instant::now();
        let server = Server { wire, confirmed, interval, due: now, heard: now, questions: 0, asked: now, oversize: false };
        let task = tokio::spawn(serve(server, queue));
        Ok(Pump { packets, durable, task })
    }

    /// Safe to drop while pending.
    pub(crate) async fn next(&mut self) -> Result<Received> {
        match self.packets.recv().await {
            Some(received) => received,
            None => Err(Error::new(&codes::CONNECTION_LOST, "the replication stream ended")),
        }
    }

    /// Only forward.
    pub(crate) fn confirm(&self, durable: Lsn) {
        self.durable.send_if_modified(|known| {
            let moves = durable > *known;
            *known = durable.max(*known);
            moves
        });
    }
}

struct Queue {
    sender: mpsc::Sender<Result<Received>>,
    room: Arc<Semaphore>,
    bytes: usize,
}

impl Queue {
    /// Waits for room.
    async fn push(&self, turn: Turn) -> Result<(), Gone> {
        let share = u32::try_from(turn.weight.min(self.bytes)).unwrap_or(u32::MAX);
        let share = self.room.clone().acquire_many_owned(share).await.map_err(|_| Gone)?;
        self.sender.send(Ok(Received { messages: turn.messages, _share: Some(share) })).await.map_err(|_| Gone)
    }
}

/// The reader dropped its end.
struct Gone;

async fn serve(mut server: Server, queue: Queue) {
    let Err(End::Failed(problem)) = relay(&mut server, &queue).await else { return };
    // The socket first: the reader may be long in asking.
    drop(server);
    let _ = queue.sender.send(Err(problem)).await;
}

enum End {
    Gone,
    Failed(Error),
}

async fn relay(server: &mut Server, queue: &Queue) -> Result<(), End> {
    let mut pace = Pace { since: Instant::now(), messages: 0, pause: None };
    loop {
        let mut turn = Turn::default();
        while !server.take_what_is_there(&mut turn).await.map_err(End::Failed)? {
            if let Some(pause) = pace.pause {
                server.wire.let_gather();
                server.while_waiting(tokio::time::sleep(pause)).await.map_err(End::Failed)?;
            }
            server.fill().await.map_err(End::Failed)?;
            server.take_all(&mut turn).await.map_err(End::Failed)?;
        }
        pace.count(turn.messages.len());
        let pushed = server.while_waiting(queue.push(turn)).await.map_err(End::Failed)?;
        pushed.map_err(|Gone| End::Gone)?;
    }
}

/// What is read without waiting.
#[derive(Default)]
struct Turn {
    messages: VecDeque<LogMessage>,
    weight: usize,
}

/// How fast messages come. The server sends each on its own, and each read wakes several threads here and slows the
/// server's send; a stream that is busy is therefore let gather for a moment, a slow one is read at once.
struct Pace {
    since: Instant,
    messages: usize,
    pause: Option<Duration>,
}

impl Pace {
    fn count(&mut self, messages: usize) {
        self.messages += messages;
        let passed = self.since.elapsed();
        if passed >= PACE_WINDOW {
            let in_a_window = self.messages as f64 * PACE_WINDOW.as_secs_f64() / passed.as_secs_f64();
            *self = Pace { since: Instant::now(), messages: 0, pause: pause_at(in_a_window) };
        }
    }
}

fn pause_at(messages_in_a_window: f64) -> Option<Duration> {
    match messages_in_a_window {
        many if many >= BACKLOG_MESSAGES => Some(BACKLOG_PAUSE),
        some if some >= BUSY_MESSAGES => Some(PAUSE),
        _ => None,
    }
}

/// The server's end: its socket and what it must be told, and when.
struct Server {
    wire: Wire,
    confirmed: watch::Receiver<Lsn>,
    interval: Duration,
    due: Instant,
    /// When the server last said something, or could not because we did not listen.
    heard: Instant,
    /// Of the server without a pause, and when the last was asked.
    questions: u32,
    asked: Instant,
    /// A message over the limit was met: nothing behind it is read.
    oversize: bool,
}

impl Server {
    /// Waits for at least one read, and goes on telling the server what is durable.
    async fn fill(&mut self) -> Result<()> {
        self.heard = Instant::now();
        loop {
            tokio::select! {
                filled = self.wire.fill() => return filled,
                () = tokio::time::sleep_until(self.heard + SILENCE_LIMIT) => {
                    return Err(Error::new(&codes::CONNECTION_LOST, "the server has said nothing for too long"));
                }
                () = tokio::time::sleep_until(self.due) => self.tell().await?,
                changed = self.confirmed.changed() => self.soon(changed.is_ok()),
            }
        }
    }

    /// Whether there is something to hand over now.
    async fn take_what_is_there(&mut self, turn: &mut Turn) -> Result<bool> {
        // what is behind a message over the limit is not read before its reader has heard of it
        while turn.weight < TURN_BYTES
            && !self.oversize
            && let Some(filled) = self.wire.fill().now_or_never()
        {
            filled?;
            self.take_all(turn).await?;
        }
        Ok(!turn.messages.is_empty())
    }

    /// Everything that is whole.
    async fn take_all(&mut self, turn: &mut Turn) -> Result<()> {
        self.heard = Instant::now();
        while let Some(taken) = self.wire.take_or_refuse()? {
            let frame = match taken {
                Ok(frame) => frame,
                // once to the reader, who can say which table it is; the next time to whoever does not hear
                Err(oversize) if self.oversize => return Err(oversize.refused()),
                Err(oversize) => {
                    self.oversize = true;
                    turn.messages.push_back(oversize.of_data());
                    break;
                }
            };
            turn.weight += frame.body.len() + std::mem::size_of::<LogMessage>();
            let Some(message) = log_message(frame)? else { continue };
            match message {
                LogMessage::Keepalive { reply: true, .. } => self.answer().await?,
                LogMessage::Keepalive { .. } => {}
                LogMessage::Data(_) | LogMessage::Oversize(_) => self.questions = 0,
            }
            turn.messages.push_back(message);
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<()> {
        self.questions = if self.asked.elapsed() > WITHOUT_A_PAUSE { 1 } else { self.questions + 1 };
        self.asked = Instant::now();
        if self.questions > MOST_QUESTIONS {
            return Err(Error::new(&codes::CONNECTION_LOST, "the server is stopping"));
        }
        self.tell().await
    }

    /// Goes on telling the server what is durable until `work` is done.
    async fn while_waiting<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(work);
        let given_up = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(given_up) => {
                    return Err(Error::new(&codes::CONNECTION_LOST, "the replication stream was left because what arrived was not taken"));
                }
                () = tokio::time::sleep_until(self.due) => self.tell().await?,
                changed = self.confirmed.changed() => self.soon(changed.is_ok()),
            }
        }
    }

    fn soon(&mut self, is_open: bool) {
        // Without a reader nothing will change any more; this task is about to be ended.
        let pause = if is_open { CONFIRM_PAUSE } else { self.interval };
        self.due = self.due.min(Instant::now() + pause);
    }

    async fn tell(&mut self) -> Result<()> {
        let durable = *self.confirmed.borrow_and_update();
        self.due = Instant::now() + self.interval;
        let ask = self.heard.elapsed() > ASK_AFTER;
        self.wire.send(&status_update(durable, ask)).await
    }
}

fn log_message(frame: Frame) -> Result<Option<LogMessage>> {
    match frame.tag {
        b'd' => LogMessage::parse(frame.body).map(Some),
        b'E' => Err(error::from_message(&ServerMessage::parse(&frame.body))),
        b'c' | b'C' | b'Z' => Err(Error::new(&codes::CONNECTION_LOST, "the server ended the replication stream")),
        // Notices and settings that changed.
        _ => Ok(None),
    }
}
