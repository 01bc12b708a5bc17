//! Finds the cause in the events of a pod. Failures of volumes, sandboxes and probes are recorded
//! only there.

use k8s_openapi::{api::events::v1::Event, jiff::Timestamp};
use kube::{Api, Client, api::ListParams};
use tracing::debug;
use uuid::Uuid;

use super::cause::{self, Cause};
use crate::error::chain;

/// Text of a later event of the kubelet that does not repeat the cause.
const TIMEOUT_NOTE: &str = "timed out waiting for the condition";

/// Reads the events of a pod. Returns no cause if they can't be read: the rest works without them.
pub(crate) async fn read_cause(client: &Client, namespace: &str, pod: Uuid) -> Option<Cause> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let warnings = ListParams::default().fields(&format!("regarding.uid={pod},type=Warning"));
    match events.list(&warnings).await {
        Ok(list) => newest(&list.items),
        Err(error) => {
            debug!(namespace, %pod, "failed to read the events of a pod: {}", chain(&error));
            None
        }
    }
}

/// Returns the cause in the newest event that names one.
fn newest(events: &[Event]) -> Option<Cause> {
    let causes = events.iter().filter_map(|event| Some((last_seen(event), cause_of(event)?)));
    causes.max_by_key(|(seen, _)| *seen).map(|(_, cause)| cause)
}

fn cause_of(event: &Event) -> Option<Cause> {
    let note = event.note.as_deref().unwrap_or_default();
    match event.reason.as_deref()? {
        "FailedMount" | "FailedAttachVolume" if !note.contains(TIMEOUT_NOTE) => {
            Some(cause::volume_mount(note))
        }
        "FailedCreatePodSandBox" => Some(cause::sandbox(note)),
        "Unhealthy" => Some(cause::probe(note)),
        _ => None,
    }
}

/// Returns when an event was last seen: in its series, or in the fields that came before series.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let counted = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.max(counted).max(first)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::conditions::reason;

    fn events(events: &Value) -> Vec<Event> {
        serde_json::from_value(events.clone()).unwrap()
    }

    #[test]
    fn the_newest_event_with_a_cause_counts() {
        let of = |reason: &str, note: &str, times: Value| {
            let mut event = json!({ "metadata": {}, "reason": reason, "note": note });
            event.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
            event
        };
        let counted = |second: u8| {
            let time = format!("2026-01-01T00:00:{second:02}Z");
            json!({ "deprecatedLastTimestamp": time })
        };
        let mount = of(
            "FailedMount",
            "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found",
            counted(5),
        );
        let probe = of("Unhealthy", "Readiness probe failed: statuscode: 503", counted(9));
        let waited =
            of("FailedMount", "Unable to attach: timed out waiting for the condition", counted(20));
        let other = of("BackOff", "back-off", counted(30));
        let found = newest(&events(&json!([mount, probe, waited, other]))).unwrap();
        assert_eq!(found.reason, reason::PROBE_FAILED);
        let found = newest(&events(&json!([waited, mount, other]))).unwrap();
        assert!(found.message.contains("secret \"s\" not found"), "{found:?}");

        let series =
            json!({ "series": { "count": 3, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } });
        let sandbox = of("FailedCreatePodSandBox", "no network", series);
        assert_eq!(
            newest(&events(&json!([sandbox, probe]))).unwrap().reason,
            reason::CONTAINER_START_FAILED
        );
        assert_eq!(newest(&[]), None);
    }
}
