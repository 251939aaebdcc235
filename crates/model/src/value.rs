//! One value of one column.

use bytes::Bytes;

/// A value as it travels. Text and bytes are slices of shared immutable buffers: cloning copies no data.
///
/// `Null`, `Absent` and `Unsent` are three different things: NULL is a value; an absent column is not in the row image
/// (the source never said); an unsent one exists at the source, was not changed by this update and was not sent
/// (PostgreSQL's unchanged large values). Neither of the last two may ever be written as NULL.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Absent,
    Unsent,
    Int(i64),
    Float(f64),
    /// UTF-8 (checked where it enters).
    Text(Bytes),
    Bytes(Bytes),
    /// An engine's own text encoding, untouched. It means the same on another server of that engine, given the
    /// session settings that the engine's `connect` room fixes; it has no meaning elsewhere.
    Native(Bytes),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Value::Text(Bytes::from(text.into()))
    }

    /// Whether the row image says what the column holds.
    pub fn is_known(&self) -> bool {
        !matches!(self, Value::Absent | Value::Unsent)
    }

    /// Bytes this value holds on to, for memory limits.
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Value>()
            + match self {
                Value::Text(bytes) | Value::Bytes(bytes) | Value::Native(bytes) => bytes.len(),
                _ => 0,
            }
    }

    /// The same value in a buffer of its own: for the few that outlive the many they came with.
    #[must_use]
    pub fn detached(&self) -> Value {
        let copied = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        match self {
            Value::Text(bytes) => Value::Text(copied(bytes)),
            Value::Bytes(bytes) => Value::Bytes(copied(bytes)),
            Value::Native(bytes) => Value::Native(copied(bytes)),
            other => other.clone(),
        }
    }

    /// A total equality for keys: two values that a byte-exact comparison calls the same. Floats by their bits.
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            _ => self == other,
        }
    }
}
