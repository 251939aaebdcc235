//! Which objects lean on which, as the catalog records it.
//!
//! Objects that no dump makes for themselves stand for the one whose text holds them: a view's rule for the view, a
//! default and a check for their table, the row type of a composite type for the type. What a function's body names is
//! in no catalog, unless it is written in the standard's way (`BEGIN ATOMIC`).

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures_util::TryStreamExt as _;
use godwit_model::Result;
use tokio_postgres::Client;

use crate::error;

/// Class (the catalog's own number) and object.
pub(crate) type Object = (u32, u32);

/// `pg_class`, whose number never changes.
pub(crate) const RELATION: u32 = 1259;

#[derive(Default)]
pub(crate) struct Graph {
    /// Object, what leans on it, and whether that is a part of it (goes when it goes).
    above: HashMap<Object, Vec<(Object, bool)>>,
    below: HashMap<Object, Vec<Object>>,
    stands_for: HashMap<Object, Object>,
}

const EDGES: &str = "
SELECT classid, objid, refclassid, refobjid, deptype IN ('a', 'i', 'P', 'S')
FROM pg_depend WHERE deptype <> 'p' AND refobjid >= 16384";

const STANDING: &str = "
SELECT 'pg_rewrite'::regclass::oid, r.oid, 'pg_class'::regclass::oid, r.ev_class FROM pg_rewrite r WHERE r.rulename = '_RETURN'
UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, 'pg_class'::regclass, d.adrelid FROM pg_attrdef d
UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 'pg_class'::regclass, k.conrelid FROM pg_constraint k WHERE k.contype = 'c' AND k.conrelid <> 0
UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 'pg_type'::regclass, k.contypid FROM pg_constraint k WHERE k.contypid <> 0
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'pg_type'::regclass, c.reltype FROM pg_class c WHERE c.relkind = 'c'";

const NO_PARAMETERS: [i32; 0] = [];

impl Graph {
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let mut graph = Graph::default();
        // some twenty rows for each table there is: none is held longer than it is looked at
        let mut standing = pin!(client.query_raw(STANDING, NO_PARAMETERS).await.map_err(error::from_server)?);
        while let Some(row) = standing.try_next().await.map_err(error::from_server)? {
            graph.stands_for.insert((row.get(0), row.get(1)), (row.get(2), row.get(3)));
        }
        let mut edges = pin!(client.query_raw(EDGES, NO_PARAMETERS).await.map_err(error::from_server)?);
        while let Some(row) = edges.try_next().await.map_err(error::from_server)? {
            graph.add((row.get(0), row.get(1)), (row.get(2), row.get(3)), row.get(4));
        }
        Ok(graph)
    }

    fn add(&mut self, object: Object, on: Object, part: bool) {
        let (object, on) = (self.whole(object), self.whole(on));
        if object != on {
            self.above.entry(on).or_default().push((object, part));
            self.below.entry(object).or_default().push(on);
        }
    }

    pub(crate) fn whole(&self, object: Object) -> Object {
        self.stands_for.get(&object).copied().unwrap_or(object)
    }

    /// Everything that cannot be as it was once the seeds are not.
    pub(crate) fn lost(&self, seeds: &[Object]) -> Lost {
        let mut lost = Lost::default();
        for seed in seeds {
            lost.causes.insert(*seed, Loss { seed: *seed, part: true });
        }
        // parts first, so that what belongs to one seed and leans on another counts as the first one's
        lost.spread(self, seeds.to_vec(), true);
        let reached: Vec<Object> = lost.causes.keys().copied().collect();
        lost.spread(self, reached, false);
        lost
    }

    /// All that these lean on, themselves included, without what stands behind a barrier.
    pub(crate) fn needed(&self, objects: impl IntoIterator<Item = Object>, barrier: &Lost) -> HashSet<Object> {
        let mut open: Vec<Object> = objects.into_iter().collect();
        let mut seen: HashSet<Object> = open.iter().copied().collect();
        while let Some(object) = open.pop() {
            for on in self.below.get(&object).into_iter().flatten() {
                if barrier.of(*on).is_none() && seen.insert(*on) {
                    open.push(*on);
                }
            }
        }
        seen
    }

    /// The nearest objects below this one for which `known` has a name.
    pub(crate) fn nearest<'a>(&self, object: Object, known: &HashMap<Object, &'a str>) -> Vec<&'a str> {
        let (mut open, mut seen, mut found) = (vec![object], HashSet::from([object]), Vec::new());
        while let Some(next) = open.pop() {
            for on in self.below.get(&next).into_iter().flatten() {
                if !seen.insert(*on) {
                    continue;
                }
                match known.get(on) {
                    Some(name) => found.push(*name),
                    None => open.push(*on),
                }
            }
        }
        found
    }
}

/// Why an object cannot be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loss {
    pub(crate) seed: Object,
    /// Whether it is a part of the seed, and not only leans on it.
    pub(crate) part: bool,
}

#[derive(Default)]
pub(crate) struct Lost {
    causes: HashMap<Object, Loss>,
}

impl Lost {
    pub(crate) fn of(&self, object: Object) -> Option<Loss> {
        self.causes.get(&object).copied()
    }

    fn spread(&mut self, graph: &Graph, mut open: Vec<Object>, parts_only: bool) {
        // one order whatever the map's is: which seed is named must not change from run to run
        open.sort_unstable_by(|a, b| b.cmp(a));
        while let Some(object) = open.pop() {
            let Some(loss) = self.of(object) else { continue };
            for (above, part) in graph.above.get(&object).into_iter().flatten() {
                if (*part || !parts_only) && !self.causes.contains_key(above) {
                    self.causes.insert(*above, Loss { seed: loss.seed, part: parts_only });
                    open.push(*above);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Object = (RELATION, 1);
    const OTHER: Object = (RELATION, 2);
    const VIEW: Object = (RELATION, 3);
    const RULE: Object = (2618, 4);
    const FOREIGN_KEY: Object = (2606, 5);
    const FUNCTION: Object = (1255, 6);

    fn graph() -> Graph {
        let mut graph = Graph::default();
        graph.stands_for.insert(RULE, VIEW);
        graph.add(RULE, VIEW, true);
        graph.add(RULE, TABLE, false);
        graph.add(RULE, FUNCTION, false);
        graph.add(FOREIGN_KEY, OTHER, true);
        graph.add(FOREIGN_KEY, TABLE, false);
        graph
    }

    #[test]
    fn a_view_goes_with_its_table_and_a_part_with_its_whole() {
        let lost = graph().lost(&[TABLE]);
        assert_eq!(lost.of(VIEW), Some(Loss { seed: TABLE, part: false }));
        assert_eq!(lost.of(FOREIGN_KEY), Some(Loss { seed: TABLE, part: false }));
        assert_eq!((lost.of(OTHER), lost.of(FUNCTION)), (None, None));
        assert_eq!(graph().lost(&[OTHER, TABLE]).of(FOREIGN_KEY), Some(Loss { seed: OTHER, part: true }));
    }

    #[test]
    fn what_is_kept_brings_what_it_needs() {
        let graph = graph();
        let needed = graph.needed([VIEW], &graph.lost(&[OTHER]));
        assert!(needed.contains(&FUNCTION) && needed.contains(&TABLE));
        assert_eq!(graph.nearest(VIEW, &HashMap::from([(FUNCTION, "f")])), ["f"]);
    }
}
