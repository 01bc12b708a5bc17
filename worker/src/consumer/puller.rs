//! Requests messages as slots become free, and starts a task for each message that arrives.

use std::{pin::pin, sync::Arc, time::Duration};

use async_nats::{
    Message, Subject, Subscriber,
    jetstream::{
        AckKind, Context,
        consumer::{Info, PullConsumer},
    },
};
use asyncqueue::{
    connection::Connection,
    jetstream::{delete_message, timestamp_from_server},
    lanes::has_lanes,
};
use asyncqueue_runtime::{
    error::error_chain, health::Health, memory::Account, nats::jetstream_check::JetStreamOff,
    shutdown::Shutdown,
};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Handler,
    ack::AckBatcher,
    delivery::Delivery,
    demand::Demand,
    event::{Event, classify},
    in_flight::{InFlight, InFlightPermit, InFlightSet, SequenceGuard},
    lease,
    poison_headers::{self, ScanResult, UndecodableMessage},
    session::{LaneSession, PullSession},
    settle::settle,
};
use crate::{live_settings::LiveSettings, shared_limits::Gate};

/// Wait between attempts to find the consumer or to request messages again. A random time of up to
/// the same length is added, so that the workers of a queue do not all come at once.
pub(super) const RESUBSCRIBE_DELAY: Duration = Duration::from_millis(250);

/// Wait between checks whether a consumer keeps another request, while it has its maximum of them.
const FULL_CONSUMER_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Memory that a message takes in addition to its own size, in bytes. It is for its task, a second
/// copy of its headers as they are sent on, and a connection.
pub(super) const HANDLING_BYTES: usize = 28 * 1024;

/// The part of the memory budget, as a divisor, for messages of a consumer that were requested and
/// have not arrived, or that wait for memory.
pub(crate) const REQUESTED_BUDGET_DIVISOR: usize = 16;

/// Wait between checks whether there is memory again, and whether the rate permits more.
pub(super) const RESOURCE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time for the work before a message is handed back, which takes a round trip or two.
const BEFORE_NAK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time for the work on messages that came too late. It takes a round trip or two, for
/// several messages at once.
pub(super) const LATE_DELIVERIES_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of messages that are processed at once because their deliveries were lost or came
/// too late.
const MAX_CONCURRENT_CHECKS: usize = 32;

/// If requests are lost within this time after a message may have been delivered again, that
/// message may be the cause.
const RECENT_FAILURE: Duration = Duration::from_secs(30);

/// Pulls messages from a durable consumer and handles them.
pub(crate) struct Puller<H> {
    pub(crate) js: Context,
    pub(crate) stream: String,
    pub(crate) durable: String,
    /// The settings on which the number of slots depends.
    pub(crate) settings: watch::Receiver<LiveSettings>,
    /// Returns the number of slots: how many messages are handled at once.
    pub(crate) slots: fn(&LiveSettings) -> usize,
    /// Limits how many messages are requested ahead, if they wait for the rate of the queue.
    pub(crate) gate: Option<Gate>,
    pub(crate) handler: Arc<H>,
    /// Receives the number of messages that are being handled, whenever it changes.
    pub(crate) running: watch::Sender<usize>,
    /// The messages that are in flight.
    pub(crate) in_flight: InFlightSet,
    /// Readiness condition, by name, which says whether the consumer exists.
    pub(crate) readiness: Option<(Health, &'static str)>,
    /// Memory for messages and for handling them.
    pub(crate) memory: Account,
}

/// What outlives an inbox.
pub(super) struct State {
    pub(super) tasks: InFlight,
    pub(super) settings: watch::Receiver<LiveSettings>,
    /// Number of slots.
    pub(super) max: usize,
    pub(super) demand: Demand,
    /// Whether requests were lost recently.
    pub(super) is_recovering: bool,
    /// Whether the last inbox ended because the client had reconnected to the same server.
    pub(super) was_reconnected: bool,
    /// Whether the server drops requests because too many wait at the consumer. It does not report
    /// that.
    is_consumer_full: bool,
    /// An inbox on which nothing arrived for too long, and the message that was read from it after
    /// that.
    idle_inbox: Option<(Option<Box<Message>>, Subscriber)>,
}

/// How the deliveries of a consumer are settled.
pub(super) struct Source<'a> {
    pub(super) lease: Duration,
    pub(super) acks: AckBatcher,
    /// When the consumer was created.
    pub(super) created: Timestamp,
    /// Cancelled when all messages must be handed back at once.
    pub(super) out_of_time: &'a CancellationToken,
}

/// Says why the loop over one inbox stopped.
pub(super) enum StopReason {
    Shutdown,
    /// The inbox must be replaced, for this reason.
    Resubscribe(String),
    /// More messages were requested than there are free slots, since the number of slots was
    /// lowered.
    TooManyRequested,
    /// The connection is another one, to the same server: a delivered message may have broken the
    /// old one.
    Reconnected,
    /// Nothing arrived for too long. Either the server has lost the request, or this process was
    /// stopped. What has arrived since then may be with another worker by now, and must not be
    /// handled here. Contains the message that was read before this was noticed.
    IdleTimeout(Option<Box<Message>>),
}

// === impl State ===

impl State {
    fn new(settings: watch::Receiver<LiveSettings>, max: usize, tasks: InFlight) -> Self {
        Self {
            tasks,
            settings,
            max,
            demand: Demand::new(max),
            // Starts in recovery mode: a poison message may have killed the previous process.
            is_recovering: true,
            was_reconnected: false,
            is_consumer_full: false,
            idle_inbox: None,
        }
    }
}

// === impl Puller ===

impl<H: Handler> Puller<H> {
    /// Pulls until `shutdown`. Then gives running tasks `grace` to finish, and hands the rest back
    /// at once.
    pub(crate) async fn run(self, shutdown: Shutdown, grace: impl Fn() -> Duration) {
        let Shutdown { graceful: requested, forced } = &shutdown;
        let nak_now = CancellationToken::new();
        let mut settings = self.settings.clone();
        let max = (self.slots)(&settings.borrow_and_update());
        let tasks = InFlight::new(max, self.in_flight.clone());
        let mut state = State::new(settings, max, tasks);
        while let Some((consumer, lease)) = self.find_consumer(requested).await {
            self.recover(&mut state, consumer.cached_info()).await;
            if let Some(max_waiting) = max_waiting_if_reached(consumer.cached_info()) {
                self.wait_for_full_consumer(&mut state, max_waiting, requested).await;
                continue;
            }
            let has_lanes = has_lanes(&consumer.cached_info().config.filter_subjects);
            let (inbox, subscriber) = match self.subscribe(has_lanes).await {
                Ok(pair) => pair,
                Err(error) => {
                    debug!(%error, "failed to subscribe");
                    sleep(jittered(RESUBSCRIBE_DELAY)).await;
                    continue;
                }
            };
            state.demand.reset_outstanding();
            let (client, acks) = (self.js.client(), AckBatcher::start(self.js.client()));
            let started = Instant::now();
            let stopped = if has_lanes {
                let session = LaneSession { client, inbox, acks, nak_now: &nak_now };
                self.pull_from_lanes(&session, subscriber, &mut state, requested).await
            } else {
                let session =
                    PullSession { client, consumer, inbox, lease, acks, nak_now: &nak_now };
                let stopped = self.pull(&session, subscriber, &mut state, requested).await;
                session.acks.confirm_individually();
                stopped
            };
            let Some(reason) = stopped else { break };
            state.is_recovering = started.elapsed() < lease * 2 + RECENT_FAILURE;
            state.is_consumer_full &= started.elapsed() < RECENT_FAILURE;
            if state.is_consumer_full {
                debug!(stream = self.stream, reason, "resubscribing to the consumer");
            } else {
                info!(stream = self.stream, reason, "resubscribing to the consumer");
            }
            sleep(jittered(RESUBSCRIBE_DELAY)).await;
        }
        drain_tasks(state.tasks, grace(), forced, &nak_now).await;
    }

    /// Handles what the last inbox has left behind: late deliveries, and messages that break the
    /// connection.
    pub(super) async fn recover(&self, state: &mut State, consumer: &Info) {
        // The server has answered, so what it sent before has arrived.
        if let Some((read, inbox)) = state.idle_inbox.take() {
            let late = late_deliveries(read, inbox, &state.tasks.in_flight());
            // Done before the next request, which may bring one of these messages again.
            let _ = timeout(LATE_DELIVERIES_TIMEOUT, self.on_late_deliveries(&late)).await;
        }
        // A message that can't be read may break the connection for the first time, or repeatedly.
        if state.was_reconnected || (state.is_recovering && consumer.num_redelivered > 0) {
            self.end_undecodable(consumer, &state.tasks.in_flight()).await;
        }
    }

    /// Waits before the next check whether the consumer keeps another request.
    async fn wait_for_full_consumer(
        &self,
        state: &mut State,
        max_waiting: i64,
        shutdown: &CancellationToken,
    ) {
        if !std::mem::replace(&mut state.is_consumer_full, true) {
            let (stream, durable) = (&self.stream, &self.durable);
            warn!(
                stream,
                durable,
                max_waiting,
                "the consumer accepts no more pull requests: waiting until other workers have calls"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(jittered(FULL_CONSUMER_CHECK_INTERVAL)) => {}
        }
    }

    /// Ends messages that break the connection each time that they are delivered. The deliveries
    /// behind them don't count as attempts: they were sent and never read.
    async fn end_undecodable(&self, consumer: &Info, in_flight: &InFlightSet) {
        let ScanResult { undecodable, behind } = poison_headers::scan(&self.js, consumer).await;
        let mut lost = behind;
        lost.retain(|delivery| !in_flight.contains(delivery.sequence));
        futures::stream::iter(&lost)
            .for_each_concurrent(MAX_CONCURRENT_CHECKS, |delivery| {
                self.handler.on_lost_delivery(delivery)
            })
            .await;
        for UndecodableMessage { delivery, reason } in undecodable {
            let (stream, subject, sequence) =
                (&self.stream, &delivery.message.subject, delivery.sequence);
            warn!(
                stream,
                %subject,
                sequence,
                "undecodable message, moving it to the dead-letter stream: {reason}"
            );
            let mut permit = InFlightPermit::without_slot();
            let ack = self.handler.on_undecodable(&delivery, reason, &mut permit).await;
            if let AckKind::Ack = ack
                && let Err(error) = delete_message(
                    &self.js,
                    stream,
                    sequence,
                    "remove a message that can't be read",
                )
                .await
            {
                debug!(sequence, %error, "failed to remove an undecodable message: will retry");
            }
        }
    }

    pub(super) async fn on_late_deliveries(&self, late: &[Delivery]) {
        futures::stream::iter(late)
            .for_each_concurrent(MAX_CONCURRENT_CHECKS, |delivery| {
                self.handler.on_late_delivery(delivery)
            })
            .await;
    }

    /// Returns the consumer and its lease, and waits for it as long as necessary. Returns `None` on
    /// shutdown.
    async fn find_consumer(
        &self,
        shutdown: &CancellationToken,
    ) -> Option<(PullConsumer, Duration)> {
        let (stream, durable) = (&self.stream, &self.durable);
        let mut logged = None;
        self.set_readiness(Some(format!("looking up consumer {durable} of stream {stream}")));
        loop {
            let found = self.js.get_consumer_from_stream(&self.durable, &self.stream);
            let error = tokio::select! {
                () = shutdown.cancelled() => return None,
                found = found => match found {
                    Ok(consumer) => {
                        let lease = consumer.cached_info().config.ack_wait;
                        if logged.is_some() {
                            info!(stream, durable, "found the consumer");
                        }
                        self.set_readiness(None);
                        return Some((consumer, lease));
                    }
                    Err(error) => error,
                },
            };
            let reason = match JetStreamOff::from_error(&error) {
                // The condition `jetstream` says what to do.
                Some(_) => "JetStream is not enabled".to_owned(),
                None => error_chain(&error),
            };
            // The reason may change during the wait: the server is unavailable, then the stream is
            // missing, then the consumer.
            if logged.as_ref() != Some(&reason) {
                info!(stream, durable, reason, "waiting for the stream and its consumer");
                self.set_readiness(Some(format!(
                    "waiting for consumer {durable} of stream {stream}: {reason}"
                )));
                logged = Some(reason);
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(jittered(RESUBSCRIBE_DELAY * 4)) => {}
            }
        }
    }

    /// Sets the readiness condition: met, or not met for this reason.
    fn set_readiness(&self, not_ready_reason: Option<String>) {
        match (&self.readiness, not_ready_reason) {
            (Some((health, condition)), None) => health.ready(condition),
            (Some((health, condition)), Some(reason)) => health.not_ready(condition, reason),
            (None, _) => {}
        }
    }

    /// Subscribes to a new inbox. With lanes, each has a subject of its own below it.
    async fn subscribe(&self, has_lanes: bool) -> Result<(Subject, Subscriber), async_nats::Error> {
        let client = self.js.client();
        let inbox = client.new_inbox();
        let subject = if has_lanes { format!("{inbox}.*") } else { inbox.clone() };
        let subscriber = client.subscribe(subject).await?;
        Ok((inbox.into(), subscriber))
    }

    /// Pulls through one inbox until it must be replaced, and returns why. Returns `None` on
    /// shutdown.
    async fn pull(
        &self,
        session: &PullSession<'_>,
        mut subscriber: Subscriber,
        state: &mut State,
        shutdown: &CancellationToken,
    ) -> Option<String> {
        let stop = self.pull_until_stopped(session, &mut subscriber, state, shutdown).await;
        self.end_inbox(stop, subscriber, &session.acks, state).await
    }

    /// Ends the subscription of an inbox, and returns why it is replaced. Returns `None` on
    /// shutdown.
    pub(super) async fn end_inbox(
        &self,
        stop: StopReason,
        subscriber: Subscriber,
        acks: &AckBatcher,
        state: &mut State,
    ) -> Option<String> {
        state.was_reconnected = matches!(stop, StopReason::Reconnected);
        if let StopReason::IdleTimeout(read) = stop {
            state.idle_inbox = Some((read, subscriber));
            return Some("no message or heartbeat from the server in time".to_owned());
        }
        self.drain_subscription(subscriber, acks, &state.tasks.in_flight()).await;
        match stop {
            StopReason::Resubscribe(reason) => Some(reason),
            StopReason::TooManyRequested => Some("the number of slots was lowered".to_owned()),
            StopReason::Reconnected => Some("the connection was closed".to_owned()),
            StopReason::Shutdown | StopReason::IdleTimeout(_) => None,
        }
    }

    async fn pull_until_stopped(
        &self,
        session: &PullSession<'_>,
        subscriber: &mut Subscriber,
        state: &mut State,
        shutdown: &CancellationToken,
    ) -> StopReason {
        let mut idle_deadline = Instant::now() + session.idle_timeout();
        // The timer may fire at an earlier deadline and is then reset, so that no timer is created
        // for each message.
        let mut idle_timer = pin!(sleep_until(idle_deadline));
        let (client, mut connection_checks) =
            (self.js.client(), interval(session.connection_check_interval()));
        connection_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = Connection::current(&client);
        let mut shutdown = pin!(shutdown.cancelled());
        // Nothing is requested yet.
        let _ = self.update_slots(state);
        loop {
            // The process may have been suspended past the deadline: what it receives after that
            // is late.
            if state.demand.has_outstanding() && Instant::now() > idle_deadline {
                return StopReason::IdleTimeout(None);
            }
            // The first message is always requested, and handled with all the memory that it takes.
            // While another one waits for memory, no memory is free.
            let has_memory = state.demand.running() == 0 || self.memory.free() >= HANDLING_BYTES;
            let waits_for_rate = self.set_ahead(&mut state.demand);
            if has_memory && let Some(batch) = state.demand.next_batch() {
                let max_bytes = self.max_bytes(session.max_message_bytes(), batch, state.max);
                if let Err(error) = session.request(batch, max_bytes).await {
                    return StopReason::Resubscribe(error.to_string());
                }
                idle_deadline = Instant::now() + session.idle_timeout();
            }
            let running = state.demand.running();
            self.running.send_if_modified(|last| std::mem::replace(last, running) != running);
            tokio::select! {
                () = &mut shutdown => return StopReason::Shutdown,
                count = state.tasks.wait_for_free_slots() => state.demand.finished(count),
                Ok(()) = state.settings.changed() => if self.update_slots(state) {
                    return StopReason::TooManyRequested;
                },
                () = sleep(RESOURCE_CHECK_INTERVAL), if !has_memory || waits_for_rate => {}
                first = subscriber.next() => {
                    let received =
                        self.receive(first, subscriber, session, state, &mut idle_deadline);
                    if let Some(stop) = received.await {
                        return stop;
                    }
                }
                _ = connection_checks.tick() => {
                    let now = Connection::current(&client);
                    if now.is_another_to_the_same_server(&connection) {
                        return StopReason::Reconnected;
                    }
                    connection = now;
                }
                () = &mut idle_timer, if state.demand.has_outstanding() => {
                    idle_timer.as_mut().reset(idle_deadline);
                }
            }
        }
    }

    /// Applies how many messages may wait for the rate. Returns whether that limits the requests.
    fn set_ahead(&self, demand: &mut Demand) -> bool {
        self.gate.as_ref().is_some_and(|gate| demand.set_ahead(gate.calls_ahead()))
    }

    /// Returns how many of the free slots may be requested: as many calls as may wait for the rate.
    pub(super) fn limit_to_rate(&self, free: usize) -> usize {
        self.gate.as_ref().map_or(free, |gate| free.min(gate.calls_ahead()))
    }

    /// Applies the number of slots that the settings say. Returns whether more was requested than
    /// is free now. Running tasks continue in any case.
    #[must_use]
    pub(super) fn update_slots(&self, state: &mut State) -> bool {
        state.max = (self.slots)(&state.settings.borrow_and_update());
        state.tasks.set_max(state.max);
        state.demand.set_max(state.max)
    }

    /// Returns the maximum size of a batch of messages, in bytes. It has room for one message in
    /// any case.
    pub(super) fn max_bytes(&self, max_message_bytes: usize, batch: usize, max: usize) -> usize {
        let budget = self.memory.budget().0 / REQUESTED_BUDGET_DIVISOR;
        max_message_bytes.max(budget / max * batch)
    }

    /// Processes the first message that has arrived on the inbox, and all that arrived together
    /// with it.
    async fn receive(
        &self,
        first: Option<Message>,
        subscriber: &mut Subscriber,
        session: &PullSession<'_>,
        state: &mut State,
        idle_deadline: &mut Instant,
    ) -> Option<StopReason> {
        let mut received = Some(first);
        while let Some(next) = received {
            let Some(message) = next else {
                return Some(StopReason::Resubscribe("the subscription ended".to_owned()));
            };
            if state.demand.has_outstanding() && Instant::now() > *idle_deadline {
                return Some(StopReason::IdleTimeout(Some(Box::new(message))));
            }
            *idle_deadline = Instant::now() + session.idle_timeout();
            match classify(&message) {
                Event::Heartbeat => {}
                Event::Expired(unfilled) => state.demand.expired(unfilled),
                Event::Resubscribe(reason) => return Some(StopReason::Resubscribe(reason)),
                Event::Message => {
                    self.dispatch(Delivery::from_message(message), session, state).await;
                }
            }
            received = subscriber.next().now_or_never();
        }
        None
    }

    /// Starts to handle a message, if it is not in flight here and a slot is free for it.
    async fn dispatch(&self, delivery: Delivery, session: &PullSession<'_>, state: &mut State) {
        let sequence = delivery.sequence;
        let Some(claim) = state.tasks.claim(sequence) else { return state.demand.expired(1) };
        if state.demand.received() {
            let PullSession { consumer, lease, acks, nak_now, .. } = session;
            let source = Source {
                lease: *lease,
                acks: acks.clone(),
                created: timestamp_from_server(consumer.cached_info().created),
                out_of_time: nak_now,
            };
            self.spawn(&mut state.tasks, claim, delivery, source);
        } else {
            nak_now(&*self.handler, &session.acks, &delivery, 0).await;
        }
    }

    pub(super) fn spawn(
        &self,
        tasks: &mut InFlight,
        claim: SequenceGuard,
        mut delivery: Delivery,
        Source { lease, acks, created, out_of_time }: Source<'_>,
    ) {
        delivery.consider_consumer(created);
        let (handler, out_of_time) = (self.handler.clone(), out_of_time.clone());
        let account = self.memory.clone();
        tasks.spawn(claim, async move |mut permit| {
            let bytes = handling_bytes(delivery.message.length);
            let mut memory = account.try_take(bytes);
            let outcome = {
                let work = pin!(async {
                    if memory.is_none() {
                        memory = Some(account.take(bytes).await);
                    }
                    handler.handle(&delivery, lease, &mut permit).await
                });
                tokio::select! {
                    outcome = lease::run_with_renewal(&acks, &delivery, lease, work) => {
                        Some(outcome)
                    }
                    () = out_of_time.cancelled() => None,
                }
            };
            match outcome {
                Some(outcome) => {
                    let settled = settle(&acks, &delivery, outcome, lease, permit);
                    tokio::select! {
                        () = settled => {}
                        // The end is known and its ack is on the way, but there is no time to wait
                        // for the confirmation.
                        () = out_of_time.cancelled() => {}
                    }
                }
                None => {
                    Box::pin(nak_now(&*handler, &acks, &delivery, permit.redeliveries())).await;
                }
            }
            // The memory is kept until the message is settled.
            drop(memory);
        });
    }

    /// Ends a subscription. What the server sent before it learned of that is handed back, rather
    /// than left to its lease.
    async fn drain_subscription(
        &self,
        mut subscriber: Subscriber,
        acks: &AckBatcher,
        in_flight: &InFlightSet,
    ) {
        if subscriber.drain().await.is_err() {
            return;
        }
        while let Ok(Some(message)) = timeout(RESUBSCRIBE_DELAY, subscriber.next()).await {
            if classify(&message) != Event::Message {
                continue;
            }
            let delivery = Delivery::from_message(message);
            if !in_flight.count_redelivery(delivery.sequence) {
                nak_now(&*self.handler, acks, &delivery, 0).await;
            }
        }
    }
}

/// Returns how many requests may wait at a consumer, if that many do.
fn max_waiting_if_reached(consumer: &Info) -> Option<i64> {
    let max_waiting = consumer.config.max_waiting;
    let waiting = i64::try_from(consumer.num_waiting).unwrap_or(i64::MAX);
    (max_waiting > 0 && waiting >= max_waiting).then_some(max_waiting)
}

/// Waits for running tasks, and hands back what is not done in time.
async fn drain_tasks(
    mut tasks: InFlight,
    grace: Duration,
    forced: &CancellationToken,
    nak_now: &CancellationToken,
) {
    let running = tasks.running();
    if running == 0 {
        return;
    }
    info!(running, "draining: no new calls, waiting for running calls");
    let all = async { while tasks.join_next().await.is_some() {} };
    let all_ended = tokio::select! {
        ended = timeout(grace, all) => ended.is_ok(),
        () = forced.cancelled() => false,
    };
    if !all_ended {
        warn!(running = tasks.running(), "grace period exceeded: handing back running calls");
        nak_now.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

/// Ends the subscription of an inbox on which nothing arrived for too long. Returns the messages
/// that have arrived since then and are not in flight here, beginning with the one that was `read`.
/// They are late, and may be with another worker by now. A delivery of a message that is in flight
/// does not count as an attempt.
fn late_deliveries(
    read: Option<Box<Message>>,
    mut inbox: Subscriber,
    in_flight: &InFlightSet,
) -> Vec<Delivery> {
    let mut late = Vec::new();
    let unread = std::iter::from_fn(|| inbox.next().now_or_never().flatten());
    for message in read.map(|message| *message).into_iter().chain(unread) {
        if classify(&message) == Event::Message {
            let delivery = Delivery::from_message(message);
            if !in_flight.count_redelivery(delivery.sequence) {
                late.push(delivery);
            }
        }
    }
    late
}

/// Hands a message back without a delay, so that the next request gets it at once.
pub(super) async fn nak_now(
    handler: &impl Handler,
    acks: &AckBatcher,
    delivery: &Delivery,
    redeliveries: u64,
) {
    // Another worker may have the message, and would lose it by this.
    if !delivery.is_lease_certain() {
        return;
    }
    // The time is bounded: whatever this does, it must not keep the message.
    let _ = timeout(BEFORE_NAK_TIMEOUT, handler.before_nak(delivery, redeliveries)).await;
    if let Err(error) = acks.send(delivery, AckKind::Nak(None)).await {
        debug!(%error, "failed to hand a message back: it is delivered again after the lease");
    }
}

/// Returns the memory that a message of this length takes while it is handled, in bytes. The client
/// of NATS reads it into a buffer that may be twice as large, and which it keeps.
fn handling_bytes(length: usize) -> usize {
    length * 2 + HANDLING_BYTES
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::random::<f64>())
}
