//! The suites that every implementation of a contract passes.
//!
//! An engine's tests give a `Harness`: something that makes fresh stores with neutral tables. Each function of `source` and
//! `target` then states one promise; `source_contract!` and `target_contract!` make one test of each. Promises say nothing
//! about how an engine keeps them: where a store offers less (no exact snapshot, no sequences), the suite asks.

mod collect;
mod follow;
mod given;
mod harness;
mod replay;

pub mod source;
pub mod target;

pub use follow::Follower;
pub use harness::{Bench, Harness, Reshape, within};

/// One `#[tokio::test]` for each promise of a source. The argument is an expression that makes the harness.
#[macro_export]
macro_rules! source_contract {
    ($harness:expr) => {
        $crate::contract_tests! { $harness, source:
            snapshot_and_changes_give_the_final_state,
            a_table_without_a_key_is_followed_row_by_row,
            every_transaction_comes_once_and_in_order,
            what_was_rolled_back_is_never_seen,
            markers_lie_where_they_were_written,
            a_stream_goes_on_from_any_confirmed_position,
            what_was_not_confirmed_comes_again,
            a_new_stream_takes_over_from_a_dropped_one,
            next_may_be_dropped_while_pending,
            establish_may_be_repeated,
            a_lost_position_is_named,
            rows_are_found_by_key,
            chunks_cover_every_row_once,
            a_snapshot_does_not_see_later_changes,
            unchanged_large_values_are_never_null,
            a_changed_key_names_the_old_one,
            only_selected_tables_are_told,
            digests_count_every_row,
            a_look_is_the_store_at_one_place_of_its_log,
            traces_are_removed,
            tables_that_come_are_selected,
            a_table_that_is_left_alone_looks_the_same,
            an_added_column_is_told_with_what_rows_hold_in_it,
            a_dropped_column_is_told,
            a_renamed_column_is_told_as_one,
            another_type_is_never_taken_for_proved,
            the_stream_states_the_columns_of_a_look,
        }
    };
}

/// One `#[tokio::test]` for each promise of a target.
#[macro_export]
macro_rules! target_contract {
    ($harness:expr) => {
        $crate::contract_tests! { $harness, target:
            a_lease_is_taken_once_and_taken_over,
            a_released_lease_has_no_holder,
            an_old_epoch_cannot_write,
            the_ledger_reads_back,
            a_chunk_and_its_mark_are_one,
            a_chunk_that_fails_leaves_nothing,
            a_stale_chunk_leaves_nothing,
            an_inserted_chunk_refuses_a_key_that_is_there,
            an_upserted_chunk_overwrites,
            chunks_are_written_side_by_side,
            inserts_updates_and_deletes_are_applied,
            columns_that_are_not_named_stay,
            a_key_may_change,
            upserts_insert_and_overwrite,
            rows_without_a_key_are_changed_one_by_one,
            truncate_empties,
            a_wrong_count_leaves_no_effect,
            counts_do_not_matter_where_they_are_not_strict,
            a_refused_write_leaves_no_effect,
            unique_constraints_refuse,
            nothing_is_visible_before_the_commit,
            an_abandoned_transaction_leaves_nothing,
            a_dropped_applier_leaves_nothing,
            a_commit_moves_the_checkpoint_from_the_one_before,
            entries_come_with_the_commit,
            tables_are_emptied_and_dropped,
            schema_steps_are_performed_once,
            sequences_never_go_back,
            hashes_follow_the_rows,
            the_tasks_traces_are_removed,
            columns_come_and_go_with_their_entries,
            a_renamed_column_keeps_its_values,
            an_old_epoch_cannot_alter,
            both_ends_spell_a_structure_alike,
            a_feature_is_removed_and_made_again,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($harness:expr, $suite:ident: $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let harness = $harness;
                $crate::contract::within($crate::contract::$suite::$name(&harness)).await;
            }
        )*
    };
}
