//! Pulls from all lanes of a queue through one inbox.
//!
//! [`scheduler`](super::scheduler) decides what to request. A message that arrives while no slot is
//! free waits for the next one, for a moment: its lane was idle, so it is its turn. If slots become
//! free rarely, the message is handed back, since another worker may have a free slot.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    time::Duration,
};

use async_nats::{
    Client, Message, Subscriber,
    jetstream::consumer::{
        Consumer, FromConsumer, Info, PullConsumer,
        pull::{BatchConfig, Config},
    },
};
use asyncqueue::{connection::Connection, jetstream::timestamp_from_server, lanes::has_lanes};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Handler, Puller,
    ack::AckBatcher,
    delivery::Delivery,
    event::{Event, classify},
    in_flight::SequenceGuard,
    lane_list::LaneList,
    puller::{
        HANDLING_BYTES, LATE_DELIVERIES_TIMEOUT, RESOURCE_CHECK_INTERVAL, Source, State,
        StopReason, nak_now,
    },
    scheduler::{LaneId, LaneRequest, Scheduler},
    session::{LaneSession, max_message_bytes},
};

/// Maximum time for which a request stays open. It is short, because the requests of a worker that
/// has no free slot any more take messages that others could run. They can't be cancelled: a
/// message that is on its way to an inbox that has ended is lost until its lease ends.
const MAX_EXPIRES: Duration = Duration::from_secs(10);

/// Maximum time that a message waits for a slot.
const MAX_HOLD: Duration = Duration::from_millis(250);

/// How late an answer of the server may be.
const SLACK: Duration = Duration::from_secs(1);

/// Interval between checks whether requests were answered, and whether the connection is another
/// one.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The lanes that this worker knows.
#[derive(Default)]
struct Lanes {
    by_id: HashMap<LaneId, Lane>,
    ids: HashMap<String, LaneId>,
    next_id: u64,
    scheduler: Scheduler,
    /// Messages that wait for a slot, oldest first.
    held: VecDeque<HeldMessage>,
    /// Whether a list was read.
    is_known: bool,
}

struct Lane {
    consumer: PullConsumer,
    /// When the consumer was created.
    created: Timestamp,
    lease: Duration,
    acks: AckBatcher,
}

struct HeldMessage {
    lane: LaneId,
    claim: SequenceGuard,
    delivery: Delivery,
    since: Instant,
}

/// Times of the loop over an inbox.
struct Times {
    /// When nothing has arrived for too long.
    idle_deadline: Instant,
    /// When a slot became free last.
    last_freed: Instant,
}

// === impl Lane ===

impl Lane {
    fn from_info(info: Info, client: Client, js: &async_nats::jetstream::Context) -> Option<Self> {
        let config = Config::try_from_consumer_config(info.config.clone()).ok()?;
        let (created, lease) = (timestamp_from_server(info.created), info.config.ack_wait);
        let consumer = Consumer::new(config, info, js.clone());
        Some(Self { consumer, created, lease, acks: AckBatcher::start(client) })
    }

    /// Returns how long a request stays open. The answer comes well within the lease.
    fn expires(&self) -> Duration {
        (self.lease / 3).min(MAX_EXPIRES)
    }

    /// Returns the time after which a request without an answer counts as lost.
    fn answer_timeout(&self) -> Duration {
        self.expires() + SLACK.min(self.lease / 4)
    }

    fn max_hold(&self) -> Duration {
        MAX_HOLD.min(self.lease / 8)
    }
}

// === impl Lanes ===

impl Lanes {
    /// Takes over the list of the consumers of the stream. Consumers that are not listed any more
    /// stay while an answer of them may come.
    fn update<H: Handler>(&mut self, puller: &Puller<H>, session: &LaneSession<'_>, list: &[Info]) {
        self.is_known = true;
        let listed: HashMap<_, _> = list.iter().map(|info| (info.name.as_str(), info)).collect();
        let overdue = self.scheduler.overdue(Duration::ZERO, Instant::now());
        let gone = self.ids.iter().filter(|(name, _)| !listed.contains_key(name.as_str()));
        let gone: Vec<_> = gone.map(|(name, id)| (name.clone(), *id)).collect();
        for (name, id) in gone.into_iter().filter(|(_, id)| !overdue.contains(id)) {
            debug!(lane = name, "a lane was removed");
            self.ids.remove(&name);
            self.by_id.remove(&id);
            self.scheduler.remove(id);
        }
        for info in list {
            match self.ids.get(&info.name).copied() {
                Some(id) => {
                    self.scheduler.set_pending(id, info.num_pending);
                    if let Some(lane) = self.by_id.get_mut(&id) {
                        lane.created = timestamp_from_server(info.created);
                        lane.lease = info.config.ack_wait;
                    }
                }
                None => self.add(puller, session, info),
            }
        }
    }

    fn add<H: Handler>(&mut self, puller: &Puller<H>, session: &LaneSession<'_>, info: &Info) {
        let Some(lane) = Lane::from_info(info.clone(), session.client.clone(), &puller.js) else {
            return;
        };
        debug!(lane = info.name, "a lane was added");
        let id = LaneId(self.next_id);
        self.next_id += 1;
        self.ids.insert(info.name.clone(), id);
        self.by_id.insert(id, lane);
        self.scheduler.add(id, 1, info.num_pending);
    }

    /// Returns the longest time without an answer from any lane that was asked.
    fn answer_timeout(&self) -> Duration {
        self.by_id.values().map(Lane::answer_timeout).min().unwrap_or(MAX_EXPIRES + SLACK)
    }

    /// Forgets the requests to a lane. Its consumer may be another one, or may have lost its record
    /// of deliveries.
    fn reset(&mut self, id: LaneId) {
        self.scheduler.reset(id);
        if let Some(lane) = self.by_id.get(&id) {
            lane.acks.confirm_individually();
        }
    }

    /// Returns when a message that waits for a slot is to be handed back.
    fn hold_deadline(&self) -> Option<Instant> {
        let first = self.held.front()?;
        Some(first.since + self.by_id.get(&first.lane).map_or(MAX_HOLD, Lane::max_hold))
    }
}

// === impl Puller ===

impl<H: Handler> Puller<H> {
    /// Pulls from the lanes through one inbox until it must be replaced, and returns why. Returns
    /// `None` on shutdown.
    pub(super) async fn pull_from_lanes(
        &self,
        session: &LaneSession<'_>,
        mut subscriber: Subscriber,
        state: &mut State,
        shutdown: &CancellationToken,
    ) -> Option<String> {
        let (mut lanes, handing_back) = (Lanes::default(), TaskTracker::new());
        let stop = self
            .pull_lanes_until_stopped(
                session,
                &mut subscriber,
                (&mut lanes, &handing_back),
                state,
                shutdown,
            )
            .await;
        for lane in lanes.by_id.values() {
            lane.acks.confirm_individually();
        }
        let held = std::mem::take(&mut lanes.held);
        if matches!(stop, StopReason::IdleTimeout(_)) {
            let late: Vec<_> = held.into_iter().map(|held| held.delivery).collect();
            let _ = timeout(LATE_DELIVERIES_TIMEOUT, self.on_late_deliveries(&late)).await;
        } else {
            for held in held {
                self.hand_back(session, held, &handing_back);
            }
        }
        handing_back.close();
        handing_back.wait().await;
        self.end_inbox(stop, subscriber, &session.acks, state).await
    }

    async fn pull_lanes_until_stopped(
        &self,
        session: &LaneSession<'_>,
        subscriber: &mut Subscriber,
        (lanes, handing_back): (&mut Lanes, &TaskTracker),
        state: &mut State,
        shutdown: &CancellationToken,
    ) -> StopReason {
        let mut list = LaneList::follow(self.js.clone(), self.stream.clone());
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = Connection::current(&session.client);
        let mut shutdown = pin!(shutdown.cancelled());
        let now = Instant::now();
        let mut times = Times { idle_deadline: now + lanes.answer_timeout(), last_freed: now };
        // Messages that arrive without a free slot wait for one.
        let _ = self.update_slots(state);
        loop {
            if lanes.scheduler.has_outstanding() && Instant::now() > times.idle_deadline {
                return StopReason::IdleTimeout(None);
            }
            self.start_held(session, lanes, state, handing_back).await;
            let has_memory = state.demand.running() == 0 || self.memory.free() >= HANDLING_BYTES;
            let slots = state.max.saturating_sub(state.demand.running() + lanes.held.len());
            let free = self.limit_to_rate(slots);
            if has_memory
                && let Err(error) =
                    self.request_lanes(session, lanes, free, state, &mut times).await
            {
                return StopReason::Resubscribe(error.to_string());
            }
            let running = state.demand.running();
            self.running.send_if_modified(|last| std::mem::replace(last, running) != running);
            let now = Instant::now();
            let next_step = lanes.scheduler.next_step(free, now).filter(|_| has_memory);
            let wake_at = next_step.into_iter().chain(lanes.hold_deadline()).min();
            tokio::select! {
                () = &mut shutdown => return StopReason::Shutdown,
                count = state.tasks.wait_for_free_slots() => {
                    state.demand.finished(count);
                    times.last_freed = Instant::now();
                }
                Ok(()) = state.settings.changed() => { let _ = self.update_slots(state); }
                () = sleep(RESOURCE_CHECK_INTERVAL), if !has_memory || free < slots => {}
                consumers = list.changed() => {
                    if let Some(stop) = self.update_lanes(session, lanes, state, &consumers).await {
                        return stop;
                    }
                }
                first = subscriber.next() => {
                    let received = self.receive_from_lanes(
                        first,
                        subscriber,
                        (lanes, handing_back),
                        session,
                        state,
                        &mut times,
                        &list,
                    );
                    if let Some(stop) = received {
                        return stop;
                    }
                }
                _ = checks.tick() => {
                    let now = Connection::current(&session.client);
                    if now.is_another_to_the_same_server(&connection) {
                        return StopReason::Reconnected;
                    }
                    connection = now;
                    self.reset_overdue(lanes, &list);
                }
                () = sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
        }
    }

    /// Takes over the list of consumers. Returns why the inbox must be replaced, if the queue has
    /// no lanes any more.
    async fn update_lanes(
        &self,
        session: &LaneSession<'_>,
        lanes: &mut Lanes,
        state: &mut State,
        consumers: &[Info],
    ) -> Option<StopReason> {
        let of_queue = consumers.iter().find(|info| info.name == self.durable);
        if !of_queue.is_some_and(|info| has_lanes(&info.config.filter_subjects)) {
            let reason = format!("consumer {} is missing or has no lanes", self.durable);
            return Some(StopReason::Resubscribe(reason));
        }
        if !lanes.is_known {
            info!(stream = self.stream, lanes = consumers.len() - 1, "pulling from lanes");
            // The consumer of the queue was checked before.
            for lane in consumers.iter().filter(|info| info.name != self.durable) {
                self.recover(state, lane).await;
            }
        }
        lanes.update(self, session, consumers);
        None
    }

    async fn request_lanes(
        &self,
        session: &LaneSession<'_>,
        lanes: &mut Lanes,
        free: usize,
        state: &State,
        times: &mut Times,
    ) -> Result<(), async_nats::Error> {
        let was_open = lanes.scheduler.has_outstanding();
        let requests = lanes.scheduler.next_requests(free, Instant::now());
        if !was_open && !requests.is_empty() {
            times.idle_deadline = Instant::now() + lanes.answer_timeout();
        }
        for LaneRequest { lane: id, batch } in requests {
            let Some(lane) = lanes.by_id.get(&id) else { continue };
            let max_message_bytes = max_message_bytes(&session.client);
            let config = BatchConfig {
                batch,
                max_bytes: self.max_bytes(max_message_bytes, batch, state.max),
                expires: Some(lane.expires()),
                ..BatchConfig::default()
            };
            let inbox = format!("{}.{}", session.inbox, id.0);
            lane.consumer.request_batch(config, inbox.into()).await?;
        }
        Ok(())
    }

    /// Processes the first message that has arrived on the inbox, and all that arrived together
    /// with it.
    #[expect(clippy::too_many_arguments, reason = "the parts of the loop, which has one caller")]
    fn receive_from_lanes(
        &self,
        first: Option<Message>,
        subscriber: &mut Subscriber,
        (lanes, handing_back): (&mut Lanes, &TaskTracker),
        session: &LaneSession<'_>,
        state: &mut State,
        times: &mut Times,
        list: &LaneList,
    ) -> Option<StopReason> {
        let mut received = Some(first);
        while let Some(next) = received {
            let Some(message) = next else {
                return Some(StopReason::Resubscribe("the subscription ended".to_owned()));
            };
            if lanes.scheduler.has_outstanding() && Instant::now() > times.idle_deadline {
                return Some(StopReason::IdleTimeout(Some(Box::new(message))));
            }
            times.idle_deadline = Instant::now() + lanes.answer_timeout();
            match (classify(&message), lane_of_status(&message)) {
                (Event::Message, _) => {
                    let delivery = Delivery::from_message(message);
                    let held = self.dispatch_from_lane(delivery, session, lanes, state);
                    // Slots become free rarely: another worker may have one.
                    if let Some(held) = held {
                        if times.last_freed.elapsed() > MAX_HOLD {
                            lanes.scheduler.handed_back(held.lane);
                            self.hand_back(session, held, handing_back);
                        } else {
                            lanes.held.push_back(held);
                        }
                    }
                }
                (Event::Expired(unfilled), Some(id)) => lanes.scheduler.expired(id, unfilled),
                (Event::Resubscribe(reason), Some(id)) => {
                    debug!(stream = self.stream, reason, "looking up a lane again");
                    lanes.reset(id);
                    list.refresh();
                }
                (Event::Heartbeat | Event::Expired(_) | Event::Resubscribe(_), _) => {}
            }
            received = subscriber.next().now_or_never();
        }
        None
    }

    /// Starts to handle a message, if it is not in flight here. Returns it if no slot is free.
    fn dispatch_from_lane(
        &self,
        delivery: Delivery,
        session: &LaneSession<'_>,
        lanes: &mut Lanes,
        state: &mut State,
    ) -> Option<HeldMessage> {
        let (name, pending) = delivery.lane()?;
        let Some(id) = lanes.ids.get(name).copied() else {
            warn!(
                lane = name,
                sequence = delivery.sequence,
                "received a call from a lane that is not listed: it is delivered again after the \
                 lease"
            );
            return None;
        };
        lanes.scheduler.received(id, pending);
        let claim = state.tasks.claim(delivery.sequence)?;
        let held = HeldMessage { lane: id, claim, delivery, since: Instant::now() };
        // Those that wait for a slot are first.
        if lanes.held.is_empty() { self.start(session, lanes, state, held) } else { Some(held) }
    }

    /// Starts to handle a message if a slot is free. Returns it otherwise.
    fn start(
        &self,
        session: &LaneSession<'_>,
        lanes: &Lanes,
        state: &mut State,
        held: HeldMessage,
    ) -> Option<HeldMessage> {
        let Some(lane) = lanes.by_id.get(&held.lane).filter(|_| state.demand.received()) else {
            return Some(held);
        };
        let source = Source {
            lease: lane.lease,
            acks: lane.acks.clone(),
            created: lane.created,
            out_of_time: session.nak_now,
        };
        self.spawn(&mut state.tasks, held.claim, held.delivery, source);
        None
    }

    /// Starts to handle messages that wait for a slot, and hands back those that have waited too
    /// long.
    async fn start_held(
        &self,
        session: &LaneSession<'_>,
        lanes: &mut Lanes,
        state: &mut State,
        handing_back: &TaskTracker,
    ) {
        while let Some(deadline) = lanes.hold_deadline()
            && let Some(held) = lanes.held.pop_front()
        {
            let lease = lanes.by_id.get(&held.lane).map_or(Duration::ZERO, |lane| lane.lease);
            if held.since.elapsed() > lease / 2 {
                // This process was stopped: another worker may have the message.
                let late = [held.delivery];
                let _ = timeout(LATE_DELIVERIES_TIMEOUT, self.on_late_deliveries(&late)).await;
                continue;
            }
            let Some(held) = self.start(session, lanes, state, held) else { continue };
            if Instant::now() < deadline {
                return lanes.held.push_front(held);
            }
            lanes.scheduler.handed_back(held.lane);
            self.hand_back(session, held, handing_back);
        }
    }

    /// Hands a message back, in a task of its own.
    fn hand_back(&self, session: &LaneSession<'_>, held: HeldMessage, tasks: &TaskTracker) {
        let (handler, acks) = (self.handler.clone(), session.acks.clone());
        let HeldMessage { claim, delivery, .. } = held;
        tasks.spawn(async move {
            let redeliveries = claim.redeliveries();
            // Released first: the next delivery may come here.
            drop(claim);
            nak_now(&*handler, &acks, &delivery, redeliveries).await;
        });
    }

    /// Sends requests again that the server has not answered in time.
    fn reset_overdue(&self, lanes: &mut Lanes, list: &LaneList) {
        let timeout = lanes.answer_timeout();
        for id in lanes.scheduler.overdue(timeout, Instant::now()) {
            debug!(
                stream = self.stream,
                lane = id.0,
                "a request was not answered: sending another"
            );
            lanes.reset(id);
            list.refresh();
        }
    }
}

/// Returns the lane to which an answer without a message belongs: the last token of its subject.
fn lane_of_status(message: &Message) -> Option<LaneId> {
    message.subject.rsplit('.').next()?.parse().ok().map(LaneId)
}
