//! An open, encrypted or plain, way to the server that notices when the other end is gone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, codes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::address::{Address, Place};
use super::gathering::Gathering;
use super::tls;

/// A silent peer is asked after this long ...
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);
/// ... again this often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// ... and given up after this many questions: half-open connections end within half a minute.
const KEEPALIVE_RETRIES: u32 = 3;
/// Keepalive does not run while our own bytes wait for an answer of the peer's kernel; this does.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(30);

pub(crate) trait Bytestream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Lets what is sent gather until it is read.
    fn let_gather(&mut self);
}

impl Bytestream for Gathering<TcpStream> {
    fn let_gather(&mut self) {
        Gathering::let_gather(self);
    }
}

impl Bytestream for Gathering<UnixStream> {
    fn let_gather(&mut self) {
        Gathering::let_gather(self);
    }
}

impl Bytestream for TlsStream<Gathering<TcpStream>> {
    fn let_gather(&mut self) {
        self.get_mut().0.let_gather();
    }
}

/// A way to the server and whether what is sent on it can be read by others.
pub(crate) struct Stream {
    pub(crate) bytes: Box<dyn Bytestream>,
    pub(crate) is_encrypted: bool,
}

/// Reaches the server and encrypts as the endpoint asks. The caller bounds the time.
pub(crate) async fn open(endpoint: &EndpointConfig, address: &Address) -> Result<Stream> {
    match &address.place {
        Place::Unix(path) => {
            let socket = UnixStream::connect(path).await.map_err(|problem| unreachable(problem, address))?;
            Ok(Stream { bytes: Box::new(Gathering::new(socket)), is_encrypted: false })
        }
        Place::Tcp { host, port } => {
            let socket = reach(host, *port).await.map_err(|problem| unreachable(problem, address))?;
            guard(&socket).map_err(|problem| unreachable(problem, address))?;
            tls::negotiate(Gathering::new(socket), host, &endpoint.tls).await.map_err(|error| error.at_least_at(|| address.display.clone()))
        }
    }
}

pub(crate) fn unreachable(problem: io::Error, address: &Address) -> Error {
    Error::new(&codes::UNREACHABLE, format!("the server cannot be reached: {problem}"))
        .at(&address.display)
        .remedy("check host and port, that the server runs, and that no firewall is in between")
        .caused_by(problem)
}

/// Tries the host's addresses in their order.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

fn guard(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNANSWERED_LIMIT))?;
    Ok(())
}
