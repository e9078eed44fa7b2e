//! `Expect: 100-continue`, end to end: the client is told to go on when the app says so.
//!
//! A client is told to go on when somebody reads its body. So the body is not read until the upstream has said
//! `100`, or has answered, or has been silent for as long as servers are that do not know of this.

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

/// What a client's body waits for.
pub(crate) struct Permission {
    word: watch::Sender<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Goes to GoOn or Refused.
    None,
    GoOn,
    /// The upstream has answered without wanting the body. Goes to Over.
    Refused,
    /// The answer has been read.
    Over,
}

impl Permission {
    /// Has the request wait for the upstream's word, if its client does. To be called before it is sent.
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

    /// The upstream wants the body.
    pub(crate) fn granted(&self) {
        say(&self.word, Word::GoOn);
    }

    /// The upstream has answered. To be kept for as long as the answer is being read.
    pub(crate) fn answered(&self) {
        say(&self.word, Word::Refused);
    }
}

/// The first word counts.
fn say(word: &watch::Sender<Word>, what: Word) {
    word.send_if_modified(|word| *word == Word::None && std::mem::replace(word, what) != what);
}

impl Drop for Permission {
    fn drop(&mut self) {
        self.word.send_modify(|word| {
            *word = match word {
                Word::Refused | Word::Over => Word::Over,
                // The request was not sent, and may be sent again.
                Word::None | Word::GoOn => Word::GoOn,
            }
        });
    }
}

/// A body that is not read yet.
enum WaitingBody {
    /// Goes to Flowing or Refused.
    Waiting {
        body: Body,
        word: watch::Receiver<Word>,
        wait: Wait,
    },
    Flowing(Body),
    /// Gone, so that the client's connection ends with the answer. Goes to its own end once the answer has been
    /// read: the upstream's connection still waits for a body, and can only be closed.
    Refused {
        over: Wait,
    },
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn said(mut word: watch::Receiver<Word>, enough: impl Fn(Word) -> bool + Send + Sync) {
    // An error: nobody is left to say anything.
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
                        Word::None | Word::GoOn => WaitingBody::Flowing(std::mem::take(body)),
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

/// Go's `ExpectContinueTimeout`.
const PATIENCE: Duration = Duration::from_secs(1);
