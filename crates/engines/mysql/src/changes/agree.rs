//! Whether what the log says of a table is what its description says. Pure.

use crate::binlog::{LoggedType, Metadata, is_number, kind};
use crate::types::Kind;

/// Whether values of a column of this kind are logged in this way.
pub(super) fn types_agree(described: &Kind, logged: LoggedType) -> bool {
    let [first, second] = logged.meta.to_le_bytes();
    let is = |kinds: &[u8]| kinds.contains(&logged.kind);
    // CHAR, BINARY, ENUM and SET share a type; the first byte tells them apart, two of its bits may be the length's
    let is_string = || is(&[kind::STRING]) && first | 0x30 == kind::STRING;
    let is_member = |real: u8| is(&[real]) || (is(&[kind::STRING]) && first == real);
    let is_long =
        || is(&[kind::VARCHAR, kind::VAR_STRING, kind::VARCHAR_COMPRESSED, kind::BLOB_COMPRESSED, kind::VECTOR]) || is_blob(logged.kind);
    let is_moment = |new: u8, old: u8, fraction: u8| (is(&[new]) && first == fraction) || (is(&[old]) && fraction == 0);
    match described {
        Kind::Int { bytes, .. } => is(&[match bytes {
            1 => kind::TINY,
            2 => kind::SHORT,
            3 => kind::INT24,
            4 => kind::LONG,
            _ => kind::LONGLONG,
        }]),
        Kind::Year => is(&[kind::YEAR]),
        Kind::Float => is(&[kind::FLOAT]) && first == 4,
        Kind::Double => is(&[kind::DOUBLE]) && first == 8,
        Kind::Decimal { precision, scale } => is(&[kind::NEWDECIMAL]) && (first, second) == (*precision, *scale),
        Kind::Date => is(&[kind::DATE, kind::NEWDATE]),
        Kind::Time { fraction } => is_moment(kind::TIME2, kind::TIME, *fraction),
        Kind::DateTime { fraction } => is_moment(kind::DATETIME2, kind::DATETIME, *fraction),
        Kind::Timestamp { fraction } => is_moment(kind::TIMESTAMP2, kind::TIMESTAMP, *fraction),
        Kind::Text { fixed: true, .. } => is_string(),
        Kind::Bytes { fixed } if *fixed > 0 => is_string(),
        Kind::Text { fixed: false, .. } | Kind::Bytes { .. } => is_long(),
        Kind::Bit { bits } => is(&[kind::BIT]) && u16::from(second) * 8 + u16::from(first) == u16::from(*bits),
        Kind::Enum { .. } => is_member(kind::ENUM),
        Kind::Set { .. } => is_member(kind::SET),
        Kind::Json => is(&[kind::JSON]),
        Kind::Geometry => is(&[kind::GEOMETRY]),
        Kind::Uuid | Kind::Inet4 | Kind::Inet6 => is_string(),
    }
}

fn is_blob(logged: u8) -> bool {
    matches!(logged, kind::TINY_BLOB..=kind::BLOB)
}

/// What is wrong with the log's further words on the columns, where it has any: signs, names, members. In words for a
/// person; `names` and `kinds` are of the first columns, hidden ones may follow.
pub(super) fn disagreement(names: &[&str], kinds: &[&Kind], columns: &[LoggedType], metadata: &Metadata) -> Option<String> {
    sign_that_differs(names, kinds, columns, metadata)
        .or_else(|| name_that_differs(names, metadata))
        .or_else(|| members_that_differ(names, kinds, metadata))
}

fn name_that_differs(names: &[&str], metadata: &Metadata) -> Option<String> {
    let logged = metadata.names.as_ref()?;
    let differs = |(index, name): (usize, &&str)| logged.get(index).is_none_or(|logged| logged != name);
    let index = names.iter().enumerate().find(|pair| differs((pair.0, pair.1))).map(|(index, _)| index)?;
    Some(format!("column `{}` is called `{}` there", names[index], logged.get(index).map_or("", String::as_str)))
}

fn sign_that_differs(names: &[&str], kinds: &[&Kind], columns: &[LoggedType], metadata: &Metadata) -> Option<String> {
    let unsigned = metadata.unsigned.as_ref()?;
    let numbers = columns.iter().enumerate().filter(|(_, column)| is_number(**column)).map(|(index, _)| index);
    let index = numbers.zip(unsigned).find_map(|(index, logged)| match kinds.get(index) {
        Some(Kind::Int { unsigned, .. }) if unsigned != logged => Some(index),
        _ => None,
    })?;
    Some(format!("column `{}` has another sign there", names[index]))
}

/// Members are in the column's own character set: where it is not UTF-8 only their number is compared.
fn members_that_differ(names: &[&str], kinds: &[&Kind], metadata: &Metadata) -> Option<String> {
    let differ = |logged: Option<&Vec<Vec<u8>>>, members: &[String], charset: &str| {
        let Some(logged) = logged else { return true };
        let is_plain = charset.starts_with("utf8") || charset == "ascii";
        let same = |(member, logged): (&String, &Vec<u8>)| member.as_bytes() == logged.as_slice();
        logged.len() != members.len() || is_plain && !members.iter().zip(logged).all(same)
    };
    let (mut enums, mut sets) = (metadata.enum_members.iter().flatten(), metadata.set_members.iter().flatten());
    let index = kinds.iter().position(|described| match described {
        Kind::Enum { members, charset, .. } => metadata.enum_members.is_some() && differ(enums.next(), members, charset),
        Kind::Set { members, charset, .. } => metadata.set_members.is_some() && differ(sets.next(), members, charset),
        _ => false,
    })?;
    Some(format!("column `{}` has other members there", names[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(type_name: &str, kind: u8, meta: u16) -> bool {
        types_agree(&Kind::parse(type_name).unwrap(), LoggedType { kind, meta })
    }

    #[test]
    fn another_type_never_agrees() {
        assert!(agree("int(11)", kind::LONG, 0) && !agree("int(11)", kind::LONGLONG, 0) && !agree("int(11)", kind::FLOAT, 4));
        assert!(agree("decimal(10,2)", kind::NEWDECIMAL, 10 | 2 << 8) && !agree("decimal(10,3)", kind::NEWDECIMAL, 10 | 2 << 8));
        assert!(agree("time(3)", kind::TIME2, 3) && !agree("time(3)", kind::TIME2, 6) && !agree("time(3)", kind::TIME, 0));
        assert!(agree("datetime", kind::DATETIME, 0) && agree("datetime", kind::DATETIME2, 0));
        assert!(agree("bit(9)", kind::BIT, 1 | 1 << 8) && !agree("bit(8)", kind::BIT, 1 | 1 << 8));
        assert!(agree("enum('a')", kind::STRING, 247 | 1 << 8) && !agree("set('a')", kind::STRING, 247 | 1 << 8));
        assert!(
            agree("char(100)", kind::STRING, 0x90EE)
                && !agree("char(100)", kind::STRING, 247 | 1 << 8)
                && !agree("char(1)", kind::VARCHAR, 1)
        );
        assert!(agree("varchar(5)", kind::VARCHAR, 5) && agree("longtext", kind::BLOB, 4) && !agree("varchar(5)", kind::STRING, 0x05FE));
    }

    #[test]
    fn names_signs_and_members_are_compared_where_they_are_logged() {
        let kinds = [Kind::parse("int(11)").unwrap(), Kind::parse("enum('a','b') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin").unwrap()];
        let kinds: Vec<&Kind> = kinds.iter().collect();
        let columns = [LoggedType { kind: kind::LONG, meta: 0 }, LoggedType { kind: kind::STRING, meta: 247 | 1 << 8 }];
        let check = |metadata: &Metadata| disagreement(&["id", "mood"], &kinds, &columns, metadata);
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(check(&Metadata::default()), None);
        let good = Metadata {
            unsigned: Some(vec![false]),
            names: names(&["id", "mood", "DB_ROW_HASH_1"]),
            enum_members: Some(vec![vec![b"a".to_vec(), b"b".to_vec()]]),
            ..Metadata::default()
        };
        assert_eq!(check(&good), None);
        assert!(check(&Metadata { names: names(&["id", "moods"]), ..good.clone() }).unwrap().contains("`moods`"));
        assert!(check(&Metadata { unsigned: Some(vec![true]), ..good.clone() }).unwrap().contains("sign"));
        assert!(check(&Metadata { enum_members: Some(vec![vec![b"b".to_vec(), b"a".to_vec()]]), ..good }).unwrap().contains("members"));
    }
}
