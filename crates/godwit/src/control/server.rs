//! The run's side: takes orders from other processes of the same user, one after the other.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use godwit_model::{Error, Result, codes};
use godwit_store::{Fingerprint, StateFolder};
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::door::Door;
use super::protocol::{self, Command, FailureForm, Reply, Request};
use crate::answer::Answer;
use crate::progress::{Listener, Watch};
use crate::state;

/// A person asks one thing at a time.
const MOST_CONNECTIONS: usize = 8;
/// Each connection brings one order.
const MOST_ORDERS: usize = MOST_CONNECTIONS;
/// An asker that says nothing for so long gives its place to others.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// At the end, how long askers have to take their answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Something another process wants.
pub struct Order {
    pub command: Command,
    answer: oneshot::Sender<Result<Answer>>,
}

impl Order {
    /// The asker may be gone; what was done is done.
    pub fn reply(self, answer: Result<Answer>) {
        let _ = self.answer.send(answer);
    }
}

/// The open socket. Dropping it ends all conversations.
pub struct Control {
    orders: mpsc::Receiver<Order>,
    conversations: JoinSet<()>,
    socket: PathBuf,
}

impl Control {
    pub fn open(folder: &StateFolder, fingerprint: Fingerprint, watch: &Watch) -> Result<Control> {
        let socket = folder.socket();
        let (listener, owner) = bind(&socket).map_err(|cause| {
            Error::new(&codes::STATE_IO, "the socket for other processes cannot be made").at(socket.display().to_string()).caused_by(cause)
        })?;
        let (sender, orders) = mpsc::channel(MOST_ORDERS);
        let host = Host { owner, fingerprint, orders: sender, listener: watch.listen() };
        let mut conversations = JoinSet::new();
        conversations.spawn(accept(listener, Arc::new(host)));
        Ok(Control { orders, conversations, socket })
    }

    /// For a folder in which no socket can be made: nobody can ask.
    pub fn none(folder: &StateFolder) -> Control {
        let (_, orders) = mpsc::channel(1);
        Control { orders, conversations: JoinSet::new(), socket: folder.socket() }
    }

    /// The next order. Safe to drop.
    pub async fn next(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    /// Takes no more orders and lets askers have their answers.
    pub async fn close(mut self) {
        let _ = fs::remove_file(&self.socket);
        self.orders.close();
        // orders that nobody will carry out
        while self.orders.try_recv().is_ok() {}
        let _ = tokio::time::timeout(FAREWELL, async { while self.conversations.join_next().await.is_some() {} }).await;
    }
}

/// Under another name first, so that the socket is the owner's alone from the moment it can be found. Whatever lay
/// there is stale: the folder is ours.
fn bind(socket: &std::path::Path) -> io::Result<(UnixListener, u32)> {
    let unfinished = socket.with_extension("new");
    let (door, finished) = (Door::to(&unfinished)?, Door::to(socket)?);
    match fs::remove_file(door.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(door.path())?;
    fs::set_permissions(door.path(), Permissions::from_mode(0o600))?;
    let owner = fs::metadata(door.path())?.uid();
    fs::rename(door.path(), finished.path())?;
    Ok((listener, owner))
}

struct Host {
    owner: u32,
    fingerprint: Fingerprint,
    orders: mpsc::Sender<Order>,
    listener: Listener,
}

/// Runs until the run takes no more orders, then until those at work have their answers.
async fn accept(listener: UnixListener, host: Arc<Host>) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            () = host.orders.closed() => break,
            Some(_) = conversations.join_next() => {}
            accepted = listener.accept(), if conversations.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, host.clone()));
                }
                Err(cause) => {
                    tracing::warn!(%cause, "the socket for other processes is closed");
                    break;
                }
            },
        }
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

async fn converse(mut stream: UnixStream, host: Arc<Host>) {
    if let Err(error) = answer(&mut stream, &host).await {
        let failure = Reply::Failure(FailureForm::from(&error));
        if protocol::write(&mut stream, &failure).await.is_err() {
            tracing::info!("an asker went away");
        }
    }
}

async fn answer(stream: &mut UnixStream, host: &Host) -> Result<()> {
    let peer = stream.peer_cred().map(|peer| peer.uid()).ok();
    if peer != Some(host.owner) && peer != Some(0) {
        return Err(Error::new(&codes::RIGHTS_MISSING, "this run belongs to another user"));
    }
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let Ok(request) = tokio::time::timeout(REQUEST_WITHIN, protocol::read::<Request>(&mut reader)).await else { return Ok(()) };
    let Some(request) = request? else { return Ok(()) };
    check(&request, &host.fingerprint)?;
    let (sender, mut answer) = oneshot::channel();
    let mut listener = host.listener.resubscribe();
    host.orders.send(Order { command: request.command, answer: sender }).await.map_err(|_| ending())?;
    let end = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.unwrap_or_else(|_| Err(ending()))?,
            told = listener.recv() => match told {
                Ok(happening) => protocol::write(&mut writer, &Reply::Happening(happening)).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break (&mut answer).await.unwrap_or_else(|_| Err(ending()))?,
            },
        }
    };
    protocol::write(&mut writer, &Reply::Answer(end)).await
}

fn check(request: &Request, own: &Fingerprint) -> Result<()> {
    if request.v != protocol::VERSION {
        return Err(Error::new(&codes::STATE_VERSION, "the run speaks another version").remedy("use the same version of godwit for both"));
    }
    // giving a task up needs no more than its name and its stores
    let (theirs, ours) = match request.command {
        Command::Clean => (state::stores_of(&request.facts), state::stores_of(&own.facts)),
        _ => (request.facts.clone(), own.facts.clone()),
    };
    if theirs != ours {
        let lines = |from: &[(String, String)], other: &[(String, String)], sign: char| {
            let differing = from.iter().filter(|fact| !other.contains(fact));
            differing.map(|(name, value)| format!("{sign} {name}: {value}")).collect::<Vec<_>>()
        };
        let difference = [lines(&ours, &theirs, '-'), lines(&theirs, &ours, '+')].concat();
        return Err(Error::new(&codes::STATE_OTHER, "the run that is alive here works on a task that differs")
            .detail(difference.join("\n"))
            .remedy("give the task file back what it said (-), or name another folder with --state")
            .effect("nothing was changed"));
    }
    Ok(())
}

fn ending() -> Error {
    Error::new(&codes::CONNECTION_LOST, "the run ended before the command was carried out")
        .remedy("ask again: the command then does the work itself")
}
