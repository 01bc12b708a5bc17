//! Computes the digest of a call's content. Two calls with one id are the same call if their
//! digests are equal.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::invocation::Invocation;

/// Number of bytes of the digest. The server remembers it for each call of the duplicate window,
/// and 128 bits make an accidental collision practically impossible.
const DIGEST_LEN: usize = 16;

/// Returns the `Nats-Msg-Id` of a call: `<call-id>.<digest>`. A repeat of the call has the same.
/// Another call that uses the id again has another, so the server never takes it for a repeat.
#[must_use]
pub fn message_id(invocation: &Invocation) -> String {
    [invocation.call_id.as_str(), ".", &digest(invocation)].concat()
}

/// Returns the SHA-256 of these parts, each after its length, so that no part can pass for the end
/// of another.
pub(crate) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Returns the first 128 bits of a hash as text.
pub(crate) fn shorten(hash: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(&hash[..DIGEST_LEN])
}

/// Returns the first 128 bits of the SHA-256 of function, method, path, query, callback URL and
/// body, each after its length. Headers are not included: a repeat of a client has another date,
/// trace or token.
#[must_use]
pub(crate) fn digest(invocation: &Invocation) -> String {
    let function = invocation.function.to_string();
    // Absent differs from empty.
    let optional = |text: Option<&str>| text.map(|text| format!("={text}")).unwrap_or_default();
    let query = optional(invocation.query.as_deref());
    let callback_url = optional(invocation.callback_url.as_ref().map(|url| url.as_url().as_str()));
    shorten(&sha256([
        function.as_bytes(),
        invocation.method.as_str().as_bytes(),
        invocation.path.as_bytes(),
        query.as_bytes(),
        callback_url.as_bytes(),
        &invocation.body,
    ]))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::{invocation::CallbackUrl, names::FunctionName, retry::RetryOverrides};

    fn sample() -> Invocation {
        Invocation {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            written_name: None,
            method: Method::POST,
            path: "/a".to_owned(),
            query: None,
            headers: HeaderMap::new(),
            callback_url: None,
            keep_result: None,
            depth: 0,
            batch: None,
            retry: RetryOverrides::default(),
            submitted_at: "2026-11-24T10:11:12Z".parse().unwrap(),
            not_before: None,
            body: Bytes::from_static(b"hi"),
        }
    }

    #[test]
    fn a_repeat_has_the_same_id_whatever_its_time_and_headers() {
        let mut repeat = sample();
        repeat.submitted_at = "2027-01-01T00:00:00Z".parse().unwrap();
        repeat.headers.insert("date", "today".parse().unwrap());
        assert_eq!(message_id(&repeat), message_id(&sample()));
        assert_eq!(
            message_id(&sample()),
            "id-1.LLWmjmkwVouiZljvWYQyyw",
            "it is a contract between gateways"
        );
    }

    #[test]
    fn another_call_has_another_id() {
        let id = message_id(&sample());
        let changes: [fn(&mut Invocation); 7] = [
            |call| call.call_id = "id-2".parse().unwrap(),
            |call| call.function = FunctionName::new("figlet", "dev").unwrap(),
            |call| call.method = Method::PUT,
            |call| (call.path, call.body) = ("/ahi".to_owned(), Bytes::new()),
            |call| call.query = Some(String::new()),
            |call| call.callback_url = Some(CallbackUrl::parse("http://h").unwrap()),
            |call| call.body = Bytes::from_static(b"ho"),
        ];
        for change in changes {
            let mut call = sample();
            change(&mut call);
            assert_ne!(message_id(&call), id);
        }
    }
}
