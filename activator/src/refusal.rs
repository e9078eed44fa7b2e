//! Responses that the activator makes itself. Texts are Knative's where it has one; a header names the reason for
//! machines, and the known cause is added.

use std::fmt::Write;

use http::{HeaderValue, StatusCode, header};
use pilotlight_core::{Time, Trouble};
use pilotlight_net::{Response, headers, message, plain};

use crate::routes::{Routes, Unroutable};
use crate::throttler::{Obstacle, Refusal};

/// The response to a request that will not be sent to a pod.
pub(crate) fn refused(refusal: &Refusal, now: Time) -> Response {
    match refusal {
        Refusal::QueueFull => {
            let response = plain(StatusCode::SERVICE_UNAVAILABLE, "pending request queue full");
            retry_after(with_reason(response, "queue-full"), 1)
        }
        Refusal::Deleted => {
            with_reason(message::empty(StatusCode::INTERNAL_SERVER_ERROR), "revision-deleted")
        }
        Refusal::Trouble(trouble) => {
            let wait = trouble.retry_at.map_or(0, |at| (at - now).as_nanos().div_ceil(1_000_000_000));
            let seconds = u64::try_from(wait).unwrap_or(u64::MAX).max(1);
            let response = plain(StatusCode::SERVICE_UNAVAILABLE, describe(trouble));
            retry_after(with_reason(response, trouble.reason.as_str()), seconds)
        }
    }
}

/// The response to a request whose time limit passed while it waited.
pub(crate) fn timed_out(message: &str, obstacle: &Obstacle) -> Response {
    let (reason, why) = match obstacle {
        Obstacle::NoPods { trouble: Some(trouble), .. } => (trouble.reason.as_str(), describe(trouble)),
        Obstacle::NoPods { starting: 0, .. } => {
            ("no-pods", "no pod is ready, and none is starting".to_owned())
        }
        Obstacle::NoPods { starting, .. } => {
            ("not-ready", format!("no pod became ready ({starting} starting)"))
        }
        Obstacle::PodsBusy { pods } => ("pods-busy", format!("no pod had room ({pods} ready)")),
    };
    with_reason(plain(StatusCode::GATEWAY_TIMEOUT, format!("{message}\n{why}")), reason)
}

/// The response to a request without a route. `tell_hosts`: list the known hosts.
pub(crate) fn unroutable(why: &Unroutable, routes: &Routes, tell_hosts: bool) -> Response {
    let name = match why {
        Unroutable::NotYet => {
            let response = plain(StatusCode::SERVICE_UNAVAILABLE, "the endpoints are not known yet");
            return retry_after(with_reason(response, "no-endpoints"), 1);
        }
        // Traffic still comes: whoever removed the revision may be about to bring it back, or the port to leave the Service.
        Unroutable::Port(revision) => {
            let text = format!("nothing is known of {revision}; it may have been removed a moment ago");
            return retry_after(with_reason(plain(StatusCode::SERVICE_UNAVAILABLE, text), "no-revision"), 1);
        }
        Unroutable::Host(host) if tell_hosts => {
            let hosts = routes.hosts();
            let known = if hosts.is_empty() { "none yet".to_owned() } else { hosts.join("\n  ") };
            let text = format!("no revision answers to the host \"{host}\"; known hosts:\n  {known}");
            return plain(StatusCode::NOT_FOUND, text);
        }
        // Knative looks up a revision with an empty name (pkg/activator/handler/context_handler.go); the text is the same.
        Unroutable::Host(_) => "",
        Unroutable::Revision(name) => name,
    };
    let text = format!("Error getting active endpoint: revision.serving.knative.dev \"{name}\" not found");
    plain(StatusCode::NOT_FOUND, text)
}

fn describe(trouble: &Trouble) -> String {
    let mut text = trouble.message.clone();
    // A write to a string cannot fail.
    if let Some(code) = trouble.exit_code {
        let _ = write!(text, "\nexit code: {code}");
    }
    if !trouble.log_tail.is_empty() {
        let _ = write!(text, "\nlast lines of its standard error:");
    }
    for line in &trouble.log_tail {
        let _ = write!(text, "\n  {line}");
    }
    text
}

fn with_reason(mut response: Response, reason: &str) -> Response {
    let value = HeaderValue::from_str(reason).unwrap_or(HeaderValue::from_static("unknown"));
    response.headers_mut().insert(headers::REASON, value);
    response
}

fn retry_after(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use pilotlight_core::TroubleReason;

    use super::*;

    fn trouble(retry_at: Option<Time>) -> Trouble {
        Trouble {
            reason: TroubleReason::Exited,
            message: "`./app` exited 3 times in a row".to_owned(),
            exit_code: Some(2),
            log_tail: vec!["panic: no database".to_owned()],
            failures: 3,
            retry_at,
            on_demand_at: None,
            give_up: true,
        }
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn trouble_is_told_in_full_with_the_time_to_come_back() {
        let now = Time::from_secs(100);
        let answer = |retry_at| refused(&Refusal::Trouble(trouble(retry_at).into()), now);
        let seconds = |retry_at| answer(retry_at).headers()["retry-after"].to_str().unwrap().to_owned();
        assert_eq!(seconds(Some(Time::from_millis(104_001))), "5");
        assert_eq!(seconds(Some(Time::from_secs(90))), "1");
        assert_eq!(seconds(None), "1");
        let response = answer(None);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-pilotlight-reason"], "exited");
        assert_eq!(
            text(response).await,
            "`./app` exited 3 times in a row\nexit code: 2\nlast lines of its standard error:\n  panic: no database\n"
        );
    }

    #[tokio::test]
    async fn a_timeout_says_what_was_waited_for() {
        let response =
            timed_out("activator request timeout", &Obstacle::NoPods { starting: 2, trouble: None });
        assert_eq!(response.headers()["x-pilotlight-reason"], "not-ready");
        assert_eq!(text(response).await, "activator request timeout\nno pod became ready (2 starting)\n");
    }
}
