//! The images the tests run, made of Debian's packages.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::command::Spawned;

/// An image the tests run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image {
    /// `busybox`: a shell and its tools, and socat.
    Busybox,
    /// `redis`: what the demo runs.
    Redis,
}

impl Image {
    /// Its OCI archive, made by the first who asks.
    #[track_caller]
    pub(crate) fn archive(self) -> PathBuf {
        static MADE: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
        let (recipe, name) = match self {
            Self::Busybox => ("tests/support/busybox.sh", "busybox"),
            Self::Redis => ("examples/redis/build.sh", "redis"),
        };
        MADE[self as usize]
            .get_or_init(|| {
                let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
                let archive = root.join(format!("target/images/{name}.oci.tar"));
                let mut command = Command::new(root.join(recipe));
                command.arg(&archive);
                Spawned::new(command, None).finish().ok();
                archive
            })
            .clone()
    }
}
