//! Stand-in until the room `values` is there: enough of it for what is tested here.

use bytes::Bytes;
use godwit_model::{Error, Result, Value};

use crate::types::Kind;

pub(crate) struct Codec {
    kind: Kind,
}

impl Codec {
    pub(crate) fn of(type_name: &str) -> Result<Codec> {
        Ok(Codec { kind: Kind::parse(type_name)? })
    }

    pub(crate) fn selected(&self, quoted_column: &str) -> String {
        match self.kind {
            Kind::Float => format!("CAST({quoted_column} AS DOUBLE)"),
            Kind::Bit { .. } => format!("{quoted_column}+0"),
            _ => quoted_column.to_owned(),
        }
    }

    pub(crate) fn from_select(&self, bytes: Option<&[u8]>) -> Result<Value> {
        let Some(bytes) = bytes else { return Ok(Value::Null) };
        let text = || std::str::from_utf8(bytes).map_err(|_| Error::internal("a number that is no text"));
        Ok(match self.kind {
            Kind::Int { .. } | Kind::Year | Kind::Bit { .. } => match text()?.parse() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Native(Bytes::copy_from_slice(bytes)),
            },
            Kind::Float | Kind::Double => Value::Float(text()?.parse().map_err(|_| Error::internal("no number"))?),
            Kind::Text { .. } | Kind::Enum { .. } | Kind::Set { .. } | Kind::Json | Kind::Uuid | Kind::Inet4 | Kind::Inet6 => {
                Value::Text(Bytes::copy_from_slice(bytes))
            }
            Kind::Bytes { .. } | Kind::Geometry => Value::Bytes(Bytes::copy_from_slice(bytes)),
            _ => Value::Native(Bytes::copy_from_slice(bytes)),
        })
    }

    pub(crate) fn literal(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let quoted = |bytes: &[u8], out: &mut Vec<u8>| {
            out.push(b'\'');
            out.extend(bytes.iter().flat_map(|byte| if *byte == b'\'' { vec![b'\'', b'\''] } else { vec![*byte] }));
            out.push(b'\'');
        };
        match value {
            Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Float(number) => out.extend_from_slice(format!("{number:e}").as_bytes()),
            Value::Text(bytes) => quoted(bytes, out),
            Value::Native(bytes) if matches!(self.kind, Kind::Int { .. } | Kind::Decimal { .. }) => out.extend_from_slice(bytes),
            Value::Native(bytes) => quoted(bytes, out),
            Value::Bytes(bytes) => {
                out.extend_from_slice(b"x'");
                out.extend(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
                out.push(b'\'');
            }
            _ => out.extend_from_slice(b"NULL"),
        }
        Ok(())
    }
}
