use godwit_model::{ColumnMapping, Layout, LayoutColumn, LayoutId, TableName};

use super::*;

const ID: LayoutId = LayoutId(1);

fn projection(key: Vec<usize>) -> Projection {
    let names = ["id", "note"];
    let table = TableName::new("public", "item");
    let column = |name: &str| ColumnMapping { source: name.into(), target: name.into(), type_name: "text".into() };
    let columns = names.map(column).to_vec();
    let mapping = TableMapping { source: table.clone(), target: table.clone(), columns, key, key_is_exact: true, has_uniques: false };
    let column = |name: &str| LayoutColumn { name: name.into(), type_name: "text".into(), key: name == "id" };
    let layout = Layout { id: ID, table, columns: names.map(column).to_vec(), full_old_images: true };
    Projection::new(Arc::new(mapping), &layout).unwrap()
}

fn row(id: &str, note: &str) -> Row {
    vec![Value::text(id), Value::text(note)]
}

fn coalesced(projection: &Projection, batch: &ChangeBatch) -> Vec<TableWrite> {
    let mut coalescer = Coalescer::new(Footing::Strict);
    for change in &batch.changes {
        coalescer.push(projection, batch, change).unwrap();
    }
    coalescer.finish().writes
}

fn shape(writes: &[TableWrite]) -> Vec<(WriteKind, Vec<Row>)> {
    writes.iter().map(|write| (write.kind, write.rows.rows().map(<[Value]>::to_vec).collect())).collect()
}

#[test]
fn rows_keep_the_order_of_the_log() {
    let mut batch = ChangeBatch::default();
    let rows: Vec<Row> = (0..100).map(|id| row(&id.to_string(), "new")).collect();
    for row in &rows {
        batch.push_insert(ID, row.clone());
    }
    assert_eq!(shape(&coalesced(&projection(vec![0]), &batch)), [(WriteKind::Insert, rows)]);
}

#[test]
fn a_key_that_came_went_and_came_back_is_one_insert() {
    let mut batch = ChangeBatch::default();
    batch.push_insert(ID, row("a", "first"));
    batch.push_delete(ID, row("a", "first"), true);
    batch.push_insert(ID, row("a", "second"));
    assert_eq!(shape(&coalesced(&projection(vec![0]), &batch)), [(WriteKind::Insert, vec![row("a", "second")])]);
}

#[test]
fn inserts_without_a_key_are_one_write_with_every_row() {
    let mut batch = ChangeBatch::default();
    for _ in 0..3 {
        batch.push_insert(ID, row("a", "same"));
    }
    let writes = coalesced(&projection(vec![]), &batch);
    assert_eq!(shape(&writes), [(WriteKind::Insert, vec![row("a", "same"); 3])]);
    assert!(writes[0].strict);
}

#[test]
fn a_delete_without_a_key_keeps_its_place_between_inserts() {
    let mut batch = ChangeBatch::default();
    batch.push_insert(ID, row("a", "1"));
    batch.push_delete(ID, row("a", "1"), true);
    batch.push_insert(ID, row("a", "1"));
    let kinds: Vec<WriteKind> = coalesced(&projection(vec![]), &batch).iter().map(|write| write.kind).collect();
    assert_eq!(kinds, [WriteKind::Insert, WriteKind::DeleteWhole, WriteKind::Insert]);
}
