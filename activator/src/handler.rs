//! The path of one request, from the client to a pod and back.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use pilotlight_net::headers::Marks;
use pilotlight_net::{
    Client, Fault, Handler, Request, Response, SendError, headers, hold_while, is_replayable, mark_unsent,
    message, plain, prepare_forward, prepare_onward, prepare_response, with_timeouts,
};

use pilotlight_telemetry::Call;

use crate::activator::{Activator, ActivatorState};
use crate::pods::Pod;
use crate::ports::PortConnection;
use crate::revision::{Demand, Exchange};
use crate::throttler::{PlaceInLine, Slot};
use crate::{probes, refusal};

impl Handler for Activator {
    fn handle(&self, client: &Client, request: Request) -> impl Future<Output = Response> + Send {
        answer(&self.shared, None, client, request)
    }
}

impl Handler for PortConnection {
    fn handle(&self, client: &Client, request: Request) -> impl Future<Output = Response> + Send {
        answer(&self.shared, Some(self), client, request)
    }
}

/// Answers a request that came in at a revision's own port, or, without one, at a port that all revisions share.
async fn answer(
    shared: &ActivatorState,
    port: Option<&PortConnection>,
    client: &Client,
    mut request: Request,
) -> Response {
    let mut marks = Marks::of(request.headers());
    let (mut demand, mut is_handed_on) = (Demand::Counted, false);
    if let Some(port) = port {
        // Knative's headers are the app's business here.
        marks = marks.without(Marks::REVISION);
        is_handed_on = request.headers_mut().remove(headers::HANDED_ON).is_some();
        demand = port.demand(&request, is_handed_on);
    } else {
        if marks.any(Marks::PROBE)
            && let Some(answer) = probes::answer(request.headers(), shared.health())
        {
            return answer;
        }
        if !shared.params.behind_ingress {
            FROM_INGRESS.iter().for_each(|name| drop(request.headers_mut().remove(name)));
        }
    }
    let telemetry = &shared.params.telemetry;
    let mut told = match demand {
        Demand::Counted => telemetry.begin(client.address(), &mut request),
        Demand::HandedOn | Demand::None => None,
    };
    let revision = port.map(PortConnection::revision);
    let found = match demand {
        Demand::None => Ok(shared.routes.find(revision, &request)),
        _ => shared.routes.find_or_wait(revision, &mut request, &shared.body_bytes).await,
    };
    let route = match found {
        Err(left_or_refused) => return tell(told, message::respond(&left_or_refused)),
        Ok(Ok(route)) => route,
        Ok(Err(_)) if demand == Demand::None => return message::empty(StatusCode::OK),
        Ok(Err(why)) => {
            let tell_hosts = shared.params.single_default;
            return tell(told, refusal::unroutable(&why, &shared.routes, tell_hosts));
        }
    };
    let revision = &route.revision;
    if let Some(told) = &mut told {
        told.about(revision.names(), &mut request);
    }
    let mut exchange = if demand == Demand::Counted {
        let (exchange, announcement) = revision.begin(shared.params.clock, request.method().clone());
        if let Some(stat) = announcement {
            shared.announce(revision, stat);
        }
        exchange
    } else {
        revision.begin_uncounted(shared.params.clock, request.method().clone(), demand)
    };

    match demand {
        // The activator before this one has added the client.
        Demand::HandedOn => prepare_onward(&mut request, marks),
        Demand::Counted | Demand::None => prepare_forward(&mut request, client, marks),
    }
    if port.is_none() {
        mark(&mut request, marks);
    }
    let place = revision.throttler().arrive(port.map_or(&None, PortConnection::port));
    let is_waiting = AtomicBool::new(true);
    // Pinned in place: a future passed by value takes its size twice, as an argument and as the pinned copy.
    let mut response = with_timeouts(
        client,
        route.timeouts,
        TIMEOUT_MESSAGE,
        pin!(forward(
            shared,
            &Way { port, client, is_handed_on },
            &exchange,
            &place,
            &is_waiting,
            &mut request
        )),
    )
    .await;
    if is_waiting.into_inner() && response.status() == StatusCode::GATEWAY_TIMEOUT {
        response = refusal::timed_out(TIMEOUT_MESSAGE, &place.obstacle());
    }
    exchange.answered(response.status());
    tell(told, response.map(|body| body.watched(move |ending| exchange.ended(ending))))
}

/// Ends the request's span, metrics and log entry with the response, if telemetry wants any.
fn tell(told: Option<Call>, response: Response) -> Response {
    match told {
        Some(told) => told.until_the_end_of(response),
        None => response,
    }
}

/// Sends the request to a pod as soon as one has room, and again if it comes back as it was: as often as no app has seen it,
/// and once if it is idempotent, has no body, and was not answered with a byte. A request that kills apps takes no more
/// than two with it.
async fn forward(
    shared: &ActivatorState,
    way: &Way<'_>,
    exchange: &Exchange,
    place: &PlaceInLine,
    is_waiting: &AtomicBool,
    request: &mut Request,
) -> Response {
    let telemetry = &shared.params.telemetry;
    let may_repeat = is_replayable(request);
    let mut was_repeated = false;
    loop {
        let mut trying = telemetry.span(request, "throttler_try");
        let mut slot = match slot(shared, exchange, place, request).await {
            Ok(slot) => slot,
            Err(answer) => {
                is_waiting.store(false, Ordering::Relaxed);
                trying.fail("there is no pod for the request");
                return answer;
            }
        };
        drop(trying);
        is_waiting.store(false, Ordering::Relaxed);
        let sent = shared.params.clock.now();
        if way.is_handed_on && slot.pod.owner.is_some() {
            return not_owned();
        }
        let to = way.address(request, &slot.pod);
        let proxying = telemetry.span(request, "activator_proxy");
        let sending = telemetry.sending_in(&proxying, to, request);
        let mut outcome = match way.port {
            None => shared.upstreams.send(way.client, exchange.namespace(), &slot.pod, request).await,
            Some(_) => shared.upstreams.send_to(way.client, to, request).await,
        };
        if let Some(sending) = sending {
            outcome = sending.answered(outcome);
        }
        let comes_back = match &outcome {
            Err(SendError::NotSent { .. }) => true,
            Err(SendError::Replayable { .. }) => !std::mem::replace(&mut was_repeated, true),
            Ok(response) if may_repeat && is_in_place_of_the_app(response, &[headers::APP_CLOSED]) => {
                !std::mem::replace(&mut was_repeated, true)
            }
            Ok(_) | Err(SendError::Failed { .. }) => false,
        };
        if !comes_back && slot.take_wake() {
            exchange.woke(&slot.pod, sent);
        }
        match outcome {
            // The queue-proxy is well, and knows whether its app still listens.
            Ok(_) if comes_back => {
                exchange.refused(APP_CLOSED);
                way.client.set_waiting();
                is_waiting.store(true, Ordering::Relaxed);
            }
            Ok(mut response) => {
                slot.pod_answered();
                if is_in_place_of_the_app(&response, &[headers::APP_FAILED, headers::APP_CLOSED]) {
                    exchange.lost("the app took the request and did not answer, or never took it");
                }
                prepare_response(&mut response);
                if place.found_no_pods() && exchange.demand() == Demand::Counted {
                    tell_cold_start(&mut response, sent - exchange.arrived());
                }
                return response.map(|body| body.guarded((slot, proxying)));
            }
            Err(failure) if comes_back => {
                exchange.refused(&failure.to_string());
                slot.pod_refused();
                is_waiting.store(true, Ordering::Relaxed);
            }
            Err(failure) => {
                let source = failure.into_error();
                if source.fault() == Fault::Upstream {
                    exchange.lost(&source.to_string());
                }
                return message::respond(&source);
            }
        }
    }
}

/// A slot at a pod, or the response that says why there will be none. The body is read while the request waits, within
/// the byte budget.
async fn slot(
    shared: &ActivatorState,
    exchange: &Exchange,
    place: &PlaceInLine,
    request: &mut Request,
) -> Result<Slot, Response> {
    let slot = match place.try_slot() {
        Some(slot) => slot,
        None if exchange.demand() == Demand::None => return Err(message::empty(StatusCode::OK)),
        None => hold_while(request, exchange.waiting_bytes(), place.slot())
            .await
            .map_err(|left_or_refused| message::respond(&left_or_refused))?,
    };
    slot.map_err(|refusal| refusal::refused(&refusal, shared.params.clock.now()))
}

/// Marks the request for the queue-proxy: the activator forwards it, whatever the client claimed, and this is the host the
/// client asked for.
fn mark(request: &mut Request, marks: Marks) {
    let headers = request.headers_mut();
    headers.insert(headers::PROXY_REQUEST, HeaderValue::from_static(headers::ACTIVATOR));
    if marks.any(Marks::NETWORK_HASH) {
        headers.remove(headers::NETWORK_HASH);
    }
    // Looked up, not only marked: `Connection: k-original-host` made it hop-by-hop, and it was removed (RFC 9110, 7.6.1).
    if !(marks.any(Marks::ORIGINAL_HOST) && headers.contains_key(headers::ORIGINAL_HOST))
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(headers::ORIGINAL_HOST, host);
    }
}

/// The way by which a request came in.
struct Way<'a> {
    port: Option<&'a PortConnection>,
    client: &'a Client,
    /// Another activator sent it: it is not handed on again.
    is_handed_on: bool,
}

impl Way<'_> {
    /// Addresses the request to a pod, or to the activator that the pod belongs to.
    fn address(&self, request: &mut Request, pod: &Pod) -> SocketAddr {
        let headers = request.headers_mut();
        let Some(port) = self.port else {
            headers.insert(header::HOST, pod.host.clone());
            if pod.is_in_mesh {
                headers.insert(headers::PASSTHROUGH_LB, HeaderValue::from_static("true"));
            }
            return pod.address;
        };
        match pod.owner {
            Some(_) => drop(headers.insert(headers::HANDED_ON, HeaderValue::from_static("1"))),
            // A request that was handed on and came back still has the header.
            None => drop(headers.remove(headers::HANDED_ON)),
        }
        pod.address_for(port.port(), self.client.local().map_or(0, |local| local.port()))
    }
}

/// The answer to a request that was handed on to the owner of some pods, who is it no longer: the activator that did so
/// keeps the request's place, and looks for the owner again.
fn not_owned() -> Response {
    let mut response = plain(StatusCode::BAD_GATEWAY, "the pods belong to another activator by now");
    mark_unsent(&mut response);
    response
}

/// Whether the queue-proxy answered in place of its app, for one of these reasons.
fn is_in_place_of_the_app(response: &Response, reasons: &[&str]) -> bool {
    response.status() == StatusCode::BAD_GATEWAY
        && response
            .headers()
            .get(headers::REASON)
            .is_some_and(|said| reasons.iter().any(|reason| said == reason))
}

/// Adds the cold start's length as `Server-Timing`, which browsers show in their developer tools.
fn tell_cold_start(response: &mut Response, waited: Duration) {
    let text = format!("cold-start;dur={:.1}", waited.as_secs_f64() * 1000.0);
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

/// Headers that only an ingress may set.
const FROM_INGRESS: [HeaderName; 3] = [headers::REVISION, headers::NAMESPACE, headers::ORIGINAL_HOST];
const APP_CLOSED: &str = "the app ended the connection without an answer";
const TIMEOUT_MESSAGE: &str = "activator request timeout";
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
