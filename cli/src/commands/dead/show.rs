//! `kubectl aq dead show`

use asyncqueue::{
    CallId, CallbackUrl,
    dead_letters::{DeadLetter, DeadLetterContent, Selection},
};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{KindFilter, QueueArgs, kind_name, no_dead_letter};
use crate::{output, session::Session, table};

/// Shown instead of a secret.
const HIDDEN: &str = "(hidden, --reveal shows it)";

/// Parts of the names of headers whose values are secret.
const SECRET_NAMES: [&str; 10] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "credential",
    "api-key",
    "apikey",
    "session",
    "signature",
];

/// Shows the dead letters of a call, without their bodies
///
/// A call has several dead letters if both the call and its callback failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq dead show slow-queue 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq dead show slow-queue order-7 --body > body.json")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    queue_args: QueueArgs,

    /// Id of the call
    #[arg(value_name = "CALL-ID")]
    call_id: CallId,

    /// Print only the body, unchanged
    #[arg(long)]
    body: bool,

    /// Show secrets: headers like Authorization and Cookie, and the callback URL with credentials
    /// and query
    #[arg(long, conflicts_with = "body")]
    reveal: bool,

    /// Only the dead letter with this sequence
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
}

pub(super) async fn run(session: &Session, arguments: &ShowArgs) -> anyhow::Result<()> {
    let ShowArgs { queue_args, call_id, body, reveal, sequence } = arguments;
    let dead_letters = queue_args.open(session).await?;
    let mut letters = dead_letters.list(&Selection::Calls(vec![call_id.clone()])).await?;
    letters.retain(|letter| sequence.is_none_or(|sequence| letter.sequence == sequence));
    let mut whole = Vec::new();
    for letter in letters {
        whole.extend(dead_letters.content(&letter).await?.map(|content| (letter, content)));
    }
    match &whole[..] {
        [] => anyhow::bail!("{}", no_dead_letter(queue_args, call_id, KindFilter::All)),
        [(_, content)] if *body => output::print_bytes(body_of(content))?,
        several if *body => anyhow::bail!(
            "call `{call_id}` has {} dead letters: select one with --sequence: {}",
            several.len(),
            several
                .iter()
                .map(|(letter, _)| letter.sequence.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ),
        letters => {
            let texts: Vec<String> =
                letters.iter().map(|(letter, content)| render(letter, content, *reveal)).collect();
            output::print(&texts.join("\n"))?;
        }
    }
    Ok(())
}

/// Returns the body: for a call, that of the request; for a callback, that of the result.
fn body_of(content: &DeadLetterContent) -> &Bytes {
    match content {
        DeadLetterContent::Call(call) => &call.body,
        DeadLetterContent::Callback(callback) => &callback.body,
        DeadLetterContent::Unreadable { payload, .. } => payload,
    }
}

/// Formats a dead letter without its body.
fn render(letter: &DeadLetter, content: &DeadLetterContent, reveal: bool) -> String {
    let mut fields =
        vec![("Call ID", letter.call_id.to_string()), ("Kind", kind_name(letter.kind).to_owned())];
    fields.extend(letter.function.as_ref().map(|function| ("Function", function.to_string())));
    fields.push(("Reason", letter.death.reason.clone()));
    fields.push(("Attempts", letter.death.attempts.to_string()));
    fields.extend(letter.death.status.map(|status| ("Status", status.to_string())));
    fields.push(("Died at", format!("{:.0}", letter.died_at)));
    fields.push(("Worker", letter.worker.clone()));
    fields.push(("Sequence", letter.sequence.to_string()));
    match content {
        DeadLetterContent::Call(call) => {
            fields.push(("Submitted at", format!("{:.0}", call.submitted_at)));
            fields.push(("Method", call.method.to_string()));
            fields.extend(
                Some(&call.path).filter(|path| !path.is_empty()).map(|path| ("Path", path.clone())),
            );
            fields.extend(call.query.clone().map(|query| ("Query", query)));
            fields.extend(
                call.callback_url.as_ref().map(|url| ("Callback URL", callback_url(url, reveal))),
            );
        }
        DeadLetterContent::Callback(callback) => {
            fields.push(("Callback URL", callback_url(&callback.url, reveal)));
            fields.push(("Result", callback.status.to_string()));
            fields.push(("Duration", format!("{:.3}s", callback.duration.as_secs_f64())));
        }
        DeadLetterContent::Unreadable { error, .. } => {
            fields.push(("Decode error", error.to_string()));
        }
    }
    for (name, bytes) in
        [("Omitted headers", letter.omitted.headers), ("Omitted body", letter.omitted.body)]
    {
        fields.extend((bytes > 0).then(|| (name, format!("{bytes} bytes"))));
    }
    fields.push(("Body", format!("{} bytes", body_of(content).len())));
    let headers = match content {
        DeadLetterContent::Call(call) => header_lines(&call.headers, reveal),
        DeadLetterContent::Callback(callback) => header_lines(&callback.headers, reveal),
        DeadLetterContent::Unreadable { .. } => String::new(),
    };
    format!("{}{headers}", table::fields(&fields))
}

fn callback_url(url: &CallbackUrl, reveal: bool) -> String {
    if reveal { url.as_url().to_string() } else { url.to_string() }
}

fn header_lines(headers: &HeaderMap, reveal: bool) -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let shown = if is_secret(name) && !reveal { HIDDEN } else { &value };
        format!("  {name}: {}\n", table::printable(shown))
    };
    if headers.is_empty() {
        return String::new();
    }
    format!("Headers:\n{}", headers.iter().map(line).collect::<String>())
}

/// Returns whether a header's value is secret, by its name.
fn is_secret(name: &HeaderName) -> bool {
    SECRET_NAMES.iter().any(|part| name.as_str().contains(part))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asyncqueue::{
        FunctionName, Invocation,
        dead_letters::{DeadLetterKind, Omitted},
        message::{DecodeError, callback::Callback},
        retry::RetryOverrides,
    };

    use super::{super::samples::letter, *};

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("x-multi", "a".parse().unwrap());
        headers.append("x-multi", "b".parse().unwrap());
        headers.insert("authorization", "Bearer s3cret".parse().unwrap());
        headers
    }

    fn call() -> DeadLetterContent {
        DeadLetterContent::Call(Box::new(Invocation {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "dev").unwrap(),
            written_name: None,
            method: http::Method::POST,
            path: "/a%2Fb".to_owned(),
            query: Some("x=1".to_owned()),
            headers: headers(),
            callback_url: Some(CallbackUrl::parse("http://u:s3cret@h/cb?t=s3cret").unwrap()),
            keep_result: None,
            depth: 0,
            batch: None,
            retry: RetryOverrides::default(),
            submitted_at: "2026-11-24T09:00:00Z".parse().unwrap(),
            not_before: None,
            body: Bytes::from_static(b"the body"),
        }))
    }

    #[test]
    fn body_and_secrets_are_hidden() {
        let text = render(&letter("id-1", DeadLetterKind::Call), &call(), false);
        for part in [
            "Call ID:        id-1\n",
            "Function:       figlet.dev\n",
            "Path:           /a%2Fb\n",
            "Query:          x=1\n",
            "Callback URL:   http://h/cb\n",
            "Body:           8 bytes\nHeaders:\n",
            "  x-multi: a\n  x-multi: b\n",
            "  authorization: (hidden",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("s3cret") && !text.contains("the body"), "{text}");
    }

    #[test]
    fn omitted_parts_are_shown_with_their_size() {
        let omitted = Omitted { headers: 70_000, body: 1_048_000 };
        let letter = DeadLetter { omitted, ..letter("id-1", DeadLetterKind::Call) };
        let text = render(&letter, &call(), false);
        assert!(text.contains("70000 bytes\n") && text.contains("1048000 bytes\n"), "{text}");
        assert!(text.contains("Omitted headers:") && text.contains("Omitted body:"), "{text}");
    }

    #[test]
    fn secrets_are_shown_with_reveal() {
        let text = render(&letter("id-1", DeadLetterKind::Call), &call(), true);
        assert!(text.contains("authorization: Bearer s3cret"), "{text}");
        assert!(text.contains("http://u:s3cret@h/cb?t=s3cret"), "{text}");
    }

    #[test]
    fn callback_shows_the_result() {
        let content = DeadLetterContent::Callback(Box::new(Callback {
            call_id: "id-1".parse().unwrap(),
            sequence: 7,
            end: asyncqueue::EndState::Done,
            depth: 0,
            function: FunctionName::new("figlet", "dev").unwrap(),
            written_name: None,
            url: CallbackUrl::parse("http://h/cb").unwrap(),
            status: 202,
            duration: Duration::from_millis(1500),
            attempt: 1,
            max_attempts: 10,
            headers: headers(),
            body: Bytes::from_static(b"answer"),
        }));
        let text = render(&letter("id-1", DeadLetterKind::Callback), &content, false);
        assert!(text.contains("Result:         202\nDuration:       1.500s\n"), "{text}");
        assert_eq!(body_of(&content), "answer");
    }

    #[test]
    fn undecodable_letter_shows_the_error() {
        let error = DecodeError::Missing("Async-Call-Id");
        let content =
            DeadLetterContent::Unreadable { error, payload: Bytes::from_static(b"garbage") };
        let text = render(&letter("seq-1", DeadLetterKind::Call), &content, false);
        assert!(text.contains("header Async-Call-Id is missing"), "{text}");
        assert_eq!(body_of(&content), "garbage");
    }

    #[test]
    fn secret_headers_are_recognised_by_name() {
        let secret = |name: &str| is_secret(&name.parse().unwrap());
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "Set-Cookie",
            "X-Api-Key",
            "x-csrf-token",
        ] {
            assert!(secret(name), "{name}");
        }
        for name in ["content-type", "x-call-id", "idempotency-key", "user-agent"] {
            assert!(!secret(name), "{name}");
        }
    }
}
