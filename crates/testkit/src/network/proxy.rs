//! The listener, and what tests can do to the connections it forwards.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::link::Link;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Which connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that stream changes.
    Replication,
    /// The others.
    Queries,
    /// Those whose client gave itself this name.
    Named(&'static str),
}

/// What happens when so many bytes have gone one way.
#[derive(Clone, Copy)]
enum Blow {
    Cut,
    Swallow(Which),
}

/// How connections are treated that are made from now on.
pub(super) struct Rules {
    pub delay: Duration,
    pub server: SocketAddr,
    pub is_gone: bool,
}

/// What the proxy and its connections share.
pub(super) struct Shared {
    pub rules: Mutex<Rules>,
    links: Mutex<Vec<Arc<Link>>>,
    ended: AtomicBool,
    /// Bytes in each direction after which connections are struck; far away if nobody asked for it.
    strike_after: [AtomicU64; 2],
    blow: Mutex<Blow>,
    cuts: AtomicU64,
    /// How often a connection's bytes turned from one direction to the other.
    pub turns: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// Forwards to one server. Dropping it resets every connection.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of this machine, on every address.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn before(server_port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let rules = Rules { delay: Duration::ZERO, server: local(server_port), is_gone: false };
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            links: Mutex::default(),
            ended: AtomicBool::new(false),
            strike_after: [const { AtomicU64::new(NEVER) }; 2],
            blow: Mutex::new(Blow::Cut),
            cuts: AtomicU64::new(0),
            turns: AtomicU64::new(0),
        });
        let of_thread = shared.clone();
        let listener = std::thread::spawn(move || of_thread.accept(&listener));
        Proxy { shared, port, listener: Some(listener) }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL with this proxy in place of the server.
    ///
    /// # Panics
    /// If the URL is not one of `Postgres::url`.
    #[must_use]
    pub fn url(&self, of_server: &str) -> String {
        let (before, after) = of_server.split_once("127.0.0.1:").expect("a server's URL");
        let database = after.split_once('/').expect("a URL with a database").1;
        format!("{before}127.0.0.1:{}/{database}", self.port)
    }

    /// New connections go to another server.
    pub fn lead_to(&self, server_port: u16) {
        self.shared.rules().server = local(server_port);
    }

    /// What new connections carry arrives so much later, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.rules().delay = delay;
    }

    /// The connections that are there now stay open and swallow what goes this way, for ever: half-open. New ones work.
    /// Gives how many there were.
    pub fn swallow(&self, direction: Direction, which: Which) -> usize {
        self.shared.swallow(direction, which)
    }

    /// The same when so many more bytes have gone this way, once.
    pub fn swallow_after(&self, bytes: u64, direction: Direction, which: Which) {
        self.strike_after(bytes, direction, Blow::Swallow(which));
    }

    fn strike_after(&self, bytes: u64, direction: Direction, blow: Blow) {
        *self.shared.blow.lock().unwrap_or_else(PoisonError::into_inner) = blow;
        self.shared.strike_after[direction as usize].store(bytes, Ordering::SeqCst);
    }

    /// Resets the connections that are there now.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Resets all connections when so many more bytes have gone this way, once.
    pub fn cut_after(&self, bytes: u64, direction: Direction) {
        self.strike_after(bytes, direction, Blow::Cut);
    }

    /// How often `cut_after` has cut and `swallow_after` has begun to swallow.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Whether nobody is there: connections are reset, new ones closed at once.
    pub fn gone(&self, gone: bool) {
        self.shared.rules().is_gone = gone;
        if gone {
            self.shared.cut();
        }
    }

    /// How often connections' bytes turned from one direction to the other: twice per round trip.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.cut();
        // wakes the listener
        let _ = TcpStream::connect(local(self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    pub fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            // held, so that whoever cuts meets a connection either here or not yet let in
            let mut links = self.links();
            let (server, is_gone) = {
                let rules = self.rules();
                (rules.server, rules.is_gone)
            };
            let Some(server) = (!is_gone).then(|| TcpStream::connect(server).ok()).flatten() else { continue };
            let link = Link::begin(self, client, server);
            links.retain(|link| !link.is_over());
            links.push(link);
        }
    }

    fn cut(&self) {
        self.links().drain(..).for_each(|link| link.reset());
    }

    fn swallow(&self, direction: Direction, which: Which) -> usize {
        let links = self.links();
        let meant = links.iter().filter(|link| link.is_one_of(which));
        meant.map(|link| link.swallow(direction)).count()
    }

    /// Counts what went this way; strikes when that was asked for.
    pub fn count(&self, direction: Direction, bytes: u64) {
        let strike_after = &self.strike_after[direction as usize];
        let spend = |left: u64| (left != NEVER).then(|| left.saturating_sub(bytes));
        if strike_after.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok_and(|left| left > 0 && left <= bytes) {
            strike_after.store(NEVER, Ordering::SeqCst);
            self.cuts.fetch_add(1, Ordering::SeqCst);
            let blow = *self.blow.lock().unwrap_or_else(PoisonError::into_inner);
            match blow {
                Blow::Cut => self.cut(),
                Blow::Swallow(which) => drop(self.swallow(direction, which)),
            }
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
