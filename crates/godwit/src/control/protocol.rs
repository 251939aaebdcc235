//! What is said over the socket: one request, then replies, each a line of JSON with a version.

use godwit_model::{Error, Result, codes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::answer::Answer;
use crate::progress::Happening;

pub const VERSION: u32 = 1;
/// An answer names tables, a few keys of each: 10,000 tables fit.
const LONGEST_LINE: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    Verify { repair: bool },
    Finish { read_only_source: bool },
    Clean,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub v: u32,
    /// The asker's task, as the state folder knows it: both must mean the same.
    pub facts: Vec<(String, String)>,
    #[serde(flatten)]
    pub command: Command,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Happening(Happening),
    /// The last line, if the command was carried out.
    Answer(Answer),
    /// The last line, if it failed.
    Failure(FailureForm),
}

/// An error on its way. The socket is the user's own, so it carries what a terminal may see.
#[derive(Debug, Serialize, Deserialize)]
pub struct FailureForm {
    code: u16,
    what: String,
    place: Option<String>,
    detail: Option<String>,
    remedy: Option<String>,
    effect: Option<String>,
}

impl From<&Error> for FailureForm {
    fn from(error: &Error) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        FailureForm {
            code: error.code().number,
            what: error.what().to_owned(),
            place: text(error.place()),
            detail: text(error.detail_text()),
            remedy: text(error.remedy_text()),
            effect: text(error.effect_text()),
        }
    }
}

impl From<FailureForm> for Error {
    fn from(form: FailureForm) -> Self {
        let mut error = Error::new(codes::find(form.code).unwrap_or(&codes::INTERNAL), form.what);
        if let Some(place) = form.place {
            error = error.at(place);
        }
        if let Some(detail) = form.detail {
            error = error.detail(detail);
        }
        if let Some(remedy) = form.remedy {
            error = error.remedy(remedy);
        }
        if let Some(effect) = form.effect {
            error = error.effect(effect);
        }
        error
    }
}

pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message).map_err(|cause| Error::internal("a message cannot be written as JSON").caused_by(cause))?;
    line.push(b'\n');
    to.write_all(&line).await.map_err(lost)
}

/// The next message; None at the end.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<T>> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line).await.map_err(lost)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|cause| {
        Error::new(&codes::STATE_VERSION, "the other process speaks another version")
            .remedy("use the same version of godwit for both")
            .effect("nothing was changed")
            .caused_by(cause)
    })
}

fn lost(cause: std::io::Error) -> Error {
    Error::new(&codes::CONNECTION_LOST, "the connection to the run was lost").remedy("ask again").caused_by(cause)
}
