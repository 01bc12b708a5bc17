//! Decides whether a queue's workers run, and whether they match its spec. Pure.
//!
//! The two are separate. A queue whose earlier workers run stays ready during a rollout: an edit or
//! a change of `replicas` is not an outage. If a cause keeps the new pods from starting, the queue
//! is not ready, although the earlier workers still run. Their next restart would fail in the same
//! way.

use crate::{
    cache::deployment::RolloutStatus,
    crd::{
        Condition,
        conditions::{ConditionStatus, ConditionValue, condition_type, find, reason},
    },
    pods::cause::{self, Cause, stable_message},
};

/// The state of a queue without workers.
const ZERO: &str = "Scaled to zero: calls are accepted but not run.";

/// The same, while delayed calls are not due yet.
pub(super) const ZERO_WITH_SCHEDULED: &str = concat!(
    "Scaled to zero: calls are accepted but not run. Scheduled calls are not run either when they ",
    "are due: set spec.replicas to 1 or more before, or let an autoscaler follow the depth."
);

/// What is known of a queue's workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerRollout<'a> {
    /// Number of workers that are wanted.
    pub(super) replicas: i32,
    /// Whether delayed calls of the queue are not due yet.
    pub(super) has_scheduled: bool,
    /// What the status of their Deployment says.
    pub(super) rollout: &'a RolloutStatus,
    /// Cause that keeps pods of the wanted revision from becoming ready, if there is one.
    pub(super) cause: Option<&'a Cause>,
    /// The current conditions of the queue.
    pub(super) previous: &'a [Condition],
}

// === impl WorkerRollout ===

impl WorkerRollout<'_> {
    /// Returns the condition `WorkersReady`.
    pub(super) fn workers_ready(&self) -> ConditionValue {
        if self.replicas == 0 {
            let message = if self.has_scheduled { ZERO_WITH_SCHEDULED } else { ZERO };
            return ConditionValue::true_(reason::SCALED_TO_ZERO, message);
        }
        if self.updated_available() > 0 {
            return ConditionValue::true_(reason::RECONCILED, self.count());
        }
        if let Some(cause) = self.cause() {
            return self.blocked_by(cause);
        }
        if self.was_ready() && self.rollout.available > 0 {
            return ConditionValue::true_(
                reason::RECONCILED,
                "Workers of the previous revision run during the rollout.",
            );
        }
        ConditionValue::false_(reason::PROGRESSING, self.count())
    }

    /// Returns the condition `Progressing`.
    pub(super) fn progressing(&self) -> ConditionValue {
        let RolloutStatus { is_observed, replicas, updated, .. } = self.rollout;
        let is_wanted = *replicas == self.replicas && *updated == self.replicas;
        let is_rolled_out = *is_observed && self.updated_available() >= self.replicas;
        // With zero workers wanted and none there, there is nothing to wait for.
        if is_wanted && (is_rolled_out || self.replicas == 0) {
            return ConditionValue::false_(reason::RECONCILED, "The workers match the spec.");
        }
        match self.cause() {
            Some(cause) => self.blocked_by(cause),
            None => ConditionValue::true_(reason::PROGRESSING, self.count()),
        }
    }

    /// Returns a lower bound for the number of available workers of the wanted revision: the
    /// available workers minus all workers of other revisions.
    fn updated_available(&self) -> i32 {
        let RolloutStatus { is_observed, replicas, updated, available, .. } = self.rollout;
        if *is_observed { (available - (replicas - updated)).max(0) } else { 0 }
    }

    /// Returns the cause that blocks the rollout. A cause from the pods comes first. Without one it
    /// is the Deployment's: the API server refuses pods, or the rollout is overdue.
    fn cause(&self) -> Option<Cause> {
        let RolloutStatus { is_observed, refused, overdue, .. } = self.rollout;
        let of_deployment = || {
            refused
                .as_deref()
                .map(cause::pods_refused)
                .or_else(|| overdue.as_deref().map(cause::overdue))
        };
        self.cause.cloned().or_else(|| is_observed.then(of_deployment).flatten())
    }

    fn was_ready(&self) -> bool {
        let before = find(self.previous, condition_type::WORKERS_READY);
        before.is_some_and(|before| before.status == ConditionStatus::True.as_str())
    }

    fn blocked_by(&self, Cause { reason, message }: Cause) -> ConditionValue {
        let previous = find(self.previous, condition_type::PROGRESSING)
            .filter(|previous| previous.reason == reason);
        let message = previous.map_or_else(
            || message.clone(),
            |previous| stable_message(&previous.message, message.clone()),
        );
        ConditionValue::false_(reason, message)
    }

    fn count(&self) -> String {
        let ready = self.updated_available().min(self.replicas);
        format!("{ready} of {} workers are ready.", self.replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// Returns a Deployment with so many workers, so many of the wanted revision, and so many
    /// available.
    fn rollout(replicas: i32, updated: i32, available: i32) -> RolloutStatus {
        RolloutStatus {
            is_observed: true,
            replicas,
            updated,
            ready: available,
            available,
            ..RolloutStatus::default()
        }
    }

    /// Returns the conditions of a queue that was ready, or was not.
    fn previous(verdict: ConditionValue) -> Vec<Condition> {
        let now = fixtures::second(1);
        let progressing = ConditionValue { status: ConditionStatus::False, ..verdict.clone() };
        vec![
            verdict.into_condition(condition_type::WORKERS_READY, Some(1), &[], &now),
            progressing.into_condition(condition_type::PROGRESSING, Some(1), &[], &now),
        ]
    }

    fn was_ready() -> Vec<Condition> {
        previous(ConditionValue::true_(reason::RECONCILED, ""))
    }

    fn was_not() -> Vec<Condition> {
        previous(ConditionValue::false_(reason::PROGRESSING, ""))
    }

    fn conditions_of(
        replicas: i32,
        rollout: &RolloutStatus,
        cause: Option<&Cause>,
        previous: &[Condition],
    ) -> [(ConditionStatus, &'static str); 2] {
        let workers = WorkerRollout { replicas, has_scheduled: false, rollout, cause, previous };
        [workers.workers_ready(), workers.progressing()]
            .map(|verdict| (verdict.status, verdict.reason))
    }

    const READY: (ConditionStatus, &str) = (ConditionStatus::True, reason::RECONCILED);
    const DONE: (ConditionStatus, &str) = (ConditionStatus::False, reason::RECONCILED);
    const UNDER_WAY: (ConditionStatus, &str) = (ConditionStatus::True, reason::PROGRESSING);
    const NOT_YET: (ConditionStatus, &str) = (ConditionStatus::False, reason::PROGRESSING);

    fn image() -> Cause {
        cause::image_pull("x:1", "not found")
    }

    #[test]
    fn a_new_queue_progresses_until_a_worker_runs() {
        assert_eq!(conditions_of(2, &RolloutStatus::default(), None, &[]), [NOT_YET, UNDER_WAY]);
        assert_eq!(conditions_of(2, &rollout(2, 2, 0), None, &was_not()), [NOT_YET, UNDER_WAY]);
        assert_eq!(conditions_of(2, &rollout(2, 2, 1), None, &was_not()), [READY, UNDER_WAY]);
        assert_eq!(conditions_of(2, &rollout(2, 2, 2), None, &was_ready()), [READY, DONE]);
    }

    #[test]
    fn scaling_keeps_a_queue_ready() {
        // The Deployment has not been seen, has one pod more, and has it ready.
        let unseen = RolloutStatus { is_observed: false, ..rollout(1, 1, 1) };
        for (rollout, progress) in [
            (unseen, UNDER_WAY),
            (rollout(1, 1, 1), UNDER_WAY),
            (rollout(2, 2, 1), UNDER_WAY),
            (rollout(2, 2, 2), DONE),
        ] {
            assert_eq!(
                conditions_of(2, &rollout, None, &was_ready()),
                [READY, progress],
                "{rollout:?}"
            );
        }
        // Scaled down, and down to zero.
        assert_eq!(conditions_of(1, &rollout(2, 2, 2), None, &was_ready()), [READY, UNDER_WAY]);
        let zero = (ConditionStatus::True, reason::SCALED_TO_ZERO);
        assert_eq!(conditions_of(0, &rollout(1, 1, 1), None, &was_ready()), [zero, UNDER_WAY]);
        assert_eq!(conditions_of(0, &rollout(0, 0, 0), None, &was_ready()), [zero, DONE]);
        assert_eq!(conditions_of(0, &RolloutStatus::default(), None, &[]), [zero, DONE]);
        // Scaled up from zero, no worker runs yet.
        let before = previous(ConditionValue::true_(reason::SCALED_TO_ZERO, ""));
        assert_eq!(conditions_of(1, &rollout(1, 1, 0), None, &before), [NOT_YET, UNDER_WAY]);
    }

    #[test]
    fn scheduled_calls_of_a_queue_without_workers_are_named() {
        let message = |has_scheduled| {
            let rollout = RolloutStatus::default();
            let workers = WorkerRollout {
                replicas: 0,
                has_scheduled,
                rollout: &rollout,
                cause: None,
                previous: &[],
            };
            workers.workers_ready().message
        };
        assert_eq!([message(false), message(true)], [ZERO, ZERO_WITH_SCHEDULED]);
    }

    #[test]
    fn an_edit_keeps_a_queue_ready_while_an_earlier_worker_runs() {
        let unseen = RolloutStatus { is_observed: false, ..rollout(1, 1, 1) };
        for (rollout, progress) in [
            (unseen, UNDER_WAY),
            (rollout(1, 0, 1), UNDER_WAY),
            (rollout(2, 1, 1), UNDER_WAY),
            (rollout(2, 1, 2), UNDER_WAY),
            (rollout(1, 1, 1), DONE),
        ] {
            assert_eq!(
                conditions_of(1, &rollout, None, &was_ready()),
                [READY, progress],
                "{rollout:?}"
            );
        }
        assert_eq!(conditions_of(1, &rollout(2, 1, 0), None, &was_ready()), [NOT_YET, UNDER_WAY]);
    }

    #[test]
    fn a_bad_image_is_seen_though_earlier_workers_run() {
        let (image, stuck) = (image(), (ConditionStatus::False, reason::IMAGE_PULL_FAILED));
        assert_eq!(conditions_of(1, &rollout(2, 1, 1), Some(&image), &was_ready()), [stuck, stuck]);
        // The repaired revision rolls out: the queue is not ready until one of its workers runs,
        // and then stays ready.
        assert_eq!(conditions_of(1, &rollout(2, 1, 1), None, &was_not()), [NOT_YET, UNDER_WAY]);
        assert_eq!(conditions_of(1, &rollout(2, 1, 2), None, &was_not()), [READY, UNDER_WAY]);
        // After a change back, the earlier worker is the wanted one again.
        assert_eq!(conditions_of(1, &rollout(1, 1, 1), None, &was_not()), [READY, DONE]);
    }

    #[test]
    fn extra_workers_that_do_not_start_leave_a_queue_ready() {
        let cause = cause::unschedulable("0/1 nodes are available: 1 Insufficient cpu.");
        let stuck = (ConditionStatus::False, reason::UNSCHEDULABLE);
        assert_eq!(conditions_of(2, &rollout(2, 2, 1), Some(&cause), &was_ready()), [READY, stuck]);
    }

    #[test]
    fn a_cause_of_the_deployment_counts_without_one_of_a_pod() {
        let refused = RolloutStatus { refused: Some("exceeded quota".into()), ..rollout(0, 0, 0) };
        let stuck = (ConditionStatus::False, reason::PODS_REFUSED);
        assert_eq!(conditions_of(1, &refused, None, &was_not()), [stuck, stuck]);
        let unseen = RolloutStatus { is_observed: false, ..refused };
        assert_eq!(conditions_of(1, &unseen, None, &was_not()), [NOT_YET, UNDER_WAY]);

        let overdue =
            RolloutStatus { overdue: Some("timed out progressing.".into()), ..rollout(2, 1, 1) };
        let stuck = (ConditionStatus::False, reason::WORKERS_UNAVAILABLE);
        assert_eq!(conditions_of(1, &overdue, None, &was_ready()), [stuck, stuck]);
        let stuck = (ConditionStatus::False, reason::IMAGE_PULL_FAILED);
        assert_eq!(conditions_of(1, &overdue, Some(&image()), &was_ready()), [stuck, stuck]);
    }

    #[test]
    fn the_message_of_a_cause_stays_the_same() {
        let (rollout, first) =
            (rollout(1, 1, 0), cause::probe("Get http://10.0.0.1:8081: refused"));
        let workers = WorkerRollout {
            replicas: 1,
            has_scheduled: false,
            rollout: &rollout,
            cause: Some(&first),
            previous: &[],
        };
        let conditions = previous(workers.workers_ready());
        let second = cause::probe("Get http://10.0.0.2:8081: refused");
        let workers = WorkerRollout { cause: Some(&second), previous: &conditions, ..workers };
        assert_eq!(workers.workers_ready().message, first.message);
        assert_eq!(workers.progressing().message, first.message);
    }
}
