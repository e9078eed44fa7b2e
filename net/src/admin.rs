//! The admin port, for machines and operators: metrics, health, and a few exact paths more.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::{HeaderValue, StatusCode, header};

use crate::{Body, Client, Handler, Request, Response, plain};

/// A small server of exact paths. Any other path is a 404 that lists them.
#[derive(Default)]
pub struct Admin {
    routes: BTreeMap<String, AdminRoute>,
}

type AdminResponse = Pin<Box<dyn Future<Output = Response> + Send>>;
type AdminRoute = Box<dyn Fn(Request) -> AdminResponse + Send + Sync>;

impl Admin {
    /// A server without paths.
    pub fn new() -> Self {
        Admin::default()
    }

    /// Answers requests for exactly `path`, of any method.
    pub fn route<F>(mut self, path: &str, answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.routes.insert(path.to_owned(), Box::new(move |request| Box::pin(answer(request))));
        self
    }

    /// `/metrics`: Prometheus text, made anew for each request.
    pub fn metrics(self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.route("/metrics", move |_| {
            let mut response = Response::new(Body::full(render()));
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            std::future::ready(response)
        })
    }

    /// `/healthz`: 200 as long as the process answers.
    pub fn healthz(self) -> Self {
        self.route("/healthz", |_| std::future::ready(plain(StatusCode::OK, "ok")))
    }

    /// `/readyz`: 200, or 503 with the reason.
    pub fn readyz(self, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.route("/readyz", move |_| {
            std::future::ready(match check() {
                Ok(()) => plain(StatusCode::OK, "ok"),
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason),
            })
        })
    }
}

impl Handler for Admin {
    async fn handle(&self, _client: &Client, request: Request) -> Response {
        match self.routes.get(request.uri().path()) {
            Some(answer) => answer(request).await,
            None => {
                let paths: Vec<&str> = self.routes.keys().map(String::as_str).collect();
                plain(StatusCode::NOT_FOUND, format!("404 page not found; known paths: {}", paths.join(", ")))
            }
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("paths", &self.routes.keys()).finish()
    }
}
