//! What MariaDB writes with `log_bin_compress`: one byte (0x80, the method in bits 4 to 6, the length's width in the lowest
//! three), the plain length, highest byte first, and a zlib stream.

use std::io::Read;

use flate2::read::ZlibDecoder;
use godwit_model::{Error, Result, codes};

use super::reader::Reader;
use super::undecodable;

/// The largest event that a server writes: `max_allowed_packet` cannot be more.
const LARGEST: u64 = 1 << 30;
/// What is believed of a stated length before its bytes are there.
const BELIEVED: u64 = 1 << 20;

pub(super) fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(packed);
    let head = reader.u8()?;
    let width = usize::from(head & 7);
    if head & 0xF0 != 0x80 || !(1..=4).contains(&width) {
        return Err(undecodable("the source's log holds an event that is compressed in a way that is not known"));
    }
    let length = reader.bytes(width)?.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    if length > LARGEST {
        return Err(Error::new(&codes::VALUE_TOO_LARGE, format!("the source's log holds a compressed event of {length} bytes")));
    }
    let mut plain = Vec::with_capacity(usize::try_from(length.min(BELIEVED)).unwrap_or(0));
    // one more than there may be, so that a surplus shows
    let read = ZlibDecoder::new(reader.rest()).take(length + 1).read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() as u64 == length => Ok(plain),
        Ok(_) => Err(undecodable("the source's log holds a compressed event that is not as long as it says")),
        Err(problem) => Err(undecodable("the source's log holds a compressed event that cannot be read").caused_by(problem)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_that_is_not_true_is_refused() {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"abcabcabc").unwrap();
        let zlib = zlib.finish().unwrap();
        let packed = |length: u8| [&[0x81, length], &zlib[..]].concat();
        assert_eq!(decompress(&packed(9)).unwrap(), b"abcabcabc");
        for wrong in [0, 8, 10, 255] {
            assert!(decompress(&packed(wrong)).unwrap_err().is(&codes::LOG_UNDECODABLE), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decompressed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decompress(&bytes);
        }
    }
}
