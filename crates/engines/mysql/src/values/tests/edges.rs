//! The values at which types end.

use super::*;

fn cases() -> Vec<Case> {
    let mut cases = numbers();
    cases.extend(times());
    cases.extend(texts());
    cases.extend(bytes());
    cases.extend(choices());
    cases
}

fn numbers() -> Vec<Case> {
    let mut cases = vec![case("year", &["0", "1901", "2155", "2000", "NULL"])];
    for (name, bits) in [("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64)] {
        let top = 1_i128 << bits;
        let values = [-top / 2, top / 2 - 1, -1, 0, 1].map(|number| number.to_string());
        cases.push(Case { definition: name.to_owned(), values: [&values[..], &["NULL".to_owned()]].concat() });
        let values = [0, 1, top / 2 - 1, top / 2, top - 1].map(|number| number.to_string());
        cases.push(Case { definition: format!("{name} unsigned"), values: values.to_vec() });
        cases.push(Case { definition: format!("{name}(5) zerofill"), values: values.to_vec() });
    }
    for bits in 1..=64 {
        let values = [0, 1, 1_u64 << (bits - 1), u64::MAX >> (64 - bits)].map(|number| number.to_string());
        cases.push(Case { definition: format!("bit({bits})"), values: values.to_vec() });
    }
    let nines = "99999999999999999999999999999999999.999999999999999999999999999999";
    let lowest = format!("-{nines}");
    cases.extend([
        case(
            "float",
            &["0", "'-0'", "-0e0", "1.1", "0.1", "1e-45", "1.17549435e-38", "3.4028234663852886e38", "-3.4028234663852886e38", "16777217"],
        ),
        case("double", &["0", "'-0'", "0.1", "4.9e-324", "-4.9e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "1e23", "NULL"]),
        case("float(20,10)", &["1.1", "123456.7890625", "0.0000000001", "-99999.9"]),
        case("double(30,20)", &["0.1", "123456.78906251234567", "1e-20", "-999999999.99999999999999999999"]),
        case("float zerofill", &["1.1", "0"]),
        case("decimal(65,30)", &["0", "-0.0", "1e-30", "-1e-30", "12.34", nines, &lowest]),
        case("decimal(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999", "-1", "0"]),
        case("decimal(30,30)", &["0.1", "-0.000000000000000000000000000001", "0.999999999999999999999999999999"]),
        case("decimal(10,2) zerofill", &["1.5", "0", "99999999.99"]),
        case("decimal(9,9)", &["0.123456789", "-0.1"]),
        case("decimal(1,0)", &["9", "-9", "0", "NULL"]),
    ]);
    cases
}

fn times() -> Vec<Case> {
    let mut cases = vec![case("date", &["'0000-00-00'", "'2024-00-00'", "'2024-02-31'", "'9999-12-31'", "'0000-01-01'", "'1000-01-01'", "NULL"])];
    for fraction in 0..=6 {
        let all = ".999999".get(..if fraction == 0 { 0 } else { fraction + 1 }).unwrap();
        let one = if fraction == 0 { String::new() } else { format!(".{:0fraction$}", 1) };
        let quoted = |texts: &[&str]| -> Vec<String> {
            let fractions = |text: &&str| [String::new(), all.to_owned(), one.clone()].map(|parts| format!("'{text}{parts}'"));
            texts.iter().flat_map(fractions).collect()
        };
        let clocks = ["00:00:00", "-00:00:00", "24:00:00", "838:59:59", "-838:59:59", "-00:00:01", "-01:00:00", "100:00:00", "23:59:59"];
        cases.push(Case { definition: format!("time({fraction})"), values: quoted(&clocks) });
        let moments = ["0000-00-00 00:00:00", "2024-02-31 23:59:59", "9999-12-31 23:59:59", "2024-00-00 00:00:00", "1000-01-01 00:00:00"];
        cases.push(Case { definition: format!("datetime({fraction})"), values: quoted(&moments) });
        let mut moments = quoted(&["1970-01-01 00:00:01", "2000-02-29 12:00:00", "2024-12-31 23:59:59", "2038-01-19 03:14:07"]);
        moments.push("'0000-00-00'".to_owned());
        cases.push(Case { definition: format!("timestamp({fraction}) NULL"), values: moments });
    }
    cases
}

const WORDS: &[&str] = &["''", "'a'", "'A'", "'a '", "'a  '", "'it''s \\ ''\"'", "x'610062'", "x'00'", "'\\n'", "'%_'", "'ab\nc'", "NULL"];

fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["char(20)", "char(255)", "varchar(20)", "varchar(300)", "tinytext", "text", "mediumtext", "longtext"] {
        let mut values = WORDS.to_vec();
        values.extend(["'äöü'", "'😀 𐍈'", "'ä '", "'Ä'", "'ß'", "'ss'", "'ﬁ'", "_utf8mb4 x'C4A7CC81'"]);
        for collation in ["utf8mb4_bin", "utf8mb4_general_ci", "utf8mb4_unicode_nopad_ci"] {
            let definition = format!("{kind} CHARACTER SET utf8mb4 COLLATE {collation}");
            cases.push(case(&definition, &values));
        }
        let keyed = if kind.contains("char") { ", KEY (v)" } else { "" };
        cases.push(case(&format!("{kind} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci{keyed}"), &values));
        values.retain(|value| !value.contains('😀'));
        cases.push(case(&format!("{kind} CHARACTER SET utf8mb3"), &values));
        let mut values = WORDS.to_vec();
        cases.push(case(&format!("{kind} CHARACTER SET ascii"), &values));
        values.extend(["x'E4'", "x'81'", "x'8081E4FC'", "x'E420'", "'ä'", "'€'"]);
        cases.push(case(&format!("{kind} CHARACTER SET latin1"), &values));
        for charset in ["ucs2", "utf16", "utf16le", "utf32"] {
            let mut words = vec!["''", "'a'", "'A'", "'a '", "'it''s \\'", "'ä'", "'ж'"];
            if charset != "ucs2" {
                words.push("'😀'");
            }
            cases.push(case(&format!("{kind} CHARACTER SET {charset}"), &words));
        }
    }
    cases.push(case("json", &["'{\"a\": 1 }'", "'[]'", "'\"ä\\u00e4\"'", "NULL"]));
    cases.push(case("longtext", &["repeat('ä''', 100000)", "repeat('a', 3073)", "repeat('a', 3072)", "''"]));
    cases
}

fn bytes() -> Vec<Case> {
    let values = ["x''", "x'00'", "x'61'", "x'6100'", "x'6120'", "x'27'", "x'5C'", "x'FFFE'", "x'610061'", "NULL"];
    let mut cases: Vec<Case> = ["binary(5)", "binary(255)", "varbinary(5)", "varbinary(300)", "tinyblob", "blob", "mediumblob", "longblob"]
        .iter()
        .map(|kind| case(kind, &values))
        .collect();
    cases.push(case("binary(3), KEY (v)", &["x'000000'", "x'616161'", "x'FF0000'"]));
    cases.push(case("longblob", &["repeat(x'FF', 100000)", "repeat(x'00', 70000)"]));
    cases.push(case("uuid", &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"]));
    cases.push(case("uuid", &["'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'018f0000-0000-7000-8000-000000000000'", "NULL"]));
    cases.push(case("inet4", &["'0.0.0.0'", "'255.255.255.255'", "'10.1.2.0'", "NULL"]));
    let addresses = ["'::'", "'::1'", "'::1.2.3.4'", "'::ffff:1.2.3.4'", "'1::'", "'1:0:2:3:4:5:6:7'", "'::1:0:0'", "'1:0:0:2:0:0:0:3'"];
    cases.push(case("inet6", &addresses));
    cases.push(case("inet6", &["'0:1:2:3:4:5:6:7'", "'1:2:3:4:5:6:7:0'", "'::ffff:0:1'", "'0:0:1::'", "'::5:ffff:1.2.3.4'", "NULL"]));
    let shapes = ["ST_GeomFromText('LINESTRING(1 1,2 2)', 4326)", "point(1, -0.5)", "ST_GeomFromText('GEOMETRYCOLLECTION EMPTY')", "NULL"];
    cases.push(case("geometry", &shapes));
    cases.push(case("point", &["point(1, 2)", "ST_GeomFromText('POINT(0 0)', 3857)"]));
    cases
}

fn choices() -> Vec<Case> {
    let members = |count: usize| (1..=count).map(|number| format!("'m{number}'")).collect::<Vec<_>>().join(",");
    let mut cases = vec![
        case("enum('q','it''s','b\\c','ä','nl\nx','x''''y', 'z\0')", &["1", "2", "3", "4", "5", "6", "7", "NULL"]),
        case("enum('a','','b')", &["1", "2", "3", "''"]),
        case("enum('ä','ж') CHARACTER SET utf8mb4", &["1", "2"]),
        case("enum('ä','€') CHARACTER SET latin1", &["1", "2"]),
        case("enum('a','b'), KEY (v)", &["1", "2"]),
        case(&format!("enum({})", members(255)), &["1", "255"]),
        case(&format!("enum({})", members(256)), &["1", "256"]),
        case(&format!("enum({})", members(3000)), &["1", "256", "3000", "NULL"]),
        case("set('a','','b')", &["0", "1", "2", "3", "7", "6", "NULL"]),
        case("set('it''s','b\\c')", &["0", "1", "2", "3"]),
    ];
    for count in [1, 2, 8, 9, 16, 17, 24, 25, 32, 33, 63, 64] {
        let all = u64::MAX >> (64 - count);
        let values = [0, 1, 1 << (count - 1), all].map(|number: u64| number.to_string());
        cases.push(Case { definition: format!("set({}), KEY (v)", members(count)), values: values.to_vec() });
    }
    cases
}

#[tokio::test]
async fn every_type_is_read_alike_both_ways_and_written_as_it_was() {
    let Some(mut conn) = session().await else { return };
    prove(&mut conn, "v_edges", &cases()).await;
    conn.query_drop("DROP DATABASE v_edges").await.unwrap();
}

#[tokio::test]
async fn values_have_the_agreed_forms() {
    let Some(mut conn) = session().await else { return };
    let native = |text: &'static str| Value::Native(Bytes::from_static(text.as_bytes()));
    let expected = [
        ("bigint unsigned", "18446744073709551615", native("18446744073709551615")),
        ("bigint unsigned", "5", Value::Int(5)),
        ("bit(64)", "18446744073709551615", native("18446744073709551615")),
        ("year", "0", Value::Int(0)),
        ("float", "1.1", Value::Float(f64::from(1.1_f32))),
        ("decimal(10,4) zerofill", "12.34", native("12.3400")),
        ("timestamp(3) NULL", "'2001-02-03 04:05:06.789'", native("2001-02-03 04:05:06.789")),
        ("time(2)", "'-838:59:59.9'", native("-838:59:59.90")),
        ("char(9) CHARACTER SET latin1", "x'E48120'", Value::text("ä\u{81}")),
        ("enum('a','b')", "2", Value::text("b")),
        ("set('a','b','c')", "5", Value::text("a,c")),
        ("enum('a','')", "2", Value::text("")),
        ("set('','a')", "1", Value::Int(1)),
        ("binary(3)", "x'61'", Value::Bytes(Bytes::from_static(b"a\0\0"))),
        ("uuid", "'123E4567E89B12D3A456426655440000'", Value::text("123e4567-e89b-12d3-a456-426655440000")),
    ];
    database(&mut conn, "v_forms").await;
    for (index, (definition, sql, value)) in expected.iter().enumerate() {
        let table = format!("v_forms.t{index}");
        conn.query_drop(format!("CREATE TABLE {table} (id int, v {definition})")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {table} VALUES (1, {sql})")).await.unwrap();
        let codec = Codec::of(&type_name(&mut conn, "v_forms", &format!("t{index}")).await).unwrap();
        assert_eq!(selected(&mut conn, &codec, &table).await, [value.clone()], "{definition}");
    }
    conn.query_drop("DROP DATABASE v_forms").await.unwrap();
}
