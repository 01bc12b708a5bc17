//! Keeps the workers' pods that are not ready, by queue, and finds why they are not.
//!
//! The Deployment shows whether workers run. Pods are read only for the cause when workers do not
//! run, so only those that are not ready are kept. What their status does not say is in events.
//! These are read for a single pod once it has waited for some seconds.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::{reflector::ObjectRef, watcher::Event};
use uuid::Uuid;

pub(crate) use self::pod::WorkerPod;
use self::{
    cause::Cause,
    pod::{PodDetails, PodState, Progress},
    revision::Revision,
};
use crate::crd::AsyncQueue;

pub(crate) mod cause;
pub(crate) mod events;
mod pod;
pub(crate) mod revision;

/// The name of the container that runs the worker.
pub(crate) const WORKER_CONTAINER: &str = "worker";

/// A pod younger than this is starting: what it waits for may come from the same `kubectl apply`.
const STARTUP_TIME: Duration = Duration::from_secs(5);

/// Time during which failed probes mean nothing, since they begin before the container listens. The
/// kubelet, too, waits for two failures, two seconds apart.
const PROBE_STARTUP_TIME: Duration = Duration::from_secs(4);

/// A container that has run for this time since it ended is no longer failing repeatedly: the
/// kubelet resets its back-off too.
const RECOVERY_TIME: Duration = Duration::from_secs(600);

/// A pod without a cause is read again at short intervals until it is this old, and then with its
/// queue's resync.
const FREQUENT_CHECK_TIME: Duration = Duration::from_secs(30);

/// Intervals of reading events: of a pod, of a pod whose cause events have named, and of any two
/// pods. The API server scans all events of a namespace for each read.
const READ_INTERVAL: Duration = Duration::from_secs(2);
const EXPLAINED_READ_INTERVAL: Duration = Duration::from_secs(60);
const MIN_READ_INTERVAL: Duration = Duration::from_millis(100);

/// Namespace and name of a queue.
pub(crate) type Key = (Box<str>, Box<str>);

/// The pods that are not ready.
#[derive(Debug, Default)]
pub(crate) struct UnreadyPods(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    queues: HashMap<Key, Vec<UnreadyPod>>,
    /// The queue of each pod.
    queue_of_pod: HashMap<Uuid, Key>,
    /// Time from which events may be read again.
    next_read: Option<Instant>,
}

/// What is known of one pod.
#[derive(Clone, Debug)]
struct UnreadyPod {
    name: Box<str>,
    uid: Uuid,
    details: PodDetails,
    /// The cause that its events name, and the time of the last read.
    from_events: Option<Cause>,
    read_at: Option<Instant>,
}

/// Follows one watch of pods.
#[derive(Debug)]
pub(crate) struct PodWatch {
    /// The namespace that is watched; `None` means all.
    namespace: Option<Box<str>>,
    /// The pods in the current listing.
    listed: Option<HashSet<Uuid>>,
}

/// Why the workers of a queue do not start, and what to do to find out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Diagnosis {
    /// The cause, if it is known.
    pub(crate) cause: Option<Cause>,
    /// The pod whose events should be read.
    pub(crate) unexplained: Option<Uuid>,
    /// Time until the next examination.
    pub(crate) check_after: Option<Duration>,
}

// === impl PodWatch ===

impl PodWatch {
    pub(crate) fn new(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Box::from), listed: None }
    }

    /// Updates the pods from an event of the watch. Returns the queue if the pod is new, or its
    /// cause has changed.
    pub(crate) fn handle_event(
        &mut self,
        event: &Event<WorkerPod>,
        pods: &UnreadyPods,
    ) -> Option<ObjectRef<AsyncQueue>> {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                self.listed.get_or_insert_default().insert(pod.meta.uid);
                return pods.lock().upsert(pod);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                pods.lock().retain_listed(self.namespace.as_deref(), &listed);
            }
            Event::Apply(pod) => return pods.lock().upsert(pod),
            Event::Delete(pod) => _ = pods.lock().remove(pod.meta.uid),
        }
        None
    }
}

// === impl UnreadyPods ===

impl UnreadyPods {
    /// Examines the pods of a queue that were created from this template; from any template if it
    /// is not known.
    pub(crate) fn diagnose(
        &self,
        queue: &Key,
        wanted: Option<Revision>,
        now: Timestamp,
    ) -> Diagnosis {
        let index = self.lock();
        let pods = index.queues.get(queue).into_iter().flatten();
        let pods = pods.filter(|pod| wanted.is_none() || pod.details.revision == wanted);
        diagnose(pods, now, Instant::now())
    }

    /// Returns whether events may be read now, and counts that as a read.
    pub(crate) fn may_read_events(&self, now: Instant) -> bool {
        let mut index = self.lock();
        let may = index.next_read.is_none_or(|next| next <= now);
        if may {
            index.next_read = Some(now + MIN_READ_INTERVAL);
        }
        may
    }

    /// Records the cause that the events of a pod name. An earlier cause is kept, since events
    /// expire.
    pub(crate) fn record_event_cause(
        &self,
        queue: &Key,
        pod: Uuid,
        cause: Option<Cause>,
        now: Instant,
    ) {
        let mut index = self.lock();
        let known =
            index.queues.get_mut(queue).into_iter().flatten().find(|known| known.uid == pod);
        if let Some(known) = known {
            known.read_at = Some(now);
            known.from_events = cause.or_else(|| known.from_events.take());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Index ===

impl Index {
    /// Adds or updates a pod. Returns its queue if the pod is new, or its cause has changed.
    fn upsert(&mut self, pod: &WorkerPod) -> Option<ObjectRef<AsyncQueue>> {
        let before = self.remove(pod.meta.uid);
        // The Deployment counts the pods that are ready.
        let PodState::NotReady(details) = &pod.data else { return None };
        let details = (**details).clone();
        let is_changed = before
            .as_ref()
            .is_none_or(|before| before.details.progress.reason() != details.progress.reason());
        let before = before.filter(|before| before.details.progress.is_same(&details.progress));
        let (from_events, read_at) =
            before.map_or((None, None), |known| (known.from_events, known.read_at));
        let queue: Key = (pod.meta.namespace.clone(), details.queue.clone());
        let object = is_changed.then(|| ObjectRef::new(&queue.1).within(&queue.0));
        let known = UnreadyPod {
            name: pod.meta.name.clone(),
            uid: pod.meta.uid,
            details,
            from_events,
            read_at,
        };
        self.queue_of_pod.insert(known.uid, queue.clone());
        self.queues.entry(queue).or_default().push(known);
        object
    }

    /// Removes a pod, and returns what was known of it.
    fn remove(&mut self, uid: Uuid) -> Option<UnreadyPod> {
        let queue = self.queue_of_pod.remove(&uid)?;
        let pods = self.queues.get_mut(&queue)?;
        let known = pods.iter().position(|pod| pod.uid == uid).map(|at| pods.swap_remove(at));
        if pods.is_empty() {
            self.queues.remove(&queue);
        }
        known
    }

    /// Removes the pods of a namespace, or of all, that are not in a listing.
    fn retain_listed(&mut self, namespace: Option<&str>, listed: &HashSet<Uuid>) {
        let is_here = |place: &str| namespace.is_none_or(|namespace| namespace == place);
        let gone = self
            .queue_of_pod
            .iter()
            .filter(|(uid, (place, _))| is_here(place) && !listed.contains(*uid));
        let gone: Vec<_> = gone.map(|(uid, _)| *uid).collect();
        for uid in gone {
            self.remove(uid);
        }
    }
}

// === impl UnreadyPod ===

impl UnreadyPod {
    /// Returns why the pod does not start, if that is known.
    fn cause(&self, now: Timestamp) -> Option<&Cause> {
        match &self.details.progress {
            Progress::Ended { running_since, .. } if has_recovered(*running_since, now) => {
                self.from_events.as_ref()
            }
            Progress::Ended { cause, was_stopped: true, .. } => {
                self.from_events.as_ref().or(Some(cause))
            }
            Progress::Stuck(cause) | Progress::Ended { cause, .. } => Some(cause),
            Progress::Starting | Progress::Running { .. } => self.from_events.as_ref(),
        }
    }

    /// Returns the time until its events may name the cause; `None` if its status does.
    fn events_in(&self, now: Timestamp) -> Option<Duration> {
        match &self.details.progress {
            Progress::Starting | Progress::Ended { was_stopped: true, .. } => Some(Duration::ZERO),
            Progress::Running { since } => {
                Some(PROBE_STARTUP_TIME.saturating_sub(elapsed(*since, now)))
            }
            Progress::Ended { running_since, .. } => {
                has_recovered(*running_since, now).then_some(Duration::ZERO)
            }
            Progress::Stuck(_) => None,
        }
    }

    /// Returns whether its events were read recently.
    fn was_read(&self, now: Instant) -> bool {
        let pause =
            if self.from_events.is_some() { EXPLAINED_READ_INTERVAL } else { READ_INTERVAL };
        self.read_at.is_some_and(|read_at| now.duration_since(read_at) < pause)
    }
}

/// Examines pods of one template that are not ready.
fn diagnose<'a>(
    pods: impl Iterator<Item = &'a UnreadyPod>,
    now: Timestamp,
    instant: Instant,
) -> Diagnosis {
    let mut pods: Vec<_> = pods.collect();
    // The oldest comes first, so that the result is the same each time.
    pods.sort_by_key(|pod| (pod.details.created, &pod.name));
    let age = |pod: &&UnreadyPod| elapsed(pod.details.created, now);
    let Some(youngest) = pods.last().map(age) else { return Diagnosis::default() };
    let startup_left = STARTUP_TIME.saturating_sub(youngest);
    if !startup_left.is_zero() {
        return Diagnosis { check_after: Some(startup_left), ..Diagnosis::default() };
    }
    let cause = pods.iter().find_map(|pod| pod.cause(now)).cloned();
    let candidates = || pods.iter().filter_map(|pod| Some((pod, pod.events_in(now)?)));
    let due = candidates().find(|(pod, wait)| wait.is_zero() && !pod.was_read(instant));
    let unexplained = due.map(|(pod, _)| pod.uid);
    let probed = candidates().map(|(_, wait)| wait).filter(|wait| !wait.is_zero()).min();
    let check_after = match (&cause, probed) {
        (Some(_), _) => None,
        (None, Some(wait)) => Some(wait),
        (None, None) => (youngest < FREQUENT_CHECK_TIME).then_some(youngest / 2),
    };
    Diagnosis { cause, unexplained, check_after }
}

fn has_recovered(running_since: Option<Timestamp>, now: Timestamp) -> bool {
    running_since.is_some_and(|since| elapsed(since, now) >= RECOVERY_TIME)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::{pod::PartialPod, *};
    use crate::{
        cache::object::{CachedMeta, CachedObject},
        crd::conditions::reason,
        fixtures,
        pods::cause,
    };

    const CREATED: i64 = 1000;

    fn at(second: i64) -> Timestamp {
        fixtures::second(second).0
    }

    fn details(progress: Progress) -> PodState {
        let revision = "00000000000000ff".parse().ok();
        PodState::NotReady(Box::new(PodDetails {
            queue: "q".into(),
            revision,
            created: at(CREATED),
            progress,
        }))
    }

    fn pod(name: &str, state: PodState) -> WorkerPod {
        let meta = CachedMeta {
            name: name.into(),
            namespace: "ns".into(),
            uid: fixtures::uid(name).parse().unwrap(),
            ..CachedMeta::default()
        };
        CachedObject::<PartialPod, _>::new(meta, state)
    }

    fn key() -> Key {
        ("ns".into(), "q".into())
    }

    /// Examines the pods so many seconds after they were created.
    fn after(pods: &UnreadyPods, seconds: i64) -> Diagnosis {
        pods.diagnose(&key(), "00000000000000ff".parse().ok(), at(CREATED + seconds))
    }

    fn with(progress: Progress) -> UnreadyPods {
        let pods = UnreadyPods::default();
        let event = Event::Apply(pod("a", details(progress)));
        assert!(PodWatch::new(None).handle_event(&event, &pods).is_some());
        pods
    }

    fn stuck() -> Progress {
        Progress::Stuck(cause::image_pull("x", "no"))
    }

    #[test]
    fn a_young_pod_is_starting_and_then_has_a_cause() {
        let pods = with(stuck());
        assert_eq!(
            after(&pods, 2),
            Diagnosis { check_after: Some(Duration::from_secs(3)), ..Diagnosis::default() }
        );
        let diagnose = after(&pods, 5);
        assert_eq!(diagnose.cause.map(|cause| cause.reason), Some(reason::IMAGE_PULL_FAILED));
        assert_eq!((diagnose.unexplained, diagnose.check_after), (None, None));
        // Pods of another template are ignored.
        assert_eq!(pods.diagnose(&key(), "1".parse().ok(), at(CREATED + 5)), Diagnosis::default());
    }

    #[test]
    fn a_cause_that_only_events_name_is_read_and_kept() {
        let pods = with(Progress::Starting);
        let diagnose = after(&pods, 6);
        let uid = diagnose.unexplained.unwrap();
        assert_eq!((diagnose.cause, diagnose.check_after), (None, Some(Duration::from_secs(3))));
        let now = Instant::now();
        pods.record_event_cause(
            &key(),
            uid,
            Some(cause::volume_mount("v : secret \"s\" not found")),
            now,
        );
        let diagnose = after(&pods, 7);
        assert_eq!(diagnose.cause.map(|cause| cause.reason), Some(reason::VOLUME_MOUNT_FAILED));
        assert_eq!((diagnose.unexplained, diagnose.check_after), (None, None));
        // Events expire, but their cause is kept.
        pods.record_event_cause(&key(), uid, None, now);
        assert!(after(&pods, 8).cause.is_some());
        // The cause is kept until the pod's state changes.
        let running = Progress::Running { since: at(CREATED + 9) };
        PodWatch::new(None).handle_event(&Event::Apply(pod("a", details(running))), &pods);
        assert_eq!(
            after(&pods, 10),
            Diagnosis { check_after: Some(Duration::from_secs(3)), ..Diagnosis::default() }
        );
        assert!(after(&pods, 15).unexplained.is_some());
    }

    #[test]
    fn a_pod_without_a_cause_is_left_to_the_resync() {
        let pods = with(Progress::Starting);
        assert_eq!(after(&pods, 20).check_after, Some(Duration::from_secs(10)));
        assert_eq!(after(&pods, 60).check_after, None);
    }

    #[test]
    fn a_container_that_was_stopped_may_have_failed_its_probe() {
        let ended = |was_stopped, running_since| Progress::Ended {
            cause: cause::container_exit(None, &cause::Exit::default()),
            was_stopped,
            running_since,
        };
        let pods = with(ended(true, None));
        let diagnose = after(&pods, 6);
        assert_eq!(diagnose.cause.map(|cause| cause.reason), Some(reason::WORKER_EXITED));
        pods.record_event_cause(
            &key(),
            diagnose.unexplained.unwrap(),
            Some(cause::probe("Liveness probe failed")),
            Instant::now(),
        );
        assert_eq!(after(&pods, 7).cause.map(|cause| cause.reason), Some(reason::PROBE_FAILED));

        assert_eq!(after(&with(ended(false, None)), 6).unexplained, None);
        // If the container has run for a long time since it ended, the pod is not ready for another
        // cause.
        let pods = with(ended(false, Some(at(CREATED + 10))));
        assert!(after(&pods, 600).cause.is_some());
        let diagnose = after(&pods, 700);
        assert_eq!((diagnose.cause, diagnose.unexplained.is_some()), (None, true));
    }

    #[test]
    fn only_new_pods_and_causes_trigger_a_queue() {
        let (pods, mut pod_watch) = (UnreadyPods::default(), PodWatch::new(None));
        let mut handle_event = |progress| {
            let event = Event::Apply(pod("a", details(progress)));
            pod_watch.handle_event(&event, &pods).map(|queue| queue.name)
        };
        assert_eq!(handle_event(Progress::Starting).as_deref(), Some("q"));
        assert_eq!(handle_event(Progress::Starting), None);
        assert_eq!(handle_event(Progress::Running { since: at(1) }), None);
        assert_eq!(handle_event(stuck()).as_deref(), Some("q"));
        assert_eq!(handle_event(stuck()), None);
    }

    #[test]
    fn pods_that_are_ready_or_deleted_are_removed() {
        let (pods, mut pod_watch) = (with(stuck()), PodWatch::new(Some("ns")));
        assert!(
            pod_watch.handle_event(&Event::Apply(pod("a", PodState::Ignored)), &pods).is_none()
        );
        assert_eq!(after(&pods, 9), Diagnosis::default());

        pod_watch.handle_event(&Event::Apply(pod("a", details(stuck()))), &pods);
        pod_watch.handle_event(&Event::Delete(pod("a", PodState::Ignored)), &pods);
        assert_eq!(after(&pods, 9), Diagnosis::default());

        // A listing removes pods that were deleted during an outage, only in its own namespace.
        for name in ["a", "b"] {
            pod_watch.handle_event(&Event::Apply(pod(name, details(stuck()))), &pods);
        }
        let mut elsewhere = PodWatch::new(Some("other"));
        for event in [Event::Init, Event::InitDone] {
            elsewhere.handle_event(&event, &pods);
        }
        for event in [Event::Init, Event::InitApply(pod("b", details(stuck()))), Event::InitDone] {
            pod_watch.handle_event(&event, &pods);
        }
        let index = pods.lock();
        let left: Vec<_> = index.queues.values().flatten().map(|known| &*known.name).collect();
        assert_eq!((left, index.queue_of_pod.len()), (vec!["b"], 1));
    }

    #[test]
    fn events_are_read_at_a_bounded_rate() {
        let (pods, now) = (UnreadyPods::default(), Instant::now());
        assert!(pods.may_read_events(now) && !pods.may_read_events(now));
        assert!(pods.may_read_events(now + MIN_READ_INTERVAL));
    }
}
