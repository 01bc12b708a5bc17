//! Redis, PostgreSQL and Faktory, each on loopback, with its data in a folder that goes with it.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use asyncqueue_bench::{free_addr, load::Error};
use tempfile::TempDir;
use test_support::{program::Program, tools};

use crate::programs;

/// Where Debian has the programs of each version of PostgreSQL.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Whom PostgreSQL runs as, where this is root, which it refuses to be.
const USER: &str = "postgres";
/// PostgreSQL's own is 100, less three that it keeps: enough for clients and a worker's, but not
/// for both of two runs.
const CONNECTIONS: &str = "200";

/// A running server of any kind.
pub(crate) struct Server {
    program: Program,
    /// What ends it such that it leaves nothing behind.
    signal: &'static str,
    /// As its clients want it.
    pub(crate) store: String,
    _folder: TempDir,
}

impl Server {
    /// Redis with its log of all commands, written to disk each second, as its own
    /// documentation suggests.
    pub(crate) fn redis() -> Result<Self, Error> {
        let (folder, addr) = (folder()?, free_addr());
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string(), "--dir"])
            .arg(folder.path());
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
        let program = Program::start_other("redis-server", &mut command);
        Ok(Self { program, signal: "TERM", store: addr.to_string(), _folder: folder })
    }

    /// Faktory as it comes, with a Redis of its own that it starts.
    pub(crate) fn faktory() -> Result<Self, Error> {
        let (folder, addr) = (folder()?, free_addr());
        let mut command = Command::new(&*programs::FAKTORY);
        command.args(["-e", "development", "-l", "warn", "-b", &addr.to_string()]);
        // Its page for a browser.
        command.args(["-w", &free_addr().to_string()]);
        command.arg("-d").arg(folder.path().join("data")).arg("-c").arg(folder.path());
        let program = Program::start_other("faktory", &mut command);
        Ok(Self { program, signal: "TERM", store: addr.to_string(), _folder: folder })
    }

    /// PostgreSQL as it comes, but for `synchronous_commit`.
    pub(crate) fn postgres(synchronous_commit: &str) -> Result<Self, Error> {
        let (folder, addr) = (folder()?, free_addr());
        let user = if is_root() { Some((id("-u")?, id("-g")?)) } else { None };
        let programs = postgres_programs()?;
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group))?;
        }
        let data = folder.path().join("data");
        let command = |name: &str| {
            let mut command = Command::new(programs.join(name));
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command.current_dir(folder.path()).arg("-D").arg(&data);
            command
        };
        let _ = tools::output(command("initdb").args([
            "--auth=trust",
            "--username=bench",
            "--encoding=UTF8",
        ]));
        let mut postgres = command("postgres");
        postgres.args(["-p", &addr.port().to_string(), "-c", "listen_addresses=127.0.0.1"]);
        postgres.args(["-c", "unix_socket_directories="]);
        for setting in [
            format!("max_connections={CONNECTIONS}"),
            format!("synchronous_commit={synchronous_commit}"),
        ] {
            postgres.args(["-c", &setting]);
        }
        postgres.stderr(std::fs::File::create(folder.path().join("log"))?);
        let program = Program::start_other("postgres", &mut postgres);
        let store = format!("postgres://bench@{addr}/postgres?sslmode=disable");
        Ok(Self { program, signal: "QUIT", store, _folder: folder })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.program.signal(self.signal);
        // Longer than it takes; it is killed then.
        for _ in 0..100 {
            if !self.program.is_running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn folder() -> std::io::Result<TempDir> {
    TempDir::with_prefix("asyncqueue-peer-")
}

/// Where the programs of PostgreSQL's newest version are.
fn postgres_programs() -> Result<PathBuf, Error> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest =
        versions.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.ok_or("PostgreSQL is not installed: build/need postgres")?;
    Ok(Path::new(VERSIONS).join(newest.to_string()).join("bin"))
}

fn is_root() -> bool {
    tools::output(Command::new("id").arg("-u")).trim() == "0"
}

fn id(which: &str) -> Result<u32, Error> {
    Ok(tools::output(Command::new("id").args([which, USER])).trim().parse()?)
}
