//! The page of metrics of a process: its series, its own use of the machine under the names that Prometheus's clients
//! have for it, and `target_info`.

use std::fmt::Write;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use pilotlight_net::{connection_limit_hits, open_connections};
use pilotlight_telemetry::registry::escaped;
use pilotlight_telemetry::{Registry, Telemetry};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// `/metrics` of a process. To be made early: the process began when it was made.
#[derive(Clone, Debug)]
pub struct MetricsPage {
    registry: Registry,
    telemetry: Telemetry,
    began: SystemTime,
    target_info: String,
}

impl MetricsPage {
    /// A page of the series in `registry`. The `resource` (attributes by OpenTelemetry's names) is what they all have
    /// in common.
    pub fn new(registry: Registry, resource: &[(&str, String)]) -> Self {
        let (telemetry, target_info) = (Telemetry::default(), target_info(resource));
        MetricsPage { registry, telemetry, began: SystemTime::now(), target_info }
    }

    /// The same page, without the series that `telemetry` holds of revisions that are gone.
    pub fn with_requests_of(self, telemetry: Telemetry) -> Self {
        MetricsPage { telemetry, ..self }
    }

    /// The page in Prometheus's text format.
    pub fn render(&self) -> String {
        self.telemetry.forget_gone_revisions();
        self.registry.render() + &own(self.began) + &self.target_info
    }
}

/// Processor time, memory and files of this process. Values that cannot be read are left out.
fn own(began: SystemTime) -> String {
    let mut text = String::with_capacity(1024);
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let spent = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
    tell("process_cpu_seconds_total", "counter", "Processor time spent", Some(spent));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let resident = kilobytes("VmRSS:").map(|kilobytes| kilobytes * 1024.0);
    tell("process_resident_memory_bytes", "gauge", "Resident memory", resident);
    let virtual_memory = kilobytes("VmSize:").map(|kilobytes| kilobytes * 1024.0);
    tell("process_virtual_memory_bytes", "gauge", "Virtual memory", virtual_memory);
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    tell("process_open_fds", "gauge", "Open file descriptors", open);
    let most = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
    tell("process_max_fds", "gauge", "The most file descriptors that may be open", most);
    let connections = open_connections() as f64;
    tell("pilotlight_connections", "gauge", "Open connections of clients, at all ports", Some(connections));
    let hits = connection_limit_hits() as f64;
    let help = "Times that a port had its most connections, and new ones waited";
    tell("pilotlight_connection_limit_hits_total", "counter", help, Some(hits));
    let since = began.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
    tell("process_start_time_seconds", "gauge", "Start of the process, since 1970", since);
    text
}

/// OpenTelemetry's `target_info`: what all series have in common.
fn target_info(resource: &[(&str, String)]) -> String {
    let labels = resource
        .iter()
        .map(|(name, value)| format!("{}=\"{}\"", name.replace('.', "_"), escaped(value)))
        .collect::<Vec<_>>()
        .join(",");
    format!("# HELP target_info Target metadata\n# TYPE target_info gauge\ntarget_info{{{labels}}} 1\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_spent_time_and_holds_memory_and_files() {
        let page = MetricsPage::new(Registry::new(), &[]).render();
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        for name in ["process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"] {
            assert!(value(name) > 0.0, "{name}");
        }
        assert!(value("process_cpu_seconds_total") > 0.0 && value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }

    #[test]
    fn the_page_has_the_series_and_the_target_with_underscores_and_quotes_escaped() {
        let registry = Registry::new();
        let _gauge = registry.gauge("a", &[]);
        let resource = [("service.name", "a\"b".to_owned()), ("kn.revision.name", "r".to_owned())];
        let page = MetricsPage::new(registry, &resource).render();
        assert!(page.starts_with("# TYPE a gauge\na 0\n"), "{page}");
        assert!(page.ends_with("target_info{service_name=\"a\\\"b\",kn_revision_name=\"r\"} 1\n"), "{page}");
    }
}
