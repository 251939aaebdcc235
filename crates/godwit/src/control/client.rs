//! The asker's side.

use std::io::ErrorKind;
use std::path::Path;

use godwit_model::{Error, Result, codes};
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::door::Door;
use super::protocol::{self, Command, Reply, Request};
use crate::answer::Answer;
use crate::progress::Watch;
use crate::wiring::Stores;

/// A run that is alive.
pub struct Live {
    stream: UnixStream,
}

impl Live {
    /// None: no run is alive in this folder.
    pub async fn find(folder: &Path) -> Result<Option<Live>> {
        let socket = folder.join("socket");
        if !socket.exists() {
            return Ok(None);
        }
        let failed =
            |cause| Error::new(&codes::STATE_IO, "the run's socket cannot be used").at(socket.display().to_string()).caused_by(cause);
        let door = Door::to(&socket).map_err(failed)?;
        match UnixStream::connect(door.path()).await {
            Ok(stream) => Ok(Some(Live { stream })),
            // its run is gone, and left the file behind
            Err(cause) if matches!(cause.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(None),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// Has the command carried out and shows how it goes on.
    pub async fn ask(self, stores: &Stores, command: Command, watch: &Watch) -> Result<Answer> {
        let (reader, mut writer) = self.stream.into_split();
        let request = Request { v: protocol::VERSION, facts: stores.fingerprint().facts, command };
        protocol::write(&mut writer, &request).await?;
        let mut reader = BufReader::new(reader);
        loop {
            match protocol::read(&mut reader).await? {
                Some(Reply::Happening(happening)) => watch.show(happening),
                Some(Reply::Answer(answer)) => return Ok(answer),
                Some(Reply::Failure(failure)) => return Err(failure.into()),
                None => {
                    return Err(Error::new(&codes::CONNECTION_LOST, "the run ended before it answered")
                        .remedy("ask again: the command then does the work itself"));
                }
            }
        }
    }
}
