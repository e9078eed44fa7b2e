//! URLs of servers that a process connects to by itself, parsed once at its start.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::PathAndQuery;
use tokio::net::{TcpStream, lookup_host};

use crate::Error;
use crate::dial::connect;

/// A parsed URL: `http://host:port/path` or `ws://host:port`.
///
/// ```
/// use pilotlight_net::Target;
///
/// let target = Target::http("http://autoscaler.default:8022/v1/endpoints").unwrap();
/// assert_eq!((target.host(), target.port()), ("autoscaler.default", 8022));
/// assert_eq!(target.path(), "/v1/endpoints");
///
/// let error = Target::ws("autoscaler:8080").unwrap_err();
/// assert_eq!(error.to_string(), "`autoscaler:8080` is not of the form ws://host:port");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    scheme: &'static str,
    // An IPv6 address has no brackets here.
    host: String,
    port: u16,
    path: PathAndQuery,
}

/// A text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not of the form {form}")]
pub struct TargetError {
    url: String,
    form: &'static str,
}

impl Target {
    /// Parses `http://host:port/path`. The port is 80 and the path `/` if they are left out.
    pub fn http(url: &str) -> Result<Target, TargetError> {
        Target::parse(url, "http", "http://host:port/path")
    }

    /// Parses `ws://host:port`, with a path or without. The port is 80 if it is left out.
    pub fn ws(url: &str) -> Result<Target, TargetError> {
        Target::parse(url, "ws", "ws://host:port")
    }

    fn parse(url: &str, scheme: &'static str, form: &'static str) -> Result<Target, TargetError> {
        let error = || TargetError { url: url.to_owned(), form };
        let uri = Uri::from_str(url).map_err(|_| error())?;
        if uri.scheme_str() != Some(scheme) {
            return Err(error());
        }
        let authority = uri.authority().ok_or_else(error)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => DEFAULT_PORT,
            Some(_) => authority.port_u16().ok_or_else(error)?,
            // Userinfo in front of the host (RFC 3986, 3.2.1).
            None => return Err(error()),
        };
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() || port == 0 {
            return Err(error());
        }
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Target { scheme, host: host.to_owned(), port, path })
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as a request asks for them.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Host and port, as `Host` has them.
    pub fn authority(&self) -> String {
        let Target { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Resolves the host and opens a TCP connection to the first of its addresses that accepts one. Sets no time
    /// limit.
    pub async fn connect(&self) -> Result<TcpStream, Error> {
        let lookup_failed = |cause| Error::Lookup { host: self.host.clone(), cause };
        let mut last = None;
        for address in lookup_host((self.host(), self.port)).await.map_err(lookup_failed)? {
            match connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| lookup_failed(std::io::ErrorKind::NotFound.into())))
    }
}

/// The URL, with its port.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

/// The port of both schemes (RFC 9110, 4.2.1, and RFC 6455, 3).
const DEFAULT_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, port, path, authority) in [
            ("http://127.0.0.1:8022/v1/endpoints", "127.0.0.1", 8022, "/v1/endpoints", "127.0.0.1:8022"),
            ("http://a.example/x?y=z", "a.example", 80, "/x?y=z", "a.example:80"),
            ("http://a.example:81", "a.example", 81, "/", "a.example:81"),
            ("http://[::1]:8022/p", "::1", 8022, "/p", "[::1]:8022"),
            ("http://[::1]", "::1", 80, "/", "[::1]:80"),
        ] {
            let target = Target::http(url).unwrap();
            assert_eq!((target.host(), target.port(), target.path()), (host, port, path), "{url}");
            assert_eq!(target.authority(), authority);
        }
        assert_eq!(Target::ws("ws://autoscaler:8080").unwrap().to_string(), "ws://autoscaler:8080/");
    }

    #[test]
    fn any_other_text_is_refused_with_the_form_expected() {
        for url in [
            "",
            "localhost:80",
            "localhost",
            "/v1/endpoints",
            "http://",
            "http:///path",
            "http://:80/",
            "http://a:99999/",
            "http://a:0/",
            "http://a:/",
            "http://user@a:80/",
            "http://a b/",
            "https://a:80/",
            "ws://a:80",
        ] {
            let error = Target::http(url).unwrap_err();
            assert_eq!(error.to_string(), format!("`{url}` is not of the form http://host:port/path"));
        }
        let error = Target::ws("http://a:80").unwrap_err();
        assert_eq!(error.to_string(), "`http://a:80` is not of the form ws://host:port");
    }

    #[tokio::test]
    async fn the_first_address_that_accepts_is_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // `localhost` may resolve to ::1 first, where nobody listens.
        let target = Target::http(&format!("http://localhost:{port}")).unwrap();
        let (connected, accepted) = tokio::join!(target.connect(), listener.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn a_host_that_does_not_resolve_is_named() {
        let error = Target::http("http://no-such-host.invalid:80").unwrap().connect().await.unwrap_err();
        assert!(error.to_string().starts_with("dial tcp: lookup no-such-host.invalid: "), "{error}");
    }
}
