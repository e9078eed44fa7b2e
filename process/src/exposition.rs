//! What every process tells of itself, under the names that Prometheus's own clients use.

use std::fmt::Write;
use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Notes when the process began. To be called early; later calls change nothing.
pub fn started() {
    STARTED.get_or_init(SystemTime::now);
}

/// Processor time, memory, files: as text for Prometheus. What cannot be read is left out.
pub fn exposition() -> String {
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
    let since = STARTED.get_or_init(SystemTime::now).duration_since(UNIX_EPOCH).ok();
    let since = since.map(|since| since.as_secs_f64());
    tell("process_start_time_seconds", "gauge", "When the process began, since 1970", since);
    text
}

/// OpenTelemetry's `target_info`: what all series have in common.
pub fn target_info(resource: &[(&str, String)]) -> String {
    let labels = resource.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{}=\"{value}\"", name.replace('.', "_"))
    });
    let labels = labels.collect::<Vec<_>>().join(",");
    format!("# HELP target_info Target metadata\n# TYPE target_info gauge\ntarget_info{{{labels}}} 1\n")
}

static STARTED: OnceLock<SystemTime> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_spent_time_and_holds_memory_and_files() {
        let text = exposition();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        for name in ["process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"] {
            assert!(value(name) > 0.0, "{name}");
        }
        assert!(value("process_cpu_seconds_total") > 0.0 && value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }

    #[test]
    fn the_target_is_told_with_underscores_and_quotes_escaped() {
        let info = target_info(&[("service.name", "a\"b".to_owned()), ("kn.revision.name", "r".to_owned())]);
        assert!(info.ends_with("target_info{service_name=\"a\\\"b\",kn_revision_name=\"r\"} 1\n"), "{info}");
    }
}
