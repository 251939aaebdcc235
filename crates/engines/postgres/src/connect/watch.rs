//! Notices a connection that is open and carries nothing any more.
//!
//! Behind a balancer that forgot it a connection stays open, and the balancer answers TCP's own questions. Silence alone
//! proves nothing: a server may think for hours before it says a word. So whoever has asked and heard nothing for a while
//! lets another connection look what the server's process does. If it is gone, or waits for a word of ours or for us to
//! take one of its own, what was said is lost on the way. Such a process is ended: it would not learn that nobody is there any
//! more, and keep its locks from whoever does its work anew.
//!
//! Which side has the word is read off the messages that pass by; of what they say nothing is known here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use godwit_model::{EndpointConfig, Error, Result, codes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::session::{self, Session};
use super::socket::Bytestream;
use crate::error;

/// How long a question may stay without a word before the server is asked what became of it, and how often then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Silence is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What is on its way at the first look has arrived at the second.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
/// A server that cannot be reached either, so often in a row, is away on the old connection too.
const MOST_UNANSWERED: u32 = 3;

/// Where one message ends and the next begins.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 5],
    known: usize,
    /// Of the present message's body.
    left: usize,
}

impl Frames {
    /// The first message of a client has no tag.
    fn of_client() -> Self {
        Frames { known: 1, ..Frames::default() }
    }

    /// Gives the tag of every message that begins in these bytes.
    fn walk(&mut self, mut bytes: &[u8], mut met: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let inside = self.left.min(bytes.len());
            self.left -= inside;
            bytes = &bytes[inside..];
            if self.left > 0 {
                return;
            }
            let more = (self.head.len() - self.known).min(bytes.len());
            self.head[self.known..self.known + more].copy_from_slice(&bytes[..more]);
            self.known += more;
            bytes = &bytes[more..];
            if self.known == self.head.len() {
                let [tag, length @ ..] = self.head;
                self.known = 0;
                // the length counts itself
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(length.len());
                met(tag);
            }
        }
    }
}

/// A server's process. Its number alone may be another's one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) number: i32,
    /// In microseconds since 1970; None if the server does not show it to this user.
    pub(super) began: Option<i64>,
}

/// What a session reads of its own process: a `Process`, field by field.
pub(super) const OWN_PROCESS: &str = "SELECT pg_backend_pid(), \
    (SELECT (extract(epoch FROM backend_start) * 1000000)::int8 FROM pg_stat_activity WHERE pid = pg_backend_pid())";

/// Who waits for whom.
#[derive(Debug)]
struct Talk {
    ours: Frames,
    theirs: Frames,
    /// Questions without the server's last word.
    open: u32,
    asked: Instant,
    /// Since when more of the server's words would be taken and none came.
    hungry: Option<Instant>,
    /// Since when words of ours are not taken.
    stuck: Option<Instant>,
    /// None before the login is over.
    process: Option<Process>,
}

impl Talk {
    fn new(now: Instant) -> Self {
        Talk { ours: Frames::of_client(), theirs: Frames::default(), open: 0, asked: now, hungry: None, stuck: None, process: None }
    }

    fn said(&mut self, bytes: &[u8], now: Instant) {
        let (open, asked) = (&mut self.open, &mut self.asked);
        self.ours.walk(bytes, |tag| {
            // Query, Sync
            if matches!(tag, b'Q' | b'S') {
                *open += 1;
                *asked = now;
            }
        });
        self.stuck = None;
    }

    fn heard(&mut self, bytes: &[u8]) {
        let open = &mut self.open;
        self.theirs.walk(bytes, |tag| {
            // ReadyForQuery; CopyInResponse: the word is ours, and the Sync behind the question is passed over
            if matches!(tag, b'Z' | b'G') {
                *open = open.saturating_sub(1);
            }
        });
        self.hungry = None;
    }

    /// How long one of us has waited for the other's word.
    fn silence(&self, now: Instant) -> Duration {
        let unheard = self.hungry.filter(|_| self.open > 0).map(|hungry| hungry.max(self.asked));
        let since = unheard.into_iter().chain(self.stuck).min();
        since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

/// A way to a server on which is noted who has the word.
pub(super) struct Watched {
    bytes: Box<dyn Bytestream>,
    talk: Shared,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Talk>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Talk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The login is over.
    pub(super) fn serves(&self, process: Process) {
        self.lock().process = Some(process);
    }

    /// The process to ask for, if it is time to.
    fn silent_process(&self) -> Option<Process> {
        let talk = self.lock();
        talk.process.filter(|_| talk.silence(Instant::now()) >= PATIENCE)
    }
}

impl Watched {
    pub(super) fn new(bytes: Box<dyn Bytestream>) -> (Self, Shared) {
        let talk = Shared(Arc::new(Mutex::new(Talk::new(Instant::now()))));
        (Watched { bytes, talk: talk.clone() }, talk)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.bytes).poll_read(context, buffer);
        let mut talk = self.talk.lock();
        match &read {
            Poll::Ready(_) => talk.heard(&buffer.filled()[before..]),
            Poll::Pending => {
                talk.hungry.get_or_insert_with(Instant::now);
            }
        }
        drop(talk);
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write(context, bytes);
        let mut talk = self.talk.lock();
        match &written {
            Poll::Ready(Ok(count)) => talk.said(&bytes[..*count], Instant::now()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                talk.stuck.get_or_insert_with(Instant::now);
            }
        }
        drop(talk);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}

/// Returns when the connection carries nothing any more. The server's process, if there is one, has been told to end. Safe
/// to drop while pending.
pub(super) async fn until_lost(talk: Shared, endpoint: EndpointConfig) {
    let mut unanswered = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(process) = talk.silent_process() else {
            unanswered = 0;
            continue;
        };
        match is_lost(&talk, &endpoint, process).await {
            Ok(true) => return,
            Ok(false) => unanswered = 0,
            Err(error) => {
                tracing::debug!(%error, "a silent connection could not be asked after");
                unanswered = if is_away(&error) { unanswered + 1 } else { 0 };
                if unanswered == MOST_UNANSWERED {
                    return;
                }
            }
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Whether the server gave no answer. One that refuses (it is full, the password is another by now) is there, and may
/// well be at work on the old connection.
fn is_away(error: &Error) -> bool {
    error.is(&codes::UNREACHABLE) || error.is(&codes::CONNECTION_LOST)
}

/// Where `Process` is given as the first two parameters. Of another role's process, which may have the number by now, no
/// beginning is shown.
const WAITS: &str = "SELECT wait_event_type IS NOT DISTINCT FROM 'Client' FROM pg_stat_activity \
    WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::int8 IS NOT DISTINCT FROM $2::int8";

const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::int8 = $2::int8";

/// A future of a named type, because it opens a session as those that are watched are opened.
fn is_lost<'a>(talk: &'a Shared, endpoint: &'a EndpointConfig, process: Process) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let asker = session::unwatched(endpoint, "godwit watch").await?;
        if !waits_for_us(&asker, process).await? || talk.silent_process().is_none() {
            return Ok(false);
        }
        // it is lost whether or not the process can be ended
        if let Err(error) = ask(&asker, END, process).await {
            tracing::warn!(%error, pid = process.number, "the server process of a lost connection could not be ended: it may hold locks");
        }
        Ok(true)
    })
}

/// Whether the process is gone or waits for its client, now and a moment later.
async fn waits_for_us(asker: &Session, process: Process) -> Result<bool> {
    for look in 0..2 {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        if ask(asker, WAITS, process).await? == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// None if the process is gone.
async fn ask(asker: &Session, question: &str, process: Process) -> Result<Option<bool>> {
    let row = tokio::time::timeout(PATIENCE, asker.query_opt(question, &[&process.number, &process.began])).await;
    let row = row.map_err(|_| error::silent())?.map_err(error::from_server)?;
    Ok(row.map(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), &vec![b'Z'; body]].concat()
    }

    fn greeting() -> Vec<u8> {
        message(0, 20)[1..].to_vec()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_question_without_an_answer_is_silence() {
        let start = Instant::now();
        let mut talk = Talk::new(start);
        talk.said(&greeting(), start);
        talk.heard(&[message(b'R', 4), message(b'Z', 1)].concat());
        talk.hungry = Some(start);
        assert_eq!(talk.silence(at(start, 99)), Duration::ZERO, "nothing was asked");
        talk.said(&message(b'Q', 9), at(start, 100));
        assert_eq!(talk.silence(at(start, 107)), Duration::from_secs(7));
        talk.heard(&message(b'D', 30));
        assert_eq!(talk.silence(at(start, 150)), Duration::ZERO, "rows wait to be taken by us");
        talk.hungry = Some(at(start, 150));
        assert_eq!(talk.silence(at(start, 153)), Duration::from_secs(3), "the answer is not over");
        talk.heard(&message(b'Z', 1));
        talk.hungry = Some(at(start, 160));
        assert_eq!(talk.silence(at(start, 999)), Duration::ZERO);
    }

    #[test]
    fn a_server_that_takes_rows_waits_for_us() {
        let start = Instant::now();
        let mut talk = Talk::new(start);
        talk.said(&[greeting(), message(b'B', 3), message(b'E', 3), message(b'S', 0)].concat(), start);
        talk.heard(&[message(b'2', 0), message(b'G', 7)].concat());
        talk.hungry = Some(start);
        talk.said(&message(b'd', 500), at(start, 1));
        assert_eq!(talk.silence(at(start, 500)), Duration::ZERO);
        talk.said(&[message(b'c', 0), message(b'S', 0)].concat(), at(start, 500));
        assert_eq!(talk.silence(at(start, 502)), Duration::from_secs(2));
        talk.heard(&[message(b'C', 7), message(b'Z', 1)].concat());
        assert_eq!(talk.open, 0);
        talk.stuck = Some(at(start, 600));
        assert_eq!(talk.silence(at(start, 604)), Duration::from_secs(4), "words of ours are not taken");
    }

    #[test]
    fn a_server_that_refuses_is_not_away() {
        for (code, away) in [
            (&codes::UNREACHABLE, true),
            (&codes::CONNECTION_LOST, true),
            (&codes::BUSY, false),
            (&codes::AUTHENTICATION, false),
            (&codes::TLS_FAILED, false),
            (&codes::DATABASE_MISSING, false),
        ] {
            assert_eq!(is_away(&Error::new(code, "no session")), away, "{code:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_told_apart_however_they_are_cut(bodies in proptest::collection::vec(0_usize..40, 1..20), cut in 1_usize..17) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'T', *body)).collect();
            let mut frames = Frames::default();
            let mut met = 0;
            bytes.chunks(cut).for_each(|piece| frames.walk(piece, |tag| met += usize::from(tag == b'T')));
            prop_assert_eq!(met, bodies.len());
        }

        #[test]
        fn any_bytes_can_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Frames::of_client().walk(&bytes, |_| {});
        }
    }
}
