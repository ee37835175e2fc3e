//! Clients that are generated from docs/openapi.json: they compile strictly, and work against the service.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::auth::Scope;

use crate::support::program::{Run, finish};
use crate::support::servers::find_among;
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "generated-client-token";

/// The client of a language and a program that uses it.
struct Generated {
    folder: tempfile::TempDir,
    /// The directory of the generator and of the programs beside it.
    tools: PathBuf,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Generated {
    /// `None` means that the test is to be skipped.
    fn with(generator: &str, variable: &str, program: &str) -> Option<Self> {
        let installed = [repository().join("target/tools/bin")];
        let generator = find_among(generator, variable, &installed)?;
        // The link in target/tools/bin leads to the directory of its own environment.
        let target = std::fs::read_link(&generator).unwrap_or(generator);
        let folder = tempfile::tempdir().unwrap();
        for name in [program, "mypy.ini"] {
            let from = repository().join("tests/generated").join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        let tools = target.parent().unwrap().to_path_buf();
        Some(Self { folder, tools })
    }

    /// Runs a program from the directory of the generator, or else from PATH.
    fn run(&self, program: &str, arguments: &[&str]) -> Run {
        let beside = self.tools.join(program);
        let program = if beside.exists() {
            beside
        } else {
            program.into()
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.tools.display());
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path());
        // A proxy is not for loopback addresses.
        command.env("PATH", path).env("no_proxy", "*");
        finish(&mut command)
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let run = self.run(program, arguments);
        assert_eq!(run.code, Some(0), "{program} {arguments:?}: {run:?}");
        run.out + &run.err
    }

    /// Runs the program that uses the client against a service, and checks what the service has afterwards.
    async fn use_with(&self, interpreter: &str, program: &str) {
        let caller = token("generated", TOKEN, &[Scope::Read, Scope::Write]);
        let (app, _tokens) = app_with_token(caller).await;
        let url = format!("http://{}", app.addr);
        let run = tokio::task::block_in_place(|| self.run(interpreter, &[program, &url, TOKEN]));
        let said = run.out.replace('\'', "\"").replace("\", \"", "\",\"");
        assert_eq!(
            (run.code, said.as_str()),
            (
                Some(0),
                "stored 2\nstored 2\nsports 3\n[\"news\",\"sports\"]\nsports [\"sports\",\"news\"]\n\
                 400 invalid_window\n422 nothing_accepted 1\n"
            ),
            "{}",
            run.err
        );
        app.stop().await;
    }

    /// The classes and the lines of the generated files.
    fn size(&self, client: &str, class: &str) -> (usize, usize) {
        let (mut classes, mut lines) = (0, 0);
        let mut folders = vec![self.folder.path().join(client)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    lines += text.lines().count();
                    classes += text.lines().filter(|line| line.starts_with(class)).count();
                }
            }
        }
        (classes, lines)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_python_client_works() {
    let variable = "HEADCOUNT_TEST_OPENAPI_PYTHON_CLIENT";
    let Some(python) = Generated::with("openapi-python-client", variable, "program.py") else {
        return;
    };
    let document = repository().join("docs/openapi.json");
    let client = "headcount_client";
    let arguments = [
        "generate",
        "--meta",
        "none",
        "--output-path",
        client,
        "--path",
    ];
    let document = document.to_str().unwrap();
    let said = python.succeed(
        "openapi-python-client",
        &[&arguments[..], &[document]].concat(),
    );
    // Line protocol is for clients of InfluxDB. Everything else is understood, except that an export is not JSON.
    let warnings = said.lines().filter(|line| line.starts_with("WARNING"));
    let not_made = "within clients_of_other_programs. Endpoint will not be generated.";
    let expected = [
        format!("WARNING parsing POST /api/v2/write {not_made}"),
        format!("WARNING parsing POST /write {not_made}"),
        // Its lines are read from the response's content.
        "WARNING parsing GET /v1/segments/{segment}/users within users.".to_owned(),
    ];
    let warnings = BTreeSet::from_iter(warnings.map(str::to_owned));
    assert_eq!(warnings, expected.into(), "{said}");
    let (classes, lines) = python.size(client, "class ");
    assert!(classes < 100, "{classes} classes in {lines} lines");
    python.succeed("mypy", &[client, "program.py"]);
    python.use_with("python", "program.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_typescript_client_works() {
    let variable = "HEADCOUNT_TEST_OPENAPI_TS";
    let Some(typescript) = Generated::with("openapi-ts", variable, "program.ts") else {
        return;
    };
    let document = repository().join("docs/openapi.json");
    let document = document.to_str().unwrap();
    let plugin = "@hey-api/client-fetch";
    let arguments = [
        "--input", document, "--output", "client", "--client", plugin,
    ];
    typescript.succeed("openapi-ts", &arguments);
    let strict = [
        "--strict",
        "--noUncheckedIndexedAccess",
        "--noImplicitReturns",
    ];
    let target = [
        "--target",
        "es2022",
        "--lib",
        "es2022,dom,dom.iterable",
        "--module",
        "commonjs",
    ];
    let output = [
        "--moduleResolution",
        "node10",
        "--outDir",
        "out",
        "program.ts",
    ];
    let arguments = [&strict[..], &target, &output].concat();
    typescript.succeed("tsc", &arguments);
    typescript.use_with("node", "out/program.js").await;
}
