//! The clocks of the programs on the stage, by libfaketime.

use std::{fmt, fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use test_support::wait::until;

use super::Stage;

/// Where Debian and Ubuntu have it, as their program `faketime` says it to the loader, which fills
/// in `$LIB`.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// A line of a log is not older than this when it is read.
const AGE: Duration = Duration::from_secs(60);

/// Whose clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Workers,
    Gateways,
}

/// Whether libfaketime is there.
pub(crate) fn are_there() -> bool {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut folders = folders.map(|folder| folder.path()).chain([PathBuf::from("/usr/lib")]);
    folders.any(|folder| folder.join("faketime/libfaketime.so.1").exists())
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workers => "workers",
            Self::Gateways => "gateways",
        })
    }
}

impl Whose {
    /// What the names of their logs begin with.
    fn logs(self) -> &'static str {
        match self {
            Self::Workers => "worker-",
            Self::Gateways => "gateway-",
        }
    }
}

impl Stage {
    /// Waits until one of these programs shows in its log that its clock is wrong by so many hours.
    pub(crate) async fn clocks_are_seen(&self, whose: Whose, hours: i32) {
        let wrong = Duration::from_secs(u64::from(hours.unsigned_abs()) * 3600);
        until(&format!("the clocks of {whose} are wrong by {hours} h"), async || {
            let now = Timestamp::now();
            let expected = if hours < 0 { now - wrong } else { now + wrong };
            let logs = fs::read_dir(&self.folder).unwrap().flatten();
            let mut logs =
                logs.filter(|log| log.file_name().to_string_lossy().starts_with(whose.logs()));
            let shows = |log: &fs::DirEntry| {
                let text = fs::read_to_string(log.path()).unwrap_or_default();
                let mut times = text
                    .lines()
                    .rev()
                    .filter_map(|line| line.split(' ').next()?.parse::<Timestamp>().ok());
                times.next().is_some_and(|time| time.duration_since(expected).unsigned_abs() < AGE)
            };
            logs.any(|log| shows(&log)).then_some(())
        })
        .await;
    }

    /// Sets clocks wrong by so many hours, from now on and for programs that start later.
    pub(crate) fn set_clocks(&self, whose: Whose, hours: i32) {
        let (file, new) = (self.clock(whose), self.clock(whose).with_extension("new"));
        fs::write(&new, format!("{hours:+}h")).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// The settings of a program whose clock can be set.
    pub(super) fn clock_settings(&self, whose: Whose) -> Vec<(&'static str, String)> {
        if !self.setup.has_clocks {
            return Vec::new();
        }
        if !self.clock(whose).exists() {
            self.set_clocks(whose, 0);
        }
        vec![
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.clock(whose).to_str().unwrap().to_owned()),
            // A jump is seen at once.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Under both names that it has had.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn clock(&self, whose: Whose) -> PathBuf {
        self.folder.join(format!("clock-of-{whose}"))
    }
}
