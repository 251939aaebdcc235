//! The log file in the state folder: for the one who must find out later what happened. Holds no value and no secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// What `GODWIT_LOG` may change: `debug`, `godwit_pipeline=trace`.
const VARIABLE: &str = "GODWIT_LOG";
const LEVEL: &str = "info";
/// A file this large gives way to a new one; one older file is kept.
const LARGEST: u64 = 16 << 20;
const NAME: &str = "godwit.log";
const OLDER: &str = "godwit.log.1";

/// Begins to log into this folder. Once per process; a folder that takes no log file is no reason to stop.
pub fn begin(folder: &Path) {
    let Ok(file) = LogFile::open(folder) else { return };
    let filter = EnvFilter::builder().with_env_var(VARIABLE).try_from_env().unwrap_or_else(|_| EnvFilter::new(LEVEL));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).finish();
    // a second call in one process would be our own mistake, and harmless
    let _ = tracing::subscriber::set_global_default(subscriber);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "begun");
}

/// Removes the log files of a folder that is given up.
pub fn remove(folder: &Path) {
    for name in [NAME, OLDER] {
        let _ = fs::remove_file(folder.join(name));
    }
}

struct LogFile {
    folder: PathBuf,
    file: File,
    length: u64,
}

impl LogFile {
    fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(folder.join(NAME))?;
        let length = file.metadata()?.len();
        Ok(LogFile { folder: folder.to_owned(), file, length })
    }

    fn roll(&mut self) -> io::Result<()> {
        fs::rename(self.folder.join(NAME), self.folder.join(OLDER))?;
        *self = LogFile::open(&self.folder)?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length > LARGEST {
            // the folder may be gone by now
            self.length = 0;
            let _ = self.roll();
        }
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
