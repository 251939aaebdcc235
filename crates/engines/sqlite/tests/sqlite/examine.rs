//! Digests.

use godwit_model::*;

use crate::world::World;

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w); CREATE TABLE k (v, w);
    INSERT INTO t VALUES (1, 1, ''), (2, 1.0, NULL), (3, '1', x''), (4, NULL, ''); INSERT INTO k VALUES (1, 2), (1, 2), (3, 4);";

async fn digests(world: &World, table: usize) -> Vec<BlockDigest> {
    let mapping = world.mappings().await[table].clone();
    world.source().examiner().digest(&DigestPlan::of_source(&mapping, 64)).await.unwrap()
}

#[tokio::test]
async fn equal_tables_have_equal_digests_in_any_order() {
    let (one, two) = (World::new(SCHEMA), World::new(SCHEMA));
    two.user().execute_batch("DELETE FROM k; INSERT INTO k VALUES (3, 4), (1, 2), (1, 2);").unwrap();
    for table in 0..2 {
        assert_eq!(digests(&one, table).await, digests(&two, table).await);
    }
}

#[tokio::test]
async fn a_change_of_class_of_null_or_of_a_duplicate_shows() {
    for change in [
        "UPDATE t SET v = 1.0 WHERE id = 1",
        "UPDATE t SET w = NULL WHERE id = 1",
        "UPDATE t SET w = x'' WHERE id = 1",
        "UPDATE t SET v = '', w = 1 WHERE id = 1",
        "DELETE FROM k WHERE rowid = 1",
        "INSERT INTO k VALUES (3, 4)",
    ] {
        let (one, two) = (World::new(SCHEMA), World::new(SCHEMA));
        two.user().execute_batch(change).unwrap();
        let table = usize::from(change.contains(" t "));
        assert_ne!(digests(&one, table).await, digests(&two, table).await, "{change}");
    }
}

#[tokio::test]
async fn differences_are_found_by_key() {
    let world = World::new(SCHEMA);
    let mapping = world.mappings().await[1].clone();
    let source = world.source();
    let plan = DigestPlan::of_source(&mapping, 3);
    let blocks = source.examiner().digest(&plan).await.unwrap();
    let all: Vec<u32> = blocks.iter().map(|block| block.block).collect();
    let hashes = source.examiner().hashes(&plan, &all).await.unwrap();
    assert_eq!(hashes.len(), 4);
    let mut keys = RowBatch::new(1);
    keys.push([Value::Int(99)]);
    hashes.iter().for_each(|hash| keys.push(hash.key.clone()));
    let again = source.examiner().hashes_of(&plan, &keys).await.unwrap();
    let expected: Vec<Option<u64>> = std::iter::once(None).chain(hashes.iter().map(|hash| Some(hash.hash))).collect();
    assert_eq!(again, expected);
    let mut missing = plan;
    missing.table.name = "nope".into();
    assert!(source.examiner().digest(&missing).await.unwrap_err().is(&codes::TABLE_MISSING));
}
