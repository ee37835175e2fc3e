//! The snippets on docs/send/snippets.md: against a service that fails first, and one that refuses.

use std::path::Path;
use std::process::Command;

use http::auth::Scope;
use reqwest::Method;

use crate::clients::{TURN, settle};
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::program::{Run, finish};
use crate::support::servers::find;
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "hc_a-token-of-a-sender";
const PAIRS: &str =
    "{\"user_id\":\"u1\",\"segment\":\"sports\"}\n{\"user_id\":\"u2\",\"segment\":\"sports\"}\n";
/// The greatest number of lines of a snippet.
const SHORT: usize = 15;

/// A snippet, and the program around it, which reads pairs.ndjson and fails unless they are accepted.
struct Snippet {
    language: &'static str,
    /// What runs the file, and the variable that names it.
    runner: (&'static str, &'static str),
    arguments: &'static [&'static str],
    file: &'static str,
    before: &'static str,
    after: &'static str,
}

const SHELL: Snippet = Snippet {
    language: "sh",
    runner: ("sh", "HEADCOUNT_TEST_SH"),
    arguments: &[],
    file: "post.sh",
    before: "",
    after: "",
};

const PYTHON: Snippet = Snippet {
    language: "python",
    runner: ("python3", "HEADCOUNT_TEST_PYTHON3"),
    arguments: &[],
    file: "post.py",
    before: "",
    after: "\nprint(post(open('pairs.ndjson', 'rb').read()).decode())\n",
};

const NODE: Snippet = Snippet {
    language: "js",
    runner: ("node", "HEADCOUNT_TEST_NODE"),
    arguments: &[],
    file: "post.mjs",
    before: "import { readFileSync } from 'node:fs';\n",
    after: "\nconsole.log(await post(readFileSync('pairs.ndjson')));\n",
};

const GO: Snippet = Snippet {
    language: "go",
    runner: ("go", "HEADCOUNT_TEST_GO"),
    arguments: &["run"],
    file: "post.go",
    before: "package main\n\nimport (\n\"bytes\"\n\"net/http\"\n\"os\"\n\"time\"\n)\n\n",
    after: "\nfunc main() {\npairs, _ := os.ReadFile(\"pairs.ndjson\")\nif post(pairs) >= 300 {\nos.Exit(1)\n}\n}\n",
};

const JAVA: Snippet = Snippet {
    language: "java",
    runner: ("java", "HEADCOUNT_TEST_JAVA"),
    arguments: &[],
    file: "Post.java",
    before: "import java.io.IOException;\nimport java.net.URI;\nimport java.net.http.*;\nimport java.nio.file.*;\nimport java.time.Duration;\n\
             class Post {\nstatic final HttpClient CLIENT = HttpClient.newHttpClient();\n",
    after: "public static void main(String[] none) throws Exception {\n\
            if (post(Files.readAllBytes(Path.of(\"pairs.ndjson\"))) >= 300) System.exit(1);\n}\n}\n",
};

impl Snippet {
    fn text(&self) -> String {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/send/snippets.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, rest) = page
            .split_once(&format!("\n```{}\n", self.language))
            .unwrap();
        let (text, _) = rest.split_once("```\n").unwrap();
        assert!(text.lines().count() <= SHORT, "{text}");
        text.to_owned()
    }

    async fn run(&self, url: String) -> Option<Run> {
        let runner = find(self.runner.0, self.runner.1)?;
        let folder = tempfile::tempdir().unwrap();
        let program = [self.before, &self.text(), self.after].concat();
        std::fs::write(folder.path().join(self.file), program).unwrap();
        std::fs::write(folder.path().join("pairs.ndjson"), PAIRS).unwrap();
        let mut command = Command::new(runner);
        command.args(self.arguments).arg(self.file);
        command
            .env("HEADCOUNT_URL", url)
            .env("HEADCOUNT_TOKEN", TOKEN);
        settle(&mut command, folder.path());
        let _turn = TURN.lock().await;
        let run = tokio::task::spawn_blocking(move || finish(&mut command));
        Some(run.await.unwrap())
    }
}

/// After a broken connection and a 503, the pairs are in.
async fn is_patient(snippet: &Snippet) {
    let sender = token("sender", TOKEN, &[Scope::Write, Scope::Read]);
    let (app, _folder) = app_with_token(sender).await;
    let port = app.addr.port();
    let failing = FaultServer::start(move |number, _| match number {
        0 => Reply::Bytes(Vec::new()),
        1 => Reply::status(503, "Retry-After: 1\r\n", "{}"),
        2 => Reply::status(429, "Retry-After: 1\r\n", "{}"),
        _ => Reply::Pass(port),
    });
    let failing = failing.await;
    if let Some(run) = snippet.run(failing.url()).await {
        assert_eq!(run.code, Some(0), "{run:?}");
        let requests = failing.requests();
        assert_eq!(requests.len(), 4, "{requests:?}");
        assert!(requests.iter().all(|request| request.text() == PAIRS));
        let header = [("authorization", "Bearer hc_a-token-of-a-sender")];
        let count = app.send_with(Method::GET, "/v1/segments/sports/count", &header);
        assert_eq!(count.await.json["users"], 2);
    }
    app.stop().await;
}

/// A request that will never pass is sent once, and reported.
async fn gives_up(snippet: &Snippet) {
    let refusing =
        FaultServer::start(|_, _| Reply::status(422, "", "{\"code\":\"nothing_accepted\"}")).await;
    let Some(run) = snippet.run(refusing.url()).await else {
        return;
    };
    assert_eq!(refusing.requests().len(), 1);
    match snippet.language {
        // The page says so.
        "sh" => assert!(
            run.code == Some(0) && run.out.contains("nothing_accepted"),
            "{run:?}"
        ),
        _ => assert_ne!(run.code, Some(0), "{run:?}"),
    }
}

macro_rules! tests_of {
    ($module:ident, $snippet:ident) => {
        mod $module {
            #[tokio::test]
            async fn is_patient() {
                super::is_patient(&super::$snippet).await;
            }

            #[tokio::test]
            async fn gives_up() {
                super::gives_up(&super::$snippet).await;
            }
        }
    };
}

tests_of!(curl, SHELL);
tests_of!(python, PYTHON);
tests_of!(node, NODE);
tests_of!(go, GO);
tests_of!(java, JAVA);
