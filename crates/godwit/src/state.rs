//! The state folder of a task, as commands see it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use godwit_model::{Error, Result, TaskName, codes};
use godwit_store::{Fingerprint, StateFolder};

use crate::answer::Answer;
use crate::cli::Place;
use crate::logging;
use crate::wiring::Stores;

const DEFAULT: &str = "godwit-state";
/// The proof of a finish lies here from the moment both sides were found equal until the folder is gone: a finish that
/// dies in between is completed by the next one, which shows the same proof.
const PROOF: &str = "finished";

pub fn path_of(place: &Place, task: &TaskName) -> PathBuf {
    place.state.clone().unwrap_or_else(|| Path::new(DEFAULT).join(task.as_str()))
}

/// Opens the folder, or makes it. If another process has it, the error names that process where the target knows it.
pub async fn open(stores: &Stores, path: &Path) -> Result<Arc<StateFolder>> {
    match StateFolder::open(path, &stores.fingerprint()) {
        Ok(folder) => {
            // the change log holds rows
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|cause| unusable(path, cause))?;
            logging::begin(path);
            Ok(Arc::new(folder))
        }
        Err(error) if error.is(&codes::HELD) => Err(held(stores, path, error).await),
        Err(error) => Err(error),
    }
}

/// For giving a task up: the folder may have been made by a task file that differs, if it means the same stores.
pub async fn open_to_clean(stores: &Stores, path: &Path) -> Result<Arc<StateFolder>> {
    match open(stores, path).await {
        Err(error) if error.is(&codes::STATE_OTHER) => {
            let stored = stored_facts(path);
            let own = stores.fingerprint();
            if stores_of(&stored) != stores_of(&own.facts) {
                return Err(error);
            }
            Ok(Arc::new(StateFolder::open(path, &Fingerprint { facts: stored, ..own })?))
        }
        opened => opened,
    }
}

/// What says whose state it is and of which stores.
pub fn stores_of(facts: &[(String, String)]) -> Vec<(String, String)> {
    facts.iter().filter(|(name, _)| ["name", "source", "target"].contains(&name.as_str())).cloned().collect()
}

/// The facts that the folder was made with; the lines before them are the folder's own.
fn stored_facts(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path.join("state")).unwrap_or_default();
    let facts = text.lines().filter_map(|line| line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, ""))));
    let own = ["format", "task"];
    facts.filter(|(name, _)| !own.contains(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn unusable(path: &Path, cause: std::io::Error) -> Error {
    Error::new(&codes::STATE_IO, "the state folder cannot be used").at(path.display().to_string()).caused_by(cause)
}

async fn held(stores: &Stores, path: &Path, plain: Error) -> Error {
    let name = &stores.task.name;
    let record = stores.target.lease(name).await.ok().flatten();
    match record.and_then(|record| record.holder) {
        Some(holder) => Error::new(&codes::HELD, format!("task `{name}` is run by process {} on {}", holder.pid, holder.host))
            .at(path.display().to_string())
            .remedy("let it run, or stop it and start again")
            .effect("nothing was changed"),
        None => plain,
    }
}

/// Removes the folder. Everyone else who held it is gone by now.
pub fn remove(folder: Arc<StateFolder>) -> Result<()> {
    let path = folder.path().to_owned();
    let folder = Arc::into_inner(folder).ok_or_else(|| Error::internal("the state folder is still in use"))?;
    logging::remove(&path);
    folder.remove()?;
    let _ = fs::remove_file(path.join(PROOF));
    // a file of someone else's keeps the folder
    let _ = fs::remove_dir(&path);
    if let Some(parent) = path.parent().filter(|parent| parent.ends_with(DEFAULT)) {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

pub fn keep_proof(folder: &StateFolder, proof: &Answer) -> Result<()> {
    let failed = |cause| unusable(folder.path(), cause);
    let text = serde_json::to_vec(proof).map_err(|cause| failed(cause.into()))?;
    fs::write(folder.path().join(PROOF), text).map_err(failed)
}

/// The proof of a finish that did not live to remove everything.
pub fn proof(path: &Path) -> Option<Answer> {
    serde_json::from_slice(&fs::read(path.join(PROOF)).ok()?).ok()
}

/// A new life of the task begins: an old proof says nothing of it.
pub fn forget_proof(folder: &StateFolder) {
    let _ = fs::remove_file(folder.path().join(PROOF));
}
