//! The programs on the pages of docs/send: against the service, and against a server that fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::auth::Scope;
use reqwest::Method;
use tokio::sync::Mutex;

use crate::support::app::App;
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::program::{Run, finish};
use crate::support::servers::find;
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "clients-test-token";

/// The count that every program prints.
const COUNT: &str = "sports: 2 users\n";

/// The item that every program sends and the service rejects.
const REJECTED: &str = "item 3: invalid_segment: segment begins or ends with white space\n";

/// A response of 422, with two of the pairs rejected.
const NOTHING_ACCEPTED: &str = r#"{"title":"Unprocessable Entity","status":422,"code":"nothing_accepted","detail":"no pair is acceptable","accepted":0,"rejected":2,"errors":[{"index":0,"code":"expired","message":"too old"},{"index":2,"code":"in_future","message":"too early"}]}"#;

/// A page, and how its program is run.
struct Page {
    /// The page in docs/send.
    name: &'static str,
    /// The language of its code block.
    language: &'static str,
    /// The file that its code block goes to.
    file: &'static str,
    /// What runs the file, and the variable that names it.
    runner: (&'static str, &'static str),
    /// The arguments before the file.
    arguments: &'static [&'static str],
}

const PYTHON: Page = Page {
    name: "python.md",
    language: "python",
    file: "send.py",
    runner: ("python3", "HEADCOUNT_TEST_PYTHON3"),
    arguments: &[],
};

const NODE: Page = Page {
    name: "node.md",
    language: "js",
    file: "send.mjs",
    runner: ("node", "HEADCOUNT_TEST_NODE"),
    arguments: &[],
};

const GO: Page = Page {
    name: "go.md",
    language: "go",
    file: "send.go",
    runner: ("go", "HEADCOUNT_TEST_GO"),
    arguments: &["run"],
};

const JAVA: Page = Page {
    name: "java.md",
    language: "java",
    file: "Send.java",
    runner: ("java", "HEADCOUNT_TEST_JAVA"),
    arguments: &[],
};

impl Page {
    /// `None` means that the test is to be skipped.
    fn runner(&self) -> Option<PathBuf> {
        find(self.runner.0, self.runner.1)
    }

    /// The one code block of the page.
    fn program(&self) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/send");
        let text = std::fs::read_to_string(path.join(self.name)).unwrap();
        let fences = text.lines().filter(|line| line.starts_with("```"));
        assert_eq!(fences.count(), 2, "{} has one code block", self.name);
        let opening = format!("\n```{}\n", self.language);
        let (_, rest) = text.split_once(&opening).unwrap();
        let (program, _) = rest.split_once("```\n").unwrap();
        program.to_owned()
    }

    /// Runs the program against the service at `url`.
    async fn run(&self, runner: &Path, url: String, token: Option<&str>) -> Run {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(self.file), self.program()).unwrap();
        let mut command = Command::new(runner);
        command.args(self.arguments).arg(self.file);
        command.env("HEADCOUNT_URL", url);
        command.env_remove("HEADCOUNT_TOKEN");
        if let Some(token) = token {
            command.env("HEADCOUNT_TOKEN", token);
        }
        settle(&mut command, folder.path());
        let _turn = TURN.lock().await;
        let run = tokio::task::spawn_blocking(move || finish(&mut command));
        run.await.unwrap()
    }
}

/// Held by the program that runs, so that Go compiles its packages once.
pub static TURN: Mutex<()> = Mutex::const_new(());

/// Runs `command` in `folder`, whatever variables are set here.
pub fn settle(command: &mut Command, folder: &Path) {
    command.current_dir(folder);
    // Python uses a proxy for loopback addresses too.
    command.env("no_proxy", "*");
    // The first compile of Go's packages takes minutes on a busy machine. Later runs use the cache in Cargo's folder.
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
    command.env("GOCACHE", cache).env("GOPATH", cache);
    command.env("GOTMPDIR", folder);
    command.env("GOFLAGS", "").env("GOENV", "off");
    command.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
}

async fn sends_and_counts(page: &Page) {
    let Some(runner) = page.runner() else { return };
    let app = App::start().await;
    let run = page.run(&runner, format!("http://{}", app.addr), None);
    let run = run.await;
    assert_eq!((run.code, run.out.as_str()), (Some(0), COUNT), "{run:?}");
    assert!(run.err.ends_with(REJECTED), "{run:?}");
    assert_eq!(app.users("sports").await, 2);
    assert_eq!(app.users("news").await, 1);
    app.stop().await;
}

async fn retries_with_its_token(page: &Page) {
    let Some(runner) = page.runner() else { return };
    let sender = token("sender", TOKEN, &[Scope::Write, Scope::Read]);
    let (app, _folder) = app_with_token(sender).await;
    let port = app.addr.port();
    let failing = FaultServer::start(move |number, _| match number {
        0 => Reply::Bytes(Vec::new()),
        1 => Reply::status(503, "Retry-After: 1\r\n", "{}"),
        2 | 4 => Reply::status(429, "Retry-After: 0\r\n", "{}"),
        _ => Reply::Pass(port),
    });
    let failing = failing.await;
    let run = page.run(&runner, failing.url(), Some(TOKEN)).await;
    assert_eq!((run.code, run.out.as_str()), (Some(0), COUNT), "{run:?}");
    let requests = failing.requests();
    assert_eq!(requests.len(), 6, "{requests:?}");
    assert!(requests[..4].iter().all(|one| one.body == requests[0].body));
    let header = [("authorization", "Bearer clients-test-token")];
    let count = app.send_with(Method::GET, "/v1/segments/sports/count", &header);
    assert_eq!(count.await.json["users"], 2);
    app.stop().await;
}

async fn gives_up(page: &Page) {
    let Some(runner) = page.runner() else { return };
    let rejecting = FaultServer::start(|_, _| Reply::status(422, "", NOTHING_ACCEPTED)).await;
    let run = page.run(&runner, rejecting.url(), None).await;
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.err.contains("item 0: expired: too old\n"), "{run:?}");
    assert!(run.err.contains("item 2: in_future: too early\n"));
    assert_eq!(rejecting.requests().len(), 1);

    let unavailable = Reply::status(503, "Retry-After: 0\r\n", "{}");
    let unavailable = FaultServer::start(move |_, _| unavailable.clone()).await;
    let run = page.run(&runner, unavailable.url(), None).await;
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.err.contains("503"), "{run:?}");
    assert_eq!(unavailable.requests().len(), 5);
}

/// The tests of one language.
macro_rules! tests_of {
    ($module:ident, $page:ident) => {
        mod $module {
            #[tokio::test]
            async fn sends_and_counts() {
                super::sends_and_counts(&super::$page).await;
            }

            #[tokio::test]
            async fn retries_with_its_token() {
                super::retries_with_its_token(&super::$page).await;
            }

            #[tokio::test]
            async fn gives_up() {
                super::gives_up(&super::$page).await;
            }
        }
    };
}

tests_of!(python, PYTHON);
tests_of!(node, NODE);
tests_of!(go, GO);
tests_of!(java, JAVA);
