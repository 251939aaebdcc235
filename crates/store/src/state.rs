//! The folder that holds all a task keeps on this machine.
//!
//! ```text
//!   godwit-state/shop/   state       whose it is: format, task name, fingerprint, as `key: value` lines
//!                        lock        one process
//!                        log/        the change log
//!                        spool/      transactions under way
//!                        socket      where a running task takes commands
//! ```
//!
//! The fingerprint is what the task says that matters to the state. It is compared line by line, so that a refusal can
//! show the difference.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use godwit_model::{Error, Result, TaskName, codes};

use crate::disk::{io_error, sync_folder};
use crate::lock::FolderLock;

const FORMAT: &str = "1";

/// The state of one task, held by this process until dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    created: bool,
    _lock: FolderLock,
}

/// What a task says of itself, for the state: facts by name, in a fixed order, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub task: TaskName,
    /// `source.url`, `map` ...; values on one line (line ends are written as spaces).
    pub facts: Vec<(String, String)>,
}

impl Fingerprint {
    fn lines(&self) -> Vec<String> {
        let head = [("format", FORMAT), ("task", self.task.as_str())];
        let facts = self.facts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        head.into_iter().chain(facts).map(|(name, value)| format!("{name}: {}", one_line(value))).collect()
    }
}

fn one_line(value: &str) -> String {
    value.split(['\n', '\r']).collect::<Vec<_>>().join(" ")
}

impl StateFolder {
    /// Opens the folder, or makes it. `STATE_OTHER` if it belongs to a task that differs, `HELD` if another process
    /// has it.
    pub fn open(path: impl Into<PathBuf>, fingerprint: &Fingerprint) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|cause| io_error(cause, "making the state folder", &path))?;
        let lock = FolderLock::take(&path)?;
        let file = path.join("state");
        let created = match fs::read_to_string(&file) {
            Ok(text) => compare(&text, fingerprint).map(|()| false).map_err(|error| error.at(path.display().to_string()))?,
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                refuse_orphan(&path)?;
                write(&path, &file, fingerprint).map_err(|cause| io_error(cause, "writing the state", &file))?;
                true
            }
            Err(cause) => return Err(io_error(cause, "reading the state", &file)),
        };
        Ok(StateFolder { path, created, _lock: lock })
    }

    /// Whether there is state in this folder; looks without making or holding anything.
    pub fn exists(path: &Path) -> bool {
        path.join("state").exists()
    }

    /// Whether `open` made it: then nothing of this task is on this machine yet.
    pub fn created(&self) -> bool {
        self.created
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// Removes what Godwit keeps here, and the folder if nothing else is in it. The log must be closed.
    pub fn remove(self) -> Result<()> {
        let failed = |cause| io_error(cause, "removing the state", &self.path);
        // the log first: without it the state file still says whose folder it was
        for folder in [self.log(), self.spool()] {
            missing_is_fine(fs::remove_dir_all(folder)).map_err(failed)?;
        }
        for name in ["socket", "state", "lock"] {
            missing_is_fine(fs::remove_file(self.path.join(name))).map_err(failed)?;
        }
        // a file of someone else's keeps it
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

fn missing_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The state file is written before the log is made: a log without it is not ours to take.
fn refuse_orphan(path: &Path) -> Result<()> {
    if !path.join("log").exists() {
        return Ok(());
    }
    Err(Error::new(&codes::STATE_LOST, "the folder holds a change log but does not say of which task")
        .at(path.display().to_string())
        .remedy("name another folder with --state, or remove this one and run again with --resync")
        .effect("nothing was changed"))
}

/// Under another name first, so that a crash leaves all of it or nothing.
fn write(folder: &Path, file: &Path, fingerprint: &Fingerprint) -> std::io::Result<()> {
    let unfinished = folder.join("state.new");
    let mut text = fingerprint.lines().join("\n");
    text.push('\n');
    let mut out = File::create(&unfinished)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&unfinished, file)?;
    sync_folder(folder)?;
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

fn compare(text: &str, fingerprint: &Fingerprint) -> Result<()> {
    let (stored, wanted): (Vec<&str>, Vec<String>) = (text.lines().collect(), fingerprint.lines());
    let format = stored.first().and_then(|line| line.strip_prefix("format: "));
    if format != Some(FORMAT) {
        return Err(Error::new(&codes::STATE_VERSION, "the state was written in a form that this version does not read")
            .remedy("go on with the version that wrote it, or remove the folder and run again with --resync")
            .effect("nothing was changed"));
    }
    let gone = stored.iter().filter(|line| !wanted.iter().any(|other| other == *line)).map(|line| format!("- {line}"));
    let fresh = wanted.iter().filter(|line| !stored.contains(&line.as_str())).map(|line| format!("+ {line}"));
    let difference: Vec<String> = gone.chain(fresh).collect();
    if difference.is_empty() {
        return Ok(());
    }
    Err(Error::new(&codes::STATE_OTHER, "the state in this folder belongs to a task that differs")
        .detail(difference.join("\n"))
        .remedy("give the task file back what it said (-), name another folder with --state, or run `godwit clean` and begin anew")
        .effect("nothing was changed"))
}
