//! A directory file as anybody may write it: an error of one line, or a directory that goes through
//! the bucket unchanged and by which each call finds a subject and each function a URL.
#![no_main]

use asyncqueue::directory::{Directory, Key};
use asyncqueue_gateway::{fuzzing::BaseUrl, parse_directory_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|yaml: &str| {
    let default_queue = "faas-request".parse().expect("a name");
    let directory = match parse_directory_file(yaml, "openfaas-fn", &default_queue) {
        Ok(directory) => directory,
        Err(error) => {
            let error = format!("{error:#}");
            assert!(!error.is_empty() && error.lines().count() == 1, "{error}");
            return;
        }
    };
    let mut read = Directory::default();
    for (key, value) in Directory::default().changes_to(&directory).expect("JSON") {
        let key = Key::parse(&key.to_string()).expect("a key");
        read.apply(&key, value.as_deref()).expect("an entry");
    }
    assert_eq!(read, directory);
    for (function, entry) in &directory.functions {
        let route = directory.route(function, &default_queue);
        assert!(route.known && entry.queue.iter().all(|queue| *queue == route.queue));
        if let Some(url) = &entry.url {
            let url: BaseUrl = url.parse().expect("a URL");
            assert!(url.join("/a%2Fb", Some("c")).is_ok());
        }
        assert_ne!(entry.retry.attempts, Some(0));
        assert!(entry.retry.codes.iter().flatten().all(|code| (100..=599).contains(code)));
    }
    for queue in directory.queues.values() {
        let is_token =
            |token: &str| !token.is_empty() && !token.contains(['*', '>', ' ', '\t', '\r', '\n']);
        assert!(queue.subject.split('.').all(is_token), "{:?}", queue.subject);
        assert!(
            is_token(&queue.stream) && !queue.stream.contains(['.', '/', '\\']),
            "{:?}",
            queue.stream
        );
    }
});
