//! Which connection to NATS there is.
//!
//! A server that restarts has another id. So a connection that is another one, to the same server, was closed by the
//! network or by this program's client, which closes it when it can't read what it was sent.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::Client;
use tokio::time::sleep;

/// So many more connections to one server within [`WINDOW`] were closed for what it sends.
const FLAPPING: u64 = 2;

/// The time in which connections are counted.
const WINDOW: Duration = Duration::from_secs(3);

/// A connection, past or present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// How many there were, this one included.
    number: u64,
    server: String,
}

/// Returns when a client loses its connections to one server again and again.
pub async fn flaps(client: &Client) {
    let mut before = Connection::of(client);
    loop {
        sleep(WINDOW).await;
        let now = Connection::of(client);
        if now.has_flapped_since(&before) {
            return;
        }
        before = now;
    }
}

// === impl Connection ===

impl Connection {
    /// The one that a client has, or had last.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        let number = client.statistics().connects.load(Ordering::Relaxed);
        Self { number, server: client.server_info().server_id }
    }

    /// Whether it came after another to the same server.
    #[must_use]
    pub fn is_another_to_the_same_server(&self, before: &Self) -> bool {
        self.number != before.number && self.server == before.server
    }

    fn has_flapped_since(&self, before: &Self) -> bool {
        self.server == before.server && self.number >= before.number + FLAPPING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_server_is_another_one() {
        let connection = |number, server: &str| Connection { number, server: server.to_owned() };
        let before = connection(1, "NA");
        assert!(connection(2, "NA").is_another_to_the_same_server(&before));
        assert!(!connection(2, "NB").is_another_to_the_same_server(&before));
        assert!(!connection(1, "NA").is_another_to_the_same_server(&before));
    }

    #[test]
    fn a_connection_flaps_that_is_lost_twice_to_one_server() {
        let connection = |number, server: &str| Connection { number, server: server.to_owned() };
        let before = connection(1, "NA");
        assert!(connection(3, "NA").has_flapped_since(&before));
        assert!(!connection(2, "NA").has_flapped_since(&before));
        assert!(!connection(3, "NB").has_flapped_since(&before));
    }
}
