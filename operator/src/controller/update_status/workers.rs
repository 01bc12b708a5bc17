//! Decides whether a queue's workers run, and whether they match its spec. Pure.
//!
//! The two are separate. A queue whose earlier workers run stays ready during a rollout: an edit or
//! a change of `replicas` is not an outage. If a cause keeps the new pods from starting, the queue
//! is not ready, although the earlier workers still run. Their next restart would fail in the same
//! way.

use crate::{
    cache::deployment::RolloutStatus as Rollout,
    crd::{
        Condition,
        conditions::{Status, Verdict, find, kind, reason},
    },
    pods::cause::{self, Cause, steady},
};

/// What is known of a queue's workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fleet<'a> {
    /// Number of workers that are wanted.
    pub(super) replicas: i32,
    /// What the status of their Deployment says.
    pub(super) rollout: &'a Rollout,
    /// Cause that keeps pods of the wanted revision from becoming ready, if there is one.
    pub(super) cause: Option<&'a Cause>,
    /// The current conditions of the queue.
    pub(super) said: &'a [Condition],
}

// === impl Fleet ===

impl Fleet<'_> {
    /// Returns the condition `WorkersReady`.
    pub(super) fn readiness(&self) -> Verdict {
        if self.replicas == 0 {
            return Verdict::yes(
                reason::SCALED_TO_ZERO,
                "spec.replicas is 0: calls are accepted, and none is run.",
            );
        }
        if self.updated_available() > 0 {
            return Verdict::yes(reason::RECONCILED, self.count());
        }
        if let Some(cause) = self.cause() {
            return self.stopped_by(cause);
        }
        if self.was_ready() && self.rollout.available > 0 {
            return Verdict::yes(
                reason::RECONCILED,
                "Workers of the earlier revision run during the rollout.",
            );
        }
        Verdict::no(reason::PROGRESSING, self.count())
    }

    /// Returns the condition `Progressing`.
    pub(super) fn progress(&self) -> Verdict {
        let Rollout { is_observed, replicas, updated, .. } = self.rollout;
        let is_wanted = *replicas == self.replicas && *updated == self.replicas;
        let is_rolled_out = *is_observed && self.updated_available() >= self.replicas;
        // With zero workers wanted and none there, there is nothing to wait for.
        if is_wanted && (is_rolled_out || self.replicas == 0) {
            return Verdict::no(reason::RECONCILED, "The workers are as the spec says.");
        }
        match self.cause() {
            Some(cause) => self.stopped_by(cause),
            None => Verdict::yes(reason::PROGRESSING, self.count()),
        }
    }

    /// Returns a lower bound for the number of available workers of the wanted revision: the
    /// available workers minus all workers of other revisions.
    fn updated_available(&self) -> i32 {
        let Rollout { is_observed, replicas, updated, available, .. } = self.rollout;
        if *is_observed { (available - (replicas - updated)).max(0) } else { 0 }
    }

    /// Returns the cause that blocks the rollout. A cause from the pods comes first. Without one it
    /// is the Deployment's: the API server refuses pods, or the rollout is overdue.
    fn cause(&self) -> Option<Cause> {
        let Rollout { is_observed, refused, overdue, .. } = self.rollout;
        let of_deployment = || {
            refused
                .as_deref()
                .map(cause::refused)
                .or_else(|| overdue.as_deref().map(cause::overdue))
        };
        self.cause.cloned().or_else(|| is_observed.then(of_deployment).flatten())
    }

    fn was_ready(&self) -> bool {
        let before = find(self.said, kind::WORKERS_READY);
        before.is_some_and(|before| before.status.as_str() == Status::True.as_str())
    }

    fn stopped_by(&self, Cause { reason, message }: Cause) -> Verdict {
        let said = find(self.said, kind::PROGRESSING).filter(|said| said.reason.as_str() == reason);
        let message =
            said.map_or_else(|| message.clone(), |said| steady(&said.message, message.clone()));
        Verdict::no(reason, message)
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
    fn rollout(replicas: i32, updated: i32, available: i32) -> Rollout {
        Rollout {
            is_observed: true,
            replicas,
            updated,
            ready: available,
            available,
            ..Rollout::default()
        }
    }

    /// Returns the conditions of a queue that was ready, or was not.
    fn said(verdict: Verdict) -> Vec<Condition> {
        let now = fixtures::second(1);
        let progressing = Verdict { status: Status::False, ..verdict.clone() };
        vec![
            verdict.into_condition(kind::WORKERS_READY, Some(1), &[], &now),
            progressing.into_condition(kind::PROGRESSING, Some(1), &[], &now),
        ]
    }

    fn was_ready() -> Vec<Condition> {
        said(Verdict::yes(reason::RECONCILED, ""))
    }

    fn was_not() -> Vec<Condition> {
        said(Verdict::no(reason::PROGRESSING, ""))
    }

    fn judge(
        replicas: i32,
        rollout: &Rollout,
        cause: Option<&Cause>,
        said: &[Condition],
    ) -> [(Status, &'static str); 2] {
        let fleet = Fleet { replicas, rollout, cause, said };
        [fleet.readiness(), fleet.progress()].map(|verdict| (verdict.status, verdict.reason))
    }

    const READY: (Status, &str) = (Status::True, reason::RECONCILED);
    const DONE: (Status, &str) = (Status::False, reason::RECONCILED);
    const UNDER_WAY: (Status, &str) = (Status::True, reason::PROGRESSING);
    const NOT_YET: (Status, &str) = (Status::False, reason::PROGRESSING);

    fn image() -> Cause {
        cause::image("x:1", "not found")
    }

    #[test]
    fn a_new_queue_progresses_until_a_worker_runs() {
        assert_eq!(judge(2, &Rollout::default(), None, &[]), [NOT_YET, UNDER_WAY]);
        assert_eq!(judge(2, &rollout(2, 2, 0), None, &was_not()), [NOT_YET, UNDER_WAY]);
        assert_eq!(judge(2, &rollout(2, 2, 1), None, &was_not()), [READY, UNDER_WAY]);
        assert_eq!(judge(2, &rollout(2, 2, 2), None, &was_ready()), [READY, DONE]);
    }

    #[test]
    fn scaling_keeps_a_queue_ready() {
        // The Deployment has not been seen, has one pod more, and has it ready.
        let unseen = Rollout { is_observed: false, ..rollout(1, 1, 1) };
        for (rollout, progress) in [
            (unseen, UNDER_WAY),
            (rollout(1, 1, 1), UNDER_WAY),
            (rollout(2, 2, 1), UNDER_WAY),
            (rollout(2, 2, 2), DONE),
        ] {
            assert_eq!(judge(2, &rollout, None, &was_ready()), [READY, progress], "{rollout:?}");
        }
        // Scaled down, and down to zero.
        assert_eq!(judge(1, &rollout(2, 2, 2), None, &was_ready()), [READY, UNDER_WAY]);
        let zero = (Status::True, reason::SCALED_TO_ZERO);
        assert_eq!(judge(0, &rollout(1, 1, 1), None, &was_ready()), [zero, UNDER_WAY]);
        assert_eq!(judge(0, &rollout(0, 0, 0), None, &was_ready()), [zero, DONE]);
        assert_eq!(judge(0, &Rollout::default(), None, &[]), [zero, DONE]);
        // Scaled up from zero, no worker runs yet.
        let before = said(Verdict::yes(reason::SCALED_TO_ZERO, ""));
        assert_eq!(judge(1, &rollout(1, 1, 0), None, &before), [NOT_YET, UNDER_WAY]);
    }

    #[test]
    fn an_edit_keeps_a_queue_ready_while_an_earlier_worker_runs() {
        let unseen = Rollout { is_observed: false, ..rollout(1, 1, 1) };
        for (rollout, progress) in [
            (unseen, UNDER_WAY),
            (rollout(1, 0, 1), UNDER_WAY),
            (rollout(2, 1, 1), UNDER_WAY),
            (rollout(2, 1, 2), UNDER_WAY),
            (rollout(1, 1, 1), DONE),
        ] {
            assert_eq!(judge(1, &rollout, None, &was_ready()), [READY, progress], "{rollout:?}");
        }
        assert_eq!(judge(1, &rollout(2, 1, 0), None, &was_ready()), [NOT_YET, UNDER_WAY]);
    }

    #[test]
    fn a_bad_image_is_seen_though_earlier_workers_run() {
        let (image, stuck) = (image(), (Status::False, reason::IMAGE_PULL_FAILED));
        assert_eq!(judge(1, &rollout(2, 1, 1), Some(&image), &was_ready()), [stuck, stuck]);
        // The repaired revision rolls out: the queue is not ready until one of its workers runs,
        // and then stays ready.
        assert_eq!(judge(1, &rollout(2, 1, 1), None, &was_not()), [NOT_YET, UNDER_WAY]);
        assert_eq!(judge(1, &rollout(2, 1, 2), None, &was_not()), [READY, UNDER_WAY]);
        // After a change back, the earlier worker is the wanted one again.
        assert_eq!(judge(1, &rollout(1, 1, 1), None, &was_not()), [READY, DONE]);
    }

    #[test]
    fn more_workers_that_do_not_come_up_leave_a_queue_ready() {
        let cause = cause::unschedulable("0/1 nodes are available: 1 Insufficient cpu.");
        let stuck = (Status::False, reason::UNSCHEDULABLE);
        assert_eq!(judge(2, &rollout(2, 2, 1), Some(&cause), &was_ready()), [READY, stuck]);
    }

    #[test]
    fn what_the_deployment_says_counts_where_no_pod_says_more() {
        let refused = Rollout { refused: Some("exceeded quota".into()), ..rollout(0, 0, 0) };
        let stuck = (Status::False, reason::PODS_REFUSED);
        assert_eq!(judge(1, &refused, None, &was_not()), [stuck, stuck]);
        let unseen = Rollout { is_observed: false, ..refused };
        assert_eq!(judge(1, &unseen, None, &was_not()), [NOT_YET, UNDER_WAY]);

        let overdue =
            Rollout { overdue: Some("timed out progressing.".into()), ..rollout(2, 1, 1) };
        let stuck = (Status::False, reason::WORKERS_UNAVAILABLE);
        assert_eq!(judge(1, &overdue, None, &was_ready()), [stuck, stuck]);
        let stuck = (Status::False, reason::IMAGE_PULL_FAILED);
        assert_eq!(judge(1, &overdue, Some(&image()), &was_ready()), [stuck, stuck]);
    }

    #[test]
    fn a_cause_is_told_in_the_same_words_each_time() {
        let (rollout, first) =
            (rollout(1, 1, 0), cause::probe("Get http://10.0.0.1:8081: refused"));
        let fleet = Fleet { replicas: 1, rollout: &rollout, cause: Some(&first), said: &[] };
        let conditions = said(fleet.readiness());
        let second = cause::probe("Get http://10.0.0.2:8081: refused");
        let fleet = Fleet { cause: Some(&second), said: &conditions, ..fleet };
        assert_eq!(fleet.readiness().message, first.message);
        assert_eq!(fleet.progress().message, first.message);
    }
}
