//! The snippets on docs/send/snippets.md: against a service that fails first, and one that refuses.

use http::auth::Scope;
use reqwest::Method;

use crate::support::fault_server::{FaultServer, Reply};
use crate::support::languages::{self, Language, tests_of_each};
use crate::support::program::Run;
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "hc_a-token-of-a-sender";
const PAIRS: &str =
    "{\"user_id\":\"u1\",\"segment\":\"sports\"}\n{\"user_id\":\"u2\",\"segment\":\"sports\"}\n";
/// The greatest number of lines of a snippet.
const SHORT: usize = 15;

/// A snippet, and the program around it, which reads pairs.ndjson and fails unless they are accepted.
struct Snippet {
    language: Language,
    file: &'static str,
    before: &'static str,
    after: &'static str,
}

const SHELL: Snippet = Snippet {
    language: languages::SHELL,
    file: "post.sh",
    before: "",
    after: "",
};

const PYTHON: Snippet = Snippet {
    language: languages::PYTHON,
    file: "post.py",
    before: "",
    after: "\nprint(post(open('pairs.ndjson', 'rb').read()).decode())\n",
};

const NODE: Snippet = Snippet {
    language: languages::NODE,
    file: "post.mjs",
    before: "import { readFileSync } from 'node:fs';\n",
    after: "\nconsole.log(await post(readFileSync('pairs.ndjson')));\n",
};

const GO: Snippet = Snippet {
    language: languages::GO,
    file: "post.go",
    before: "package main\n\nimport (\n\"bytes\"\n\"net/http\"\n\"os\"\n\"time\"\n)\n\n",
    after: "\nfunc main() {\npairs, _ := os.ReadFile(\"pairs.ndjson\")\nif post(pairs) >= 300 {\nos.Exit(1)\n}\n}\n",
};

const JAVA: Snippet = Snippet {
    language: languages::JAVA,
    file: "Post.java",
    before: "import java.io.IOException;\nimport java.net.URI;\nimport java.net.http.*;\nimport java.nio.file.*;\nimport java.time.Duration;\n\
             class Post {\nstatic final HttpClient CLIENT = HttpClient.newHttpClient();\n",
    after: "public static void main(String[] none) throws Exception {\n\
            if (post(Files.readAllBytes(Path.of(\"pairs.ndjson\"))) >= 300) System.exit(1);\n}\n}\n",
};

impl Snippet {
    /// Runs the program against the service at `url`. `None` means that the test is to be skipped.
    async fn run(&self, url: &str) -> Option<Run> {
        let text = self.language.block_of("snippets.md");
        assert!(text.lines().count() <= SHORT, "{text}");
        let program = [self.before, &text, self.after].concat();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pairs.ndjson"), PAIRS).unwrap();
        let file = (self.file, program.as_str());
        let run = self.language.run(file, folder.path(), url, Some(TOKEN));
        run.await
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
    if let Some(run) = snippet.run(&failing.url()).await {
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
    let Some(run) = snippet.run(&refusing.url()).await else {
        return;
    };
    assert_eq!(refusing.requests().len(), 1);
    match snippet.language.name {
        // The page says so.
        "sh" => assert!(
            run.code == Some(0) && run.out.contains("nothing_accepted"),
            "{run:?}"
        ),
        _ => assert_ne!(run.code, Some(0), "{run:?}"),
    }
}

tests_of_each!([is_patient, gives_up]: curl = SHELL, python = PYTHON, node = NODE, go = GO, java = JAVA);
