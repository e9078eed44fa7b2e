//! The activator's flags and variables, and the settings they stand for: all checked before anything is started.

mod traffic;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};
use pilotlight_config::process::{TelemetryEnv, variables};
use pilotlight_net::Target;
use pilotlight_net::tls::{CertificateFiles, PodTls, ServerTls, TlsError};
use pilotlight_process::flags::{AdminArgs, CheckArgs, LogArgs, address};
use pilotlight_process::{LogSettings, WrongSettings, admin_address, chain};
use pilotlight_telemetry::{Registry, prometheus_tls};

use self::traffic::some_time;
pub use self::traffic::{TrafficArgs, start_telemetry, tls_policy};
use crate::{ActivatorParams, PodsOverTls};

/// The activator as a program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-activator", version)]
pub(crate) struct Program {
    #[command(flatten)]
    pub(crate) args: ActivatorArgs,
}

/// Hold requests while pods come up, so that none is lost
#[derive(Debug, Args)]
#[command(
    after_long_help = variables::help(&[variables::LOGS, variables::ACTIVATOR_TLS, variables::TELEMETRY]),
    mut_arg("admin", |flag| flag.help(ADMIN)),
)]
pub struct ActivatorArgs {
    /// Address to take requests at
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8012", value_parser = address)]
    listen: SocketAddr,
    /// Address to take requests over TLS at, given --tls-cert-dir
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8112", value_parser = address)]
    listen_tls: SocketAddr,
    /// Folder of tls.crt and tls.key; without it, no requests are taken over TLS
    #[arg(long, value_name = "DIR")]
    tls_cert_dir: Option<PathBuf>,
    /// Authorities (PEM files) of the pods' certificates: TLS to the pods that take it
    #[arg(long, value_name = "FILE", num_args = 1..)]
    tls_ca: Vec<PathBuf>,
    /// Use TLS to all pods, on port 8112 where their endpoints name none
    #[arg(long, requires = "tls_ca")]
    tls_to_pods: bool,
    /// How often to look whether certificates were replaced
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = some_time)]
    tls_poll_interval: Duration,
    /// URL of the endpoints
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/v1/endpoints")]
    endpoints: String,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Let the only revision there is answer for every host
    #[arg(long)]
    single_default: bool,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// The settings in force, all of them legal.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// `None`: no requests over TLS.
    pub(crate) over_tls: Option<(SocketAddr, Arc<ServerTls>)>,
    pub(crate) tls_poll_interval: Duration,
    pub(crate) endpoints: Target,
    pub(crate) autoscaler: Target,
    /// `None`: there is no admin port.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_tls: Option<Arc<ServerTls>>,
    /// The most connections of clients at each port.
    pub(crate) max_connections: usize,
    /// Attributes that all spans and series have in common, by OpenTelemetry's names.
    pub(crate) resource: Vec<(&'static str, String)>,
    pub(crate) params: ActivatorParams,
}

impl ActivatorArgs {
    pub(crate) fn logs(&self) -> LogSettings {
        self.logs.settings()
    }

    /// Whether to stop after the check.
    pub(crate) fn only_checks(&self) -> bool {
        self.check.check_config
    }

    /// Reads files and variables, and checks everything; all that is wrong at once. On a runtime: traces begin to be
    /// sent as soon as there are any.
    pub(crate) fn settings(
        &self,
        env: impl Fn(&str) -> Option<String>,
        registry: &Registry,
    ) -> Result<Settings, WrongSettings> {
        let mut wrong = WrongSettings::default();
        let endpoints = wrong.check_named("--endpoints", Target::http(&self.endpoints));
        let autoscaler = wrong.check_named("--autoscaler", self.traffic.autoscaler());
        let told = wrong.check_all(TelemetryEnv::from_env(&env)).unwrap_or_default();
        let admin = wrong.check(admin_address(self.admin.admin, &told.prometheus, None)).flatten();
        let admin_tls = told.prometheus.tls.as_ref().and_then(|tls| wrong.check(prometheus_tls(tls)));
        let over_tls = self.tls_cert_dir.as_ref().and_then(|folder| {
            let tls = wrong.check(server_tls(folder, &env))?;
            Some((self.listen_tls, tls))
        });
        let pods_over_tls = wrong.check_named("--tls-ca", self.pods_over_tls()).flatten();
        let resource = self.traffic.resource(&told);
        let telemetry = wrong.check(start_telemetry(&told, &resource, registry, false));
        wrong.finish(|| {
            let autoscaler = autoscaler?;
            Some(Settings {
                listen: self.listen,
                over_tls,
                tls_poll_interval: self.tls_poll_interval,
                endpoints: endpoints?,
                admin,
                admin_tls,
                max_connections: self.traffic.max_connections,
                params: ActivatorParams { pods_over_tls, telemetry: telemetry?, ..self.params(&autoscaler) },
                autoscaler,
                resource,
            })
        })
    }

    /// The authorities of the pods' certificates; `None`: no TLS to pods.
    fn pods_over_tls(&self) -> Result<Option<PodsOverTls>, TlsError> {
        if self.tls_ca.is_empty() {
            return Ok(None);
        }
        let tls = Arc::new(PodTls::load(self.tls_ca.clone())?);
        Ok(Some(PodsOverTls { tls, always: self.tls_to_pods }))
    }

    fn params(&self, autoscaler: &Target) -> ActivatorParams {
        ActivatorParams { single_default: self.single_default, ..self.traffic.params(autoscaler) }
    }
}

impl Settings {
    /// The settings in force, for `--check-config`.
    pub(crate) fn in_force(&self) -> Vec<String> {
        let over_tls =
            self.over_tls.as_ref().map_or("no TLS".to_owned(), |(address, _)| format!("TLS {address}"));
        let to_pods = match &self.params.pods_over_tls {
            None => "in the clear",
            Some(PodsOverTls { always: false, .. }) => "over TLS where they take it",
            Some(PodsOverTls { always: true, .. }) => "over TLS",
        };
        let admin = self.admin.map_or("none".to_owned(), |address| address.to_string());
        vec![
            format!("requests: {} ({over_tls}), to pods {to_pods}; admin port: {admin}", self.listen),
            format!("autoscaler: {}, endpoints: {}", self.autoscaler, self.endpoints),
        ]
    }
}

fn server_tls(folder: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Arc<ServerTls>, String> {
    let tls = ServerTls::load(CertificateFiles::in_folder(folder), tls_policy(env)?);
    tls.map(Arc::new).map_err(|error| format!("--tls-cert-dir: {}", chain(&error)))
}

const ADMIN: &str = "Address of the admin port: /metrics, /healthz, /readyz, /v1/activity [default: none, or what \
                     METRICS_PROMETHEUS_HOST and _PORT say]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdleConnections, ProbeParams};

    fn args(flags: &[&str]) -> ActivatorArgs {
        Program::try_parse_from([&["activator"], flags].concat()).unwrap().args
    }

    fn settings(flags: &[&str], env: &[(&str, &str)]) -> Result<Settings, WrongSettings> {
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        args(flags).settings(lookup, &Registry::new())
    }

    #[tokio::test]
    async fn flags_have_knatives_defaults() {
        let params = settings(&[], &[]).unwrap().params;
        assert_eq!((params.probing, params.idle), (ProbeParams::default(), IdleConnections::default()));
        for wrong in [["--probe-timeout", "0s"], ["--pod-ip", "here"], ["--listen", "here"]] {
            assert!(Program::try_parse_from([&["activator"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn everything_that_is_wrong_is_told_at_once() {
        let flags = [
            "--autoscaler",
            "http://x",
            "--endpoints",
            "x:1",
            "--tls-ca",
            "/none",
            "--tls-cert-dir",
            "/none",
        ];
        let env = [("OBSERVABILITY_CONFIG", "{"), ("METRICS_PROMETHEUS_HOST", "here")];
        let Err(wrong) = settings(&flags, &env) else { panic!("nothing is right") };
        let wrong = wrong.to_string();
        for part in [
            "--autoscaler: `http://x` is not of the form ws://host:port",
            "--endpoints: `x:1` is not of the form http://host:port/path",
            "OBSERVABILITY_CONFIG: ",
            "--tls-ca: ",
            "--tls-cert-dir: ",
        ] {
            assert!(wrong.lines().any(|line| line.starts_with(part)), "{part} in\n{wrong}");
        }
    }
}
