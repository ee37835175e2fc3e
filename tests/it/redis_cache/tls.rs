//! TLS: certificates are verified, unless the URL says otherwise.

use std::process::Command;

use domain::cache::CountCache;

use super::{cache_with_long_timeouts, refresh};
use crate::support::redis::Redis;
use crate::support::servers::find;

/// Creates a certificate authority and a certificate for 127.0.0.1 in `directory`.
fn certificates(directory: &std::path::Path) {
    let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE
openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr
printf 'subjectAltName=IP:127.0.0.1\n' > san
openssl x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
  -extfile san -out redis.crt";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

#[tokio::test]
async fn the_certificate_is_verified_by_default() {
    if find("openssl", "HEADCOUNT_TEST_OPENSSL").is_none() {
        return;
    }
    // TLS gets its own port: that of a server that has stopped.
    let Some(port) = Redis::start().await.map(|redis| redis.port()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key, authority) = (file("redis.crt"), file("redis.key"), file("ca.crt"));
    let port_text = port.to_string();
    let args = [
        "--save",
        "",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "no",
    ];
    let Some(_redis) = Redis::start_with(&args).await else {
        return;
    };

    let url = format!("rediss://127.0.0.1:{port}");
    let strict = cache_with_long_timeouts(&url, "headcount");
    let error = strict.ping().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let trusting = cache_with_long_timeouts(&format!("{url}/#insecure"), "headcount");
    refresh(&*trusting, 1).await;

    // The trusted file is read from the environment at the start of a process, so another process runs this test
    // again.
    let again = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "redis_cache::tls::a_certificate_of_a_trusted_authority_is_accepted",
        ])
        .env("SSL_CERT_FILE", &authority)
        .env("HEADCOUNT_TEST_REDISS_URL", &url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(
        again.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "run by the_certificate_is_verified_by_default with the authority in its environment"]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let url = std::env::var("HEADCOUNT_TEST_REDISS_URL").unwrap();
    refresh(&*cache_with_long_timeouts(&url, "headcount"), 1).await;
}
