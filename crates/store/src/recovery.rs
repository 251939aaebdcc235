//! What is found when a log is opened, and what is cut off before it goes on.
//!
//! Segments before the last were durable before the next was named, so only the last may end in a torn write. Behind
//! the last complete transaction nothing was ever acknowledged: it is cut off, over several segments if it must be,
//! newest first, so that a crash in between leaves a log that is whole. A broken frame in the last segment is damage,
//! not a torn write, if a durability mark behind it says that it once was durable.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use godwit_model::{Error, LogId, Position, Result, codes};

use crate::decode::{damaged, decode};
use crate::disk::{io_error, sync_folder};
use crate::encode::tag;
use crate::frame::{Frames, Step, is_mark, proves_durable};
use crate::layouts::Said;
use crate::record::{Record, TransactionOrder};
use crate::segment::{self, Header, path_of, read_at};

/// Bytes read from a segment at once: large enough that the call does not matter.
pub(crate) const READ_BLOCK: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) log: LogId,
    /// First sequence and length of each segment; at least one.
    pub(crate) segments: VecDeque<(u64, u64)>,
    /// The last sequence; 0: none yet.
    pub(crate) last: u64,
    pub(crate) position: Option<Position>,
    /// Said in the last segment, in their order.
    pub(crate) layouts: Vec<Said>,
}

/// The end of what counts in one segment.
#[derive(Debug)]
struct End {
    offset: u64,
    last: u64,
    position: Option<Position>,
    layouts: Vec<Said>,
}

/// None: there is no log in the folder. When this returns, everything it tells of is durable.
pub(crate) fn recover(folder: &Path) -> Result<Option<Found>> {
    let firsts = segment::list(folder).map_err(|cause| io_error(cause, "reading the change log's folder", folder))?;
    let Some(log) = check_chain(folder, &firsts)? else { return Ok(None) };
    let (kept, end) = find_end(folder, &firsts)?;
    cut(folder, &firsts, kept, end.offset).map_err(|cause| io_error(cause, "cutting the change log's tail", folder))?;
    let mut segments = VecDeque::new();
    for first in &firsts[..kept] {
        let path = path_of(folder, *first);
        let metadata = fs::metadata(&path).map_err(|cause| io_error(cause, "reading a segment", &path))?;
        segments.push_back((*first, metadata.len()));
    }
    Ok(Some(Found { log, segments, last: end.last, position: end.position, layouts: end.layouts }))
}

/// Headers only: every segment names the one before it. None: no segments.
fn check_chain(folder: &Path, firsts: &[u64]) -> Result<Option<LogId>> {
    let mut log = None;
    let mut previous = None;
    for first in firsts {
        let (_, header) = open(&path_of(folder, *first))?;
        let linked = previous.is_none_or(|previous| previous == header.previous) && header.first == *first;
        if !linked || log.is_some_and(|log| log != header.log) {
            return Err(damaged("a segment does not follow the one before it").at(path_of(folder, *first).display().to_string()));
        }
        log = Some(header.log);
        previous = Some(*first);
    }
    Ok(log)
}

/// How many segments stay, and where the last of them ends.
fn find_end(folder: &Path, firsts: &[u64]) -> Result<(usize, End)> {
    for index in (0..firsts.len()).rev() {
        let next = firsts.get(index + 1).copied();
        let path = path_of(folder, firsts[index]);
        if let Some(end) = Scan::open(&path, next)?.run()? {
            return Ok((index + 1, end));
        }
    }
    Err(damaged("the log begins in the middle of a transaction that never ends").at(folder.display().to_string()))
}

fn cut(folder: &Path, firsts: &[u64], kept: usize, offset: u64) -> std::io::Result<()> {
    for first in firsts[kept..].iter().rev() {
        fs::remove_file(path_of(folder, *first))?;
        sync_folder(folder)?;
    }
    let file = OpenOptions::new().write(true).open(path_of(folder, firsts[kept - 1]))?;
    if file.metadata()?.len() != offset {
        file.set_len(offset)?;
    }
    // the process before may have died between write and sync
    file.sync_all()?;
    sync_folder(folder)
}

pub(crate) fn open(path: &Path) -> Result<(File, Header)> {
    let file = File::open(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => trimmed(path),
        _ => io_error(cause, "opening a segment", path),
    })?;
    let header = Header::read(&file, path)?;
    Ok((file, header))
}

pub(crate) fn trimmed(path: &Path) -> Error {
    Error::new(&codes::STATE_LOST, "the change log no longer holds what is to be read")
        .at(path.display().to_string())
        .remedy("run again with --resync")
        .effect("nothing was changed")
}

/// Reads the frames of one segment in their order.
pub(crate) struct Scan {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    header: Header,
    frames: Frames,
    length: u64,
    /// First sequence of the segment behind this one, which is therefore complete.
    next: Option<u64>,
    layouts: Vec<Said>,
    position: Option<Position>,
}

impl Scan {
    /// Reads header and preamble.
    pub(crate) fn open(path: &Path, next: Option<u64>) -> Result<Self> {
        let (file, header) = open(path)?;
        let length = file.metadata().map_err(|cause| io_error(cause, "reading a segment", path))?.len();
        let frames = Frames { base: Header::preamble_start(), ..Frames::default() };
        let mut scan = Scan { path: path.to_owned(), file, header, frames, length, next, layouts: Vec::new(), position: None };
        while scan.frames.place() < scan.header.start() {
            let Some((_, payload)) = scan.step()? else { return Err(scan.damaged("a segment's preamble is broken")) };
            scan.note(&payload)?;
        }
        Ok(scan)
    }

    /// The next frame, if it is whole.
    fn step(&mut self) -> Result<Option<(u64, Bytes)>> {
        loop {
            match self.frames.next() {
                Step::Frame { sequence, payload } => return Ok(Some((sequence, payload))),
                Step::Bad => return Ok(None),
                Step::Short(need) => {
                    let place = self.frames.place();
                    if self.length.saturating_sub(place) < need as u64 {
                        return Ok(None);
                    }
                    let bytes = self.read(place, need.max(READ_BLOCK))?;
                    self.frames = Frames { bytes: bytes.into(), at: 0, base: place };
                }
            }
        }
    }

    fn read(&self, place: u64, length: usize) -> Result<Vec<u8>> {
        read_at(&self.file, place, length).map_err(|cause| io_error(cause, "reading a segment", &self.path))
    }

    /// Remembers layouts and positions; returns the record.
    fn note(&mut self, payload: &Bytes) -> Result<Record> {
        let record = decode(payload).map_err(|error| error.at(self.path.display().to_string()))?;
        if let Record::Layout(layout) = &record {
            let again = payload.first() == Some(&tag::LAYOUT_AGAIN);
            self.layouts.push(Said { layout: layout.clone(), again });
        }
        if let Some(position) = record.position() {
            self.position = Some(position.clone());
        }
        Ok(record)
    }

    fn end(&self, last: u64) -> End {
        End { offset: self.frames.place(), last, position: self.position.clone(), layouts: self.layouts.clone() }
    }

    /// The last place between two transactions. None: the whole segment lies within one.
    fn run(mut self) -> Result<Option<End>> {
        let mut order = TransactionOrder { open: self.header.open };
        let mut last = self.header.first - 1;
        let mut end = (!order.open).then(|| self.end(last));
        while let Some((sequence, payload)) = self.step()? {
            if sequence != last + 1 {
                return Err(self.damaged("records are missing from a segment"));
            }
            if is_mark(&payload) {
                continue;
            }
            let record = self.note(&payload)?;
            order = order.after(&record).map_err(|_| self.damaged("a segment's records are out of order"))?;
            last = sequence;
            if !order.open {
                end = Some(self.end(last));
            }
        }
        self.check_rest(last)?;
        Ok(end)
    }

    /// What follows the last whole frame must be nothing, or a torn write.
    fn check_rest(&self, last: u64) -> Result<()> {
        let place = self.frames.place();
        match self.next {
            Some(next) if next == last + 1 && place == self.length => Ok(()),
            Some(_) => Err(self.damaged("a segment is broken")),
            None => {
                let rest = self.read(place, (self.length - place) as usize)?;
                if proves_durable(&rest, last + 1) {
                    return Err(self.damaged("the last segment is broken before records that were durable"));
                }
                Ok(())
            }
        }
    }

    fn damaged(&self, what: &str) -> Error {
        damaged(what).at(self.path.display().to_string())
    }

    /// Goes on to just before `from`; returns the layouts said until there, and the place of the next frame.
    pub(crate) fn until(&mut self, from: u64) -> Result<(Vec<Said>, u64)> {
        let mut next = self.header.first;
        while next < from {
            let Some((sequence, payload)) = self.step()? else { return Err(self.damaged("a segment is broken")) };
            if is_mark(&payload) {
                continue;
            }
            if sequence != next {
                return Err(self.damaged("records are missing from a segment"));
            }
            self.note_layout(&payload)?;
            next += 1;
        }
        Ok((std::mem::take(&mut self.layouts), self.frames.place()))
    }

    fn note_layout(&mut self, payload: &Bytes) -> Result<()> {
        if matches!(payload.first(), Some(&tag::LAYOUT | &tag::LAYOUT_AGAIN)) {
            self.note(payload)?;
        }
        Ok(())
    }
}
