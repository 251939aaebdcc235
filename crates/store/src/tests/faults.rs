//! A disk that is full, or breaks.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use godwit_model::{Sequence, codes};

use super::{commits, layout, position, read_all, transaction};
use crate::disk::{Disk, RealDisk};
use crate::{ChangeLog, FileLog, LogOptions};

/// Takes so many bytes, then as much of a write as fits; syncs may fail.
#[derive(Default)]
struct FaultyDisk {
    left: AtomicUsize,
    broken: AtomicBool,
}

impl Disk for FaultyDisk {
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(self.left.load(Ordering::SeqCst));
        self.left.fetch_sub(fits, Ordering::SeqCst);
        RealDisk.write(file, &bytes[..fits])?;
        if fits == bytes.len() { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { RealDisk.sync(file) }
    }
}

async fn open(folder: &std::path::Path, disk: &Arc<FaultyDisk>) -> godwit_model::Result<FileLog> {
    let options = LogOptions { segment_bytes: 4 << 10, retain_bytes: 0, ..LogOptions::default() };
    FileLog::open_on(folder.to_owned(), options, disk.clone()).await
}

#[tokio::test]
async fn a_full_disk_loses_nothing_durable_and_the_log_goes_on_when_there_is_space() {
    for space in (200..14_000).step_by(97) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::default());
        disk.left.store(space, Ordering::SeqCst);
        let log = open(folder.path(), &disk).await.unwrap();
        log.append(&layout(1, "a")).unwrap();
        let mut durable = 0;
        let error = loop {
            transaction(&log, 1, durable + 1, 3);
            match log.sync().await {
                Ok(_) => durable += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is(&codes::LOG_FULL), "{error}");
        assert!(log.append(&super::progress(1)).unwrap_err().is(&codes::LOG_FULL));
        assert!(log.sync().await.unwrap_err().is(&codes::LOG_FULL));
        assert!(log.room().await.unwrap_err().is(&codes::LOG_FULL));
        assert_eq!(log.last_position(), (durable > 0).then(|| position(durable)));
        if durable > 0 {
            let mut reader = log.read_from(Sequence(1)).await.unwrap();
            let last = log.durable().sequence;
            while reader.next().await.unwrap().0 < last {}
            assert!(reader.next().await.unwrap_err().is(&codes::LOG_FULL), "a reader does not wait for ever");
        }
        drop(log);
        disk.left.store(usize::MAX, Ordering::SeqCst);
        let log = open(folder.path(), &disk).await.unwrap();
        assert_eq!(log.last_position(), (durable > 0).then(|| position(durable)));
        if log.layouts().is_empty() {
            log.append(&layout(1, "a")).unwrap();
        }
        transaction(&log, 1, durable + 1, 3);
        log.sync().await.unwrap();
        assert_eq!(commits(&read_all(&log).await), (1..=durable + 1).map(position).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_pretended() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    disk.left.store(usize::MAX, Ordering::SeqCst);
    let log = open(folder.path(), &disk).await.unwrap();
    log.append(&layout(1, "a")).unwrap();
    transaction(&log, 1, 1, 3);
    log.sync().await.unwrap();
    transaction(&log, 1, 2, 3);
    disk.broken.store(true, Ordering::SeqCst);
    assert!(log.sync().await.unwrap_err().is(&codes::STATE_IO));
    // the disk seems well again: what it forgot is still not durable
    disk.broken.store(false, Ordering::SeqCst);
    assert!(log.sync().await.unwrap_err().is(&codes::STATE_IO));
    assert_eq!(log.last_position(), Some(position(1)));
    drop(log);
    let log = open(folder.path(), &disk).await.unwrap();
    assert_eq!(log.last_position(), Some(position(1)));
    assert_eq!(commits(&read_all(&log).await), [position(1)]);
}

#[tokio::test]
async fn a_full_disk_can_still_be_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    disk.left.store(20_000, Ordering::SeqCst);
    let log = open(folder.path(), &disk).await.unwrap();
    log.append(&layout(1, "a")).unwrap();
    let mut number = 0;
    while log.append(&crate::Record::Begin).is_ok() {
        log.append(&super::commit(number)).ok();
        log.sync().await.ok();
        number += 1;
    }
    let size = log.size();
    log.trim(log.durable().sequence).await.unwrap();
    assert!(log.size() < size);
}

#[tokio::test]
async fn a_segment_that_cannot_be_made_durable_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    disk.left.store(usize::MAX, Ordering::SeqCst);
    disk.broken.store(true, Ordering::SeqCst);
    assert!(open(folder.path(), &disk).await.err().unwrap().is(&codes::STATE_IO));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
    disk.broken.store(false, Ordering::SeqCst);
    assert_eq!(open(folder.path(), &disk).await.unwrap().durable().sequence, Sequence(0));
}
