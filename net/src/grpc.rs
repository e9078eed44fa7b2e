//! gRPC for probes and exporters: one method is called with one message, and one message comes back.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};

use crate::once::BodyError;
use crate::tls::ClientTls;
use crate::{Body, Error, once};

/// Why a call brought back no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// There was no response.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The server does not speak gRPC.
    #[error("status code {} in place of a gRPC answer", .0.as_u16())]
    Http(StatusCode),
    /// The method failed.
    #[error("gRPC status {code}: {message}")]
    Status {
        /// The code (google.rpc.Code).
        code: u32,
        /// The server's explanation.
        message: String,
    },
    /// The body of the response could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The answer is no gRPC message.
    #[error("malformed gRPC message")]
    Malformed,
}

/// Calls a method that takes one message and returns one. `path` is `/package.Service/Method`; `headers` are added
/// to those that gRPC needs; messages are encoded protobuf.
pub async fn call(
    to: SocketAddr,
    tls: Option<&ClientTls>,
    path: &'static str,
    mut headers: HeaderMap,
    message: &[u8],
) -> Result<Bytes, GrpcError> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut request = once::request(Version::HTTP_2, headers);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    *request.body_mut() = Body::full(frame(message));
    let answer = once::ask(to, tls, request, MAX_MESSAGE_BYTES).await?;
    // Trailers-Only (gRPC over HTTP/2): a call that fails at once has its status in the headers, with no body.
    let status = answer.trailers.get(STATUS).or_else(|| answer.headers.get(STATUS));
    let Some(status) = status else { return Err(GrpcError::Http(answer.status)) };
    let code = status.to_str().ok().and_then(|code| code.parse().ok()).ok_or(GrpcError::Malformed)?;
    if code != 0 {
        let message = answer.trailers.get(MESSAGE).or_else(|| answer.headers.get(MESSAGE));
        let message = message.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
        return Err(GrpcError::Status { code, message: message.unwrap_or_default() });
    }
    unframe(answer.body?)
}

/// Writes a Length-Prefixed-Message: a zero for "not compressed", the length, the message.
fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn unframe(mut framed: Bytes) -> Result<Bytes, GrpcError> {
    let head = framed.get(..HEAD_BYTES).ok_or(GrpcError::Malformed)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || framed.len() != HEAD_BYTES + length {
        return Err(GrpcError::Malformed);
    }
    Ok(framed.split_off(HEAD_BYTES))
}

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const HEAD_BYTES: usize = 5;
/// Bytes of the largest answer.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_and_found_again() {
        assert_eq!(&frame(b"abc")[..], b"\0\0\0\0\x03abc");
        assert_eq!(unframe(frame(b"abc")).unwrap(), "abc");
        assert_eq!(unframe(frame(b"")).unwrap(), "");
    }

    #[test]
    fn what_is_no_message_is_not_taken_for_one() {
        for bytes in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x01a", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab"] {
            assert!(matches!(unframe(Bytes::copy_from_slice(bytes)), Err(GrpcError::Malformed)), "{bytes:?}");
        }
    }
}
