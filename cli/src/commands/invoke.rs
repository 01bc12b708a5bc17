//! `kubectl aq invoke`

use std::{path::PathBuf, str::FromStr};

use asyncqueue::{
    CallId, GoDuration, Invocation,
    call::CallQuery,
    headers::{IDEMPOTENCY_KEY, X_CALL_ID, X_CALLBACK_URL, X_DELAY, X_KEEP_RESULT, X_NOT_BEFORE},
    lookup::ResultWait,
    submission::{Submission, SubmissionError, client_call_id, client_key, is_target},
    submit::{ClientNaming, SubmitOutcome, Submitted, Submitter},
};
use asyncqueue_runtime::program::UsageError;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::result::find_before;
use crate::{
    exit::ResultError,
    input,
    kept_result::{self, ResultFormat},
    lookup, output,
    routing::{Router, RoutingArgs},
    session::{NATS_TIMEOUT, Session},
};

/// The rule for values of headers.
const CONTROL_CHARACTER: &str = "the value has a control character: leave it out";

/// Stores a call of a function, and optionally waits for its result
///
/// Needs no gateway: the call is stored in NATS with the checks of a gateway, and a worker runs it.
/// Prints the id of the call. With --wait it prints the result, as `kubectl aq result` does, and
/// has its exit codes: 0 the function answered with a status below 400, 1 error, 2 invalid command
/// line, 3 the call is stored and has not ended, 5 the call failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl aq invoke figlet -d hi --wait 30s
  kubectl aq invoke 'report.shop/daily?year=2026' --file body.json \\
      -H 'Content-Type: application/json' --delay 15m
  echo hi | kubectl aq invoke figlet --file - --callback-url http://example.com/done")]
pub(crate) struct InvokeArgs {
    /// Function, NAME or NAME.NAMESPACE, and what follows it in the URL
    #[arg(value_name = "FUNCTION[/PATH][?QUERY]")]
    target: Target,

    /// Body of the call. Default: empty
    #[arg(short, long, conflicts_with = "file")]
    data: Option<String>,

    /// File with the body of the call, or `-` for the standard input
    #[arg(short, long)]
    file: Option<PathBuf>,

    /// Header of the call, once for each
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,

    /// Id of the call. A repeat with the same id and content stores nothing. Default: generated
    #[arg(long, value_name = "CALL-ID")]
    id: Option<String>,

    /// Idempotency key: a repeat with the same key stores nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Time after which the call runs
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,

    /// Time before which the call does not run, as in RFC 3339
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,

    /// How long the result is kept. Default: 5m with --wait, otherwise spec.results.retention of
    /// the queue
    #[arg(long, value_name = "DURATION")]
    keep_result: Option<String>,

    /// URL that gets the result
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,

    #[command(flatten)]
    routing: RoutingArgs,

    /// Maximum time to wait for the result
    #[arg(long, value_name = "DURATION")]
    wait: Option<GoDuration>,

    /// Output format of the result
    #[arg(short, long, value_enum, default_value_t, requires = "wait")]
    output: ResultFormat,
}

/// A function, and what follows it in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    function: String,
    path: String,
    query: Option<String>,
}

/// A header of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header(HeaderName, HeaderValue);

pub(crate) async fn run(session: &Session, arguments: &InvokeArgs) -> anyhow::Result<()> {
    let headers = arguments.all_headers()?;
    let body = arguments.body()?;
    let started = Instant::now();
    let now = Timestamp::now();
    let Target { function, path, query } = &arguments.target;
    let namespace = &arguments.routing.function_namespace;
    let submission = Submission::parse(function, path, query.as_deref(), &headers, namespace);
    let submission = submission.map_err(|error| usage(&error))?;
    let (client_id, key) = (
        client_call_id(&headers).map_err(|error| usage(&error))?,
        client_key(&headers).map_err(|error| usage(&error))?,
    );

    let router = Router::open(&session.js, &arguments.routing).await?;
    let (mut submission, route) = router.admit(submission, now, body.len())?;
    if arguments.wait.is_some() {
        submission = submission.with_result_kept(&route.results);
    }
    let naming = match (&key, &client_id) {
        (Some(key), _) => ClientNaming::Key(key),
        (None, Some(_)) => ClientNaming::Id,
        (None, None) => ClientNaming::Generated,
    };
    let call_id = client_id.clone().unwrap_or_else(|| match &key {
        Some(key) => key.call_id(&route.queue, submission.function()),
        None => CallId::generate(&route.queue),
    });
    let call = submission.into_invocation(call_id, now, headers, body);
    // Before the call is stored: its result can't come earlier.
    let wait = match arguments.wait {
        Some(GoDuration(time)) => {
            let Invocation { call_id, function, .. } = &call;
            let client = session.js.client();
            let wait = ResultWait::begin(&client, &route.queue, function, call_id).await?;
            Some((wait, started + time))
        }
        None => None,
    };
    let query = CallQuery { id: call.call_id.clone(), function: Some(call.function.clone()) };
    let submitter = Submitter::new(session.js.clone(), NATS_TIMEOUT);
    let stored = submitter.submit_named(call, naming, &route).await?;
    submitter.wait_for_lanes().await;
    let id = match &stored.outcome {
        SubmitOutcome::Stored => &query.id,
        SubmitOutcome::Duplicate { of } => {
            output::print_error(&format!("call `{of}` was stored before: nothing is stored"));
            of
        }
    };
    let Some((mut wait, deadline)) = wait else { return Ok(output::print(&format!("{id}\n"))?) };
    let query = CallQuery { id: id.clone(), ..query.clone() };
    let Submitted { outcome, sequence } = stored;
    let found = match outcome {
        SubmitOutcome::Stored => timeout_at(deadline, wait.next(sequence)).await.ok().flatten(),
        // It may have ended before, or have another id.
        SubmitOutcome::Duplicate { .. } => None,
    };
    let result = if let Some(result) = found {
        result
    } else {
        let places = lookup::candidate_places(&session.js, Some(&route.queue), &query).await?;
        let result = find_before(session, &places, &query, deadline).await?;
        if sequence.is_some_and(|sequence| sequence != result.sequence) {
            return Err(ResultError::Pending(query.id).into());
        }
        *result
    };
    kept_result::print(&result, arguments.output)
}

/// Returns the error of a command line whose values are not those of a call.
fn usage(error: &SubmissionError) -> UsageError {
    UsageError(error.to_string())
}

// === impl InvokeArgs ===

impl InvokeArgs {
    /// Returns the headers of the call, with those of the options.
    fn all_headers(&self) -> Result<HeaderMap, UsageError> {
        let mut headers = HeaderMap::new();
        for Header(name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        for (option, name, value) in [
            ("--id", X_CALL_ID, &self.id),
            ("--idempotency-key", IDEMPOTENCY_KEY, &self.idempotency_key),
            ("--delay", X_DELAY, &self.delay),
            ("--not-before", X_NOT_BEFORE, &self.not_before),
            ("--keep-result", X_KEEP_RESULT, &self.keep_result),
            ("--callback-url", X_CALLBACK_URL, &self.callback_url),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value);
            let value = value.map_err(|_| UsageError(format!("{option}: {CONTROL_CHARACTER}")))?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn body(&self) -> anyhow::Result<Bytes> {
        match (&self.data, &self.file) {
            (Some(data), _) => Ok(Bytes::from(data.clone())),
            (None, Some(path)) => input::read(path),
            (None, None) => Ok(Bytes::new()),
        }
    }
}

// === impl Target ===

impl FromStr for Target {
    type Err = SubmissionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, query) =
            text.split_once('?').map_or((text, None), |(rest, query)| (rest, Some(query)));
        let (function, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_target(path, query) {
            return Err(SubmissionError::InvalidTarget);
        }
        Ok(Self {
            function: function.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
        })
    }
}

// === impl Header ===

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
        let name = name.parse().map_err(|_| "it has no valid name before the `:`")?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| CONTROL_CHARACTER)?;
        Ok(Self(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_what_follows_async_function_in_a_url() {
        for (text, function, path, query) in [
            ("figlet", "figlet", "", None),
            ("figlet.dev?", "figlet.dev", "", Some("")),
            ("figlet/a/b?c=/d", "figlet", "/a/b", Some("c=/d")),
            ("figlet?c=?", "figlet", "", Some("c=?")),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((&*target.function, &*target.path), (function, path), "{text}");
            assert_eq!(target.query.as_deref(), query, "{text}");
        }
        for bad in ["figlet/a b", "figlet/a#b", "figlet?a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn header_has_a_name_and_a_value() {
        let header = |text: &str| text.parse::<Header>();
        let Header(name, value) = header("X-A:  b: c ").unwrap();
        assert_eq!((name.as_str(), value), ("x-a", HeaderValue::from_static("b: c")));
        assert!(header("X-A:").is_ok());
        for bad in ["X-A", ": b", "x a: b", "x-a: b\nc"] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }
}
