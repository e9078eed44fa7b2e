//! Levels of Knative's log (zap), as levels of ours.

use tracing::Level;

/// The level with zap's name; info for any other name.
pub(crate) fn level_from_zap(name: &str) -> Level {
    match name.to_ascii_lowercase().as_str() {
        "debug" => Level::DEBUG,
        "warn" => Level::WARN,
        "error" | "dpanic" | "panic" | "fatal" => Level::ERROR,
        _ => Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zap_levels_become_ours_and_anything_else_is_info() {
        for (zap, ours) in [("debug", Level::DEBUG), ("WARN", Level::WARN), ("fatal", Level::ERROR)] {
            assert_eq!(level_from_zap(zap), ours);
        }
        assert_eq!((level_from_zap(""), level_from_zap("loud")), (Level::INFO, Level::INFO));
    }
}
