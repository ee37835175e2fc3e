//! Programs on the pages of docs/send in other languages, and how they are run.

use std::path::Path;
use std::process::Command;

use tokio::sync::Mutex;

use super::program::{Run, finish};
use super::servers::find;

/// How a program in a language is run.
pub struct Language {
    /// What its code blocks are marked with.
    pub name: &'static str,
    /// What runs the file, and the variable that names it.
    runner: (&'static str, &'static str),
    /// The arguments before the file.
    arguments: &'static [&'static str],
}

pub const SHELL: Language = Language {
    name: "sh",
    runner: ("sh", "HEADCOUNT_TEST_SH"),
    arguments: &[],
};

pub const PYTHON: Language = Language {
    name: "python",
    runner: ("python3", "HEADCOUNT_TEST_PYTHON3"),
    arguments: &[],
};

pub const NODE: Language = Language {
    name: "js",
    runner: ("node", "HEADCOUNT_TEST_NODE"),
    arguments: &[],
};

pub const GO: Language = Language {
    name: "go",
    runner: ("go", "HEADCOUNT_TEST_GO"),
    arguments: &["run"],
};

pub const JAVA: Language = Language {
    name: "java",
    runner: ("java", "HEADCOUNT_TEST_JAVA"),
    arguments: &[],
};

/// Held by the Go program that runs, so that its packages are compiled once.
static GO_TURN: Mutex<()> = Mutex::const_new(());

impl Language {
    /// The one code block of this language on a page of docs/send.
    pub fn block_of(&self, page: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/send");
        let text = std::fs::read_to_string(path.join(page)).unwrap();
        let opening = format!("\n```{}\n", self.name);
        assert_eq!(text.matches(&opening).count(), 1, "{page}");
        let (_, rest) = text.split_once(&opening).unwrap();
        rest.split_once("```\n").unwrap().0.to_owned()
    }

    /// Runs a program from a file of this name in `folder`, against the service at `url`, whatever variables are set here.
    /// `None` means that the test is to be skipped.
    pub async fn run(
        &self,
        (file, program): (&str, &str),
        folder: &Path,
        url: &str,
        token: Option<&str>,
    ) -> Option<Run> {
        let mut command = Command::new(find(self.runner.0, self.runner.1)?);
        std::fs::write(folder.join(file), program).unwrap();
        command.args(self.arguments).arg(file).current_dir(folder);
        command.env("HEADCOUNT_URL", url);
        command.env_remove("HEADCOUNT_TOKEN");
        if let Some(token) = token {
            command.env("HEADCOUNT_TOKEN", token);
        }
        // Python uses a proxy for loopback addresses too.
        command.env("no_proxy", "*");
        // The first compile of Go's packages takes minutes on a busy machine. Later runs use the cache in Cargo's folder.
        let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
        command.env("GOCACHE", cache).env("GOPATH", cache);
        command.env("GOTMPDIR", folder);
        command.env("GOFLAGS", "").env("GOENV", "off");
        command.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
        let _turn = match self.name {
            "go" => Some(GO_TURN.lock().await),
            _ => None,
        };
        let run = tokio::task::spawn_blocking(move || finish(&mut command));
        Some(run.await.unwrap())
    }
}

/// A module of tests for each value: each test calls the function of its name with a reference to the value.
macro_rules! tests_of_each {
    ($tests:tt: $($module:ident = $value:ident),* $(,)?) => {
        $(tests_of_each!(@ $tests $module $value);)*
    };
    (@ [$($test:ident),*] $module:ident $value:ident) => {
        mod $module {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::$value).await;
            })*
        }
    };
}
pub(crate) use tests_of_each;
