//! The PROXY protocol, version 2: the header by which a load balancer tells, in front of all other bytes, whose connection
//! it passes on (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2).

use std::net::{IpAddr, SocketAddr};

/// A header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// Its bytes, addresses and extensions included; 0 if there is none.
    pub(crate) length: usize,
    /// The client's address; `None` if the sender speaks for itself, as in health checks, or names no TCP address.
    pub(crate) source: Option<SocketAddr>,
}

/// The bytes begin as a header and are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed header of the PROXY protocol: {0}")]
pub(crate) struct MalformedHeader(&'static str);

/// Reads the header at the beginning of a connection; `None`: more bytes are needed. `is_all`: no more will come.
pub(crate) fn read_header(said: &[u8], is_all: bool) -> Result<Option<ProxyHeader>, MalformedHeader> {
    let absent = Ok(Some(ProxyHeader { length: 0, source: None }));
    let signature = &said[..said.len().min(SIGNATURE.len())];
    if signature != &SIGNATURE[..signature.len()] {
        return absent;
    }
    let Some([command, family, high, low]) = said.get(SIGNATURE.len()..FIXED_BYTES) else {
        return match is_all {
            true => absent,
            false => Ok(None),
        };
    };
    let is_for_client = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(MalformedHeader("unknown version or command")),
    };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > MAX_REST_BYTES {
        return Err(MalformedHeader("it is too long"));
    }
    let Some(rest) = said.get(FIXED_BYTES..FIXED_BYTES + rest) else {
        return match is_all {
            true => Err(MalformedHeader("it breaks off")),
            false => Ok(None),
        };
    };
    let source = match family {
        _ if !is_for_client => None,
        0x11 => Some(address::<4>(rest)?),
        0x21 => Some(address::<16>(rest)?),
        // No address, of a socket that is none of TCP's.
        _ => None,
    };
    Ok(Some(ProxyHeader { length: FIXED_BYTES + rest.len(), source }))
}

/// The source in a block of two addresses and two ports.
fn address<const N: usize>(block: &[u8]) -> Result<SocketAddr, MalformedHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>().ok_or(TOO_SHORT)?;
    let (_destination, ports) = rest.split_first_chunk::<N>().ok_or(TOO_SHORT)?;
    let ([high, low, _, _], _extensions) = ports.split_first_chunk::<4>().ok_or(TOO_SHORT)?;
    Ok(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([*high, *low])))
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes up to the length of the rest.
const FIXED_BYTES: usize = 16;

/// Bytes of addresses and extensions: certificates may be among those.
const MAX_REST_BYTES: usize = 4096;

const TOO_SHORT: MalformedHeader = MalformedHeader("it has no room for its addresses");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn of(source: SocketAddr, extensions: &[u8]) -> Vec<u8> {
        let ports = [&source.port().to_be_bytes()[..], &[0, 80]].concat();
        match source.ip() {
            IpAddr::V4(ip) => {
                header(0x21, 0x11, &[&ip.octets()[..], &[10, 0, 0, 1], &ports, extensions].concat())
            }
            IpAddr::V6(ip) => header(0x21, 0x21, &[&ip.octets()[..], &[0; 16], &ports, extensions].concat()),
        }
    }

    #[test]
    fn whatever_is_no_header_is_left_as_it_is() {
        let absent = Ok(Some(ProxyHeader { length: 0, source: None }));
        for said in ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\nGET /", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"] {
            assert_eq!(read_header(said.as_bytes(), false), absent, "{said:?}");
        }
        assert_eq!(read_header(b"\r\n\r\n", false), Ok(None));
        assert_eq!(read_header(b"\r\n\r\n", true), absent);
    }

    #[test]
    fn a_sender_that_speaks_for_itself_names_no_client() {
        let none = |length| Ok(Some(ProxyHeader { length, source: None }));
        assert_eq!(read_header(&header(0x20, 0, &[]), false), none(16));
        assert_eq!(read_header(&header(0x20, 0x11, &[1; 12]), false), none(28));
        assert_eq!(read_header(&header(0x21, 0x31, &[1; 216]), false), none(232), "a Unix socket");
    }

    #[test]
    fn a_header_that_cannot_be_is_an_error() {
        for said in [header(0x11, 0x11, &[1; 12]), header(0x22, 0x11, &[1; 12]), header(0x21, 0x11, &[1; 11])]
        {
            assert!(read_header(&said, false).is_err(), "{said:?}");
        }
        assert!(read_header(&header(0x21, 0x21, &[1; 35]), false).is_err());
        assert!(read_header(&header(0x21, 0x11, &[0; 4097]), false).is_err(), "too long");
        assert!(read_header(&of(([1, 2, 3, 4], 5).into(), &[])[..20], true).is_err(), "cut off");
    }

    proptest! {
        #[test]
        fn the_source_is_told_with_the_last_byte_of_the_header_and_no_sooner(
            ip in any::<IpAddr>(), port: u16,
            extensions in prop::collection::vec(any::<u8>(), 0..100),
            after in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let source = SocketAddr::new(ip, port);
            let said = of(source, &extensions);
            for length in 0..said.len() {
                prop_assert_eq!(read_header(&said[..length], false), Ok(None));
            }
            let told = Ok(Some(ProxyHeader { length: said.len(), source: Some(source) }));
            prop_assert_eq!(read_header(&said, false), told);
            prop_assert_eq!(read_header(&[said, after].concat(), false), told);
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise(
            said in prop::collection::vec(any::<u8>(), 0..60), has_signature: bool, is_all: bool,
        ) {
            let said = if has_signature { [&SIGNATURE[..], &said].concat() } else { said };
            if let Ok(Some(told)) = read_header(&said, is_all) {
                prop_assert!(told.length <= said.len());
            } else {
                prop_assert!(SIGNATURE.starts_with(&said) || said.starts_with(SIGNATURE));
            }
        }
    }
}
