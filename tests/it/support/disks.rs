//! File systems for single tests: small, read-only, or broken. Mounting them needs the superuser.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::stderr::skip;

/// A file system that is unmounted on drop.
pub struct OwnDisk {
    directory: tempfile::TempDir,
    /// The file that holds it, unless it is in memory.
    image: Option<PathBuf>,
}

impl OwnDisk {
    /// A file system in memory, of this size in the syntax of `mount`. Returns `None`, after one visible line, if tmpfs
    /// can't be mounted.
    pub fn in_memory(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "headcount-test"];
        let mounted = run(Command::new("mount").args(arguments).arg(directory.path()));
        if mounted {
            let image = None;
            return Some(Self { directory, image });
        }
        skip("a small disk: tmpfs can't be mounted here");
        None
    }

    /// ext4 in a file, which becomes read-only after an error, as on most servers. Returns `None`, after one visible
    /// line, if it can't be created and mounted.
    pub fn ext4() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().with_extension("ext4");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(96 << 20)
            .unwrap();
        let disk = Self {
            directory,
            image: Some(image),
        };
        let made = run(Command::new("mkfs.ext4")
            .args(["-q", "-E", "lazy_itable_init=0"])
            .arg(disk.image.as_ref().unwrap()));
        if made && disk.mount() {
            return Some(disk);
        }
        skip("an ext4 file system: it can't be created and mounted here");
        None
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn mount(&self) -> bool {
        run(Command::new("mount")
            .args(["-o", "loop,errors=remount-ro"])
            .arg(self.image.as_ref().unwrap())
            .arg(self.path()))
    }

    /// Unmounts and mounts it, as a machine that restarts does. Data that was not synced may be lost.
    pub fn mount_again(&self) {
        assert!(run(Command::new("umount").arg(self.path())));
        assert!(self.mount());
    }

    /// Makes it read-only, or writable again. The system refuses to make it read-only while a file is open for writing.
    pub fn remount(&self, how: &str) -> bool {
        run(Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(self.path()))
    }

    /// Makes the kernel find an error in the file system. It refuses every change until it is mounted again.
    pub fn trigger_error(&self) {
        let device = Command::new("findmnt")
            .args(["-n", "-o", "SOURCE"])
            .arg(self.path())
            .output();
        let device = String::from_utf8(device.unwrap().stdout).unwrap();
        let name = device.trim().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    /// Drops everything that was not synced, and fails every call from here on, as when a machine loses power. Returns
    /// whether the system supports it.
    pub fn lose_power(&self) -> bool {
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(self.path()))
    }

    /// Fills the file system to the last byte. Removing the returned file frees the space.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for piece in [64 * 1024, 512, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        path
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // A lazy unmount, since a process that was just killed may still hold a file.
        run(Command::new("umount").arg("-l").arg(self.path()));
        if let Some(image) = &self.image {
            let _ = std::fs::remove_file(image);
        }
    }
}

/// Whether the command could be run and succeeded.
fn run(command: &mut Command) -> bool {
    let succeeded = |output: Output| output.status.success();
    command.output().is_ok_and(succeeded)
}
