//! The two clients that must do the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::command::{Args, Finished, Spawned, tool};
use super::host::{Host, NUNCIO};

/// Whose command line is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    /// The real docker client.
    Docker,
    /// nuncio's own.
    Nuncio,
}

impl Client {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Docker, Self::Nuncio];

    /// Runs a command of it.
    #[track_caller]
    pub(crate) fn run(self, host: &Host, args: impl Args) -> Finished {
        match self {
            Self::Docker => host.docker(args),
            Self::Nuncio => host.nuncio(args),
        }
    }

    /// Runs a command that succeeds; its output without the last newline.
    #[track_caller]
    pub(crate) fn ok(self, host: &Host, args: impl Args) -> String {
        self.run(host, args).ok()
    }

    /// Runs a line of shell in `directory`, in which this client is what `docker` means.
    #[track_caller]
    pub(crate) fn shell(self, host: &Host, directory: &Path, line: &str) -> Finished {
        let bin = host.scratch().join(format!("bin-{self:?}"));
        if !bin.exists() {
            fs::create_dir(&bin).expect("make a directory for the client");
            let program = match self {
                Self::Docker => tool("docker"),
                Self::Nuncio => NUNCIO.into(),
            };
            symlink(program, bin.join("docker")).expect("link the client");
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", line])
            .current_dir(directory)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("DOCKER_HOST", host.url())
            .env("DOCKER_CONFIG", host.scratch());
        Spawned::new(command, None).finish()
    }
}
