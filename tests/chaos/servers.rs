//! The NATS of a scenario: one server, or three that are a cluster.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use async_nats::jetstream::Context;
use test_support::{
    nats::{
        NatsServer,
        cluster::{NODES, NatsCluster},
    },
    wait::until,
};

pub(crate) mod slow;

/// Which NATS a scenario has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server, as it comes.
    #[default]
    One,
    /// One server whose store is written to disk before each acknowledgement (`sync_interval:
    /// always`).
    OneSyncing,
    /// One server whose store is a disk of its own, which can be filled and whose power can be cut.
    /// Needs root.
    OneOnDisk {
        /// As of [`Kind::OneSyncing`].
        syncs: bool,
    },
    /// One server whose store has a limit, and no stream has.
    OneSmall,
    /// Three servers, and three copies of each stream.
    Three,
    /// As of [`Kind::OneSmall`], each of them.
    ThreeSmall,
}

/// Before each acknowledgement.
const ALWAYS: &str = "always";

/// The size of a disk of its own.
const DISK: &str = "64m";

impl Kind {
    /// Whether the store is so small that the load fills it.
    pub(crate) fn is_small(self) -> bool {
        matches!(self, Self::OneSmall | Self::ThreeSmall)
    }
}

/// The limit of a small store.
const SMALL: &str = "jetstream { max_file_store: 64MB }";

/// Waits until the kernel has released a disk, which it does when the server that mounted it has
/// ended.
async fn is_unmounted(disk: &Path) {
    until("the disk is unmounted", async || {
        let used = Command::new("losetup").arg("--associated").arg(disk).output().unwrap();
        used.stdout.is_empty().then_some(())
    })
    .await;
}

/// The device of a disk of its own.
fn disk(server: &NatsServer) -> PathBuf {
    server.store().with_extension("disk")
}

/// Running servers.
#[derive(Debug)]
pub(crate) enum Servers {
    One(NatsServer),
    Three(NatsCluster),
}

impl Servers {
    pub(crate) async fn start(kind: Kind, folder: &Path) -> Self {
        let small = folder.join("small-store.conf");
        std::fs::write(&small, SMALL).unwrap();
        let small = ["-c".to_owned(), small.display().to_string()];
        let prepared = NatsServer::prepare();
        let store = prepared.store().display().to_string();
        let mut server = match kind {
            Kind::Three => return Self::Three(NatsCluster::start().await),
            Kind::ThreeSmall => return Self::Three(NatsCluster::start_with(&small).await),
            Kind::OneSmall => prepared.with(small),
            Kind::One => prepared,
            Kind::OneSyncing => prepared.syncing(ALWAYS),
            Kind::OneOnDisk { syncs } => {
                let disk = disk(&prepared).display().to_string();
                // A file is its device, so that what the file system has brought there can be seen.
                let mount = format!(
                    "[ -e '{disk}' ] || {{ truncate -s {DISK} '{disk}'; mkfs.ext4 -q '{disk}'; }}
                    mkdir -p '{store}' && mount -o loop '{disk}' '{store}'"
                );
                let prepared = prepared.after(mount);
                if syncs { prepared.syncing(ALWAYS) } else { prepared }
            }
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

    /// Cuts the power of the only server's disk, and brings both up again. What the file system had
    /// not written to its device by then is gone: the device is a file, of which a copy is taken
    /// while the file system is mounted.
    pub(crate) async fn cut_power(&mut self) {
        let server = self.one();
        // Nothing new is written while the copy is taken; the kernel may write some of what is old.
        server.pause().await;
        let (disk, copy) = (disk(server), disk(server).with_extension("copy"));
        std::fs::copy(&disk, &copy).unwrap();
        server.kill();
        is_unmounted(&disk).await;
        std::fs::rename(&copy, &disk).unwrap();
        server.run().await;
    }

    /// Ends the only server at once and starts it again, on the disk of its own.
    pub(crate) async fn restart_on_disk(&mut self) {
        let server = self.one();
        server.kill();
        is_unmounted(&disk(server)).await;
        server.run().await;
    }

    /// The cluster.
    pub(crate) fn three(&mut self) -> &mut NatsCluster {
        match self {
            Self::Three(cluster) => cluster,
            Self::One(_) => panic!("this scenario has one server"),
        }
    }

    /// Their logs.
    pub(crate) fn logs(&mut self) -> Vec<PathBuf> {
        match self {
            Self::One(server) => vec![server.log()],
            Self::Three(cluster) => (0..NODES).map(|node| cluster.node(node).log()).collect(),
        }
    }
}
