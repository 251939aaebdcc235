//! How much of everything.

pub struct Sizes {
    /// Scale of pgbench's tables for the full load: 100,000 rows and 15 MB with its key each.
    pub load_scale: u32,
    pub documents: u64,
    pub backlog_scale: u32,
    pub backlog_transactions: u32,
    /// Rows of the one UPDATE and the one INSERT.
    pub bulk_rows: u64,
    /// Transactions of the service model, two changes each.
    pub service_transactions: u64,
    pub latency_seconds: u64,
    /// Rows of the one large transaction.
    pub large_rows: u64,
}

impl Sizes {
    pub fn full() -> Self {
        Sizes {
            load_scale: 50,
            documents: 1_300_000,
            backlog_scale: 30,
            backlog_transactions: 40_000,
            bulk_rows: 500_000,
            service_transactions: 150_000,
            latency_seconds: 30,
            large_rows: 10_000_000,
        }
    }

    pub fn quick() -> Self {
        Sizes {
            load_scale: 6,
            documents: 160_000,
            backlog_scale: 5,
            backlog_transactions: 8_000,
            bulk_rows: 50_000,
            service_transactions: 15_000,
            latency_seconds: 8,
            large_rows: 500_000,
        }
    }
}
