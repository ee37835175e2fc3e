//! The front door's configuration, judged by haproxy.

use std::process::Command;

use super::tools::{read, run, tool};

const FILE: &str = "deploy/haproxy/haproxy.cfg";

#[test]
fn haproxy_takes_the_file_and_addresses_from_the_environment() {
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
    let (well, said) = check(FILE);
    assert!(well, "{said}");
    assert!(!said.contains("WARNING"), "{said}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), read(FILE).replace("retry-on", "retri-on")).unwrap();
    assert!(!check(wrong.path().to_str().unwrap()).0);
}

/// The addresses that the file itself gives, by their variables.
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
fn a_stopping_instance_goes_on_for_longer_than_the_front_door_needs_to_notice() {
    let text = read(FILE);
    // The first failed check may come a whole `inter` after the signal, the second `fastinter` later, and each may
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
