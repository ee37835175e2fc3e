//! Fuzz target: settings from a file and from the environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use fuzzing::spell;

/// No message may contain this.
const SECRET: &str = "hush-hush-0123456789-hush-hush-hush";

const WORDS: &[&str] = &[
    " = ",
    "\"",
    "\n",
    "[",
    "]",
    ",",
    "'",
    "0x",
    "1",
    "0",
    "-",
    "99999999999999999999999999",
    "ms",
    "s",
    "m",
    "h",
    "d",
    "y",
    " KiB",
    " GiB",
    "EiB",
    "true",
    "false",
    "off",
    "auto",
    "7d",
    "1m",
    "14d",
    "90s",
    "1.5",
    "127.0.0.1:0",
    "[::]:8080",
    "embedded",
    "influx",
    "postgres",
    "redis",
    "memory",
    "text",
    "json",
    "info",
    "headcount=debug",
    "http://h:1",
    "https://[::1]/x",
    "redis://",
    "redis+cluster://a:1,b:2",
    "postgres://u:p@h/d",
    "?sslmode=",
    "verify-full",
    "*",
    "é",
    "{",
    "}",
    "%",
    "@",
    "/",
    "-----BEGIN PUBLIC KEY-----\n",
    "-----END PUBLIC KEY-----",
    "hush-hush-0123456789-hush-hush-hush",
    "2026-11-21T12:00:00Z",
    "inf",
    "nan",
    "\"\"\"",
    "#",
    "window",
    "resolution",
    "max_ahead",
    "listen",
    "store",
    "cache",
    "refresh_windows",
    "user_key",
    "influx_token",
    "postgres_url",
    "redis_url",
    "jwt_key",
    "cors_origins",
    "log",
    "max_body",
    "spool_max_bytes",
    "limit_pairs",
    "influx_url",
    "redis_prefix",
    "postgres_schema",
];

#[test]
fn settings() {
    type Input = (Vec<u8>, Vec<(u8, Vec<u8>)>);
    bolero::check!()
        .with_type::<Input>()
        .for_each(|(file, variables)| {
            let file = String::from_utf8_lossy(&spell(file, WORDS)).into_owned();
            let mut layers = Layers::defaults();
            let path = Path::new("headcount.toml");
            let added = super::file::add_text(&mut layers, path, &file);
            // Input that sets a file twin is skipped below, since twins read files of this machine.
            let variables = variables.iter().map(|(setting, value)| {
                let setting = &SETTINGS[usize::from(*setting) % SETTINGS.len()];
                (
                    OsString::from(variable_of(setting.name)),
                    OsString::from_vec(spell(value, WORDS)),
                )
            });
            let added = added.and_then(|()| env::add(&mut layers, variables));
            let names_files = SETTINGS.iter().filter_map(|setting| setting.file_twin);
            if names_files
                .into_iter()
                .any(|twin| !layers.get(twin).text.is_empty())
            {
                return;
            }
            let given = layers.clone();
            let mut secrets = SETTINGS.iter().filter(|setting| setting.is_secret());
            let has_secret = secrets.any(|setting| given.get(setting.name).text.contains(SECRET));
            let holds = |name: &str| given.get(name).text.contains("hush");
            let open = |s: &Setting| !s.is_secret() && holds(s.name);
            let elsewhere = SETTINGS.iter().any(open);
            // Only the password of a URL is secret.
            let in_url = holds("postgres_url") || holds("redis_url");
            let loaded = added.and_then(|_| finish(layers, &[]));
            match loaded {
                Ok(loaded) => {
                    let _ = loaded.may_serve();
                    // The displayed values, given as settings again, have the same meaning.
                    let is_open = |name| SETTINGS.iter().any(|s| s.name == name && !s.is_secret());
                    let shown = loaded.shown.iter().filter(|shown| is_open(shown.name));
                    let mut again = given;
                    for Shown { name, value, .. } in shown {
                        again
                            .set(name, value, Origin::Program, str::to_owned)
                            .unwrap();
                    }
                    let again = finish(again, &[]).unwrap();
                    assert_eq!(
                        format!("{:?}", again.settings),
                        format!("{:?}", loaded.settings)
                    );
                    let told = format!("{loaded:?}");
                    assert!(elsewhere || in_url || !told.contains(SECRET), "{told}");
                }
                Err(error) => {
                    let told = format!("{error} {error:?}");
                    assert!(elsewhere || !has_secret || !told.contains(SECRET), "{told}");
                }
            }
        });
}
