//! Reports calls of functions that do not exist. Gateways report them over core NATS, and an event
//! on the queue names the functions. Otherwise a misspelt name would show only in the gateway's log
//! and metrics.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::Message;
use asyncqueue::{
    FunctionName, QueueName,
    directory::Contents,
    unknown_functions::{Outcome, REPORT_SUBJECTS, Report},
};
use asyncqueue_runtime::nats::keep_up;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use tokio::{sync::watch, time::interval};
use tracing::{debug, warn};

use self::pending::{Due, Pending};
use crate::{
    cache::watch::MultiStore,
    crd::AsyncQueue,
    events::Events,
    nats::{connections::NatsConnection, worker_stats::InflightTracker},
};

mod pending;

/// Reason of the event on the queue.
const FUNCTION_NOT_FOUND: &str = "FunctionNotFound";

/// Interval at which due events are published.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of functions that one event names: the API server accepts at most a kilobyte.
const MAX_NAMED_FUNCTIONS: usize = 5;

/// Creates events from the reports on the NATS to which gateways publish, for as long as it is
/// polled. `directory` is the contents of the directory, which gateways follow.
pub(crate) async fn run(
    connection: &NatsConnection,
    queues: &MultiStore<AsyncQueue>,
    events: &Events,
    directory: watch::Receiver<Option<Contents>>,
) {
    // The listener does not wait until an event is published, so that no reports pile up.
    let pending = Mutex::new(Pending::default());
    tokio::join!(
        keep_up(listen(connection, &pending)),
        publish_due(&pending, queues, events, &directory),
    );
}

/// Records the reports for as long as the client lives.
async fn listen(connection: &NatsConnection, pending: &Mutex<Pending>) {
    let mut reports = match connection.js.client().subscribe(REPORT_SUBJECTS).await {
        Ok(reports) => reports,
        Err(error) => {
            return warn!(%error, "failed to subscribe to the reports of unknown functions");
        }
    };
    while let Some(message) = reports.next().await {
        if let Some((queue, report)) = decode(&message, &connection.inflight) {
            lock(pending).record(queue, report, Instant::now());
        }
    }
}

/// Publishes the events that are due, for as long as it is polled.
async fn publish_due(
    pending: &Mutex<Pending>,
    queues: &MultiStore<AsyncQueue>,
    events: &Events,
    directory: &watch::Receiver<Option<Contents>>,
) {
    let mut checks = interval(CHECK_INTERVAL);
    loop {
        checks.tick().await;
        let contents = directory.borrow().clone();
        let due = due(&mut lock(pending), contents.as_ref());
        for due in due {
            publish(&due, queues, events).await;
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the events that are due. Until the directory is complete, no function is known not to
/// exist.
fn due(pending: &mut Pending, contents: Option<&Contents>) -> Vec<Due> {
    let Some(Contents { directory, .. }) = contents.filter(|contents| contents.is_complete) else {
        return Vec::new();
    };
    let exists = |function: &FunctionName| {
        let function = directory.resolve(function.clone());
        directory.functions.contains_key(&function)
    };
    pending.due(exists, Instant::now())
}

/// Publishes an event, and logs it.
async fn publish(due: &Due, queues: &MultiStore<AsyncQueue>, events: &Events) {
    let Some(object) = queue_ref(queues, &due.queue) else {
        return debug!(queue = %due.queue, "no AsyncQueue for a report of unknown functions");
    };
    let note = note(due);
    warn!(queue = %due.queue, "{note}");
    events.warning(&object, FUNCTION_NOT_FOUND, note).await;
}

/// Returns the `AsyncQueue` of this name that has its stream on the NATS to which gateways publish.
fn queue_ref(queues: &MultiStore<AsyncQueue>, name: &QueueName) -> Option<ObjectReference> {
    let queue = queues.all().into_iter().find(|queue| {
        queue.name_any() == name.as_str() && queue.owns_stream() && queue.spec.nats.url.is_none()
    })?;
    Some(queue.object_ref(&()))
}

/// Decodes a report about a queue that exists; `None` for any other message.
fn decode(message: &Message, tracker: &InflightTracker) -> Option<(QueueName, Report)> {
    let queue =
        message.subject.strip_prefix(REPORT_SUBJECTS.trim_end_matches('*'))?.parse().ok()?;
    let report = Report::decode(&message.payload)?;
    tracker.has_queue(&queue).then_some((queue, report))
}

/// Returns the text of an event: which functions, what happens to their calls, and what to do.
fn note(due: &Due) -> String {
    let names: Vec<String> =
        due.functions.iter().take(MAX_NAMED_FUNCTIONS).map(ToString::to_string).collect();
    let more = match due.functions.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = names.join(", ");
    let outcome = match due.outcome {
        Outcome::Accepted => {
            "The calls are stored on this queue and fail until the functions exist. Check their \
             names and namespaces, or deploy them; unknown_function=reject lets the gateway refuse \
             such calls."
        }
        Outcome::Rejected => {
            "The gateway answers them with 404. Check their names and namespaces, or deploy them."
        }
    };
    format!("Calls name functions that do not exist: {names}{more}. {outcome}")
}

#[cfg(test)]
mod tests {
    use asyncqueue::unknown_functions::report_subject;

    use super::*;

    fn due(outcome: Outcome, count: usize) -> Due {
        let function =
            |number| FunctionName::new(&format!("slwo-{number}"), "openfaas-fn").unwrap();
        Due {
            queue: "jobs".parse().unwrap(),
            outcome,
            functions: (0..count).map(function).collect(),
        }
    }

    #[test]
    fn a_note_names_functions_and_what_to_do() {
        let accepted = note(&due(Outcome::Accepted, 1));
        assert!(
            accepted.starts_with("Calls name functions that do not exist: slwo-0.openfaas-fn. "),
            "{accepted}"
        );
        assert!(
            accepted.contains("stored on this queue")
                && accepted.contains("unknown_function=reject")
        );
        let rejected = note(&due(Outcome::Rejected, MAX_NAMED_FUNCTIONS + 2));
        assert!(
            rejected.contains("slwo-4.openfaas-fn and 2 more. The gateway answers them with 404.")
        );
        assert!(!rejected.contains("slwo-5"), "{rejected}");
    }

    #[test]
    fn a_note_of_the_longest_names_is_not_shortened() {
        let name = FunctionName::new(&"f".repeat(63), &"n".repeat(63)).unwrap();
        let longest = Due { functions: vec![name; 64], ..due(Outcome::Accepted, 0) };
        assert!(note(&longest).len() <= 1024, "{}", note(&longest).len());
    }

    #[test]
    fn reports_about_unknown_queues_are_ignored() {
        let report =
            Report { outcome: Outcome::Accepted, functions: due(Outcome::Accepted, 1).functions };
        let message = |queue: &str, payload: Vec<u8>| Message {
            subject: report_subject(&queue.parse().unwrap()).into(),
            reply: None,
            payload: payload.into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let known = InflightTracker::default();
        known.set_queues(["jobs".parse().unwrap()]);
        let encoded = report.encode().unwrap();
        let expected = Some(("jobs".parse().unwrap(), report));
        assert_eq!(decode(&message("jobs", encoded.clone()), &known), expected);
        assert_eq!(decode(&message("invented", encoded), &known), None);
        assert_eq!(decode(&message("jobs", b"Click http://evil".to_vec()), &known), None);
    }
}
