//! The sweep: finds stored calls that no consumer takes, and removes lanes that are no longer used.
//!
//! A call may have no lane because a program of another kind has stored it, or because its lane was
//! removed. Each stored message belongs to at most one consumer, and is pending or unacknowledged
//! there. So if the stream holds more messages than its consumers count, lanes are missing.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{
    datetime::from_nanos,
    jetstream::{
        Context,
        consumer::{FromConsumer, Info, pull},
        stream::Stream,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    DEFAULT_MAX_LANES, LaneCounts, LaneOutcome,
    ensure::{create, is_rest, list},
    names::{is_group, is_lane},
    plan::{NewLane, filters, is_covered, is_drained, is_idle, lane_config, plan_lanes},
};
use crate::{
    depth::ConsumerTotals,
    jetstream::{NatsError, count_messages, find_consumer, timestamp_from_server},
    lane_filters::{all_calls, filter_of},
    names::QueueName,
    stream::{Plan, QueueSpec, plan_consumer},
};

/// Interval of the sweeps of a queue.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long a lane is paused before it is removed: nothing is delivered between the last check and
/// the removal. The pause ends by itself if the program that removes the lane stops.
const REMOVAL_PAUSE: Duration = Duration::from_secs(5);

/// How long a lane stays after its last call. It is longer than a program that stores calls
/// remembers a lane.
const KEEP_LANE: Duration = Duration::from_secs(600);

/// How long a lane that functions share stays after its last call. It is shorter, so that functions
/// get lanes of their own once there is room.
const KEEP_GROUP: Duration = Duration::from_secs(60);

/// Number of stored messages from which the list of their subjects takes the server noticeable
/// time.
const LONG_QUEUE: u64 = 10_000;

/// Sweeps one queue.
#[derive(Debug)]
pub struct Sweeper {
    js: Context,
    queue: QueueName,
    stream: String,
    subject: String,
    /// Whether the last sweep found more messages than the consumers count. A difference in one
    /// sweep means little: the numbers are not read at the same time.
    had_difference: bool,
    /// How long a lane of one function, and a shared one, stay after their last call.
    keep: [Duration; 2],
    /// Maximum number of functions with lanes of their own.
    max_own: usize,
    /// The lanes that the last sweep found.
    lanes: LaneCounts,
    /// Where the next list of subjects begins. The server returns a part of a long list.
    offset: u64,
}

// === impl Sweeper ===

impl Sweeper {
    /// Creates a sweeper of a queue, which may have lanes or not.
    #[must_use]
    pub fn new(js: Context, spec: &QueueSpec) -> Self {
        let QueueSpec { queue, stream, subject, .. } = spec.clone();
        Self {
            js,
            queue,
            stream,
            subject,
            had_difference: false,
            keep: [KEEP_LANE, KEEP_GROUP],
            max_own: DEFAULT_MAX_LANES,
            lanes: LaneCounts::default(),
            offset: 0,
        }
    }

    /// Removes lanes as soon as this time after their last call.
    #[must_use]
    pub fn keeping_lanes_for(self, idle: Duration) -> Self {
        Self { keep: [idle; 2], ..self }
    }

    /// Sets the maximum number of functions that have lanes of their own. Lanes that exist stay
    /// until they are unused.
    pub fn limit_to(&mut self, max_own: usize) {
        self.max_own = max_own;
    }

    /// Returns the lanes that the last sweep found.
    #[must_use]
    pub fn lanes(&self) -> LaneCounts {
        self.lanes
    }

    /// Creates missing lanes at the first sweep: all of them are missing.
    pub(crate) fn expecting_missing_lanes(self) -> Self {
        Self { had_difference: true, ..self }
    }

    /// Creates, updates and removes lanes. Returns what was changed, in words. Does nothing if the
    /// queue has no lanes. The program that creates the queue's streams is to call this at each
    /// [`SWEEP_INTERVAL`].
    ///
    /// # Errors
    ///
    /// NATS is unavailable or refused a request. The next sweep continues.
    pub async fn sweep(&mut self) -> Result<Vec<String>, NatsError> {
        let stream = self
            .js
            .get_stream_no_info(&self.stream)
            .await
            .map_err(NatsError::during("open the stream"))?;
        let stored_before = stored(&stream).await?;
        let consumers = list(&stream).await?;
        self.lanes = LaneCounts::new(&self.queue, &consumers);
        let mut changes = Vec::new();
        let Some(rest) = consumers.iter().find(|info| is_rest(info, &self.subject)) else {
            return Ok(changes);
        };
        let lanes: Vec<_> =
            consumers.iter().filter(|info| is_lane(&self.queue, &info.name)).collect();
        for lane in &lanes {
            self.align(&stream, rest, lane, &mut changes).await?;
        }
        let stored = [stored_before, stored(&stream).await?];
        if self.has_lasting_difference(stored, &consumers) {
            self.create_missing(&stream, rest, &lanes, &mut changes).await?;
        }
        // A paused lane delivers nothing, so nothing is known of its calls.
        if rest.config.pause_until.is_none() {
            let now = Timestamp::now();
            for lane in lanes {
                let keep = self.keep[usize::from(is_group(&self.queue, &lane.name))];
                if is_idle(lane, now, keep) {
                    self.remove(&stream, rest, lane, &mut changes).await?;
                }
            }
        }
        Ok(changes)
    }

    /// Gives a lane the lease and the pause of the queue's consumer.
    async fn align(
        &self,
        stream: &Stream<()>,
        rest: &Info,
        lane: &Info,
        changes: &mut Vec<String>,
    ) -> Result<(), NatsError> {
        const ACTION: &str = "update a lane";
        let config = |info: &Info| {
            pull::Config::try_from_consumer_config(info.config.clone())
                .map_err(|error| NatsError::during(ACTION)(error.to_string()))
        };
        let as_it_is = NewLane { name: lane.name.clone(), filters: filters(&lane.config) };
        let wanted = lane_config(&config(rest)?, &as_it_is);
        if let Plan::Update(update) = plan_consumer(Some(&config(lane)?), &wanted) {
            stream.create_consumer(update).await.map_err(NatsError::during(ACTION))?;
            changes.push(format!("updated lane {}", lane.name));
        }
        if lane.config.pause_until == wanted.pause_until || is_being_removed(lane) {
            return Ok(());
        }
        let (change, answer) = match wanted.pause_until {
            Some(until) => ("paused", stream.pause_consumer(&lane.name, until).await),
            None => ("resumed", stream.resume_consumer(&lane.name).await),
        };
        answer.map_err(NatsError::during(ACTION))?;
        changes.push(format!("{change} lane {}", lane.name));
        Ok(())
    }

    /// Returns whether the stream holds more messages than its consumers count, as in the last
    /// sweep.
    fn has_lasting_difference(&mut self, stored: [u64; 2], consumers: &[Info]) -> bool {
        let counted: ConsumerTotals = consumers.iter().map(ConsumerTotals::from).sum();
        let has_difference = expected(stored) > counted.pending + counted.unacknowledged;
        let in_last_sweep = std::mem::replace(&mut self.had_difference, has_difference);
        has_difference && in_last_sweep
    }

    /// Creates lanes for the messages that no consumer takes.
    async fn create_missing(
        &mut self,
        stream: &Stream<()>,
        rest: &Info,
        lanes: &[&Info],
        changes: &mut Vec<String>,
    ) -> Result<(), NatsError> {
        let covered: Vec<_> = lanes.iter().map(|lane| filters(&lane.config)).collect();
        let missing: BTreeSet<_> = self
            .stored_subjects()
            .await?
            .iter()
            .filter(|subject| !is_covered(&covered, subject))
            .filter_map(|subject| filter_of(subject, &self.subject))
            .collect();
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        for lane in plan_lanes(&self.queue, &self.subject, missing, &names, self.max_own) {
            if create(stream, rest, &lane).await? == LaneOutcome::Created {
                changes.push(format!(
                    "created lane {} for calls that no consumer took: {}",
                    lane.name,
                    lane.filters.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// Returns subjects of stored calls: all of them, or the next part of a long list.
    async fn stored_subjects(&mut self) -> Result<Vec<String>, NatsError> {
        let request = json!({ "subjects_filter": all_calls(&self.subject), "offset": self.offset });
        let answer: Value = self
            .js
            .request(format!("STREAM.INFO.{}", self.stream), &request)
            .await
            .map_err(NatsError::during("list the subjects of calls"))?;
        let subjects = answer["state"]["subjects"].as_object();
        let subjects: Vec<_> =
            subjects.into_iter().flat_map(|subjects| subjects.keys().cloned()).collect();
        let (total, read) = (answer["total"].as_u64().unwrap_or(0), subjects.len() as u64);
        let next = self.offset + read;
        self.offset = if read == 0 || next >= total { 0 } else { next };
        Ok(subjects)
    }

    /// Removes a lane that has no call.
    async fn remove(
        &self,
        stream: &Stream<()>,
        rest: &Info,
        lane: &Info,
        changes: &mut Vec<String>,
    ) -> Result<(), NatsError> {
        const ACTION: &str = "remove an unused lane";
        let end = Timestamp::now().saturating_add(REMOVAL_PAUSE).map_err(NatsError::during(ACTION));
        let until = from_nanos(end?.as_nanosecond()).map_err(NatsError::during(ACTION))?;
        let name = &lane.name;
        stream.pause_consumer(name, until).await.map_err(NatsError::during(ACTION))?;
        let paused = find_consumer(stream, name).await.map_err(NatsError::during(ACTION))?;
        let Some(paused) = paused else { return Ok(()) };
        if !is_drained(&paused) {
            stream.resume_consumer(name).await.map_err(NatsError::during(ACTION))?;
            return Ok(());
        }
        stream.delete_consumer(name).await.map_err(NatsError::during(ACTION))?;
        changes.push(format!("removed unused lane {name}"));
        // A call that was stored between the check and the removal has its lane again at once.
        let lane = NewLane { name: name.clone(), filters: filters(&lane.config) };
        for filter in &lane.filters {
            if count_messages(&self.js, &self.stream, filter).await? > 0 {
                create(stream, rest, &lane).await?;
                changes.push(format!("created lane {name} again: a call has come"));
                break;
            }
        }
        Ok(())
    }
}

/// Returns how many messages a stream holds.
async fn stored(stream: &Stream<()>) -> Result<u64, NatsError> {
    let info = stream.get_info().await.map_err(NatsError::during("read the stream"))?;
    Ok(info.state.messages)
}

/// Returns how many messages the consumers of a stream are to count, where the stream held so many
/// before and after they were read. The list of subjects of a long queue is large, so it is not
/// requested because of calls that were stored or ended between.
fn expected([before, after]: [u64; 2]) -> u64 {
    if after > LONG_QUEUE { before.min(after) } else { before.max(after) }
}

/// Returns whether a lane is paused for a moment, to be removed.
fn is_being_removed(lane: &Info) -> bool {
    lane.config.pause_until.map(timestamp_from_server).is_some_and(|until| {
        let left = until.duration_since(Timestamp::now());
        Duration::try_from(left).is_ok_and(|left| left <= REMOVAL_PAUSE)
    })
}
