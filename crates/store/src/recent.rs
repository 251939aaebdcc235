//! The newest durable blocks in memory, for readers that keep up.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames that were written together, and where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// First sequence of the segment that holds the block.
    pub(crate) segment: u64,
    /// Where the block begins in that segment.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

impl Block {
    fn weight(&self) -> usize {
        self.bytes.len() + std::mem::size_of::<Block>()
    }
}

#[derive(Debug)]
pub(crate) struct Recent {
    blocks: VecDeque<Block>,
    weight: usize,
    limit: usize,
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Recent { blocks: VecDeque::new(), weight: 0, limit }
    }

    pub(crate) fn push(&mut self, block: Block) {
        self.weight += block.weight();
        self.blocks.push_back(block);
        while self.weight > self.limit {
            let Some(oldest) = self.blocks.pop_front() else { return };
            self.weight -= oldest.weight();
        }
    }

    /// The block that holds this record.
    pub(crate) fn find(&self, sequence: u64) -> Option<&Block> {
        let index = self.blocks.partition_point(|block| block.last < sequence);
        self.blocks.get(index).filter(|block| block.first <= sequence)
    }
}
