//! Lease, ledger, applier.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{
    Applied, Checkpoint, ChunkEnd, ChunkMode, ChunkWrite, Create, Group, Lease, LoadBlock, LogId, Mismatch, Position, Result, RowBatch,
    RowReader, SchemaItem, Sequence, Stage, TableMapping, TableWrite, Value, WriteKind, codes,
};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::pair::{Pair, entry, holder, mappings};

fn native(text: &str) -> Value {
    Value::Native(text.to_owned().into())
}

fn write(mapping: &Arc<TableMapping>, kind: WriteKind, columns: &[usize], rows: &[Vec<Value>]) -> TableWrite {
    let mut batch = RowBatch::new(rows.first().map_or(1, Vec::len));
    for row in rows {
        batch.push(row.iter().cloned());
    }
    TableWrite { mapping: mapping.clone(), kind, columns: columns.to_vec(), rows: batch, strict: true }
}

fn group(writes: Vec<TableWrite>) -> Group {
    Group { writes, origin: "shop 0/1".to_owned() }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { position: Position::from(format!("0/{number}")), log: LogId(u128::MAX - 3), sequence: Sequence(number) }
}

async fn made(major: u16, sql: &str) -> Option<(Pair, Lease, Vec<Arc<TableMapping>>)> {
    let pair = Pair::new(major, |task| task.schema.create = Create::Tables)?;
    pair.at_source(sql).await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    Some((pair, lease, mappings))
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text, tags text[], code char(4), price numeric(6,2), flag \"char\")";

#[tokio::test]
async fn sets_of_every_kind_are_applied_and_counted() {
    for major in [15, 18] {
        let Some((pair, lease, mappings)) = made(major, TABLE).await else { return };
        let t = &mappings[0];
        let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
        let row = |id: &str, name: Value, tags: Value| vec![native(id), name, tags, native("ab  "), native("1.50"), native("x")];
        let inserts = write(
            t,
            WriteKind::Insert,
            &[0, 1, 2, 3, 4, 5],
            &[
                row("1", native(""), native("{a,\"b,c\",NULL}")),
                row("2", Value::Null, Value::Null),
                row("3", native("q\"\\'{}"), native("{{x},{y}}")),
            ],
        );
        assert!(matches!(applier.apply(&group(vec![inserts])).await.unwrap(), Applied::AsExpected));
        let more = vec![
            write(t, WriteKind::Update, &[1], &[vec![native("2"), native("two")]]),
            write(t, WriteKind::Update, &[0], &[vec![native("3"), native("4")]]),
            write(t, WriteKind::Delete, &[], &[vec![native("1")]]),
            write(t, WriteKind::Upsert, &[0, 1], &[vec![native("2"), native("zwei")], vec![native("9"), native("neun")]]),
        ];
        assert!(matches!(applier.apply(&group(more)).await.unwrap(), Applied::AsExpected));
        applier.commit(None, &checkpoint(1), &[entry("p1/t")]).await.unwrap();
        applier.durable().await.unwrap();
        let all = "SELECT string_agg(id || ':' || name || ':' || coalesce(tags::text, '-') || ':' || coalesce(code::text || flag::text, '-'), ' ' ORDER BY id) FROM t";
        assert_eq!(pair.ask_target(all).await.as_deref(), Some("2:zwei:-:abx 4:q\"\\'{}:{{x},{y}}:abx 9:neun:-:-"));
        let record = pair.target.lease(&pair.task.name).await.unwrap().unwrap();
        assert_eq!(record.checkpoint, Some(checkpoint(1)));
        assert!(applier.apply(&group(vec![write(t, WriteKind::Truncate, &[], &[])])).await.is_ok());
        applier.commit(Some(&checkpoint(1)), &checkpoint(2), &[]).await.unwrap();
        assert_eq!(pair.ask_target("SELECT count(*) FROM t").await.as_deref(), Some("0"));
    }
}

#[tokio::test]
async fn anything_unexpected_is_rolled_back_to_its_group() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let t = &mappings[0];
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let insert = |id: &str| write(t, WriteKind::Insert, &[0], &[vec![native(id)]]);
    assert!(matches!(applier.apply(&group(vec![insert("1")])).await.unwrap(), Applied::AsExpected));
    let missing = group(vec![insert("2"), write(t, WriteKind::Delete, &[], &[vec![native("7")]])]);
    let expected = Mismatch { write: 1, expected: 1, touched: 0 };
    assert!(matches!(applier.apply(&missing).await.unwrap(), Applied::Unexpected(mismatch) if mismatch == expected));
    let refused = group(vec![insert("3"), insert("1"), insert("4")]);
    match applier.apply(&refused).await.unwrap() {
        Applied::Refused(error) => assert!(error.is(&codes::CONFLICT) && !error.what().contains("(1)"), "{error:?}"),
        other => panic!("{other:?}"),
    }
    let long = group(vec![write(t, WriteKind::Insert, &[0, 3], &[vec![native("5"), native("abcdef")]])]);
    assert!(matches!(applier.apply(&long).await.unwrap(), Applied::Refused(_)), "a value that is too long is never cut");
    let lenient = TableWrite { strict: false, ..write(t, WriteKind::Delete, &[], &[vec![native("7")]]) };
    assert!(matches!(applier.apply(&group(vec![lenient])).await.unwrap(), Applied::AsExpected));
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT string_agg(id::text, ',') FROM t").await.as_deref(), Some("1"));
}

/// As many rows as go by COPY, and pieces of several statements.
const MANY: usize = 9_000;

#[tokio::test]
async fn many_rows_are_the_same_rows() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, name text, tags text[], n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (id * 2) STORED)";
    let Some((pair, lease, mappings)) = made(18, sql).await else { return };
    let t = &mappings[0];
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let names = ["", "tab\tline\nreturn\rback\\slash", "\\.", "\\N", "NULL", "q\"'{},ü"].map(native);
    let name = |place: usize| names.get(place % 7).cloned().unwrap_or(Value::Null);
    let row = |id: usize| vec![native(&id.to_string()), name(id), native("{a,\"b\\\\\",NULL}"), native(&(7 * id).to_string())];
    let rows: Vec<_> = (1..=MANY).map(row).collect();
    let first = write(t, WriteKind::Insert, &[0, 1, 2, 3], &[row(0)]);
    let applied = applier.apply(&group(vec![first, write(t, WriteKind::Insert, &[0, 1, 2, 3], &rows)])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    let updates: Vec<_> = (1..=MANY).map(|id| vec![native(&id.to_string()), name(id + 1)]).collect();
    let deletes: Vec<_> = (1..=MANY / 2).map(|id| vec![native(&id.to_string())]).collect();
    let both = vec![write(t, WriteKind::Delete, &[], &deletes), write(t, WriteKind::Update, &[1], &updates[MANY / 2..])];
    let applied = applier.apply(&group(both)).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    let wrong = "SELECT count(*) || ' rows, ' || count(*) FILTER (WHERE n <> id * 7 OR twice <> id * 2 OR tags <> '{a,\"b\\\\\",NULL}' OR name IS DISTINCT FROM
        (ARRAY['', E'tab\\tline\\nreturn\\rback\\\\slash', E'\\\\.', E'\\\\N', 'NULL', 'q\"''{},ü', NULL])[(id + CASE id WHEN 0 THEN 0 ELSE 1 END) % 7 + 1]) FROM t";
    assert_eq!(pair.ask_target(wrong).await, Some(format!("{} rows, 0", MANY - MANY / 2 + 1)));
}

#[tokio::test]
async fn many_rows_are_refused_as_few_are() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let t = &mappings[0];
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let rows = |from: usize, code: &str| (from..from + MANY).map(|id| vec![native(&id.to_string()), native(code)]).collect::<Vec<_>>();
    let insert = |from: usize, code: &str| write(t, WriteKind::Insert, &[0, 3], &rows(from, code));
    let applied = applier.apply(&group(vec![insert(1, "ab")])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    let single = |id: &str| write(t, WriteKind::Insert, &[0], &[vec![native(id)]]);
    let refused = [
        (vec![insert(MANY, "ab")], &codes::CONFLICT),
        (vec![insert(MANY + 1, "abcde")], &codes::VALUE_REFUSED),
        (vec![single("1"), insert(MANY + 1, "ab")], &codes::CONFLICT),
        (vec![insert(MANY + 1, "ab"), single("1")], &codes::CONFLICT),
    ];
    for (writes, code) in refused {
        match applier.apply(&group(writes)).await.unwrap() {
            Applied::Refused(error) => assert!(error.is(code), "{error:?}"),
            other => panic!("{other:?}"),
        }
        let missing = group(vec![insert(MANY + 1, "ab"), write(t, WriteKind::Delete, &[], &[vec![native("-1")]])]);
        let expected = Mismatch { write: 1, expected: 1, touched: 0 };
        let applied = applier.apply(&missing).await.unwrap();
        assert!(
            matches!(applied, Applied::Unexpected(ref mismatch) if *mismatch == expected),
            "answers belong to their questions: {applied:?}"
        );
    }
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT count(*) FROM t").await, Some(MANY.to_string()));
}

#[tokio::test]
async fn many_rows_where_copy_may_not_write_are_inserted() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let t = &mappings[0];
    pair.at_target("ALTER TABLE t RENAME TO kept; CREATE VIEW t AS SELECT * FROM kept").await;
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let rows: Vec<_> = (0..MANY).map(|id| vec![native(&id.to_string())]).collect();
    let applied = applier.apply(&group(vec![write(t, WriteKind::Insert, &[0], &rows)])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT count(*) FROM kept").await, Some(MANY.to_string()));
}

#[tokio::test]
async fn rows_without_a_key_go_one_by_one() {
    let Some((pair, lease, mappings)) = made(15, "CREATE TABLE k (a float8, b text)").await else { return };
    let k = &mappings[0];
    pair.at_target("INSERT INTO k VALUES (0, NULL), (0, NULL), ('-0', NULL), (1, 'x')").await;
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let writes = vec![
        write(k, WriteKind::DeleteWhole, &[0, 1], &[vec![native("0"), Value::Null]]),
        write(k, WriteKind::UpdateWhole, &[0, 1], &[vec![native("1"), native("x"), native("2"), Value::Null]]),
    ];
    assert!(matches!(applier.apply(&group(writes)).await.unwrap(), Applied::AsExpected));
    let missing = group(vec![write(k, WriteKind::DeleteWhole, &[0, 1], &[vec![native("5"), Value::Null]])]);
    assert!(matches!(applier.apply(&missing).await.unwrap(), Applied::Unexpected(_)));
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM k").await.as_deref(), Some("-0 0 2"));
}

#[tokio::test]
async fn an_old_process_that_wakes_cannot_write() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let t = &mappings[0];
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let insert = group(vec![write(t, WriteKind::Insert, &[0], &[vec![native("1")]])]);
    assert!(matches!(applier.apply(&insert).await.unwrap(), Applied::AsExpected));
    let seen = pair.target.lease(&pair.task.name).await.unwrap();
    let taken = pair.target.take_lease(&pair.task.name, &holder(2), seen.as_ref()).await.unwrap().unwrap();
    assert_eq!(taken.epoch, lease.epoch + 1);
    assert!(pair.target.take_lease(&pair.task.name, &holder(3), seen.as_ref()).await.unwrap().is_none());
    assert!(applier.commit(None, &checkpoint(1), &[]).await.unwrap_err().is(&codes::CONNECTION_LOST), "what was open is ended");
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    assert!(matches!(applier.apply(&insert).await.unwrap(), Applied::AsExpected));
    assert!(applier.commit(None, &checkpoint(1), &[]).await.unwrap_err().is(&codes::LEASE_LOST), "what begins later cannot commit");
    assert!(pair.target.renew(&lease).await.unwrap_err().is(&codes::LEASE_LOST));
    assert!(pair.target.record(&lease, &[entry("x")]).await.unwrap_err().is(&codes::LEASE_LOST));
    assert_eq!(pair.ask_target("SELECT count(*) FROM t").await.as_deref(), Some("0"));
    let lease = Lease { epoch: taken.epoch, ..lease };
    pair.target.release(&lease).await.unwrap();
    assert_eq!(pair.target.lease(&pair.task.name).await.unwrap().unwrap().holder, None);
    pair.target.remove_traces(&pair.task.name).await.unwrap();
    assert!(pair.target.traces(&pair.task.name).await.unwrap().is_empty());
    assert_eq!(pair.ask_target("SELECT count(*) FROM pg_namespace WHERE nspname = 'godwit'").await.as_deref(), Some("0"));
}

/// One block, and then nothing and no end.
struct Stalled(Option<LoadBlock>, Arc<Notify>);

#[async_trait]
impl RowReader for Stalled {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        match self.0.take() {
            Some(block) => Ok(Some(block)),
            None => {
                self.1.notify_one();
                std::future::pending().await
            }
        }
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        std::future::pending().await
    }
}

/// Nobody tells the server that the other end is gone, as behind a balancer that forgot several connections at once, or
/// after a power cut. What it keeps is locked; the next holder needs it.
#[tokio::test]
async fn whoever_takes_the_lease_ends_what_older_epochs_left_open() {
    let tables = ["t", "u"].map(|table| format!("CREATE TABLE {table} (id int PRIMARY KEY); INSERT INTO {table} VALUES (1);"));
    let Some((pair, lease, mappings)) = made(18, &tables.concat()).await else { return };
    let other_task = Lease { task: godwit_testkit::task::name("other"), epoch: 0 };
    let taken = pair.target.take_lease(&other_task.task, &holder(1), None).await.unwrap().unwrap();
    let other_task = Lease { epoch: taken.epoch, ..other_task };
    let mut untouched = pair.target.applier(&other_task, &mappings).await.unwrap();
    assert!(matches!(untouched.apply(&group(vec![])).await.unwrap(), Applied::AsExpected));
    let writers: Vec<_> = mappings.iter().map(|mapping| stalled_chunk(&pair, &lease, mapping)).collect();
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    assert!(matches!(applier.apply(&group(vec![])).await.unwrap(), Applied::AsExpected));
    for (begun, _) in &writers {
        begun.notified().await;
    }
    let lease = pair.lease().await;
    assert!(applier.commit(None, &checkpoint(1), &[]).await.unwrap_err().is(&codes::CONNECTION_LOST));
    let sql = vec!["ALTER TABLE public.t ADD COLUMN more int".to_owned(), "ALTER TABLE public.u ADD COLUMN more int".to_owned()];
    let step = SchemaItem { id: "STEP".to_owned(), stage: Stage::AfterLoad, table: None, sql };
    let done = [entry("step")];
    within(pair.target.perform(&lease, &[&step], &done)).await.unwrap();
    assert!(writers.iter().all(|(_, writer)| !writer.is_finished()), "their end was nobody's who writes");
    untouched.commit(None, &checkpoint(1), &[]).await.unwrap();
}

/// A chunk that begins its COPY, says so and never goes on.
fn stalled_chunk(pair: &Pair, lease: &Lease, mapping: &Arc<TableMapping>) -> (Arc<Notify>, AbortOnDropHandle<()>) {
    let begun = Arc::new(Notify::new());
    let mut rows = Stalled(Some(LoadBlock::Native("1\n".into())), begun.clone());
    let (target, lease, mapping) = (pair.target.clone(), lease.clone(), mapping.clone());
    let writer = tokio::spawn(async move {
        let done = entry("chunk");
        let write = ChunkWrite { mapping: &mapping, mode: ChunkMode::Insert, done: &done };
        target.write_chunk(&lease, &write, &mut rows).await.unwrap();
    });
    (begun, AbortOnDropHandle::new(writer))
}

/// What would wait for ever is a failure.
async fn within<T>(done: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("nothing is waited for that never comes")
}

/// The proof of the lease locks its row until the commit: one that was lost in between would keep everybody out.
#[tokio::test]
async fn a_lost_transaction_does_not_keep_the_lease() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    assert!(matches!(applier.apply(&group(vec![])).await.unwrap(), Applied::AsExpected));
    let claim = "SELECT format('%s, %s', classid::int8::bit(32)::int4, objid) FROM pg_locks JOIN pg_database ON oid = database WHERE datname = current_database() AND locktype = 'advisory'";
    let claim = pair.ask_target(claim).await.unwrap();
    let lost = pair.connected_to_target().await;
    lost.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock_shared({claim}); UPDATE godwit.lease SET counter = counter + 1"))
        .await
        .unwrap();
    let seen = pair.target.lease(&lease.task).await.unwrap();
    let taken = within(pair.target.take_lease(&lease.task, &holder(1), seen.as_ref())).await.unwrap().unwrap();
    assert_eq!(taken.epoch, lease.epoch + 1);
    assert!(lost.batch_execute("COMMIT").await.is_err());
}

#[tokio::test]
async fn a_checkpoint_moves_only_from_where_it_was() {
    let Some((pair, lease, mappings)) = made(18, TABLE).await else { return };
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert!(applier.commit(None, &checkpoint(2), &[]).await.unwrap_err().is(&codes::TARGET_CHANGED));
    applier.commit(Some(&checkpoint(1)), &checkpoint(2), &[]).await.unwrap();
}

#[tokio::test]
async fn keys_of_an_extensions_type_are_found_by_its_own_equality() {
    let sql = "CREATE EXTENSION citext; CREATE TABLE c (k citext PRIMARY KEY, v text); CREATE TABLE e (a int[] PRIMARY KEY, b varchar(3))";
    let Some((pair, lease, mappings)) = made(18, sql).await else { return };
    let (c, e) = (&mappings[0], &mappings[1]);
    assert!(!c.key_is_exact && !e.key_is_exact);
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let writes = vec![
        write(c, WriteKind::Insert, &[0, 1], &[vec![native("Ann"), native("1")]]),
        write(c, WriteKind::Update, &[1], &[vec![native("ANN"), native("2")]]),
        write(c, WriteKind::Upsert, &[0, 1], &[vec![native("ann"), native("3")]]),
        write(e, WriteKind::Insert, &[0, 1], &[vec![native("{1,2}"), native("x")]]),
        write(e, WriteKind::Delete, &[], &[vec![native("{1,2}")]]),
    ];
    let applied = applier.apply(&group(writes)).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT k || v FROM c").await.as_deref(), Some("ann3"), "an upsert writes the key as it is spelled");
}

#[tokio::test]
async fn a_row_of_1600_columns_is_written() {
    let columns: Vec<String> = (1..1600).map(|number| format!("c{number} int")).collect();
    let Some((pair, lease, mappings)) = made(15, &format!("CREATE TABLE w (id int PRIMARY KEY, {})", columns.join(", "))).await else {
        return;
    };
    let w = &mappings[0];
    let all: Vec<usize> = (0..1600).collect();
    let row = |id: &str| std::iter::once(native(id)).chain((1..1600).map(|number| native(&number.to_string()))).collect::<Vec<_>>();
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let writes = vec![
        write(w, WriteKind::Insert, &all, &[row("1"), row("2")]),
        write(w, WriteKind::Update, &all[1..], &[row("1")]),
        write(w, WriteKind::Upsert, &all, &[row("1"), row("3")]),
    ];
    let applied = applier.apply(&group(writes)).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT count(*) || ':' || sum(c1599) FROM w").await.as_deref(), Some("3:4797"));
}

#[tokio::test]
async fn swapped_values_of_a_deferrable_constraint_hold_at_the_end_of_a_group() {
    let sql = "CREATE TABLE d (id int PRIMARY KEY, u int UNIQUE DEFERRABLE)";
    let Some((pair, lease, mappings)) = made(18, sql).await else { return };
    pair.at_target("ALTER TABLE d ADD UNIQUE (u) DEFERRABLE; INSERT INTO d VALUES (1, 1), (2, 2)").await;
    let d = &mappings[0];
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let swap = |id: &str, u: &str| write(d, WriteKind::Update, &[1], &[vec![native(id), native(u)]]);
    let applied = applier.apply(&group(vec![swap("1", "2"), swap("2", "1")])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    // one of another key, as somebody else may have written it
    for rows in [1, 300] {
        let taken: Vec<_> = (0..rows).map(|more| vec![native(&(more + 10).to_string()), native(&(more + 2).to_string())]).collect();
        let refused = applier.apply(&group(vec![write(d, WriteKind::Insert, &[0, 1], &taken)])).await.unwrap();
        assert!(matches!(&refused, Applied::Refused(error) if error.is(&codes::CONFLICT)), "{refused:?}");
    }
    applier.commit(Some(&checkpoint(1)), &checkpoint(2), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT count(*) FROM d").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn triggers_of_the_target_are_kept_still_beside_a_deferrable_constraint() {
    let sql = "CREATE TABLE d (id int PRIMARY KEY, u int UNIQUE DEFERRABLE)";
    let Some((pair, lease, mappings)) = made(18, sql).await else { return };
    pair.at_target(
        "ALTER TABLE d ADD UNIQUE (u) DEFERRABLE;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON d FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let insert = write(&mappings[0], WriteKind::Insert, &[0, 1], &[vec![native("1"), native("1")]]);
    let applied = applier.apply(&group(vec![insert])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
}

/// Finish makes triggers, and people do, while the one applier of a task goes on.
#[tokio::test]
async fn a_trigger_made_in_mid_run_is_kept_still_beside_a_deferrable_constraint() {
    let sql = "CREATE TABLE d (id int PRIMARY KEY, u int UNIQUE DEFERRABLE)";
    let Some((pair, lease, mappings)) = made(18, sql).await else { return };
    pair.at_target(
        "ALTER TABLE d ADD UNIQUE (u) DEFERRABLE; CREATE TABLE fired (id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.fired VALUES (NEW.id); RETURN NEW; END $$",
    )
    .await;
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let insert = |id: &str, u: &str| group(vec![write(&mappings[0], WriteKind::Insert, &[0, 1], &[vec![native(id), native(u)]])]);
    let mut last = 0;
    for (made, removed) in [
        ("", ""),
        ("CREATE TRIGGER note BEFORE INSERT ON d FOR EACH ROW EXECUTE FUNCTION note()", "DROP TRIGGER note ON d"),
        ("CREATE RULE note AS ON INSERT TO d DO ALSO INSERT INTO public.fired VALUES (NEW.id)", "DROP RULE note ON d"),
    ] {
        pair.at_target(made).await;
        last += 1;
        let (before, now) = ((last > 1).then(|| checkpoint(last - 1)), checkpoint(last));
        let applied = applier.apply(&insert(&last.to_string(), &last.to_string())).await.unwrap();
        assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
        applier.commit(before.as_ref(), &now, &[]).await.unwrap();
        pair.at_target(removed).await;
    }
    assert_eq!(pair.ask_target("SELECT count(*) FROM fired").await.as_deref(), Some("0"));
    // and without them the constraint is checked again
    let refused = applier.apply(&insert("9", "1")).await.unwrap();
    assert!(matches!(&refused, Applied::Refused(error) if error.is(&codes::CONFLICT)), "{refused:?}");
    // one that a replica's writes are meant to fire does
    applier.commit(Some(&checkpoint(last)), &checkpoint(last + 1), &[]).await.unwrap();
    pair.at_target(
        "CREATE TRIGGER note BEFORE INSERT ON d FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE d ENABLE REPLICA TRIGGER note",
    )
    .await;
    let applied = applier.apply(&insert("9", "9")).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(Some(&checkpoint(last + 1)), &checkpoint(last + 2), &[]).await.unwrap();
    assert_eq!(pair.ask_target("SELECT string_agg(id::text, ',') FROM fired").await.as_deref(), Some("9"));
}

#[tokio::test]
async fn any_text_comes_back_as_it_went() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let sql = "CREATE TABLE v (id int PRIMARY KEY, t text, a text[], b bytea, c char(9), j json)";
    let Some((mut pair, lease, mappings)) = made(18, sql).await else { return };
    let v = &mappings[0];
    let mut runner = proptest::test_runner::TestRunner::default();
    let mut text = || "[^\\x00]{0,30}".new_tree(&mut runner).unwrap().current();
    let rows: Vec<Vec<Value>> = (0..500)
        .map(|id: i32| {
            let one = text();
            let element = one.replace('\\', "\\\\").replace('"', "\\\"");
            let array = format!("{{\"{element}\",NULL}}");
            let bytes: String = one.bytes().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
            let json = format!("[ {id} , \"{}\"]", "é'\\u00e9");
            vec![native(&id.to_string()), native(&text()), native(&array), native(&bytes), native("a        "), native(&json)]
        })
        .collect();
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let applied = applier.apply(&group(vec![write(v, WriteKind::Insert, &[0, 1, 2, 3, 4, 5], &rows)])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    pair.task.source = pair.task.target.clone();
    let mut keys = RowBatch::new(1);
    rows.iter().for_each(|row| keys.push([row[0].clone()]));
    let found = godwit_postgres::source(&pair.task).unwrap().rows(v, &keys).await.unwrap();
    assert_eq!(found.len(), rows.len());
    for row in found.rows() {
        let wanted = rows.iter().find(|wanted| wanted[0] == row[0]).unwrap();
        assert_eq!((&row[1], &row[3], &row[4], &row[5]), (&wanted[1], &wanted[3], &wanted[4], &wanted[5]));
    }
    let arrays = "SELECT bool_and(a[1] = convert_from(b, 'UTF8') AND a[2] IS NULL) FROM v";
    assert_eq!(pair.ask_target(arrays).await.as_deref(), Some("t"));
}

#[tokio::test]
async fn a_role_without_special_rights_loads_and_applies() {
    let Some(mut pair) = Pair::new(18, |task| task.schema.create = Create::Tables) else { return };
    pair.at_source("CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE); INSERT INTO t SELECT g, g FROM generate_series(1, 100) g").await;
    let role = "DO $$ BEGIN CREATE ROLE modest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;";
    let grants =
        format!("GRANT CREATE, TEMP ON DATABASE \"{}\" TO modest; GRANT CREATE ON SCHEMA public TO modest", pair.task.target.database);
    pair.at_target(&format!("{role}{grants}")).await;
    pair.task.target.user = Some("modest".into());
    pair.target = godwit_postgres::target(&pair.task).unwrap();
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let needs = godwit_model::TargetNeeds { task: &pair.task, description: &description, mappings: &mappings };
    let found = pair.target.check(&needs).await.unwrap();
    assert!(
        found.iter().any(|f| f.check == "replica_role") && found.iter().all(|f| f.severity != godwit_model::Severity::Blocker),
        "{found:?}"
    );
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    assert_eq!(pair.load(&lease, &mappings, &description, godwit_model::ChunkMode::Insert).await, 100);
    assert_eq!(pair.load(&lease, &mappings, &description, godwit_model::ChunkMode::Upsert).await, 100);
    let mut applier = pair.target.applier(&lease, &mappings).await.unwrap();
    let applied = applier.apply(&group(vec![write(&mappings[0], WriteKind::Delete, &[], &[vec![native("7")]])])).await.unwrap();
    assert!(matches!(applied, Applied::AsExpected), "{applied:?}");
    applier.commit(None, &checkpoint(1), &[entry("a")]).await.unwrap();
    applier.durable().await.unwrap();
    pair.perform(&lease, &description, Stage::AfterLoad).await;
}
