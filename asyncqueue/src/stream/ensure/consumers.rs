//! Brings the durable consumers of a queue to their desired state.

use async_nats::jetstream::{
    ErrorCode,
    consumer::{self, FromConsumer, pull},
    stream::{ConsumerCreateStrictErrorKind, ConsumerError, ConsumerErrorKind, Stream},
};
use futures::TryStreamExt;

use super::{EnsureError, unavailable};
use crate::{
    fairness::Fairness,
    jetstream::find_consumer,
    lane_filters::has_lanes,
    stream::{
        plan::{Plan, PlanError, plan_consumer},
        spec::{META_OWNER_UID, Owner, suspended_until},
    },
};

/// Ensures a consumer.
pub(super) async fn ensure(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<consumer::Info, EnsureError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    let what = format!("for consumer {name}");
    let found = find_consumer(stream, name).await;
    let mut existing = found.map_err(|error| unavailable(&what, error))?;
    if let Some(info) = &existing
        && fairness(&info.config) != fairness_of(&wanted.filter_subjects)
    {
        if !remove_if(stream, wanted, is_replaceable, changes).await? {
            return Err(PlanError::OtherFairness {
                stream: info.stream_name.clone(),
                is: fairness(&info.config),
                wanted: fairness_of(&wanted.filter_subjects),
            }
            .into());
        }
        existing = None;
    }
    let config =
        existing.as_ref().map(|info| pull::Config::try_from_consumer_config(info.config.clone()));
    let config = config.transpose().map_err(|e| unavailable(&what, e))?;
    let (config, change) = match (plan_consumer(config.as_ref(), wanted), existing) {
        (Plan::Keep, Some(info)) => return pause(stream, info, wanted, changes).await,
        (Plan::Refuse(error), _) => return Err(error.into()),
        (Plan::Update(config), _) => (config, "updated"),
        (Plan::Create(_) | Plan::Keep, _) => (wanted.clone(), "created"),
    };
    let mut answer = stream.create_consumer(config.clone()).await;
    if answer.as_ref().is_err_and(is_second_consumer)
        && remove_unused(stream, wanted, changes).await?
    {
        answer = stream.create_consumer(config).await;
    }
    if answer.as_ref().is_err_and(is_second_consumer)
        && let Some(lane) = of_owner(stream, wanted).await?.into_iter().find(has_filter)
    {
        // It was created while the consumer of a queue with lanes was replaced.
        let (is, wanted) = (Fairness::Function, fairness_of(&wanted.filter_subjects));
        return Err(PlanError::OtherFairness { stream: lane.stream_name, is, wanted }.into());
    }
    let consumer = answer.map_err(|error| update_error(&what, error))?;
    changes.push(format!("{change} consumer {name}"));
    pause(stream, consumer.cached_info().clone(), wanted, changes).await
}

/// Creates the first consumer of a stream. One that another program has just created is not
/// changed.
pub(super) async fn create_first(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<(), EnsureError> {
    use ConsumerCreateStrictErrorKind as Kind;
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    let what = format!("for consumer {name}");
    let Err(error) = stream.create_consumer_strict(wanted.clone()).await else {
        changes.push(format!("created consumer {name}"));
        return Ok(());
    };
    match error.kind() {
        Kind::AlreadyExists => Ok(()),
        Kind::JetStream(source) if is_already_there(source.error_code()) => Ok(()),
        Kind::JetStream(source) => Err(EnsureError::Server { what, source }),
        _ => Err(unavailable(&what, error)),
    }
}

/// Creates a consumer after all others of its queue were removed. Returns whether that succeeded:
/// another program may have created one in between.
pub(crate) async fn create_after_removal(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<bool, EnsureError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    match stream.create_consumer(wanted.clone()).await {
        Ok(_) => {
            changes.push(format!("created consumer {name}"));
            Ok(true)
        }
        Err(error) if is_second_consumer(&error) => Ok(false),
        Err(error) => Err(update_error(&format!("for consumer {name}"), error)),
    }
}

/// Pauses these consumers. Returns whether one was not paused.
pub(crate) async fn pause_all(
    stream: &Stream<()>,
    consumers: &[consumer::Info],
) -> Result<bool, EnsureError> {
    let Some(until) = suspended_until() else { return Ok(false) };
    let running: Vec<_> = consumers.iter().filter(|info| !info.paused).collect();
    for info in &running {
        let paused = stream.pause_consumer(&info.name, until).await;
        paused.map_err(|error| update_error(&format!("for consumer {}", info.name), error))?;
    }
    Ok(!running.is_empty())
}

/// Resumes these consumers.
pub(crate) async fn resume_all(
    stream: &Stream<()>,
    consumers: &[consumer::Info],
) -> Result<(), EnsureError> {
    for info in consumers.iter().filter(|info| info.paused) {
        let resumed = stream.resume_consumer(&info.name).await;
        resumed.map_err(|error| update_error(&format!("for consumer {}", info.name), error))?;
    }
    Ok(())
}

/// Removes consumers of the same owner, or of no operator, that have never delivered a message. A
/// producer creates one with the queue's usual name, and workers may use another (`nats_durable`),
/// which JetStream refuses as a second one. Returns whether there were any.
async fn remove_unused(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<bool, EnsureError> {
    let ours = of_owner(stream, wanted).await?;
    let unused: Vec<_> = ours.into_iter().filter(is_unused).collect();
    remove(stream, &unused, "removed unused consumer", changes).await?;
    Ok(!unused.is_empty())
}

/// Removes all consumers of the same owner, or of no operator, if a condition holds for each of
/// them. Returns whether it does.
async fn remove_if(
    stream: &Stream<()>,
    wanted: &pull::Config,
    condition: fn(&consumer::Info) -> bool,
    changes: &mut Vec<String>,
) -> Result<bool, EnsureError> {
    let ours = of_owner(stream, wanted).await?;
    let holds = ours.iter().all(condition);
    if holds {
        remove(stream, &ours, "removed consumer", changes).await?;
    }
    Ok(holds)
}

/// Removes these consumers, in this order.
pub(crate) async fn remove(
    stream: &Stream<()>,
    consumers: &[consumer::Info],
    change: &str,
    changes: &mut Vec<String>,
) -> Result<(), EnsureError> {
    for info in consumers {
        let removed = stream.delete_consumer(&info.name).await;
        removed.map_err(|error| unavailable("to replace a consumer", error))?;
        changes.push(format!("{change} {}", info.name));
    }
    Ok(())
}

/// Returns the consumers of the owner of `wanted`, and those that were created without an operator.
pub(crate) async fn of_owner(
    stream: &Stream<()>,
    wanted: &pull::Config,
) -> Result<Vec<consumer::Info>, EnsureError> {
    let what = "to list the consumers";
    let consumers: Vec<consumer::Info> =
        stream.consumers().try_collect().await.map_err(|error| unavailable(what, error))?;
    let standalone = Owner::standalone().uid;
    let owners = [wanted.metadata.get(META_OWNER_UID), Some(&standalone)];
    let is_ours =
        |info: &consumer::Info| owners.contains(&info.config.metadata.get(META_OWNER_UID));
    Ok(consumers.into_iter().filter(is_ours).collect())
}

/// Returns whether a consumer can be replaced by others that take its messages: it has delivered no
/// call that has not ended, and delivers none now. The others deliver what it has not delivered.
fn is_replaceable(info: &consumer::Info) -> bool {
    info.num_ack_pending == 0 && (info.paused || info.num_waiting == 0)
}

/// Returns whether a consumer takes a part of the stream's messages.
fn has_filter(info: &consumer::Info) -> bool {
    !(info.config.filter_subject.is_empty() && info.config.filter_subjects.is_empty())
}

/// Returns whether no worker uses a consumer, and none has.
fn is_unused(info: &consumer::Info) -> bool {
    info.delivered.consumer_sequence == 0 && info.num_waiting == 0
}

/// Returns the form that a queue has, by the consumer of its calls.
pub(crate) fn fairness(of_queue: &consumer::Config) -> Fairness {
    fairness_of(&of_queue.filter_subjects)
}

fn fairness_of(filters: &[String]) -> Fairness {
    if has_lanes(filters) { Fairness::Function } else { Fairness::Fifo }
}

/// Pauses or resumes a consumer, if it is not in its desired state.
async fn pause(
    stream: &Stream<()>,
    mut info: consumer::Info,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<consumer::Info, EnsureError> {
    if info.config.pause_until == wanted.pause_until {
        return Ok(info);
    }
    let name = &info.name;
    let (change, answer) = match wanted.pause_until {
        Some(until) => ("paused", stream.pause_consumer(name, until).await),
        None => ("resumed", stream.resume_consumer(name).await),
    };
    let what = format!("to have consumer {name} {change}, which needs nats-server 2.11");
    info.paused = answer.map_err(|error| update_error(&what, error))?.paused;
    changes.push(format!("{change} consumer {name}"));
    Ok(info)
}

/// Converts the error of a consumer that could not be created, updated or paused.
fn update_error(what: &str, error: ConsumerError) -> EnsureError {
    match error.kind() {
        ConsumerErrorKind::JetStream(source) => {
            EnsureError::Server { what: what.to_owned(), source }
        }
        _ => unavailable(what, error),
    }
}

/// Returns whether a consumer was refused because its stream has one with another name.
fn is_second_consumer(error: &ConsumerError) -> bool {
    let ConsumerErrorKind::JetStream(error) = error.kind() else { return false };
    error.error_code() == ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED
}

/// Returns whether a consumer was not created because one exists, with that name or another.
fn is_already_there(code: ErrorCode) -> bool {
    [ErrorCode::CONSUMER_ALREADY_EXISTS, ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED].contains(&code)
}
