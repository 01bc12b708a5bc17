//! What the kernel says of a process, and the signals that it is sent.

use std::{path::PathBuf, process::Command, time::Duration};

use tokio::signal::unix::{SignalKind, signal as listen};

/// The kernel counts processor time in these, whatever its own clock is (`USER_HZ`, proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// Resident memory, in bytes.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

/// The most resident memory that it has had, in bytes.
#[must_use]
pub fn peak_resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

/// Lets a process open so many files, where the system's hard limit allows that.
///
/// # Panics
///
/// Where it does not.
pub fn allow_files(process: u32, files: u32) {
    let limit = format!("--nofile={files}");
    let allowed = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    assert!(allowed.expect("prlimit runs").success(), "{process} can't open {files} files");
}

fn status_bytes(process: u32, name: &str) -> u64 {
    let status = read(process, "status");
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).expect("a number of kB") * 1024
}

/// Processor time so far, its own and the kernel's for it. A process that has ended and that no
/// parent has waited for yet still has it.
#[must_use]
pub fn processor_time(process: u32) -> Duration {
    let stat = read(process, "stat");
    // What is before the last parenthesis is the name, with any spaces; the times are fields 14 and
    // 15 of all.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| TICK * ticks.parse::<u32>().expect("a number of ticks")).sum()
}

/// Sends a signal, by its name without `SIG`.
pub fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success(), "SIG{signal} could not be sent to {process}");
}

/// Works to the end, or until this process is asked to end. Then the work is dropped, and what it
/// started ends with it.
///
/// # Panics
///
/// Where signals can't be listened to.
pub fn unless_ended<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    /// A shell says of a program that a signal ended this and the signal's number.
    const ENDED: i32 = 128;
    // It may be large.
    let work = Box::pin(work);
    async {
        let [mut terminate, mut interrupt] = [SignalKind::terminate(), SignalKind::interrupt()]
            .map(|kind| listen(kind).expect("signals can be listened to"));
        let signal = tokio::select! {
            done = work => return done,
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        };
        eprintln!("ended by a signal before it was done");
        std::process::exit(ENDED + signal.as_raw_value())
    }
}

/// The process of a program in a pod of this node.
#[must_use]
pub fn in_pod(pod: &str, program: &str) -> Option<u32> {
    // A container's host is called as its pod.
    let (name, host) = (format!("/{program}"), format!("HOSTNAME={pod}"));
    let is_it = |process: &PathBuf| {
        let file = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
        let has = |strings: Vec<u8>, wanted: &dyn Fn(&[u8]) -> bool| {
            strings.split(|byte| *byte == 0).any(wanted)
        };
        has(file("cmdline"), &|argument| {
            argument.ends_with(name.as_bytes()) || argument == program.as_bytes()
        }) && has(file("environ"), &|variable| variable == host.as_bytes())
    };
    let processes =
        std::fs::read_dir("/proc").expect("/proc is there").flatten().map(|entry| entry.path());
    processes.filter(is_it).find_map(|process| process.file_name()?.to_str()?.parse().ok())
}

fn read(process: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process is there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_used_memory_and_time() {
        let me = std::process::id();
        let before = processor_time(me);
        while processor_time(me) < before + TICK * 2 {
            std::hint::spin_loop();
        }
        assert!(resident_bytes(me) > 100_000);
    }
}
