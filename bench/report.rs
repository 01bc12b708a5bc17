//! `make bench`, its last step: what the benchmarks printed becomes docs/bench.md and the plots in
//! docs/bench.
//!
//! The first argument is the folder that has what they printed, a file each.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use asyncqueue_bench::{
    load::Error,
    median,
    report::{self, Facts, PARTS, Part},
};
use test_support::tools;

/// Of what is written to the disk, to see how long it takes.
const BLOCK: [u8; 4096] = [0; 4096];
const SYNCS: usize = 50;

fn main() -> Result<(), Error> {
    let folder =
        env::args().nth(1).ok_or("no folder is named that has what the benchmarks printed")?;
    let parts: Vec<_> = PARTS
        .into_iter()
        .map(|(name, ..)| Part {
            name,
            printed: fs::read_to_string(Path::new(&folder).join(name).with_extension("md")).ok(),
        })
        .collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs");
    // No plot is left of what was not measured this time.
    let _ = fs::remove_dir_all(docs.join("bench"));
    fs::create_dir_all(docs.join("bench"))?;
    for (name, svg) in report::plots(&parts) {
        fs::write(docs.join("bench").join(name).with_extension("svg"), svg)?;
    }
    fs::write(docs.join("bench.md"), report::markdown(&facts(&parts)?, &parts, "bench"))?;
    Ok(())
}

/// What was measured, and on what.
fn facts(parts: &[Part]) -> Result<Facts, Error> {
    let ran = |name| parts.iter().any(|part| part.name == name && part.printed.is_some());
    let changed = if says(
        "git",
        &[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ":/",
            ":(top,exclude)docs/bench.md",
            ":(top,exclude)docs/bench",
        ],
    )
    .is_empty()
    {
        ""
    } else {
        ", with changes that are not committed"
    };
    let mut versions = vec![
        says("rustc", &["--version"]),
        says(&tools::program("nats", "nats-server").display().to_string(), &["--version"]),
    ];
    if ran("operator") {
        versions.push(format!(
            "Kubernetes {}",
            module("../tests/cluster/modules/kubernetes", "k8s.io/kubernetes")
        ));
    }
    if ran("peers") {
        let peer = |name, module_name| format!("{name} {}", module("peers/program", module_name));
        versions.push(says("go", &["version"]));
        versions.push(peer("Asynq", "github.com/hibiken/asynq"));
        versions.push(peer("Faktory", "github.com/contribsys/faktory"));
        versions.push(peer("River", "github.com/riverqueue/river"));
        versions.push(says("redis-server", &["--version"]).split(" sha=").take(1).collect());
        versions.push(says("psql", &["--version"]));
    }
    Ok(vec![
        ("date", says("date", &["--utc", "+%Y-%m-%d"])),
        ("commit", says("git", &["rev-parse", "--short=12", "HEAD"]) + changed),
        (
            "processors",
            format!(
                "{} of {}",
                std::thread::available_parallelism()?,
                field("/proc/cpuinfo", "model name")
            ),
        ),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", says("uname", &["-sr"])),
        ("disk", format!("{}; a sync of 4 KiB takes {:.2} ms", disk(), sync()?)),
        ("versions", versions.join("; ")),
    ])
}

/// What a program says of itself, on one line; nothing if it isn't there.
fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The file system under the data of all that was measured.
fn disk() -> String {
    let folder = env::temp_dir().display().to_string();
    says("findmnt", &["--noheadings", "--output=FSTYPE,SOURCE", "--target", &folder])
}

/// How long it takes to write to that file system, in milliseconds.
fn sync() -> Result<f64, Error> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(Duration::as_secs_f64(&begun.elapsed()) * 1e3);
    }
    Ok(median(&times))
}

/// The version of a Go module that another one names.
fn module(folder: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("go.mod");
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.trim().trim_start_matches("require "));
    let version = lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split_whitespace().next());
    version.unwrap_or_default().to_owned()
}

/// A field of a file of the kernel's.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim()));
    value.unwrap_or_default().to_owned()
}
