//! The metrics of a whole stack: its own at `/metrics`, and those of every pod's queue-proxy at `/metrics/pods`, as one
//! exposition. Two pages, since the activator and the pod both count a request: in a cluster they are two targets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, header};
use pilotlight_local::LocalCluster;
use pilotlight_net::once::{self, Get};
use pilotlight_net::{Admin, Body, Response};
use pilotlight_process::MetricsPage;
use tokio::task::JoinSet;

/// Adds `/metrics` and `/metrics/pods` to the admin port.
pub fn route(admin: Admin, own: MetricsPage, cluster: LocalCluster) -> Admin {
    admin.metrics(move || own.render()).route("/metrics/pods", move |_| {
        let cluster = cluster.clone();
        async move {
            let mut asking = JoinSet::new();
            for (id, revision) in &cluster.revisions() {
                for pod in revision.pods.iter().filter(|pod| !pod.phase.is_starting()) {
                    let labels = format!(
                        "pod=\"{}\",revision=\"{}\",namespace=\"{}\"",
                        pod.name, id.name, id.namespace
                    );
                    let asked = ask(pod.metrics_address);
                    asking.spawn(async move { Some(labelled(&asked.await?, &labels)) });
                }
            }
            // A pod that does not answer is missing from the page, and the page is not late.
            let texts: Vec<String> = asking.join_all().await.into_iter().flatten().collect();
            let mut response = Response::new(Body::full(merge(&texts)));
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
    })
}

async fn ask(pod: SocketAddr) -> Option<String> {
    let page = Get::new("/metrics").within(PATIENCE).at_most(MAX_PAGE_BYTES);
    let page = once::get(pod, &page).await.ok()?.success().ok()?;
    String::from_utf8(page.into()).ok()
}

/// Adds the pod's labels to every sample: pods have the same series, without their own name.
fn labelled(text: &str, labels: &str) -> String {
    let lines =
        text.lines().map(|line| match (line.starts_with('#') || line.is_empty(), line.split_once('{')) {
            (true, _) => line.to_owned(),
            (false, Some((name, rest))) => format!("{name}{{{labels},{rest}"),
            (false, None) => line.replacen(' ', &format!("{{{labels}}} "), 1),
        });
    lines.map(|line| line + "\n").collect()
}

/// Merges pages: the samples of a family must stand together under its one description (Prometheus text format).
fn merge(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for text in texts {
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')) {
                Some((_, rest)) => {
                    current = rest.split(' ').next().unwrap_or(rest);
                    let family = families.entry(current).or_default();
                    if !family.comments.contains(&line) {
                        family.comments.push(line);
                    }
                }
                None => families.entry(current).or_default().samples.push(line),
            }
        }
    }
    let lines = families.values().flat_map(|family| family.comments.iter().chain(&family.samples));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[derive(Default)]
struct Family<'a> {
    comments: Vec<&'a str>,
    samples: Vec<&'a str>,
}

/// Time limit of a pod's answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The largest page of one pod.
const MAX_PAGE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_of_a_pod_says_whose_it_is() {
        let text = "# HELP a first\na 1\nb{c=\"{\"} 2\n";
        assert_eq!(labelled(text, "pod=\"x\""), "# HELP a first\na{pod=\"x\"} 1\nb{pod=\"x\",c=\"{\"} 2\n");
    }

    #[test]
    fn samples_of_one_family_stand_together_under_one_description() {
        let text = |pod: &str| {
            format!(
                "# HELP a first\n# TYPE a gauge\na{{pod=\"{pod}\"}} 1\n\n# TYPE b_seconds histogram\nb_seconds_bucket{{pod=\"{pod}\"}} 2\n"
            )
        };
        let merged = merge(&[text("x"), text("y")]);
        assert_eq!(
            merged,
            "# HELP a first\n# TYPE a gauge\na{pod=\"x\"} 1\na{pod=\"y\"} 1\n\
             # TYPE b_seconds histogram\nb_seconds_bucket{pod=\"x\"} 2\nb_seconds_bucket{pod=\"y\"} 2\n"
        );
    }
}
