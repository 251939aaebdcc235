//! One connection: two directions, each with a reader and a writer, and a delay between them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::proxy::{Direction, Shared, Which};

const PIECE: usize = 64 << 10;
/// What is under way in one direction at most, in pieces: a long wire holds much.
const UNDER_WAY: usize = 1024;
/// A thread that waits for a socket looks so often whether the connection is over.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The startup message is among them; a question for encryption may come first.
const FIRST_PIECES: usize = 2;
/// In the startup message of a connection that streams changes.
const REPLICATION: &[u8] = b"replication\0";

pub(super) struct Link {
    client: TcpStream,
    server: TcpStream,
    swallows: [AtomicBool; 2],
    over: AtomicBool,
    /// What the client said first: in it stand what it wants and its name.
    greeting: Mutex<Vec<u8>>,
    /// Which way the last bytes went; neither at first.
    last: AtomicU8,
}

impl Link {
    pub fn begin(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) -> Arc<Link> {
        for socket in [&client, &server] {
            let _ = socket.set_nodelay(true);
            let _ = socket.set_read_timeout(Some(LOOK_EVERY));
            let _ = socket.set_write_timeout(Some(LOOK_EVERY));
        }
        let link = Arc::new(Link {
            client,
            server,
            swallows: Default::default(),
            over: AtomicBool::new(false),
            greeting: Mutex::default(),
            last: AtomicU8::new(u8::MAX),
        });
        let delay = shared.rules().delay;
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (sender, receiver) = sync_channel(UNDER_WAY);
            let (reading, writing, counting) = (link.clone(), link.clone(), shared.clone());
            std::thread::spawn(move || reading.read(direction, &counting, &sender));
            std::thread::spawn(move || writing.write(direction, delay, &receiver));
        }
        link
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn is_one_of(&self, which: Which) -> bool {
        !self.is_over()
            && match which {
                Which::All => true,
                Which::Replication => self.said(REPLICATION),
                Which::Queries => !self.said(REPLICATION),
                Which::Named(name) => self.said(format!("application_name\0{name}\0").as_bytes()),
            }
    }

    fn said(&self, words: &[u8]) -> bool {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner).windows(words.len()).any(|part| part == words)
    }

    pub fn swallow(&self, direction: Direction) {
        self.swallows[direction as usize].store(true, Ordering::SeqCst);
    }

    /// As a peer that is gone: both ends get a reset as soon as the threads let the sockets go.
    pub fn reset(&self) {
        for socket in [&self.client, &self.server] {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.over.store(true, Ordering::SeqCst);
    }

    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::ToServer => (&self.client, &self.server),
            Direction::ToClient => (&self.server, &self.client),
        }
    }

    fn swallowed(&self, direction: Direction) -> bool {
        self.swallows[direction as usize].load(Ordering::SeqCst)
    }

    fn read(&self, direction: Direction, shared: &Shared, sender: &SyncSender<(Instant, Vec<u8>)>) {
        let (mut from, _) = self.ends(direction);
        let mut piece = vec![0; PIECE];
        let mut pieces = 0;
        loop {
            let count = match from.read(&mut piece) {
                Ok(count @ 1..) if !self.is_over() => count,
                Err(problem) if is_wait(&problem) && !self.is_over() => continue,
                Ok(_) | Err(_) => break,
            };
            let bytes = &piece[..count];
            pieces += 1;
            if direction == Direction::ToServer && pieces <= FIRST_PIECES {
                self.greeting.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            }
            if self.swallowed(direction) {
                continue;
            }
            if self.last.swap(direction as u8, Ordering::SeqCst) != direction as u8 {
                shared.turns.fetch_add(1, Ordering::SeqCst);
            }
            if sender.send((Instant::now(), bytes.to_vec())).is_err() {
                break;
            }
            shared.count(direction, count as u64);
        }
    }

    /// An end that was read is told as one, but not by a wire that swallows it.
    fn write(&self, direction: Direction, delay: Duration, receiver: &Receiver<(Instant, Vec<u8>)>) {
        let (_, to) = self.ends(direction);
        while let Ok((sent, bytes)) = receiver.recv() {
            // the wire's length is what is asked for
            std::thread::sleep((sent + delay).saturating_duration_since(Instant::now()));
            if self.write_all(to, &bytes).is_err() {
                break;
            }
        }
        if !self.swallowed(direction) && !self.over.swap(true, Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn write_all(&self, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(problem) if is_wait(&problem) && !self.is_over() => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }
}

fn is_wait(problem: &io::Error) -> bool {
    matches!(problem.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
