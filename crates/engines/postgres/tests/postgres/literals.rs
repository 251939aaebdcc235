//! Arbitrary values of every type, as SQL expressions that are free of the session's settings.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;

/// A column's type, and what it may be given; NULL now and then.
pub struct Column {
    pub name: String,
    pub type_name: &'static str,
    pub values: BoxedStrategy<String>,
}

/// Types of users' own that `columns` speaks of.
pub const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'a "quoted", one', '', 'ünï');
CREATE TYPE pair AS (x int, y text);
CREATE TYPE outer_pair AS (p pair, m mood[], at timestamp);
CREATE DOMAIN short AS varchar(5) CHECK (value <> 'no');
CREATE DOMAIN shorts AS short[];
CREATE TYPE span AS RANGE (subtype = float8);
"#;

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn cast(values: impl Strategy<Value = String> + 'static, type_name: &'static str) -> BoxedStrategy<String> {
    values.prop_map(move |text| format!("{}::{type_name}", quoted(&text))).boxed()
}

fn one_of(words: &'static [&'static str]) -> BoxedStrategy<String> {
    Union::new(words.iter().map(|word| Just((*word).to_owned()))).boxed()
}

fn text() -> BoxedStrategy<String> {
    let odd = one_of(&[
        "",
        "NULL",
        "null",
        "\\N",
        "\\.",
        "a\tb",
        "a\nb\r",
        " x ",
        "{}",
        "{a,\"b\"}",
        "(,)",
        "\\\\",
        "'",
        "\"",
        "é",
        "e\u{301}",
        "\u{1F426}\u{10FFFF}",
    ]);
    let any = any::<String>().prop_map(|text| text.replace('\0', ""));
    prop_oneof![any, odd, "[a-zA-Z'\"\\\\{},() \t\n😀]{0,30}", long(3000, b"abcdefghij 'xyz")].boxed()
}

/// Drawn from a seed: a strategy for every character would take longer than the servers do.
fn long(length: usize, from: &'static [u8]) -> BoxedStrategy<String> {
    let draw = move |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| char::from(from[random.usize(..from.len())])).collect()
    };
    any::<u64>().prop_map(draw).boxed()
}

fn short_text(most: usize) -> BoxedStrategy<String> {
    text().prop_map(move |text| text.chars().take(most).collect()).boxed()
}

fn integer() -> BoxedStrategy<String> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -2..3_i64].prop_map(|number| number.to_string()).boxed()
}

fn numeric() -> BoxedStrategy<String> {
    let digits = b"0123456789";
    let long = (long(600, digits), long(400, digits)).prop_map(|(whole, part)| format!("-1{whole}.{part}"));
    let plain = ("[0-9]{1,20}", "[0-9]{0,20}").prop_map(|(whole, part)| format!("{whole}.{part}"));
    let odd = one_of(&["NaN", "Infinity", "-Infinity", "0.000", "-0", "1e-900", "1e900", "12345678901234567890.10", "0.1000"]);
    prop_oneof![plain, odd, long].boxed()
}

fn double() -> BoxedStrategy<String> {
    let odd = one_of(&["NaN", "Infinity", "-Infinity", "-0", "0", "5e-324", "1.7976931348623157e308", "0.1", "9007199254740993"]);
    prop_oneof![any::<f64>().prop_map(|number| format!("{number:e}")), odd].boxed()
}

fn single() -> BoxedStrategy<String> {
    let odd = one_of(&["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1", "16777217"]);
    prop_oneof![any::<f32>().prop_map(|number| format!("{number:e}")), odd].boxed()
}

fn date() -> BoxedStrategy<String> {
    let around = prop_oneof![-2_451_500..=100_000_000_i32, -800_000..20_000_i32, Just(-730_120), Just(-730_119), -366..=366_i32];
    let days = around.prop_map(|days| format!("'2000-01-01'::date + {days}"));
    prop_oneof![9 => days, 1 => one_of(&["'infinity'::date", "'-infinity'::date", "'0044-03-15 BC'::date", "'0001-12-31 BC'::date"])]
        .boxed()
}

fn moment(type_name: &'static str) -> BoxedStrategy<String> {
    let days = prop_oneof![-2_451_500..=106_000_000_i32, -800_000..20_000_i32, Just(-730_120), -366..=366_i32];
    let plain = (days, 0..86_400_000_000_i64).prop_map(move |(days, micros)| {
        format!("'2000-01-01'::{type_name} + make_interval(days => {days}) + '{micros} microseconds'::interval")
    });
    let odd = one_of(&["infinity", "-infinity", "0044-03-15 00:00:00.000001 BC", "1999-12-31 24:00:00", "9999-12-31 23:59:59.999999"]);
    prop_oneof![9 => plain, 1 => cast(odd, type_name)].boxed()
}

fn time() -> BoxedStrategy<String> {
    let micros = prop_oneof![0..86_400_000_000_i64, Just(86_400_000_000), Just(0)];
    let text = |micros: i64| {
        let seconds = micros / 1_000_000;
        format!("{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
    };
    micros.prop_map(text).boxed()
}

fn interval() -> BoxedStrategy<String> {
    let months = prop_oneof![any::<i32>().prop_map(|months| months / 2), -30..30_i32];
    let days = prop_oneof![any::<i32>().prop_map(|days| days / 2), -40..40_i32];
    let micros = prop_oneof![any::<i64>().prop_map(|micros| micros / 2), -5_000_000..5_000_000_i64, Just(0)];
    (months, days, micros).prop_map(|(months, days, micros)| format!("{months} months {days} days {micros} microseconds")).boxed()
}

fn json(depth: u32) -> BoxedStrategy<String> {
    let string = short_text(10).prop_map(|text| {
        let escape = |c: char| match c {
            '"' | '\\' => format!("\\{c}"),
            c if (c as u32) < 32 || c as u32 == 127 => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        };
        format!("\"{}\"", text.chars().map(escape).collect::<String>())
    });
    let number = prop_oneof![integer(), "[1-9][0-9]{0,60}(\\.[0-9]{1,40})?", one_of(&["1e5", "-0", "0.10", "9007199254740993", "1E-300"])];
    let leaf = prop_oneof![string.clone(), number, one_of(&["null", "true", " false ", "\"\\u00e9\\ud83d\\ude00\"", "[]", "{}"])];
    leaf.prop_recursive(depth, 12, 4, move |inner| {
        let array = vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" , ")));
        let object = vec((string.clone(), inner), 0..4).prop_map(|all| {
            let twice = all.first().cloned().into_iter().chain(all.clone());
            format!("{{{}}}", twice.map(|(name, value)| format!("{name} :{value}")).collect::<Vec<_>>().join(","))
        });
        prop_oneof![array, object]
    })
    .boxed()
}

fn or_null(values: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop_oneof![8 => values, 1 => Just("NULL".to_owned())].boxed()
}

/// `ARRAY[...]` of one and of two dimensions, empty ones, and one that does not begin at 1.
fn array(element: BoxedStrategy<String>, type_name: &'static str) -> BoxedStrategy<String> {
    let element = or_null(element);
    let flat = vec(element.clone(), 0..5).prop_map(move |all| format!("ARRAY[{}]::{type_name}", all.join(", ")));
    let deep = vec((element.clone(), element.clone()), 1..4).prop_map(move |all| {
        let rows = all.into_iter().map(|(a, b)| format!("ARRAY[{a}, {b}]")).collect::<Vec<_>>();
        format!("ARRAY[{}]::{type_name}", rows.join(", "))
    });
    let late = element.prop_map(move |one| format!("array_fill({one}, ARRAY[2], ARRAY[-3])::{type_name}"));
    // An element of an array must know its type.
    prop_oneof![flat, deep, late.prop_filter("typed", |text| !text.contains("NULL"))].boxed()
}

fn range(bound: BoxedStrategy<String>, constructor: &'static str, subtype: &'static str) -> BoxedStrategy<String> {
    let bounds = one_of(&["'[)'", "'(]'", "'[]'", "'()'"]);
    let ordered = (or_null(bound.clone()), or_null(bound), bounds).prop_map(move |(a, b, bounds)| {
        format!("(SELECT {constructor}(CASE WHEN a > b THEN b ELSE a END, CASE WHEN a > b THEN a ELSE b END, {bounds}) FROM (SELECT ({a})::{subtype} AS a, ({b})::{subtype} AS b) AS ends)")
    });
    prop_oneof![9 => ordered, 1 => Just(format!("'empty'::{constructor}"))].boxed()
}

fn pair() -> BoxedStrategy<String> {
    let x = or_null(any::<i32>().prop_map(|number| format!("({number})")).boxed());
    (x, or_null(cast(text(), "text"))).prop_map(|(x, y)| format!("ROW({x}, {y})::pair")).boxed()
}

fn mood() -> BoxedStrategy<String> {
    cast(one_of(&["sad", "ok", "a \"quoted\", one", "", "ünï"]), "mood")
}

fn point() -> BoxedStrategy<String> {
    (double(), double()).prop_map(|(x, y)| format!("point('{x}'::float8, '{y}'::float8)")).boxed()
}

fn finite_point() -> BoxedStrategy<String> {
    (any::<i32>(), any::<i16>()).prop_map(|(x, y)| format!("point({x} * 0.1::float8, {y} / 3.0::float8)")).boxed()
}

fn bytes() -> BoxedStrategy<String> {
    let hex = |bytes: Vec<u8>| bytes.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
    prop_oneof![9 => vec(any::<u8>(), 0..30), 1 => any::<u8>().prop_map(|byte| vec![byte; 3000])].prop_map(hex).boxed()
}

fn numbers() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let within = |half: BoxedStrategy<String>| half;
    vec![
        ("smallint", cast(any::<i16>().prop_map(|number| number.to_string()), "int2")),
        ("int", cast(any::<i32>().prop_map(|number| number.to_string()), "int4")),
        ("bigint", cast(within(integer()), "int8")),
        ("numeric", cast(numeric(), "numeric")),
        ("numeric(12,3)", (any::<i32>(), 0..1000).prop_map(|(whole, part)| format!("{}.{part:03}::numeric", whole / 3)).boxed()),
        ("double precision", cast(double(), "float8")),
        ("real", cast(single(), "float4")),
        ("boolean", one_of(&["true", "false"])),
        ("money", any::<i64>().prop_map(|cents| format!("({}::numeric / 100)::money", cents / 200)).boxed()),
        ("oid", cast(any::<u32>().prop_map(|number| number.to_string()), "oid")),
        ("pg_lsn", any::<(u32, u32)>().prop_map(|(high, low)| format!("'{high:X}/{low:X}'::pg_lsn")).boxed()),
        ("xid8", cast(any::<u64>().prop_map(|number| number.to_string()), "xid8")),
        ("bit(5)", "[01]{5}".prop_map(|bits| format!("B'{bits}'")).boxed()),
        ("varbit", "[01]{0,70}".prop_map(|bits| format!("B'{bits}'")).boxed()),
    ]
}

fn texts() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let trailing = ("[a-c ä]{0,5}", one_of(&["", " ", "  ", "\t", "\t ", "\n"])).prop_map(|(text, end)| text + &end);
    let names = text().prop_map(|text| {
        let end = (0..=text.len().min(63)).rev().find(|end| text.is_char_boundary(*end));
        text[..end.unwrap_or(0)].to_owned()
    });
    vec![
        ("text", cast(text(), "text")),
        ("varchar(9)", cast(short_text(9), "varchar")),
        ("char(8)", cast(trailing, "bpchar")),
        ("\"char\"", cast("[ -~\t]?", "\"char\"")),
        ("name", cast(names, "name")),
        ("bytea", cast(bytes(), "bytea")),
        ("json", cast(json(3), "json")),
        ("jsonb", cast(json(3), "jsonb")),
        ("jsonpath", one_of(&["'$.a[*] ? (@ > 1)'::jsonpath", "'strict $.\"b c\"'::jsonpath"])),
        ("xml", cast(one_of(&["<a>1</a>", "text", "", "<!-- c --><b x=\"1\"/>", "ä<c/>"]), "xml")),
        ("tsvector", cast(one_of(&["a:1A,2 b", "", "'it''s' 'a b':3C", "ü:16383"]), "tsvector")),
        ("tsquery", cast(one_of(&["a & !b", "", "'a b' <-> c:*A", "(a | b) & c"]), "tsquery")),
        ("uuid", any::<u128>().prop_map(|number| format!("'{number:032x}'::uuid")).boxed()),
        ("citext", cast(text(), "citext")),
        ("hstore", vec((short_text(5), or_null(cast(short_text(5), "text"))), 0..4).prop_map(hstore).boxed()),
    ]
}

fn hstore(pairs: Vec<(String, String)>) -> String {
    let all = pairs.into_iter().map(|(key, value)| format!("public.hstore({}, {value})", quoted(&key)));
    std::iter::once("''::public.hstore".to_owned()).chain(all).collect::<Vec<_>>().join(" OPERATOR(public.||) ")
}

fn times() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let zone = (time(), -57_599..=57_599_i32).prop_map(|(time, offset)| {
        let (sign, seconds) = (if offset < 0 { '-' } else { '+' }, offset.abs());
        format!("{time}{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    });
    vec![
        ("date", date()),
        ("timestamp", moment("timestamp")),
        ("timestamptz", moment("timestamptz")),
        ("timestamp(3)", moment("timestamp")),
        ("time", cast(time(), "time")),
        ("timetz", cast(zone, "timetz")),
        ("interval", cast(interval(), "interval")),
        ("interval day to second(2)", cast(interval(), "interval")),
    ]
}

fn nets_and_shapes() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let four = any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}"));
    let six = any::<u128>().prop_map(|number| std::net::Ipv6Addr::from(number).to_string());
    let inet = prop_oneof![
        (four.clone(), 0..=32_u8).prop_map(|(at, bits)| format!("{at}/{bits}")),
        (six, 0..=128_u8).prop_map(|(at, bits)| format!("{at}/{bits}"))
    ];
    let mac = any::<[u8; 6]>().prop_map(|bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"));
    let path = vec(finite_point(), 1..5).prop_map(|points| points.join(", "));
    let path = path.prop_map(|points| format!("(SELECT ('[' || string_agg(p::text, ',') || ']')::path FROM unnest(ARRAY[{points}]) p)"));
    vec![
        ("inet", cast(inet, "inet")),
        ("cidr", four.prop_map(|at| format!("'{at}/32'::cidr")).boxed()),
        ("macaddr", cast(mac.clone(), "macaddr")),
        ("macaddr8", mac.prop_map(|mac| format!("'{mac}:01:ff'::macaddr8")).boxed()),
        ("point", point()),
        ("box", (finite_point(), finite_point()).prop_map(|(a, b)| format!("box({a}, {b})")).boxed()),
        ("lseg", (finite_point(), finite_point()).prop_map(|(a, b)| format!("lseg({a}, {b})")).boxed()),
        ("circle", (finite_point(), any::<u16>()).prop_map(|(at, radius)| format!("circle({at}, {radius} / 7.0)")).boxed()),
        ("path", path.clone().boxed()),
        ("polygon", path.prop_map(|path| format!("polygon(pclose({path}))")).boxed()),
        ("line", any::<(i16, u8)>().prop_map(|(a, c)| format!("line(point(0, {a}), point({c} + 1, {a} / 3.0))")).boxed()),
    ]
}

fn compounds() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let int4 = || any::<i16>().prop_map(|number| format!("({number})::int4")).boxed();
    let numerics = || cast(numeric(), "numeric");
    let span = range(cast(double(), "float8"), "public.span", "float8");
    let outer = (or_null(pair()), array(mood(), "mood[]"), or_null(moment("timestamp")));
    vec![
        ("int[]", array(int4(), "int4[]")),
        ("text[]", array(cast(text(), "text"), "text[]")),
        ("bytea[]", array(cast(bytes(), "bytea"), "bytea[]")),
        ("numeric[]", array(numerics(), "numeric[]")),
        ("jsonb[]", array(cast(json(2), "jsonb"), "jsonb[]")),
        ("timestamptz[]", array(moment("timestamptz"), "timestamptz[]")),
        ("box[]", array((finite_point(), finite_point()).prop_map(|(a, b)| format!("box({a}, {b})")).boxed(), "box[]")),
        ("char(3)[]", array(cast(short_text(3), "bpchar"), "bpchar[]")),
        ("mood", mood()),
        ("mood[]", array(mood(), "mood[]")),
        ("pair", pair()),
        ("pair[]", array(pair(), "pair[]")),
        ("outer_pair", outer.prop_map(|(p, m, at)| format!("ROW({p}, {m}, {at})::outer_pair")).boxed()),
        ("short", cast(short_text(5).prop_filter("allowed", |text| text != "no"), "short")),
        ("short[]", array(cast(short_text(5).prop_filter("allowed", |text| text != "no"), "short"), "short[]")),
        ("shorts", array(cast(short_text(5).prop_filter("allowed", |text| text != "no"), "short"), "shorts")),
        ("int4range", range(int4(), "int4range", "int4")),
        ("numrange", range(numerics(), "numrange", "numeric")),
        ("tstzrange", range(moment("timestamptz"), "tstzrange", "timestamptz")),
        ("daterange", range(date(), "daterange", "date")),
        ("int4range[]", array(range(int4(), "int4range", "int4"), "int4range[]")),
        (
            "int4multirange",
            vec(range(int4(), "int4range", "int4"), 0..4)
                .prop_map(|all| format!("int4multirange(VARIADIC ARRAY[{}]::int4range[])", all.join(", ")))
                .boxed(),
        ),
        ("span", span.clone()),
        ("span[]", array(span, "span[]")),
        ("regclass", one_of(&["'pg_class'::regclass", "'pg_type'::regclass", "0::regclass"])),
        ("regtype", one_of(&["'int4'::regtype", "'text[]'::regtype"])),
    ]
}

/// Every type; extension types only where the extension is there.
pub fn columns(with_extensions: bool) -> Vec<Column> {
    let all = [numbers(), texts(), times(), nets_and_shapes(), compounds()].into_iter().flatten();
    let chosen = all.filter(|(type_name, _)| with_extensions || !matches!(*type_name, "citext" | "hstore"));
    let column = |(index, (type_name, values))| Column { name: format!("c{index}"), type_name, values: or_null(values) };
    chosen.enumerate().map(column).collect()
}
