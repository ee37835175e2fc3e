//! The programs on the pages of docs/send: against the service, and against a server that fails.

use http::auth::Scope;
use reqwest::Method;

use crate::support::app::App;
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::languages::{self, Language, tests_of_each};
use crate::support::program::Run;
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "clients-test-token";

/// The count that every program prints.
const COUNT: &str = "sports: 2 users\n";

/// The item that every program sends and the service rejects.
const REJECTED: &str = "item 3: invalid_segment: segment begins or ends with white space\n";

/// A response of 422, with two of the pairs rejected.
const NOTHING_ACCEPTED: &str = r#"{"title":"Unprocessable Entity","status":422,"code":"nothing_accepted","detail":"no pair is acceptable","accepted":0,"rejected":2,"errors":[{"index":0,"code":"expired","message":"too old"},{"index":2,"code":"in_future","message":"too early"}]}"#;

/// A page with a program.
struct Page {
    /// The page in docs/send.
    name: &'static str,
    /// The language of its one code block.
    language: Language,
    /// The file that its code block goes to.
    file: &'static str,
}

const PYTHON: Page = Page {
    name: "python.md",
    language: languages::PYTHON,
    file: "send.py",
};

const NODE: Page = Page {
    name: "node.md",
    language: languages::NODE,
    file: "send.mjs",
};

const GO: Page = Page {
    name: "go.md",
    language: languages::GO,
    file: "send.go",
};

const JAVA: Page = Page {
    name: "java.md",
    language: languages::JAVA,
    file: "Send.java",
};

impl Page {
    /// Runs the program against the service at `url`. `None` means that the test is to be skipped.
    async fn run(&self, url: &str, token: Option<&str>) -> Option<Run> {
        let folder = tempfile::tempdir().unwrap();
        let program = self.language.block_of(self.name);
        let file = (self.file, program.as_str());
        self.language.run(file, folder.path(), url, token).await
    }
}

async fn sends_and_counts(page: &Page) {
    let app = App::start().await;
    let url = format!("http://{}", app.addr);
    let Some(run) = page.run(&url, None).await else {
        return;
    };
    assert_eq!((run.code, run.out.as_str()), (Some(0), COUNT), "{run:?}");
    assert!(run.err.ends_with(REJECTED), "{run:?}");
    assert_eq!(app.users("sports").await, 2);
    assert_eq!(app.users("news").await, 1);
    app.stop().await;
}

async fn retries_with_its_token(page: &Page) {
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
    let Some(run) = page.run(&failing.url(), Some(TOKEN)).await else {
        return;
    };
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
    let rejecting = FaultServer::start(|_, _| Reply::status(422, "", NOTHING_ACCEPTED)).await;
    let Some(run) = page.run(&rejecting.url(), None).await else {
        return;
    };
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.err.contains("item 0: expired: too old\n"), "{run:?}");
    assert!(run.err.contains("item 2: in_future: too early\n"));
    assert_eq!(rejecting.requests().len(), 1);

    let unavailable = Reply::status(503, "Retry-After: 0\r\n", "{}");
    let unavailable = FaultServer::start(move |_, _| unavailable.clone()).await;
    let Some(run) = page.run(&unavailable.url(), None).await else {
        return;
    };
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.err.contains("503"), "{run:?}");
    assert_eq!(unavailable.requests().len(), 5);
}

tests_of_each!([sends_and_counts, retries_with_its_token, gives_up]: python = PYTHON, node = NODE, go = GO, java = JAVA);
