//! Takes messages from a durable consumer, as many as there are free slots and no more.
//!
//! There is one inbox, one task that counts ([`demand`]), and one task for each message. The pull
//! requests are sent here, and not by the client library's stream of messages, which requests
//! ahead. What is requested ahead waits in one worker while another is idle.

use std::{pin::pin, sync::Arc, time::Duration};

use async_nats::{
    Client, Message, Subject, Subscriber,
    jetstream::{
        AckKind, Context,
        consumer::{Info, PullConsumer, pull::BatchConfig},
    },
};
use asyncqueue::{connection::Connection, jetstream::delete_message};
use asyncqueue_runtime::{
    error::error_chain, health::Health, memory::Account, nats::jetstream_check::JetStreamOff,
    shutdown::Shutdown,
};
use demand::Demand;
use event::{Event, classify};
use futures::{FutureExt, StreamExt};
pub(crate) use tasks::Ticket;
use tasks::{Claim, InFlight, Tasks};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use unreadable::{Found, Unreadable};

use crate::{ack::Acks, delivery::Delivered, lease, settle::settle};

mod demand;
mod event;
mod tasks;
mod unreadable;

/// How long a pull request stays open at the server. This is long, so that an idle worker sends one
/// request in this time.
const PULL_EXPIRES: Duration = Duration::from_secs(120);

/// Interval of the server's heartbeats while a request is open and no message arrives. It is
/// shorter where the lease is short.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Minimum interval of heartbeats. nats-server permits 100 ms; this is a bit more, for a busy
/// server.
const MIN_HEARTBEAT: Duration = Duration::from_millis(250);

/// How late a message of the server may be.
const LATE: Duration = Duration::from_secs(1);

/// Wait between attempts to find the consumer or to request messages again. A random time of up to
/// the same length is added, so that the workers of a queue do not all come at once.
const RENEW_WAIT: Duration = Duration::from_millis(250);

/// Wait between checks whether a consumer keeps another request, while it has its maximum of them.
const CROWDED_PAUSE: Duration = Duration::from_secs(10);

/// Memory that a message takes in addition to its own size, in bytes. It is for its task, a second
/// copy of its headers as they are sent on, and a connection.
const HANDLING_BYTES: usize = 28 * 1024;

/// The part of the memory budget, as a divisor, for messages of a consumer that were requested and
/// have not arrived, or that wait for memory.
pub(crate) const ASKED_PART: usize = 16;

/// Wait between checks whether there is memory again.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// Maximum time for the work before a message is handed back, which takes a round trip or two.
const BEFORE_HAND_BACK: Duration = Duration::from_secs(1);

/// Maximum time for the work on messages that came too late. It takes a round trip or two, for
/// several messages at once.
const AFTER_LATE: Duration = Duration::from_secs(2);

/// Maximum interval between checks whether the connection is another one. What was lost with the
/// old one is delivered again after the lease.
const CONNECTION_CHECK: Duration = Duration::from_secs(1);

/// Maximum number of messages that are processed at once because their deliveries were lost or came
/// too late.
const CONCURRENT_LOOKS: usize = 32;

/// If requests are lost within this time after a message may have been delivered again, that
/// message may be the cause.
const SOON: Duration = Duration::from_secs(30);

/// Handles the messages of a consumer.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What is kept of a message until it is settled.
    type Kept: Send;

    /// Handles one message under a lease that is renewed while it is handled, and returns how to
    /// settle the message. The future may be dropped at any point: the message is then handed back.
    fn handle(
        &self,
        delivered: &Delivered,
        lease: Duration,
        ticket: &mut Ticket,
    ) -> impl Future<Output = (AckKind, Self::Kept)> + Send;

    /// Ends a message whose headers or subject can't be read, for this reason.
    fn give_up_unreadable(
        &self,
        delivered: &Delivered,
        why: String,
        ticket: &mut Ticket,
    ) -> impl Future<Output = AckKind> + Send;

    /// Handles a message of which a delivery may have been lost with the connection. Ensures that
    /// the delivery counts as no attempt, if no worker has the message.
    fn delivery_was_lost(&self, _delivered: &Delivered) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Prepares a message for being handed back unhandled, after this number of its deliveries were
    /// ignored.
    fn before_hand_back(
        &self,
        _delivered: &Delivered,
        _repeats: u64,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Does what is necessary for a message that came too late to be handled.
    fn was_late(&self, _delivered: &Delivered) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Pulls messages from a durable consumer and handles them.
pub(crate) struct Puller<H> {
    pub(crate) js: Context,
    pub(crate) stream: String,
    pub(crate) durable: String,
    /// Maximum number of messages that are handled at once.
    pub(crate) max: usize,
    pub(crate) handler: Arc<H>,
    /// Receives the number of messages that are being handled, whenever it changes.
    pub(crate) running: watch::Sender<usize>,
    /// Readiness condition, by name, which says whether the consumer exists.
    pub(crate) readiness: Option<(Health, &'static str)>,
    /// Memory for messages and for handling them.
    pub(crate) memory: Account,
}

/// Says why the loop over one inbox ended.
enum End {
    Shutdown,
    Renew(String),
    /// The connection is another one, to the same server: a delivered message may have broken the
    /// old one.
    Cut,
    /// Nothing arrived for too long. Either the server has lost the request, or this process was
    /// stopped. What has arrived since then may be with another worker by now, and must not be
    /// handled here. Contains the message that was read before this was noticed.
    Silence(Option<Box<Message>>),
}

// === impl Puller ===

impl<H: Handler> Puller<H> {
    /// Pulls until `shutdown`. Then gives running tasks `grace` to finish, and hands the rest back
    /// at once.
    pub(crate) async fn run(self, shutdown: Shutdown, grace: Duration) {
        let Shutdown { graceful: requested, forced: hurry } = &shutdown;
        let hand_back = CancellationToken::new();
        let mut tasks = Tasks::new(self.max);
        let mut demand = Demand::new(self.max);
        // Starts as if requests had been lost before: that may be why this program was started.
        let mut is_in_trouble = true;
        let mut was_cut = false;
        // Whether the server drops requests because too many wait at the consumer. It does not
        // report that.
        let mut is_crowded = false;
        // An inbox on which nothing arrived for too long.
        let mut silent = None;
        while let Some((consumer, lease)) = self.find_consumer(requested).await {
            // The server has answered, so what it sent before has arrived.
            if let Some((read, inbox)) = silent.take() {
                let late = late_messages(read, inbox, &tasks.in_flight());
                // Done before the next request, which may bring one of these messages again.
                let _ = timeout(AFTER_LATE, self.tell_late(&late)).await;
            }
            // A message that can't be read may break the connection for the first time, or
            // repeatedly.
            if was_cut || (is_in_trouble && consumer.cached_info().num_redelivered > 0) {
                self.give_up_unreadable(consumer.cached_info(), &tasks.in_flight()).await;
            }
            if let Some(max_waiting) = crowded(consumer.cached_info()) {
                if !std::mem::replace(&mut is_crowded, true) {
                    let (stream, durable) = (&self.stream, &self.durable);
                    warn!(
                        stream,
                        durable,
                        max_waiting,
                        "the consumer keeps no more requests: this worker waits until others have calls"
                    );
                }
                let pause = sleep(jittered(CROWDED_PAUSE));
                tokio::select! {
                    () = requested.cancelled() => {}
                    () = pause => {}
                }
                continue;
            }
            let (inbox, mut subscriber) = match self.subscribe().await {
                Ok(pair) => pair,
                Err(error) => {
                    debug!(%error, "could not subscribe");
                    sleep(jittered(RENEW_WAIT)).await;
                    continue;
                }
            };
            demand.forget_requests();
            let acks = Acks::start(self.js.client());
            let begun = Instant::now();
            let client = self.js.client();
            let pulling = Pulling { client, consumer, inbox, lease, acks, hand_back: &hand_back };
            let end =
                self.pull(&pulling, &mut subscriber, &mut demand, &mut tasks, requested).await;
            was_cut = matches!(end, End::Cut);
            let reason = match end {
                End::Shutdown => {
                    self.release(subscriber, &pulling.acks, &tasks.in_flight()).await;
                    break;
                }
                End::Renew(reason) => {
                    self.release(subscriber, &pulling.acks, &tasks.in_flight()).await;
                    reason
                }
                End::Cut => {
                    self.release(subscriber, &pulling.acks, &tasks.in_flight()).await;
                    "the connection was closed".to_owned()
                }
                End::Silence(read) => {
                    silent = Some((read, subscriber));
                    "no word from the server in time".to_owned()
                }
            };
            pulling.acks.doubt();
            is_in_trouble = begun.elapsed() < lease * 2 + SOON;
            is_crowded &= begun.elapsed() < SOON;
            if is_crowded {
                debug!(stream = self.stream, reason, "resubscribing to the consumer");
            } else {
                info!(stream = self.stream, reason, "resubscribing to the consumer");
            }
            sleep(jittered(RENEW_WAIT)).await;
        }
        drain(tasks, grace, hurry, &hand_back).await;
    }

    /// Ends messages that break the connection each time that they are delivered. Counts the
    /// deliveries behind them as no attempts: they were sent and never read.
    async fn give_up_unreadable(&self, consumer: &Info, in_flight: &InFlight) {
        let Found { unreadable, behind } = unreadable::find(&self.js, consumer).await;
        let mut lost = behind;
        lost.retain(|delivered| !in_flight.contains(delivered.sequence));
        futures::stream::iter(&lost)
            .for_each_concurrent(CONCURRENT_LOOKS, |delivered| {
                self.handler.delivery_was_lost(delivered)
            })
            .await;
        for Unreadable { delivered, why } in unreadable {
            let (stream, subject, sequence) =
                (&self.stream, &delivered.message.subject, delivered.sequence);
            warn!(stream, %subject, sequence, "giving up a message: its {why}");
            let ended =
                self.handler.give_up_unreadable(&delivered, why, &mut Ticket::without_slot()).await;
            if let AckKind::Ack = ended
                && let Err(error) = delete_message(
                    &self.js,
                    stream,
                    sequence,
                    "remove a message that can't be read",
                )
                .await
            {
                debug!(sequence, %error, "it could not be removed, and will be looked at again");
            }
        }
    }

    async fn tell_late(&self, late: &[Delivered]) {
        futures::stream::iter(late)
            .for_each_concurrent(CONCURRENT_LOOKS, |message| self.handler.was_late(message))
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
        self.tell(Some(format!("looking for the consumer {durable}")));
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
                        self.tell(None);
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
                self.tell(Some(format!(
                    "waiting for consumer {durable} of stream {stream}: {reason}"
                )));
                logged = Some(reason);
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(jittered(RENEW_WAIT * 4)) => {}
            }
        }
    }

    /// Reports whether the consumer exists, or why not.
    fn tell(&self, missing: Option<String>) {
        match (&self.readiness, missing) {
            (Some((health, condition)), None) => health.ready(condition),
            (Some((health, condition)), Some(reason)) => health.not_ready(condition, reason),
            (None, _) => {}
        }
    }

    async fn subscribe(&self) -> Result<(Subject, Subscriber), async_nats::Error> {
        let client = self.js.client();
        let inbox: Subject = client.new_inbox().into();
        let subscriber = client.subscribe(inbox.clone()).await?;
        Ok((inbox, subscriber))
    }

    async fn pull(
        &self,
        pulling: &Pulling<'_>,
        subscriber: &mut Subscriber,
        demand: &mut Demand,
        tasks: &mut Tasks,
        shutdown: &CancellationToken,
    ) -> End {
        let silence = pulling.silence();
        let mut silent_at = Instant::now() + silence;
        // The timer may fire at an earlier deadline and is then reset, so that no timer is created
        // for each message.
        let mut alarm = pin!(sleep_until(silent_at));
        let (client, mut connection_checks) =
            (self.js.client(), interval(pulling.connection_check()));
        connection_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = Connection::current(&client);
        let mut shutdown = pin!(shutdown.cancelled());
        loop {
            // The process was awake too late to see the deadline pass. It has passed for all that
            // has arrived since.
            if demand.is_asking() && Instant::now() > silent_at {
                return End::Silence(None);
            }
            // The first message is always requested, and handled with all the memory that it takes.
            // While another one waits for memory, no memory is free.
            let has_memory = demand.running() == 0 || self.memory.free() >= HANDLING_BYTES;
            if has_memory && let Some(batch) = demand.ask() {
                let largest = pulling.largest_message();
                let most_bytes =
                    largest.max(self.memory.budget().0 / ASKED_PART / self.max * batch);
                if let Err(error) = pulling.request(batch, most_bytes).await {
                    return End::Renew(error.to_string());
                }
                silent_at = Instant::now() + silence;
            }
            let running = demand.running();
            self.running.send_if_modified(|told| std::mem::replace(told, running) != running);
            tokio::select! {
                () = &mut shutdown => return End::Shutdown,
                count = tasks.freed() => demand.finished(count),
                () = sleep(MEMORY_PAUSE), if !has_memory => {}
                received = subscriber.next() => {
                    let mut received = Some(received);
                    // Also reads what has arrived together with it.
                    while let Some(next) = received {
                        let Some(message) = next else { return End::Renew("the subscription ended".to_owned()) };
                        if demand.is_asking() && Instant::now() > silent_at {
                            return End::Silence(Some(Box::new(message)));
                        }
                        silent_at = Instant::now() + silence;
                        match classify(&message) {
                            Event::Heartbeat => {}
                            Event::Expired(unfilled) => demand.expired(unfilled),
                            Event::Renew(reason) => return End::Renew(reason),
                            Event::Message => self.take(Delivered::of(message), pulling, demand, tasks).await,
                        }
                        received = subscriber.next().now_or_never();
                    }
                }
                _ = connection_checks.tick() => {
                    let now = Connection::current(&client);
                    if now.is_another_to_the_same_server(&connection) {
                        return End::Cut;
                    }
                    connection = now;
                }
                () = &mut alarm, if demand.is_asking() => alarm.as_mut().reset(silent_at),
            }
        }
    }

    /// Starts to handle a message, if it is not in flight here and a slot is free for it.
    async fn take(
        &self,
        delivered: Delivered,
        pulling: &Pulling<'_>,
        demand: &mut Demand,
        tasks: &mut Tasks,
    ) {
        let sequence = delivered.sequence;
        let Some(claim) = tasks.claim(sequence) else { return demand.expired(1) };
        if demand.received() {
            self.spawn(tasks, claim, delivered, pulling);
        } else {
            hand_back(&*self.handler, &pulling.acks, &delivered, 0).await;
        }
    }

    fn spawn(&self, tasks: &mut Tasks, claim: Claim, delivered: Delivered, pulling: &Pulling<'_>) {
        let (handler, lease) = (self.handler.clone(), pulling.lease);
        let (acks, hand_back_now) = (pulling.acks.clone(), pulling.hand_back.clone());
        let account = self.memory.clone();
        tasks.spawn(claim, async move |mut ticket| {
            let bytes = handling_bytes(delivered.message.length);
            let mut memory = account.try_take(bytes);
            let end = {
                let work = pin!(async {
                    if memory.is_none() {
                        memory = Some(account.take(bytes).await);
                    }
                    handler.handle(&delivered, lease, &mut ticket).await
                });
                tokio::select! {
                    held = lease::hold(&acks, &delivered, lease, work) => Some(held),
                    () = hand_back_now.cancelled() => None,
                }
            };
            match end {
                Some(held) => {
                    let settled = settle(&acks, &delivered, held, lease, ticket);
                    tokio::select! {
                        () = settled => {}
                        // The end is known and its ack is on the way, but there is no time to wait
                        // for the confirmation.
                        () = hand_back_now.cancelled() => {}
                    }
                }
                None => Box::pin(hand_back(&*handler, &acks, &delivered, ticket.repeats())).await,
            }
            // The memory is kept until the message is settled.
            drop(memory);
        });
    }

    /// Ends a subscription. What the server sent before it learned of that is handed back, rather
    /// than left to its lease.
    async fn release(&self, mut subscriber: Subscriber, acks: &Acks, in_flight: &InFlight) {
        if subscriber.drain().await.is_err() {
            return;
        }
        while let Ok(Some(message)) = timeout(RENEW_WAIT, subscriber.next()).await {
            if classify(&message) != Event::Message {
                continue;
            }
            let delivered = Delivered::of(message);
            if !in_flight.count_repeat(delivered.sequence) {
                hand_back(&*self.handler, acks, &delivered, 0).await;
            }
        }
    }
}

/// Returns how many requests may wait at a consumer, if that many do.
fn crowded(consumer: &Info) -> Option<i64> {
    let most = consumer.config.max_waiting;
    let waiting = i64::try_from(consumer.num_waiting).unwrap_or(i64::MAX);
    (most > 0 && waiting >= most).then_some(most)
}

/// What belongs to one inbox.
struct Pulling<'a> {
    client: Client,
    consumer: PullConsumer,
    inbox: Subject,
    lease: Duration,
    acks: Acks,
    hand_back: &'a CancellationToken,
}

impl Pulling<'_> {
    /// Returns the interval of heartbeats. Two of them and some delay are within the lease.
    fn heartbeat(&self) -> Duration {
        (self.lease / 4).clamp(MIN_HEARTBEAT, HEARTBEAT)
    }

    /// Returns the interval between checks whether the connection is another one.
    fn connection_check(&self) -> Duration {
        (self.lease / 8).clamp(MIN_HEARTBEAT / 2, CONNECTION_CHECK)
    }

    /// Returns the time without any message after which the request counts as lost and is sent
    /// again. It may be lost if the server restarts, its leader changes, or the consumer is
    /// recreated. The time is shorter than the lease: a process that was stopped for less still has
    /// what was delivered to it.
    fn silence(&self) -> Duration {
        self.heartbeat() * 2 + LATE.min(self.lease / 4)
    }

    /// Returns the maximum size of a message as it is delivered, with its subjects, in bytes.
    fn largest_message(&self) -> usize {
        const SUBJECTS: usize = 4 * 1024;
        self.client.max_payload() + SUBJECTS
    }

    /// Requests this many messages, of this many bytes together.
    async fn request(&self, batch: usize, most_bytes: usize) -> Result<(), async_nats::Error> {
        let config = BatchConfig {
            batch,
            max_bytes: most_bytes,
            expires: Some(PULL_EXPIRES),
            idle_heartbeat: self.heartbeat(),
            ..BatchConfig::default()
        };
        Ok(self.consumer.request_batch(config, self.inbox.clone()).await?)
    }
}

/// Waits for running tasks, and hands back what is not done in time.
async fn drain(
    mut tasks: Tasks,
    grace: Duration,
    hurry: &CancellationToken,
    hand_back: &CancellationToken,
) {
    let running = tasks.running();
    if running == 0 {
        return;
    }
    info!(running, "draining: no new calls, waiting for those that run");
    let all = async { while tasks.ended().await.is_some() {} };
    let all_ended = tokio::select! {
        ended = timeout(grace, all) => ended.is_ok(),
        () = hurry.cancelled() => false,
    };
    if !all_ended {
        warn!(running = tasks.running(), "out of time: handing back what still runs");
        hand_back.cancel();
        while tasks.ended().await.is_some() {}
    }
}

/// Ends the subscription of an inbox on which nothing arrived for too long. Returns the messages
/// that have arrived since then and are not in flight here, beginning with the one that was `read`.
/// They are late, and may be with another worker by now. A delivery of a message that is in flight
/// is no attempt.
fn late_messages(
    read: Option<Box<Message>>,
    mut inbox: Subscriber,
    in_flight: &InFlight,
) -> Vec<Delivered> {
    let mut late = Vec::new();
    let unread = std::iter::from_fn(|| inbox.next().now_or_never().flatten());
    for message in read.map(|message| *message).into_iter().chain(unread) {
        if classify(&message) == Event::Message {
            let delivered = Delivered::of(message);
            if !in_flight.count_repeat(delivered.sequence) {
                late.push(delivered);
            }
        }
    }
    late
}

/// Hands a message back, so that the next request gets it at once.
async fn hand_back(handler: &impl Handler, acks: &Acks, delivered: &Delivered, repeats: u64) {
    // Another worker may have the message, and would lose it by this.
    if !delivered.was_renewed() {
        return;
    }
    // The time is bounded: whatever this does, it must not keep the message.
    let _ = timeout(BEFORE_HAND_BACK, handler.before_hand_back(delivered, repeats)).await;
    if let Err(error) = acks.send(delivered, AckKind::Nak(None)).await {
        debug!(%error, "could not hand a message back; it is delivered again after the lease");
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
