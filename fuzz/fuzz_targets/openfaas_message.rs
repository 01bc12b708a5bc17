//! A message that an existing gateway may have published: whatever it is, it is read as a call that
//! our own form can carry and that can be made, or it is refused.
#![no_main]

use asyncqueue::message::{Fallback, openfaas};
use asyncqueue_fuzz::check_call;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let fallback = Fallback {
        call_id: asyncqueue::CallId::from_sequence(1),
        stored_at: "2026-01-01T00:00:00Z".parse().expect("a time"),
        namespace: "openfaas-fn".to_owned(),
    };
    if let Ok(mut call) = openfaas::decode(payload, &fallback) {
        // The native form has no place for it: the directory says it.
        call.retry = asyncqueue::retry::RetryOverrides::default();
        check_call(&call);
    }
});
