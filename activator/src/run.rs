//! The activator as a program: servers, signals, the end.

use std::future::ready;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderValue, StatusCode, header};
use pilotlight_net::tls::keep_renewed;
use pilotlight_net::{Admin, Body, Drain, Port, Response, listen, plain};
use pilotlight_process::flags::parse;
use pilotlight_process::{AdminPort, FAILURE, MetricsPage, StopSignals, end, print_valid, start_logs};
use pilotlight_telemetry::Registry;
use tokio::task::JoinSet;
use tracing::{Level, field, info};

use crate::settings::{ActivatorArgs, Program, Settings};
use crate::{Activator, endpoints};

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    match parse::<Program>(std::env::args_os()) {
        Ok(program) => run(&program.args),
        Err(code) => code,
    }
}

/// Runs the program: checks the settings, serves until a signal says to stop, drains.
pub fn run(args: &ActivatorArgs) -> ExitCode {
    let logs = args.logs();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &ActivatorArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let code = runtime.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        let registry = Registry::new();
        let settings = args.settings(|name| std::env::var(name).ok(), &registry)?;
        if args.only_checks() {
            return Ok(print_valid(&settings.in_force()));
        }
        serve(settings, registry, &mut signals).await
    });
    // A task that is left waits for a peer that does not answer.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn serve(
    settings: Settings,
    registry: Registry,
    signals: &mut StopSignals,
) -> anyhow::Result<ExitCode> {
    let Settings { over_tls, tls_poll_interval, endpoints, autoscaler, admin_tls, resource, params, .. } =
        settings;
    registry.install().context("cannot install the recorder of metrics")?;
    let page = MetricsPage::new(registry, &resource).with_requests_of(params.telemetry.clone());
    let listen = |address: SocketAddr| listen(address).with_context(|| format!("cannot listen on {address}"));
    let listener = listen(settings.listen)?;
    let open = |address| {
        AdminPort::open(address, admin_tls.clone()).with_context(|| format!("cannot listen on {address}"))
    };
    let admin = settings.admin.map(open).transpose()?;
    // The real addresses, should a port have been given as 0.
    let address = listener.local_addr()?;
    let admin_address = admin.as_ref().map(AdminPort::address).transpose()?;
    let over_tls =
        over_tls.map(|(address, tls)| Ok::<_, anyhow::Error>((listen(address)?, tls))).transpose()?;
    if let Some(tls) = &admin_tls {
        tokio::spawn(keep_renewed(tls, tls_poll_interval));
    }
    if let Some(pods) = &params.pods_over_tls {
        tokio::spawn(keep_renewed(&pods.tls, tls_poll_interval));
    }

    let activator = Activator::start(params, endpoints::follow(endpoints));
    let most = settings.max_connections;
    if let Some(port) = admin {
        // The admin port answers to the end: its server ends with the runtime.
        port.limited(most).serve(admin_routes(&activator, page), Drain::default());
    }
    info!(%address, admin = admin_address.map(field::display), %autoscaler, "Activator is listening");

    let drain = Drain::default();
    let mut serving = JoinSet::new();
    serving.spawn(activator.serve(Port::limited(listener, most), drain.clone()));
    if let Some((listener, tls)) = over_tls {
        info!(listen = %listener.local_addr()?, "Serving over TLS");
        tokio::spawn(keep_renewed(&tls, tls_poll_interval));
        serving.spawn(activator.serve_tls(Port::limited(listener, most), tls, drain.clone()));
    }
    let signal = signals.next().await;
    info!(signal, "Stopping");
    let stop = async {
        activator.drain().await;
        drain.start();
        // Err: a panic, which has been printed. Nothing is being served in either case.
        while serving.join_next().await.is_some() {}
        activator.close().await;
    };
    tokio::select! {
        () = stop => Ok(ExitCode::SUCCESS),
        _ = signals.next() => Ok(ExitCode::from(FAILURE)),
    }
}

/// What an activator's admin port serves: that of every program, and `/v1/activity`.
pub fn admin_routes(activator: &Activator, page: MetricsPage) -> Admin {
    let (ready_of, activity_of) = (activator.clone(), activator.clone());
    pilotlight_process::admin_routes(move || page.render(), move || ready_of.check().map_err(str::to_owned))
        .route("/v1/activity", move |_| ready(activity(&activity_of)))
}

fn activity(activator: &Activator) -> Response {
    match serde_json::to_vec_pretty(&activator.activity()) {
        Ok(json) => {
            let mut response = Response::new(Body::full(json));
            let json_type = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json_type);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
