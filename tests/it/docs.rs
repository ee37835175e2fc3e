//! The documentation matches the repository: named tests and files exist, links resolve, tables are accurate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_tests_named_in_reliability_exist() {
    let root = root();
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut promises = 0;
    // Skip the head of the table.
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

/// All pages of the book and of the root.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_owned(), root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && folder.starts_with(root().join("docs")) {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The content of a page without its code blocks.
fn prose(page: &Path) -> String {
    let text = std::fs::read_to_string(page).unwrap();
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// The targets of the links in a string.
fn links(text: &str) -> Vec<&str> {
    let parts = text.split("](").skip(1);
    parts.map(|part| part.split(')').next().unwrap()).collect()
}

/// The anchors of a page, as GitHub and mdBook make them from its headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter_map(|letter| match letter {
                ' ' => Some('-'),
                '-' | '_' => Some(letter),
                other => other.is_alphanumeric().then_some(other),
            });
            kept.collect()
        })
        .collect()
}

#[test]
fn links_resolve() {
    let (mut followed, mut broken) = (0, Vec::new());
    for page in pages() {
        let text = prose(&page);
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            if !target.exists() || (!anchor.is_empty() && !anchors(&target).contains(anchor)) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(followed > 100, "{followed} links were found");
}

#[test]
fn the_book_has_every_page_once() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let mut listed: Vec<_> = links(&summary).iter().map(|it| docs.join(it)).collect();
    listed.sort();
    let mut there: Vec<_> = pages();
    there.retain(|page| page.starts_with(&docs) && page.file_name().unwrap() != "SUMMARY.md");
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200, "{}", readme.lines().count());
}

fn architecture() -> String {
    std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap()
}

/// The file that ARCHITECTURE calls `name`: `http/route.rs` is in the crate `http`.
fn file_of(name: &str) -> PathBuf {
    let in_crate = name
        .split_once('/')
        .map(|(it, rest)| root().join("crates").join(it).join("src").join(rest));
    match in_crate {
        Some(path) if path.exists() => path,
        _ => root().join(name),
    }
}

#[test]
fn the_files_named_in_the_architecture_exist() {
    let page = architecture();
    let names = page.split('`').skip(1).step_by(2);
    let files: Vec<_> = names.filter(|name| name.ends_with(".rs")).collect();
    let missing: Vec<_> = files
        .iter()
        .filter(|name| !file_of(name).exists())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(files.len() > 50, "{} files were found", files.len());
}

/// The rows of the table whose head begins with `head`: the name in the first column, and the names in the last column.
fn table(head: &str) -> BTreeMap<String, BTreeSet<String>> {
    let page = architecture();
    let lines = page.lines().skip_while(|line| !line.starts_with(head));
    let rows = lines.skip(2).take_while(|line| line.starts_with("| "));
    let quoted = |cell: &str| -> BTreeSet<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let name = quoted(cells[0]).pop_first().unwrap();
        (name, quoted(cells[cells.len() - 1]))
    })
    .collect()
}

#[test]
fn crate_dependencies_match_the_architecture() {
    let mut crates = BTreeMap::new();
    let folders = std::fs::read_dir(root().join("crates")).unwrap();
    let manifests = folders.map(|entry| entry.unwrap().path().join("Cargo.toml"));
    for manifest in manifests.chain([root().join("Cargo.toml")]) {
        let manifest: toml::Value =
            toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap().keys();
        let ours = dependencies.filter(|name| root().join("crates").join(name).is_dir());
        crates.insert(
            name.trim_start_matches("headcount-").to_owned(),
            ours.cloned().collect::<BTreeSet<_>>(),
        );
    }
    assert_eq!(table("| Crate |"), crates);
}

/// The Rust files below `folder`, with their paths relative to it.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(folder).unwrap().to_owned(), text));
        }
    }
    found
}

/// The modules that each top-level module of `folder` imports, without tests.
fn imports(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut modules = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, text) in sources(folder) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let top = path.iter().next().unwrap().to_str().unwrap();
        let module = top.trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) || ["tests", "fuzz", "faults"].contains(&stem) {
            continue;
        }
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: String = program
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let names = code.split("crate::").skip(1).map(|rest| {
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            rest[..end.unwrap_or(rest.len())].to_owned()
        });
        let is_module = |name: &String| {
            folder.join(name).is_dir() || folder.join(format!("{name}.rs")).exists()
        };
        let used = modules.entry(module.to_owned()).or_default();
        used.extend(names.filter(|name| name != module && is_module(name)));
    }
    modules
}

#[test]
fn module_imports_match_the_architecture() {
    let engine = root().join("crates/engine/src");
    assert_eq!(table("| Module of `engine` |"), imports(&engine));
    assert_eq!(
        table("| Module of `headcount` |"),
        imports(&root().join("src"))
    );
}
