//! The service and the commands that speak to it, as a newcomer uses them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The program without the settings of whoever runs the tests.
fn headcount(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADCOUNT_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// A running service; killed when a test ends before it is stopped.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    fn start(folder: &Path) -> Self {
        let mut command = headcount(&["serve", "--listen", "127.0.0.1:0"]);
        command.current_dir(folder).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "no address in the log"
            );
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.trim().to_owned();
            }
        };
        // Somebody has to read on, or the service would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, url }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = headcount(arguments)
            .env("HEADCOUNT_URL", &self.url)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, text) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Asks the service to stop as a supervisor would; its exit code.
    fn stop(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_loaded_is_counted_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path());
    let file = folder.path().join("pairs.csv");
    let mut csv = std::fs::File::create(&file).unwrap();
    csv.write_all(
        "user_id,segment\nu1,../../etc\nu2,../../etc\nu1,%2F\nu1,🏀 a/b\nu1, \n".as_bytes(),
    )
    .unwrap();
    let loaded = service.json(&["load", file.to_str().unwrap()]);
    assert_eq!(
        (loaded["accepted"].as_u64(), loaded["rejected"].as_u64()),
        (Some(4), Some(1))
    );
    assert_eq!(
        loaded["rejected_by_code"]["invalid_segment"]["examples"][0]["line"],
        6
    );
    let spec = "pairs=20000,users=300,segments=5";
    assert_eq!(
        service.json(&["load", "--generate", spec])["accepted"],
        20_000
    );

    let check = |service: &Service| {
        for (segment, users) in [
            ("../../etc", 2),
            ("%2F", 1),
            ("🏀 a/b", 1),
            ("segment-000", 300),
            ("none", 0),
        ] {
            assert_eq!(
                service.json(&["count", segment])["users"],
                users,
                "{segment}"
            );
            assert_eq!(
                service.json(&["count", segment, "--fresh", "--window", "1h"])["users"],
                users
            );
        }
        let listed = service.json(&[
            "segments", "--prefix", "segment-", "--sort", "users", "--limit", "3",
        ]);
        assert_eq!(listed["segments"].as_array().unwrap().len(), 3);
        assert_eq!(
            service.json(&["segments"])["segments"]
                .as_array()
                .unwrap()
                .len(),
            8
        );
    };
    check(&service);
    assert_eq!(service.run(&["count", "sports", "--window", "15d"]).0, 1);
    assert!(
        service
            .run(&["count", "%2F"])
            .1
            .starts_with("%2F: 1 user in the last 14d as of ")
    );
    assert!(service.run(&["segments"]).1.contains("SEGMENT\n"));
    assert_eq!(
        service.json(&["refresh", "--segment", "segment-000"])["failed"],
        0
    );
    assert_eq!(service.json(&["refresh"])["failed"], 0);
    assert_eq!(service.json(&["archive"])["removed"], 0);

    // The directory and the address have an owner.
    let second = headcount(&["serve", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = service.url.strip_prefix("http://").unwrap();
    let second = headcount(&["serve", "--listen", taken])
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        String::from_utf8(second.stderr)
            .unwrap()
            .contains("can't listen on")
    );

    assert_eq!(service.stop(), 0);
    let service = Service::start(folder.path());
    check(&service);
    assert_eq!(service.stop(), 0);
}

#[test]
fn wrong_settings_stop_the_start_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let output = headcount(&["serve", "--resolution", "7h"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        "error: setting `resolution` is \"7h\" (--resolution): give whole seconds from 1s to 1h\n"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
