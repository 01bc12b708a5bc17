//! What the function answers: it names the call and the invocation, so that who gets a result knows
//! which one it is of.

use bytes::Bytes;

use crate::history::event::{CallNumber, SeenBody};

/// What the function answers in an invocation of a call.
#[must_use]
pub fn of_run(call: CallNumber, run: u64) -> Bytes {
    format!("call {call}, invocation {run}").into()
}

/// Reads the body of a result of a call.
#[must_use]
pub fn read(call: CallNumber, body: &[u8]) -> SeenBody {
    if body.is_empty() {
        return SeenBody::Empty;
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let run = text.strip_prefix(&format!("call {call}, invocation "));
    run.and_then(|run| run.parse().ok()).map_or(SeenBody::Foreign, SeenBody::OfRun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_of_an_invocation_of_its_call_or_of_none() {
        assert_eq!(read(7, &of_run(7, 2)), SeenBody::OfRun(2));
        assert_eq!(read(7, &of_run(71, 2)), SeenBody::Foreign);
        assert_eq!(read(7, b"call 7, invocation"), SeenBody::Foreign);
        assert_eq!(read(7, b""), SeenBody::Empty);
    }
}
