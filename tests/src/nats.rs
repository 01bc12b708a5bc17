//! A real nats-server with `JetStream`, on a port and in a folder of its own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, jetstream};
use tempfile::TempDir;

use crate::{nats_auth::Trust, wait::until};

/// A nats-server, ended when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
    trust: Option<Trust>,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let mut server = Self::prepare();
        server.run().await;
        server
    }

    /// A server that is not running yet.
    #[must_use]
    pub fn prepare() -> Self {
        let folder = TempDir::with_prefix("asyncqueue-nats-").expect("a folder for the store");
        Self { folder, port: free_port(), process: None, trust: None }
    }

    /// Starts a server that lets in only whom `trust` has given credentials, and waits until it answers.
    pub async fn start_guarded(trust: Trust) -> Self {
        let mut server = Self::prepare();
        server.trust = Some(trust);
        server.run().await;
        server
    }

    /// A new file of credentials, good for this long; of a server that wants none, an empty one.
    #[must_use]
    pub fn credentials(&self, good_for: Duration) -> String {
        self.trust.as_ref().map(|trust| trust.user(good_for)).unwrap_or_default()
    }

    /// Starts the server, on its port and with what it stored before, and waits until it answers.
    pub async fn run(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("the server's log");
        let config = self.folder.path().join("config");
        std::fs::write(&config, self.trust.as_ref().map(Trust::config).unwrap_or_default())
            .expect("the server's configuration");
        let child = Command::new(program())
            .arg("-c")
            .arg(&config)
            .args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.process = Some(child);
        let js = jetstream::new(self.client().await);
        until("JetStream answers", async || js.query_account().await.ok()).await;
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("nats-server is killed");
            process.wait().expect("nats-server ends");
        }
    }

    /// Ends the server at once and starts it again.
    pub async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    /// Stops the server where it is: connections stay, and nothing is answered.
    pub async fn pause(&self) {
        self.signal("STOP");
        // Each of its threads stops when it comes to it.
        let threads = format!("/proc/{}/task", self.process.as_ref().expect("the server runs").id());
        let is_stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        until("nats-server is paused", async || {
            let mut threads = std::fs::read_dir(&threads).expect("the server's threads").flatten();
            threads.all(is_stopped).then_some(())
        })
        .await;
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("the server runs").id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "SIG{signal} could not be sent to nats-server");
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A client of its own.
    pub async fn client(&self) -> Client {
        let credentials = self.credentials(Duration::from_secs(3600));
        let connect = async || match &self.trust {
            Some(_) => {
                let options =
                    async_nats::ConnectOptions::with_credentials(&credentials).expect("credentials");
                options.connect(self.url()).await.ok()
            }
            None => async_nats::connect(self.url()).await.ok(),
        };
        until("nats-server answers", connect).await
    }

    /// A `JetStream` context of its own.
    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().await)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on now, and that nobody is given before the caller listens on it: each caller gets another
/// one, below those that the kernel gives to connections and to listeners that ask for any.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Another test process begins elsewhere.
    let start = std::process::id().wrapping_mul(257);
    (0..COUNT)
        .filter_map(|_| {
            let turn = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            u16::try_from(FIRST + turn % COUNT).ok()
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// The server's program, built if need be.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/tools");
        let output = Command::new(&tools)
            .arg("nats")
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{} can't be run: {error}", tools.display()));
        assert!(output.status.success(), "nats-server could not be built, see above");
        let folder = String::from_utf8(output.stdout).expect("a path");
        Path::new(folder.trim()).join("nats-server")
    })
}
