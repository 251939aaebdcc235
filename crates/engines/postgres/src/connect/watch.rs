//! Notices a connection that is open and carries nothing any more.
//!
//! Behind a balancer that forgot it a connection stays open, and the balancer answers TCP's own questions. Silence alone
//! proves nothing: a server may think for hours before it says a word. So whoever has asked and heard nothing for a while
//! lets another connection look what the server's process does. If it is gone, or waits for a word of ours or for us to
//! take one of its own, what was said is lost on the way.
//!
//! Which side has the word is read off the messages that pass by; of what they say nothing is known here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use godwit_model::{EndpointConfig, Result, codes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::session;
use super::socket::Bytestream;
use crate::error;

/// How long a question may stay without a word before the server is asked what became of it, and how often then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Silence is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What is on its way at the first look has arrived at the second.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
/// A server that cannot be asked either, so often in a row, is away on the old connection too.
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
    /// The server's process; None before the login is over.
    process: Option<i32>,
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
    pub(super) fn serves(&self, process: i32) {
        self.lock().process = Some(process);
    }

    /// The process to ask for, if it is time to.
    fn silent_process(&self) -> Option<i32> {
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

/// Returns when the connection carries nothing any more. Safe to drop while pending.
pub(super) async fn until_lost(talk: Shared, endpoint: EndpointConfig) {
    let mut unanswered = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(process) = talk.silent_process() else {
            unanswered = 0;
            continue;
        };
        match waits_for_us(&endpoint, process).await {
            Ok(true) if talk.silent_process().is_some() => return,
            Ok(_) => unanswered = 0,
            // the server is there and has no room for the question
            Err(error) if error.is(&codes::BUSY) => {}
            Err(error) => {
                tracing::debug!(%error, "a silent connection could not be asked after");
                unanswered += 1;
                if unanswered == MOST_UNANSWERED {
                    return;
                }
            }
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

const WAITS: &str = "SELECT wait_event_type IS NOT DISTINCT FROM 'Client' FROM pg_stat_activity WHERE pid = $1";

/// Whether the process is gone or waits for its client. A future of a named type, because it opens a session as those
/// that are watched are opened.
fn waits_for_us(endpoint: &EndpointConfig, process: i32) -> BoxFuture<'_, Result<bool>> {
    Box::pin(async move {
        let asker = session::unwatched(endpoint, "godwit watch").await?;
        for look in 0..2 {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            let row = tokio::time::timeout(PATIENCE, asker.query_opt(WAITS, &[&process])).await;
            let row = row.map_err(|_| error::silent())?.map_err(error::from_server)?;
            if row.is_some_and(|row| !row.get::<_, bool>(0)) {
                return Ok(false);
            }
        }
        Ok(true)
    })
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
