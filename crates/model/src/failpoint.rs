//! Named points at which tests end the process as `kill -9` would.
//!
//! `GODWIT_FAILPOINT=name` or `name@3` (the third time it is passed) aborts there, in builds with debug assertions only;
//! in release builds the call is empty. The kill tests walk `Failpoints::ALL` and fail if one of them never fires.

/// The registry.
pub struct Failpoints;

impl Failpoints {
    pub const ALL: &'static [&'static str] = &[
        "establish.slot.before",
        "establish.slot.after",
        "load.snapshot.opened",
        "load.plan.recorded",
        "load.chunk.written",
        "load.chunk.committed",
        "load.table.whole",
        "load.indexed",
        "load.done.recorded",
        "capture.log.write",
        "capture.log.sync.before",
        "capture.log.sync.after",
        "capture.confirm.before",
        "capture.confirm.after",
        "log.segment.roll",
        "log.trim",
        "apply.group.written",
        "apply.commit.before",
        "apply.commit.sent",
        "apply.commit.after",
        "apply.reread",
        "p1.marked",
        "p1.reached",
        "ddl.intent",
        "ddl.done",
        "schema.step.before",
        "schema.step.after",
        "finish.drained",
        "finish.sequences",
        "finish.schema",
        "finish.verified",
        "finish.removed.source",
        "finish.removed.target",
        "clean.source",
        "clean.target",
    ];
}

/// Passes the point of this name.
#[inline]
pub fn failpoint(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        left: AtomicU64,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    fn read() -> Option<Armed> {
        let text = std::env::var("GODWIT_FAILPOINT").ok()?;
        let (name, count) = text.split_once('@').unwrap_or((&text, "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1).max(1)) })
    }

    pub(super) fn pass(name: &'static str) {
        debug_assert!(super::Failpoints::ALL.contains(&name), "failpoint {name} is not in the registry");
        let Some(armed) = ARMED.get_or_init(read) else { return };
        if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            eprintln!("failpoint {name} fired");
            std::process::abort();
        }
    }
}
