//! Stores an invocation on its queue's stream.
//!
//! A client that repeats a submission stores one call, if it names the call by an id or by an
//! idempotency key: `decide` defines a repeat. Several calls may share an id.
//!
//! The [crate's documentation](crate#calls-from-other-programs) has an example.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap as NatsHeaders,
    connection::State,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        self, Context,
        context::{PublishError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
    },
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{
    call_id::CallId,
    directory::QueueRoute,
    error::find_cause,
    idempotency::IdempotencyKey,
    invocation::Invocation,
    jetstream::{last_message, message_at},
    lanes::LaneEnsurer,
    message::{
        digest::{digest, message_id},
        native,
    },
    publish_failure::{CONFLICT_RETRY_DELAY, PublishFailure, SizeLimit},
    reserve,
    subject::call_subject,
};

pub use self::batch::{BatchError, BatchOutcome, NewBatch};

use self::decide::{
    Conclusion, MessageLocation, Naming, NextStep, PublishReply, StoredMessage, Submission,
    after_publish, after_read,
};

mod batch;
mod decide;

/// The outcome of a submission whose call is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// The call is stored now.
    Stored,
    /// The call was stored before, and is pending or ended within the duplicate window: nothing was
    /// stored.
    Duplicate {
        /// The id of the stored call. It differs from that of the invocation if the client sent its
        /// key with another id.
        of: CallId,
    },
}

/// A submission whose call is stored, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Whether the call was stored now.
    pub outcome: SubmitOutcome,
    /// The sequence of the call on its queue's stream; `None` for a repeat of a call that is
    /// not stored any more.
    pub sequence: Option<u64>,
}

/// How the client of a call names it.
#[derive(Clone, Copy, Debug)]
pub enum ClientNaming<'a> {
    /// Not at all: the id was generated, as [`Submitter::submit_generated`] says.
    Generated,
    /// By a call id, as [`Submitter::submit`] says.
    Id,
    /// By a key, as [`Submitter::submit_with_key`] says.
    Key(&'a IdempotencyKey),
}

/// An invocation is not stored. After [`SubmitError::Unavailable`] it may be stored: a repeat with
/// the same call id is safe.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Body and headers exceed the limit of the server.
    #[error("the call is larger than NATS takes: at most {limit} bytes with its headers")]
    TooLarge {
        /// The server's limit in bytes.
        limit: usize,
    },
    /// Body and headers exceed the limit of the stream for one message.
    #[error(
        "the call is larger than the queue's stream takes: its max_msg_size counts body and headers"
    )]
    TooLargeForStream,
    /// The headers exceed the limit for a message of a stream.
    #[error(
        "the headers of the call are larger than 64 KiB, escapes included, which is the most that \
         NATS stores"
    )]
    HeadersTooLarge,
    /// The stream has reached its maximum number of messages or bytes.
    #[error("the queue is full: {reason}")]
    QueueFull {
        /// The server's error message.
        reason: String,
    },
    /// Another call of its function has the key, and is pending or ended within the duplicate
    /// window.
    #[error(
        "Idempotency-Key `{key}` belongs to another call of this function: method, path, query, \
         X-Callback-Url or body differ"
    )]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
    },
    /// No stream listens on the subject.
    #[error("no stream stores calls of this queue: is there an AsyncQueue for it?")]
    NoStream,
    /// NATS is unavailable or does not answer.
    #[error("NATS is not available: {reason}")]
    Unavailable {
        /// Why NATS counts as unavailable.
        reason: String,
    },
}

/// Stores invocations and waits until they are stored. Clones share the connection. One submitter
/// serves as many concurrent calls as the `max_ack_inflight` of its context allows.
#[derive(Clone, Debug)]
pub struct Submitter {
    js: Context,
    timeout: Duration,
    is_releasing: Arc<AtomicBool>,
    lanes: LaneEnsurer,
}

// === impl SubmitError ===

impl SubmitError {
    /// All values of [`category`](Self::category).
    pub const CATEGORIES: [&str; 5] =
        ["too_large", "queue_full", "key_reused", "no_stream", "unavailable"];

    /// Returns the label value for metrics.
    #[doc(hidden)]
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooLargeForStream | Self::HeadersTooLarge => "too_large",
            Self::QueueFull { .. } => "queue_full",
            Self::KeyReused { .. } => "key_reused",
            Self::NoStream => "no_stream",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

// === impl Submitter ===

impl Submitter {
    /// Creates a submitter that fails after `timeout` without the server's answer.
    #[must_use]
    pub fn new(js: Context, timeout: Duration) -> Self {
        let lanes = LaneEnsurer::new(js.clone());
        Self { js, timeout, is_releasing: Arc::default(), lanes }
    }

    /// Stores an invocation with an id that its client chose, where `route` says, and returns when
    /// the stream has stored it.
    ///
    /// If the queue takes turns between its functions, the function's lane is ensured in the
    /// background: a program that ends soon is to call [`Submitter::wait_for_lanes`] before.
    ///
    /// A repeat while the call is pending or within the duplicate window stores nothing. A repeat
    /// has the same function, method, path, query, callback URL and body. Other invocations with
    /// the id are separate calls. A repeat is compared with the newest call of the function and the
    /// id, and with all within the window.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use asyncqueue::{FunctionName, Invocation, directory::QueueRoute, submit::Submitter};
    ///
    /// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
    /// # let js = asyncqueue::async_nats::jetstream::new(client);
    /// let submitter = Submitter::new(js, Duration::from_secs(5));
    /// let function = FunctionName::parse("figlet", "openfaas-fn")?;
    /// let call = Invocation::new("order-7".parse()?, function, "hi");
    /// // The directory has the routes of all functions; this queue has default names.
    /// let route = QueueRoute::with_default_names("slow-queue".parse()?);
    /// submitter.submit(&call, &route).await?;
    /// submitter.submit(&call, &route).await?; // a repeat: stores nothing
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SubmitError::Unavailable`] is the only error after which the call may be stored: repeat
    /// the submission with the same id. After [`SubmitError::QueueFull`] it is not stored, and a
    /// repeat may succeed later.
    pub async fn submit(
        &self,
        invocation: &Invocation,
        route: &QueueRoute,
    ) -> Result<SubmitOutcome, SubmitError> {
        let stored = self.store_with_timeout(invocation, route, Naming::Id, None).await;
        stored.map(|stored| stored.outcome)
    }

    /// Stores an invocation as one of the other methods does, and returns where it is stored.
    ///
    /// # Errors
    ///
    /// Those of the other methods.
    pub async fn submit_named(
        &self,
        invocation: Invocation,
        naming: ClientNaming<'_>,
        route: &QueueRoute,
    ) -> Result<Submitted, SubmitError> {
        match naming {
            ClientNaming::Generated => self.store_generated(invocation, route).await,
            ClientNaming::Id => self.store_with_timeout(&invocation, route, Naming::Id, None).await,
            ClientNaming::Key(key) => {
                let naming = naming_of_key(&invocation, key);
                self.store_with_timeout(&invocation, route, naming, Some(key)).await
            }
        }
    }

    /// Stores an invocation whose client sent an idempotency key, as [`Submitter::submit`] does. If
    /// the client sent no call id, the invocation has that of the key: [`IdempotencyKey::call_id`].
    /// An invocation with the same function and key is a repeat.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use asyncqueue::{
    ///     FunctionName, IdempotencyKey, Invocation, directory::QueueRoute, submit::Submitter,
    /// };
    ///
    /// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
    /// # let js = asyncqueue::async_nats::jetstream::new(client);
    /// let submitter = Submitter::new(js, Duration::from_secs(5));
    /// let route = QueueRoute::with_default_names("slow-queue".parse()?);
    /// let function = FunctionName::parse("figlet", "openfaas-fn")?;
    /// let key: IdempotencyKey = "payment 2026-11-29/17".parse()?;
    /// let call = Invocation::new(key.call_id(&route.queue, &function), function, "hi");
    /// submitter.submit_with_key(&call, &key, &route).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Submitter::submit`], and [`SubmitError::KeyReused`] if a call with the key
    /// has other content.
    pub async fn submit_with_key(
        &self,
        invocation: &Invocation,
        key: &IdempotencyKey,
        route: &QueueRoute,
    ) -> Result<SubmitOutcome, SubmitError> {
        let naming = naming_of_key(invocation, key);
        let stored = self.store_with_timeout(invocation, route, naming, Some(key)).await;
        stored.map(|stored| stored.outcome)
    }

    /// Stores an invocation with a generated id ([`CallId::generate`]), which no other call has, as
    /// [`Submitter::submit`] does. The server does not have to search for the id, and the
    /// invocation is dropped as soon as it is sent.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use asyncqueue::{
    ///     CallId, FunctionName, Invocation, directory::QueueRoute, submit::Submitter,
    /// };
    ///
    /// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
    /// # let js = asyncqueue::async_nats::jetstream::new(client);
    /// let submitter = Submitter::new(js, Duration::from_secs(5));
    /// let route = QueueRoute::with_default_names("slow-queue".parse()?);
    /// let function = FunctionName::parse("figlet", "openfaas-fn")?;
    /// let call = Invocation::new(CallId::generate(&route.queue), function, "hi");
    /// submitter.submit_generated(call, &route).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Submitter::submit`].
    pub async fn submit_generated(
        &self,
        invocation: Invocation,
        route: &QueueRoute,
    ) -> Result<SubmitOutcome, SubmitError> {
        self.store_generated(invocation, route).await.map(|stored| stored.outcome)
    }

    async fn store_generated(
        &self,
        invocation: Invocation,
        route: &QueueRoute,
    ) -> Result<Submitted, SubmitError> {
        self.check_connected()?;
        let (call_id, function) = (invocation.call_id.clone(), invocation.function.clone());
        let (subject, headers, body) = message(invocation, &route.subject);
        let publish = timeout(self.timeout, self.publish(subject, headers, body));
        let (reply, sequence) = publish.await.unwrap_or_else(|_| Err(self.no_reply()))?;
        self.lanes.ensure_in_background(route, &function);
        match after_publish(Naming::Generated, reply) {
            NextStep::Stored => Ok(Submitted { outcome: SubmitOutcome::Stored, sequence }),
            NextStep::Duplicate => {
                Ok(Submitted { outcome: SubmitOutcome::Duplicate { of: call_id }, sequence })
            }
            // A server does not answer so to a message without a guard that is sent once.
            NextStep::Read(_) | NextStep::Pause => Err(SubmitError::Unavailable {
                reason: "a call with its id is just being stored".to_owned(),
            }),
        }
    }

    /// Waits until the functions of the calls that were stored have their lanes, or until that
    /// failed. Without it, the calls of a program that ends may wait for up to 30 seconds longer.
    pub async fn wait_for_lanes(&self) {
        self.lanes.wait().await;
    }

    /// Stores an invocation as [`Submitter::store`] does, with a timeout, and ensures its lane.
    async fn store_with_timeout(
        &self,
        invocation: &Invocation,
        route: &QueueRoute,
        naming: Naming,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submitted, SubmitError> {
        self.check_connected()?;
        // Boxed, because the future is large: a future for calls of either kind has room for both.
        let store = Box::pin(self.store(invocation, &route.subject, naming, key));
        let stored = timeout(self.timeout, store).await;
        let stored = stored.unwrap_or_else(|_| Err(self.no_reply()))?;
        self.lanes.ensure_in_background(route, &invocation.function);
        Ok(stored)
    }

    /// Publishes an invocation. If the server does not store it, finds out whether it repeats a
    /// call.
    async fn store(
        &self,
        invocation: &Invocation,
        subject: &str,
        naming: Naming,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submitted, SubmitError> {
        let message_id = match key {
            Some(_) if naming == Naming::Key => invocation.call_id.to_string(),
            Some(key) => key.message_id(&invocation.function),
            None => message_id(invocation),
        };
        let subject = call_subject(subject, &invocation.function, &invocation.call_id);
        let unguarded = native::encode_as(invocation, message_id.clone());
        let mut headers = unguarded.clone();
        // The guard: the subject has no message, so no call of the function with this id is
        // pending.
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        loop {
            let (reply, sequence) =
                self.publish(subject.clone(), headers.clone(), invocation.body.clone()).await?;
            let location = match after_publish(naming, reply) {
                NextStep::Stored => {
                    return Ok(Submitted { outcome: SubmitOutcome::Stored, sequence });
                }
                NextStep::Duplicate => {
                    let outcome = SubmitOutcome::Duplicate { of: invocation.call_id.clone() };
                    return Ok(Submitted { outcome, sequence });
                }
                NextStep::Read(location) => location,
                NextStep::Pause => {
                    sleep(CONFLICT_RETRY_DELAY).await;
                    continue;
                }
            };
            let found =
                self.read(&subject, location).await.map_err(|error| unavailable(&*error))?;
            let (found, sequence) = found.unzip();
            let submission =
                Submission { naming, message_id: &message_id, digest: &digest(invocation) };
            match (after_read(submission, location, found), key) {
                (Conclusion::Duplicate(of), _) => {
                    let of = of.unwrap_or_else(|| invocation.call_id.clone());
                    let outcome = SubmitOutcome::Duplicate { of };
                    return Ok(Submitted { outcome, sequence });
                }
                (Conclusion::KeyReused, Some(key)) => {
                    return Err(SubmitError::KeyReused { key: key.clone() });
                }
                (Conclusion::KeyReused | Conclusion::PublishUnguarded, _) => {
                    headers.clone_from(&unguarded);
                }
            }
        }
    }

    /// Publishes a message and waits for the server's answer, which may say at which sequence the
    /// message is stored.
    async fn publish(
        &self,
        subject: String,
        headers: NatsHeaders,
        body: Bytes,
    ) -> Result<(PublishReply, Option<u64>), SubmitError> {
        let message = PublishMessage::build().headers(headers).payload(body);
        let ack = async { self.js.send_publish(subject, message).await?.await };
        match ack.await {
            Ok(ack) if ack.duplicate => {
                Ok((PublishReply::Duplicate(ack.sequence), Some(ack.sequence)))
            }
            Ok(ack) => Ok((PublishReply::Stored, Some(ack.sequence))),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                Ok((PublishReply::Refused, None))
            }
            Err(error) if PublishFailure::from_error(&error).is_conflict_or_in_process() => {
                Ok((PublishReply::InProcess, None))
            }
            Err(error) => {
                if PublishFailure::from_error(&error) == PublishFailure::NoSpace {
                    self.release_reserve();
                }
                Err(self.classify(&error))
            }
        }
    }

    /// Releases the reserve for what ends calls, in the background and one release at a time. In a
    /// cluster whose servers are full, nothing is delivered, so no worker would do it.
    fn release_reserve(&self) {
        if self.is_releasing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (js, is_releasing) = (self.js.clone(), self.is_releasing.clone());
        tokio::spawn(async move {
            // The program that keeps the reserve full releases what remains.
            let _ = reserve::release(&js).await;
            is_releasing.store(false, Ordering::Release);
        });
    }

    /// Returns the message of a call on its subject, or at a sequence of the stream that listens
    /// there, with its sequence; `None` if it is not there any more.
    async fn read(
        &self,
        subject: &str,
        location: MessageLocation,
    ) -> Result<Option<(StoredMessage, u64)>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = self.js.stream_by_subject(subject).await?;
        let message = match location {
            MessageLocation::Newest => last_message(&self.js, &stream, subject).await?,
            MessageLocation::Sequence(sequence) => message_at(&self.js, &stream, sequence).await?,
        };
        Ok(message.and_then(|message| Some((stored_message(&message)?, message.sequence))))
    }

    /// Fails if NATS is known to be unavailable: an answer now is better than one after the
    /// timeout.
    fn check_connected(&self) -> Result<(), SubmitError> {
        match self.js.client().connection_state() {
            State::Connected => Ok(()),
            _ => Err(SubmitError::Unavailable { reason: "not connected".to_owned() }),
        }
    }

    fn no_reply(&self) -> SubmitError {
        let reason = format!("no answer in {}", crate::GoDuration(self.timeout));
        SubmitError::Unavailable { reason }
    }

    fn too_large(&self, limit: SizeLimit) -> SubmitError {
        match limit {
            SizeLimit::MaxPayload => {
                SubmitError::TooLarge { limit: self.js.client().max_payload() }
            }
            SizeLimit::MaxMsgSize => SubmitError::TooLargeForStream,
            SizeLimit::Headers => SubmitError::HeadersTooLarge,
        }
    }

    fn classify(&self, error: &PublishError) -> SubmitError {
        let reason = || {
            find_cause::<jetstream::Error>(error)
                .map_or_else(|| error.to_string(), ToString::to_string)
        };
        match PublishFailure::from_error(error) {
            PublishFailure::TooLarge(limit) => self.too_large(limit),
            // Limits of the stream, or of the account and the server that it is on.
            PublishFailure::StreamFull | PublishFailure::NoSpace => {
                SubmitError::QueueFull { reason: reason() }
            }
            PublishFailure::NoStream => SubmitError::NoStream,
            PublishFailure::Conflict | PublishFailure::InProcess | PublishFailure::Unavailable => {
                SubmitError::Unavailable { reason: reason() }
            }
        }
    }
}

/// Returns how a client that sent a key names its call.
fn naming_of_key(invocation: &Invocation, key: &IdempotencyKey) -> Naming {
    let has_id_of_key = key.is_id(&invocation.function, &invocation.call_id);
    if has_id_of_key { Naming::Key } else { Naming::IdAndKey }
}

/// Reads what a message says of its call.
fn stored_message(message: &StreamMessage) -> Option<StoredMessage> {
    let call_id = message.subject.rsplit('.').next()?.parse().ok()?;
    let call = native::decode(&message.headers, message.payload.clone());
    Some(StoredMessage {
        call_id,
        message_id: native::message_id(&message.headers).map(str::to_owned),
        digest: call.ok().map(|call| digest(&call)),
    })
}

fn unavailable(error: &dyn std::error::Error) -> SubmitError {
    SubmitError::Unavailable { reason: error.to_string() }
}

/// Converts an invocation to its message: subject, headers and payload. Consumes the invocation.
fn message(invocation: Invocation, subject: &str) -> (String, NatsHeaders, Bytes) {
    let subject = call_subject(subject, &invocation.function, &invocation.call_id);
    (subject, native::encode(&invocation), invocation.body)
}
