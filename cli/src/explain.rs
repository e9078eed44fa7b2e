//! `pilotlight explain`: the reasons for the number of pods, from a running autoscaler, from those of a cluster, or from a
//! journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use pilotlight_autoscaler::{Change, NotReady, RevisionStatus};
use pilotlight_core::{Record, Time};
use pilotlight_knative::explain::{Decisions, decisions};
use pilotlight_kubernetes::{ClientArgs, connect};
use pilotlight_net::once::{self, Get};
use pilotlight_process::flags::address;
use tokio::time::timeout;

use crate::block_on;
use crate::live::step;
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
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Flags that name a cluster; any of them means that its autoscalers are asked.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// Context of the kubeconfig that names a cluster, whose autoscalers are asked
    #[arg(long, value_name = "NAME", conflicts_with_all = ["admin", "journal"])]
    context: Option<String>,
    /// Kubeconfig to use
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin", "journal"])]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the cluster's autoscalers [default: knative-serving]
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["admin", "journal"])]
    namespace: Option<String>,
}

/// Prints the decisions; fails if there are none to print.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let wanted = |revision: &str| {
        let name = revision.rsplit('/').next();
        args.service.as_deref().is_none_or(|service| revision == service || name == Some(service))
    };
    let ClusterArgs { context, kubeconfig, namespace } = &args.cluster;
    let Explained { text, known } = match &args.journal {
        Some(journal) => from_journal(journal, wanted)?,
        None if context.is_some() || kubeconfig.is_some() || namespace.is_some() => {
            block_on(from_cluster(&args.cluster, wanted))?
        }
        None => block_on(from_admin(args.admin, wanted))?,
    };
    if text.is_empty() {
        let known = Vec::from_iter(known).join(", ");
        match &args.service {
            Some(service) if !known.is_empty() => bail!("no decision about {service}; there is {known}"),
            _ => bail!("no decision about any service"),
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The decisions about the services that are wanted, and the names of all there are.
struct Explained {
    text: String,
    known: BTreeSet<String>,
}

async fn from_admin(admin: SocketAddr, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Explained> {
    let decisions = Get::new("/v1/decisions").within(PATIENCE).at_most(MAX_DECISIONS_BYTES);
    let answer = once::get(admin, &decisions)
        .await
        .with_context(|| format!("nothing answers on the admin port {admin} (name another with --admin)"))?;
    let not_ours = || {
        format!(
            "{admin} is not the admin port of an autoscaler: `pilotlight run` prints its own at the start, for --admin; it \
             takes a free one where {USUAL_ADMIN_ADDRESS} is in use"
        )
    };
    let body = answer.success().with_context(not_ours)?;
    let statuses: Vec<RevisionStatus> = serde_json::from_slice(&body).with_context(not_ours)?;
    tell(&statuses, wanted)
}

async fn from_cluster(args: &ClusterArgs, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Explained> {
    let ClusterArgs { context, kubeconfig, namespace } = args;
    let client = connect(ClientArgs {
        context: context.clone(),
        kubeconfig: kubeconfig.clone(),
        user_agent: concat!("pilotlight/", env!("CARGO_PKG_VERSION")).to_owned(),
    });
    let client = client.await?;
    let namespace = namespace.as_deref().unwrap_or("knative-serving");
    let asked = timeout(PATIENCE_WITH_CLUSTER, decisions(&client, namespace)).await;
    let Decisions { revisions, silent } = asked
        .with_context(|| format!("the API server does not answer within {PATIENCE_WITH_CLUSTER:?}"))??;
    for pod in silent {
        eprintln!("warning: {pod}");
    }
    tell(&revisions, wanted)
}

fn tell(statuses: &[RevisionStatus], wanted: impl Fn(&str) -> bool) -> anyhow::Result<Explained> {
    let known = statuses.iter().map(|status| status.revision.to_string()).collect();
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
        if let Some(trouble) = &status.trouble {
            writeln!(text, "  {}", trouble.in_words(now))?;
        }
        for NotReady { pod, why } in &status.not_ready {
            writeln!(text, "  {pod} is not ready: {why}")?;
        }
        writeln!(text, "  now: {}", status.why)?;
        for Change { at, from, to, reason, why } in status.changes.iter().rev() {
            let ago = humantime::format_duration(Duration::from_secs((now - *at).as_secs()));
            writeln!(text, "  {ago} ago: {} [{reason}] {why}", step(*from, *to))?;
        }
    }
    Ok(Explained { text, known })
}

/// Every change of scale in the journal, oldest first. A last line that was cut off in the writing is passed over.
fn from_journal(path: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Explained> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut scales = BTreeMap::new();
    let (mut text, mut known) = (String::new(), BTreeSet::new());
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
        let revision = record.revision.to_string();
        let scale = record.evaluation.plan.scale.filter(|_| wanted(&revision));
        known.insert(revision);
        let Some(to) = scale else { continue };
        let before = scales.insert(record.revision.clone(), to);
        if before != Some(to) {
            let at = UNIX_EPOCH + Duration::from_nanos(record.evaluation.at.as_nanos());
            let at = humantime::format_rfc3339_millis(at);
            let (reason, why) = (record.evaluation.reason(), &record.why);
            writeln!(text, "{at} {}: {} [{reason}] {why}", record.revision, step(before, to))?;
        }
    }
    Ok(Explained { text, known })
}

/// Time limit of the admin port's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit of a cluster's answers: they come through the API server, one autoscaler after the other.
const PATIENCE_WITH_CLUSTER: Duration = Duration::from_secs(30);
/// The decisions about tens of thousands of revisions.
const MAX_DECISIONS_BYTES: usize = 256 << 20;
