//! One connection on one thread.
//!
//! rusqlite blocks, and a connection may have a transaction open across awaits (a snapshot, an applier): so each
//! connection lives on a thread of its own and takes jobs one after the other. A job whose caller went away still runs
//! to its end; jobs therefore close what they open, except where the whole session *is* one transaction. Dropping the
//! session interrupts the running statement and closes the connection, which rolls back whatever was open.

use std::thread::JoinHandle;

use godwit_model::{Error, Result};
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{mpsc, oneshot};

/// Jobs waiting for one connection: callers wait for their answers, so more would only hide a queue.
const JOBS: usize = 1;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(crate) struct Session {
    /// None once it was closed.
    jobs: Option<mpsc::Sender<Job>>,
    interrupt: InterruptHandle,
    /// Answered by nobody: it ends when the thread has closed the connection.
    closed: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Opens a connection on a new thread of that name.
    pub(crate) async fn open(name: &str, open: impl FnOnce() -> Result<Connection> + Send + 'static) -> Result<Session> {
        let (jobs, queue) = mpsc::channel(JOBS);
        let (opened, answer) = oneshot::channel();
        let (closing, closed) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(format!("sqlite {name}"))
            .spawn(move || match open() {
                Ok(connection) => {
                    // A caller that went away has dropped the queue too: then the loop ends at once.
                    let _ = opened.send(Ok(connection.get_interrupt_handle()));
                    serve(connection, queue);
                    drop(closing);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            })
            .map_err(|error| Error::internal("no thread for a SQLite connection").caused_by(error))?;
        let interrupt = answer.await.map_err(|_| ended())??;
        Ok(Session { jobs: Some(jobs), interrupt, closed, thread: Some(thread) })
    }

    /// Runs one job on the connection and gives its answer.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let (answered, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = answered.send(job(connection));
        });
        self.jobs.as_ref().ok_or_else(ended)?.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Closes the connection and waits until it is: then it holds no lock on the file.
    pub(crate) async fn close(mut self) {
        self.jobs = None;
        let _ = (&mut self.closed).await;
    }

    /// The same for one that has no job, where nothing can be awaited.
    pub(crate) fn close_now(mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // a job that panicked took its thread along
            let _ = thread.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.interrupt.interrupt();
    }
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut connection);
    }
}

fn ended() -> Error {
    Error::internal("a SQLite connection's thread ended")
}
