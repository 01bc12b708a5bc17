//! A slow disk: the kernel lets a process do so many writes a second on a device, by the control
//! group `blkio`.

use std::{fs, path::PathBuf, process::Command};

use super::{Servers, disk};

/// The controller's folder.
const CONTROLLER: &str = "/sys/fs/cgroup/blkio";

/// Whether disks can be slowed down here.
pub(crate) fn is_there() -> bool {
    fs::exists(PathBuf::from(CONTROLLER).join("blkio.throttle.write_iops_device")).unwrap_or(false)
}

/// A disk that is slow until this is dropped.
#[derive(Debug)]
pub(crate) struct SlowDisk {
    group: PathBuf,
    process: u32,
}

impl Servers {
    /// Lets the only server write so many times a second to the disk of its own. What counts is
    /// what it waits for: with `sync_interval: always` each write.
    pub(crate) fn slow_down(&mut self, writes: u32) -> SlowDisk {
        let server = self.one();
        let found = Command::new("losetup")
            .args(["--noheadings", "--output=MAJ:MIN", "--associated"])
            .arg(disk(server))
            .output();
        let device = String::from_utf8(found.unwrap().stdout).unwrap().trim().to_owned();
        let slow = SlowDisk {
            group: PathBuf::from(CONTROLLER)
                .join(format!("asyncqueue-chaos-{}", std::process::id())),
            process: server.id(),
        };
        fs::create_dir(&slow.group).unwrap();
        fs::write(
            slow.group.join("blkio.throttle.write_iops_device"),
            format!("{device} {writes}"),
        )
        .unwrap();
        fs::write(slow.group.join("cgroup.procs"), slow.process.to_string()).unwrap();
        slow
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // The server may have ended already, and then the group is empty.
        let _ = fs::write(PathBuf::from(CONTROLLER).join("cgroup.procs"), self.process.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}
