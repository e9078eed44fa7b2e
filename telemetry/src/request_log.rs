//! The request log: one line on standard output for each request, in a format that operators write.
//!
//! The format is a Go template over one request (Knative's `logging.request-log-template`). Fields, the functions
//! `js` and `index`, pipes and trim markers are understood; control structures are not, and say so at the start.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version, header};
use pilotlight_config::process::Observability;
use pilotlight_net::{Request, is_probe};
use tracing::error;

use crate::lines::Lines;
use crate::names::RevisionNames;

/// Writes a line for every request. Never makes one wait: when standard output does not keep up, lines are
/// dropped, and the log says how many.
pub(crate) struct RequestLog {
    template: Template,
    logs_probes: bool,
    lines: Lines,
}

/// A request as the log shows it, noted when it arrives.
pub(crate) struct LoggedRequest {
    method: Method,
    uri: String,
    host: String,
    version: Version,
    peer: SocketAddr,
    content_length: i64,
    headers: HeaderMap,
}

/// A response as the log shows it.
pub(crate) struct LoggedResponse {
    pub(crate) status: StatusCode,
    pub(crate) bytes: u64,
    pub(crate) latency: Duration,
}

impl RequestLog {
    /// Starts the log that the settings ask for; `None`: none. A format that cannot be used is an error in the ordinary
    /// log, and no reason not to serve.
    pub(crate) fn start(asked: &Observability) -> Option<RequestLog> {
        if !asked.enable_request_log || asked.request_log_template.is_empty() {
            return None;
        }
        let template = match Template::parse(&asked.request_log_template) {
            Ok(template) => template,
            Err(fault) => {
                error!(%fault, "No request log: its template cannot be used");
                return None;
            }
        };
        match lines() {
            Ok(lines) => Some(RequestLog { template, logs_probes: asked.enable_probe_request_log, lines }),
            Err(fault) => {
                error!(%fault, "No request log: its thread cannot be started");
                None
            }
        }
    }

    /// Notes a request that arrives; `None` if it will not be logged.
    pub(crate) fn note(&self, peer: SocketAddr, request: &Request) -> Option<LoggedRequest> {
        (self.logs_probes || !is_probe(request.headers())).then(|| LoggedRequest::of(peer, request))
    }

    /// Writes the line.
    pub(crate) fn write(&self, request: &LoggedRequest, response: &LoggedResponse, revision: &RevisionNames) {
        self.lines.push(self.template.render(request, response, revision).into_bytes());
    }

    /// Waits for the lines under way, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        self.lines.flush(limit);
    }
}

/// The lines on standard output. There is one thread for them, however often the log changes.
fn lines() -> io::Result<Lines> {
    if let Some(started) = LINES.get() {
        return Ok(started.clone());
    }
    let told: fn(u64) -> String = |lost| {
        error!(lost, "Request log did not keep up, lines were dropped");
        String::new()
    };
    let started = Lines::start("request-log", io::stdout(), told)?;
    Ok(LINES.get_or_init(|| started).clone())
}

static LINES: OnceLock<Lines> = OnceLock::new();

impl LoggedRequest {
    fn of(peer: SocketAddr, request: &Request) -> Self {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
        LoggedRequest {
            method: request.method().clone(),
            uri: request.uri().to_string(),
            host: text(headers, &header::HOST).to_owned(),
            version: request.version(),
            peer,
            // Go writes -1 for an unknown length.
            content_length: length.unwrap_or(if is_chunked { -1 } else { 0 }),
            headers: headers.clone(),
        }
    }

    /// The W3C trace, or B3's; empty if there is none.
    fn trace_id(&self) -> &str {
        let traceparent = self.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let w3c = traceparent.and_then(|value| value.split('-').nth(1)).filter(|id| !id.is_empty());
        w3c.or_else(|| self.headers.get("x-b3-traceid")?.to_str().ok()).unwrap_or_default()
    }
}

/// A parsed format.
#[derive(Debug, PartialEq)]
struct Template(Vec<Piece>);

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Value { field: Field, is_escaped: bool },
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Method,
    RequestUri,
    ContentLength,
    UserAgent,
    RemoteAddr,
    Referer,
    Proto,
    Host,
    Header(String),
    Code,
    Size,
    Latency,
    RevisionName,
    RevisionNamespace,
    RevisionService,
    RevisionConfiguration,
    PodName,
    PodIp,
    TraceId,
    /// A field that does not exist. Go notices that only when it writes the line, and then writes another one.
    Unknown,
}

/// Why a format cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
enum TemplateError {
    #[error("`{{{{` without `}}}}`")]
    Unclosed,
    #[error("`{0}` is not understood: only fields, js, index, and pipes into js are")]
    Unsupported(String),
}

impl Template {
    fn parse(format: &str) -> Result<Template, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = format;
        let mut trims_next = false;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
            let before = if trims_next { before.trim_start() } else { before };
            let (before, action) = match action.strip_prefix("- ") {
                Some(action) => (before.trim_end(), action),
                None => (before, action),
            };
            let action = action.strip_suffix(" -").inspect(|_| trims_next = true).unwrap_or_else(|| {
                trims_next = false;
                action
            });
            pieces.push(Piece::Text(before.to_owned()));
            if !action.trim().starts_with("/*") {
                pieces.push(parse_action(action.trim())?);
            }
            rest = after;
        }
        let mut tail = if trims_next { rest.trim_start() } else { rest }.to_owned();
        if !tail.ends_with('\n') {
            tail.push('\n');
        }
        pieces.push(Piece::Text(tail));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Template(pieces))
    }

    fn render(&self, request: &LoggedRequest, response: &LoggedResponse, revision: &RevisionNames) -> String {
        let mut line = String::with_capacity(512);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Value { field: Field::Unknown, .. } => return invalid(request, response),
                Piece::Value { field, is_escaped: false } => {
                    line.push_str(&field.of(request, response, revision));
                }
                Piece::Value { field, is_escaped: true } => {
                    escape_js(&field.of(request, response, revision), &mut line);
                }
            }
        }
        line
    }
}

fn parse_action(action: &str) -> Result<Piece, TemplateError> {
    let unsupported = || TemplateError::Unsupported(action.to_owned());
    let (operand, is_escaped) = match (action.strip_prefix("js "), action.split_once('|')) {
        (Some(operand), None) => (operand, true),
        (None, Some((operand, function))) if function.trim() == "js" => (operand, true),
        (None, None) => (action, false),
        _ => return Err(unsupported()),
    };
    let operand = operand.trim().trim_start_matches('(').trim_end_matches(')').trim();
    let quoted = |text: &str| Some(text.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned());
    let header = operand
        .strip_prefix(".Request.Header.Get ")
        .or_else(|| operand.strip_prefix("index .Request.Header "));
    if let Some(name) = header {
        return Ok(Piece::Value { field: Field::Header(quoted(name).ok_or_else(unsupported)?), is_escaped });
    }
    if !operand.starts_with('.') || operand.contains(char::is_whitespace) {
        return Err(unsupported());
    }
    let field =
        FIELDS.iter().find(|(name, _)| *name == operand).map_or(Field::Unknown, |(_, field)| field.clone());
    Ok(Piece::Value { field, is_escaped })
}

impl Field {
    fn of(&self, request: &LoggedRequest, response: &LoggedResponse, revision: &RevisionNames) -> String {
        match self {
            Field::Method => request.method.to_string(),
            Field::RequestUri => request.uri.clone(),
            Field::ContentLength => request.content_length.to_string(),
            Field::UserAgent => text(&request.headers, &header::USER_AGENT).to_owned(),
            Field::RemoteAddr => request.peer.to_string(),
            Field::Referer => text(&request.headers, &header::REFERER).to_owned(),
            Field::Proto => match request.version {
                Version::HTTP_2 => "HTTP/2.0".to_owned(),
                version => format!("{version:?}"),
            },
            Field::Host => request.host.clone(),
            Field::Header(name) => request
                .headers
                .get(name.as_str())
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            Field::Code => response.status.as_u16().to_string(),
            Field::Size => response.bytes.to_string(),
            Field::Latency => response.latency.as_secs_f64().to_string(),
            Field::RevisionName => revision.name.clone(),
            Field::RevisionNamespace => revision.namespace.clone(),
            Field::RevisionService => revision.service.clone(),
            Field::RevisionConfiguration => revision.configuration.clone(),
            Field::PodName => revision.pod_name.clone(),
            Field::PodIp => revision.pod_ip.clone(),
            Field::TraceId => request.trace_id().to_owned(),
            Field::Unknown => String::new(),
        }
    }
}

/// The line that Go's template package makes of a field that does not exist.
fn invalid(request: &LoggedRequest, response: &LoggedResponse) -> String {
    format!(
        "Invalid request log template: method: {}, response code: {}, latency: {}, url: {}\n",
        request.method,
        response.status.as_u16(),
        response.latency.as_secs_f64(),
        request.uri
    )
}

/// Escapes as Go's `js` does, but for one character: safe within a JavaScript or JSON string.
fn escape_js(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            // Go writes \' for the quote, which JSON does not know; JavaScript takes this as well.
            '\'' | '<' | '>' | '&' | '=' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

const FIELDS: [(&str, Field); 18] = [
    (".Request.Method", Field::Method),
    (".Request.RequestURI", Field::RequestUri),
    (".Request.ContentLength", Field::ContentLength),
    (".Request.UserAgent", Field::UserAgent),
    (".Request.RemoteAddr", Field::RemoteAddr),
    (".Request.Referer", Field::Referer),
    (".Request.Proto", Field::Proto),
    (".Request.Host", Field::Host),
    (".Response.Code", Field::Code),
    (".Response.Size", Field::Size),
    (".Response.Latency", Field::Latency),
    (".Revision.Name", Field::RevisionName),
    (".Revision.Namespace", Field::RevisionNamespace),
    (".Revision.Service", Field::RevisionService),
    (".Revision.Configuration", Field::RevisionConfiguration),
    (".Revision.PodName", Field::PodName),
    (".Revision.PodIP", Field::PodIp),
    (".TraceID", Field::TraceId),
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pilotlight_net::Body;

    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> LoggedRequest {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/a?b='c'".parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        LoggedRequest::of("10.0.0.1:4711".parse().unwrap(), &request)
    }

    fn render(format: &str, headers: &[(&'static str, &str)]) -> String {
        let response =
            LoggedResponse { status: StatusCode::CREATED, bytes: 12, latency: Duration::from_millis(1500) };
        let revision = RevisionNames {
            name: "rev".to_owned(),
            namespace: "ns".to_owned(),
            service: "svc".to_owned(),
            configuration: "cfg".to_owned(),
            pod_name: "pod".to_owned(),
            pod_ip: "10.1.2.3".to_owned(),
        };
        Template::parse(format).unwrap().render(&request(headers), &response, &revision)
    }

    #[test]
    fn a_newline_is_added_where_there_is_none() {
        assert_eq!(render("x", &[]), "x\n");
        assert_eq!(render("x\n", &[]), "x\n");
    }

    #[test]
    fn every_field_has_its_value() {
        let format: Vec<String> = FIELDS.iter().map(|(name, _)| format!("{{{{{name}}}}}")).collect();
        let headers = [("host", "h"), ("user-agent", "ua"), ("referer", "r"), ("content-length", "5")];
        assert_eq!(
            render(&format.join(" "), &headers),
            "GET /a?b='c' 5 ua 10.0.0.1:4711 r HTTP/1.1 h 201 12 1.5 rev ns svc cfg pod 10.1.2.3 \n"
        );
    }

    #[test]
    fn the_default_format_is_json() {
        let line = render(&Observability::default().request_log_template, &[("user-agent", "a\"b\n")][..0]);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["httpRequest"]["status"], 201);
        assert_eq!(parsed["httpRequest"]["requestUrl"], "/a?b='c'");
        assert_eq!(parsed["httpRequest"]["latency"], "1.5s");
    }

    #[test]
    fn headers_pipes_and_trim_markers_are_understood() {
        let headers = [("x-a", "1<2")];
        assert_eq!(render("{{.Request.Header.Get \"X-A\"}}", &headers), "1<2\n");
        assert_eq!(render("{{js (index .Request.Header \"X-A\")}}", &headers), "1\\u003C2\n");
        assert_eq!(render("{{ .Request.Method | js }}", &[]), "GET\n");
        assert_eq!(render("a {{- .Request.Method -}} b{{/* nothing */}}", &[]), "aGETb\n");
    }

    #[test]
    fn escaping_is_gos_but_for_the_quote() {
        let mut out = String::new();
        escape_js("a'b\"c\\d<>&=\n\u{7f}é", &mut out);
        assert_eq!(out, r#"a\u0027b\"c\\d\u003C\u003E\u0026\u003D\u000A\u007Fé"#);
    }

    #[test]
    fn a_field_that_there_is_not_makes_another_line() {
        assert_eq!(
            render("{{.Request.Metod}}", &[]),
            "Invalid request log template: method: GET, response code: 201, latency: 1.5, url: /a?b='c'\n"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_at_the_start() {
        assert_eq!(Template::parse("{{.Request.Method"), Err(TemplateError::Unclosed));
        for action in ["if .Request", "range .X", "end", "printf \"%d\" .Response.Code", ".A | printf"] {
            let unsupported = TemplateError::Unsupported(action.to_owned());
            assert_eq!(Template::parse(&format!("{{{{{action}}}}}")), Err(unsupported));
        }
    }

    #[test]
    fn the_w3c_trace_comes_before_b3() {
        let w3c = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01");
        assert_eq!(request(&[w3c, ("x-b3-traceid", "b3")]).trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(request(&[("traceparent", "invalid"), ("x-b3-traceid", "b3")]).trace_id(), "b3");
        assert_eq!(request(&[("traceparent", "00")]).trace_id(), "");
    }

    #[test]
    fn chunked_and_absent_bodies_have_gos_lengths() {
        assert_eq!(request(&[]).content_length, 0);
        assert_eq!(request(&[("transfer-encoding", "chunked")]).content_length, -1);
    }
}
