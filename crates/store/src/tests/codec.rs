//! Records survive their encoding; anything else is refused without harm.

use std::sync::Arc;

use bytes::Bytes;
use godwit_model::{
    Change, ChangeBatch, ChangeOperation, Layout, LayoutColumn, LayoutId, Marker, Micros, OldImage, Position, TableName, Value, codes,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Record, decode, encode};

fn value() -> impl Strategy<Value = Value> {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 100..300)].prop_map(Bytes::from);
    prop_oneof![
        Just(Value::Null),
        Just(Value::Absent),
        Just(Value::Unsent),
        any::<i64>().prop_map(Value::Int),
        Just(Value::Int(i64::MIN)),
        any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        ".{0,40}".prop_map(Value::text),
        bytes().prop_map(Value::Bytes),
        bytes().prop_map(Value::Native),
    ]
}

fn batch() -> impl Strategy<Value = ChangeBatch> {
    vec(value(), 0..30).prop_flat_map(|values| {
        let width = values.len();
        let range = move || (0..=width, 0..=width).prop_map(|(a, b)| if a == b { 0..0 } else { a.min(b)..a.max(b) });
        let old = prop_oneof![Just(OldImage::SameKey), range().prop_map(OldImage::Key), range().prop_map(OldImage::Full)];
        let operation = prop_oneof![
            Just(ChangeOperation::Insert),
            Just(ChangeOperation::Update),
            Just(ChangeOperation::Delete),
            Just(ChangeOperation::Truncate)
        ];
        let change = (any::<u32>(), operation, old, range());
        let change = change.prop_map(|(layout, operation, old, new)| Change { layout: LayoutId(layout), operation, old, new });
        vec(change, 0..10).prop_map(move |changes| ChangeBatch { values: values.clone(), changes })
    })
}

fn some_layout() -> impl Strategy<Value = Layout> {
    let column = (".{0,20}", ".{0,20}", any::<bool>()).prop_map(|(name, type_name, key)| LayoutColumn { name, type_name, key });
    (any::<u32>(), ".{0,20}", ".{0,20}", vec(column, 0..20), any::<bool>()).prop_map(|(id, schema, name, columns, full)| Layout {
        id: LayoutId(id),
        table: TableName::new(schema, name),
        columns,
        full_old_images: full,
    })
}

fn record() -> impl Strategy<Value = Record> {
    let position = || vec(any::<u8>(), 0..40).prop_map(|bytes| Position(bytes.into()));
    prop_oneof![
        some_layout().prop_map(|layout| Record::Layout(Arc::new(layout))),
        Just(Record::Begin),
        Just(Record::Abort),
        batch().prop_map(Record::Changes),
        ".{0,40}".prop_map(|name| Record::Marker(Marker(name))),
        (".{0,9}", ".{0,9}", ".{0,90}").prop_map(|(schema, name, what)| Record::Schema { table: TableName::new(schema, name), what }),
        (position(), any::<i64>(), proptest::option::of(".{0,20}")).prop_map(|(position, time, origin)| Record::Commit {
            position,
            time: Micros(time),
            origin
        }),
        position().prop_map(|position| Record::Progress { position }),
    ]
}

fn bytes_of(record: &Record) -> Bytes {
    let mut out = Vec::new();
    encode(record, &mut out);
    out.into()
}

fn same_values(a: &Record, b: &Record) -> bool {
    match (a, b) {
        (Record::Changes(a), Record::Changes(b)) => {
            a.changes == b.changes && a.values.len() == b.values.len() && a.values.iter().zip(&b.values).all(|(a, b)| a.same(b))
        }
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_record_survives(record in record()) {
        let bytes = bytes_of(&record);
        let back = decode(&bytes).unwrap();
        prop_assert!(same_values(&record, &back));
        prop_assert_eq!(bytes_of(&back), bytes);
    }

    #[test]
    fn a_record_cut_short_or_prolonged_is_damage(record in record(), place: prop::sample::Index) {
        let bytes = bytes_of(&record);
        let cut = bytes.slice(..place.index(bytes.len()));
        prop_assert!(decode(&cut).unwrap_err().is(&codes::LOG_DAMAGED));
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(decode(&longer.into()).unwrap_err().is(&codes::LOG_DAMAGED));
    }

    #[test]
    fn a_record_with_a_changed_byte_is_a_record_or_damage(record in record(), place: prop::sample::Index, byte: u8) {
        let mut bytes = bytes_of(&record).to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        check_total(bytes)?;
    }

    #[test]
    fn any_bytes_are_a_record_or_damage(mut bytes in vec(any::<u8>(), 0..200), tag in 0u8..10) {
        if let Some(first) = bytes.first_mut() {
            *first = tag;
        }
        check_total(bytes)?;
    }
}

fn check_total(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    match decode(&bytes.into()) {
        Err(error) => prop_assert!(error.is(&codes::LOG_DAMAGED)),
        Ok(Record::Changes(batch)) => batch.changes.iter().for_each(|change| {
            batch.images(change);
        }),
        Ok(_) => {}
    }
    Ok(())
}

#[test]
fn a_claimed_length_is_not_believed() {
    // a batch that claims 2^60 values
    let mut bytes = vec![crate::encode::tag::CHANGES];
    crate::encode::put_varint(1 << 60, &mut bytes);
    assert!(decode(&bytes.into()).unwrap_err().is(&codes::LOG_DAMAGED));
}

#[test]
fn values_are_slices_of_the_one_buffer() {
    let mut batch = ChangeBatch::default();
    batch.push_insert(LayoutId(1), [Value::text("a text of some length")]);
    let bytes = bytes_of(&Record::Changes(batch));
    let Record::Changes(back) = decode(&bytes).unwrap() else { panic!("changes") };
    let Value::Text(text) = &back.values[0] else { panic!("text") };
    assert!(bytes.as_ptr_range().contains(&text.as_ptr()));
}

#[test]
fn what_is_printed_holds_no_values() {
    let mut batch = ChangeBatch::default();
    batch.push_insert(LayoutId(1), [Value::text("very private")]);
    assert!(!format!("{:?}", Record::Changes(batch)).contains("private"));
}
