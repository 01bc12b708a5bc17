//! The NATS of a scenario: one server, or three that are a cluster.

use std::path::PathBuf;

use async_nats::jetstream::Context;
use asyncqueue_tests::nats::{
    NatsServer,
    cluster::{NODES, NatsCluster},
};

/// Which NATS a scenario has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server, as it comes.
    #[default]
    One,
    /// One server whose store is written to disk before each acknowledgement (`sync_interval: always`).
    OneSyncing,
    /// One server whose store is a disk of 24 MB of its own. Needs root.
    OneOnSmallDisk,
    /// Three servers, and three copies of each stream.
    Three,
}

/// The size of the small disk.
const SMALL_DISK: &str = "24m";

/// Running servers.
#[derive(Debug)]
pub(crate) enum Servers {
    One(NatsServer),
    Three(NatsCluster),
}

impl Servers {
    pub(crate) async fn start(kind: Kind) -> Self {
        let prepared = NatsServer::prepare();
        let store = prepared.store().display().to_string();
        let mut server = match kind {
            Kind::Three => return Self::Three(NatsCluster::start().await),
            Kind::One => prepared,
            Kind::OneSyncing => {
                let config = prepared.log().with_file_name("conf");
                std::fs::write(&config, "jetstream { sync_interval: always }").unwrap();
                prepared.with(["-c".to_owned(), config.display().to_string()])
            }
            Kind::OneOnSmallDisk => prepared
                .after(format!("mkdir -p '{store}' && mount -t tmpfs -o size={SMALL_DISK} tmpfs '{store}'")),
        };
        server.run().await;
        Self::One(server)
    }

    /// Copies of each stream.
    pub(crate) fn replicas(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Three(_) => NODES,
        }
    }

    /// The `nats_url` of the programs.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    pub(crate) async fn jetstream(&self) -> Context {
        match self {
            Self::One(server) => server.jetstream().await,
            Self::Three(cluster) => cluster.jetstream().await,
        }
    }

    /// The only server.
    pub(crate) fn one(&mut self) -> &mut NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) => panic!("this scenario has three servers"),
        }
    }

    /// The cluster.
    pub(crate) fn three(&mut self) -> &mut NatsCluster {
        match self {
            Self::Three(cluster) => cluster,
            Self::One(_) => panic!("this scenario has one server"),
        }
    }

    /// Copies the logs to a folder.
    pub(crate) fn logs(&mut self) -> Vec<PathBuf> {
        match self {
            Self::One(server) => vec![server.log()],
            Self::Three(cluster) => (0..NODES).map(|node| cluster.node(node).log()).collect(),
        }
    }
}
