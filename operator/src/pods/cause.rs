//! Describes why a worker does not run, in messages that stay the same while the cause does. Pure.
//!
//! Messages of Kubernetes contain counts, times and generated names. A status that repeats them
//! would change all the time, so they are omitted here. [`steady`] keeps the last message if the
//! new one differs only in numbers.

use crate::crd::conditions::reason;

/// Maximum length of the detail in a message, in characters.
const MAX_DETAIL: usize = 300;

/// Prefixes of the error with which a program exits: that of the program and that of clap.
const EXIT_MESSAGE_PREFIXES: [&str; 2] = ["asyncqueue-worker: ", "error: "];

/// Exit codes of a container that was stopped rather than failed: it ended as requested, by SIGKILL
/// or by SIGTERM.
const STOPPED_EXIT_CODES: [i32; 3] = [0, 137, 143];

/// Cause why a worker does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// A constant of [`reason`].
    pub(crate) reason: &'static str,
    /// A full sentence, with the remedy.
    pub(crate) message: String,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// The kubelet's reason: `Error`, `OOMKilled`, `StartError`.
    pub(crate) reason: String,
    /// The end of the container's log, or of its termination message.
    pub(crate) message: String,
}

/// Returns the cause for an image that cannot be pulled. The kubelet's message alternates between
/// the error and the back-off from it.
pub(crate) fn image_pull(image: &str, message: &str) -> Cause {
    let detail = match message.strip_prefix("Back-off pulling image") {
        // Since Kubernetes 1.32 the error follows; before, there is no error in the message.
        Some(rest) => rest.split_once("\": ").map_or("", |(_, error)| error),
        None => message,
    };
    let detail = detail.strip_prefix("ErrImagePull: ").unwrap_or(detail);
    let message = sentence(
        &format!("Image {image} cannot be pulled"),
        detail,
        "Correct spec.worker.image, or check the registry and spec.worker.imagePullSecrets.",
    );
    Cause { reason: reason::IMAGE_PULL_FAILED, message }
}

/// Returns the cause for a container that the kubelet cannot configure: a Secret or `ConfigMap` is
/// missing, or a key in it.
pub(crate) fn container_config(message: &str) -> Cause {
    let remedy = "Create it, or correct spec.worker.env.";
    let message = sentence("A worker's container cannot be configured", message, remedy);
    Cause { reason: reason::CONTAINER_CONFIG_ERROR, message }
}

/// Returns the cause for a container that the container runtime cannot start.
pub(crate) fn container_start(message: &str) -> Cause {
    let remedy = "Check that spec.worker.image contains the program asyncqueue-worker for the \
                  architecture of the node.";
    let message = sentence("A worker's container cannot be started", message, remedy);
    Cause { reason: reason::CONTAINER_START_FAILED, message }
}

/// Returns the cause for a pod whose volumes cannot be mounted: most often, a Secret is missing.
pub(crate) fn volume_mount(note: &str) -> Cause {
    // `MountVolume.SetUp failed for volume "x" : secret "y" not found`
    let detail = note.split_once(" : ").map_or(note, |(_, detail)| detail);
    let remedy = "Create what is missing, or correct spec.nats or spec.callback.";
    let message = sentence("A volume of a worker cannot be mounted", detail, remedy);
    Cause { reason: reason::VOLUME_MOUNT_FAILED, message }
}

/// Returns the cause for a pod for which the node cannot set up a sandbox: network, runtime class.
pub(crate) fn sandbox(note: &str) -> Cause {
    let remedy = "Check the container runtime and the network of the node.";
    let message = sentence("The node cannot set up the pod of a worker", note, remedy);
    Cause { reason: reason::CONTAINER_START_FAILED, message }
}

/// Returns the cause for a container whose probe fails: it is not ready, or not alive.
pub(crate) fn probe(note: &str) -> Cause {
    let remedy = "The worker's log says what it waits for.";
    let message = sentence("A worker runs but is not ready", note, remedy);
    Cause { reason: reason::PROBE_FAILED, message }
}

/// Returns the cause for a pod that no node accepts: the scheduler's message without its counts of
/// nodes.
pub(crate) fn unschedulable(message: &str) -> Cause {
    let remedy =
        "Add nodes, or correct spec.worker.nodeSelector, affinity, tolerations or resources.";
    let message = sentence("No node accepts a worker", &without_node_counts(message), remedy);
    Cause { reason: reason::UNSCHEDULABLE, message }
}

/// Returns the cause for pods that the API server refuses: a quota, an admission rule, a class that
/// does not exist.
pub(crate) fn pods_refused(message: &str) -> Cause {
    let remedy = "Raise the quota, or correct the fields that the rule names.";
    let message = sentence("The API server refuses the pods of workers", message, remedy);
    Cause { reason: reason::PODS_REFUSED, message }
}

/// Returns the cause for workers that did not start in time, without a known reason.
pub(crate) fn overdue(message: &str) -> Cause {
    let remedy = "See the pods of the queue and their events: kubectl describe pods.";
    let message = sentence("Workers do not start in time", message, remedy);
    Cause { reason: reason::WORKERS_UNAVAILABLE, message }
}

/// Returns the cause for a container that ended. Only the worker's own last message is repeated:
/// another container may log anything.
pub(crate) fn container_exit(container: Option<&str>, exit: &Exit) -> Cause {
    let Exit { code, reason, message } = exit;
    if matches!(reason.as_str(), "StartError" | "ContainerCannotRun") {
        return container_start(message);
    }
    let who = container
        .map_or_else(|| "A worker".to_owned(), |name| format!("Container {name} of a worker"));
    if reason == "OOMKilled" {
        let remedy = "Raise spec.worker.resources.limits.memory, or lower memory_budget.";
        let message =
            sentence(&format!("{who} was killed for using more memory than its limit"), "", remedy);
        return Cause { reason: reason::OUT_OF_MEMORY, message };
    }
    let words = container.map_or_else(|| exit_message(message), |_| "");
    let remedy = "See its log.";
    let message = sentence(&format!("{who} ended with exit code {code}"), words, remedy);
    Cause { reason: reason::WORKER_EXITED, message }
}

/// Returns the message to write. That is the last one if the new one differs only in numbers, or
/// has less detail.
pub(crate) fn stable_message(last: &str, new: String) -> String {
    let bare = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let has_less_detail = |image: &str| {
        let (image, remedy) = image.split_once(" cannot be pulled. ")?;
        let detailed = last.strip_prefix(image)?.strip_prefix(" cannot be pulled: ")?;
        detailed.ends_with(remedy).then_some(())
    };
    if bare(last) == bare(&new) || has_less_detail(&new).is_some() { last.to_owned() } else { new }
}

// === impl Exit ===

impl Exit {
    /// Returns whether the container was stopped from outside, as the kubelet does if its liveness
    /// probe fails.
    pub(crate) fn was_stopped(&self) -> bool {
        STOPPED_EXIT_CODES.contains(&self.code) && self.reason != "OOMKilled"
    }
}

/// Formats `what: detail. remedy`, with the detail in one line of bounded length.
fn sentence(what: &str, detail: &str, remedy: &str) -> String {
    let line =
        detail.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(['.', ':']);
    let detail = match line.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    if detail.is_empty() {
        format!("{what}. {remedy}")
    } else {
        format!("{what}: {detail}. {remedy}")
    }
}

/// Returns the scheduler's reasons without the number of nodes of each. Its message:
///
/// `0/3 nodes are available: 2 Insufficient cpu, 1 node(s) …`.
fn without_node_counts(message: &str) -> String {
    let message = message.split_once(". preemption: ").map_or(message, |(reasons, _)| reasons);
    let message =
        message.split_once(". no new claims to deallocate").map_or(message, |(reasons, _)| reasons);
    let Some((_, listed)) = message.split_once(" nodes are available: ") else {
        return message.to_owned();
    };
    let mut reasons: Vec<String> = Vec::new();
    for part in listed.trim_end_matches('.').split(", ") {
        let uncounted = part.trim_start_matches(|c: char| c.is_ascii_digit());
        match (uncounted.strip_prefix(' '), reasons.last_mut()) {
            (Some(reason), _) if uncounted.len() < part.len() => reasons.push(reason.to_owned()),
            // The comma is part of a reason.
            (_, Some(reason)) => *reason = format!("{reason}, {part}"),
            (_, None) => reasons.push(part.to_owned()),
        }
    }
    reasons.sort_unstable();
    reasons.dedup();
    reasons.join(", ")
}

/// Returns the line in which a program says why it exits. Skips log lines: with `verbose`, they may
/// contain payloads.
fn exit_message(log: &str) -> &str {
    let lines = || log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let error =
        lines().find(|line| EXIT_MESSAGE_PREFIXES.iter().any(|begin| line.starts_with(begin)));
    let is_logged =
        |line: &&str| line.starts_with('{') || line.starts_with(|c: char| c.is_ascii_digit());
    error.or_else(|| lines().find(|line| !is_logged(line))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_during_back_off_too() {
        let error = "failed to resolve reference \"r.example/x:1\": not found";
        let first = image_pull("r.example/x:1", error);
        assert_eq!(first.reason, reason::IMAGE_PULL_FAILED);
        assert!(
            first.message.starts_with("Image r.example/x:1 cannot be pulled: failed to resolve"),
            "{first:?}"
        );
        let backed_off = format!("Back-off pulling image \"r.example/x:1\": ErrImagePull: {error}");
        assert_eq!(image_pull("r.example/x:1", &backed_off), first);
        // Kubelets before 1.32 say no more, and the earlier message stays.
        let bare = image_pull("r.example/x:1", "Back-off pulling image \"r.example/x:1\"");
        assert!(
            bare.message.starts_with("Image r.example/x:1 cannot be pulled. Correct"),
            "{bare:?}"
        );
        assert_eq!(stable_message(&first.message, bare.message.clone()), first.message);
        assert_eq!(stable_message(&bare.message, first.message.clone()), first.message);
        let other = image_pull("r.example/y:1", "").message;
        assert_eq!(stable_message(&first.message, other.clone()), other);
    }

    #[test]
    fn a_message_that_differs_in_numbers_alone_is_kept() {
        let (before, now) = ("dial tcp 10.0.0.1:8081: refused", "dial tcp 10.0.0.27:8081: refused");
        assert_eq!(stable_message(before, now.to_owned()), before);
        assert_eq!(stable_message(before, "timed out".to_owned()), "timed out");
    }

    #[test]
    fn the_scheduler_is_quoted_without_its_counts() {
        let said = |message| unschedulable(message).message;
        let message = "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated \
            taint(s) {a: b, c: d}. preemption: 0/5 nodes are available: 5 No preemption victims \
                       found for incoming pod.";
        assert!(
            said(message).starts_with(
                "No node accepts a worker: Insufficient cpu, node(s) had untolerated taint(s) {a: \
                 b, c: d}. Add nodes"
            ),
            "{}",
            said(message)
        );
        // The scheduler's order depends on the counts.
        let one = said("0/5 nodes are available: 1 node(s) x, 4 Insufficient cpu.");
        assert_eq!(one, said("0/9 nodes are available: 4 Insufficient cpu, 5 node(s) x."));
        assert!(
            said("no nodes available to schedule pods")
                .contains(": no nodes available to schedule pods.")
        );
    }

    #[test]
    fn the_exit_message_is_quoted_and_the_log_is_not() {
        let of = |message: &str| {
            container_exit(
                None,
                &Exit { code: 2, reason: "Error".to_owned(), message: message.to_owned() },
            )
            .message
        };
        let log =
            "{\"level\":\"INFO\",\"body\":\"secret\"}\nasyncqueue-worker: nats_url is not valid\n";
        assert_eq!(
            of(log),
            "A worker ended with exit code 2: asyncqueue-worker: nats_url is not valid. See its \
             log."
        );
        let usage = "error: invalid value 'x' for 'max_response_bytes'\n\nFor more information, \
            try '--help'.\n";
        assert!(of(usage).contains("2: error: invalid value 'x'"), "{}", of(usage));
        for logged in ["{\"body\":\"secret\"}", "2026-01-01T00:00:00Z  INFO body=secret", ""] {
            assert_eq!(of(logged), "A worker ended with exit code 2. See its log.");
        }
        assert!(of("exec /bin/x: exec format error").contains("exec format error"));
    }

    #[test]
    fn other_containers_are_named_and_not_quoted() {
        let ended =
            Exit { code: 1, reason: "Error".to_owned(), message: "token=secret".to_owned() };
        let cause = container_exit(Some("istio-proxy"), &ended);
        assert!(
            cause.message.starts_with("Container istio-proxy of a worker ended with exit code 1."),
            "{cause:?}"
        );
    }

    #[test]
    fn exit_reasons_of_the_kubelet_are_distinguished() {
        let of = |reason: &str, code| Exit {
            code,
            reason: reason.to_owned(),
            message: "exec: \"asyncqueue-worker\": executable file not found in $PATH".to_owned(),
        };
        assert_eq!(container_exit(None, &of("OOMKilled", 137)).reason, reason::OUT_OF_MEMORY);
        assert!(!of("OOMKilled", 137).was_stopped() && of("Error", 137).was_stopped());
        assert!(of("Completed", 0).was_stopped() && !of("Error", 2).was_stopped());
        let unstarted = container_exit(None, &of("StartError", 128));
        assert_eq!(unstarted.reason, reason::CONTAINER_START_FAILED);
        assert!(unstarted.message.contains("executable file not found"), "{unstarted:?}");
    }

    #[test]
    fn a_missing_secret_or_quota_is_named() {
        let mount = volume_mount(
            "MountVolume.SetUp failed for volume \"nats\" : secret \"creds\" not found",
        );
        assert!(
            mount
                .message
                .starts_with("A volume of a worker cannot be mounted: secret \"creds\" not found.")
        );
        let config = container_config("couldn't find key k in ConfigMap ns/c");
        assert!(config.message.contains("couldn't find key k in ConfigMap ns/c."), "{config:?}");
        let quota = pods_refused("pods \"q\" is forbidden: exceeded quota: none");
        assert_eq!(quota.reason, reason::PODS_REFUSED);
        assert!(quota.message.contains("exceeded quota: none. Raise"), "{quota:?}");
    }

    #[test]
    fn a_detail_is_one_line_of_bounded_length() {
        let long = probe(&format!("a\n\tb\u{7}c {}", "ä".repeat(1000))).message;
        assert!(long.starts_with("A worker runs but is not ready: a b c ä"), "{long}");
        assert!(long.chars().count() < MAX_DETAIL + 120, "{long}");
    }
}
