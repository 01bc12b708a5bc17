//! The programs of this project, as processes.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::wait::{PATIENCE, until};

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
        Self { name, process: spawn(name, settings, Stdio::null), log: Arc::default() }
    }

    /// Starts a program with these settings as its environment.
    #[must_use]
    pub fn start(name: &'static str, settings: &[(&str, &str)]) -> Self {
        let mut process = spawn(name, settings, Stdio::piped);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        collect(name, BufReader::new(stdout.expect("stdout is piped")), log.clone());
        collect(name, BufReader::new(stderr.expect("stderr is piped")), log.clone());
        Self { name, process, log }
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "SIG{signal} could not be sent to {}", self.name);
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

    /// How long it has kept processors busy.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        /// Of the times that Linux tells, whatever its clock does: `man 5 proc_pid_stat`.
        const TICK: Duration = Duration::from_millis(10);
        let stat = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(stat).expect("the process runs");
        // After the name, which may hold anything, in user mode and in the kernel.
        let fields = stat.rsplit(')').next().expect("there is a part").split_whitespace().skip(11).take(2);
        TICK * fields.map(|ticks| ticks.parse::<u32>().expect("a number")).sum()
    }

    /// Its resident memory.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).expect("the process runs");
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).expect("VmRSS in kB") * 1024
    }

    /// Its log lines so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no writer panicked").clone()
    }

    /// Waits for a log line that contains `text`.
    pub async fn logged(&self, text: &str) -> String {
        let what = format!("{} logs `{text}`", self.name);
        until(&what, async || self.log().into_iter().find(|line| line.contains(text))).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(name: &str, settings: &[(&str, &str)], output: impl Fn() -> Stdio) -> Child {
    let path = path(name);
    Command::new(&path)
        .env_clear()
        .envs(settings.iter().copied())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{} can't be started ({error}): `cargo build --workspace` makes it", path.display())
        })
}

/// Keeps the lines of a stream, and shows them where a test fails.
fn collect(name: &'static str, stream: impl BufRead + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
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
    let path = path(name);
    let child = Command::new(&path)
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{} can't be started ({error}): `cargo build --workspace` makes it", path.display())
        });
    let pid = child.id().to_string();
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output());
    let Ok(ended) = tokio::time::timeout(PATIENCE, ended).await else {
        // The thread that waits for it goes with it.
        let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        panic!("{name} does not end");
    };
    let output = ended.expect("nobody panicked").expect("its output is read");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{name} {}: {:?}\n{stderr}", arguments.join(" "), output.status.code());
    Ended { code: output.status.code(), stdout: output.stdout, stderr }
}

/// Where cargo puts the programs: beside the folder of the test that runs.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.ancestors().nth(2).expect("target/<profile>/deps/<test>").join(name)
}
