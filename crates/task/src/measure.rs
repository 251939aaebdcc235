//! Sizes and durations as people write them: a number and its unit.
//!
//! A bare number is refused, because a person and a program would each guess another unit.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// In milliseconds. A month or a year has no fixed length.
const AGE_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size(pub u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Age(pub Duration);

impl Size {
    /// The error is a sentence for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        measure(text, SIZE_UNITS, "a size", "50GiB or 100MB").map(Size)
    }
}

impl Age {
    /// The error is a sentence for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        measure(text, AGE_UNITS, "a duration", "30s, 5min or 1h").map(|millis| Age(Duration::from_millis(millis)))
    }
}

fn measure(text: &str, units: &[(&str, u64)], noun: &str, example: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    if number.is_empty() {
        return Err(format!("{noun} is a whole number and its unit, such as {example}"));
    }
    if unit.is_empty() {
        return Err(format!("{noun} needs its unit, such as {example}"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let known = units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(format!("`{unit}` is not a unit of {noun}; the units are {known}"));
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    number.filter(|number| *number <= i64::MAX as u64).ok_or_else(|| format!("{noun} of that length does not exist"))
}

/// The largest unit that divides it, so that a default reads as it was written.
fn shown(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().rev().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&units[0]);
    format!("{}{name}", number / factor)
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(self.0, SIZE_UNITS))
    }
}

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        f.write_str(&shown(millis, AGE_UNITS))
    }
}

macro_rules! written_as_text {
    ($name:ident, $title:literal, $format:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $name::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": "^\\s*[0-9]+\\s*[A-Za-z]+\\s*$" })
            }
        }
    };
}

written_as_text!(Size, "Size", "size");
written_as_text!(Age, "Age", "duration");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_known() {
        assert_eq!(Size::parse("50GiB"), Ok(Size(50 << 30)));
        assert_eq!(Size::parse("100 MB"), Ok(Size(100_000_000)));
        assert!(Size::parse("100").unwrap_err().contains("needs its unit"));
        assert!(Size::parse("100mb").unwrap_err().contains("MB"));
        assert!(Size::parse("1.5GiB").is_err());
        assert!(Size::parse("99999999999999999999GiB").is_err());
        assert!(Size::parse("9999999999TiB").is_err());
        assert_eq!(Age::parse("5min"), Ok(Age(Duration::from_secs(300))));
        assert!(Age::parse("5m").unwrap_err().contains("min"));
        assert!(Age::parse("").is_err());
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1000, 1024, 256 << 20, 100 << 30, 12_345_678] {
            assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
        }
        assert_eq!(Size(256 << 20).to_string(), "256MiB");
        assert_eq!(Age(Duration::from_secs(1800)).to_string(), "30min");
    }
}
