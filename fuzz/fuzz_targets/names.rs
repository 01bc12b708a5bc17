//! Names of queues and functions, and call ids, as users and clients write them: what is one is a
//! token of a subject, so that no client reaches another's calls with it; and what it prints is
//! read again.
#![no_main]

use asyncqueue::{CallId, FunctionName, QueueName, directory::Key, subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let is_token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if let Ok(queue) = text.parse::<QueueName>() {
        assert!(is_token(text) && queue.as_str() == text);
        for name in [
            queue.durable(),
            queue.callback_stream(),
            queue.callback_durable(),
            queue.dead_letter_stream(),
        ] {
            assert!(is_token(&name), "{name}");
        }
        assert_eq!(Key::parse(&Key::Queue(queue.clone()).to_string()), Some(Key::Queue(queue)));
    }
    if let Ok(function) = FunctionName::parse(text, "openfaas-fn") {
        assert!(is_token(function.name()) && is_token(function.namespace()));
        assert_eq!(FunctionName::parse(&function.to_string(), "elsewhere"), Ok(function.clone()));
        assert_eq!(
            Key::parse(&Key::Function(function.clone()).to_string()),
            Some(Key::Function(function))
        );
    }
    if let Ok(id) = text.parse::<CallId>() {
        assert!(is_token(text) && id.as_str() == text);
        let function = FunctionName::new("figlet", "openfaas-fn").expect("a name");
        let of_call = subject::call_subject("jobs.slow", &function, &id);
        assert_eq!(subject::parse_call_id(&of_call, "jobs.slow"), Some(id));
        assert_eq!(subject::parse_function(&of_call), Some(function));
    }
    // Whatever a subject or a key is, reading it names what it names.
    if let Some(id) = subject::parse_call_id(text, "jobs") {
        assert!(text.starts_with("jobs.") && text.ends_with(id.as_str()));
    }
    if let Some(key) = Key::parse(text) {
        assert_eq!(key.to_string(), text);
    }
});
