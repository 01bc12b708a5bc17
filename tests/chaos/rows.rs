//! Every fault that the system must survive, and what shows that it does: a scenario here, or a
//! test elsewhere. Where a fault can't be tried on one machine without virtual ones, that is said.

use crate::{
    run::Scenario,
    table::{Outcome, Verdict, aligned},
};

/// A fault.
struct Row {
    fault: &'static str,
    shown: &'static [Shown],
}

/// What shows that a fault is survived.
enum Shown {
    /// The scenarios whose names begin so.
    By(&'static str),
    /// A test: the folder that it is in, and its name.
    Test(&'static str, &'static str),
    /// Nothing, or not all of it, for this reason.
    Not(&'static str),
}

use Shown::{By, Not, Test};

const ROWS: &[Row] = &[
    Row {
        fault: "a worker is killed in the middle of a call",
        shown: &[
            By("a worker is killed"),
            By("workers are killed"),
            Test("tests/nats", "a_killed_workers_call_runs_again_within_the_lease"),
            Test("tests/e2e", "call_of_a_killed_worker_pod_runs_again"),
        ],
    },
    Row {
        fault: "a worker is asked to end",
        shown: &[
            By("a worker is asked to end"),
            Test("tests/nats", "a_second_sigterm_hands_back_what_runs_without_waiting"),
            Test("tests/e2e", "worker_pod_deleted_during_a_call_loses_nothing"),
        ],
    },
    Row {
        fault: "a worker stands still for longer than its lease",
        shown: &[
            By("a worker is stopped beyond its lease"),
            Test("tests/nats", "a_worker_that_is_stopped_past_its_lease_does_not_call_back_twice"),
        ],
    },
    Row {
        fault: "a worker stands still for less than its lease, and calls are cancelled",
        shown: &[
            By("calls are cancelled while their worker stands still"),
            By("a thousand calls are cancelled while their worker stands still"),
        ],
    },
    Row {
        fault: "a worker is killed between a dead letter and the acknowledgement of its call",
        shown: &[By("workers are killed as dead letters are stored")],
    },
    Row {
        fault: "NATS can't be reached for longer than the lease, twice under one invocation",
        shown: &[By("NATS can't be reached, twice under one invocation")],
    },
    Row {
        fault: "nats-server restarts, or another server leads",
        shown: &[
            By("nats-server is"),
            By("three servers"),
            Test("tests/nats", "accepted_calls_survive_repeated_kills_of_nats_at_full_rate"),
            Test("tests/outage", "all_programs_started_before_nats_wait_visibly_and_then_work"),
        ],
    },
    Row {
        fault: "limits of a queue change while calls run, and nats-server restarts",
        shown: &[
            By("limits change while nats-server is killed"),
            Test("tests/nats", "max_inflight_changes_while_calls_run"),
            Test("tests/e2e", "a_call_runs_through_ten_edits_and_no_worker_restarts"),
        ],
    },
    Row {
        fault: "total and rate of a queue change, and nats-server restarts",
        shown: &[
            By("totals and rates change"),
            Test("tests/nats", "a_total_changes_while_calls_run"),
        ],
    },
    Row {
        fault: "a worker dies or ends that has a share of the total",
        shown: &[
            By("a worker is killed that has a share"),
            By("a worker is asked to end that has a share"),
            Test("tests/nats", "a_total_is_kept_whatever_happens_to_workers"),
        ],
    },
    Row {
        fault: "the fairness of a queue changes, and lanes come and go",
        shown: &[
            By("the fairness of a queue"),
            By("a worker is killed while lanes"),
            Test("tests/nats", "a_suspended_queue_gets_lanes_without_losing_calls"),
            Test("tests/nats", "a_suspended_queue_loses_its_lanes_and_no_call"),
            Test("tests/nats", "a_lane_removed_under_load_comes_back"),
        ],
    },
    Row {
        fault: "the power goes",
        shown: &[By("file storage"), By("memory storage"), By("power cut")],
    },
    Row {
        fault: "the acknowledgement of a publish is lost",
        shown: &[
            By("nats-server is"),
            Test("tests/nats", "the_id_of_an_answer_that_said_unavailable_makes_the_repeat_safe"),
            Test("tests/nats", "concurrent_repeats_store_one_call"),
        ],
    },
    Row {
        fault: "a function takes too long",
        shown: &[
            By("functions fail"),
            Test("tests/nats", "a_call_over_its_time_limit_is_cut_off_and_counts_as_504"),
        ],
    },
    Row {
        fault: "a function answers 500, 502, 503, 429 with any Retry-After",
        shown: &[
            By("functions fail"),
            Test("worker", "retry_after_overrides_the_computed_wait_up_to_an_hour"),
            Test("worker", "seconds_and_dates_are_parsed_and_other_values_ignored"),
            Not("a whole queue backs off on 429: not planned"),
        ],
    },
    Row {
        fault: "a function answers 400, 404, 413, 422",
        shown: &[Test("worker", "only_listed_codes_are_retried")],
    },
    Row {
        fault: "a function resets, breaks off, never ends, answers slowly or too much",
        shown: &[
            By("functions fail"),
            Test("tests/nats", "incomplete_response_is_a_failed_attempt"),
            Test("tests/nats", "an_endless_answer_takes_no_more_memory_than_is_kept"),
            Test("tests/nats", "an_answer_that_does_not_end_in_time_is_cut_off"),
        ],
    },
    Row {
        fault: "a function answers more than NATS takes in one message, headers or body",
        shown: &[By("answers are more than NATS takes")],
    },
    Row {
        fault: "a call fits into a message by a hair, and its dead letter does not",
        shown: &[By("dead letters are more than NATS takes")],
    },
    Row {
        fault: "a function is away",
        shown: &[
            By("functions can't be reached"),
            Test("worker", "a_missing_response_is_always_retried"),
            Test("tests/nats", "platform_failure_is_retried_and_not_counted"),
        ],
    },
    Row {
        fault: "a call kills each worker that makes it",
        shown: &[Test("tests/nats", "a_call_under_which_its_workers_die_becomes_a_dead_letter")],
    },
    Row {
        fault: "a message that is no call",
        shown: &[
            Test("tests/nats", "undecodable_message_is_a_dead_letter_at_once"),
            Test("tests/nats", "messages_become_dead_letters_as_the_table_says"),
            Test("tests/nats", "headers_that_can_not_be_read_hold_up_nothing_for_long"),
        ],
    },
    Row {
        fault: "a body that is too large",
        shown: &[
            Test("tests/nats", "too_large_content_length_is_refused_before_the_body"),
            Test("tests/nats", "too_large_headers_are_a_client_error"),
            Not("claim checks: not planned"),
        ],
    },
    Row {
        fault: "the stream or the disk is full, or the disk is slow",
        shown: &[
            By("the disk of nats-server is full"),
            By("the disk of nats-server is slow"),
            Test("tests/nats", "a_full_queue_refuses_and_takes_calls_again_when_there_is_room"),
        ],
    },
    Row { fault: "the store is full, and no stream has limits", shown: &[By("the store is full")] },
    Row { fault: "the stream of results is full", shown: &[By("the stream of results is full")] },
    Row {
        fault: "receivers of callbacks are down, slow, gone, or where none may go",
        shown: &[
            By("callbacks fail"),
            Test("tests/nats", "a_thousand_callbacks_to_a_dead_address_hold_up_no_call"),
            Test("tests/nats", "a_callback_to_where_none_may_go_is_not_posted"),
            Test("worker", "metadata_and_link_local_addresses_are_never_reached"),
        ],
    },
    Row {
        fault: "the API server is away",
        shown: &[
            Test("operator", "an_error_names_the_remedy"),
            Not("with calls in flight: gateway and worker have no client of it, \
                 so that every scenario here runs without one"),
        ],
    },
    Row {
        fault: "two operators at once",
        shown: &[Test(
            "tests/outage",
            "a_standby_writes_nothing_and_takes_over_when_the_leader_is_gone",
        )],
    },
    Row {
        fault: "a queue is deleted with calls in it",
        shown: &[
            Test("tests/e2e", "calls_of_a_deleted_queue_are_taken_over_by_its_successor"),
            Test("operator", "the_deadline_counts_from_the_deletion"),
        ],
    },
    Row {
        fault: "a queue is deleted and applied again under load",
        shown: &[By("a queue is recreated")],
    },
    Row {
        fault: "a worker, gateway or nats-server dies while clients wait for results",
        shown: &[
            By("results, delays and batches: each part is killed"),
            By("results: "),
            Test("tests/nats", "first_result_of_a_call_counts_and_it_does_not_run_again"),
        ],
    },
    Row {
        fault: "a worker or nats-server dies before delayed calls are due",
        shown: &[
            By("results, delays and batches: each part is killed"),
            By("delays: "),
            Test("tests/nats", "no_call_is_early_after_kills_of_workers_and_server"),
            Test("tests/nats", "no_call_is_early_after_the_loss_of_a_leader"),
        ],
    },
    Row {
        fault: "a worker, gateway or nats-server dies while batches run",
        shown: &[
            By("results, delays and batches: each part is killed"),
            By("batches: "),
            Test("tests/nats", "batch_ends_once_though_workers_die"),
            Test("tests/nats", "batch_ends_once_though_nats_restarts"),
            Test("tests/nats", "repeat_after_a_dead_gateway_stores_the_batch_once"),
        ],
    },
    Row { fault: "a call is too old", shown: &[By("calls are too old")] },
    Row {
        fault: "what can't be changed is changed",
        shown: &[Test("tests/e2e", "immutable_field_is_refused_with_the_remedy")],
    },
    Row {
        fault: "stream or consumer changed or deleted by hand",
        shown: &[
            By("the consumer is deleted and created again"),
            Test("asyncqueue", "drift_in_what_we_set_is_repaired_and_the_rest_is_left_alone"),
        ],
    },
    Row {
        fault: "two queues over one stream",
        shown: &[Test("tests/e2e", "second_queue_over_one_stream_is_refused")],
    },
    Row {
        fault: "clocks differ or jump",
        shown: &[
            By("clocks:"),
            Test("worker", "seconds_and_dates_are_parsed_and_other_values_ignored"),
            Not("a jump of nats-server's own: libfaketime does not reach it"),
        ],
    },
    Row {
        fault: "a call comes again while its first run is alive",
        shown: &[
            By("a worker is stopped beyond its lease"),
            By("nats-server is stopped"),
            By("three servers: the leader is cut off"),
        ],
    },
    Row {
        fault: "a cancellation, at any time",
        shown: &[
            By("every other call is cancelled"),
            By("calls are cancelled as they end"),
            Test("tests/nats", "no_call_starts_after_its_cancellation_and_each_has_one_end"),
            Test("tests/nats", "a_cancellation_loses_no_call_that_was_delivered_before_it"),
        ],
    },
    Row {
        fault: "one id, several calls, at once and one after another",
        shown: &[
            By("no fault at all"),
            By("a queue is recreated, and ids that were cancelled come again"),
        ],
    },
    Row {
        fault: "all workers start at once",
        shown: &[
            By("all workers are killed and started at once"),
            Not("a hundred workers, ten thousand queues: too much for one machine"),
        ],
    },
    Row { fault: "a million pending calls", shown: &[Not("a benchmark, not a fault")] },
    Row {
        fault: "programs of two versions",
        shown: &[
            Test("asyncqueue", "the_form_on_the_wire_is_a_contract"),
            Test("tests/nats", "messages_of_version_1_are_run_shown_and_replayed"),
            Test("tests/nats", "additions_of_later_versions_are_kept_or_ignored"),
            Test("tests/nats", "messages_become_dead_letters_as_the_table_says"),
            Test("tests/rolling", "a_rollout_and_its_rollback_lose_nothing"),
            Test("tests/install", "an_upgrade_and_its_rollback_give_each_call_one_end"),
        ],
    },
    Row {
        fault: "secrets are rotated",
        shown: &[
            Test("tests/nats", "callbacks_are_signed_and_a_rotated_secret_counts_at_once"),
            Test("tests/nats", "worker_reads_replaced_credentials_without_a_restart"),
        ],
    },
    Row {
        fault: "workers are scaled down with long calls in flight",
        shown: &[
            By("a worker is asked to end"),
            Test("tests/e2e", "workers_follow_their_queues_spec_and_scale"),
        ],
    },
    Row {
        fault: "a worker reaches NATS and not the function, or the reverse",
        shown: &[
            By("functions can't be reached"),
            By("three servers: the leader is cut off"),
            Not("a circuit breaker: not planned"),
        ],
    },
];

/// The table of faults, with the verdicts of what was run.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let rows = ROWS.iter().flat_map(|row| {
        row.shown.iter().enumerate().map(|(index, shown)| {
            let (by, verdict) = match shown {
                By(name) => {
                    let of_name =
                        || outcomes.iter().filter(|outcome| outcome.name.starts_with(name));
                    let kept = of_name().filter(|outcome| is_as_expected(&outcome.verdict)).count();
                    (format!("scenario: {name}…"), format!("{kept} of {}", of_name().count()))
                }
                Test(folder, name) => (format!("{folder}: {name}"), "test".to_owned()),
                Not(reason) => (format!("NOT TRIED: {reason}"), String::new()),
            };
            vec![if index == 0 { row.fault.to_owned() } else { String::new() }, by, verdict]
        })
    });
    aligned(&["fault", "shown by", ""], &rows.collect::<Vec<_>>())
}

/// Panics if the table names a scenario that is not there.
pub(crate) fn check(scenarios: &[Scenario]) {
    for shown in ROWS.iter().flat_map(|row| row.shown) {
        if let By(name) = shown {
            let is_there = scenarios.iter().any(|scenario| scenario.name.starts_with(name));
            assert!(is_there, "no scenario begins with: {name}");
        }
    }
}

/// The tests that the table names, each with its folder.
pub(crate) fn tests() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROWS.iter().flat_map(|row| row.shown).filter_map(|shown| match shown {
        Test(folder, name) => Some((*folder, *name)),
        By(_) | Not(_) => None,
    })
}

fn is_as_expected(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Kept | Verdict::Found(_))
}
