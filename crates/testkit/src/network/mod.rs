//! A network between a task and a server that can be made slow, cut, or made to swallow what it is given.
//!
//! A `Proxy` forwards TCP connections. What it does to them can be changed at any moment, for one direction or both, for
//! all connections or only those that stream changes (the startup message of a PostgreSQL replication connection says so).

mod link;
mod proxy;

pub use proxy::{Direction, Proxy, Which};

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// A server that gives back what it gets, its proxy, and a client.
    fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
            }
        });
        let client = connect(&proxy);
        (proxy, client)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).unwrap()
    }

    fn ask(mut client: &TcpStream) -> std::io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        client.write_all(b"word")?;
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn what_goes_in_comes_out_and_turns_are_counted() {
        let (proxy, client) = echo();
        for _ in 0..3 {
            assert_eq!(&ask(&client).unwrap(), b"word");
        }
        assert_eq!(proxy.turns(), 6);
    }

    #[test]
    fn a_half_open_connection_swallows_one_direction_and_new_ones_work() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (proxy, client) = echo();
            ask(&client).unwrap();
            assert_eq!(proxy.swallow(direction, Which::Replication), 0);
            assert_eq!(proxy.swallow(direction, Which::All), 1);
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert_eq!(ask(&client).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(&ask(&connect(&proxy)).unwrap(), b"word");
        }
    }

    #[test]
    fn a_cut_connection_is_reset() {
        let (proxy, client) = echo();
        ask(&client).unwrap();
        proxy.cut_after(2, Direction::ToClient);
        let mut rest = [0; 8];
        let ended = std::iter::repeat_with(|| ask(&client).and_then(|_| (&client).read_exact(&mut rest))).find_map(Result::err).unwrap();
        assert!(matches!(ended.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof), "{ended}");
        assert_eq!(proxy.cuts(), 1);
    }

    #[test]
    fn whoever_is_gone_takes_no_connection_and_comes_back() {
        let (proxy, client) = echo();
        proxy.gone(true);
        assert!(ask(&client).is_err() && ask(&connect(&proxy)).is_err());
        proxy.gone(false);
        assert_eq!(&ask(&connect(&proxy)).unwrap(), b"word");
    }
}
