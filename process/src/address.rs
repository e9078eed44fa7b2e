//! Addresses as people write them.

use std::net::{Ipv4Addr, SocketAddr};

/// An address to listen at or to ask: `IP:PORT`; `localhost:PORT`, `:PORT` or `PORT`, which are on 127.0.0.1; each with
/// `http://` in front or not, as it is printed.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let port = rest.strip_prefix("localhost:").or_else(|| rest.strip_prefix(':')).unwrap_or(rest);
    match port.parse() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => rest
            .parse()
            .map_err(|_| "an address is IP:PORT or PORT, such as 127.0.0.1:8080 or 8080".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_they_are_printed() {
        for (text, expected) in [
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("http://127.0.0.1:8081/", "127.0.0.1:8081"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:0", "[::1]:0"),
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("http://:8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(expected));
        }
        for wrong in ["80800", ":", "", "https://127.0.0.1:1", "localhost", "a:1", "127.0.0.1"] {
            assert!(address(wrong).unwrap_err().contains("IP:PORT"), "{wrong}");
        }
    }
}
