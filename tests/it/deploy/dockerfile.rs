//! The image: checked by a linter and by checkov, and compared with the program.

use std::path::PathBuf;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::helm;
use super::kubernetes::render;
use super::names::Container;
use super::tools::{items, read, root, run, string, tool, yaml};

#[test]
fn the_dockerfile_passes_the_linter() {
    let Some(linter) = tool("dockerfile-utils") else {
        return;
    };
    let (ok, output) = run(Command::new(&linter).args(["lint", "Dockerfile"]));
    assert!(ok && output.trim().is_empty(), "{output}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        wrong.path(),
        read("Dockerfile").replace("EXPOSE", "EXPOSED"),
    )
    .unwrap();
    assert!(!run(Command::new(&linter).arg("lint").arg(wrong.path())).0);
}

#[test]
fn checkov_reports_only_explained_findings() {
    let Some(checkov) = tool("checkov") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(checkov);
    command.args([
        "--config-file",
        "deploy/checkov.yaml",
        "--file",
        "Dockerfile",
    ]);
    for overlay in ["demo", "production"] {
        let Some(rendered) = render(overlay) else {
            return;
        };
        let path = folder.path().join(format!("{overlay}.yaml"));
        std::fs::write(&path, rendered).unwrap();
        command.arg("--file").arg(path);
    }
    for (values, rendered) in helm::rendered().unwrap_or_default() {
        let path = folder.path().join(format!("helm-{values}.yaml"));
        std::fs::write(&path, rendered).unwrap();
        command.arg("--file").arg(path);
    }
    let (ok, output) = run(&mut command);
    assert!(ok, "{output}");
    let config = &yaml(&read("deploy/checkov.yaml"))[0];
    assert_eq!(items(&config["skip-check"]).count(), 2);
}

/// The instructions, with continued lines joined and without comments.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter(|line| !line.trim().is_empty());
    instructions
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            (name.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

fn all(name: &str) -> Vec<String> {
    let found = instructions().into_iter().filter(|(it, _)| it == name);
    found.map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_matches_the_program() {
    let list = |text: &str| -> Vec<String> {
        let list: Value = serde_json::from_str(text).unwrap();
        items(&list).map(|it| string(it).to_owned()).collect()
    };
    assert_eq!(list(&all("ENTRYPOINT")[0]), ["headcount"]);
    let environment = all("ENV").join(" ");
    let environment: BTreeMap<_, _> = environment
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let port = environment["HEADCOUNT_LISTEN"].rsplit(':').next().unwrap();
    assert_eq!(all("EXPOSE"), [port]);
    assert!(all("USER")[0].starts_with("10001"));
    assert_eq!(all("STOPSIGNAL"), ["SIGTERM"]);
    Container {
        place: "Dockerfile: CMD".into(),
        arguments: list(&all("CMD")[0]),
        environment,
    }
    .check();
    let health = &all("HEALTHCHECK")[0];
    let command = list(health.split_once("CMD ").unwrap().1);
    assert_eq!(command[0], "headcount");
    Container {
        place: "Dockerfile: HEALTHCHECK".into(),
        arguments: command[1..].to_vec(),
        environment: BTreeMap::new(),
    }
    .check();
    let version = env!("CARGO_PKG_VERSION");
    assert!(all("ARG").contains(&format!("VERSION={version}")));
    for file in ["docker-compose.yml", "k8s/base/kustomization.yaml"] {
        assert!(read(file).contains(version), "{file}");
    }
}

/// The stages, each from its `FROM` on.
fn stages() -> Vec<Vec<(String, String)>> {
    let mut stages = Vec::new();
    for instruction in instructions() {
        if instruction.0 == "FROM" {
            stages.push(Vec::new());
        }
        if let Some(stage) = stages.last_mut() {
            stage.push(instruction);
        }
    }
    stages
}

#[test]
fn dependencies_are_built_before_any_source_is_copied() {
    let stages = stages();
    let [manifests, build, _] = stages.as_slice() else {
        panic!("{stages:?}");
    };
    let position = |stage: &[(String, String)], part: &str| {
        stage.iter().position(|(_, rest)| rest.contains(part))
    };
    let first_build = position(build, "cargo build").unwrap();
    for (name, rest) in &build[..first_build] {
        let is_lock = rest == "Cargo.toml Cargo.lock ./";
        assert!(
            name != "COPY" || is_lock || rest.starts_with("--from=manifests"),
            "a change of {rest} would build all dependencies again"
        );
    }
    // What the manifests' stage gives on is the same while no file comes or goes.
    let emptied = &manifests[position(manifests, "truncate").unwrap()].1;
    assert!(emptied.contains("! -name Cargo.toml -delete"));
    assert!(emptied.contains("find benches -type f -exec truncate --size 0"));
}

#[test]
fn the_image_has_no_debug_lines_and_the_build_needs_no_front_end() {
    assert!(!read("Dockerfile").contains("# syntax="));
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let profile = &manifest["profile"]["dist"];
    assert_eq!(profile["strip"].as_str(), Some("debuginfo"));
    for build in all("RUN").iter().filter(|it| it.contains("cargo build")) {
        assert!(build.contains("--profile dist --locked"), "{build}");
    }
}

#[test]
fn the_build_context_contains_every_source() {
    let ignore = read(".dockerignore");
    let kept: Vec<_> = ignore
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    let copied = all("COPY")
        .into_iter()
        .filter(|it| !it.starts_with("--from"));
    let mut sources = Vec::new();
    for copy in copied {
        let words: Vec<_> = copy.split_whitespace().map(str::to_owned).collect();
        sources.extend_from_slice(&words[..words.len() - 1]);
    }
    sources.sort_unstable();
    // One stage copies the manifests of the crates, the next one their sources.
    sources.dedup();
    let mut expected = kept.clone();
    expected.sort_unstable();
    assert_eq!(
        sources, expected,
        "the Dockerfile copies exactly what .dockerignore allows"
    );
    for path in &kept {
        assert!(root().join(path).exists(), "{path}");
    }
    // Files that sources include must be in the build context.
    let sources = files_of("src").chain(files_of("crates"));
    for (file, included) in sources.flat_map(includes) {
        let path = file.parent().unwrap().join(&included).canonicalize();
        let path = path.unwrap_or_else(|error| panic!("{included} in {}: {error}", file.display()));
        let place = path.strip_prefix(root().canonicalize().unwrap()).unwrap();
        assert!(
            kept.iter().any(|kept| place.starts_with(kept)),
            "{} includes {}, which is not in the build context",
            file.display(),
            place.display()
        );
    }
}

/// The files that a source includes at build time, without its tests.
fn includes(file: PathBuf) -> Vec<(PathBuf, String)> {
    let text = std::fs::read_to_string(&file).unwrap();
    let program = text.split("#[cfg(test)]").next().unwrap();
    let lines = program.lines().filter(|line| line.contains("include_"));
    let named = lines.map(|line| line.split('"').nth(line.matches('"').count() - 1));
    named
        .map(|path| (file.clone(), path.unwrap().to_owned()))
        .collect()
}

fn files_of(folder: &str) -> impl Iterator<Item = PathBuf> {
    let mut open = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    files.into_iter()
}
