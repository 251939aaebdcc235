//! A stand-in for the room of values, of the same signatures: whole numbers and UTF-8 text of row images.

use bytes::Bytes;
use godwit_model::{Error, Result, Value, codes};

use crate::types::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedType {
    pub(crate) kind: u8,
    /// The metadata bytes in their order, the first one lowest.
    pub(crate) meta: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Codec {
    kind: Kind,
}

impl Codec {
    pub(crate) fn of(type_name: &str) -> Result<Codec> {
        Ok(Codec { kind: Kind::parse(type_name)? })
    }

    pub(crate) fn from_log(&self, logged: LoggedType, raw: &mut &[u8]) -> Result<Value> {
        let mut take = |count: usize| -> Result<&[u8]> {
            let (taken, rest) = raw.split_at_checked(count).ok_or_else(|| Error::internal("short"))?;
            *raw = rest;
            Ok(taken)
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        match &self.kind {
            Kind::Int { bytes, unsigned } => {
                let value = number(take(usize::from(*bytes))?);
                let shift = 64 - u32::from(*bytes) * 8;
                Ok(Value::Int(if *unsigned { value as i64 } else { ((value << shift) as i64) >> shift }))
            }
            Kind::Text { .. } => {
                let width = match logged.kind {
                    252 => usize::from(logged.meta),
                    _ => 1 + usize::from(logged.meta > 255),
                };
                let length = number(take(width)?) as usize;
                Ok(Value::Text(Bytes::copy_from_slice(take(length)?)))
            }
            _ => {
                // the others are as they are, for tests that only count
                let all = Bytes::copy_from_slice(raw);
                *raw = &[];
                if all.is_empty() { Err(Error::new(&codes::LOG_UNDECODABLE, "short")) } else { Ok(Value::Bytes(all)) }
            }
        }
    }
}
