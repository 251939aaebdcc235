//! `./godwit-demo`: what the demo keeps there, and only that.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use godwit_model::{Error, Result, codes};

const FOLDER: &str = "godwit-demo";
const SOURCE: &str = "shop.db";
const TARGET: &str = "shop-new.db";
const TASK: &str = "shop.yaml";
const STATE: &str = "state";

/// All files of a demo, whether it ended or was cut off.
const FILES: [&str; 9] =
    [SOURCE, "shop.db-wal", "shop.db-shm", "shop.db-journal", TARGET, "shop-new.db-wal", "shop-new.db-shm", "shop-new.db-journal", TASK];
/// What a demo that was cut off leaves in its state folder.
const STATE_FILES: [&str; 7] = ["state", "state.new", "lock", "socket", "godwit.log", "godwit.log.1", "finished"];
const STATE_FOLDERS: [&str; 2] = ["log", "spool"];

const TASK_TEXT: &str = "\
# The task of `godwit demo`. Paths are relative to this file.
name: shop
mode: migrate
source: sqlite:shop.db
target: sqlite:shop-new.db
map:
  - {from: main.customers, to: main.clients, columns: {full_name: name, fax: leave_out}}
  - {from: main.orders, columns: {placed: created_at}}
";

#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder, or empties it of what an earlier demo left; anything else in it is a reason to refuse.
    pub fn prepare() -> Result<Folder> {
        let folder = Folder { path: PathBuf::from(FOLDER) };
        fs::create_dir_all(&folder.path).map_err(|cause| folder.failed(cause))?;
        folder.refuse_strangers(&folder.path, &FILES, &[STATE])?;
        let state = folder.state();
        if state.exists() {
            folder.refuse_strangers(&state, &STATE_FILES, &STATE_FOLDERS)?;
            folder.refuse_another(&state)?;
            folder.remove_state(&state).map_err(|cause| folder.failed(cause))?;
        }
        for name in FILES {
            missing_is_fine(fs::remove_file(folder.path.join(name))).map_err(|cause| folder.failed(cause))?;
        }
        fs::write(folder.task(), TASK_TEXT).map_err(|cause| folder.failed(cause))?;
        Ok(folder)
    }

    fn refuse_strangers(&self, path: &Path, files: &[&str], folders: &[&str]) -> Result<()> {
        for entry in fs::read_dir(path).map_err(|cause| self.failed(cause))? {
            let entry = entry.map_err(|cause| self.failed(cause))?;
            let name = entry.file_name();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let known = if is_folder { folders } else { files };
            if !known.iter().any(|known| name == *known) {
                return Err(Error::new(&codes::USAGE, "the demo's folder holds something that is not the demo's")
                    .at(entry.path().display().to_string())
                    .remedy("move it away, or start the demo in another folder")
                    .effect("nothing was changed"));
            }
        }
        Ok(())
    }

    fn refuse_another(&self, state: &Path) -> Result<()> {
        let Ok(lock) = File::open(state.join("lock")) else { return Ok(()) };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::new(&codes::HELD, "another demo runs in this folder")
                .at(state.display().to_string())
                .remedy("wait until it ends, or start this one in another folder")
                .effect("nothing was changed")),
            _ => Ok(()),
        }
    }

    fn remove_state(&self, state: &Path) -> io::Result<()> {
        for name in STATE_FOLDERS {
            missing_is_fine(fs::remove_dir_all(state.join(name)))?;
        }
        for name in STATE_FILES {
            missing_is_fine(fs::remove_file(state.join(name)))?;
        }
        fs::remove_dir(state)
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::new(&codes::STATE_IO, "the demo's folder cannot be used").at(self.path.display().to_string()).caused_by(cause)
    }

    pub fn source(&self) -> PathBuf {
        self.path.join(SOURCE)
    }

    pub fn target(&self) -> PathBuf {
        self.path.join(TARGET)
    }

    pub fn task(&self) -> PathBuf {
        self.path.join(TASK)
    }

    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// For people: both databases and the task.
    pub fn files(&self) -> String {
        format!("{} and {}, the task is {}", self.source().display(), self.target().display(), self.task().display())
    }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
