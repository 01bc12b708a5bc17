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
pub(super) struct Asked<'a> {
    pub(super) naming: Naming,
    pub(super) message_id: &'a str,
    pub(super) digest: &'a str,
}

/// The server's answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
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
pub(super) enum Place {
    /// The newest message of the function and the call id.
    Newest,
    /// The message at this sequence, which has the same message id.
    At(u64),
}

/// The next step after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The call is stored.
    Stored,
    /// The call was stored before.
    Duplicate,
    /// The conflicting message decides. Its call may have ended.
    Read(Place),
    /// Publish the message again after a short pause.
    Pause,
}

/// The message that conflicts with a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
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
pub(super) enum Verdict {
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
pub(super) fn after_publish(naming: Naming, answer: Answer) -> Next {
    match (naming, answer) {
        (_, Answer::Stored) => Next::Stored,
        (_, Answer::InProcess) => Next::Pause,
        // The message id contains id and content.
        (Naming::Generated | Naming::Id, Answer::Duplicate(_)) => Next::Duplicate,
        // The message id contains the key. Calls that share the id do not matter.
        (Naming::IdAndKey, Answer::Duplicate(sequence)) => Next::Read(Place::At(sequence)),
        (Naming::Key, Answer::Duplicate(_)) | (_, Answer::Refused) => Next::Read(Place::Newest),
    }
}

/// Returns the verdict on the message at a place; `None`: there is no message any more.
pub(super) fn after_read(asked: Asked<'_>, place: Place, found: Option<Found>) -> Verdict {
    let has_message_id = |found: &Found| found.message_id.as_deref() == Some(asked.message_id);
    let has_digest = |found: &Found| found.digest.as_deref() == Some(asked.digest);
    match (asked.naming, place, found) {
        // A call with the key. A call that has ended is not compared.
        (Naming::Key, _, None) | (Naming::IdAndKey, Place::At(_), None) => Verdict::Duplicate(None),
        (Naming::Key, _, Some(found)) | (Naming::IdAndKey, Place::At(_), Some(found)) => {
            compare(found, has_digest)
        }
        (Naming::IdAndKey, Place::Newest, Some(found)) if has_message_id(&found) => {
            compare(found, has_digest)
        }
        (Naming::Id, _, Some(found)) if has_digest(&found) => {
            Verdict::Duplicate(Some(found.call_id))
        }
        (Naming::IdAndKey | Naming::Id | Naming::Generated, _, _) => Verdict::PublishUnguarded,
    }
}

/// Returns the verdict on a call with the same key.
fn compare(found: Found, is_same: impl Fn(&Found) -> bool) -> Verdict {
    if is_same(&found) { Verdict::Duplicate(Some(found.call_id)) } else { Verdict::KeyReused }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE_ID: &str = "k.1";
    const DIGEST: &str = "content";
    const NAMINGS: [Naming; 4] = [Naming::Generated, Naming::Id, Naming::Key, Naming::IdAndKey];

    fn found(message_id: Option<&str>, digest: Option<&str>) -> Found {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (message_id, digest) = (text(message_id), text(digest));
        Found { call_id: "first".parse().unwrap(), message_id, digest }
    }

    fn verdict(naming: Naming, place: Place, found: Option<Found>) -> Verdict {
        after_read(Asked { naming, message_id: MESSAGE_ID, digest: DIGEST }, place, found)
    }

    #[test]
    fn what_is_stored_is_stored_however_it_is_named() {
        for naming in NAMINGS {
            assert_eq!(after_publish(naming, Answer::Stored), Next::Stored);
            assert_eq!(after_publish(naming, Answer::InProcess), Next::Pause);
        }
    }

    #[test]
    fn a_duplicate_is_read_if_its_message_id_names_a_key() {
        let next = |naming| after_publish(naming, Answer::Duplicate(7));
        assert_eq!(next(Naming::Generated), Next::Duplicate);
        assert_eq!(next(Naming::Id), Next::Duplicate);
        assert_eq!(next(Naming::Key), Next::Read(Place::Newest));
        assert_eq!(next(Naming::IdAndKey), Next::Read(Place::At(7)));
    }

    #[test]
    fn what_stands_in_the_way_is_read() {
        for naming in NAMINGS {
            assert_eq!(after_publish(naming, Answer::Refused), Next::Read(Place::Newest));
        }
    }

    #[test]
    fn a_key_alone_is_compared_with_its_call_or_has_ended() {
        let duplicate = Verdict::Duplicate(Some("first".parse().unwrap()));
        for place in [Place::Newest, Place::At(7)] {
            let verdict = |found| verdict(Naming::Key, place, found);
            // Compared by content, also if a replay changed the message id.
            assert_eq!(verdict(Some(found(None, Some(DIGEST)))), duplicate);
            assert_eq!(verdict(Some(found(Some(MESSAGE_ID), Some("other")))), Verdict::KeyReused);
            assert_eq!(verdict(Some(found(Some(MESSAGE_ID), None))), Verdict::KeyReused);
            assert_eq!(verdict(None), Verdict::Duplicate(None));
        }
    }

    #[test]
    fn an_id_alone_repeats_what_has_the_same_content() {
        let duplicate = Verdict::Duplicate(Some("first".parse().unwrap()));
        let verdict = |found| verdict(Naming::Id, Place::Newest, found);
        assert_eq!(verdict(Some(found(Some("first.replay.1"), Some(DIGEST)))), duplicate);
        for other in [Some(found(Some(MESSAGE_ID), Some("other"))), Some(found(None, None)), None] {
            assert_eq!(verdict(other), Verdict::PublishUnguarded);
        }
    }

    #[test]
    fn a_key_with_an_id_is_compared_with_a_call_that_has_the_key() {
        let duplicate = Verdict::Duplicate(Some("first".parse().unwrap()));
        let newest = |found| verdict(Naming::IdAndKey, Place::Newest, found);
        assert_eq!(newest(Some(found(Some(MESSAGE_ID), Some(DIGEST)))), duplicate);
        assert_eq!(newest(Some(found(Some(MESSAGE_ID), Some("other")))), Verdict::KeyReused);
        // Another call with the id, even with the same content; or the pending call has ended.
        for other in [Some(found(Some("k.2"), Some(DIGEST))), Some(found(None, Some(DIGEST))), None]
        {
            assert_eq!(newest(other), Verdict::PublishUnguarded);
        }
        // The server answers that it has the key.
        let same_key = |found| verdict(Naming::IdAndKey, Place::At(7), found);
        assert_eq!(same_key(Some(found(None, Some(DIGEST)))), duplicate);
        assert_eq!(same_key(Some(found(Some(MESSAGE_ID), Some("other")))), Verdict::KeyReused);
        assert_eq!(same_key(None), Verdict::Duplicate(None));
    }
}
