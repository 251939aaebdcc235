//! Transactions that are still under way at the source lie here until they commit or are rolled back.
//!
//! Each transaction is a run of frames, in memory while it is small, then in a file of its own. What is rolled back in
//! part stays where it is and is skipped when the transaction is read. Nothing here is durable: after a crash capture
//! begins before these transactions again, so the folder is emptied when it is opened.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use godwit_model::{Error, Result, TransactionId};

use crate::decode::{damaged, decode};
use crate::disk::{blocking, io_error};
use crate::encode::{encode, put_varint};
use crate::frame::{Frames, Step, put_frame};
use crate::record::Record;
use crate::recovery::READ_BLOCK;
use crate::segment::read_at;

#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// What one transaction may hold in memory before it goes to its file.
    pub transaction_bytes: usize,
    /// What all transactions together may hold in memory; then the largest goes to its file.
    pub memory_bytes: usize,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        SpoolLimits { transaction_bytes: 1 << 20, memory_bytes: 16 << 20 }
    }
}

/// One owner; calls come one after another. After an error, or a call dropped while pending, only `clear` is of use.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limits: SpoolLimits,
    transactions: HashMap<TransactionId, Transaction>,
    /// Bytes in memory, of all transactions.
    held: usize,
}

#[derive(Debug, Default)]
struct Transaction {
    /// Frames that are not in the file.
    buffer: Vec<u8>,
    /// Bytes in the file; 0: there is none.
    filed: u64,
    /// Items pushed so far.
    items: u64,
    /// Parts rolled back, each with the number of items pushed before: only those are void. One entry per rolled back
    /// part that the source announced, which is what the source itself remembers of them.
    aborted: HashMap<TransactionId, u64>,
}

impl Spool {
    /// Empties the folder.
    pub async fn open(folder: impl Into<PathBuf>, limits: SpoolLimits) -> Result<Self> {
        let folder = folder.into();
        let mut spool = Spool { folder, limits, transactions: HashMap::new(), held: 0 };
        spool.clear().await?;
        Ok(spool)
    }

    /// Adds `Changes` or a `Marker` to a transaction under way.
    pub async fn push(&mut self, transaction: TransactionId, part: TransactionId, item: &Record) -> Result<()> {
        let entry = self.transactions.entry(transaction).or_default();
        let before = entry.buffer.len();
        put_frame(&mut entry.buffer, entry.items, |out| {
            put_varint(part.0, out);
            encode(item, out);
        })?;
        entry.items += 1;
        self.held += entry.buffer.len() - before;
        if entry.buffer.len() > self.limits.transaction_bytes {
            self.file(transaction).await?;
        }
        while self.held > self.limits.memory_bytes {
            let largest = self.transactions.iter().max_by_key(|(_, entry)| entry.buffer.len()).map(|(id, _)| *id);
            self.file(largest.expect("bytes are held by some transaction")).await?;
        }
        Ok(())
    }

    /// Drops what was pushed of this part; of the whole transaction if the part is the transaction.
    pub async fn abort(&mut self, transaction: TransactionId, part: TransactionId) -> Result<()> {
        if transaction == part {
            return self.remove(transaction).await;
        }
        if let Some(entry) = self.transactions.get_mut(&transaction) {
            entry.aborted.insert(part, entry.items);
        }
        Ok(())
    }

    /// What the transaction did, in its order, without what was rolled back; nothing if it pushed nothing. The
    /// transaction stays until `remove`, and nothing may be pushed to it any more.
    pub fn commit(&self, transaction: TransactionId) -> Spooled {
        let Some(entry) = self.transactions.get(&transaction) else { return Spooled::default() };
        Spooled {
            path: self.path(transaction),
            filed: entry.filed,
            memory: Bytes::copy_from_slice(&entry.buffer),
            aborted: entry.aborted.clone(),
            frames: Frames::default(),
            item: 0,
        }
    }

    /// Forgets the transaction.
    pub async fn remove(&mut self, transaction: TransactionId) -> Result<()> {
        let Some(entry) = self.transactions.remove(&transaction) else { return Ok(()) };
        self.held -= entry.buffer.len();
        if entry.filed == 0 {
            return Ok(());
        }
        let path = self.path(transaction);
        blocking(move || fs::remove_file(&path).map_err(|cause| io_error(cause, "removing a spooled transaction", &path))).await
    }

    /// Forgets all transactions: capture begins anew before them.
    pub async fn clear(&mut self) -> Result<()> {
        self.transactions.clear();
        self.held = 0;
        let folder = self.folder.clone();
        blocking(move || empty(&folder).map_err(|cause| io_error(cause, "emptying the spool", &folder))).await
    }

    /// Transactions under way.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.transactions.values().map(|entry| entry.filed).sum()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    async fn file(&mut self, transaction: TransactionId) -> Result<()> {
        let path = self.path(transaction);
        let Some(entry) = self.transactions.get_mut(&transaction) else { return Ok(()) };
        let buffer = std::mem::take(&mut entry.buffer);
        self.held -= buffer.len();
        entry.filed += buffer.len() as u64;
        blocking(move || append(&path, &buffer).map_err(|cause| io_error(cause, "spooling a transaction", &path))).await
    }

    fn path(&self, transaction: TransactionId) -> PathBuf {
        self.folder.join(format!("{}.part", transaction.0))
    }
}

/// The file is opened each time: a source may have more transactions under way than a process may have files open.
fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
}

fn empty(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The items of one committed transaction.
#[derive(Debug, Default)]
pub struct Spooled {
    path: PathBuf,
    filed: u64,
    /// What comes behind the file.
    memory: Bytes,
    aborted: HashMap<TransactionId, u64>,
    frames: Frames,
    item: u64,
}

impl Spooled {
    /// The next item; None at the end. Safe to drop while pending.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            match self.frames.next() {
                Step::Frame { sequence, payload } if sequence == self.item => {
                    self.item += 1;
                    let (part, record) = split(&payload)?;
                    if self.aborted.get(&part).is_none_or(|before| sequence >= *before) {
                        return decode(&record).map(Some);
                    }
                }
                Step::Frame { .. } | Step::Bad => return Err(self.broken()),
                Step::Short(need) => {
                    if !self.refill(need).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// False: there is no more.
    async fn refill(&mut self, need: usize) -> Result<bool> {
        let place = self.frames.place();
        if place < self.filed {
            let left = usize::try_from(self.filed - place).unwrap_or(usize::MAX);
            if left < need {
                return Err(self.broken());
            }
            let path = self.path.clone();
            let length = left.min(need.max(READ_BLOCK));
            let read = move || {
                let bytes = fs::File::open(&path).and_then(|file| read_at(&file, place, length));
                bytes.map_err(|cause| io_error(cause, "reading a spooled transaction", &path))
            };
            let bytes = blocking(read).await?;
            if bytes.len() < need {
                return Err(self.broken());
            }
            self.frames = Frames { bytes: bytes.into(), at: 0, base: place };
            return Ok(true);
        }
        if place == self.filed && !self.memory.is_empty() {
            self.frames = Frames { bytes: std::mem::take(&mut self.memory), at: 0, base: self.filed };
            return Ok(true);
        }
        Ok(false)
    }

    fn broken(&self) -> Error {
        damaged("a spooled transaction is broken").at(self.path.display().to_string())
    }
}

/// The part, and the record's bytes.
fn split(payload: &Bytes) -> Result<(TransactionId, Bytes)> {
    let mut part = 0u64;
    for (index, byte) in payload.iter().enumerate().take(10) {
        part |= u64::from(byte & 0x7f).wrapping_shl(7 * index as u32);
        if *byte < 0x80 {
            return Ok((TransactionId(part), payload.slice(index + 1..)));
        }
    }
    Err(damaged("a spooled item does not say whose it is"))
}
