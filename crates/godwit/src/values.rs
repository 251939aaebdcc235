//! Values, sizes and times as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use godwit_model::Value;

/// What a terminal line holds of one value.
const WIDEST: usize = 60;

/// A key for a person's terminal; no control code passes.
pub fn key(key: &[Value]) -> String {
    key.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "NULL".to_owned(),
        Value::Absent => "(absent)".to_owned(),
        Value::Unsent => "(unsent)".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
        Value::Native(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Bytes(bytes) => bytes.iter().take(WIDEST).fold("0x".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    };
    printable(&text, WIDEST)
}

/// At most `widest` characters, none of them a control code.
pub fn printable(text: &str, widest: usize) -> String {
    let mut shown: String = text.chars().take(widest).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(widest).is_some() {
        shown.push('…');
    }
    shown
}

/// `1 234 567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `3 rows`, `1 row`.
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `250 ms`, `3.2 s`, `4 min 05 s`, `2 h 10 min`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1234567), "1 234 567");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(time(Duration::from_millis(80)), "80 ms");
        assert_eq!(time(Duration::from_secs(245)), "4 min 05 s");
        assert_eq!(time(Duration::from_secs(7800)), "2 h 10 min");
    }

    #[test]
    fn no_control_code_of_a_key_reaches_the_terminal() {
        let shown = key(&[Value::text("a\x1b[31mb"), Value::Int(4), Value::Bytes(vec![0xab, 0].into())]);
        assert_eq!(shown, "'a\u{fffd}[31mb', 4, 0xab00");
    }
}
