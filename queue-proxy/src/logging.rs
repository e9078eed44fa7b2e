//! Where the process's log goes, unless its host has decided that already.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Compact lines on standard error. `RUST_LOG` decides what is logged, else `level` in zap's words, else info.
/// Changes nothing where a subscriber is installed.
pub(crate) fn install(level: &str) {
    let filter = EnvFilter::builder().with_default_directive(from_zap(level).into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter);
    let _ = subscriber.try_init();
}

fn from_zap(level: &str) -> LevelFilter {
    match level.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zap_levels_become_ours_and_anything_else_is_info() {
        for (zap, ours) in
            [("debug", LevelFilter::DEBUG), ("WARN", LevelFilter::WARN), ("fatal", LevelFilter::ERROR)]
        {
            assert_eq!(from_zap(zap), ours);
        }
        assert_eq!((from_zap(""), from_zap("loud")), (LevelFilter::INFO, LevelFilter::INFO));
    }
}
