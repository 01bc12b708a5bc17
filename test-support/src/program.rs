//! The programs of this project, as processes.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    process,
    wait::{WAIT_TIMEOUT, until, until_in},
};

/// A running program, killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// As [`Program::start`], for a benchmark: what it prints is thrown away.
    #[must_use]
    pub fn start_unheard(name: &'static str, settings: &[(&str, &str)]) -> Self {
        Self { name, process: spawn(&path(name), &[], settings, Stdio::null), log: Arc::default() }
    }

    /// As [`Program::start`], for a run of many programs: what it prints is added to a file.
    #[must_use]
    pub fn start_logging(name: &'static str, settings: &[(&str, &str)], log: &Path) -> Self {
        Self::start_logging_from(&folder(), name, settings, log)
    }

    /// The same of a program in another folder: one of an earlier version.
    #[must_use]
    pub fn start_logging_from(
        folder: &Path,
        name: &'static str,
        settings: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        let file =
            OpenOptions::new().create(true).append(true).open(log).expect("the program's log");
        let output = || Stdio::from(file.try_clone().expect("a file descriptor"));
        Self {
            name,
            process: spawn(&folder.join(name), &[], settings, output),
            log: Arc::default(),
        }
    }

    /// Starts the program that runs once more, with these arguments: a benchmark's other half.
    #[must_use]
    pub fn start_again(arguments: &[&str]) -> Self {
        let path = std::env::current_exe().expect("this program has a path");
        let process =
            Command::new(path).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self {
            name: "the limit",
            process: process.expect("this program starts"),
            log: Arc::default(),
        }
    }

    /// Starts a program that is not of this project, for a benchmark: what it prints is thrown
    /// away, but for what goes wrong.
    #[must_use]
    pub fn start_other(name: &'static str, command: &mut Command) -> Self {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
        Self { name, process, log: Arc::default() }
    }

    /// Starts a program with these settings as its environment.
    #[must_use]
    pub fn start(name: &'static str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(name, &[], settings)
    }

    /// Starts a program with these arguments, and these settings as its environment.
    #[must_use]
    pub fn start_with(name: &'static str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut process = spawn(&path(name), arguments, settings, Stdio::piped);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        collect(name, BufReader::new(stdout.expect("stdout is piped")), log.clone());
        collect(name, BufReader::new(stderr.expect("stderr is piped")), log.clone());
        Self { name, process, log }
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, signal: &str) {
        process::signal(self.process.id(), signal);
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().expect("the program is killed");
        self.process.wait().expect("the program ends");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, async || self.process.try_wait().expect("its state is known")).await
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("its state is known").is_none()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its log lines so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no writer panicked").clone()
    }

    /// Waits for a log line that contains `text`.
    pub async fn logged(&self, text: &str) -> String {
        self.logged_in(WAIT_TIMEOUT, text).await
    }

    /// Waits at most for `timeout` for a log line that contains `text`.
    pub async fn logged_in(&self, timeout: Duration, text: &str) -> String {
        let what = format!("{} logs `{text}`", self.name);
        let find = || self.log().into_iter().find(|line| line.contains(text));
        until_in(timeout, &what, async || find()).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(
    path: &Path,
    arguments: &[&str],
    settings: &[(&str, &str)],
    output: impl Fn() -> Stdio,
) -> Child {
    Command::new(path)
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} can't be started ({error}): `cargo build --workspace` makes it",
                path.display()
            )
        })
}

/// Keeps the lines of a stream, and shows them where a test fails.
fn collect(
    name: &'static str,
    stream: impl BufRead + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
) {
    std::thread::spawn(move || {
        for line in stream.lines().map_while(Result::ok) {
            println!("{name}: {line}");
            log.lock().expect("no reader panicked").push(line);
        }
    });
}

/// A program that has run to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ended {
    /// What it wrote to stdout, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("stdout is text")
    }
}

/// Runs a program with these arguments, and these settings as its environment, to its end.
pub async fn run(name: &'static str, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let output = output(name, spawn_piped(name, arguments, settings)).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{name} {}: {:?}\n{stderr}", arguments.join(" "), output.status.code());
    Ended { code: output.status.code(), stdout: output.stdout, stderr }
}

/// Waits until a program has ended. Returns its exit status and what it wrote.
pub(crate) async fn output(name: &str, child: Child) -> Output {
    let pid = child.id();
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output());
    let Ok(ended) = tokio::time::timeout(WAIT_TIMEOUT, ended).await else {
        // The thread that waits for it ends with it.
        process::signal(pid, "KILL");
        panic!("{name} does not end");
    };
    ended.expect("the wait does not panic").expect("its output is read")
}

/// Runs a program as [`run`] does, with both of its outputs closed at once. Returns its exit code.
pub async fn run_unread(
    name: &'static str,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> Option<i32> {
    let mut child = spawn_piped(name, arguments, settings);
    drop((child.stdout.take(), child.stderr.take()));
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let ended = tokio::time::timeout(WAIT_TIMEOUT, ended).await.expect("it ends");
    ended.expect("the wait does not panic").expect("its status is read").code()
}

/// Starts a program without input, whose outputs can be read.
fn spawn_piped(name: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Child {
    let path = path(name);
    Command::new(&path)
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} can't be started ({error}): `cargo build --workspace` makes it",
                path.display()
            )
        })
}

/// Where a program is.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    folder().join(name)
}

/// Where cargo puts the programs: next to the folder of the test that runs.
///
/// # Panics
///
/// If this program has no path.
#[must_use]
pub fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned()
}
