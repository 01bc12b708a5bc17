//! Decides whether a submission stores a call, repeats one, or uses the key of another. A pure
//! function of how the client names the call, what the server answers to its message, and which
//! message is found.
//!
//! A single server checks the subject of a message before its message id, and a cluster does the
//! opposite. So for each way of naming a call, a repeat may be refused or recognised as a
//! duplicate. Both mean the same.

use crate::call_id::CallId;

/// How a client names a call, so that its repeats are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Not at all: the id was generated. There is no guard.
    Generated,
    /// By a call id, which several calls with different content may share.
    Id,
    /// By a key, from which the call's id is derived.
    Key,
    /// By both: the key distinguishes repeats from other calls with the id.
    IdAndKey,
}

/// A submission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission<'a> {
    pub(super) naming: Naming,
    pub(super) message_id: &'a str,
    pub(super) digest: &'a str,
}

/// The server's answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishReply {
    /// The message is stored.
    Stored,
    /// A message with its message id was stored within the duplicate window, at this sequence.
    Duplicate(u64),
    /// The guard refused the message: a call of the function with this id is pending.
    Refused,
    /// A message with its message id or on its subject is just being stored.
    InProcess,
}

/// Where to find the conflicting message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageLocation {
    /// The newest message of the function and the call id.
    Newest,
    /// The message at this sequence, which has the same message id.
    Sequence(u64),
}

/// The next step after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The call is stored.
    Stored,
    /// The call was stored before.
    Duplicate,
    /// The conflicting message decides. Its call may have ended.
    Read(MessageLocation),
    /// Publish the message again after a short pause.
    Pause,
}

/// The message that conflicts with a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredMessage {
    /// The call's id. It differs from that of the submission if the same key was sent with another
    /// id.
    pub(super) call_id: CallId,
    /// The message id, if the message has one.
    pub(super) message_id: Option<String>,
    /// The digest of the content; `None` if it can't be read.
    pub(super) digest: Option<String>,
}

/// What the conflicting message, or its absence, means for a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// The submission repeats the call with this id. `None`: the call with its own id, which has
    /// ended.
    Duplicate(Option<CallId>),
    /// The key belongs to a call with other content.
    KeyReused,
    /// The submission is another call with the same id: publish it without the guard. Its message
    /// id protects against a repeat at the same time.
    PublishUnguarded,
}

/// Returns the next step after the answer to a message.
pub(super) fn after_publish(naming: Naming, reply: PublishReply) -> NextStep {
    match (naming, reply) {
        (_, PublishReply::Stored) => NextStep::Stored,
        (_, PublishReply::InProcess) => NextStep::Pause,
        // The message id contains id and content.
        (Naming::Generated | Naming::Id, PublishReply::Duplicate(_)) => NextStep::Duplicate,
        // The message id contains the key. Calls that share the id do not matter.
        (Naming::IdAndKey, PublishReply::Duplicate(sequence)) => {
            NextStep::Read(MessageLocation::Sequence(sequence))
        }
        (Naming::Key, PublishReply::Duplicate(_)) | (_, PublishReply::Refused) => {
            NextStep::Read(MessageLocation::Newest)
        }
    }
}

/// Returns the conclusion on the message at a location; `None`: there is no message any more.
pub(super) fn after_read(
    submission: Submission<'_>,
    location: MessageLocation,
    found: Option<StoredMessage>,
) -> Conclusion {
    let has_message_id =
        |found: &StoredMessage| found.message_id.as_deref() == Some(submission.message_id);
    let has_digest = |found: &StoredMessage| found.digest.as_deref() == Some(submission.digest);
    match (submission.naming, location, found) {
        // A call with the key. A call that has ended is not compared.
        (Naming::Key, _, None) | (Naming::IdAndKey, MessageLocation::Sequence(_), None) => {
            Conclusion::Duplicate(None)
        }
        (Naming::Key, _, Some(found))
        | (Naming::IdAndKey, MessageLocation::Sequence(_), Some(found)) => {
            compare(found, has_digest)
        }
        (Naming::IdAndKey, MessageLocation::Newest, Some(found)) if has_message_id(&found) => {
            compare(found, has_digest)
        }
        (Naming::Id, _, Some(found)) if has_digest(&found) => {
            Conclusion::Duplicate(Some(found.call_id))
        }
        (Naming::IdAndKey | Naming::Id | Naming::Generated, _, _) => Conclusion::PublishUnguarded,
    }
}

/// Returns the conclusion on a call with the same key.
fn compare(found: StoredMessage, is_same: impl Fn(&StoredMessage) -> bool) -> Conclusion {
    if is_same(&found) { Conclusion::Duplicate(Some(found.call_id)) } else { Conclusion::KeyReused }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE_ID: &str = "k.1";
    const DIGEST: &str = "content";
    const NAMINGS: [Naming; 4] = [Naming::Generated, Naming::Id, Naming::Key, Naming::IdAndKey];

    fn found(message_id: Option<&str>, digest: Option<&str>) -> StoredMessage {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (message_id, digest) = (text(message_id), text(digest));
        StoredMessage { call_id: "first".parse().unwrap(), message_id, digest }
    }

    fn conclusion(
        naming: Naming,
        location: MessageLocation,
        found: Option<StoredMessage>,
    ) -> Conclusion {
        after_read(Submission { naming, message_id: MESSAGE_ID, digest: DIGEST }, location, found)
    }

    #[test]
    fn stored_reply_is_final_with_any_message_id() {
        for naming in NAMINGS {
            assert_eq!(after_publish(naming, PublishReply::Stored), NextStep::Stored);
            assert_eq!(after_publish(naming, PublishReply::InProcess), NextStep::Pause);
        }
    }

    #[test]
    fn a_duplicate_is_read_if_its_message_id_names_a_key() {
        let next = |naming| after_publish(naming, PublishReply::Duplicate(7));
        assert_eq!(next(Naming::Generated), NextStep::Duplicate);
        assert_eq!(next(Naming::Id), NextStep::Duplicate);
        assert_eq!(next(Naming::Key), NextStep::Read(MessageLocation::Newest));
        assert_eq!(next(Naming::IdAndKey), NextStep::Read(MessageLocation::Sequence(7)));
    }

    #[test]
    fn conflicting_message_is_read() {
        for naming in NAMINGS {
            assert_eq!(
                after_publish(naming, PublishReply::Refused),
                NextStep::Read(MessageLocation::Newest)
            );
        }
    }

    #[test]
    fn a_key_alone_is_compared_with_its_call_or_has_ended() {
        let duplicate = Conclusion::Duplicate(Some("first".parse().unwrap()));
        for location in [MessageLocation::Newest, MessageLocation::Sequence(7)] {
            let conclusion = |found| conclusion(Naming::Key, location, found);
            // Compared by content, also if a replay changed the message id.
            assert_eq!(conclusion(Some(found(None, Some(DIGEST)))), duplicate);
            assert_eq!(
                conclusion(Some(found(Some(MESSAGE_ID), Some("other")))),
                Conclusion::KeyReused
            );
            assert_eq!(conclusion(Some(found(Some(MESSAGE_ID), None))), Conclusion::KeyReused);
            assert_eq!(conclusion(None), Conclusion::Duplicate(None));
        }
    }

    #[test]
    fn an_id_alone_repeats_what_has_the_same_content() {
        let duplicate = Conclusion::Duplicate(Some("first".parse().unwrap()));
        let conclusion = |found| conclusion(Naming::Id, MessageLocation::Newest, found);
        assert_eq!(conclusion(Some(found(Some("first.replay.1"), Some(DIGEST)))), duplicate);
        for other in [Some(found(Some(MESSAGE_ID), Some("other"))), Some(found(None, None)), None] {
            assert_eq!(conclusion(other), Conclusion::PublishUnguarded);
        }
    }

    #[test]
    fn a_key_with_an_id_is_compared_with_a_call_that_has_the_key() {
        let duplicate = Conclusion::Duplicate(Some("first".parse().unwrap()));
        let newest = |found| conclusion(Naming::IdAndKey, MessageLocation::Newest, found);
        assert_eq!(newest(Some(found(Some(MESSAGE_ID), Some(DIGEST)))), duplicate);
        assert_eq!(newest(Some(found(Some(MESSAGE_ID), Some("other")))), Conclusion::KeyReused);
        // Another call with the id, even with the same content; or the pending call has ended.
        for other in [Some(found(Some("k.2"), Some(DIGEST))), Some(found(None, Some(DIGEST))), None]
        {
            assert_eq!(newest(other), Conclusion::PublishUnguarded);
        }
        // The server answers that it has the key.
        let same_key = |found| conclusion(Naming::IdAndKey, MessageLocation::Sequence(7), found);
        assert_eq!(same_key(Some(found(None, Some(DIGEST)))), duplicate);
        assert_eq!(same_key(Some(found(Some(MESSAGE_ID), Some("other")))), Conclusion::KeyReused);
        assert_eq!(same_key(None), Conclusion::Duplicate(None));
    }
}
