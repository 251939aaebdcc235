//! A cursor in a file log: from memory while it keeps up, else from the files.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{Error, Layout, Result, Sequence};

use crate::change_log::LogReader;
use crate::decode::{damaged, decode};
use crate::disk::{blocking, io_error};
use crate::frame::{Frames, Step, is_mark};
use crate::record::Record;
use crate::recovery::{READ_BLOCK, Scan, open, trimmed};
use crate::segment::read_at;
use crate::shared::{Segment, Shared};

pub(crate) struct FileReader {
    shared: Arc<Shared>,
    /// Layouts that come before the first record.
    said: VecDeque<Arc<Layout>>,
    next: u64,
    /// What was known to be durable when it was last asked.
    durable: u64,
    /// First sequence of the segment that `frames` lies in.
    segment: u64,
    file: Option<Arc<File>>,
    frames: Frames,
}

/// Where the next piece comes from.
enum Piece {
    Memory { segment: u64, frames: Frames },
    File(Segment),
}

impl FileReader {
    pub(crate) async fn open(shared: Arc<Shared>, from: Sequence) -> Result<Self> {
        let path = {
            let state = shared.state();
            let there = from.0 <= state.durable.sequence.0 + 1;
            let segment = state.segment_of(from.0).filter(|_| there);
            segment.map(|segment| (segment.first, shared.path_of(Sequence(segment.first))))
        };
        let Some((segment, path)) = path else { return Err(trimmed(&shared.folder)) };
        let (scan, said, place) = blocking(move || {
            let mut scan = Scan::open(&path, None)?;
            let (said, place) = scan.until(from.0)?;
            Ok((scan, said, place))
        })
        .await?;
        let said = said.into_iter().map(|said| said.layout).collect();
        let frames = Frames { base: place, ..Frames::default() };
        Ok(FileReader { shared, said, next: from.0, durable: 0, segment, file: Some(Arc::new(scan.file)), frames })
    }

    /// Waits until `next` is durable.
    async fn wait(&mut self) -> Result<()> {
        let next = self.next;
        let look = |state: &crate::shared::State| {
            let durable = state.durable.sequence.0;
            if durable >= next { Some(Ok(durable)) } else { state.check().err().map(Err) }
        };
        self.durable = self.shared.wait(look).await?;
        Ok(())
    }

    /// The next frame in what was read; None: more must be read, at least so many bytes.
    fn step(&mut self) -> Result<Result<Record, usize>> {
        loop {
            match self.frames.next() {
                Step::Short(need) => return Ok(Err(need)),
                Step::Bad => return Err(self.damaged("a record that was durable is broken")),
                Step::Frame { sequence, payload } if is_mark(&payload) || sequence < self.next => {}
                Step::Frame { sequence, payload } if sequence == self.next => {
                    return decode(&payload).map(Ok).map_err(|error| error.at(self.place()));
                }
                Step::Frame { .. } => return Err(self.damaged("records are missing")),
            }
        }
    }

    fn piece(&self) -> Result<Piece> {
        let state = self.shared.state();
        if let Some(block) = state.recent.find(self.next) {
            let frames = Frames { bytes: block.bytes.clone(), at: 0, base: block.offset };
            return Ok(Piece::Memory { segment: block.segment, frames });
        }
        let segment = state.segment_of(self.next).cloned();
        segment.map(Piece::File).ok_or_else(|| trimmed(&self.shared.folder))
    }

    /// Reads on. Dropped while pending, it has changed nothing but which file is open.
    async fn refill(&mut self, need: usize) -> Result<()> {
        match self.piece()? {
            Piece::Memory { segment, frames } => {
                if segment != self.segment {
                    self.file = None;
                }
                (self.segment, self.frames) = (segment, frames);
                Ok(())
            }
            Piece::File(segment) => self.read(segment, need).await,
        }
    }

    async fn read(&mut self, segment: Segment, need: usize) -> Result<()> {
        if segment.first != self.segment {
            self.file = None;
        }
        let path = self.shared.path_of(Sequence(segment.first));
        let known = self.file.clone();
        let goes_on = segment.first == self.segment;
        let place = goes_on.then(|| self.frames.place());
        let need = if goes_on { need } else { 1 };
        let work = move || {
            let (file, place) = match (known, place) {
                (Some(file), Some(place)) => (file, place),
                (_, place) => {
                    let (file, header) = open(&path)?;
                    (Arc::new(file), place.unwrap_or(header.start()))
                }
            };
            let left = segment.durable.saturating_sub(place);
            let length = left.min(need.max(READ_BLOCK) as u64) as usize;
            let bytes = read_at(&file, place, length).map_err(|cause| io_error(cause, "reading a segment", &path))?;
            Ok((file, place, bytes))
        };
        let (file, place, bytes) = blocking(work).await?;
        if bytes.len() < need {
            return Err(self.damaged("a segment ends before records that were durable"));
        }
        (self.segment, self.file) = (segment.first, Some(file));
        self.frames = Frames { bytes: bytes.into(), at: 0, base: place };
        Ok(())
    }

    fn place(&self) -> String {
        self.shared.path_of(Sequence(self.segment)).display().to_string()
    }

    fn damaged(&self, what: &str) -> Error {
        damaged(what).at(self.place())
    }
}

#[async_trait]
impl LogReader for FileReader {
    async fn next(&mut self) -> Result<(Sequence, Record)> {
        if let Some(layout) = self.said.pop_front() {
            return Ok((Sequence(self.next - 1), Record::Layout(layout)));
        }
        loop {
            if self.next > self.durable {
                self.wait().await?;
            }
            match self.step()? {
                Ok(record) => {
                    self.next += 1;
                    return Ok((Sequence(self.next - 1), record));
                }
                Err(need) => self.refill(need).await?,
            }
        }
    }
}
