//! Bodies that can be sent a second time: the frames that were read are kept, and come again in front of the rest.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::{Body, Error};

/// The frames that were read of a body, for as long as they may have to be sent again.
#[derive(Debug)]
pub(crate) enum Recording {
    /// Frames are kept, up to `left` more bytes of data. Goes to Stopped.
    Running { kept: KeptFrames, left: usize },
    /// Nothing is kept: the body is not sent again.
    Stopped,
}

#[derive(Debug, Default)]
pub(crate) struct KeptFrames {
    data: VecDeque<Bytes>,
    // Boxed: hardly any body has trailers.
    trailers: Option<Box<HeaderMap>>,
}

impl Recording {
    /// Records a body of up to so many bytes; a longer one is not sent again.
    pub(crate) fn of_at_most(bytes: usize) -> Self {
        Recording::Running { kept: KeptFrames::default(), left: bytes }
    }

    /// Whether the body cannot be sent again.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self, Recording::Stopped)
    }

    /// Keeps up to so many bytes in all from now on; a longer body is not sent again.
    pub(crate) fn limit(&mut self, bytes: usize) {
        let Recording::Running { kept, left } = self else { return };
        match bytes.checked_sub(kept.data.iter().map(Bytes::len).sum()) {
            Some(rest) => *left = rest.min(*left),
            None => self.stop(),
        }
    }

    /// Forgets what was kept: the body will not be sent again.
    pub(crate) fn stop(&mut self) {
        *self = Recording::Stopped;
    }

    /// Keeps a frame that was read.
    pub(crate) fn keep(&mut self, frame: &Frame<Bytes>) {
        let Recording::Running { kept, left } = self else { return };
        if let Some(data) = frame.data_ref() {
            let rest = left.checked_sub(data.len()).filter(|_| kept.data.len() < MAX_FRAMES);
            let Some(rest) = rest else { return self.stop() };
            *left = rest;
            kept.data.push_back(data.clone());
        } else if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(Box::new(trailers.clone()));
        }
    }

    /// The body as it was before anything was read of it, unless the recording has stopped.
    pub(crate) fn rewind(self, rest: Body) -> Option<Body> {
        let Recording::Running { kept, .. } = self else { return None };
        let is_untouched = kept.data.is_empty() && kept.trailers.is_none();
        Some(if is_untouched { rest } else { Body::stream(Replayed { kept, rest }) })
    }
}

/// A body whose first piece was read already.
pub(crate) fn prefixed(first: Bytes, rest: Body) -> Body {
    if first.is_empty() {
        return rest;
    }
    Body::stream(Replayed { kept: KeptFrames { data: [first].into(), trailers: None }, rest })
}

/// A body that begins with what was kept of it.
struct Replayed {
    kept: KeptFrames,
    // Empty if there are trailers, which end a body.
    rest: Body,
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(data) = self.kept.data.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.kept.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.kept.data.is_empty() && self.kept.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept: u64 = self.kept.data.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(kept + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(kept + upper);
        }
        hint
    }
}

/// Bytes of the longest body that is kept until the upstream answers.
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024;

/// The most frames that are kept: each takes more room than its bytes if these are few.
const MAX_FRAMES: usize = 1024;

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::HeaderValue;
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))])
    }

    fn body(frames: Vec<Frame<Bytes>>) -> Body {
        Body::stream(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
    }

    /// Reads so many frames of `a`, `bc` and trailers, and rewinds.
    async fn rewound(mut recording: Recording, frames: usize) -> Option<Body> {
        let mut body = body(vec![data("a"), data("bc"), Frame::trailers(trailers())]);
        for _ in 0..frames {
            recording.keep(&body.frame().await.unwrap().unwrap());
        }
        recording.rewind(body)
    }

    #[tokio::test]
    async fn a_body_is_whole_again_however_much_was_read() {
        for frames in 0..=3 {
            let collected = rewound(Recording::of_at_most(3), frames).await.unwrap().collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers()), "{frames} frames");
            assert_eq!(collected.to_bytes(), "abc", "{frames} frames");
        }
    }

    #[tokio::test]
    async fn a_body_of_which_too_much_was_read_is_not_sent_again() {
        assert!(rewound(Recording::of_at_most(2), 1).await.is_some());
        assert!(rewound(Recording::of_at_most(2), 2).await.is_none());
        assert!(rewound(Recording::Stopped, 0).await.is_none());
    }

    #[tokio::test]
    async fn a_limit_holds_for_what_was_read_before_it_too() {
        for (limit, is_kept) in [(2, false), (3, true)] {
            let mut recording = Recording::of_at_most(usize::MAX);
            recording.keep(&data("a"));
            recording.limit(limit);
            recording.keep(&data("bc"));
            let whole = recording.rewind(Body::full("d"));
            assert_eq!(whole.is_some(), is_kept, "{limit}");
            if let Some(whole) = whole {
                assert_eq!(whole.collect().await.unwrap().to_bytes(), "abcd");
            }
        }
    }

    #[tokio::test]
    async fn a_body_in_very_many_frames_is_not_sent_again() {
        let mut recording = Recording::of_at_most(usize::MAX);
        (0..MAX_FRAMES).for_each(|_| recording.keep(&data("a")));
        assert!(!recording.is_stopped());
        recording.keep(&data("a"));
        assert!(recording.is_stopped());
    }

    #[tokio::test]
    async fn the_length_of_a_replayed_body_is_known_if_that_of_its_rest_is() {
        let mut whole = prefixed(Bytes::from_static(b"ab"), Body::full("cde"));
        assert_eq!(whole.size_hint().exact(), Some(5));
        assert!(!whole.is_end_stream());
        assert_eq!(whole.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(whole.size_hint().exact(), Some(3));
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "cde");
        assert!(prefixed(Bytes::new(), Body::empty()).is_end_stream());
    }
}
