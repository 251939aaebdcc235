//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::future::Future;

use godwit_model::{Error, Kind, Result, codes};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|cause| Error::internal("the process cannot listen for signals").caused_by(cause));
        Ok(Signals { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// The next signal. Safe to drop.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs the work until a signal comes: then it is dropped where it stands, as in a crash.
    pub async fn or<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.next() => Err(interrupted()),
            done = work => done,
        }
    }

    /// Runs what ends the work; a signal meanwhile ends the process.
    pub async fn or_abort<T>(&mut self, end: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.next() => std::process::exit(Kind::Interrupted.exit_status().into()),
            done = end => done,
        }
    }
}

pub fn interrupted() -> Error {
    Error::new(&codes::INTERRUPTED, "stopped by a signal before the goal").remedy("the same command goes on from here")
}
