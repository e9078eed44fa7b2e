//! The queue-proxy that stands in front of each pod: its executable.

use std::path::{Path, PathBuf};

use crate::guard::Spawn;
use crate::workload::find_program;

/// The command of a pod's queue-proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    program: PathBuf,
    /// The program is `pilotlight`, and the queue-proxy its subcommand.
    is_subcommand: bool,
}

impl Sidecar {
    /// The small executable `pilotlight-queue-proxy` in the folder of `this` executable; if it is not there,
    /// `pilotlight` there, which may be `this` itself; otherwise the `pilotlight` in `PATH`.
    ///
    /// Each pod has one: the small executable starts sooner and takes less memory than that of everything.
    pub fn near(this: Option<&Path>) -> Self {
        let beside = |name| this.map(|this| this.with_file_name(name)).filter(|file| file.is_file());
        match beside(QUEUE_PROXY) {
            Some(program) => Sidecar { program, is_subcommand: false },
            None => Sidecar::of(beside(PILOTLIGHT).unwrap_or_else(|| PILOTLIGHT.into())),
        }
    }

    /// The subcommand `queue-proxy` of this executable.
    pub fn of(pilotlight: PathBuf) -> Self {
        Sidecar { program: pilotlight, is_subcommand: true }
    }

    /// The executable, if it can be started; otherwise the reason.
    pub fn check(self) -> Result<Self, String> {
        match find_program(&self.program.to_string_lossy(), None) {
            Ok(()) => Ok(self),
            Err(why) => Err(format!("cannot run {}: {why}", self.program.display())),
        }
    }

    /// The executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn spawn(&self) -> Spawn {
        let spawn = Spawn::new(&self.program);
        if self.is_subcommand { spawn.arg("queue-proxy") } else { spawn }
    }
}

const PILOTLIGHT: &str = "pilotlight";
const QUEUE_PROXY: &str = "pilotlight-queue-proxy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_executable_comes_first_then_pilotlight_beside_then_that_in_path() {
        let folder = std::env::temp_dir().join(format!("pilotlight-near-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [this, everything, small] =
            ["pilotlight-autoscaler", PILOTLIGHT, QUEUE_PROXY].map(|name| folder.join(name));
        let alone = Sidecar::near(Some(&this));
        std::fs::write(&everything, "").unwrap();
        let together = [Sidecar::near(Some(&this)), Sidecar::near(Some(&everything))];
        std::fs::write(&small, "").unwrap();
        let with_small = [Sidecar::near(Some(&this)), Sidecar::near(Some(&everything))];
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(alone, Sidecar::of(PILOTLIGHT.into()));
        assert_eq!(together, [Sidecar::of(everything.clone()), Sidecar::of(everything)]);
        for sidecar in with_small {
            assert_eq!((sidecar.program(), sidecar.spawn().args.len()), (small.as_path(), 0));
        }
        assert_eq!(Sidecar::near(None), Sidecar::of(PILOTLIGHT.into()));
    }
}
