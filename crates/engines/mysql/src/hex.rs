//! Bytes in hexadecimal: as SQL they mean the same in every session, whatever its character set and its `sql_mode`.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn digits(bytes: &[u8]) -> String {
    bytes.iter().flat_map(pair).map(char::from).collect()
}

/// `x'0a'`
pub(crate) fn literal(bytes: &[u8]) -> String {
    format!("x'{}'", digits(bytes))
}

/// The same, to the end of a text.
pub(crate) fn push_literal(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2 + 3);
    out.extend_from_slice(b"x'");
    out.extend(bytes.iter().flat_map(pair));
    out.push(b'\'');
}

fn pair(byte: &u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_two_digits() {
        assert_eq!(literal(b"\x00\x0fa\xff"), "x'000f61ff'");
        let mut text = b"SELECT ".to_vec();
        push_literal(b"'", &mut text);
        assert_eq!(text, b"SELECT x'27'");
        assert_eq!(digits(b""), "");
    }
}
