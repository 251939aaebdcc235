//! Character sets: a column's bytes as UTF-8, and back, exactly as the server converts them.
//!
//! Godwit converts itself, in both ways that values come: the server's own conversion would put a question mark where a
//! column holds bytes that mean nothing, and nobody would see it. Here such bytes are an error. Left out are the Asian
//! sets of several bytes (big5, sjis, gbk and their kin), whose tables differ between servers and versions, and swe7,
//! which is no superset of ASCII.

mod tables;

use std::borrow::Cow;

use godwit_model::{Error, Result, codes};

/// Where what is not ASCII begins.
const HIGH: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Charset {
    Utf8mb4,
    /// Without what is above U+FFFF.
    Utf8mb3,
    Ascii,
    /// What its bytes from 0x80 on mean; 0: nothing.
    SingleByte(&'static [u16; 128]),
    /// Big-endian, without what is above U+FFFF.
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
}

impl Charset {
    pub(crate) fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "utf8mb4" => Charset::Utf8mb4,
            "utf8mb3" | "utf8" => Charset::Utf8mb3,
            "ascii" => Charset::Ascii,
            "ucs2" => Charset::Ucs2,
            "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16le,
            "utf32" => Charset::Utf32,
            _ => match tables::SINGLE_BYTE.iter().find(|(known, _)| *known == name) {
                Some((_, table)) => Charset::SingleByte(table),
                None => return Err(unknown(name)),
            },
        })
    }

    /// None: the bytes are not text of this character set.
    pub(crate) fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Charset::Utf8mb4 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Charset::Utf8mb3 => std::str::from_utf8(bytes).ok().filter(|text| is_basic(text)).map(Cow::Borrowed),
            Charset::Ascii => std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).map(Cow::Borrowed),
            Charset::SingleByte(table) => decode_single(table, bytes),
            Charset::Ucs2 => decode_utf16(bytes, u16::from_be_bytes).filter(|text| is_basic(text)).map(Cow::Owned),
            Charset::Utf16 => decode_utf16(bytes, u16::from_be_bytes).map(Cow::Owned),
            Charset::Utf16le => decode_utf16(bytes, u16::from_le_bytes).map(Cow::Owned),
            Charset::Utf32 => decode_utf32(bytes).map(Cow::Owned),
        }
    }

    /// None: the character set cannot say this text.
    pub(crate) fn encode(self, text: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Charset::Utf8mb4 => Some(Cow::Borrowed(text.as_bytes())),
            Charset::Utf8mb3 => is_basic(text).then_some(Cow::Borrowed(text.as_bytes())),
            Charset::Ascii => text.is_ascii().then_some(Cow::Borrowed(text.as_bytes())),
            Charset::SingleByte(table) => encode_single(table, text),
            Charset::Ucs2 => is_basic(text).then(|| Cow::Owned(text.encode_utf16().flat_map(u16::to_be_bytes).collect())),
            Charset::Utf16 => Some(Cow::Owned(text.encode_utf16().flat_map(u16::to_be_bytes).collect())),
            Charset::Utf16le => Some(Cow::Owned(text.encode_utf16().flat_map(u16::to_le_bytes).collect())),
            Charset::Utf32 => Some(Cow::Owned(text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect())),
        }
    }
}

fn unknown(name: &str) -> Error {
    Error::new(&codes::TYPE_UNSUPPORTED, format!("the character set `{name}` is not one that this version converts exactly"))
        .remedy("change the column to utf8mb4 (`ALTER TABLE ... MODIFY ... CHARACTER SET utf8mb4`), or leave it out")
}

/// Whether nothing is above U+FFFF: no four-byte character.
fn is_basic(text: &str) -> bool {
    text.bytes().all(|byte| byte < 0xF0)
}

fn decode_single<'a>(table: &[u16; 128], bytes: &'a [u8]) -> Option<Cow<'a, str>> {
    if bytes.is_ascii() {
        return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    bytes.iter().map(|byte| decode_byte(table, *byte)).collect::<Option<String>>().map(Cow::Owned)
}

fn decode_byte(table: &[u16; 128], byte: u8) -> Option<char> {
    let Some(high) = byte.checked_sub(HIGH) else { return Some(char::from(byte)) };
    match table.get(usize::from(high)) {
        None | Some(0) => None,
        Some(point) => char::from_u32(u32::from(*point)),
    }
}

fn encode_single<'a>(table: &[u16; 128], text: &'a str) -> Option<Cow<'a, [u8]>> {
    if text.is_ascii() {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    text.chars().map(|c| encode_char(table, c)).collect::<Option<Vec<u8>>>().map(Cow::Owned)
}

fn encode_char(table: &[u16; 128], c: char) -> Option<u8> {
    if c.is_ascii() {
        return u8::try_from(c).ok();
    }
    let place = table.iter().position(|point| u32::from(*point) == u32::from(c))?;
    u8::try_from(place).ok()?.checked_add(HIGH)
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    char::decode_utf16(units.iter().map(|bytes| unit(*bytes))).collect::<Result<String, _>>().ok()
}

fn decode_utf32(bytes: &[u8]) -> Option<String> {
    let (points, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    points.iter().map(|bytes| char::from_u32(u32::from_be_bytes(*bytes))).collect()
}

#[cfg(test)]
pub(crate) fn single_byte_names() -> impl Iterator<Item = &'static str> {
    tables::SINGLE_BYTE.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = (&'static str, Charset)> {
        let others = ["utf8mb4", "utf8mb3", "ascii", "ucs2", "utf16", "utf16le", "utf32"];
        single_byte_names().chain(others).map(|name| (name, Charset::named(name).unwrap()))
    }

    #[test]
    fn what_is_decoded_is_encoded_as_it_was() {
        for (name, charset) in all() {
            for byte in 0..=u8::MAX {
                let bytes = [byte];
                if let Some(text) = charset.decode(&bytes) {
                    assert_eq!(charset.encode(&text).as_deref(), Some(&bytes[..]), "{name} {byte:#x}");
                }
            }
        }
    }

    #[test]
    fn bytes_that_mean_nothing_are_no_text() {
        let decode = |name: &str, bytes: &[u8]| Charset::named(name).unwrap().decode(bytes).map(Cow::into_owned);
        assert_eq!(decode("ascii", b"\x80"), None);
        assert_eq!(decode("cp1251", b"a\x98"), None);
        // one half of a pair, as CESU-8 and as UTF-16
        assert_eq!(decode("utf8mb4", b"\xed\xa0\x80"), None);
        assert_eq!(decode("utf16", b"\xd8\x00"), None);
        assert_eq!(decode("utf8mb3", "😀".as_bytes()), None);
        assert_eq!(decode("ucs2", b"\xd8\x3d\xde\x00"), None);
        assert_eq!(decode("utf16", b"a"), None);
        assert_eq!(decode("utf32", b"\0\0\0"), None);
        assert_eq!(decode("utf32", b"\xff\0\0\0"), None);
        assert!(Charset::named("gbk").unwrap_err().is(&codes::TYPE_UNSUPPORTED));
    }

    #[test]
    fn latin1_is_the_servers_own() {
        let latin1 = Charset::named("latin1").unwrap();
        assert_eq!(latin1.decode(b"\xe4\x80\x81").as_deref(), Some("ä€\u{81}"));
        assert_eq!(latin1.encode("ж"), None);
    }
}
