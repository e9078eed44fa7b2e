//! Spans: the parts of a request's way, with their durations and parents. OpenTelemetry's library makes and samples
//! them; [`export`] sends them out.

mod export;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan};
use pilotlight_config::process::{Sampling, TraceExport};

pub use self::export::TraceError;
use self::export::{Exporter, Queue};

/// Makes spans.
pub(crate) struct Tracer {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    exporter: Exporter,
    // Kept: the spans' processing ends when it is dropped.
    _provider: SdkTracerProvider,
}

/// The span that a request is in.
#[derive(Clone)]
pub(crate) struct Parent(SpanContext);

/// A span of a request's way, or nothing if it is not traced. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<SdkSpan>>);

impl Tracer {
    pub(crate) fn start(
        export: &TraceExport,
        scope: &'static str,
        resource: &[(&'static str, String)],
    ) -> Result<Tracer, TraceError> {
        let attributes = resource.iter().map(|(name, value)| KeyValue::new(*name, value.clone()));
        let resource = Resource::builder().with_attributes(attributes).build();
        let (queue, exporter) = Exporter::start(&export.receiver, &resource)?;
        Ok(Tracer::new(export.sampling, scope, resource, queue, exporter))
    }

    fn new(
        sampling: Sampling,
        scope: &'static str,
        resource: Resource,
        queue: Queue,
        exporter: Exporter,
    ) -> Tracer {
        let builder = SdkTracerProvider::builder().with_resource(resource).with_span_processor(queue);
        let provider = match sampling {
            // The library reads the variable by itself.
            Sampling::Environment => builder,
            Sampling::Fraction(all) if all >= 1.0 => builder.with_sampler(Sampler::AlwaysOn),
            Sampling::Fraction(none) if none <= 0.0 => builder.with_sampler(Sampler::AlwaysOff),
            Sampling::Fraction(some) => {
                builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(some))))
            }
        }
        .build();
        let tracer = provider.tracer_with_scope(InstrumentationScope::builder(scope).build());
        Tracer { tracer, propagator: TraceContextPropagator::new(), exporter, _provider: provider }
    }

    /// Begins the span of a request that has arrived, as a part of the client's trace if there is one.
    pub(crate) fn arrived(&self, name: Cow<'static, str>, headers: &HeaderMap) -> Span {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        self.begin(&parent, SpanKind::Server, name)
    }

    /// Begins a part of `parent`; nothing if that is not traced.
    pub(crate) fn part(&self, parent: &Parent, name: &'static str) -> Span {
        if !parent.is_traced() {
            return Span::none();
        }
        self.begin(&parent.context(), SpanKind::Internal, name.into())
    }

    /// Begins the span of a request that is sent on.
    pub(crate) fn sending(&self, parent: &Parent, name: String) -> Span {
        self.begin(&parent.context(), SpanKind::Client, name.into())
    }

    fn begin(&self, parent: &Context, kind: SpanKind, name: Cow<'static, str>) -> Span {
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Span(Some(Box::new(self.tracer.build_with_context(builder, parent))))
    }

    /// Sends what is left, but takes no longer than this.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.exporter.finish(limit).await;
    }
}

impl Parent {
    pub(crate) fn is_traced(&self) -> bool {
        self.0.is_sampled()
    }

    /// Tells the next hop the parent of its own span (W3C Trace Context).
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let Parent(context) = self;
        if !context.is_valid() {
            return;
        }
        let sampled = u8::from(context.is_sampled());
        let text = format!("00-{}-{}-{sampled:02x}", context.trace_id(), context.span_id());
        // Never fails: hexadecimal digits are legal, and the state was a header before.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
        match HeaderValue::try_from(context.trace_state().header()) {
            Ok(state) if !state.is_empty() => headers.insert(TRACESTATE, state),
            _ => headers.remove(TRACESTATE),
        };
    }

    fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

impl Span {
    /// A span of nothing.
    pub fn none() -> Self {
        Span(None)
    }

    /// Marks the span as failed, with the reason.
    pub fn fail(&mut self, reason: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(reason));
        }
    }

    pub(crate) fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Adds attributes. `attributes` is not called if the span is not recorded.
    pub(crate) fn describe(&mut self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) {
            span.set_attributes(attributes());
        }
    }

    pub(crate) fn as_parent(&self) -> Option<Parent> {
        self.0.as_ref().map(|span| Parent(span.span_context().clone()))
    }
}

/// Headers, as the library reads a trace's context from them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sampling: Sampling) -> Tracer {
        let (queue, exporter) = Exporter::to_nobody();
        Tracer::new(sampling, "test", Resource::builder_empty().build(), queue, exporter)
    }

    fn headers(traceparent: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(traceparent));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        headers
    }

    /// The headers that the next hop gets for a request that came with these.
    fn sent_on(tracer: &Tracer, mut headers: HeaderMap) -> HeaderMap {
        let server = tracer.arrived("GET".into(), &headers);
        let client = tracer.sending(&server.as_parent().unwrap(), "HTTP GET".to_owned());
        client.as_parent().unwrap().write_to(&mut headers);
        headers
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[tokio::test]
    async fn the_next_hop_sees_the_same_trace_and_us_as_its_parent() {
        let tracer = tracer(Sampling::Fraction(1.0));
        let seen = sent_on(&tracer, headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        let parts: Vec<&str> = seen[TRACEPARENT].to_str().unwrap().split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
        assert!(parts[2].len() == 16 && parts[2] != "b7ad6b7169203331", "{parts:?}");
        assert_eq!(seen[TRACESTATE], "vendor=1");
    }

    #[tokio::test]
    async fn who_began_the_trace_decides_unless_all_or_none_are_traced() {
        for (sampling, flag_in, flag_out) in
            [(0.5, "00", "00"), (0.5, "01", "01"), (1.0, "00", "01"), (0.0, "01", "00")]
        {
            let text: String = format!("00-{TRACE}-b7ad6b7169203331-{flag_in}");
            let mut incoming = HeaderMap::new();
            incoming.insert(TRACEPARENT, HeaderValue::try_from(text).unwrap());
            let seen = sent_on(&tracer(Sampling::Fraction(sampling)), incoming);
            let seen = seen[TRACEPARENT].to_str().unwrap();
            assert!(seen.contains(TRACE) && seen.ends_with(flag_out), "{sampling} {flag_in}: {seen}");
        }
    }

    #[tokio::test]
    async fn a_trace_begins_here_where_none_came_or_it_was_malformed() {
        let tracer = tracer(Sampling::Fraction(1.0));
        for incoming in [HeaderMap::new(), headers("nonsense"), headers("00-00-00-00")] {
            let seen = sent_on(&tracer, incoming);
            assert_eq!(seen[TRACEPARENT].len(), 55, "{seen:?}");
            assert!(!seen.contains_key(TRACESTATE), "state of a trace that is not this one");
        }
    }
}
