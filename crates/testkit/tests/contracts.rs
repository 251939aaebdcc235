//! The memory engine keeps every promise of both contracts, in each of its ways to behave.

mod source {
    use godwit_testkit::memory::SourceOptions;

    mod plain {
        godwit_testkit::source_contract!(godwit_testkit::memory::MemoryHarness::default());
    }

    mod without_exact_snapshot {
        godwit_testkit::source_contract!(godwit_testkit::memory::MemoryHarness {
            options: super::SourceOptions { exact_snapshot: false, idle: false, batch_changes: 1, ..Default::default() }
        });
    }

    mod not_written_to {
        godwit_testkit::source_contract!(godwit_testkit::memory::MemoryHarness {
            options: super::SourceOptions { writes: false, ..Default::default() }
        });
    }

    mod streaming {
        godwit_testkit::source_contract!(godwit_testkit::memory::MemoryHarness {
            options: super::SourceOptions { stream_after: Some(0), ..Default::default() }
        });
    }
}

mod target {
    godwit_testkit::target_contract!(godwit_testkit::memory::MemoryHarness::default());
}
