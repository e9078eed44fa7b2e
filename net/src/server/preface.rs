//! Telling HTTP/2 from HTTP/1.1 on one port, by the first bytes a client sends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::heads::HeadTimer;

/// What a client that speaks HTTP/2 by prior knowledge says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads no more than it takes to tell; what was read is read again from the [`Rewound`] stream.
pub(super) async fn sniff<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Protocol, Rewound<S>)> {
    let (mut read, mut len) = ([0; PREFACE.len()], 0);
    // A client that closes here is for HTTP/1.1 to deal with.
    loop {
        let more = stream.read(&mut read[len..]).await?;
        len += more;
        let is_preface = PREFACE.starts_with(&read[..len]);
        if more == 0 || !is_preface || len == PREFACE.len() {
            let protocol = if is_preface && len > 0 { Protocol::Http2 } else { Protocol::Http1 };
            return Ok((protocol, Rewound { read, from: 0, to: len, stream, heads: None }));
        }
    }
}

/// A stream of which the first bytes were read already, and come again.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    read: [u8; PREFACE.len()],
    from: usize,
    to: usize,
    stream: S,
    heads: Option<HeadTimer>,
}

impl<S> Rewound<S> {
    /// Has this timer told of everything that is read from now on.
    pub(super) fn tell(&mut self, heads: HeadTimer) {
        self.heads = Some(heads);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.from == self.to {
            ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        } else {
            let again = into.remaining().min(self.to - self.from);
            into.put_slice(&self.read[self.from..self.from + again]);
            self.from += again;
        }
        if let Some(heads) = &self.heads {
            heads.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let writing = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let reading = async {
            let (protocol, mut rewound) = sniff(server).await.unwrap();
            let mut all = Vec::new();
            rewound.read_to_end(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn the_preface_is_known_whole_or_in_pieces_and_comes_again() {
        for pieces in [&[&PREFACE[..], b"settings"][..], &[b"P", &PREFACE[1..], b"settings"]] {
            let (protocol, all) = sniffed(pieces).await;
            assert_eq!((protocol, all), (Protocol::Http2, [&PREFACE[..], b"settings"].concat()));
        }
    }

    #[tokio::test]
    async fn whatever_is_not_the_preface_is_http_1() {
        for text in ["", "GET / HTTP/1.1\r\n", "P", "PRI", "POST /", "PRI * HTTP/1.1\r\n\r\n"] {
            let (protocol, all) = sniffed(&[text.as_bytes()]).await;
            // "PRI" and no more is a client that left: either protocol says the same about it.
            if text.is_empty() || !PREFACE.starts_with(text.as_bytes()) {
                assert_eq!(protocol, Protocol::Http1, "{text:?}");
            }
            assert_eq!(all, text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_in_whatever_pieces_is_told_right_and_comes_again(
            of_preface in 0..=PREFACE.len(),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            cuts in prop::collection::vec(0..64usize, 0..6),
        ) {
            let said = [&PREFACE[..of_preface], &rest].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(said.len())).chain([said.len()]).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.into_iter().map(|to| &said[std::mem::replace(&mut from, to)..to]).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (protocol, again) = runtime.block_on(sniffed(&pieces));
            let is_http2 = said.starts_with(PREFACE) || (!said.is_empty() && PREFACE.starts_with(&said));
            prop_assert_eq!(protocol == Protocol::Http2, is_http2);
            prop_assert_eq!(again, said);
        }
    }
}
