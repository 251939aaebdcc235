//! What is refused because it would not be exact.

use super::*;
use crate::charset::Charset;

fn refusal(type_name: &str, value: &Value) -> Option<&'static godwit_model::Code> {
    Codec::of(type_name).unwrap().literal(value, &mut Vec::new()).err().map(|error| error.code())
}

fn native(text: &'static str) -> Value {
    Value::Native(Bytes::from_static(text.as_bytes()))
}

#[test]
fn what_the_server_would_change_without_a_word_is_not_written() {
    let refused = [
        ("decimal(5,2)", native("1.234")),
        ("int", native("1.5")),
        ("int", native("1e3")),
        ("int", native("1 OR 1")),
        ("int", native("")),
        ("int", Value::text("1")),
        ("float", Value::Float(0.1)),
        ("double", Value::Float(f64::NAN)),
        ("double", Value::Float(f64::INFINITY)),
        ("time(2)", native("10:00:00.123")),
        ("datetime", native("2024-01-01 00:00:00') --")),
        ("char(5) CHARACTER SET utf8mb4", Value::text("a ")),
        ("varchar(3) CHARACTER SET utf8mb4", Value::text("äöü ")),
        ("varchar(3) CHARACTER SET utf8mb4", Value::Bytes(Bytes::from_static(b"a"))),
        ("varchar(3) CHARACTER SET utf8mb4", Value::Text(Bytes::from_static(b"\xff"))),
        ("binary(3)", Value::Bytes(Bytes::from_static(b"a"))),
        ("enum('a','b')", Value::text("A")),
        ("enum('a','b')", Value::text("")),
        ("enum('a','b')", Value::Int(3)),
        ("set('a','b')", Value::text("a,c")),
        ("set('a','b')", Value::Int(4)),
    ];
    for (type_name, value) in refused {
        assert_eq!(refusal(type_name, &value), Some(&codes::VALUE_REFUSED), "{type_name} {value:?}");
    }
    assert_eq!(refusal("int", &Value::Unsent), Some(&codes::INTERNAL));
    assert_eq!(refusal("enum('a')", &Value::Absent), Some(&codes::INTERNAL));
    let taken = [
        ("varchar(4) CHARACTER SET utf8mb4", Value::text("äöü ")),
        ("decimal(5,2)", native("1.2")),
        ("decimal(5,2)", Value::Int(3)),
        ("enum('a','')", Value::text("")),
        ("enum('a')", Value::Null),
    ];
    for (type_name, value) in taken {
        assert_eq!(refusal(type_name, &value), None, "{type_name} {value:?}");
    }
}

#[test]
fn types_that_cannot_be_carried_exactly_are_refused_at_once() {
    for name in [
        "json",
        "varchar(100) /*M!100301 COMPRESSED*/ CHARACTER SET latin1 COLLATE latin1_swedish_ci",
        "text /*M!100301 COMPRESSED*/ CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "time(3) /* mariadb-5.3 */",
        "varchar(9) CHARACTER SET gbk COLLATE gbk_bin",
        "varchar(9)",
    ] {
        assert!(Codec::of(name).unwrap_err().is(&codes::TYPE_UNSUPPORTED), "{name}");
    }
    assert!(Codec::of("time /* mariadb-5.3 */").is_ok());
    assert!(Codec::of("enum('COMPRESSED')").is_ok());
}

#[test]
fn a_column_of_another_shape_is_not_guessed() {
    let log = |type_name: &str, kind: u8, metadata: &[u8]| {
        let mut raw = &[1_u8; 40][..];
        Codec::of(type_name).unwrap().from_log(LoggedType::new(kind, metadata), &mut raw)
    };
    for (type_name, kind, metadata) in [
        ("int", 8, &[][..]),
        ("bigint", 3, &[]),
        ("decimal(10,2)", 246, &[10, 3]),
        ("time(3)", 19, &[2]),
        ("datetime(3)", 12, &[]),
        ("bit(9)", 16, &[0, 1]),
        ("enum('a')", 254, &[0xF8, 1]),
        ("set('a')", 254, &[0xFE, 1]),
        ("char(9) CHARACTER SET ascii", 254, &[0xF7, 9]),
        ("blob", 140, &[2]),
        ("varchar(9) CHARACTER SET ascii", 141, &[9, 0]),
        ("uuid", 254, &[0xFE, 15]),
    ] {
        assert!(log(type_name, kind, metadata).unwrap_err().is(&codes::LOG_UNDECODABLE), "{type_name}");
    }
    assert_eq!(log("int", 3, &[]).unwrap(), Value::Int(0x0101_0101));
}

#[tokio::test]
async fn the_error_value_of_an_enum_is_read_and_found_but_not_written() {
    let Some(mut conn) = session().await else { return };
    database(&mut conn, "v_zero").await;
    for (table, definition, expected) in [("s0", "enum('a','b')", Value::text("")), ("s1", "enum('a','')", Value::Int(0))] {
        conn.query_drop(format!("CREATE TABLE v_zero.{table} (id int, v {definition})")).await.unwrap();
        let codec = Codec::of(&type_name(&mut conn, "v_zero", table).await).unwrap();
        let from = log::position(&mut conn).await;
        conn.query_drop(format!("INSERT IGNORE INTO v_zero.{table} VALUES (0, 0), (1, 2), (2, NULL)")).await.unwrap();
        let values = selected(&mut conn, &codec, &format!("v_zero.{table}")).await;
        assert_eq!(values[0], expected);
        let pair = [codec.clone(), codec.clone()];
        let logged = log::read(lab().unwrap(), from, "v_zero", &pair).await;
        assert_eq!(logged[usize::from(table == "s1")], values);
        assert_eq!(found(&mut conn, &codec, &expected, &format!("v_zero.{table}")).await, [0]);
        assert!(codec.literal(&expected, &mut Vec::new()).unwrap_err().is(&codes::VALUE_REFUSED));
    }
    conn.query_drop("DROP DATABASE v_zero").await.unwrap();
}

/// Servers take one half of a UTF-16 pair for text, and their conversions put question marks for what they do not know.
#[tokio::test]
async fn bytes_that_are_no_text_are_an_error_and_never_a_question_mark() {
    let Some(mut conn) = session().await else { return };
    database(&mut conn, "v_none").await;
    for (index, (charset, bytes)) in [("utf8mb4", "EDA080"), ("utf8mb3", "EDA080"), ("cp1251", "98"), ("tis620", "DB")].iter().enumerate() {
        let table = format!("v_none.s{index}");
        conn.query_drop(format!("CREATE TABLE {table} (v varchar(9) CHARACTER SET {charset})")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {table} VALUES (x'{bytes}')")).await.unwrap();
        let codec = Codec::of(&type_name(&mut conn, "v_none", &format!("s{index}")).await).unwrap();
        let cell: Vec<u8> = conn.query_first(format!("SELECT {} FROM {table}", codec.selected("v"))).await.unwrap().unwrap();
        assert!(codec.from_select(Some(&cell)).unwrap_err().is(&codes::LOG_UNDECODABLE), "{charset}");
        // and a question mark is not found where they are
        let mut sql = format!("SELECT count(*) FROM {table} WHERE ").into_bytes();
        codec.equals("v", &Value::text("?"), &mut sql).unwrap();
        assert_eq!(conn.query_first(sql).await.unwrap(), Some(0));
    }
    conn.query_drop("DROP DATABASE v_none").await.unwrap();
}

#[tokio::test]
async fn the_server_still_says_of_every_byte_what_the_tables_say() {
    let Some(mut conn) = session().await else { return };
    for name in crate::charset::single_byte_names() {
        let charset = Charset::named(name).unwrap();
        for byte in 0x80..=u8::MAX {
            let sql = format!(
                "SELECT hex(CONVERT(CONVERT(x'{byte:02x}' USING {name}) USING utf32)), \
                 hex(CONVERT(CONVERT(CONVERT(x'{byte:02x}' USING {name}) USING utf32) USING {name}))"
            );
            let (point, back): (String, String) = conn.query_first(sql).await.unwrap().unwrap();
            let point = u32::from_str_radix(&point, 16).unwrap();
            let known = point != 0xFFFD && back == format!("{byte:02X}");
            let expected = known.then(|| char::from_u32(point).unwrap().to_string());
            assert_eq!(charset.decode(&[byte]).map(Cow::into_owned), expected, "{name} {byte:#x}");
        }
    }
}

/// Conditions find a key by its index: else every change would read its whole table.
#[tokio::test]
async fn conditions_use_the_index_of_their_column() {
    let Some(mut conn) = session().await else { return };
    database(&mut conn, "v_index").await;
    let columns = [
        ("int", Value::Int(5)),
        ("bigint unsigned", native("18446744073709551615")),
        ("year", Value::Int(2000)),
        ("double", Value::Float(1.5)),
        ("float", Value::Float(f64::from(1.1_f32))),
        ("decimal(20,3)", native("1.500")),
        ("date", native("2024-02-03")),
        ("time(3)", native("10:00:00.123")),
        ("datetime(6)", native("2024-02-03 10:00:00.123456")),
        ("timestamp NULL", native("2024-02-03 10:00:00")),
        ("char(20) CHARACTER SET latin1", Value::text("ä")),
        ("varchar(20) CHARACTER SET utf8mb3 COLLATE utf8mb3_unicode_ci", Value::text("ä'")),
        ("varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", Value::text("ä 😀")),
        ("varchar(20) CHARACTER SET utf16", Value::text("ä 😀")),
        ("varchar(20) CHARACTER SET koi8r", Value::text("ж")),
        ("binary(3)", Value::Bytes(Bytes::from_static(b"a\0b"))),
        ("varbinary(9)", Value::Bytes(Bytes::from_static(b"a\0b"))),
        ("bit(9)", Value::Int(300)),
        ("enum('a','b')", Value::text("b")),
        ("set('a','b')", Value::text("a,b")),
        ("uuid", Value::text("123e4567-e89b-12d3-a456-426655440000")),
        ("inet6", Value::text("::1")),
    ];
    for (index, (definition, value)) in columns.iter().enumerate() {
        let table = format!("v_index.s{index}");
        conn.query_drop(format!("CREATE TABLE {table} (id int PRIMARY KEY, v {definition}, w varchar(200), KEY (v))")).await.unwrap();
        let codec = Codec::of(&type_name(&mut conn, "v_index", &format!("s{index}")).await).unwrap();
        let literal = String::from_utf8(written(&codec, value)).unwrap();
        conn.query_drop(format!("INSERT INTO {table} SELECT seq, if(seq = 9, {literal}, NULL), '' FROM v_index.seq_1_to_500")).await.unwrap();
        let mut sql = format!("EXPLAIN SELECT w FROM {table} WHERE ").into_bytes();
        codec.equals("v", value, &mut sql).unwrap();
        let plan: Row = conn.query_first(sql).await.unwrap().unwrap();
        assert_eq!(plan.get::<Option<String>, _>("key").unwrap().as_deref(), Some("v"), "{definition} {plan:?}");
        assert_eq!(found(&mut conn, &codec, value, &table).await, [9]);
    }
    conn.query_drop("DROP DATABASE v_index").await.unwrap();
}
