//! One process per folder: an advisory lock that ends with the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use godwit_model::{Error, Result, codes};

use crate::disk::io_error;

/// Holds the folder until dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|cause| io_error(cause, "opening the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(held(folder)),
            Err(TryLockError::Error(cause)) => Err(io_error(cause, "locking the folder", &path)),
        }
    }
}

fn held(folder: &Path) -> Error {
    Error::new(&codes::HELD, "another process works in this folder")
        .at(folder.display().to_string())
        .remedy("wait until it ends, or stop it")
        .effect("nothing was changed")
}
