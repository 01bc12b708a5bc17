//! Takes messages from a durable consumer, as many as there are free slots and no more.
//!
//! One inbox, one task that counts ([`demand`]), one task for each message. The requests are our own rather
//! than the client library's stream of messages, which asks ahead: what is asked for ahead sits with one
//! worker while another has nothing to do.

use std::{pin::pin, sync::Arc, time::Duration};

use async_nats::{
    Client, Message, Subject, Subscriber,
    jetstream::{
        AckKind, Context,
        consumer::{Info, PullConsumer, pull::BatchConfig},
    },
};
use asyncqueue::{connection::Connection, remove::remove};
use asyncqueue_runtime::{
    error::describe, health::Health, memory::Account, nats::jetstream::JetStreamOff, program::Shutdown,
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

/// How long a request stays open at the server. Long: an idle worker asks once in this time.
const PULL_EXPIRES: Duration = Duration::from_secs(120);

/// While a request is open and nothing comes, the server says that it lives; more often where the lease is short.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The least that nats-server takes for a heartbeat is 100 ms; this is a bit more, for a server that is busy.
const MIN_HEARTBEAT: Duration = Duration::from_millis(250);

/// What a word of the server may be late by.
const LATE: Duration = Duration::from_secs(1);

/// Between attempts to find the consumer or to ask anew, with as much again by chance, so that the workers
/// of a queue don't come all at once.
const RENEW_WAIT: Duration = Duration::from_millis(250);

/// Between looks whether a consumer keeps another request, while as many wait at it as may.
const CROWDED_PAUSE: Duration = Duration::from_secs(10);

/// What a message takes beside its own size: its task, its headers once more as they are sent on, and a connection.
const HANDLING_BYTES: usize = 28 * 1024;

/// The part of the budget, as a divisor, that the messages of a consumer may take that were asked for and have not come, or
/// wait for memory.
pub(crate) const ASKED_PART: usize = 16;

/// Between looks whether there is memory again.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// What is done before a message is handed back takes a round trip or two.
const BEFORE_HAND_BACK: Duration = Duration::from_secs(1);

/// So is what is done of messages that came too late, several at once.
const AFTER_LATE: Duration = Duration::from_secs(2);

/// Between looks whether the connection is another one, at most: what was lost with it comes again after the lease.
const CONNECTION_CHECK: Duration = Duration::from_secs(1);

/// Of how many messages at once deliveries are looked after that were lost, or came too late.
const CONCURRENT_LOOKS: usize = 32;

/// Requests that are lost so soon after a message may have come again: that message may be why.
const SOON: Duration = Duration::from_secs(30);

/// Runs what a message asks for.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What is kept of a message until it is settled.
    type Kept: Send;

    /// Handles one message under a lease that is renewed meanwhile, and says what that means for the message. May be
    /// dropped at any point: the message is handed back then.
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

    /// A delivery of a message may have been lost with the connection. Does what is to be done so that it counts as no
    /// attempt, if no worker has the message.
    fn delivery_was_lost(&self, _delivered: &Delivered) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Does what is to be done before a message is handed back unhandled, after so many deliveries of it that were
    /// ignored.
    fn before_hand_back(&self, _delivered: &Delivered, _repeats: u64) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Does what is to be done of a message that came too late to be handled.
    fn was_late(&self, _delivered: &Delivered) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A durable consumer and what its messages are for.
pub(crate) struct Puller<H> {
    pub(crate) js: Context,
    pub(crate) stream: String,
    pub(crate) durable: String,
    /// How many messages are handled at once.
    pub(crate) max: usize,
    pub(crate) handler: Arc<H>,
    /// Told how many messages are being handled, whenever that changes.
    pub(crate) running: watch::Sender<usize>,
    /// Told whether the consumer is there, as the readiness condition of this name.
    pub(crate) readiness: Option<(Health, &'static str)>,
    /// For messages and what handling them takes.
    pub(crate) memory: Account,
}

/// Why the loop over one inbox ended.
enum End {
    Shutdown,
    Renew(String),
    /// The connection is another one, to the same server: something that was delivered may have broken it.
    Cut,
    /// Nothing was heard for too long. Either the server has lost the request, or this process was stopped: what has
    /// come meanwhile may be with another worker by now, and is nobody's to touch here. With the message that was read
    /// before that was noticed.
    Silence(Option<Box<Message>>),
}

// === impl Puller ===

impl<H: Handler> Puller<H> {
    /// Pulls until `shutdown`, then gives what runs `grace` to finish and hands the rest back at once.
    pub(crate) async fn run(self, shutdown: Shutdown, grace: Duration) {
        let Shutdown { requested, hurry } = &shutdown;
        let hand_back = CancellationToken::new();
        let mut tasks = Tasks::new(self.max);
        let mut demand = Demand::new(self.max);
        // As if requests had been lost before: that may be why this program was started.
        let mut is_in_trouble = true;
        let mut was_cut = false;
        // Whether the server drops requests, which it does without a word, since too many wait at the consumer.
        let mut is_crowded = false;
        // An inbox on which nothing came for too long.
        let mut silent = None;
        while let Some((consumer, lease)) = self.find_consumer(requested).await {
            // The server has answered: what it sent before that is here.
            if let Some((read, inbox)) = silent.take() {
                let late = late_messages(read, inbox, &tasks.in_flight());
                // Before the next is asked for, which may be one of these again.
                let _ = timeout(AFTER_LATE, self.tell_late(&late)).await;
            }
            // What can't be read may break it for the first time, or again and again.
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
            let end = self.pull(&pulling, &mut subscriber, &mut demand, &mut tasks, requested).await;
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

    /// Ends what breaks the connection each time that it is delivered, and has the deliveries behind it count as no
    /// attempts: they were sent and never read.
    async fn give_up_unreadable(&self, consumer: &Info, in_flight: &InFlight) {
        let Found { unreadable, behind } = unreadable::find(&self.js, consumer).await;
        let mut lost = behind;
        lost.retain(|delivered| !in_flight.contains(delivered.sequence));
        futures::stream::iter(&lost)
            .for_each_concurrent(CONCURRENT_LOOKS, |delivered| self.handler.delivery_was_lost(delivered))
            .await;
        for Unreadable { delivered, why } in unreadable {
            let (stream, subject, sequence) = (&self.stream, &delivered.message.subject, delivered.sequence);
            warn!(stream, %subject, sequence, "giving up a message: its {why}");
            let ended = self.handler.give_up_unreadable(&delivered, why, &mut Ticket::without_slot()).await;
            if let AckKind::Ack = ended
                && let Err(error) =
                    remove(&self.js, stream, sequence, "remove a message that can't be read").await
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

    /// The consumer and its lease, waited for as long as it takes; `None` on shutdown.
    async fn find_consumer(&self, shutdown: &CancellationToken) -> Option<(PullConsumer, Duration)> {
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
            let reason = match JetStreamOff::of_error(&error) {
                // The condition `jetstream` says what to do.
                Some(_) => "JetStream is not enabled".to_owned(),
                None => describe(&error),
            };
            // It may change while it is waited for: the server is away, then without the stream, then without the consumer.
            if logged.as_ref() != Some(&reason) {
                info!(stream, durable, reason, "waiting for the stream and its consumer");
                self.tell(Some(format!("waiting for consumer {durable} of stream {stream}: {reason}")));
                logged = Some(reason);
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(jittered(RENEW_WAIT * 4)) => {}
            }
        }
    }

    /// Tells whether the consumer is there, or why not.
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
        // Waits for that, or for an earlier one, and then for that: it is not made anew for each message.
        let mut alarm = pin!(sleep_until(silent_at));
        let (client, mut connection_checks) = (self.js.client(), interval(pulling.connection_check()));
        connection_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = Connection::of(&client);
        let mut shutdown = pin!(shutdown.cancelled());
        loop {
            // Awake too late to have seen the time run out: it has, all the same, for whatever has come meanwhile.
            if demand.is_asking() && Instant::now() > silent_at {
                return End::Silence(None);
            }
            // One in any case: each is brought to its end, with whatever it takes. While another waits for memory, none is
            // free.
            let has_memory = demand.running() == 0 || self.memory.free() >= HANDLING_BYTES;
            if has_memory && let Some(batch) = demand.ask() {
                let largest = pulling.largest_message();
                let most_bytes = largest.max(self.memory.budget().0 / ASKED_PART / self.max * batch);
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
                    // With what has come together with it.
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
                    let now = Connection::of(&client);
                    if now.is_another_to_the_same_server(&connection) {
                        return End::Cut;
                    }
                    connection = now;
                }
                () = &mut alarm, if demand.is_asking() => alarm.as_mut().reset(silent_at),
            }
        }
    }

    /// Begins with a message, if nobody here has it and there is a slot for it.
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
                        // Its end is known and on its way; there is no time to hear that it arrived.
                        () = hand_back_now.cancelled() => {}
                    }
                }
                None => Box::pin(hand_back(&*handler, &acks, &delivered, ticket.repeats())).await,
            }
            // Not before the message is settled.
            drop(memory);
        });
    }

    /// Ends a subscription. What the server sent before it knew is handed back rather than left to its lease.
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

/// How many requests may wait at a consumer, if so many do.
fn crowded(consumer: &Info) -> Option<i64> {
    let most = consumer.config.max_waiting;
    let waiting = i64::try_from(consumer.num_waiting).unwrap_or(i64::MAX);
    (most > 0 && waiting >= most).then_some(most)
}

/// What goes with one inbox.
struct Pulling<'a> {
    client: Client,
    consumer: PullConsumer,
    inbox: Subject,
    lease: Duration,
    acks: Acks,
    hand_back: &'a CancellationToken,
}

impl Pulling<'_> {
    /// Often enough that two of them and some delay are within the lease.
    fn heartbeat(&self) -> Duration {
        (self.lease / 4).clamp(MIN_HEARTBEAT, HEARTBEAT)
    }

    /// Between looks whether the connection is another one.
    fn connection_check(&self) -> Duration {
        (self.lease / 8).clamp(MIN_HEARTBEAT / 2, CONNECTION_CHECK)
    }

    /// Without a word for so long, the request is taken for lost (restart of the server, change of leader, consumer made
    /// anew) and made again. Shorter than the lease: a process that was stopped for less still holds what it was sent.
    fn silence(&self) -> Duration {
        self.heartbeat() * 2 + LATE.min(self.lease / 4)
    }

    /// The most that a message takes as it is delivered, with its subjects.
    fn largest_message(&self) -> usize {
        const SUBJECTS: usize = 4 * 1024;
        self.client.max_payload() + SUBJECTS
    }

    /// Asks for so many messages, of so many bytes together.
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

/// Waits for what runs, and hands back what is not done in time.
async fn drain(mut tasks: Tasks, grace: Duration, hurry: &CancellationToken, hand_back: &CancellationToken) {
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

/// Ends a subscription after the server was silent, and returns what came since and is not in flight here, the message that
/// was `read` first. It is late, and may be with another worker by now. A delivery of what is in flight is no attempt.
fn late_messages(read: Option<Box<Message>>, mut inbox: Subscriber, in_flight: &InFlight) -> Vec<Delivered> {
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

/// Gives a message to whoever asks next, now.
async fn hand_back(handler: &impl Handler, acks: &Acks, delivered: &Delivered, repeats: u64) {
    // Another worker may have it, and would lose it by that.
    if !delivered.was_renewed() {
        return;
    }
    // In haste: whatever it is, it must not keep the message.
    let _ = timeout(BEFORE_HAND_BACK, handler.before_hand_back(delivered, repeats)).await;
    if let Err(error) = acks.send(delivered, AckKind::Nak(None)).await {
        debug!(%error, "could not hand a message back; it is delivered again after the lease");
    }
}

/// What a message of so many bytes takes while it is handled. The client of NATS reads it into a buffer that may be twice as
/// large, and which it keeps.
fn handling_bytes(length: usize) -> usize {
    length * 2 + HANDLING_BYTES
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::random::<f64>())
}
