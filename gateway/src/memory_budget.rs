//! Splits the memory budget of the gateway between connections and what is sent over them.

use anyhow::ensure;
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
    /// Creates the budget that the setting names, or the default budget. Fails if it has no room
    /// for the connections that a setting asks for.
    pub(crate) fn new(
        setting: Option<ByteSize>,
        max_connections: Option<u32>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        if std::env::var_os("max_buffered").is_some() {
            warn!(
                "max_buffered is no longer a setting: memory_budget limits bodies and all other \
                 memory of requests"
            );
        }
        let bytes = setting.map_or_else(memory::default_budget, |budget| budget.0);
        let max_connections = connections_of(max_connections, bytes)?;
        let budget = Budget::new(bytes, registry);
        info!(memory_budget = %ByteSize(bytes), max_connections, "memory budget for requests");
        let connections =
            budget.account("connections").try_take(max_connections * server::CONNECTION_BYTES);
        Ok(Self { budget, max_connections, _connections: connections })
    }

    /// Returns the whole budget.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns how many requests may wait for a result: not all connections, so that others are
    /// still answered.
    pub(crate) fn max_waits(&self) -> usize {
        max_waits(self.max_connections)
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

/// Returns the maximum number of connections: what the setting says, if it fits into three quarters
/// of a budget, or else what fits into half of it. The rest is for what is sent over them.
fn connections_of(setting: Option<u32>, budget: usize) -> anyhow::Result<usize> {
    let fit = |part: usize| (part / server::CONNECTION_BYTES).max(1);
    let Some(wanted) = setting else {
        return Ok(fit(budget / 2).min(server::MAX_CONNECTIONS));
    };
    let most = fit(budget / 4 * 3);
    let connections = usize::try_from(wanted)?;
    ensure!(
        connections <= most,
        "max_connections `{wanted}` does not fit into memory_budget, which is {}: use at most \
         {most}, or raise the memory limit of the container",
        ByteSize(budget)
    );
    Ok(connections)
}

fn max_waits(connections: usize) -> usize {
    (connections - connections / 16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_budget_is_for_connections() {
        let connections = |budget| connections_of(None, budget).unwrap();
        assert_eq!(connections(384 << 20), 8192);
        assert_eq!(connections(16 << 20), 341);
        assert_eq!(connections(8 << 30), 8192);
    }

    #[test]
    fn more_connections_fit_into_three_quarters_of_the_budget() {
        let connections = |setting| connections_of(Some(setting), 384 << 20);
        assert_eq!(connections(1).unwrap(), 1);
        assert_eq!(connections(12_288).unwrap(), 12_288);
        let error = connections(12_289).unwrap_err().to_string();
        assert!(error.contains("384Mi") && error.contains("use at most 12288"), "{error}");
    }

    #[test]
    fn waits_leave_connections_for_others() {
        assert_eq!(max_waits(12_000), 11_250);
        assert_eq!(max_waits(8192), 7680);
        assert_eq!(max_waits(1), 1);
    }
}
