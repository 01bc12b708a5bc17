//! Clients of `OpenFaaS`: those in Python, which run here, and recorded requests of these and of
//! others.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde::de::DeserializeOwned;

use crate::{program, python, tools};

/// A request of a client as it was on the wire, in `clients/requests`.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The client and what it did: `faas-cli-from-source/invoke_async`.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its headers in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, decoded if it was chunked.
    pub body: Vec<u8>,
}

/// What a program in Python has printed.
#[derive(Debug)]
pub struct Printed<T> {
    /// The JSON on stdout.
    pub answer: T,
    /// stderr.
    pub log: String,
}

/// The python that has the packages of `clients/requirements.txt`.
#[must_use]
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| python::with_packages_of("clients"))
}

/// The version of a package in `clients/requirements.txt`.
#[must_use]
pub fn version(package: &str) -> &'static str {
    let requirements = include_str!("../../tests/clients/requirements.txt");
    let version =
        requirements.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
    version.unwrap_or_else(|| panic!("requirements.txt has no {package}"))
}

/// Runs a program of `clients/python` with these arguments and this environment alone, to its end.
pub async fn run<T: DeserializeOwned>(
    script: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Printed<T> {
    let mut command = Command::new(python());
    command.env_clear().envs(environment.iter().copied());
    printed(command, &folder().join("python").join(script), arguments).await
}

/// Runs a program of `clients/python` as [`run`] does, with the published Apache Airflow in place
/// of `clients/python/airflow`.
pub async fn run_with_airflow<T: DeserializeOwned>(script: &str, arguments: &[&str]) -> Printed<T> {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(python::with_packages_of("airflow"));
    // -P: without the folder of the program, which has the one that stands in.
    command.arg("-P").env_clear().env("AIRFLOW_HOME", home.path());
    printed(command, &folder().join("python").join(script), arguments).await
}

/// Runs a program in Python of `examples` to its end. Returns what it prints.
pub async fn run_example(script: &str, arguments: &[&str]) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut command = Command::new(python());
    command.env_clear();
    let output = output(command, &examples.join(script), arguments).await;
    String::from_utf8(output.stdout).expect("it prints text")
}

async fn printed<T: DeserializeOwned>(
    command: Command,
    script: &Path,
    arguments: &[&str],
) -> Printed<T> {
    let output = output(command, script, arguments).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout).expect("it prints what the test reads");
    Printed { answer, log }
}

async fn output(mut command: Command, script: &Path, arguments: &[&str]) -> Output {
    // -B: no compiled files in the sources.
    command.arg("-B").arg(script).args(arguments).stdin(Stdio::null());
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python starts");
    let name = script.display().to_string();
    let output = program::output(&name, child).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {}: {}\n{log}", arguments.join(" "), output.status);
    output
}

/// All recordings, by name.
#[must_use]
pub fn recordings() -> Vec<Recording> {
    recordings_in(&folder().join("requests"))
}

/// Records the requests of all clients as they are today.
#[must_use]
pub fn record() -> Vec<Recording> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut record = Command::new(self::folder().join("record"));
    let _ = tools::output(record.arg(folder.path()).stderr(Stdio::inherit()));
    recordings_in(folder.path())
}

fn recordings_in(folder: &Path) -> Vec<Recording> {
    let files = |folder: &Path| {
        let entries = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry").path())
    };
    let mut all: Vec<_> = files(folder)
        .flat_map(|client| files(&client))
        .map(|path| {
            let name = path.strip_prefix(folder).expect("it is in the folder").with_extension("");
            let bytes = std::fs::read(&path).expect("a file");
            Recording::parse(name.to_str().expect("a name"), bytes)
        })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients")
}

impl Recording {
    /// The recording of this name.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let path = folder().join("requests").join(format!("{name}.http"));
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(name, bytes)
    }

    /// A request that was written by hand, with lines as here.
    #[must_use]
    pub fn by_hand(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").expect("an empty line after the head");
        Self::parse("by hand", format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes())
    }

    fn parse(name: &str, bytes: Vec<u8>) -> Self {
        let end =
            bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the head has an end");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (first.next().expect("a method"), first.next().expect("a target"));
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) =
                    line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        let is_chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let sent = &bytes[end + 4..];
        let body = if is_chunked { joined(sent) } else { sent.to_vec() };
        Self { name: name.to_owned(), bytes, method, target, headers, body }
    }

    /// All values of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// The body that was sent in these chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size = std::str::from_utf8(&chunks[..end]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is hexadecimal");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_has_its_parts() {
        let text = "POST /a?b=1 HTTP/1.1\nHost: h:1\nX-Two: 1\nx-two: 2\n\
                    Transfer-Encoding: chunked\n\n\
                    3\r\nhi\n\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let recording = Recording::by_hand(text);
        assert_eq!((recording.method.as_str(), recording.target.as_str()), ("POST", "/a?b=1"));
        assert_eq!(recording.header("x-two"), ["1", "2"]);
        assert_eq!(recording.body, b"hi\n0123456789");
        assert!(recording.bytes.starts_with(b"POST /a?b=1 HTTP/1.1\r\nHost: h:1\r\n"));
    }

    #[test]
    fn versions_are_exact() {
        assert_eq!(version("apache-airflow-providers-openfaas").split('.').count(), 3);
    }
}
