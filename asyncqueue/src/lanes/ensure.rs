//! Creates the lane of a function if it is missing.

use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{FromConsumer, Info, pull},
    stream::{ConsumerCreateStrictErrorKind, Stream},
};
use futures::TryStreamExt;

use super::{
    names::lane_name,
    plan::{NewLane, filters, lane_config},
};
use crate::{
    directory::QueueRoute,
    jetstream::{NatsError, find_consumer},
    lane_filters::{has_lanes, lane_filter, rest_filters},
    names::{FunctionName, QueueName},
};

const ACTION: &str = "create the lane of a function";

/// What [`ensure_lane`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOutcome {
    /// The function has a lane.
    Exists,
    /// The lane was created.
    Created,
    /// The queue has as many lanes as it may have: the sweep assigns the function to a lane that
    /// several functions share.
    AtMaximum,
    /// The queue has no lanes, or its consumer is missing.
    NoLanes,
}

/// Ensures that a function with stored calls has a lane. A lane takes all messages of its function
/// that are stored, also those from before its creation.
///
/// # Errors
///
/// NATS is unavailable or refused the request. The sweep creates the lane later.
pub async fn ensure_lane(
    js: &Context,
    route: &QueueRoute,
    function: &FunctionName,
) -> Result<LaneOutcome, NatsError> {
    let QueueRoute { queue, subject, lanes_of: Some(stream), max_lanes, .. } = route else {
        return Ok(LaneOutcome::NoLanes);
    };
    let stream = js.get_stream_no_info(stream).await.map_err(NatsError::during(ACTION))?;
    let lane =
        NewLane { name: lane_name(queue, function), filters: vec![lane_filter(subject, function)] };
    if find(&stream, &lane.name).await?.is_some() {
        return Ok(LaneOutcome::Exists);
    }
    let Some(of_queue) = find_rest(&stream, queue, subject).await? else {
        return Ok(LaneOutcome::NoLanes);
    };
    let info = stream.get_info().await.map_err(NatsError::during(ACTION))?;
    // One of the consumers is that of the queue.
    if info.state.consumer_count > *max_lanes {
        return Ok(LaneOutcome::AtMaximum);
    }
    create(&stream, &of_queue, &lane).await
}

/// Creates a lane. One that another program has just created, or a shared one that has the
/// function, is not changed.
pub(super) async fn create(
    stream: &Stream<()>,
    of_queue: &Info,
    lane: &NewLane,
) -> Result<LaneOutcome, NatsError> {
    use ConsumerCreateStrictErrorKind as Kind;
    let of_queue = pull::Config::try_from_consumer_config(of_queue.config.clone())
        .map_err(|error| NatsError::during(ACTION)(error.to_string()))?;
    let Err(error) = stream.create_consumer_strict(lane_config(&of_queue, lane)).await else {
        return Ok(LaneOutcome::Created);
    };
    match error.kind() {
        Kind::AlreadyExists => Ok(LaneOutcome::Exists),
        Kind::JetStream(refused) if is_already_there(refused.error_code()) => {
            Ok(LaneOutcome::Exists)
        }
        _ => Err(NatsError::during(ACTION)(error)),
    }
}

fn is_already_there(code: ErrorCode) -> bool {
    [ErrorCode::CONSUMER_ALREADY_EXISTS, ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE].contains(&code)
}

/// Returns the consumer of a queue with lanes that takes what is no call of a function. It usually
/// has the name that follows from the queue's.
async fn find_rest(
    stream: &Stream<()>,
    queue: &QueueName,
    subject: &str,
) -> Result<Option<Info>, NatsError> {
    if let Some(info) = find(stream, &queue.durable()).await? {
        return Ok(Some(info).filter(|info| has_lanes(&filters(&info.config))));
    }
    let all = list(stream).await?;
    Ok(all.into_iter().find(|info| is_rest(info, subject)))
}

async fn find(stream: &Stream<()>, name: &str) -> Result<Option<Info>, NatsError> {
    find_consumer(stream, name).await.map_err(NatsError::during(ACTION))
}

/// Returns whether a consumer is the one that takes what is no call of a function.
pub(super) fn is_rest(info: &Info, subject: &str) -> bool {
    filters(&info.config).first() == rest_filters(subject).first()
}

/// Returns the consumers of a stream.
pub(super) async fn list(stream: &Stream<()>) -> Result<Vec<Info>, NatsError> {
    stream.consumers().try_collect().await.map_err(NatsError::during("list the consumers"))
}
