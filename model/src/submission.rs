//! How calls get onto the stream: submissions with an id or a key of the client, which are repeated
//! when their answers are lost.

use stateright::{Model, Property};

use crate::{guard::Guard, rule::Rule};

/// Maximum number of messages that a search stores.
const MESSAGES: usize = 6;
/// Maximum number of requests in a search.
const REQUESTS: usize = 3;

/// What a client sends. All requests are for one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// `X-Call-Id`.
    pub id: Option<u8>,
    /// `Idempotency-Key`.
    pub key: Option<u8>,
    /// The body.
    pub content: u8,
}

/// The bounds of one search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The requests of clients: at most three.
    pub requests: Vec<Request>,
    /// Answers that are lost, so that the client sends its request again.
    pub lost_answers: u8,
    /// How often the duplicate window passes.
    pub windows: u8,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// The state of the stream and of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    messages: [Option<Stored>; MESSAGES],
    steps: [Progress; REQUESTS],
    lost_answers: u8,
    windows: u8,
    stored_twice: bool,
    lost: bool,
    refused: bool,
}

/// A message that is, or was, on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    request: Request,
    call_id: CallId,
    message_id: Option<MessageId>,
    is_pending: bool,
    is_in_window: bool,
}

/// The id of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CallId {
    Client(u8),
    OfKey(u8),
    Generated(usize),
}

/// The message id of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MessageId {
    OfKey(u8),
    OfIdAndDigest(u8, u8),
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Progress {
    /// It must be published for the first time.
    #[default]
    New,
    /// The stream has refused it or reports a duplicate: the newest message must be read.
    Compare {
        /// Whether the message id was known.
        is_duplicate: bool,
    },
    /// It must be published without the expectation.
    Again,
    /// Answered with 202.
    Accepted,
    /// Answered with 422 or 409.
    Refused,
}

/// One step. Requests are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubmissionStep {
    /// The gateway publishes. Some servers of a cluster compare message ids first, others subjects.
    Publish {
        /// The request.
        request: usize,
        /// Whether the subject is compared first.
        is_subject_first: bool,
    },
    /// The gateway reads the newest message with the id and compares.
    Compare(usize),
    /// A call ends.
    End(usize),
    /// Fault: an answer is lost, and the client sends the request again.
    LoseAnswer(usize),
    /// Fault: the duplicate window passes.
    PassWindow,
}

// === impl Request ===

impl Request {
    fn call_id(self, number: usize) -> CallId {
        match (self.id, self.key) {
            (Some(id), _) => CallId::Client(id),
            (None, Some(key)) => CallId::OfKey(key),
            (None, None) => CallId::Generated(number),
        }
    }

    fn message_id(self) -> Option<MessageId> {
        match (self.id, self.key) {
            (_, Some(key)) => Some(MessageId::OfKey(key)),
            (Some(id), None) => Some(MessageId::OfIdAndDigest(id, self.content)),
            (None, None) => None,
        }
    }

    /// Returns whether another request may be a repeat of this one.
    fn is_repeat_of(self, other: Self) -> bool {
        match (self.key, other.key) {
            (Some(key), Some(other)) => key == other,
            (None, None) => self.id.is_some() && self == other,
            _ => false,
        }
    }
}

// === impl Submission ===

impl Submission {
    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn publish(&self, stream: &mut Stream, number: usize, is_subject_first: bool) -> Option<()> {
        let request = *self.requests.get(number)?;
        let is_new = match stream.steps[number] {
            Progress::New => true,
            Progress::Again => false,
            _ => return None,
        };
        let (call_id, message_id) = (request.call_id(number), request.message_id());
        let is_expecting = is_new && message_id.is_some() && self.has(Guard::SubmitExpectsNone);
        let is_taken = is_expecting && stream.newest(call_id).is_some();
        let is_duplicate = self.has(Guard::SubmitMessageId) && stream.remembers(message_id);
        stream.steps[number] = match (is_taken, is_duplicate) {
            (true, true) => Progress::Compare { is_duplicate: !is_subject_first },
            (true, false) => Progress::Compare { is_duplicate: false },
            (false, true) => Progress::Compare { is_duplicate: true },
            (false, false) => {
                stream.store(request, call_id, message_id, is_new)?;
                Progress::Accepted
            }
        };
        Some(())
    }

    fn compare(&self, stream: &mut Stream, number: usize) -> Option<()> {
        let request = *self.requests.get(number)?;
        let Progress::Compare { is_duplicate } = stream.steps[number] else { return None };
        let newest = stream.newest(request.call_id(number)).map(|newest| newest.request);
        let is_by_key = request.key.is_some()
            && (is_duplicate
                || request.id.is_none()
                || newest.is_some_and(|newest| newest.key == request.key));
        let is_same = newest.map(|newest| newest.content == request.content);
        stream.steps[number] = if !self.has(Guard::SubmitComparesDigest) {
            Progress::Accepted
        } else if is_by_key {
            if is_same == Some(false) { Progress::Refused } else { Progress::Accepted }
        } else if is_duplicate || (is_same == Some(true) && newest == Some(request)) {
            Progress::Accepted
        } else if self.has(Guard::SubmitSharesId) {
            Progress::Again
        } else {
            Progress::Refused
        };
        stream.judge(request, stream.steps[number]);
        Some(())
    }
}

// === impl Stream ===

impl Stream {
    /// Returns the newest message of a call id on the stream.
    fn newest(&self, call_id: CallId) -> Option<Stored> {
        self.messages
            .iter()
            .flatten()
            .rfind(|message| message.call_id == call_id && message.is_pending)
            .copied()
    }

    fn remembers(&self, id: Option<MessageId>) -> bool {
        let mut messages = self.messages.iter().flatten();
        id.is_some() && messages.any(|message| message.message_id == id && message.is_in_window)
    }

    fn store(
        &mut self,
        request: Request,
        call_id: CallId,
        message_id: Option<MessageId>,
        is_new: bool,
    ) -> Option<()> {
        // Only the newest call of an id is compared, once, and the messages within the window.
        let newest = if is_new { self.newest(call_id) } else { None };
        self.stored_twice |= self.messages.iter().flatten().any(|message| {
            request.is_repeat_of(message.request)
                && (message.is_in_window || newest == Some(*message))
        });
        let free = self.messages.iter().position(Option::is_none)?;
        let stored = Stored { request, call_id, message_id, is_pending: true, is_in_window: true };
        self.messages[free] = Some(stored);
        Some(())
    }

    /// Checks an answer against the rules.
    fn judge(&mut self, request: Request, answer: Progress) {
        let mut messages = self.messages.iter().flatten();
        match answer {
            // A key identifies one request: another request with it is a mistake of the client.
            Progress::Accepted if request.key.is_none() => {
                self.lost |= !messages.any(|message| message.request == request);
            }
            Progress::Refused if request.key.is_none() => self.refused = true,
            Progress::Accepted => {
                self.lost |= !messages.any(|message| request.is_repeat_of(message.request));
            }
            _ => {}
        }
    }
}

impl Model for Submission {
    type State = Stream;
    type Action = SubmissionStep;

    fn init_states(&self) -> Vec<Stream> {
        vec![Stream {
            messages: [None; MESSAGES],
            steps: [Progress::New; REQUESTS],
            lost_answers: self.lost_answers,
            windows: self.windows,
            stored_twice: false,
            lost: false,
            refused: false,
        }]
    }

    fn actions(&self, _: &Stream, actions: &mut Vec<SubmissionStep>) {
        for request in 0..self.requests.len() {
            let publish = |is_subject_first| SubmissionStep::Publish { request, is_subject_first };
            actions.extend([publish(true), publish(false)]);
            actions.extend([SubmissionStep::Compare(request), SubmissionStep::LoseAnswer(request)]);
        }
        actions.extend((0..MESSAGES).map(SubmissionStep::End));
        actions.push(SubmissionStep::PassWindow);
    }

    fn next_state(&self, stream: &Stream, step: SubmissionStep) -> Option<Stream> {
        let mut next = *stream;
        match step {
            SubmissionStep::Publish { request, is_subject_first } => {
                self.publish(&mut next, request, is_subject_first)?;
            }
            SubmissionStep::Compare(request) => self.compare(&mut next, request)?,
            SubmissionStep::End(number) => {
                let message =
                    next.messages[number].as_mut().filter(|message| message.is_pending)?;
                message.is_pending = false;
            }
            SubmissionStep::LoseAnswer(request) => {
                next.lost_answers = next.lost_answers.checked_sub(1)?;
                let step = &mut next.steps[request];
                *step = if *step == Progress::Accepted { Progress::New } else { return None };
            }
            SubmissionStep::PassWindow => {
                // A gateway gives up long before the window passes.
                let is_underway =
                    |step: &Progress| matches!(step, Progress::Compare { .. } | Progress::Again);
                if next.steps.iter().any(is_underway) {
                    return None;
                }
                next.windows = next.windows.checked_sub(1)?;
                for message in next.messages.iter_mut().flatten() {
                    message.is_in_window = false;
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(Rule::StoredOnce.name(), |_, stream: &Stream| !stream.stored_twice),
            Property::always(Rule::AcceptedIsStored.name(), |_, stream: &Stream| !stream.lost),
            Property::always(Rule::NewCallAccepted.name(), |_, stream: &Stream| !stream.refused),
        ]
    }
}
