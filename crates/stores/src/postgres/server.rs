//! The address of a Postgres server and the verification of its certificate, from one URL.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::root_cause;
use domain::{Secret, percent};

/// A description of a valid URL, for error messages.
pub const POSTGRES_URL: &str =
    "a URL such as postgres://user:password@host:5432/database?sslmode=verify-full";

/// The address of a Postgres server, from a URL in libpq's format.
///
/// It supports the parameters of `tokio_postgres::Config` (several hosts, `options`, `connect_timeout`,
/// `target_session_attrs`, ...), and these two, with libpq's meaning:
/// - `sslmode`: `disable`; `prefer` (the default): TLS if the server supports it; `require`: only TLS, with any
///   certificate; `verify-ca`: only a certificate that a trusted root signed; `verify-full`: that, and the certificate
///   must be for this host.
/// - `sslrootcert`: a PEM file of the roots to trust instead of the system's. With it, every mode verifies at least as
///   much as `verify-ca`.
#[derive(Clone)]
pub struct PostgresServer {
    pub(super) config: Config,
    pub(super) tls: MakeTlsConnector,
    /// Whether it accepts a connection over a network without TLS or with an unverified certificate.
    trusts_anybody: bool,
}

/// How much of a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    Anybody,
    AnyHost,
    Full,
}

impl PostgresServer {
    /// Parses a URL. The error does not contain the URL, which may contain a password.
    pub fn parse(url: &Secret) -> Result<Self, String> {
        let url = url.reveal();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("it must begin with postgres://".to_owned());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut rest) = ("prefer", None, Vec::new());
        for parameter in query.split('&').filter(|text| !text.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = value,
                Some(("sslrootcert", value)) => roots = Some(decoded(value)?),
                _ => rest.push(parameter),
            }
        }
        let (driver_mode, trust) = match mode {
            "disable" | "prefer" => (mode, Trust::Anybody),
            "require" => (mode, Trust::Anybody),
            "verify-ca" => ("require", Trust::AnyHost),
            "verify-full" => ("require", Trust::Full),
            _ => {
                return Err(
                    "sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned(),
                );
            }
        };
        let tls_parameter = format!("sslmode={driver_mode}");
        rest.push(&tls_parameter);
        // The driver's errors contain the parameter's name, but never its value.
        let config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|error| root_cause(&error))?;
        if config.get_hosts().is_empty() {
            return Err("it names no host".to_owned());
        }
        let tls = connector(trust, roots.as_deref().map(Path::new))?;
        let over_network = |host: &Host| match host {
            Host::Tcp(name) => name != "localhost" && !is_loopback(name),
            Host::Unix(_) => false,
        };
        let checks = trust != Trust::Anybody || driver_mode == "require" && roots.is_some();
        let trusts_anybody = !checks && config.get_hosts().iter().any(over_network);
        Ok(Self {
            config,
            tls: MakeTlsConnector::new(tls),
            trusts_anybody,
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let address: Result<std::net::IpAddr, _> = host.trim_matches(['[', ']']).parse();
    address.is_ok_and(|address| address.is_loopback())
}

impl PostgresServer {
    /// Whether an attacker on the network could impersonate the server or eavesdrop.
    pub fn trusts_anybody(&self) -> bool {
        self.trusts_anybody
    }

    /// A description of the hosts and the database, for people.
    pub fn name(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        let hosts: Vec<String> = hosts
            .map(|(number, host)| {
                // One port may apply to all hosts.
                let port = ports.get(number).or(ports.first()).unwrap_or(&5432);
                match host {
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        let database = self.config.get_dbname().or(self.config.get_user());
        format!(
            "postgres at {}, database {:?}",
            hosts.join(","),
            database.unwrap_or_default()
        )
    }
}

impl fmt::Debug for PostgresServer {
    /// Shows hosts and database, but no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

fn connector(trust: Trust, roots: Option<&Path>) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    let mut trust = trust;
    if let Some(path) = roots {
        let bad = |what: String| format!("sslrootcert {}: {what}", path.display());
        let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificates =
            Certificate::stack_from_pem(&pem).map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
        trust = trust.max(Trust::AnyHost);
    }
    builder
        .danger_accept_invalid_certs(trust == Trust::Anybody)
        .danger_accept_invalid_hostnames(trust < Trust::Full)
        .build()
        .map_err(|error| format!("can't set up TLS: {error}"))
}

fn decoded(text: &str) -> Result<Cow<'_, str>, String> {
    let decoded = percent::decode(text).ok_or("it has a percent sign without two digits")?;
    decoded
        .decode_utf8()
        .map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    fn parse(url: &str) -> Result<PostgresServer, String> {
        PostgresServer::parse(&Secret::new(url))
    }

    #[test]
    fn the_tls_modes_of_libpq_are_known() {
        let mode = |query: &str| {
            let server = parse(&format!("postgres://u:p@h/d{query}")).unwrap();
            assert_eq!(server.config.get_dbname(), Some("d"));
            server.config.get_ssl_mode()
        };
        assert_eq!(mode(""), SslMode::Prefer);
        assert_eq!(mode("?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("?connect_timeout=3&sslmode=require"), SslMode::Require);
        assert_eq!(
            mode("?sslmode=verify-full&application_name=x"),
            SslMode::Require
        );
        assert_eq!(mode("?sslmode=verify-ca"), SslMode::Require);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for (url, wrong) in [
            ("host=h password=hunter2", "must begin with postgres://"),
            ("postgres://u:hunter2@h/d?sslmode=allow", "sslmode must be"),
            ("postgres://u:hunter2@h/d?colour=hunter2", "colour"),
            ("postgres://u:hunter2@h:port/d", "port"),
            ("postgres:///hunter2", "no host"),
            ("postgres://h/d?sslrootcert=/no%20such", "/no such"),
            ("postgres://h/d?sslrootcert=/100%", "without two digits"),
            ("postgres://h/d?sslrootcert=/%2z", "without two digits"),
            ("postgres://h/d?sslrootcert=/%ff", "not UTF-8"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(wrong), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn several_hosts_and_sockets_are_taken() {
        let server = parse("postgresql://u:hunter2@a:1,b:2/d?target_session_attrs=read-write");
        let server = server.unwrap();
        assert_eq!(server.config.get_hosts().len(), 2);
        assert!(!format!("{server:?}").contains("hunter2"));
        parse("postgres:///d?host=/run/postgresql&user=u").unwrap();
    }
}
