//! What the documentation says of the tests is true.

use std::path::Path;

#[test]
fn the_tests_that_reliability_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut promises = 0;
    // The first two rows are the table's head.
    for row in rows.filter(|row| !row.starts_with("| Broken")) {
        let seen_by = row.rsplit(" | ").next().unwrap();
        let tests: Vec<_> = seen_by.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(source.contains(&format!("fn {name}(")), "no test {test}");
        }
        promises += 1;
    }
    assert!(promises > 10, "{promises} promises were found");
}
