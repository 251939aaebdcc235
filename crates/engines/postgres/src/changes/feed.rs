//! The stream: opened from a position, read message by message.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{Captured, ChangeStream, EndpointConfig, Position, Result, Table, Task};
use tokio::time::Instant;

use super::assemble::{Assembler, Step};
use super::awaited::Awaited;
use super::hurry::Hurry;
use super::relations::Relations;
use super::sight::{Sight, Subject};
use super::slot;
use super::unseen::until_seen;
use crate::position::Place;
use crate::replication::{Limits, Pump, Received, Replication};
use crate::{connect, establish, names, quote};

/// The stream's share of the task's memory, within bounds that still give throughput and never the most of it.
const QUEUE_SHARE: u64 = 8;
const LEAST_QUEUE: u64 = 1 << 20;
const MOST_QUEUE: u64 = 64 << 20;
/// One row's share of it.
const ROW_SHARE: u64 = 4;
/// Decoded bytes, in kB, from which on the server streams a transaction under way. By its own setting, 64 MB by default,
/// most of a large transaction is decoded before its first row arrives, and nobody has anything to do meanwhile.
const STREAMED_FROM: u32 = 8 << 10;
/// Where the server never gives up a silent reader.
const NO_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct ChangeFeed {
    endpoint: EndpointConfig,
    tables: Vec<Arc<Table>>,
    pump: Pump,
    /// Arrived, not yet assembled; the share of the queue is given back when the packet is used up.
    packet: Option<Received>,
    assembler: Assembler,
    awaited: Arc<Awaited>,
    hurry: Hurry,
    sight: Sight,
}

impl ChangeFeed {
    pub(crate) async fn open(task: &Task, from: &Position, tables: &[Arc<Table>], awaited: &Arc<Awaited>) -> Result<Self> {
        let place = Place::parse(from)?;
        let name = names::of_task(&task.name);
        let session = connect::sql(&task.source, "godwit capture").await?;
        establish::no_standby_of_ours(&session, &name).await?;
        slot::not_in_recovery(&session).await?;
        let mut replication = Replication::open(&task.source, &name).await?;
        let identity = slot::same_server(&mut replication, &place).await?;
        slot::take_over(&session, &name, session.major(), place.lsn).await?;
        // After the slot: where all was removed, the position is what was lost.
        let subject = Subject { endpoint: task.source.clone(), writes: task.writes, publication: name.clone(), tables: tables.to_vec() };
        subject.look(&session).await?;
        let relations = Relations::read(&session, tables).await?;
        let silence = sender_timeout(&mut replication).await?;
        stream_early(&mut replication).await?;
        let memory = task.limits.memory.0;
        let limits = Limits {
            queue_bytes: size(memory / QUEUE_SHARE).clamp(size(LEAST_QUEUE), size(MOST_QUEUE)),
            row_bytes: size((memory / ROW_SHARE).max(LEAST_QUEUE)),
            silence,
        };
        let command = start_command(&name, &place, replication.major());
        let pump = Pump::start(replication, &command, place.lsn, limits).await?;
        let assembler = Assembler::new(place.lsn, identity.log, relations, &task.name, awaited.clone());
        let (endpoint, tables) = (task.source.clone(), tables.to_vec());
        let (awaited, hurry) = (awaited.clone(), Hurry::new(endpoint.clone(), name));
        Ok(ChangeFeed { endpoint, tables, pump, packet: None, assembler, awaited, hurry, sight: Sight::watch(subject, session) })
    }

    /// Uses up the packet, up to the first item that can be given out.
    async fn assemble(&mut self) -> Result<()> {
        while let Some(message) = self.packet.as_mut().and_then(|packet| packet.messages.front()) {
            if let Step::UnknownRelation(unseen) = self.assembler.push(message, Instant::now())? {
                // The message stays where it is, so that nothing is lost if this is dropped while it waits.
                let session = connect::sql(&self.endpoint, "godwit capture").await?;
                if let Some(unseen) = unseen {
                    until_seen(&session, unseen).await?;
                }
                let relations = Relations::read(&session, &self.tables).await?;
                self.assembler.learn(relations);
                continue;
            }
            if let Some(packet) = &mut self.packet {
                packet.messages.pop_front();
            }
            if self.assembler.has_items() {
                return Ok(());
            }
        }
        self.packet = None;
        Ok(())
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn start_command(name: &str, from: &Place, major: u32) -> String {
    let (version, origin) = match major {
        16.. => (4, ", origin 'any'"),
        15 => (3, ""),
        _ => (2, ""),
    };
    let (slot, publication) = (quote::identifier(name), quote::identifier(name));
    format!(
        "START_REPLICATION SLOT {slot} LOGICAL {} (proto_version '{version}', publication_names '{publication}', messages 'true', \
         streaming 'on'{origin})",
        from.lsn
    )
}

async fn sender_timeout(replication: &mut Replication) -> Result<Duration> {
    let rows = replication.query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'").await?;
    let setting = rows.first().and_then(|row| row.first()?.as_deref()?.parse::<u64>().ok());
    Ok(setting.filter(|millis| *millis > 0).map_or(NO_TIMEOUT, Duration::from_millis))
}

/// Lowers this session's setting; one that is lower already stays.
async fn stream_early(replication: &mut Replication) -> Result<()> {
    let sql = format!(
        "SELECT pg_catalog.set_config(name, '{STREAMED_FROM}', false) FROM pg_catalog.pg_settings \
         WHERE name = 'logical_decoding_work_mem' AND setting::pg_catalog.int8 > {STREAMED_FROM}"
    );
    replication.query(&sql).await.map(drop)
}

#[async_trait]
impl ChangeStream for ChangeFeed {
    async fn next(&mut self) -> Result<Captured> {
        loop {
            if let Some(item) = self.assembler.take() {
                return Ok(item);
            }
            if self.packet.is_none() {
                self.assembler.settle();
                if self.assembler.has_items() {
                    continue;
                }
                tokio::select! {
                    packet = self.pump.next() => self.packet = Some(packet?),
                    () = self.awaited.news() => continue,
                    () = self.hurry.due(&self.awaited) => self.hurry.begin(),
                    error = self.sight.lost() => return Err(error),
                }
            }
            self.assemble().await?;
        }
    }

    async fn confirm(&mut self, position: &Position) -> Result<()> {
        self.pump.confirm(Place::parse(position)?.lsn);
        Ok(())
    }
}
