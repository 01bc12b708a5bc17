//! Answers requests for the kept result of a call.

use std::time::Duration;

use asyncqueue::{
    GoDuration, QueueName,
    call::{CallQuery, CandidateQueues},
    directory::{Directory, ResultsSettings},
    kept_results::{self, FoundResult, done_subject_of},
    lookup::{ResultLookup, candidate_queues, find_result},
    message::kept_result::KeptResult,
    submission::shorten,
};

use crate::{
    lookup::{self, Lookups, unknown},
    rejection::Rejection,
    route::FunctionPath,
    wait::Waits,
};

/// The end of the path of a call's result.
const RESULT: &str = "/result";

/// Returns whether this may be the path of a call's result.
pub(crate) fn is_result(call: FunctionPath<'_>) -> bool {
    call.path.ends_with(RESULT)
}

/// Parses the path of a call's result: `/async-function/CALL-ID/result[?function=NAME]` or
/// `/async-function/NAME/CALL-ID/result`. Returns `None` for another path.
pub(crate) fn result_query(
    call: FunctionPath<'_>,
    query: Option<&str>,
    namespace: &str,
) -> Result<Option<CallQuery>, Rejection> {
    match call.path.strip_suffix(RESULT) {
        Some(path) => lookup::call_query(FunctionPath { path, ..call }, query, namespace),
        None => Ok(None),
    }
}

/// Returns how long a client waits for the end of a call: `?wait=30s`. 0 if it does not wait.
pub(crate) fn wait_time(query: Option<&str>) -> Result<Duration, Rejection> {
    let parameters = query.unwrap_or_default().split('&');
    let pairs = parameters.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut waits = pairs.filter(|(name, _)| *name == "wait");
    let Some((_, value)) = waits.next_back() else { return Ok(Duration::ZERO) };
    let time = value.parse::<GoDuration>().map(|time| time.0);
    time.map_err(|_| Rejection::Wait { value: shorten(value) })
}

/// Returns what a client gets that waits for the end of a call which was pending before; `None` if
/// it waits on.
fn after_wait(found: Result<Option<Box<KeptResult>>, Rejection>) -> Option<Ended> {
    match found {
        Ok(result) => result.map(Ok),
        // It was stored before, so it has ended.
        Err(Rejection::UnknownCall { call_id, .. }) => {
            Some(Err(Rejection::ResultNotKept { call_id }))
        }
        // The next lookup may succeed.
        Err(rejection) if rejection.status().is_server_error() => None,
        Err(rejection) => Some(Err(rejection)),
    }
}

/// The result of a call that has ended, or the reason why it has no result.
type Ended = Result<Box<KeptResult>, Rejection>;

impl Waits {
    /// Returns the result of a call as soon as it has ended; `None` if it has not ended in time, or
    /// if there are too many waits.
    pub(crate) async fn result_of<F>(
        &self,
        query: &CallQuery,
        time: Duration,
        look_up: impl Fn() -> F,
    ) -> Result<Option<Box<KeptResult>>, Rejection>
    where
        F: Future<Output = Result<Option<Box<KeptResult>>, Rejection>>,
    {
        // Before the first lookup: what is published after that is not missed.
        let wait = self.begin(done_subject_of(query), time).await;
        let found = look_up().await?;
        let Some(wait) = wait.filter(|_| found.is_none()) else { return Ok(found) };
        let ended = match self.until_ended(wait, async || after_wait(look_up().await)).await {
            Some(ended) => Some(ended),
            None => after_wait(look_up().await),
        };
        ended.transpose()
    }
}

/// Returns the queues whose results may be read by this id.
fn readable(places: CandidateQueues, query: &CallQuery) -> Result<CandidateQueues, Rejection> {
    let permits = |location: &asyncqueue::call::QueueLocation| {
        ResultsSettings::of(Some(&location.entry)).permits_reading(&query.id)
    };
    let CandidateQueues { mut named, mut rest } = places;
    named.retain(permits);
    rest.retain(permits);
    if named.is_empty() && rest.is_empty() {
        return Err(Rejection::ResultForbidden { call_id: query.id.clone() });
    }
    Ok(CandidateQueues { named, rest })
}

impl Lookups {
    /// Returns the result of a call; `None` while the call has not ended.
    pub(crate) async fn result(
        &self,
        directory: &Directory,
        default_queue: &QueueName,
        wanted: CallQuery,
    ) -> Result<Option<Box<KeptResult>>, Rejection> {
        let permit = self.permit()?;
        let places = readable(candidate_queues(directory, default_queue, &wanted), &wanted)?;
        match find_result(self.context(), &places, &wanted).await? {
            ResultLookup::Kept(result) => Ok(Some(result)),
            ResultLookup::Pending => Ok(None),
            ResultLookup::NotKept => Err(Rejection::ResultNotKept { call_id: wanted.id }),
            ResultLookup::NotFound => match self.remembered_end(permit, &places, &wanted).await {
                Some(_) => Err(Rejection::ResultNotKept { call_id: wanted.id }),
                None => Err(unknown(wanted, &places)),
            },
        }
    }

    /// Returns the newest kept result of a call's id, if it is that of the call at a sequence.
    /// Reads nothing else: whether the call is pending does not matter.
    pub(crate) async fn kept_result(
        &self,
        queue: &QueueName,
        wanted: &CallQuery,
        sequence: Option<u64>,
    ) -> Option<KeptResult> {
        let _permit = self.permit().ok()?;
        match kept_results::find(self.context(), queue, wanted).await.ok()?? {
            FoundResult::Kept { result, .. } => {
                sequence.is_none_or(|sequence| sequence == result.sequence).then_some(*result)
            }
            FoundResult::Gone { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;

    #[test]
    fn path_of_a_result_names_a_call_and_optionally_its_function() {
        let read = |target: &str| {
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            let Route::AsyncFunction(call) = Route::parse(path) else { panic!("{target}") };
            let wanted = result_query(call, query, "openfaas-fn").unwrap();
            wanted.map(|wanted| (wanted.id.to_string(), wanted.function.map(|f| f.to_string())))
        };
        let named =
            |id: &str, function: Option<&str>| Some((id.to_owned(), function.map(str::to_owned)));
        for (target, expected) in [
            ("/async-function/id-1/result", named("id-1", None)),
            ("/async-function/id-1/result?wait=5s", named("id-1", None)),
            ("/async-function/id-1/result?function=f", named("id-1", Some("f.openfaas-fn"))),
            ("/async-function/f.dev/id-1/result", named("id-1", Some("f.dev"))),
            ("/async-function/result/result", named("result", None)),
            ("/async-function/id-1", None),
            ("/async-function/id-1/results", None),
            ("/async-function/result", None),
            ("/async-function/f/a/id-1/result", None),
        ] {
            assert_eq!(read(target), expected, "{target}");
        }
    }

    #[test]
    fn time_of_a_wait_is_a_duration() {
        let millis = |query: &str| wait_time(Some(query)).map(|time| time.as_millis());
        assert_eq!(wait_time(None).unwrap(), Duration::ZERO);
        for (query, expected) in [
            ("", 0),
            ("a=b&waiting=x", 0),
            ("wait=30s", 30_000),
            ("function=f&wait=1m30s", 90_000),
            ("wait=x&wait=1.5s", 1_500),
            ("wait=0s", 0),
        ] {
            assert_eq!(millis(query).unwrap(), expected, "{query}");
        }
        for (query, value) in [
            ("wait", "``"),
            ("wait=", "``"),
            ("wait=soon", "`soon`"),
            ("wait=30", "`30`"),
            ("wait=-1s", "`-1s`"),
            ("wait=1s&wait=%33s", "`%33s`"),
            ("wait=99999999h", "`99999999h`"),
        ] {
            let rejection = wait_time(Some(query)).unwrap_err();
            assert_eq!((rejection.status().as_u16(), rejection.category()), (400, "wait"));
            assert!(rejection.to_string().contains(value), "{rejection}");
        }
    }

    #[test]
    fn client_that_waits_gets_each_end_and_waits_on_otherwise() {
        let call_id: asyncqueue::CallId = "id-1".parse().unwrap();
        let unknown = Rejection::UnknownCall { call_id: call_id.clone(), queue: None };
        let ended = |found| after_wait(found).map(|ended| ended.map_err(|why| why.category()));
        assert_eq!(ended(Ok(None)), None);
        assert_eq!(ended(Err(Rejection::NatsUnavailable)), None);
        assert_eq!(ended(Err(unknown)), Some(Err("result_not_kept")));
        let forbidden = Rejection::ResultForbidden { call_id };
        assert_eq!(ended(Err(forbidden)), Some(Err("result_forbidden")));
    }

    #[test]
    fn queue_may_require_a_generated_id() {
        let queue: QueueName = "jobs".parse().unwrap();
        let mut directory = Directory::default();
        let mut entry = asyncqueue::directory::QueueEntry::with_default_names(&queue);
        entry.results =
            Some(ResultsSettings { require_generated_id: true, ..ResultsSettings::default() });
        directory.queues.insert(queue.clone(), entry);
        let read = |id| {
            let query = CallQuery { id, function: None };
            readable(candidate_queues(&directory, &queue, &query), &query)
        };
        assert!(read(asyncqueue::CallId::generate(&queue)).is_ok());
        assert_eq!(read("order-7".parse().unwrap()).unwrap_err().status(), 403);
    }
}
