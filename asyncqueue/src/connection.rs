//! Identifies connections to NATS.
//!
//! A server that restarts has another id. So if the connection changes and the server id does not,
//! the network or the client of this program closed the old one. The client closes a connection
//! when it can't read what it received.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::Client;
use tokio::time::sleep;

/// A client that makes this many further connections to one server within [`FLAPPING_WINDOW`] loses
/// them because of what the server sends.
const FLAPPING_CONNECTIONS: u64 = 2;

/// Period in which connections are counted.
const FLAPPING_WINDOW: Duration = Duration::from_secs(3);

/// A connection, past or present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of connections so far, including this one.
    number: u64,
    server: String,
}

/// Waits until a client repeatedly loses its connections to one server.
pub async fn wait_until_flapping(client: &Client) {
    let mut before = Connection::current(client);
    loop {
        sleep(FLAPPING_WINDOW).await;
        let now = Connection::current(client);
        if now.has_flapped_since(&before) {
            return;
        }
        before = now;
    }
}

// === impl Connection ===

impl Connection {
    /// Returns the connection that a client has, or had last.
    #[must_use]
    pub fn current(client: &Client) -> Self {
        let number = client.statistics().connects.load(Ordering::Relaxed);
        Self { number, server: client.server_info().server_id }
    }

    /// Returns whether this connection came after another one to the same server.
    #[must_use]
    pub fn is_another_to_the_same_server(&self, before: &Self) -> bool {
        self.number != before.number && self.server == before.server
    }

    fn has_flapped_since(&self, before: &Self) -> bool {
        self.server == before.server && self.number >= before.number + FLAPPING_CONNECTIONS
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
