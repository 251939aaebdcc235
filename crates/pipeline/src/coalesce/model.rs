//! The initial load as a random model over the real coalescing: a heap whose rows move between slots, snapshots renewed
//! between chunks, chunks written in any order, unsent values, key changes, re-read rounds. At P1 both sides are equal.
//!
//! And strict replay: from an exact copy every group leaves the target as the source was there, and every row counted.

use std::collections::BTreeMap;

use fastrand::Rng;
use godwit_model::{ColumnMapping, Layout, LayoutColumn, LayoutId, TableName};

use super::*;

const SLOTS: usize = 12;
const KEYS: i64 = 6;
const CHUNKS: usize = 4;
const ROUNDS: usize = 20;

/// Small and large column of a row.
type Rest = (i64, i64);

#[derive(Clone, Copy)]
enum Logged {
    Insert(i64, Rest),
    Delete(i64),
    /// From key, to key, small, large (None: unsent).
    Update(i64, i64, i64, Option<i64>),
    Truncate,
}

struct Store {
    random: Rng,
    /// By key: slot and rest.
    rows: BTreeMap<i64, (usize, Rest)>,
    log: Vec<Logged>,
    /// State i is the one before log entry i.
    states: Vec<BTreeMap<i64, (usize, Rest)>>,
    next: i64,
}

impl Store {
    fn new(seed: u64) -> Self {
        let mut store = Store { random: Rng::with_seed(seed), rows: BTreeMap::new(), log: Vec::new(), states: Vec::new(), next: 0 };
        for key in 0..KEYS {
            if store.random.u8(0..10) < 6 {
                let row = (store.free(), (store.value(), store.value()));
                store.rows.insert(key, row);
            }
        }
        store.states.push(store.rows.clone());
        store
    }

    fn value(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn free(&mut self) -> usize {
        let free: Vec<usize> = (0..SLOTS).filter(|slot| self.rows.values().all(|(used, _)| used != slot)).collect();
        free[self.random.usize(0..free.len())]
    }

    fn pick(&mut self, from: &[i64]) -> Option<i64> {
        (!from.is_empty()).then(|| from[self.random.usize(0..from.len())])
    }

    fn step(&mut self) {
        let there: Vec<i64> = self.rows.keys().copied().collect();
        let free: Vec<i64> = (0..KEYS).filter(|key| !there.contains(key)).collect();
        let (row, place) = (self.pick(&there), self.pick(&free));
        let logged = match (self.random.u8(0..100), row, place) {
            (0..25, _, Some(key)) => {
                let row = (self.free(), (self.value(), self.value()));
                self.rows.insert(key, row);
                Logged::Insert(key, row.1)
            }
            (25..45, Some(key), _) => {
                self.rows.remove(&key);
                Logged::Delete(key)
            }
            (45..75, Some(key), _) => {
                let large = (self.random.u8(0..6) == 0).then(|| self.value());
                self.change(key, key, large)
            }
            (75..98, Some(key), Some(other)) => {
                let large = (self.random.u8(0..4) == 0).then(|| self.value());
                self.change(key, other, large)
            }
            (98.., _, _) => {
                self.rows.clear();
                Logged::Truncate
            }
            _ => return,
        };
        self.log.push(logged);
        self.states.push(self.rows.clone());
    }

    fn change(&mut self, from: i64, to: i64, large: Option<i64>) -> Logged {
        let (_, (_, old)) = self.rows[&from];
        self.rows.remove(&from);
        let row = (self.free(), (self.value(), large.unwrap_or(old)));
        self.rows.insert(to, row);
        Logged::Update(from, to, row.1.0, large)
    }

    fn now(&self) -> usize {
        self.log.len()
    }

    fn seen(&self, at: usize) -> BTreeMap<i64, Rest> {
        self.states[at].iter().map(|(key, (_, rest))| (*key, *rest)).collect()
    }
}

fn projection(key_is_exact: bool) -> Projection {
    let names = ["id", "small", "large"];
    let table = TableName::new("public", "item");
    let column = |name: &str| ColumnMapping { source: name.into(), target: name.into(), type_name: "int".into() };
    let columns = names.map(column).to_vec();
    let mapping = TableMapping { source: table.clone(), target: table.clone(), columns, key: vec![0], key_is_exact, has_uniques: false };
    let column = |name: &str| LayoutColumn { name: name.into(), type_name: "int".into(), key: name == "id" };
    let layout = Layout { id: LayoutId(1), table, columns: names.map(column).to_vec(), full_old_images: false };
    Projection::new(Arc::new(mapping), &layout).unwrap()
}

fn batch_of(log: &[Logged]) -> ChangeBatch {
    let id = LayoutId(1);
    let old = |key: i64| vec![Value::Int(key), Value::Absent, Value::Absent];
    let mut batch = ChangeBatch::default();
    for logged in log {
        match *logged {
            Logged::Insert(key, (small, large)) => batch.push_insert(id, [key, small, large].map(Value::Int)),
            Logged::Delete(key) => batch.push_delete(id, old(key), false),
            Logged::Truncate => batch.push_truncate(id),
            Logged::Update(from, to, small, large) => {
                let new = [Value::Int(to), Value::Int(small), large.map_or(Value::Unsent, Value::Int)];
                batch.push_update(id, (from != to).then(|| old(from)), false, new);
            }
        }
    }
    batch
}

/// As one group, or (the way after a refusal) change by change.
fn coalesced(projection: &Projection, log: &[Logged], footing: Footing, singly: bool) -> Coalesced {
    let batch = batch_of(log);
    let mut all = Coalesced::default();
    let mut coalescer = Coalescer::new(footing);
    for change in &batch.changes {
        coalescer.push(projection, &batch, change).unwrap();
        if singly {
            let Coalesced { writes, reread } = std::mem::replace(&mut coalescer, Coalescer::new(footing)).finish();
            all.writes.extend(writes);
            all.reread.extend(reread);
        }
    }
    let Coalesced { writes, reread } = coalescer.finish();
    all.writes.extend(writes);
    all.reread.extend(reread);
    all
}

fn int(value: &Value) -> i64 {
    if let Value::Int(number) = value { *number } else { panic!("{value:?} was written") }
}

/// Writes as a target does; panics where a strict write does not touch what it should.
fn write(target: &mut BTreeMap<i64, Rest>, write: &TableWrite) {
    if write.kind == WriteKind::Truncate {
        target.clear();
    }
    for row in write.rows.rows() {
        let leading = usize::from(matches!(write.kind, WriteKind::Update | WriteKind::Delete));
        let (key, values) = row.split_at(leading);
        let set = |column: usize| write.columns.iter().position(|there| *there == column).map(|index| int(&values[index]));
        match write.kind {
            WriteKind::Delete => {
                let gone = target.remove(&int(&key[0]));
                assert!(gone.is_some() || !write.strict);
            }
            WriteKind::Update => {
                let Some(base) = target.remove(&int(&key[0])) else {
                    assert!(!write.strict, "an update of a row that is not there");
                    continue;
                };
                let to = set(0).unwrap_or(int(&key[0]));
                let displaced = target.insert(to, (set(1).unwrap_or(base.0), set(2).unwrap_or(base.1)));
                assert_eq!(displaced, None);
            }
            WriteKind::Insert | WriteKind::Upsert => {
                let displaced = target.insert(set(0).unwrap(), (set(1).unwrap(), set(2).unwrap()));
                assert!(displaced.is_none() || write.kind == WriteKind::Upsert);
            }
            _ => {}
        }
    }
}

/// Keys the log could not tell, in the target as they are at the source now.
fn read_again(store: &Store, target: &mut BTreeMap<i64, Rest>, list: &mut Vec<i64>) {
    let now = store.seen(store.now());
    for key in list.drain(..) {
        match now.get(&key) {
            Some(rest) => target.insert(key, *rest),
            None => target.remove(&key),
        };
    }
}

fn load(store: &mut Store, target: &mut BTreeMap<i64, Rest>) {
    let size = SLOTS / CHUNKS;
    let (mut snapshot, mut waiting) = (store.now(), Vec::new());
    let mut order: Vec<usize> = (0..CHUNKS).collect();
    store.random.shuffle(&mut order);
    for chunk in order {
        (0..store.random.usize(0..4)).for_each(|_| store.step());
        if store.random.u8(0..10) < 4 {
            snapshot = store.now();
        }
        let range = chunk * size..(chunk + 1) * size;
        let rows: Vec<(i64, Rest)> =
            store.states[snapshot].iter().filter(|(_, (slot, _))| range.contains(slot)).map(|(key, (_, rest))| (*key, *rest)).collect();
        waiting.push(rows);
        store.random.shuffle(&mut waiting);
        while !waiting.is_empty() && store.random.u8(0..10) < 6 {
            target.extend(waiting.pop().unwrap());
        }
    }
    target.extend(waiting.into_iter().flatten());
}

fn converges(seed: u64) {
    let mut store = Store::new(seed);
    let mut target = BTreeMap::new();
    load(&mut store, &mut target);
    let projection = projection(store.random.bool());
    let (mut applied, mut p1, mut list) = (0, store.now(), Vec::new());
    let first = p1;
    for round in 0.. {
        assert!(round < ROUNDS, "seed {seed}: endless");
        while applied < p1 {
            let footing = if applied < first { Footing::Convergent } else { Footing::Closing };
            let until = if applied < first { first } else { p1 };
            let end = (applied + store.random.usize(1..8)).min(until);
            let singly = store.random.u8(0..4) == 0;
            let group = coalesced(&projection, &store.log[applied..end], footing, singly);
            group.writes.iter().for_each(|one| write(&mut target, one));
            list.extend(group.reread.iter().map(|again| int(&again.key[0])));
            applied = end;
            // a list that is long is read before P1
            if !list.is_empty() && store.random.u8(0..6) == 0 {
                read_again(&store, &mut target, &mut list);
                p1 = store.now();
            }
            (0..store.random.usize(0..2)).for_each(|_| store.step());
        }
        if list.is_empty() {
            break;
        }
        read_again(&store, &mut target, &mut list);
        p1 = store.now();
        (0..store.random.usize(0..3)).for_each(|_| store.step());
    }
    assert_eq!(target, store.seen(p1), "seed {seed}");
}

/// Users change rows in their place in every moment, most of the time without the large value: the second marker is P1.
fn closes_under_writes(seed: u64) {
    let mut store = Store::new(seed);
    let mut target = BTreeMap::new();
    load(&mut store, &mut target);
    let projection = projection(true);
    let change = |store: &mut Store| {
        let there: Vec<i64> = store.rows.keys().copied().collect();
        if let Some(key) = store.pick(&there) {
            let large = (store.random.u8(0..6) == 0).then(|| store.value());
            let logged = store.change(key, key, large);
            store.log.push(logged);
            store.states.push(store.rows.clone());
        }
    };
    let (first, mut list) = (store.now(), Vec::new());
    let apply = |from: &[Logged], footing, target: &mut BTreeMap<i64, Rest>| {
        let group = coalesced(&projection, from, footing, false);
        group.writes.iter().for_each(|one| write(target, one));
        group.reread.iter().map(|again| int(&again.key[0])).collect::<Vec<_>>()
    };
    list.extend(apply(&store.log[..first], Footing::Convergent, &mut target));
    (0..10).for_each(|_| change(&mut store));
    read_again(&store, &mut target, &mut list);
    (0..10).for_each(|_| change(&mut store));
    let p1 = store.now();
    assert_eq!(apply(&store.log[first..p1], Footing::Closing, &mut target), [0; 0], "seed {seed}");
    assert_eq!(target, store.seen(p1), "seed {seed}");
}

fn stays_equal(seed: u64) {
    let mut store = Store::new(seed);
    let mut target = store.seen(0);
    (0..40).for_each(|_| store.step());
    let projection = projection(store.random.bool());
    let mut applied = 0;
    while applied < store.now() {
        let end = (applied + store.random.usize(1..12)).min(store.now());
        let singly = store.random.u8(0..4) == 0;
        let group = coalesced(&projection, &store.log[applied..end], Footing::Strict, singly);
        assert!(group.reread.is_empty(), "seed {seed}");
        group.writes.iter().for_each(|one| write(&mut target, one));
        applied = end;
        assert_eq!(target, store.seen(applied), "seed {seed}");
    }
}

#[test]
fn convergent_replay_ends_equal_at_p1() {
    (0..20_000).for_each(converges);
}

#[test]
fn the_window_closes_under_users_who_never_rest() {
    (0..5_000).for_each(closes_under_writes);
}

#[test]
fn strict_replay_is_equal_behind_every_group() {
    (0..20_000).for_each(stays_equal);
}
