//! Splits the memory budget of the gateway between connections and what is sent over them.

use asyncqueue_runtime::{
    byte_size::ByteSize,
    memory::{self, Budget, MemoryPermit},
    server,
};
use prometheus_client::registry::Registry;
use tracing::{info, warn};

/// The memory budget.
#[derive(Debug)]
pub(crate) struct GatewayMemory {
    budget: Budget,
    max_connections: usize,
    /// Reserved for connections, so that each accepted connection can be answered.
    _connections: Option<MemoryPermit>,
}

// === impl GatewayMemory ===

impl GatewayMemory {
    /// Creates the budget that the setting names, or the default budget.
    pub(crate) fn new(setting: Option<ByteSize>, registry: &mut Registry) -> Self {
        if std::env::var_os("max_buffered").is_some() {
            warn!(
                "max_buffered is no longer a setting: memory_budget limits bodies and all other \
                 memory of requests"
            );
        }
        let bytes = setting.map_or_else(memory::default_budget, |budget| budget.0);
        let (budget, max_connections) = (Budget::new(bytes, registry), max_connections(bytes));
        info!(memory_budget = %ByteSize(bytes), max_connections, "memory budget for requests");
        let connections =
            budget.account("connections").try_take(max_connections * server::CONNECTION_BYTES);
        Self { budget, max_connections, _connections: connections }
    }

    /// Returns the whole budget.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns how many requests may wait for a result: half of the connections, so that others
    /// are still answered.
    pub(crate) fn max_waits(&self) -> usize {
        (self.max_connections / 2).max(1)
    }

    /// Returns the configuration of the HTTP server, whose request heads have at most
    /// `max_header_bytes`.
    pub(crate) fn server_config(&self, max_header_bytes: usize) -> server::Config {
        server::Config {
            max_connections: self.max_connections,
            max_header_bytes,
            memory: Some(self.budget.account("heads")),
            ..server::Config::default()
        }
    }
}

/// Returns how many connections fit into half of a budget. The other half is for what is sent over
/// them.
fn max_connections(budget: usize) -> usize {
    (budget / 2 / server::CONNECTION_BYTES).clamp(1, server::MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_budget_is_for_connections() {
        assert_eq!(max_connections(384 << 20), 8192);
        assert_eq!(max_connections(16 << 20), 341);
        assert_eq!(max_connections(8 << 30), 8192);
    }
}
