//! A real nats-server with `JetStream`, on a port and in a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{Client, jetstream};
use tempfile::TempDir;

use crate::{loopback, nats_auth::Trust, process, tools, wait::until};

pub mod cluster;

/// How long a test waits for an answer of nats-server. A disk that others use may hold a server up
/// for longer than the five seconds of the client's default.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// `JetStream` as seen by a client that waits for answers for [`ANSWER_TIMEOUT`].
#[must_use]
pub fn jetstream_context(client: Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .timeout(ANSWER_TIMEOUT)
        .ack_timeout(ANSWER_TIMEOUT)
        .build(client)
}

/// Variable that runs all tests on another release of nats-server: `oldest`.
const RELEASE: &str = "nats_release";

/// A release of nats-server, each a group of Go programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The one that is installed and documented.
    Current,
    /// The oldest that is supported.
    Oldest,
    /// One that is older, which programs refuse.
    Unsupported,
}

/// A nats-server, ended when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    release: Release,
    folder: TempDir,
    port: u16,
    /// In addition to those that every server here has.
    arguments: Vec<String>,
    /// Commands of a shell that come before it, in its own mounts.
    before: Option<String>,
    process: Option<Child>,
    has_jetstream: bool,
    trust: Option<Box<Trust>>,
}

impl Release {
    /// The folder of `tests/cluster/modules` that names its version.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Current => "nats",
            Self::Oldest => "oldest-nats",
            Self::Unsupported => "unsupported-nats",
        }
    }

    /// The release that tests run on unless they name another.
    fn of_the_tests() -> Self {
        match std::env::var(RELEASE) {
            Err(_) => Self::Current,
            Ok(name) if name == "oldest" => Self::Oldest,
            Ok(name) => panic!("{RELEASE} is `oldest` or not set, and not `{name}`"),
        }
    }
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
        Self {
            release: Release::of_the_tests(),
            folder,
            port: loopback::free_port(),
            arguments: Vec::new(),
            before: None,
            process: None,
            has_jetstream: true,
            trust: None,
        }
    }

    /// Of this release from its next start on.
    #[must_use]
    pub fn of(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Without JetStream from its next start on: as one that was started without `-js`.
    #[must_use]
    pub fn without_jetstream(mut self) -> Self {
        self.has_jetstream = false;
        self
    }

    /// With JetStream from its next start on.
    #[must_use]
    pub fn with_jetstream(mut self) -> Self {
        self.has_jetstream = true;
        self
    }

    /// With these arguments in addition to its usual ones.
    #[must_use]
    pub fn with(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With its store written to disk this often, or `always`: before each acknowledgement.
    #[must_use]
    pub fn syncing(self, interval: &str) -> Self {
        self.configured(&format!("jetstream {{ sync_interval: {interval} }}"))
    }

    /// With room for so many bytes on disk, for all its accounts together.
    #[must_use]
    pub fn with_max_file_store(self, bytes: &str) -> Self {
        self.configured(&format!("jetstream {{ max_file_store: {bytes} }}"))
    }

    /// With messages of up to so many bytes, headers included.
    #[must_use]
    pub fn with_max_payload(self, bytes: &str) -> Self {
        self.configured(&format!("max_payload: {bytes}"))
    }

    /// With this configuration.
    fn configured(self, text: &str) -> Self {
        let config = self.folder.path().join("own");
        std::fs::write(&config, text).expect("its configuration");
        let config = config.display().to_string();
        self.with(["-c".to_owned(), config])
    }

    /// With these commands of a shell run before it, by root, in mounts of its own: what is mounted
    /// goes with its process.
    #[must_use]
    pub fn after(mut self, commands: impl Into<String>) -> Self {
        self.before = Some(commands.into());
        self
    }

    /// Starts a server that lets in only whom `trust` has given credentials, and waits until it
    /// answers.
    pub async fn start_guarded(trust: Trust) -> Self {
        let mut server = Self::prepare();
        server.trust = Some(Box::new(trust));
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
        self.launch();
        self.answers().await;
    }

    /// Waits until its `JetStream` answers.
    pub async fn answers(&self) {
        // A question that comes before there is a leader is never answered: it is asked again soon.
        let js = jetstream::new(self.client().await);
        until("JetStream answers", async || js.query_account().await.ok()).await;
    }

    /// Starts the server and does not wait.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the server's log");
        let config = self.folder.path().join("config");
        std::fs::write(&config, self.trust.as_deref().map(Trust::config).unwrap_or_default())
            .expect("the server's configuration");
        let program = tools::program(self.release.group(), "nats-server");
        let mut command = match &self.before {
            Some(commands) => {
                let mut shell = Command::new("unshare");
                shell
                    .args(["--mount", "sh", "-ec", &format!("{commands}\nexec \"$@\""), "sh"])
                    .arg(program);
                shell
            }
            None => Command::new(program),
        };
        let child = command
            .arg("-c")
            .arg(&config)
            .args(self.has_jetstream.then_some("-js"))
            .args(["-a", &loopback::ip().to_string(), "-p", &self.port.to_string(), "-sd"])
            .arg(self.store())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.process = Some(child);
    }

    /// The folder of its store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A path in its own mounts, seen from here.
    #[must_use]
    pub fn seen_from_here(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.process.as_ref().expect("the server runs").id());
        Path::new(&root).join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The id of the server's process, which runs.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
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
        let threads =
            format!("/proc/{}/task", self.process.as_ref().expect("the server runs").id());
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
        process::signal(self.process.as_ref().expect("the server runs").id(), signal);
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", loopback::at(self.port))
    }

    /// A client of its own.
    pub async fn client(&self) -> Client {
        let credentials = self.credentials(Duration::from_secs(3600));
        let connect = async || match &self.trust {
            Some(_) => {
                let options = async_nats::ConnectOptions::with_credentials(&credentials)
                    .expect("credentials");
                options.connect(self.url()).await.ok()
            }
            None => async_nats::connect(self.url()).await.ok(),
        };
        until("nats-server answers", connect).await
    }

    /// A `JetStream` context of its own.
    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream_context(self.client().await)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
