//! A plain task with every default, for tests to change what they mean to.

use std::time::Duration;

use godwit_model::{
    BudgetEnd, ByteCount, Create, DdlPolicy, EndpointConfig, Existing, Grants, Limits, LogBudget, Mode, Owners, Phases, SchemaPolicy,
    Selection, Task, TaskName, Tls, Writes,
};

/// Between two memory stores; everything selected, names kept, target tables must be empty.
pub fn task(name: &str) -> Task {
    Task {
        name: self::name(name),
        mode: Mode::Migrate,
        source: memory("first"),
        target: memory("second"),
        writes: Writes::Marker,
        log_budget: LogBudget { size: None, then: BudgetEnd::Stop },
        existing: Existing::Refuse,
        select: Selection::default(),
        map: Vec::new(),
        phases: Phases { schema: true, load: true, changes: true },
        from: None,
        schema: SchemaPolicy { create: Create::All, owners: Owners::Current, grants: Grants::List, changes: DdlPolicy::Carry },
        limits: limits(),
        verify_at_finish: true,
    }
}

/// Panics unless it is a task's name.
pub fn name(name: &str) -> TaskName {
    TaskName::parse(name).expect("a test gives a valid task name")
}

fn limits() -> Limits {
    Limits {
        memory: ByteCount(256 << 20),
        source_connections: 4,
        target_connections: 4,
        change_log: ByteCount(1 << 30),
        snapshot_age: Duration::from_secs(3600),
    }
}

fn memory(database: &str) -> EndpointConfig {
    EndpointConfig {
        engine: "memory".to_owned(),
        host: String::new(),
        port: None,
        user: None,
        password: None,
        database: database.to_owned(),
        tls: Tls::default(),
        options: Vec::new(),
    }
}
