//! What functions and receivers of callbacks answer, byte for byte, and what happens to the call:
//! each row of `docs/bad-inputs.md`, against a real worker and a real gateway.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use asyncqueue::{CallbackUrl, message::dead_letter::H_REASON};
use test_support::{
    bad_inputs::answers::{After, Answer, End, Taken, answers},
    http::HttpServer,
    wait::WAIT_TIMEOUT,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    gateway::{Gateway, messages},
    support::Queue,
};

/// The time limits of worker and receiver: long enough for a busy machine, and short for the rows
/// that wait for it.
const TIME_LIMIT: &str = "3s";

/// A server whose answer to `/NUMBER` is that row of the table.
struct OddServer {
    url: String,
    /// How many requests came for each row.
    requests: Arc<Mutex<HashMap<usize, usize>>>,
}

impl OddServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(HashMap::new()));
        let (seen, rows) = (requests.clone(), Arc::new(answers()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, rows.clone(), seen.clone()));
            }
        });
        Self { url, requests }
    }

    /// Whether the requests for a row are those of so many attempts.
    fn had_requests(&self, row: usize, attempts: usize) -> bool {
        let requests = self.requests.lock().unwrap().get(&row).copied().unwrap_or_default();
        // One on a connection that was kept alive is sent once more, and is no attempt, where no
        // byte of its answer came: it is closed without one, or what is left of the answer before
        // it ends the connection.
        (attempts..=2 * attempts).contains(&requests)
    }
}

/// Answers the requests on one connection.
async fn serve(
    mut stream: TcpStream,
    rows: Arc<Vec<Answer>>,
    seen: Arc<Mutex<HashMap<usize, usize>>>,
) {
    let mut unread = Vec::new();
    while let Some(row) = read_request(&mut stream, &mut unread, &rows).await {
        *seen.lock().unwrap().entry(row).or_default() += 1;
        let answer = &rows[row];
        if stream.write_all(&answer.bytes).await.is_err() {
            return;
        }
        match answer.after {
            After::Keeps => {}
            After::Closes => return,
            After::HalfCloses => stream.shutdown().await.unwrap(),
            After::Resets => {
                // What was written has to arrive before the reset.
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

/// Reads a request and returns the row that its path names; `None` at the end of the connection.
/// The body of one that is answered early is left unread.
async fn read_request(
    stream: &mut TcpStream,
    unread: &mut Vec<u8>,
    rows: &[Answer],
) -> Option<usize> {
    let head_length = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(unread).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&unread[..head_length]).to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap();
    let row: usize = path.rsplit('/').next().unwrap().parse().unwrap();
    let body = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    unread.drain(..head_length);
    if !rows[row].is_early {
        while unread.len() < body {
            if stream.read_buf(unread).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        unread.drain(..body);
    }
    Some(row)
}

/// The end of each row as `end` returns it, once each has one; `None` for those that have none in
/// time.
async fn each_row<T>(end: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
    let started = Instant::now();
    loop {
        let ends: Vec<_> = (0..answers().len()).map(&end).collect();
        if ends.iter().all(Option::is_some) || started.elapsed() > WAIT_TIMEOUT * 2 {
            return ends;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Compares what was seen of each row with what the table says.
fn compare<T: PartialEq + Debug>(seen: Vec<T>, expected: impl Fn(&Answer) -> T) {
    let rows = answers().into_iter().zip(seen);
    let differing: Vec<_> = rows
        .map(|(answer, seen)| (answer.what, seen, expected(&answer)))
        .filter(|(_, seen, expected)| seen != expected)
        .map(|(what, seen, expected)| format!("{what}: {seen:?} is not {expected:?}"))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[tokio::test]
async fn each_answer_of_a_function_ends_its_call_as_the_table_says() {
    let (queue, receiver, functions) =
        (Queue::start().await, HttpServer::start().await, OddServer::start().await);
    let settings = [
        ("function_url", functions.url.as_str()),
        ("upstream_timeout", TIME_LIMIT),
        ("max_retry_attempts", "2"),
        ("max_inflight", "20"),
    ];
    let _worker = queue.worker(&receiver, &settings);
    for number in 0..answers().len() {
        queue
            .submit(|call| {
                call.path = format!("/{number}");
                let url = format!("{}/{number}", receiver.url());
                call.callback_url = Some(CallbackUrl::parse(&url).unwrap());
            })
            .await;
    }
    let ends = each_row(|number| {
        let path = format!("/{number}");
        let result = receiver.received().into_iter().find(|result| result.target == path)?;
        let header = |name| result.header(name).parse::<usize>().unwrap();
        let attempts = header("x-retry");
        Some((header("x-function-status"), attempts, functions.had_requests(number, attempts)))
    })
    .await;
    compare(ends, |answer| {
        let (status, attempts) = match answer.call {
            End::Done(status) => (status, 1),
            End::Retried(status) => (status, 2),
            End::Final => (502, 1),
        };
        Some((status.into(), attempts, true))
    });
    let dead: Vec<_> = messages(&queue, "jobs-dead").await;
    let expected_dead =
        answers().iter().filter(|answer| !matches!(answer.call, End::Done(_))).count();
    assert_eq!(dead.len(), expected_dead);
    let unreadable = dead
        .iter()
        .filter(|letter| letter.headers.get(H_REASON).unwrap().as_str().contains("can't be read"));
    let finals = answers().iter().filter(|answer| answer.call == End::Final).count();
    assert_eq!(unreadable.count(), finals);
}

#[tokio::test]
async fn each_answer_of_a_receiver_ends_its_result_as_the_table_says() {
    let (queue, function, receivers) =
        (Queue::start().await, HttpServer::start().await, OddServer::start().await);
    let settings =
        [("callback_timeout", TIME_LIMIT), ("callback_max_attempts", "2"), ("max_inflight", "20")];
    let worker = queue.worker(&function, &settings);
    let mut ids = Vec::new();
    for number in 0..answers().len() {
        let url = format!("{}/{number}", receivers.url);
        ids.push(
            queue.submit(|call| call.callback_url = Some(CallbackUrl::parse(&url).unwrap())).await,
        );
    }
    let taken = each_row(|number| {
        let lines: Vec<_> =
            worker.log().into_iter().filter(|line| line.contains(ids[number].as_str())).collect();
        let are = |text| lines.iter().filter(|line| line.contains(text)).count();
        let (taken, given_up) =
            (are("Posted result"), are("failed: moving it to the dead-letter stream"));
        let attempts = are("failed, retrying") + 1;
        (taken + given_up > 0)
            .then(|| (taken == 1, attempts, receivers.had_requests(number, attempts)))
    })
    .await;
    compare(taken, |answer| {
        Some(match answer.result {
            Taken::Yes => (true, 1, true),
            Taken::TriedAgain => (false, 2, true),
            Taken::Never => (false, 1, true),
        })
    });
    queue.holds("jobs-callbacks", 0).await;
    let given_up = answers().iter().filter(|answer| answer.result != Taken::Yes).count();
    queue.holds("jobs-dead", given_up as u64).await;
}

#[tokio::test]
async fn the_gateway_passes_each_response_as_the_table_says() {
    let (queue, functions) = (Queue::start().await, OddServer::start().await);
    let gateway = Gateway::before(&queue, &[("function_url", &functions.url)]).await;
    let mut seen = Vec::new();
    for number in 0..answers().len() {
        let mut client = TcpStream::connect(gateway.addr).await.unwrap();
        let request = format!("GET /function/figlet/{number} HTTP/1.1\r\nHost: g\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        // Some functions do not answer.
        let limit = match answers()[number].proxied {
            0 => Duration::from_secs(2),
            _ => WAIT_TIMEOUT,
        };
        seen.push(match timeout(limit, client.read_exact(&mut line)).await {
            Ok(Ok(_)) => String::from_utf8_lossy(&line[9..]).parse().unwrap(),
            // Before the head was on its way.
            Ok(Err(_)) if answers()[number].is_cut_off() => 200,
            Ok(Err(error)) => {
                panic!("{}: no answer of the gateway: {error}", answers()[number].what)
            }
            Err(_) => 0,
        });
    }
    compare(seen, |answer| answer.proxied);
    // Its connections are as usable as before.
    let fine = answers().iter().position(|answer| answer.what.starts_with("no reason")).unwrap();
    let after = gateway.call("GET", &format!("/function/figlet/{fine}"), &[], "").await;
    assert_eq!((after.status, after.text().as_str()), (200, "ok"));
}
