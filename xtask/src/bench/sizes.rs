//! How much of everything.

/// A source for the full load.
pub struct Amount {
    /// Scale of pgbench's tables: 100,000 rows and 15 MB with its key each.
    pub scale: u32,
    pub documents: u64,
}

pub struct Sizes {
    pub load: Amount,
    /// What full loads grow over.
    pub growing_loads: [Amount; 3],
    pub growing_tables: [u64; 3],
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
            load: Amount { scale: 50, documents: 1_300_000 },
            growing_loads: [(12, 304_000), (48, 1_216_000), (200, 5_066_000)].map(amount),
            growing_tables: [10, 1_000, 10_000],
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
            load: Amount { scale: 6, documents: 160_000 },
            growing_loads: [(2, 51_000), (6, 152_000), (24, 608_000)].map(amount),
            growing_tables: [10, 100, 1_000],
            backlog_scale: 5,
            backlog_transactions: 8_000,
            bulk_rows: 50_000,
            service_transactions: 15_000,
            latency_seconds: 8,
            large_rows: 500_000,
        }
    }
}

fn amount((scale, documents): (u32, u64)) -> Amount {
    Amount { scale, documents }
}
