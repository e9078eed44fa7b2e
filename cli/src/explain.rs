//! `pilotlight explain`: why there are as many pods as there are, from a running autoscaler or from its journal.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use pilotlight_autoscaler::RevisionStatus;
use pilotlight_core::{Record, Time};
use pilotlight_net::{Body, Request, SendError, UpstreamParams, Upstreams};

use crate::stack::USUAL_ADMIN_ADDRESS;

/// Say why there are as many pods as there are
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Only this service (NAMESPACE/NAME, or NAME)
    service: Option<String>,
    /// The admin port of a running `pilotlight run` or autoscaler
    #[arg(long, value_name = "ADDRESS", default_value = USUAL_ADMIN_ADDRESS)]
    admin: SocketAddr,
    /// Read a journal instead
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// Prints the decisions; fails if there are none to print.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let wanted = |revision: &str| {
        let name = revision.rsplit('/').next();
        args.service.as_deref().is_none_or(|service| revision == service || name == Some(service))
    };
    let printed = match &args.journal {
        Some(journal) => from_journal(journal, wanted)?,
        None => from_admin(args.admin, wanted).await?,
    };
    if !printed {
        bail!("no decision about {}", args.service.as_deref().unwrap_or("anything"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn from_admin(admin: SocketAddr, wanted: impl Fn(&str) -> bool) -> anyhow::Result<bool> {
    let patience = Duration::from_secs(5);
    let upstreams = Upstreams::new(UpstreamParams {
        max_idle_per_host: 0,
        idle_timeout: patience,
        connect_timeout: patience,
    });
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/v1/decisions");
    *request.headers_mut() =
        HeaderMap::from_iter([(header::HOST, HeaderValue::try_from(admin.to_string())?)]);
    let response =
        upstreams.send(admin, request).await.map_err(SendError::into_error).with_context(|| {
            format!("nothing answers on the admin port {admin} (name another with --admin)")
        })?;
    let body = response.into_body().collect().await?.to_bytes();
    let statuses: Vec<RevisionStatus> =
        serde_json::from_slice(&body).context("the admin port does not speak of decisions")?;
    let now = Time::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut printed = false;
    for status in statuses.iter().filter(|status| wanted(&status.revision.to_string())) {
        printed = true;
        let pods = status.evaluation.pods;
        let scale = status.scale.map_or("not decided".to_owned(), |scale| scale.to_string());
        println!("{}: {scale} wanted, {} ready, {} starting", status.revision, pods.ready, pods.starting);
        println!("  now: {}", status.why);
        for change in status.changes.iter().rev() {
            let ago = Duration::from_secs((now - change.at).as_secs());
            let from = change.from.map_or("-".to_owned(), |from| from.to_string());
            println!(
                "  {} ago: {from} -> {} [{}] {}",
                humantime::format_duration(ago),
                change.to,
                change.reason,
                change.why
            );
        }
    }
    Ok(printed)
}

fn from_journal(path: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut scales = std::collections::BTreeMap::new();
    let mut printed = false;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let place = || format!("{}:{number}", path.display());
        let record: Record = serde_json::from_str(&line.with_context(place)?).with_context(place)?;
        let Some(to) = record.evaluation.plan.scale.filter(|_| wanted(&record.revision.to_string())) else {
            continue;
        };
        let before = scales.insert(record.revision.clone(), to);
        if before != Some(to) {
            printed = true;
            let at = humantime::format_rfc3339_millis(
                UNIX_EPOCH + Duration::from_nanos(record.evaluation.at.as_nanos()),
            );
            let from = before.map_or("-".to_owned(), |from| from.to_string());
            println!(
                "{at} {}: {from} -> {to} [{}] {}",
                record.revision,
                record.evaluation.reason(),
                record.why
            );
        }
    }
    Ok(printed)
}
