//! The path of the socket. The system takes short paths only, so a long one is reached through the folder, held open.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The system's limit is 108 bytes with the end mark; less what `.new` takes.
const LONGEST: usize = 100;

pub struct Door {
    path: PathBuf,
    _folder: Option<File>,
}

impl Door {
    /// `socket` need not be there, its folder must.
    pub fn to(socket: &Path) -> io::Result<Door> {
        if socket.as_os_str().len() <= LONGEST {
            return Ok(Door { path: socket.to_owned(), _folder: None });
        }
        let none = || io::Error::from(io::ErrorKind::InvalidInput);
        let folder = File::open(socket.parent().ok_or_else(none)?)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(socket.file_name().ok_or_else(none)?);
        Ok(Door { path, _folder: Some(folder) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
