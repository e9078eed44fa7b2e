//! `Expect: 100-continue` (RFC 9110, 10.1.1), end to end: the client gets its `100 Continue` when the app sends one.
//!
//! The server sends a `100 Continue` when the request's body is read. So the body is not read until the upstream has sent
//! `100`, or its final response, or neither for as long as Go's client waits for a server that does not know of this.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::RequestBodyError;
use crate::{Body, Error, Request};

/// The upstream's word on a request's body.
pub(crate) struct Permission {
    word: watch::Sender<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Neither yet. Goes to Granted or Refused.
    None,
    /// `100 Continue`: the body may be sent.
    Granted,
    /// A final response without the body. Goes to Over.
    Refused,
    /// The final response has been read.
    Over,
}

impl Permission {
    /// Has the request's body wait for the upstream's word, if the client does. To be called before the request is sent.
    pub(crate) fn asked_for(request: &mut Request) -> Option<Permission> {
        if request.body().is_end_stream() {
            return None;
        }
        let expect = request.headers().get(header::EXPECT)?;
        if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return None;
        }
        let word = watch::Sender::new(Word::None);
        let (body, listening) = (std::mem::take(request.body_mut()), word.subscribe());
        let spoken = said(word.subscribe(), |word| word != Word::None);
        let wait = Box::pin(async move { drop(timeout(PATIENCE, spoken).await) });
        *request.body_mut() = Body::stream(WaitingBody::Waiting { body, word: listening, wait });
        Some(Permission { word })
    }

    /// Notes that the upstream has sent `100 Continue`.
    pub(crate) fn granted(&self) {
        say(&self.word, Word::Granted);
    }

    /// Notes that the upstream has sent its final response. To be kept until that has been read.
    pub(crate) fn answered(&self) {
        say(&self.word, Word::Refused);
    }
}

/// Sets the word, if none was said before.
fn say(word: &watch::Sender<Word>, what: Word) {
    word.send_if_modified(|word| *word == Word::None && std::mem::replace(word, what) != what);
}

impl Drop for Permission {
    fn drop(&mut self) {
        self.word.send_modify(|word| {
            *word = match word {
                Word::Refused | Word::Over => Word::Over,
                // The request was not sent, or the connection broke: the body is for the next attempt.
                Word::None | Word::Granted => Word::Granted,
            }
        });
    }
}

/// A body that is not read before the upstream's word.
enum WaitingBody {
    /// The upstream has said nothing. Goes to Flowing or Refused.
    Waiting {
        body: Body,
        word: watch::Receiver<Word>,
        wait: Wait,
    },
    Flowing(Body),
    /// The body is dropped, so that the client's connection is closed behind the response. Fails once the response has
    /// been read: the upstream's connection still waits for a body, and can only be closed.
    Refused {
        over: Wait,
    },
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn said(mut word: watch::Receiver<Word>, enough: impl Fn(Word) -> bool + Send + Sync) {
    // An error says that the sender is gone.
    let _ = word.wait_for(|word| enough(*word)).await;
}

impl http_body::Body for WaitingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match &mut *self {
                WaitingBody::Waiting { body, word, wait } => {
                    ready!(wait.as_mut().poll(cx));
                    let last = *word.borrow();
                    *self = match last {
                        Word::None | Word::Granted => WaitingBody::Flowing(std::mem::take(body)),
                        Word::Refused | Word::Over => WaitingBody::Refused {
                            over: Box::pin(said(word.clone(), |word| word == Word::Over)),
                        },
                    };
                }
                WaitingBody::Flowing(body) => return Pin::new(body).poll_frame(cx),
                WaitingBody::Refused { over } => {
                    ready!(over.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(Error::Downstream(RequestBodyError::NotWanted))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            WaitingBody::Waiting { body, .. } | WaitingBody::Flowing(body) => body.is_end_stream(),
            WaitingBody::Refused { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            WaitingBody::Waiting { body, .. } | WaitingBody::Flowing(body) => body.size_hint(),
            WaitingBody::Refused { .. } => SizeHint::default(),
        }
    }
}

/// Time that the upstream has for a word. Go: `ExpectContinueTimeout` of the default transport.
const PATIENCE: Duration = Duration::from_secs(1);
