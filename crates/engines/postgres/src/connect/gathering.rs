//! A socket that the runtime can be made to forget while what is sent to it gathers.
//!
//! A server that sends a log's small messages one by one pays for each that meets a watched socket: within its own call
//! the kernel wakes the watcher. Whoever reads a busy stream in turns lets it rest between them. It is watched again when
//! it has nothing to read or is written to.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// One read of a socket at rest.
const READ_BYTES: usize = 64 << 10;

/// A socket that the runtime can be told of and can be made to forget.
pub(crate) trait Registrable: AsyncRead + AsyncWrite + Unpin + Sized {
    type Unregistered: Read + Unpin;

    fn unregister(self) -> io::Result<Self::Unregistered>;
    fn register(socket: Self::Unregistered) -> io::Result<Self>;
}

impl Registrable for TcpStream {
    type Unregistered = std::net::TcpStream;

    fn unregister(self) -> io::Result<Self::Unregistered> {
        self.into_std()
    }

    fn register(socket: Self::Unregistered) -> io::Result<Self> {
        TcpStream::from_std(socket)
    }
}

impl Registrable for UnixStream {
    type Unregistered = std::os::unix::net::UnixStream;

    fn unregister(self) -> io::Result<Self::Unregistered> {
        self.into_std()
    }

    fn register(socket: Self::Unregistered) -> io::Result<Self> {
        UnixStream::from_std(socket)
    }
}

pub(crate) struct Gathering<S: Registrable>(State<S>);

enum State<S: Registrable> {
    Registered(S),
    /// And what is read into first: the standard library reads into nothing else than bytes that hold a value.
    Resting(S::Unregistered, Box<[u8]>),
    /// The runtime would not take it or let go of it.
    Lost,
}

impl<S: Registrable> Gathering<S> {
    pub(crate) fn new(socket: S) -> Self {
        Gathering(State::Registered(socket))
    }

    /// Until there is nothing to read, or something is written.
    pub(crate) fn let_gather(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Registered(socket) => {
                socket.unregister().map_or(State::Lost, |socket| State::Resting(socket, vec![0; READ_BYTES].into_boxed_slice()))
            }
            resting => resting,
        };
    }

    fn socket(&mut self) -> io::Result<Pin<&mut S>> {
        if let State::Resting(..) = &self.0
            && let State::Resting(socket, _) = std::mem::replace(&mut self.0, State::Lost)
        {
            self.0 = State::Registered(S::register(socket)?);
        }
        match &mut self.0 {
            State::Registered(socket) => Ok(Pin::new(socket)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What has gathered; `None` if nothing has.
    fn gathered(&mut self, most: usize) -> io::Result<Option<&[u8]>> {
        let State::Resting(socket, bytes) = &mut self.0 else { return Ok(None) };
        let most = most.min(bytes.len());
        loop {
            match socket.read(&mut bytes[..most]) {
                Ok(read) => return Ok(Some(&bytes[..read])),
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(problem) => return Err(problem),
            }
        }
    }
}

impl<S: Registrable> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(bytes) = self.gathered(buffer.remaining())? {
            buffer.put_slice(bytes);
            return Poll::Ready(Ok(()));
        }
        self.socket()?.poll_read(context, buffer)
    }
}

impl<S: Registrable> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Gathering<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, there) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Gathering::new(here.unwrap()), there.unwrap().0)
    }

    #[tokio::test]
    async fn what_gathered_is_read_and_what_follows_is_waited_for() {
        let (mut here, mut there) = pair().await;
        here.let_gather();
        there.write_all(b"gathered").await.unwrap();
        let mut gathered = [0; 8];
        here.read_exact(&mut gathered).await.unwrap();
        assert_eq!(gathered, *b"gathered");
        // at rest again, with nothing there: the read waits for what is sent later
        here.let_gather();
        let mut byte = [0];
        let (read, sent) = tokio::join!(here.read_exact(&mut byte), there.write_all(b"!"));
        assert_eq!((read.unwrap(), byte), (1, *b"!"));
        sent.unwrap();
    }

    #[tokio::test]
    async fn a_socket_at_rest_can_be_written_to_and_sees_the_end() {
        let (mut here, mut there) = pair().await;
        here.let_gather();
        here.write_all(b"word").await.unwrap();
        let mut word = [0; 4];
        there.read_exact(&mut word).await.unwrap();
        here.let_gather();
        drop(there);
        assert_eq!((word, here.read(&mut [0; 4]).await.unwrap()), (*b"word", 0));
    }
}
