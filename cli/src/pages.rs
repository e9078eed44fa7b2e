//! Pages about the command itself: completions, manual pages, the version; and the word that was meant by a slip.

use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use pilotlight_process::WrongSettings;

use crate::output::print;

/// Prints the completions for a shell.
pub fn completions(shell: Shell, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    show(&text)
}

/// Prints the manual page of the whole command, or of one of its subcommands.
pub fn man(subcommand: Option<&str>, mut command: Command) -> anyhow::Result<ExitCode> {
    // Fills in what each subcommand is called with those above it.
    command.build();
    let names: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let page = match subcommand {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            WrongSettings::new(format!("there is no command {name}; there is {}", names.join(", ")))
        })?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).context("cannot write the manual page")?;
    show(&text)
}

/// Prints the version.
pub fn version(command: &Command) -> anyhow::Result<ExitCode> {
    show(command.render_version().as_bytes())
}

fn show(text: &[u8]) -> anyhow::Result<ExitCode> {
    print(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether two letters that stand side by side in one word are swapped in the other.
pub fn is_swapped(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let differ: Vec<usize> = (0..one.len().min(other.len())).filter(|&at| one[at] != other[at]).collect();
    match differ[..] {
        [first, second] if one.len() == other.len() && second == first + 1 => {
            one[first] == other[second] && one[second] == other[first]
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_swapped_letters_are_seen() {
        for (slip, meant) in [("rnu", "run"), ("smi", "sim"), ("urn", "run"), ("lnit", "lint")] {
            assert!(is_swapped(slip, meant), "{slip}");
        }
        for (slip, other) in [("run", "run"), ("nur", "run"), ("ru", "run"), ("rum", "run")] {
            assert!(!is_swapped(slip, other), "{slip}");
        }
    }
}
