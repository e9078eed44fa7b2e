//! `pilotlight explain`: the reasons for the number of pods, from a running autoscaler or from its journal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pilotlight_autoscaler::{Change, RevisionStatus};
use pilotlight_core::{Record, Time};
use pilotlight_net::once::{self, Get};
use pilotlight_process::flags::address;

use crate::output::print;
use crate::stack::USUAL_ADMIN_ADDRESS;

/// Tell the reasons for the number of pods
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Only this service (NAMESPACE/NAME, or NAME)
    service: Option<String>,
    /// Admin port of a running `pilotlight run` or autoscaler
    #[arg(long, value_name = "ADDRESS", default_value_t = USUAL_ADMIN_ADDRESS, value_parser = address)]
    admin: SocketAddr,
    /// Journal to read instead
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// Prints the decisions; fails if there are none to print.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let wanted = |revision: &str| {
        let name = revision.rsplit('/').next();
        args.service.as_deref().is_none_or(|service| revision == service || name == Some(service))
    };
    let explained = match &args.journal {
        Some(journal) => from_journal(journal, wanted)?,
        None => from_admin(args.admin, wanted).await?,
    };
    if explained.is_empty() {
        bail!("no decision about {}", args.service.as_deref().unwrap_or("anything"));
    }
    print(&explained)?;
    Ok(ExitCode::SUCCESS)
}

async fn from_admin(admin: SocketAddr, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let decisions = Get::new("/v1/decisions").within(PATIENCE).at_most(MAX_DECISIONS_BYTES);
    let answer = once::get(admin, &decisions).await.map_err(|error| {
        // The words of the error end with those of its source.
        anyhow!("nothing answers on the admin port {admin} (name another with --admin): {error}")
    })?;
    let speaks_of_nothing = "the admin port does not speak of decisions";
    let body = answer.success().context(speaks_of_nothing)?;
    let statuses: Vec<RevisionStatus> = serde_json::from_slice(&body).context(speaks_of_nothing)?;
    let now = Time::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut text = String::new();
    for status in statuses.iter().filter(|status| wanted(&status.revision.to_string())) {
        let pods = status.evaluation.pods;
        let scale = status.scale.map_or("not decided".to_owned(), |scale| scale.to_string());
        writeln!(
            text,
            "{}: {scale} wanted, {} ready, {} starting",
            status.revision, pods.ready, pods.starting
        )?;
        writeln!(text, "  now: {}", status.why)?;
        for Change { at, from, to, reason, why } in status.changes.iter().rev() {
            let ago = humantime::format_duration(Duration::from_secs((now - *at).as_secs()));
            let from = from.map_or("-".to_owned(), |from| from.to_string());
            writeln!(text, "  {ago} ago: {from} -> {to} [{reason}] {why}")?;
        }
    }
    Ok(text)
}

/// Every change of scale in the journal, oldest first. A last line that was cut off in the writing is passed over.
fn from_journal(path: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut scales = BTreeMap::new();
    let mut text = String::new();
    let mut lines = BufReader::new(file).split(b'\n').zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        let place = || format!("{}: line {number}", path.display());
        let record: Record = match serde_json::from_slice(&line.with_context(place)?) {
            Ok(record) => record,
            Err(error) if error.is_eof() && lines.peek().is_none() => break,
            Err(error) => {
                return Err(error).with_context(|| format!("{}: not a record of a decision", place()));
            }
        };
        let Some(to) = record.evaluation.plan.scale.filter(|_| wanted(&record.revision.to_string())) else {
            continue;
        };
        let before = scales.insert(record.revision.clone(), to);
        if before != Some(to) {
            let at = UNIX_EPOCH + Duration::from_nanos(record.evaluation.at.as_nanos());
            let at = humantime::format_rfc3339_millis(at);
            let from = before.map_or("-".to_owned(), |from| from.to_string());
            let (reason, why) = (record.evaluation.reason(), &record.why);
            writeln!(text, "{at} {}: {from} -> {to} [{reason}] {why}", record.revision)?;
        }
    }
    Ok(text)
}

/// Time limit of the admin port's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The decisions about tens of thousands of revisions.
const MAX_DECISIONS_BYTES: usize = 256 << 20;
