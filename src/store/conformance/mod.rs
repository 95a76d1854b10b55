//! Checks of the rules that every [`Store`] must keep. They run against any store.
//!
//! Each check is an async function that takes a new store, is named after the rule that it checks, and panics if the
//! store breaks the rule. [`run`] runs all checks. [`store_conformance!`](crate::store_conformance) makes each check a
//! test case:
//!
//! ```
//! use resilient_sse::{MemoryStore, store_conformance};
//!
//! store_conformance!(
//!     #[tokio::test(start_paused = true)]
//!     mod memory = || async { MemoryStore::new() }
//! );
//! # fn main() {}
//! ```
//!
//! The store must be empty, and nothing else may use it while a check runs. Checks work with real and with paused time:
//! they set short retentions, and then repeat a request until the store gives the expected answer, for at most 10 s.
//! They spawn tasks, so they need a tokio runtime with time enabled.

#![allow(clippy::expect_used, clippy::panic, reason = "checks are made of assertions")]

mod bench;
mod pointer_bench;

pub mod append;
pub mod close;
pub mod due;
pub mod epoch;
pub mod identity;
pub mod open;
pub mod owners;
pub mod pointer;
pub mod publish;
pub mod read;
pub mod reopen;
pub mod tail;
pub mod turn;
pub mod withdraw;

use std::future::Future;

use super::Store;

/// Calls another macro with its arguments and the list of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_checks {
    ($callback:path, $($arguments:tt)*) => {
        $callback! {
            $($arguments)*;
            open::a_new_stream_is_the_callers,
            open::a_repeat_is_known_by_its_token,
            open::an_active_stream_is_anothers,
            open::an_interrupted_stream_is_run_again_in_a_higher_epoch,
            open::an_ended_stream_is_not_run_again,
            open::a_missing_stream_is_not_created_unasked,
            open::a_limit_counts_active_streams,
            open::of_racing_requests_exactly_the_limit_is_allowed,
            identity::another_fingerprint_is_refused,
            identity::another_kind_is_refused,
            identity::the_same_kind_is_not_refused,
            identity::a_made_up_id_opens_only_its_own,
            identity::a_made_up_id_stays_made_up,
            identity::a_published_stream_has_no_kind_to_compare,
            identity::origin_kind_and_fingerprint_are_told,
            epoch::epochs_are_times_and_rise,
            epoch::epochs_rise_across_withdrawal_and_deletion,
            epoch::epochs_rise_across_expiry,
            open::of_ten_thousand_racing_requests_one_per_stream_produces,
            append::a_log_is_dense,
            append::a_repeat_changes_nothing,
            append::an_overlap_is_refused,
            append::a_hole_stays_one,
            append::batches_are_answered_one_by_one,
            append::an_older_run_is_fenced,
            append::after_the_end_nothing_is_appended,
            append::an_append_without_events_does_not_start_a_stream,
            append::an_append_that_says_so_starts_a_stream,
            append::metadata_is_merged,
            append::metadata_is_a_runs_own,
            append::metadata_is_bounded,
            append::the_inner_id_is_kept,
            append::the_inner_retry_is_kept,
            close::the_first_end_wins,
            close::racing_ends_agree,
            close::the_end_says_what_was_made_last,
            close::many_are_ended_each_for_itself,
            close::a_deadline_that_moved_is_no_reason_to_close,
            close::another_run_is_not_closed,
            close::whichever_runs_can_be_closed,
            close::an_interrupted_stream_can_be_closed,
            close::a_foreign_end_is_posted_to_the_producing_node,
            close::a_deletion_is_posted_to_the_producing_node,
            close::an_interruption_keeps_the_log,
            close::an_interruption_is_conditional,
            withdraw::a_withdrawn_new_stream_is_gone,
            withdraw::a_withdrawn_second_run_leaves_the_stream_interrupted,
            withdraw::a_started_run_is_not_withdrawn,
            withdraw::a_run_that_only_kept_something_is_withdrawn,
            withdraw::only_the_own_request_is_withdrawn,
            reopen::a_forgotten_stream_is_registered_again,
            reopen::a_producer_that_had_not_begun_may_still_withdraw,
            reopen::the_inner_id_comes_back,
            reopen::what_was_lost_is_known_at_the_end,
            reopen::a_repeat_is_registered,
            reopen::a_run_that_was_lost_is_registered_over_an_older_one,
            reopen::a_run_over_an_older_one_has_started_if_it_made_something,
            reopen::a_run_that_was_lost_replaces_one_that_had_ended,
            reopen::a_newer_run_fences,
            read::pages_are_bounded_and_complete,
            read::a_page_holds_at_least_one_entry,
            read::a_reader_starts_where_it_says,
            read::an_epoch_is_known_or_not,
            read::markers_say_where_the_run_before_ended,
            read::logs_are_bounded_in_events,
            read::logs_are_bounded_in_bytes,
            read::runs_without_events_leave_nothing,
            read::logs_are_bounded_in_runs,
            read::the_end_is_the_last_record,
            publish::the_first_event_opens_the_stream,
            publish::a_key_makes_a_repeat_harmless,
            publish::a_standing_producer_appends_alone,
            publish::an_event_may_end_the_stream,
            publish::an_event_after_expiry_begins_a_new_run,
            publish::keys_are_known_over_expiry,
            publish::a_stream_expires_more_than_once,
            publish::the_expiry_of_a_producer_stays,
            publish::racing_events_get_ids_of_their_own,
            due::a_beat_pushes_deadlines_and_names_the_lost,
            due::the_stores_clock_and_run_are_told,
            due::overdue_streams_are_given_only_to_those_who_may_claim,
            due::an_overdue_stream_is_given_to_one,
            due::a_lease_ends,
            due::a_lifetime_ends,
            due::a_claim_looks_no_further_than_the_time_it_names,
            due::a_lifetime_is_looked_after_by_one,
            due::a_hook_is_due_until_it_is_done,
            due::what_has_expired_is_gone,
            due::an_interrupted_stream_expires,
            due::silent_streams_are_listed,
            owners::an_owners_streams_are_listed,
            owners::an_owners_streams_are_listed_in_pages,
            owners::a_foreign_stream_is_a_missing_one,
            owners::a_deleted_stream_is_gone,
            owners::active_streams_are_counted,
            pointer::a_pointer_names_the_newest,
            pointer::a_pointer_is_moved_from_where_it_is_expected,
            pointer::a_pointer_goes_back,
            pointer::a_pointer_is_bounded,
            pointer::a_newer_run_stays_in_its_pointer,
            turn::a_key_that_is_sent_again_at_once_stays_in_its_pointer,
            pointer::a_turn_that_began_earlier_goes_behind,
            pointer::racing_moves_lose_nobody,
            pointer::of_racing_moves_from_one_place_one_wins,
            pointer::a_pointer_expires,
            turn::a_withdrawal_takes_its_stream_out,
            turn::a_pointer_that_goes_back_expires_with_its_stream,
            turn::a_pointer_expires_with_its_stream,
            turn::a_repeated_end_reaches_the_pointer,
            turn::a_deleted_stream_is_taken_out,
            turn::a_lost_pointer_comes_back_with_its_stream,
            pointer::a_foreign_conversation_is_a_missing_one,
            identity::what_a_route_says_is_told,
            tail::an_append_wakes,
            tail::an_end_wakes,
            tail::an_interruption_wakes,
            tail::a_stream_that_does_not_exist_yet_can_be_waited_for,
            tail::a_withdrawal_wakes,
            tail::a_tail_outlives_what_it_follows,
            tail::a_publication_wakes,
        }
    };
}

/// Makes each check of [`store::conformance`](crate::store::conformance) a test case.
///
/// Takes the attributes of a test function, the name of a module for the test cases, and a closure whose future returns
/// an empty store.
#[macro_export]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
macro_rules! store_conformance {
    ($(#[$test:meta])+ mod $name:ident = $make:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the factory may need what its file imports")]
            use super::*;
            $crate::__store_checks!($crate::__store_tests, { $(#[$test])+ } { $make });
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ($tests:tt $make:tt; $($area:ident::$check:ident,)*) => {
        $($crate::__store_test! { $tests $make $area $check })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_test {
    ({ $(#[$test:meta])+ } { $make:expr } $area:ident $check:ident) => {
        $(#[$test])+
        async fn $check() {
            let make = $make;
            $crate::store::conformance::$area::$check(make().await).await;
        }
    };
}

macro_rules! run_all {
    ($make:ident; $($area:ident::$check:ident,)*) => {
        $($area::$check($make().await).await;)*
    };
}

/// Runs all checks, one after another, each with a new store from `make`.
///
/// # Panics
///
/// Panics if the store breaks a rule, or if a request to it fails.
///
/// # Cancel safety
///
/// If the future is dropped, the data of the current check stays in its store.
pub async fn run<S, F>(make: impl Fn() -> F)
where
    S: Store,
    F: Future<Output = S>,
{
    crate::__store_checks!(run_all, make);
}
