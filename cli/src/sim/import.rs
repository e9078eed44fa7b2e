//! `pilotlight sim import`: what is in a trace, and the same as plain CSV.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pilotlight_sim::scenario::file::Draft;
use pilotlight_sim::traffic::TrafficSpec;
use serde_json::{Value, json};

use super::patience::Patience;
use super::show::ResultForm;
use crate::output::print;

/// Say what is in a trace: rates, burstiness, gaps; and write it as plain CSV
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// The trace: an access log, CSV, JSON lines, an answer of Prometheus, a journal
    file: PathBuf,
    /// Format of the trace, where it is not recognised: nginx, apache, per-second, json-lines, ...
    #[arg(long, value_name = "FORMAT")]
    trace_format: Option<String>,
    /// More that must be known of it, as under `trace:` in a scenario: duration-unit=us, stamped=end, skip-bad-lines=true
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    changes: Vec<String>,
    /// Write its requests to this file, as CSV with t_start_s and duration_s
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// Seed of all randomness, where only rates or counts are known
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Form of the description
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ResultForm,
}

pub(super) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let patience = Patience::with("reading");
    let spec = match args.spec() {
        Ok(spec) => spec,
        Err(fault) => {
            drop(patience);
            return super::refuse(&fault);
        }
    };
    let traffic = match spec.load(Path::new("")) {
        Ok(traffic) => traffic,
        Err(error) => {
            drop(patience);
            return super::refuse(&error);
        }
    };
    let description = traffic.describe(args.seed);
    let mut written = None;
    if let Some(path) = &args.out {
        let context = || format!("cannot write {}", path.display());
        let mut out = BufWriter::new(File::create(path).with_context(context)?);
        written = Some(traffic.write_plain(args.seed, &mut out).with_context(context)?);
        out.flush().with_context(context)?;
    }
    drop(patience);
    for loaded in traffic.loaded() {
        for warning in &loaded.warnings {
            eprintln!("warning: {}: {warning}", loaded.file);
        }
    }
    match args.format {
        ResultForm::Text => {
            print(&format!("{description}\nseed {}\n", args.seed))?;
            if let (Some(requests), Some(path)) = (written, &args.out) {
                eprintln!("wrote {requests} requests to {}", path.display());
            }
        }
        ResultForm::Json => {
            let mut value = serde_json::to_value(&description)?;
            value["seed"] = json!(args.seed);
            print(&format!("{value:#}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl ImportArgs {
    fn spec(&self) -> Result<TrafficSpec, String> {
        let mut draft = Draft::empty(Path::new(""));
        let mut put = |place: &str, value: Value| draft.put(place, value).map_err(|fault| fault.to_string());
        put("trace.file", json!(self.file))?;
        if let Some(format) = &self.trace_format {
            put("trace.format", json!(format))?;
        }
        for change in &self.changes {
            draft.set(&format!("trace.{change}")).map_err(|fault| fault.to_string())?;
        }
        TrafficSpec::from_value(Some(draft.value())).map_err(|faults| faults.to_string())
    }
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim import access.log
  pilotlight sim import access.log --set skip-bad-lines=true --out plain.csv
  pilotlight sim import access.log --trace-format apache --set duration-unit=us
  pilotlight sim import AzureLLMInferenceTrace_code.csv --set 'tokens={base: 20ms, prompt: 100us, generated: 15ms}'
  pilotlight sim import prometheus.json --format json";
