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
    pod::{Standing, State, Waiting},
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
const SETTLE: Duration = Duration::from_secs(5);

/// Time during which failed probes mean nothing, since they begin before the container listens. The
/// kubelet, too, waits for two failures, two seconds apart.
const PROBES: Duration = Duration::from_secs(4);

/// A container that has run for this time since it ended is no longer failing repeatedly: the
/// kubelet resets its back-off too.
const RECOVERED: Duration = Duration::from_secs(600);

/// A pod without a cause is read again at short intervals until it is this old, and then with its
/// queue's resync.
const ATTENTION: Duration = Duration::from_secs(30);

/// Intervals of reading events: of a pod, of a pod whose cause events have named, and of any two
/// pods. The API server scans all events of a namespace for each read.
const READ_AGAIN: Duration = Duration::from_secs(2);
const READ_KNOWN: Duration = Duration::from_secs(60);
const READ_ANOTHER: Duration = Duration::from_millis(100);

/// Namespace and name of a queue.
pub(crate) type Key = (Box<str>, Box<str>);

/// The pods that are not ready.
#[derive(Debug, Default)]
pub(crate) struct Pods(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    queues: HashMap<Key, Vec<Known>>,
    /// The queue of each pod.
    places: HashMap<Uuid, Key>,
    /// Time from which events may be read again.
    next_read: Option<Instant>,
}

/// What is known of one pod.
#[derive(Clone, Debug)]
struct Known {
    name: Box<str>,
    uid: Uuid,
    waiting: Waiting,
    /// The cause that its events name, and the time of the last read.
    from_events: Option<Cause>,
    read_at: Option<Instant>,
}

/// Follows one watch of pods.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The namespace that is watched; `None` means all.
    namespace: Option<Box<str>>,
    /// The pods in the current listing.
    listed: Option<HashSet<Uuid>>,
}

/// Why the workers of a queue do not start, and what to do to find out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Look {
    /// The cause, if it is known.
    pub(crate) cause: Option<Cause>,
    /// The pod whose events should be read.
    pub(crate) unexplained: Option<Uuid>,
    /// Time until the next examination.
    pub(crate) again: Option<Duration>,
}

// === impl Follower ===

impl Follower {
    pub(crate) fn new(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Box::from), listed: None }
    }

    /// Updates the pods from an event of the watch. Returns the queue if the pod is new, or its
    /// cause has changed.
    pub(crate) fn take(
        &mut self,
        event: &Event<WorkerPod>,
        pods: &Pods,
    ) -> Option<ObjectRef<AsyncQueue>> {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                self.listed.get_or_insert_default().insert(pod.meta.uid);
                return pods.lock().put(pod);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                pods.lock().keep(self.namespace.as_deref(), &listed);
            }
            Event::Apply(pod) => return pods.lock().put(pod),
            Event::Delete(pod) => _ = pods.lock().remove(pod.meta.uid),
        }
        None
    }
}

// === impl Pods ===

impl Pods {
    /// Examines the pods of a queue that were created from this template; from any template if it
    /// is not known.
    pub(crate) fn look(&self, queue: &Key, wanted: Option<Revision>, now: Timestamp) -> Look {
        let index = self.lock();
        let pods = index.queues.get(queue).into_iter().flatten();
        let pods = pods.filter(|pod| wanted.is_none() || pod.waiting.revision == wanted);
        look(pods, now, Instant::now())
    }

    /// Returns whether events may be read now, and counts that as a read.
    pub(crate) fn may_read_events(&self, now: Instant) -> bool {
        let mut index = self.lock();
        let may = index.next_read.is_none_or(|next| next <= now);
        if may {
            index.next_read = Some(now + READ_ANOTHER);
        }
        may
    }

    /// Records the cause that the events of a pod name. An earlier cause is kept, since events
    /// expire.
    pub(crate) fn note(&self, queue: &Key, pod: Uuid, cause: Option<Cause>, now: Instant) {
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
    fn put(&mut self, pod: &WorkerPod) -> Option<ObjectRef<AsyncQueue>> {
        let before = self.remove(pod.meta.uid);
        // The Deployment counts the pods that are ready.
        let State::Waiting(waiting) = &pod.data else { return None };
        let waiting = (**waiting).clone();
        let is_news = before
            .as_ref()
            .is_none_or(|before| before.waiting.standing.reason() != waiting.standing.reason());
        let before = before.filter(|before| before.waiting.standing.is_like(&waiting.standing));
        let (from_events, read_at) =
            before.map_or((None, None), |known| (known.from_events, known.read_at));
        let queue: Key = (pod.meta.namespace.clone(), waiting.queue.clone());
        let object = is_news.then(|| ObjectRef::new(&queue.1).within(&queue.0));
        let known =
            Known { name: pod.meta.name.clone(), uid: pod.meta.uid, waiting, from_events, read_at };
        self.places.insert(known.uid, queue.clone());
        self.queues.entry(queue).or_default().push(known);
        object
    }

    /// Removes a pod, and returns what was known of it.
    fn remove(&mut self, uid: Uuid) -> Option<Known> {
        let queue = self.places.remove(&uid)?;
        let pods = self.queues.get_mut(&queue)?;
        let known = pods.iter().position(|pod| pod.uid == uid).map(|at| pods.swap_remove(at));
        if pods.is_empty() {
            self.queues.remove(&queue);
        }
        known
    }

    /// Removes the pods of a namespace, or of all, that are not in a listing.
    fn keep(&mut self, namespace: Option<&str>, listed: &HashSet<Uuid>) {
        let is_here = |place: &str| namespace.is_none_or(|namespace| namespace == place);
        let gone =
            self.places.iter().filter(|(uid, (place, _))| is_here(place) && !listed.contains(*uid));
        let gone: Vec<_> = gone.map(|(uid, _)| *uid).collect();
        for uid in gone {
            self.remove(uid);
        }
    }
}

// === impl Known ===

impl Known {
    /// Returns why the pod does not start, if that is known.
    fn cause(&self, now: Timestamp) -> Option<&Cause> {
        match &self.waiting.standing {
            Standing::Ended { running_since, .. } if has_recovered(*running_since, now) => {
                self.from_events.as_ref()
            }
            Standing::Ended { cause, was_stopped: true, .. } => {
                self.from_events.as_ref().or(Some(cause))
            }
            Standing::Stuck(cause) | Standing::Ended { cause, .. } => Some(cause),
            Standing::Starting | Standing::Running { .. } => self.from_events.as_ref(),
        }
    }

    /// Returns the time until its events may name the cause; `None` if its status does.
    fn events_in(&self, now: Timestamp) -> Option<Duration> {
        match &self.waiting.standing {
            Standing::Starting | Standing::Ended { was_stopped: true, .. } => Some(Duration::ZERO),
            Standing::Running { since } => Some(PROBES.saturating_sub(elapsed(*since, now))),
            Standing::Ended { running_since, .. } => {
                has_recovered(*running_since, now).then_some(Duration::ZERO)
            }
            Standing::Stuck(_) => None,
        }
    }

    /// Returns whether its events were read recently.
    fn was_read(&self, now: Instant) -> bool {
        let pause = if self.from_events.is_some() { READ_KNOWN } else { READ_AGAIN };
        self.read_at.is_some_and(|read_at| now.duration_since(read_at) < pause)
    }
}

/// Examines pods of one template that are not ready.
fn look<'a>(pods: impl Iterator<Item = &'a Known>, now: Timestamp, instant: Instant) -> Look {
    let mut pods: Vec<_> = pods.collect();
    // The oldest comes first, so that the result is the same each time.
    pods.sort_by_key(|pod| (pod.waiting.created, &pod.name));
    let age = |pod: &&Known| elapsed(pod.waiting.created, now);
    let Some(youngest) = pods.last().map(age) else { return Look::default() };
    let unsettled = SETTLE.saturating_sub(youngest);
    if !unsettled.is_zero() {
        return Look { again: Some(unsettled), ..Look::default() };
    }
    let cause = pods.iter().find_map(|pod| pod.cause(now)).cloned();
    let candidates = || pods.iter().filter_map(|pod| Some((pod, pod.events_in(now)?)));
    let due = candidates().find(|(pod, wait)| wait.is_zero() && !pod.was_read(instant));
    let unexplained = due.map(|(pod, _)| pod.uid);
    let probed = candidates().map(|(_, wait)| wait).filter(|wait| !wait.is_zero()).min();
    let again = match (&cause, probed) {
        (Some(_), _) => None,
        (None, Some(wait)) => Some(wait),
        (None, None) => (youngest < ATTENTION).then_some(youngest / 2),
    };
    Look { cause, unexplained, again }
}

fn has_recovered(running_since: Option<Timestamp>, now: Timestamp) -> bool {
    running_since.is_some_and(|since| elapsed(since, now) >= RECOVERED)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::{pod::Parts, *};
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

    fn waiting(standing: Standing) -> State {
        let revision = "00000000000000ff".parse().ok();
        State::Waiting(Box::new(Waiting {
            queue: "q".into(),
            revision,
            created: at(CREATED),
            standing,
        }))
    }

    fn pod(name: &str, state: State) -> WorkerPod {
        let meta = CachedMeta {
            name: name.into(),
            namespace: "ns".into(),
            uid: fixtures::uid(name).parse().unwrap(),
            ..CachedMeta::default()
        };
        CachedObject::<Parts, _>::new(meta, state)
    }

    fn key() -> Key {
        ("ns".into(), "q".into())
    }

    /// Examines the pods so many seconds after they were created.
    fn after(pods: &Pods, seconds: i64) -> Look {
        pods.look(&key(), "00000000000000ff".parse().ok(), at(CREATED + seconds))
    }

    fn with(standing: Standing) -> Pods {
        let pods = Pods::default();
        let event = Event::Apply(pod("a", waiting(standing)));
        assert!(Follower::new(None).take(&event, &pods).is_some());
        pods
    }

    fn stuck() -> Standing {
        Standing::Stuck(cause::image("x", "no"))
    }

    #[test]
    fn a_young_pod_is_starting_and_then_has_a_cause() {
        let pods = with(stuck());
        assert_eq!(
            after(&pods, 2),
            Look { again: Some(Duration::from_secs(3)), ..Look::default() }
        );
        let look = after(&pods, 5);
        assert_eq!(look.cause.map(|cause| cause.reason), Some(reason::IMAGE_PULL_FAILED));
        assert_eq!((look.unexplained, look.again), (None, None));
        // Pods of another template are ignored.
        assert_eq!(pods.look(&key(), "1".parse().ok(), at(CREATED + 5)), Look::default());
    }

    #[test]
    fn a_cause_that_only_events_name_is_read_and_kept() {
        let pods = with(Standing::Starting);
        let look = after(&pods, 6);
        let uid = look.unexplained.unwrap();
        assert_eq!((look.cause, look.again), (None, Some(Duration::from_secs(3))));
        let now = Instant::now();
        pods.note(&key(), uid, Some(cause::volume("v : secret \"s\" not found")), now);
        let look = after(&pods, 7);
        assert_eq!(look.cause.map(|cause| cause.reason), Some(reason::VOLUME_MOUNT_FAILED));
        assert_eq!((look.unexplained, look.again), (None, None));
        // Events expire, but their cause is kept.
        pods.note(&key(), uid, None, now);
        assert!(after(&pods, 8).cause.is_some());
        // The cause is kept until the pod's state changes.
        let running = Standing::Running { since: at(CREATED + 9) };
        Follower::new(None).take(&Event::Apply(pod("a", waiting(running))), &pods);
        assert_eq!(
            after(&pods, 10),
            Look { again: Some(Duration::from_secs(3)), ..Look::default() }
        );
        assert!(after(&pods, 15).unexplained.is_some());
    }

    #[test]
    fn a_pod_that_gets_no_cause_is_left_to_the_resync() {
        let pods = with(Standing::Starting);
        assert_eq!(after(&pods, 20).again, Some(Duration::from_secs(10)));
        assert_eq!(after(&pods, 60).again, None);
    }

    #[test]
    fn a_container_that_was_stopped_may_have_failed_its_probe() {
        let ended = |was_stopped, running_since| Standing::Ended {
            cause: cause::exit(None, &cause::Exit::default()),
            was_stopped,
            running_since,
        };
        let pods = with(ended(true, None));
        let look = after(&pods, 6);
        assert_eq!(look.cause.map(|cause| cause.reason), Some(reason::WORKER_EXITED));
        pods.note(
            &key(),
            look.unexplained.unwrap(),
            Some(cause::probe("Liveness probe failed")),
            Instant::now(),
        );
        assert_eq!(after(&pods, 7).cause.map(|cause| cause.reason), Some(reason::PROBE_FAILED));

        assert_eq!(after(&with(ended(false, None)), 6).unexplained, None);
        // If the container has run for a long time since it ended, the pod is not ready for another
        // cause.
        let pods = with(ended(false, Some(at(CREATED + 10))));
        assert!(after(&pods, 600).cause.is_some());
        let look = after(&pods, 700);
        assert_eq!((look.cause, look.unexplained.is_some()), (None, true));
    }

    #[test]
    fn only_new_pods_and_causes_trigger_a_queue() {
        let (pods, mut follower) = (Pods::default(), Follower::new(None));
        let mut take = |standing| {
            let event = Event::Apply(pod("a", waiting(standing)));
            follower.take(&event, &pods).map(|queue| queue.name)
        };
        assert_eq!(take(Standing::Starting).as_deref(), Some("q"));
        assert_eq!(take(Standing::Starting), None);
        assert_eq!(take(Standing::Running { since: at(1) }), None);
        assert_eq!(take(stuck()).as_deref(), Some("q"));
        assert_eq!(take(stuck()), None);
    }

    #[test]
    fn pods_that_are_ready_or_gone_are_forgotten() {
        let (pods, mut follower) = (with(stuck()), Follower::new(Some("ns")));
        assert!(follower.take(&Event::Apply(pod("a", State::Fine)), &pods).is_none());
        assert_eq!(after(&pods, 9), Look::default());

        follower.take(&Event::Apply(pod("a", waiting(stuck()))), &pods);
        follower.take(&Event::Delete(pod("a", State::Fine)), &pods);
        assert_eq!(after(&pods, 9), Look::default());

        // A listing removes pods that were deleted during an outage, only in its own namespace.
        for name in ["a", "b"] {
            follower.take(&Event::Apply(pod(name, waiting(stuck()))), &pods);
        }
        let mut elsewhere = Follower::new(Some("other"));
        for event in [Event::Init, Event::InitDone] {
            elsewhere.take(&event, &pods);
        }
        for event in [Event::Init, Event::InitApply(pod("b", waiting(stuck()))), Event::InitDone] {
            follower.take(&event, &pods);
        }
        let index = pods.lock();
        let left: Vec<_> = index.queues.values().flatten().map(|known| &*known.name).collect();
        assert_eq!((left, index.places.len()), (vec!["b"], 1));
    }

    #[test]
    fn events_are_read_at_a_bounded_rate() {
        let (pods, now) = (Pods::default(), Instant::now());
        assert!(pods.may_read_events(now) && !pods.may_read_events(now));
        assert!(pods.may_read_events(now + READ_ANOTHER));
    }
}
