//! headcount as a library: runs the example program twice on one directory.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_example_counts_and_persists() {
    let directory = tempfile::tempdir().unwrap();
    let expected =
        "sports, two weeks: 2\nsports, one day:   2\nnews, two weeks:   1\nunknown:           0\n";
    for _ in 0..2 {
        let output = Command::new(example("embed"))
            .arg(directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

/// Builds an example, unless `cargo test` has built it already, and returns its path.
fn example(name: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", name])
        .status();
    assert!(built.unwrap().success());
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("examples").join(name)
}
