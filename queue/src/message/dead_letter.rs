//! A dead letter: the message as it was, with headers that say why and when it died.

use async_nats::HeaderMap as NatsHeaders;

/// Header: what ended the call, in words.
pub const H_REASON: &str = "Async-Dead-Reason";
/// Header: how many times the call was tried.
pub const H_ATTEMPTS: &str = "Async-Dead-Attempts";
/// Header: the last status, where there was one.
pub const H_STATUS: &str = "Async-Dead-Status";
/// Header: when it died, RFC 3339.
pub const H_AT: &str = "Async-Dead-At";
/// Header: the worker that buried it.
pub const H_WORKER: &str = "Async-Dead-Worker";
/// Header: the subject that the message had.
pub const H_SUBJECT: &str = "Async-Dead-Subject";

/// Why a call is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What ended it, in words, without anything of the call's content.
    pub reason: String,
    /// How many times it was tried.
    pub attempts: u64,
    /// The last status, where there was one.
    pub status: Option<u16>,
}

/// The headers of a dead letter: those of the message, less the ones by which it was stored before, and why
/// it died.
#[must_use]
pub fn headers(
    original: Option<&NatsHeaders>,
    subject: &str,
    death: &Death,
    worker: &str,
    at: jiff::Timestamp,
) -> NatsHeaders {
    let mut headers = NatsHeaders::new();
    for (name, values) in original.into_iter().flat_map(NatsHeaders::iter) {
        // They spoke to the stream that the message was published to, and would speak to this one too.
        if name.to_string().to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(H_REASON, death.reason.replace(['\r', '\n'], " "));
    headers.insert(H_ATTEMPTS, death.attempts.to_string());
    if let Some(status) = death.status {
        headers.insert(H_STATUS, status.to_string());
    }
    headers.insert(H_AT, at.to_string());
    headers.insert(H_WORKER, worker);
    headers.insert(H_SUBJECT, subject);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_kept_and_what_spoke_to_its_stream_is_not() {
        let mut original = NatsHeaders::new();
        original.append("Async-Header", "a: 1");
        original.append("Async-Header", "b: 2");
        original.insert("Nats-Msg-Id", "id-1");
        original.insert("nats-expected-last-subject-sequence", "0");
        let death = Death { reason: "two\nlines".into(), attempts: 3, status: Some(500) };
        let headers = headers(Some(&original), "q.ns.f.id-1", &death, "w", jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(headers.get_all("Async-Header").count(), 2);
        assert!(headers.get("Nats-Msg-Id").is_none());
        assert!(headers.get("nats-expected-last-subject-sequence").is_none());
        assert_eq!(headers.get(H_REASON).unwrap().as_str(), "two lines");
        assert_eq!(headers.get(H_ATTEMPTS).unwrap().as_str(), "3");
        assert_eq!(headers.get(H_STATUS).unwrap().as_str(), "500");
        assert_eq!(headers.get(H_SUBJECT).unwrap().as_str(), "q.ns.f.id-1");
    }
}
