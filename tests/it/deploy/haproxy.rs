//! The HAProxy configuration, checked by haproxy.

use std::process::Command;

use super::tools::{read, run, tool};

const FILE: &str = "deploy/haproxy/haproxy.cfg";

#[test]
fn haproxy_accepts_the_file_and_addresses_from_the_environment() {
    let Some(haproxy) = tool("haproxy") else {
        return;
    };
    let check = |file: &str| {
        let mut command = Command::new(&haproxy);
        for (name, _) in addresses() {
            command.env(name, "127.0.0.1:1");
        }
        run(command.args(["-c", "-f", file]))
    };
    let (ok, output) = check(FILE);
    assert!(ok, "{output}");
    assert!(!output.contains("WARNING"), "{output}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), read(FILE).replace("retry-on", "retri-on")).unwrap();
    assert!(!check(wrong.path().to_str().unwrap()).0);
}

#[test]
fn haproxy_looks_up_no_name_before_it_starts() {
    let Some(haproxy) = tool("haproxy") else {
        return;
    };
    // With the names of docker-compose.yml, which do not resolve here.
    let (ok, output) = run(Command::new(haproxy).args(["-c", "-f", FILE]));
    assert!(ok && !output.contains("could not resolve"), "{output}");
}

/// The default addresses in the file, by variable.
pub fn addresses() -> Vec<(String, String)> {
    let text = read(FILE);
    let given = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("presetenv "));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    given
        .map(|line| pair(line.split_once(' ').unwrap()))
        .collect()
}

#[test]
fn the_shutdown_delay_exceeds_the_health_check_detection_time() {
    let text = read(FILE);
    // The first failed check may come a whole `inter` after the signal and the second `fastinter` later. Each check may
    // take as long again.
    assert!(text.contains("inter 1s fastinter 250ms") && text.contains("fall 2"));
    let needed = 2.5;
    for (file, key) in [
        ("docker-compose.yml", "HEADCOUNT_SHUTDOWN_DELAY: "),
        ("deploy/rehearse", "HEADCOUNT_SHUTDOWN_DELAY="),
    ] {
        let text = read(file);
        let delays = text.split(key).skip(1).map(|rest| {
            let seconds = rest.split('s').next().unwrap();
            seconds.parse::<f64>().unwrap()
        });
        for delay in delays {
            assert!(delay >= needed, "{file}: {delay} s");
        }
    }
}
