//! A port of one's own for every server.

use std::fmt::Display;
use std::net::TcpListener;

const ATTEMPTS: usize = 20;
/// Below the range that the kernel gives to outgoing connections, so that a stopped server finds its port again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Launches a server on a port that nobody listens at, and returns it.
///
/// # Panics
/// If the server does not start, for another reason than that someone else took the port in between.
pub(super) fn on_a_free_one(server: impl Display, launch: impl Fn(u16) -> Result<(), String>) -> u16 {
    for _ in 0..ATTEMPTS {
        let port = free();
        match launch(port) {
            Ok(()) => return port,
            Err(problem) if problem.contains("Address already in use") => {}
            Err(problem) => panic!("{server} does not start: {problem}"),
        }
    }
    panic!("{server} found no free port in {ATTEMPTS} attempts");
}

fn free() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(PORTS));
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("an endless series")
}
