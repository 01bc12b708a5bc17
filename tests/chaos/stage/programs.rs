//! The programs on the stage, and their settings.

use std::net::SocketAddr;

use test_support::{loopback::free_port, program::Program, proxy::Proxy, raw, wait::until_in};

use super::{
    ATTEMPTS, CALLBACK_ATTEMPTS, HIT, PUBLISH_TIMEOUT, QUEUES, Stage, WAIT_TIMEOUT, clocks::Whose,
};

/// A gateway at an address that it keeps.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    addr: SocketAddr,
    metrics: SocketAddr,
}

impl Stage {
    /// Starts another worker of the first queue.
    pub(crate) fn add_worker(&mut self) {
        let worker = self.start_worker(QUEUES[0]);
        self.workers.push(worker);
    }

    /// Starts a worker of each other queue.
    pub(crate) fn add_bystanders(&mut self) {
        for queue in &QUEUES[1..self.specs.len()] {
            let worker = self.start_worker(queue);
            self.bystanders.push(worker);
        }
    }

    fn start_worker(&mut self, queue: &str) -> Program {
        self.workers_started += 1;
        let name = format!("worker-{}", self.workers_started);
        let nats =
            self.nats_cable.as_ref().map(|cable| format!("nats://127.0.0.1:{}", cable.port()));
        let url = nats.unwrap_or_else(|| self.servers.url());
        let admin = format!("127.0.0.1:{}", free_port());
        let (attempts, callback_attempts) = (ATTEMPTS.to_string(), CALLBACK_ATTEMPTS.to_string());
        let function_port = self.cable.as_ref().map_or(self.function.port(), Proxy::port);
        let function_url = format!("http://127.0.0.1:{function_port}");
        let time_limit = format!("{}s", self.setup.time_limit.as_secs());
        let max_age = self.setup.max_age.map(|age| format!("{}s", age.as_secs()));
        let mut settings = vec![
            ("nats_url", &*url),
            ("queue_name", queue),
            ("function_url", &function_url),
            ("http_addr", &admin),
            ("HOSTNAME", &name),
            ("max_inflight", "20"),
            ("upstream_timeout", &time_limit),
            ("max_retry_attempts", &attempts),
            // Sooner than a user would want, for a scenario to be short.
            ("initial_retry_wait", "100ms"),
            ("max_retry_wait", "1s"),
            ("callback_allowed_hosts", "127.0.0.1"),
            ("callback_max_attempts", &callback_attempts),
            ("callback_timeout", "2s"),
            ("RUST_LOG", "info,asyncqueue_worker=debug"),
        ];
        settings.extend(max_age.as_deref().map(|age| ("max_age", age)));
        let concurrency = self.setup.concurrency.filter(|_| queue == QUEUES[HIT]);
        let concurrency = concurrency.map(|total| total.to_string());
        settings.extend(concurrency.as_deref().map(|total| ("concurrency", total)));
        settings.extend_from_slice(self.setup.worker_settings);
        let clock = self.clock_settings(Whose::Workers);
        settings.extend(clock.iter().map(|(name, value)| (*name, value.as_str())));
        let log = self.folder.join(format!("{name}.log"));
        Program::start_logging("asyncqueue-worker", &settings, &log)
    }

    /// Takes a worker off the stage: it is not expected to run any more.
    pub(crate) fn remove_worker(&mut self, index: usize) -> Program {
        self.workers.remove(index)
    }

    /// Starts another gateway.
    pub(super) fn add_gateway(&mut self) {
        let address = || ([127, 0, 0, 1], free_port()).into();
        let (addr, metrics) = (address(), address());
        let program = self.start_gateway(addr, metrics);
        self.gateways.push(Gateway { program, addr, metrics });
    }

    /// Starts a gateway again, at its address.
    pub(crate) fn restart_gateway(&mut self, index: usize) {
        let Gateway { addr, metrics, .. } = self.gateways[index];
        self.gateways[index].program = self.start_gateway(addr, metrics);
    }

    fn start_gateway(&self, addr: SocketAddr, metrics: SocketAddr) -> Program {
        let (url, directory) = (self.servers.url(), self.folder.join("directory.yaml"));
        let (addr_setting, metrics) = (addr.to_string(), metrics.to_string());
        let publish_timeout = format!("{}s", PUBLISH_TIMEOUT.as_secs());
        let mut settings = vec![
            ("nats_url", &*url),
            ("http_addr", &addr_setting),
            ("metrics_addr", &metrics),
            ("default_queue", QUEUES[0]),
            ("directory_file", directory.to_str().unwrap()),
            ("unknown_function", "accept"),
            ("publish_timeout", &publish_timeout),
            ("RUST_LOG", "info,asyncqueue_gateway=debug"),
        ];
        let clock = self.clock_settings(Whose::Gateways);
        settings.extend(clock.iter().map(|(name, value)| (*name, value.as_str())));
        let log = self.folder.join(format!("gateway-{}.log", addr.port()));
        Program::start_logging("asyncqueue-gateway", &settings, &log)
    }
}

impl Gateway {
    /// Where it takes calls.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it takes calls.
    pub(crate) async fn is_ready(&self) {
        until_in(WAIT_TIMEOUT, "the gateway is ready", async || {
            let answer = raw::try_request(self.addr, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}
