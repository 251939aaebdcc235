//! Column types, out of the text that `Column::type_name` holds: what the server writes in DDL (`int(10) unsigned`,
//! `enum('a','b')`), and behind it, for text, `CHARACTER SET x COLLATE y`.

use godwit_model::{Error, Result, codes};

/// How a column's values are encoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// tinyint to bigint, by their bytes.
    Int {
        bytes: u8,
        unsigned: bool,
    },
    Year,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    Time {
        fraction: u8,
    },
    DateTime {
        fraction: u8,
    },
    Timestamp {
        fraction: u8,
    },
    /// char, varchar and the texts. `fixed`: char.
    Text {
        charset: String,
        collation: String,
        fixed: bool,
    },
    /// binary (of this length), varbinary and the blobs (0), vector.
    Bytes {
        fixed: u16,
    },
    Bit {
        bits: u8,
    },
    Enum {
        members: Vec<String>,
        charset: String,
        collation: String,
    },
    Set {
        members: Vec<String>,
        charset: String,
        collation: String,
    },
    /// MySQL's own type; MariaDB's `json` is a longtext.
    Json,
    Geometry,
    /// MariaDB's, sent as text and logged as bytes.
    Uuid,
    Inet4,
    Inet6,
}

/// How a type is declared, besides what kind it is of.
pub(crate) struct Declared {
    /// In small letters.
    pub(crate) name: String,
    pub(crate) numbers: Vec<u32>,
    pub(crate) unsigned: bool,
}

impl Declared {
    pub(crate) fn of(type_name: &str) -> Self {
        let lower = split_charset(type_name).0.to_ascii_lowercase();
        Declared { name: base(&lower).to_owned(), numbers: arguments(&lower), unsigned: is_unsigned(&lower) }
    }
}

fn base(lower: &str) -> &str {
    lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn is_unsigned(lower: &str) -> bool {
    lower.contains(" unsigned") || lower.contains(" zerofill")
}

const CHARACTER_SET: &str = " CHARACTER SET ";
const COLLATE: &str = " COLLATE ";

impl Kind {
    pub(crate) fn parse(type_name: &str) -> Result<Self> {
        let (declared, charset, collation) = split_charset(type_name);
        let lower = declared.to_ascii_lowercase();
        let name = base(&lower);
        let numbers = || arguments(&lower);
        let first = || numbers().first().copied();
        let unsigned = is_unsigned(&lower);
        let text = |fixed| Kind::Text { charset: charset.clone(), collation: collation.clone(), fixed };
        let int = |bytes| Kind::Int { bytes, unsigned };
        let small = |number: Option<u32>| u8::try_from(number.unwrap_or(0)).unwrap_or(u8::MAX);
        Ok(match name {
            "tinyint" | "bool" | "boolean" => int(1),
            "smallint" => int(2),
            "mediumint" => int(3),
            "int" | "integer" => int(4),
            "bigint" | "serial" => int(8),
            "year" => Kind::Year,
            "float" => Kind::Float,
            "double" | "real" => Kind::Double,
            "decimal" | "numeric" | "dec" | "fixed" => {
                let numbers = numbers();
                Kind::Decimal { precision: small(Some(numbers.first().copied().unwrap_or(10))), scale: small(numbers.get(1).copied()) }
            }
            "date" => Kind::Date,
            "time" => Kind::Time { fraction: small(first()) },
            "datetime" => Kind::DateTime { fraction: small(first()) },
            "timestamp" => Kind::Timestamp { fraction: small(first()) },
            "char" => text(true),
            "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text(false),
            "binary" => Kind::Bytes { fixed: u16::try_from(first().unwrap_or(1)).unwrap_or(u16::MAX) },
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector" => Kind::Bytes { fixed: 0 },
            "bit" => Kind::Bit { bits: small(Some(first().unwrap_or(1))) },
            "enum" => Kind::Enum { members: members(declared), charset, collation },
            "set" => Kind::Set { members: members(declared), charset, collation },
            "json" => Kind::Json,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
            | "geomcollection" => Kind::Geometry,
            "uuid" => Kind::Uuid,
            "inet4" => Kind::Inet4,
            "inet6" => Kind::Inet6,
            _ => {
                return Err(Error::new(&codes::TYPE_UNSUPPORTED, format!("the type `{declared}` is not known to this version"))
                    .remedy("leave the column out"));
            }
        })
    }
}

/// The declared type, its character set and its collation; both empty where there are none.
fn split_charset(type_name: &str) -> (&str, String, String) {
    // members of an enum may hold the words
    let from = type_name.rfind(')').unwrap_or(0);
    let Some(at) = type_name[from..].find(CHARACTER_SET).map(|at| from + at) else { return (type_name, String::new(), String::new()) };
    let rest = &type_name[at + CHARACTER_SET.len()..];
    let (charset, collation) = rest.split_once(COLLATE).unwrap_or((rest, ""));
    (&type_name[..at], charset.trim().to_owned(), collation.trim().to_owned())
}

fn arguments(declared: &str) -> Vec<u32> {
    let Some((_, rest)) = declared.split_once('(') else { return Vec::new() };
    let inside = rest.split(')').next().unwrap_or_default();
    inside.split(',').map_while(|part| part.trim().parse().ok()).collect()
}

/// The quoted texts between the parentheses, in their order.
fn members(declared: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut characters = declared.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '\'' {
            continue;
        }
        let mut member = String::new();
        while let Some(c) = characters.next() {
            if c != '\'' {
                member.push(c);
            } else if characters.peek() == Some(&'\'') {
                characters.next();
                member.push('\'');
            } else {
                break;
            }
        }
        found.push(member);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_the_server_writes_them() {
        let kind = |text| Kind::parse(text).unwrap();
        assert_eq!(kind("int(10) unsigned"), Kind::Int { bytes: 4, unsigned: true });
        assert_eq!(kind("bigint(20)"), Kind::Int { bytes: 8, unsigned: false });
        assert_eq!(kind("decimal(30,4)"), Kind::Decimal { precision: 30, scale: 4 });
        assert_eq!(kind("datetime(6)"), Kind::DateTime { fraction: 6 });
        assert_eq!(kind("binary(16)"), Kind::Bytes { fixed: 16 });
        assert_eq!(
            kind("varchar(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci"),
            Kind::Text { charset: "latin1".into(), collation: "latin1_swedish_ci".into(), fixed: false }
        );
        let Kind::Enum { members, charset, .. } = kind("enum('a','it''s',' CHARACTER SET (') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        else {
            panic!("an enum");
        };
        assert_eq!((members, charset.as_str()), (vec!["a".to_owned(), "it's".into(), " CHARACTER SET (".into()], "utf8mb4"));
        assert!(Kind::parse("hologram(3)").unwrap_err().is(&codes::TYPE_UNSUPPORTED));
    }
}
