//! Answers requests for the kept result of a call.

use asyncqueue::{
    QueueName,
    call::{CallQuery, CandidateQueues},
    directory::{Directory, ResultsSettings},
    kept_results::{self, FoundResult},
    lookup::{ResultLookup, candidate_queues, find_result},
    message::kept_result::KeptResult,
};

use crate::{
    lookup::{self, Lookups, unknown},
    rejection::Rejection,
    route::FunctionPath,
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
