//! One value of a row image in the binary log.
//!
//! A row image says nothing of itself: the table map before it gives each column's type and, in its metadata, its size;
//! whether an integer is unsigned stands nowhere, and what a length means depends on the type. So a value is read by two
//! descriptions, the log's and the column's own, and both must agree: a row of another shape (the table was altered since,
//! or comes from an older server) is an error, never a guess. So is every byte that no server writes.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use godwit_model::{Error, Result, codes};

use crate::binlog::{DECIMAL_DIGITS, LoggedType, decimal_length, kind, length_width};
use crate::types::Kind;

/// What was read, as far as the bytes alone say it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Logged<'a> {
    Signed(i64),
    /// Also an enum's index, a set's members as bits, a bit field.
    Unsigned(u64),
    Float(f64),
    /// The server's own text of a decimal or of a time.
    Own(String),
    /// An address or a UUID as the server prints it.
    Printed(String),
    /// Text in the column's character set, or bytes; trailing bytes of a fixed length are not there.
    Bytes(&'a [u8]),
}

/// Takes one value, which is not NULL, off the front of `raw`. After an error `raw` stands anywhere.
pub(crate) fn read<'a>(kind: &Kind, logged: LoggedType, raw: &mut &'a [u8]) -> Result<Logged<'a>> {
    Ok(match kind {
        Kind::Int { bytes, unsigned } => {
            expect(logged, &[integer(*bytes)?])?;
            read_integer(take(raw, usize::from(*bytes))?, *unsigned)
        }
        Kind::Year => {
            expect(logged, &[kind::YEAR])?;
            Logged::Signed(year(little(take(raw, 1)?)))
        }
        Kind::Float => {
            expect(logged, &[kind::FLOAT])?;
            Logged::Float(f64::from(f32::from_le_bytes(array(raw)?)))
        }
        Kind::Double => {
            expect(logged, &[kind::DOUBLE])?;
            Logged::Float(f64::from_le_bytes(array(raw)?))
        }
        Kind::Decimal { precision, scale } => {
            expect(logged, &[kind::NEWDECIMAL])?;
            fits(logged.meta.to_le_bytes() == [*precision, *scale])?;
            Logged::Own(read_decimal(*precision, *scale, raw)?)
        }
        Kind::Date => {
            expect(logged, &[kind::DATE, kind::NEWDATE])?;
            Logged::Own(read_date(little(take(raw, 3)?))?)
        }
        Kind::Time { fraction } => Logged::Own(read_time(*fraction, logged, raw)?),
        Kind::DateTime { fraction } => Logged::Own(read_datetime(*fraction, logged, raw)?),
        Kind::Timestamp { fraction } => Logged::Own(read_timestamp(*fraction, logged, raw)?),
        Kind::Bit { bits } => Logged::Unsigned(read_bits(*bits, logged, raw)?),
        Kind::Enum { .. } => {
            expect_string(logged, kind::ENUM)?;
            Logged::Unsigned(read_members(logged, raw)?)
        }
        Kind::Set { .. } => {
            expect_string(logged, kind::SET)?;
            Logged::Unsigned(read_members(logged, raw)?)
        }
        Kind::Text { .. } | Kind::Bytes { .. } => Logged::Bytes(read_string(logged, raw)?),
        Kind::Geometry => {
            expect(logged, &[kind::GEOMETRY])?;
            Logged::Bytes(read_counted(usize::from(logged.meta), raw)?)
        }
        Kind::Uuid => Logged::Printed(uuid(&read_padded(logged, raw)?)),
        Kind::Inet4 => Logged::Printed(Ipv4Addr::from(read_padded::<4>(logged, raw)?).to_string()),
        Kind::Inet6 => Logged::Printed(inet6(&read_padded(logged, raw)?)),
        Kind::Json => return Err(other_type()),
    })
}

fn expect(logged: LoggedType, kinds: &[u8]) -> Result<()> {
    fits(kinds.contains(&logged.kind))
}

fn expect_string(logged: LoggedType, kind: u8) -> Result<()> {
    fits(logged.of_string().0 == kind)
}

fn fits(agrees: bool) -> Result<()> {
    if agrees { Ok(()) } else { Err(other_type()) }
}

fn other_type() -> Error {
    Error::new(&codes::LOG_UNDECODABLE, "a row in the log has a column of another type than its table")
        .remedy("begin the task anew (`clean`): what the log holds was written for another shape of the table")
}

/// Bytes that no server writes.
fn odd(what: &str) -> Error {
    Error::new(&codes::LOG_UNDECODABLE, format!("a row in the log is damaged: {what}"))
}

fn take<'a>(raw: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    raw.split_off(..length).ok_or_else(|| odd("it ends within a value"))
}

fn array<const LENGTH: usize>(raw: &mut &[u8]) -> Result<[u8; LENGTH]> {
    let (bytes, rest) = raw.split_first_chunk().ok_or_else(|| odd("it ends within a value"))?;
    *raw = rest;
    Ok(*bytes)
}

/// Up to eight bytes as a number.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn integer(bytes: u8) -> Result<u8> {
    Ok(match bytes {
        1 => kind::TINY,
        2 => kind::SHORT,
        3 => kind::INT24,
        4 => kind::LONG,
        8 => kind::LONGLONG,
        _ => return Err(Error::internal("an integer of a length that there is not")),
    })
}

fn read_integer(bytes: &[u8], unsigned: bool) -> Logged<'static> {
    let number = little(bytes);
    if unsigned {
        return Logged::Unsigned(number);
    }
    // the sign is the highest bit that was read
    let unused = 64 - 8 * bytes.len();
    Logged::Signed((number << unused).cast_signed() >> unused)
}

fn year(byte: u64) -> i64 {
    if byte == 0 { 0 } else { 1900 + byte.cast_signed() }
}

/// Groups of nine digits in four bytes each, from the point on to both sides; the outermost groups are shorter. The highest
/// bit is turned over, and all bits are where the number is negative.
fn read_decimal(precision: u8, scale: u8, raw: &mut &[u8]) -> Result<String> {
    let scale = usize::from(scale);
    let whole = usize::from(precision).checked_sub(scale).ok_or_else(other_type)?;
    let mut bytes = take(raw, decimal_length(whole) + decimal_length(scale))?.to_vec();
    let first = bytes.first_mut().ok_or_else(other_type)?;
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut rest = &bytes[..];
    let mut digits = String::new();
    push_group(&mut digits, whole % DECIMAL_DIGITS, &mut rest)?;
    for _ in 0..whole / DECIMAL_DIGITS {
        push_group(&mut digits, DECIMAL_DIGITS, &mut rest)?;
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let significant = digits.trim_start_matches('0');
    text.push_str(if significant.is_empty() { "0" } else { significant });
    if scale > 0 {
        text.push('.');
    }
    for _ in 0..scale / DECIMAL_DIGITS {
        push_group(&mut text, DECIMAL_DIGITS, &mut rest)?;
    }
    push_group(&mut text, scale % DECIMAL_DIGITS, &mut rest)?;
    Ok(text)
}

fn push_group(text: &mut String, digits: usize, raw: &mut &[u8]) -> Result<()> {
    if digits == 0 {
        return Ok(());
    }
    let bytes = take(raw, decimal_length(digits))?;
    let start = text.len();
    write!(text, "{:0digits$}", big(bytes)).expect("a string takes everything");
    if text.len() - start > digits {
        return Err(odd("a decimal has a digit above nine"));
    }
    Ok(())
}

/// Five bits of the day, four of the month, the year above.
fn read_date(packed: u64) -> Result<String> {
    date(packed >> 9, packed >> 5 & 15, packed & 31)
}

fn date(year: u64, month: u64, day: u64) -> Result<String> {
    if year > 9999 || month > 12 || day > 31 {
        return Err(odd("a date is none"));
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

fn clock(hour: u64, minute: u64, second: u64) -> Result<String> {
    if minute > 59 || second > 59 {
        return Err(odd("a time is none"));
    }
    Ok(format!("{hour:02}:{minute:02}:{second:02}"))
}

/// The six bits each of minute and second, the hour above.
fn packed_clock(packed: u64) -> Result<String> {
    clock(packed >> 12, packed >> 6 & 63, packed & 63)
}

/// `parts`: the number that these digits, in pairs, were written as; appended with its point.
fn push_fraction(text: &mut String, fraction: u8, parts: u64) -> Result<()> {
    let digits = usize::from(fraction);
    if digits == 0 {
        return Ok(());
    }
    let even = digits.next_multiple_of(2);
    let mut all = format!("{parts:0even$}");
    let surplus = if digits < even { all.pop() } else { None };
    if all.len() != digits || surplus.is_some_and(|digit| digit != '0') {
        return Err(odd("a fraction of a second is none"));
    }
    text.push('.');
    text.push_str(&all);
    Ok(())
}

/// Bytes of a fraction with so many digits.
fn fraction_length(fraction: u8) -> usize {
    usize::from(fraction).div_ceil(2)
}

/// Whether it is the format with a fraction, in this column's size, or the old one, which has none.
fn has_fraction(logged: LoggedType, fraction: u8, new: u8, old: u8) -> Result<bool> {
    if logged.kind == new {
        fits(logged.meta == u16::from(fraction))?;
        return Ok(true);
    }
    fits(logged.kind == old && fraction == 0)?;
    Ok(false)
}

fn read_time(fraction: u8, logged: LoggedType, raw: &mut &[u8]) -> Result<String> {
    if !has_fraction(logged, fraction, kind::TIME2, kind::TIME)? {
        let Logged::Signed(packed) = read_integer(take(raw, 3)?, false) else { return Err(other_type()) };
        let whole = packed.unsigned_abs();
        return signed_time(packed < 0, clock(whole / 10_000, whole / 100 % 100, whole % 100)?);
    }
    // one number, moved up by half of its range: hours to the parts of a second
    let length = 3 + fraction_length(fraction);
    let packed = big(take(raw, length)?).cast_signed() - (1 << (8 * length - 1));
    let whole = packed.unsigned_abs();
    let below = 8 * fraction_length(fraction);
    let mut text = signed_time(packed < 0, packed_clock(whole >> below)?)?;
    push_fraction(&mut text, fraction, whole & ((1 << below) - 1))?;
    Ok(text)
}

fn signed_time(negative: bool, clock: String) -> Result<String> {
    // compared as text: the same number of digits, or a shorter one
    if clock.len() > 9 || clock.len() == 9 && *clock > *"838:59:59" {
        return Err(odd("a time is none"));
    }
    Ok(if negative { format!("-{clock}") } else { clock })
}

fn read_datetime(fraction: u8, logged: LoggedType, raw: &mut &[u8]) -> Result<String> {
    if !has_fraction(logged, fraction, kind::DATETIME2, kind::DATETIME)? {
        // the decimal digits yyyymmddhhmmss
        let packed = little(take(raw, 8)?);
        let (day, time) = (packed / 1_000_000, packed % 1_000_000);
        return moment(date(day / 10_000, day / 100 % 100, day % 100)?, time / 10_000, clock(time / 10_000, time / 100 % 100, time % 100)?);
    }
    let packed = big(take(raw, 5)?).checked_sub(1 << 39).ok_or_else(|| odd("a date is below zero"))?;
    let (days, time) = (packed >> 17, packed & ((1 << 17) - 1));
    let (months, day) = (days >> 5, days & 31);
    let mut text = moment(date(months / 13, months % 13, day)?, time >> 12, packed_clock(time)?)?;
    push_fraction(&mut text, fraction, big(take(raw, fraction_length(fraction))?))?;
    Ok(text)
}

fn moment(date: String, hour: u64, clock: String) -> Result<String> {
    if hour > 23 {
        return Err(odd("a time of day is none"));
    }
    Ok(format!("{date} {clock}"))
}

fn read_timestamp(fraction: u8, logged: LoggedType, raw: &mut &[u8]) -> Result<String> {
    if !has_fraction(logged, fraction, kind::TIMESTAMP2, kind::TIMESTAMP)? {
        return timestamp(little(take(raw, 4)?), 0);
    }
    let seconds = big(take(raw, 4)?);
    let parts = big(take(raw, fraction_length(fraction))?);
    let mut text = timestamp(seconds, parts)?;
    push_fraction(&mut text, fraction, parts)?;
    Ok(text)
}

/// Seconds since 1970 as a date and time of UTC. None and no parts of one: the zero date.
fn timestamp(seconds: u64, parts: u64) -> Result<String> {
    if seconds == 0 && parts == 0 {
        return Ok("0000-00-00 00:00:00".to_owned());
    }
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let clock = clock(time / 3600, time / 60 % 60, time % 60)?;
    Ok(format!("{} {clock}", date(year, month, day)?))
}

/// The Gregorian date so many days after 1970-01-01. Years begin in March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA, days % ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn read_bits(bits: u8, logged: LoggedType, raw: &mut &[u8]) -> Result<u64> {
    expect(logged, &[kind::BIT])?;
    let [single, bytes] = logged.meta.to_le_bytes();
    fits(u16::from(bytes) * 8 + u16::from(single) == u16::from(bits) && bits <= 64)?;
    let value = big(take(raw, usize::from(bits.div_ceil(8)))?);
    if bits < 64 && value >> bits != 0 {
        return Err(odd("a bit field has a bit too many"));
    }
    Ok(value)
}

/// An enum's index, or a set's bits.
fn read_members(logged: LoggedType, raw: &mut &[u8]) -> Result<u64> {
    let (_, length) = logged.of_string();
    fits((1..=8).contains(&length))?;
    Ok(little(take(raw, usize::from(length))?))
}

/// Text or bytes behind their length, the size of which depends on the longest that the column takes.
fn read_string<'a>(logged: LoggedType, raw: &mut &'a [u8]) -> Result<&'a [u8]> {
    match logged.kind {
        kind::VARCHAR | kind::VAR_STRING => read_counted(length_width(logged.meta), raw),
        kind::STRING => {
            let (kind, longest) = logged.of_string();
            fits(kind == kind::STRING)?;
            let value = read_counted(length_width(longest), raw)?;
            if value.len() > usize::from(longest) {
                return Err(odd("a text is longer than its column"));
            }
            Ok(value)
        }
        kind::TINY_BLOB..=kind::BLOB | kind::VECTOR => read_counted(usize::from(logged.meta), raw),
        _ => Err(other_type()),
    }
}

/// `width`: bytes that the length takes.
fn read_counted<'a>(width: usize, raw: &mut &'a [u8]) -> Result<&'a [u8]> {
    fits((1..=4).contains(&width))?;
    let length = usize::try_from(little(take(raw, width)?)).map_err(|_| odd("a length is none"))?;
    take(raw, length)
}

/// Bytes of a fixed number, whose trailing zeros are not written.
fn read_padded<const LENGTH: usize>(logged: LoggedType, raw: &mut &[u8]) -> Result<[u8; LENGTH]> {
    fits(logged.kind == kind::STRING && usize::from(logged.of_string().1) == LENGTH)?;
    let written = read_string(logged, raw)?;
    let mut bytes = [0; LENGTH];
    bytes[..written.len()].copy_from_slice(written);
    Ok(bytes)
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// As MariaDB prints it: the longest run of zeros is left out, the first one of several, also a single one; the last four
/// bytes are an IPv4 address where there is nothing (or only ffff) before them.
fn inet6(bytes: &[u8; 16]) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    let words: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    let gap = longest_zeros(&words);
    if gap == (0..6) || gap == (0..5) && words[5] == 0xFFFF {
        let prefix = if gap.end == 6 { "::" } else { "::ffff:" };
        return format!("{prefix}{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15]);
    }
    if gap.is_empty() {
        return hex_words(&words);
    }
    format!("{}::{}", hex_words(&words[..gap.start]), hex_words(&words[gap.end..]))
}

fn longest_zeros(words: &[u16]) -> std::ops::Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (index, word) in words.iter().enumerate() {
        if *word != 0 {
            start = index + 1;
        } else if index + 1 - start > longest.len() {
            longest = start..index + 1;
        }
    }
    longest
}

fn hex_words(words: &[u16]) -> String {
    words.iter().map(|word| format!("{word:x}")).collect::<Vec<_>>().join(":")
}
