//! `pilotlight sim replay`: the live decisions again.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::output::print;

/// Decide a journal of the live autoscaler again: every decision must come out as it was written
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    /// The journal
    journal: PathBuf,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let name = args.journal.display().to_string();
    let file = File::open(&args.journal).with_context(|| format!("cannot read {name}"))?;
    let found = pilotlight_sim::replay(BufReader::new(file)).with_context(|| name.clone())?;
    print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    Ok(if found.differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const EXAMPLES: &str = "\
Examples:
  pilotlight run --journal decisions.jsonl --sample
  pilotlight sim replay decisions.jsonl";
