//! The list of the properties, and the macros that make a test of each.

use std::fmt;

use super::env::{Env, Run};
use super::fixture::Fixture;

/// Something that holds of every store.
#[derive(Clone, Copy)]
pub struct Property {
    /// What it is about.
    pub theme: &'static str,
    /// What holds; unique among all properties.
    pub name: &'static str,
    run: for<'e> fn(&'e mut Env) -> Run<'e>,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.theme, self.name)
    }
}

/// Holds a store to one property, and then to what must hold at every rest.
///
/// # Panics
///
/// When the property does not hold, or when there is none of that name.
///
/// # Cancel safety
///
/// Cancel safe: the store is the fixture's own.
pub async fn hold(fixture: impl Fixture + 'static, property: &str) {
    let known = PROPERTIES.iter().find(|known| known.name == property);
    let known = known.expect("the name is one of the list");
    let mut env = Env::open(Box::new(fixture)).await;
    (known.run)(&mut env).await;
    env.audit().await;
}

/// Makes the list, and the macro that hands it to another. `$d` is a dollar sign.
macro_rules! properties {
    ($d:tt $($theme:ident { $($name:ident)* })*) => {
        /// Every property, by theme.
        pub static PROPERTIES: &[Property] = &[$($(
            Property {
                theme: stringify!($theme),
                name: stringify!($name),
                run: |env| Box::pin(super::$theme::$name(env)),
            },
        )*)*];

        /// Calls a macro with what it is given and the names of all properties of the store conformance suite:
        /// `for_each_property!(each, 1, 2)` is `each! { (1, 2) a_property another_property … }`.
        #[macro_export]
        macro_rules! for_each_property {
            ($d each:path $d(, $d given:expr)* $d(,)?) => {
                $d each! { ($d($d given),*) $($($name)*)* }
            };
        }
    };
}

properties! { $
    submit {
        a_new_job_is_stored_as_it_was_submitted
        a_time_that_has_passed_is_now
        an_empty_batch_changes_nothing
        a_repeated_submission_is_existing
        another_submission_of_an_id_is_a_conflict
        a_unique_key_has_one_job_of_a_tenant
        a_repetition_within_a_batch_is_told_apart
        the_id_speaks_before_the_key
        parents_stand_before_their_children
        a_parent_that_was_refused_is_unknown
        a_parent_of_another_tenant_is_unknown
        what_breaks_a_rule_is_refused
        an_atomic_batch_is_stored_whole
        an_atomic_batch_is_stored_whole_or_not_at_all
        an_atomic_batch_of_several_tenants_is_taken_or_refused_whole
        a_job_learns_at_once_of_parents_that_have_settled
        a_full_store_takes_no_part_of_a_batch
        a_tenant_at_its_bound_is_refused_alone
        a_run_and_a_schedule_submit_past_the_bounds
        one_of_many_racing_submissions_is_new
    }
    unique {
        a_key_while_open_is_held_until_the_end
        every_end_frees_a_key
        a_job_that_ends_as_it_comes_frees_its_key
        who_goes_back_to_its_lane_keeps_its_key
        a_taken_key_holds_up_no_other_job_of_a_batch
        a_period_has_one_job_of_each_kind_and_arguments
        a_job_goes_round_again_when_nobody_has_its_key
        what_a_run_spawns_may_have_the_key_of_the_run
        of_two_runs_that_spawn_one_key_the_first_does
        a_job_that_is_pruned_takes_no_key_of_another
        keys_are_held_by_the_same_after_reopening
        one_of_many_that_race_for_a_key_gets_it
        a_key_unless_failed_is_free_after_a_failure
        a_key_unless_failed_is_held_after_a_success
        what_failed_goes_round_again_unless_another_has_its_key
        a_key_while_waiting_is_held_until_the_claim
        who_waits_again_does_without_a_key_while_waiting
        what_is_redriven_does_without_a_key_while_waiting
        a_run_may_have_the_next_one_wait
        keys_that_were_left_are_free_after_reopening
        one_of_many_that_race_for_a_key_that_was_left_gets_it
    }
    lanes {
        an_empty_store_has_no_lanes
        a_head_tells_level_depth_and_age
        every_level_of_a_lane_is_shown_to_whoever_asks
        heads_follow_what_is_claimed
        lanes_part_tenants_queues_and_requests
        pipelines_part_lanes
        what_jobs_say_of_their_place_parts_lanes_and_is_kept
        only_served_queues_are_shown
        a_delayed_job_appears_when_it_is_due
        a_delayed_job_that_is_cancelled_is_due_no_more
        blocked_leased_and_settled_jobs_are_in_no_lane
        paused_queues_do_not_appear
        limits_cut_the_depth_and_hide_the_lane
        who_comes_before_is_counted_in_the_lane_and_over_all
    }
    claim {
        a_claim_leases_the_job_under_a_new_epoch
        claims_come_by_level_then_time_then_id
        a_pick_takes_at_most_n_and_nothing_below_its_floor
        a_pick_takes_nothing_above_its_ceiling
        picks_are_granted_in_their_order
        a_delayed_job_is_not_claimed_before_its_time
        a_job_past_its_deadline_is_not_claimed
        a_paused_queue_gives_nothing
        outputs_of_the_parents_come_with_the_claim
        a_job_that_lost_an_owner_is_claimed_alone
        only_a_living_owner_claims
        what_is_settled_makes_way_in_the_same_exchange
        racing_owners_never_claim_the_same_job
    }
    limits {
        a_limit_holds_over_lanes_and_picks
        the_narrowest_of_several_limits_holds
        a_limit_is_of_one_tenant
        the_use_is_counted_before_a_limit_is_set
        what_is_leased_stays_leased_under_a_lower_limit
        every_end_of_a_lease_frees_its_limit
        a_reap_frees_limits
    }
    wide_limits {
        a_limit_of_a_queue_holds_over_its_lanes
        a_limit_of_a_tenant_holds_over_its_queues
        a_limit_of_all_holds_over_tenants
        the_least_room_of_all_limits_decides
        what_was_leased_before_a_limit_was_set_counts
        a_limit_that_was_removed_lets_work_through
        every_end_of_a_lease_frees_every_limit
        wide_limits_cut_the_depth
        racing_owners_never_exceed_a_limit
        wide_limits_come_back
    }
    rates {
        a_burst_is_claimed_and_then_what_comes
        a_rate_holds_over_lanes_and_picks
        a_closed_lane_is_not_shown_and_says_when_it_opens
        only_served_lanes_open
        tokens_are_spent_for_good
        a_job_takes_as_many_tokens_as_it_says
        the_slowest_of_several_rates_decides
        a_rate_and_a_maximum_hold_beside_each_other
        what_is_spent_stays_spent_when_a_rate_is_set
        a_rate_that_cannot_be_held_is_refused
        racing_owners_never_exceed_a_rate
        what_is_spent_comes_back
    }
    fencing {
        a_repeated_move_is_told_and_changes_nothing
        a_job_may_end_without_a_start
        a_stale_epoch_changes_nothing
        an_epoch_from_the_future_changes_nothing
        only_one_of_two_ends_counts
        a_job_that_nobody_holds_takes_no_reports
        a_job_that_was_taken_back_takes_no_reports
        an_illegal_move_changes_nothing
        a_loss_told_by_the_owner_is_counted_once
        an_unknown_job_is_not_found
        transitions_are_applied_in_their_order
        a_start_can_hand_the_lease_on
        the_end_of_a_run_is_kept_whole
    }
    attempts {
        an_attempt_is_counted_when_a_run_begins
        a_start_tells_when
        waits_count_from_the_stores_now
        the_last_failure_stays_with_the_job
        a_returned_job_keeps_its_place_and_a_preempted_one_does_not
        a_very_long_wait_is_no_overflow
    }
    owners {
        incarnations_rise
        incarnations_rise_after_a_prune
        who_lives_is_listed_with_what_he_leads
        a_life_too_short_is_refused
        a_beat_prolongs_a_life_and_the_end_is_the_end
        many_owners_beat_at_once
        retiring_is_idempotent_and_nothing_to_the_next_life
        leases_are_told_by_owner_and_incarnation
        a_beat_tells_what_to_cancel
        a_dead_owner_is_told_nothing
    }
    settle {
        a_child_waits_for_all_its_parents
        a_childs_own_time_still_counts
        a_child_goes_the_way_of_a_parent_it_needs
        a_child_of_a_failed_parent_says_so
        a_child_may_ask_for_a_failure
        an_end_runs_down_a_long_chain
        a_diamond_is_joined_once
        parents_that_settle_together_release_their_child_once
        an_edge_tells_its_child_once
        a_child_admitted_after_the_end_is_told_once
        what_a_run_spawns_is_stored_with_its_end
        a_spawned_child_of_the_run_itself_is_told_once
        a_run_ends_whatever_it_spawned
        a_parent_that_is_cancelled_skips_its_children
    }
    sequences {
        the_next_of_a_sequence_waits_for_the_end_of_the_one_before
        a_retry_keeps_its_turn
        who_comes_before_leaves_nothing_to_who_comes_behind
        a_sequence_is_of_one_tenant_and_over_queues_and_levels
        a_sequence_goes_on_however_a_turn_ends
        who_ends_before_its_turn_lets_nobody_by
        a_whole_line_that_was_cancelled_lets_the_next_one_by
        a_parent_of_the_same_sequence_is_waited_for_once
        a_parent_that_ends_before_its_turn_lets_nobody_by
        a_sequence_that_has_ended_begins_anew
        a_job_goes_round_again_only_when_its_sequence_has_ended
        a_run_that_spawns_into_its_own_sequence_comes_first
        racing_submissions_stand_in_one_line
        who_has_not_had_its_turn_is_not_pruned
        a_sequence_comes_back
    }
    cancel {
        what_does_not_run_is_cancelled_at_once
        what_runs_is_asked_to_stop
        a_run_that_truly_finished_keeps_its_end
        nothing_comes_after_a_request_but_an_end
        a_request_outlives_the_owner
        what_has_ended_or_is_unknown_stays_so
    }
    redrive {
        what_failed_or_was_cancelled_goes_round_again
        what_succeeded_or_has_not_ended_does_not
        attempts_losses_and_deadline_begin_anew
        a_child_that_was_taken_along_is_redriven_by_itself
    }
    reap {
        a_dead_owner_loses_its_jobs
        an_older_life_loses_its_jobs
        a_job_that_kills_its_owners_fails
        a_pending_job_past_its_deadline_fails
        a_reap_stops_at_its_limit_and_says_so
        children_do_not_count_against_the_limit
        a_job_that_comes_back_too_late_fails_in_the_end
        a_term_that_is_over_reaps_nothing
    }
    terms {
        one_leads_a_duty_at_a_time
        a_round_beats_and_leads_as_its_verbs_do
        a_round_says_what_owners_must_stop
        a_round_of_the_leader_says_when_there_is_something_to_reap
        a_round_says_when_there_may_be_schedules
        a_term_is_kept_while_it_lasts
        a_forged_term_is_not_kept
        the_store_tells_its_time
        who_retires_leads_no_more
    }
    schedules {
        a_fire_time_gives_one_job
        a_changed_schedule_knows_when_it_fired
        a_schedule_set_again_does_not_repeat_a_fire_time
        schedules_are_listed_and_removed
        only_a_known_schedule_fires_and_only_in_a_term
    }
    prune {
        only_what_settled_long_ago_goes
        keys_are_kept_for_a_day_at_least
        age_counts_from_the_end
        a_parent_stays_while_a_child_is_open
        a_child_that_is_redriven_does_without_a_pruned_parent
        a_prune_stops_at_its_limit_and_says_so
        the_dead_letter_has_an_age_of_its_own
        no_more_are_kept_than_retention_says
        a_prune_names_the_jobs_that_went
        old_changes_go_and_their_cursors_expire
        a_term_that_is_over_prunes_nothing
    }
    query {
        a_list_has_what_passes_its_filters_in_order
        pages_of_any_size_make_up_the_list
        a_cursor_goes_on_where_it_was_while_jobs_come_and_go
        a_bad_limit_or_cursor_is_invalid
        a_stream_gives_the_list_in_batches
    }
    reads {
        jobs_are_read_in_the_order_asked_for
        only_jobs_that_succeeded_have_outputs
        outputs_come_back_as_they_were
        counts_follow_every_move
        what_a_store_has_done_only_grows
    }
    queue_counts {
        counts_of_a_queue_follow_every_move
        a_queue_without_jobs_is_not_counted
        queues_are_counted_by_pages_in_order
        one_name_is_counted_over_tenants
        a_bad_limit_of_queues_is_invalid
        counts_of_queues_agree_with_a_recount_after_many_moves
        counts_of_queues_come_back
    }
    changes {
        every_transition_is_recorded_in_order
        pages_of_any_size_make_up_the_log
        the_cursor_of_the_end_waits_for_the_next_change
        a_tenant_reads_its_own_changes
        what_changes_nothing_is_not_recorded
        a_bad_limit_or_cursor_of_changes_is_invalid
        a_log_of_ends_has_submissions_and_ends
        a_log_that_is_off_is_empty
    }
    feeds {
        every_verb_is_heard_in_the_order_of_the_log
        what_commits_side_by_side_is_heard_in_the_order_of_the_log
        a_commit_is_heard_before_its_reply
        what_is_not_recorded_is_heard
        a_dropped_feed_hears_nothing_more
        a_sink_that_panics_spoils_nothing
    }
    wakeups {
        a_submission_wakes_every_listener
        a_delayed_job_wakes_for_its_time_to_be_known
        what_becomes_ready_wakes
        a_released_child_wakes
        a_reap_wakes_for_what_came_back
        a_request_to_cancel_wakes_the_owner
        a_policy_that_lets_work_through_wakes
        a_limit_that_is_free_again_wakes
        every_limit_with_room_again_wakes
    }
    policies {
        queues_are_listed_by_tenant_and_name
        a_queue_without_weight_is_invalid
        limits_are_listed_from_the_widest_to_the_narrowest
    }
    tenants {
        anothers_job_is_neither_read_nor_listed
        anothers_pipeline_is_empty
        anothers_job_is_neither_cancelled_nor_redriven
        tenants_have_lanes_of_their_own
    }
    reopen {
        jobs_and_their_indexes_come_back
        what_a_child_was_told_comes_back
        policies_come_back
        the_dead_of_an_exclusive_store_are_dead_at_once
        a_store_can_be_opened_again_and_again
    }
}

/// Makes a test of each property of the store conformance suite, and one of random operations compared with a model.
///
/// The argument is an expression that makes a [`Fixture`](crate::testkit::conformance::Fixture); every test makes its
/// own. The calling crate brings tokio with the features `macros`, `rt` and `time`. `HODEI_MODEL_CASES` (default 40) and
/// `HODEI_MODEL_SEED` (default 1) say how many random histories are compared, and from which seed on.
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::for_each_property!($crate::__store_conformance_tests, $fixture);

        #[tokio::test]
        async fn random_operations_do_what_the_model_says() {
            $crate::testkit::conformance::compare_with_model(|| $fixture).await;
        }
    };
}

/// One test for each name; called by [`store_conformance!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    (($fixture:expr) $($property:ident)*) => {
        $(
            #[tokio::test]
            async fn $property() {
                let held = $crate::testkit::conformance::hold($fixture, stringify!($property));
                // A store that never answers is a failure, not a test that hangs.
                let limit = ::std::time::Duration::from_secs(60);
                tokio::time::timeout(limit, held).await.expect("the store answers");
            }
        )*
    };
}
