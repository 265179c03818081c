//! What holds of a store that keeps no history: all of the suite that does not look for a job after its end.

use hodei_core::testkit::conformance::PROPERTIES;

use crate::{Databases, hold_all};

/// What looks for ended jobs, or for what is kept of them.
const OF_THE_ENDED: &[&str] = &[
    "a_child_admitted_after_the_end_is_told_once",
    "a_child_goes_the_way_of_a_parent_it_needs",
    "a_child_may_ask_for_a_failure",
    "a_child_of_a_failed_parent_says_so",
    "a_child_that_is_redriven_does_without_a_pruned_parent",
    "a_child_that_was_taken_along_is_redriven_by_itself",
    "a_job_goes_round_again_when_nobody_has_its_key",
    "a_job_learns_at_once_of_parents_that_have_settled",
    "a_job_may_end_without_a_start",
    "a_job_that_comes_back_too_late_fails_in_the_end",
    "a_job_that_ends_as_it_comes_frees_its_key",
    "a_job_that_kills_its_owners_fails",
    "a_key_unless_failed_is_held_after_a_success",
    "a_list_has_what_passes_its_filters_in_order",
    "a_log_that_is_off_is_empty",
    "a_loss_told_by_the_owner_is_counted_once",
    "a_parent_of_the_same_sequence_is_waited_for_once",
    "a_parent_stays_while_a_child_is_open",
    "a_pending_job_past_its_deadline_fails",
    "a_prune_names_the_jobs_that_went",
    "a_prune_stops_at_its_limit_and_says_so",
    "a_queue_without_jobs_is_not_counted",
    "a_repeated_move_is_told_and_changes_nothing",
    "a_repeated_submission_is_existing",
    "a_request_outlives_the_owner",
    "a_run_ends_whatever_it_spawned",
    "a_run_that_truly_finished_keeps_its_end",
    "a_store_can_be_opened_again_and_again",
    "a_term_that_is_over_prunes_nothing",
    "a_term_that_is_over_reaps_nothing",
    "a_unique_key_has_one_job_of_a_tenant",
    "age_counts_from_the_end",
    "an_attempt_is_counted_when_a_run_begins",
    "anothers_job_is_neither_cancelled_nor_redriven",
    "attempts_losses_and_deadline_begin_anew",
    "counts_follow_every_move",
    "counts_of_a_queue_follow_every_move",
    "counts_of_queues_come_back",
    "every_verb_is_heard_in_the_order_of_the_log",
    "jobs_and_their_indexes_come_back",
    "keys_are_kept_for_a_day_at_least",
    "keys_that_were_left_are_free_after_reopening",
    "no_more_are_kept_than_retention_says",
    "nothing_comes_after_a_request_but_an_end",
    "only_jobs_that_succeeded_have_outputs",
    "only_one_of_two_ends_counts",
    "only_what_settled_long_ago_goes",
    "outputs_come_back_as_they_were",
    "outputs_of_the_parents_come_with_the_claim",
    "the_dead_letter_has_an_age_of_its_own",
    "the_end_of_a_run_is_kept_whole",
    "what_a_run_spawns_is_stored_with_its_end",
    "what_does_not_run_is_cancelled_at_once",
    "what_failed_goes_round_again_unless_another_has_its_key",
    "what_failed_or_was_cancelled_goes_round_again",
    "what_has_ended_or_is_unknown_stays_so",
    "what_is_not_recorded_is_heard",
    "what_is_redriven_does_without_a_key_while_waiting",
    "what_runs_is_asked_to_stop",
    "what_succeeded_or_has_not_ended_does_not",
    "who_has_not_had_its_turn_is_not_pruned",
];

fn bare() -> Databases {
    let mut bare = Databases::new();
    bare.history = false;
    bare
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_all_holds_that_is_not_of_the_ended() {
    let held = PROPERTIES.iter().filter(|property| !OF_THE_ENDED.contains(&property.name));
    assert_eq!(hold_all(held, bare).await, Vec::<&str>::new());
}
