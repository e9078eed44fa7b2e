//! The version of the API server: one that is too old is refused, or warned of.

use pilotlight_config::process::MinimumKubernetes;
use tracing::warn;

/// Refuses an API server that is older than demanded. One that is older than what is compiled in is warned of: whether it
/// will do, everybody will see.
pub(crate) fn check_version(minimum: &MinimumKubernetes, server: &str) -> anyhow::Result<()> {
    match minimum.check(server) {
        Err(old) if minimum.is_demanded => Err(old.into()),
        Err(old) => {
            warn!(why = %old, "Kubernetes is older than what this is made for");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
