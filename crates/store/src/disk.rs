//! The few calls that make something durable, behind a seam so that tests can fill the disk or break it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use godwit_model::{Error, Result, codes};

/// Writing and syncing of files. Reads need no seam: what was read is checked by its checksum.
pub(crate) trait Disk: Send + Sync {
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &File) -> io::Result<()>;
}

pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Makes creations, renames and removals in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Does file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("file work in the state folder did not end").caused_by(error))?
}

/// An error of the file system as an error of the state folder.
pub(crate) fn io_error(cause: io::Error, doing: &str, path: &Path) -> Error {
    let full = matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    let (code, remedy) = match full {
        true => (&codes::LOG_FULL, "free space on this disk; what was durable stays, and the task goes on from there"),
        false => (&codes::STATE_IO, "see that the disk is sound and that this user may read and write there, then run again"),
    };
    Error::new(code, format!("{doing} failed: {cause}")).at(path.display().to_string()).remedy(remedy).caused_by(cause)
}
