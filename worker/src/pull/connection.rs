//! Which connection to NATS there is.
//!
//! A server that restarts has another id. So a connection that is another one, to the same server, was closed by the
//! network or by this program's client, which closes it when it can't read what it was sent.

use std::sync::atomic::Ordering;

use async_nats::Client;

/// A connection, past or present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// How many there were, this one included.
    number: u64,
    server: String,
}

// === impl Connection ===

impl Connection {
    /// The one that a client has, or had last.
    pub(super) fn of(client: &Client) -> Self {
        let number = client.statistics().connects.load(Ordering::Relaxed);
        Self { number, server: client.server_info().server_id }
    }

    /// Whether it came after another to the same server.
    pub(super) fn is_another_to_the_same_server(&self, before: &Self) -> bool {
        self.number != before.number && self.server == before.server
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
}
