//! One file of the change log: a header, a preamble, then frames.
//!
//! The preamble says again what a reader needs to begin here: the newest layout of each table and the last position.
//! Its frames bear the segment's first sequence but take none. A segment is written under another name with header and
//! preamble, made durable, and only then renamed: a file with a segment's name always begins well.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use godwit_model::{Error, Layout, LogId, Position, Result, codes, failpoint};

use crate::decode::damaged;
use crate::disk::{Disk, io_error, sync_folder};
use crate::encode::encode;
use crate::frame::put_frame;
use crate::record::Record;

const MAGIC: &[u8; 8] = b"godwitlg";
/// Of header, frames and records together.
const FORMAT: u32 = 1;
const HEADER: usize = 8 + 4 + 16 + 8 + 8 + 1 + 8 + 4;
const SUFFIX: &str = ".log";
const UNFINISHED: &str = "segment.new";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) log: LogId,
    /// The sequence of the first record in this segment.
    pub(crate) first: u64,
    /// `first` of the segment before; 0: there was none.
    pub(crate) previous: u64,
    /// Whether the segment begins in the middle of a transaction.
    pub(crate) open: bool,
    /// Bytes of the preamble.
    pub(crate) preamble: u64,
}

impl Header {
    /// Where the first record's frame begins.
    pub(crate) fn start(&self) -> u64 {
        HEADER as u64 + self.preamble
    }

    /// Where the preamble's frames begin.
    pub(crate) fn preamble_start() -> u64 {
        HEADER as u64
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.log.0.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.push(self.open.into());
        out.extend_from_slice(&self.preamble.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.first_chunk::<HEADER>().ok_or_else(|| damaged("a segment ends within its header"))?;
        if &bytes[..8] != MAGIC {
            return Err(damaged("a segment does not begin as segments do"));
        }
        let version = u32::from_le_bytes(part(bytes, 8));
        if version != FORMAT {
            return Err(other_version(version));
        }
        if u32::from_le_bytes(part(bytes, HEADER - 4)) != crc32fast::hash(&bytes[..HEADER - 4]) {
            return Err(damaged("a segment's header does not match its checksum"));
        }
        Ok(Header {
            log: LogId(u128::from_le_bytes(part(bytes, 12))),
            first: u64::from_le_bytes(part(bytes, 28)),
            previous: u64::from_le_bytes(part(bytes, 36)),
            open: bytes[44] != 0,
            preamble: u64::from_le_bytes(part(bytes, 45)),
        })
    }

    pub(crate) fn read(file: &File, path: &Path) -> Result<Self> {
        let bytes = read_at(file, 0, HEADER).map_err(|cause| io_error(cause, "reading a segment", path))?;
        Self::decode(&bytes).map_err(|error| error.at_least_at(|| path.display().to_string()))
    }
}

fn part<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the header has fixed places")
}

fn other_version(version: u32) -> Error {
    Error::new(&codes::STATE_VERSION, format!("the change log has format {version}, this version reads format {FORMAT}"))
        .remedy("go on with the version that wrote it, or remove the state folder and run again with --resync")
        .effect("nothing was changed")
}

/// Up to `length` bytes; fewer only at the end of the file.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What a new segment begins with.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) log: LogId,
    pub(crate) first: u64,
    pub(crate) previous: u64,
    pub(crate) open: bool,
    /// The preamble's frames.
    preamble: Vec<u8>,
}

impl Opening {
    pub(crate) fn new(log: LogId, first: u64, previous: u64, open: bool) -> Self {
        Opening { log, first, previous, open, preamble: Vec::new() }
    }

    pub(crate) fn with(mut self, layouts: Vec<Arc<Layout>>, position: Option<&Position>) -> Result<Self> {
        for layout in layouts {
            self.put(&Record::Layout(layout))?;
        }
        if let Some(position) = position {
            self.put(&Record::Progress { position: position.clone() })?;
        }
        Ok(self)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        put_frame(&mut self.preamble, self.first, |out| encode(record, out))
    }

    pub(crate) fn length(&self) -> u64 {
        (HEADER + self.preamble.len()) as u64
    }
}

/// Makes the segment, durable with its name, and returns it open for appending.
pub(crate) fn create(folder: &Path, opening: &Opening, disk: &dyn Disk) -> Result<File> {
    let (unfinished, path) = (folder.join(UNFINISHED), path_of(folder, opening.first));
    let made = try_create(&unfinished, &path, opening, disk);
    if made.is_err() {
        // what is left of it only takes space; the next open removes it too
        let _ = fs::remove_file(&unfinished);
    }
    made.map_err(|cause| io_error(cause, "creating a segment", &path))
}

fn try_create(unfinished: &Path, path: &Path, opening: &Opening, disk: &dyn Disk) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(unfinished)?;
    let preamble = opening.preamble.len() as u64;
    let header = Header { log: opening.log, first: opening.first, previous: opening.previous, open: opening.open, preamble };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&opening.preamble);
    disk.write(&file, &bytes)?;
    disk.sync(&file)?;
    if opening.previous != 0 {
        failpoint("log.segment.roll");
    }
    fs::rename(unfinished, path)?;
    sync_folder(path.parent().expect("a segment lies in a folder"))?;
    Ok(file)
}

pub(crate) fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}{SUFFIX}"))
}

/// First sequences of the segments in a folder, ascending. Removes what a crash left of an unfinished one.
pub(crate) fn list(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name == UNFINISHED {
            fs::remove_file(entry.path())?;
        } else if let Some(first) = name.strip_suffix(SUFFIX).and_then(|digits| digits.parse().ok()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}
