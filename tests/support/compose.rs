//! docker-compose on a host's daemon.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::command::{Args, Finished, Spawned, tool};
use super::host::Host;

/// A compose and what it is given: the file, and what its variables mean.
#[derive(Clone, Copy)]
pub(crate) struct Project<'a> {
    pub(crate) host: &'a Host,
    pub(crate) program: &'static str,
    pub(crate) file: &'static str,
    pub(crate) greeting: &'static str,
}

impl<'a> Project<'a> {
    pub(crate) fn new(host: &'a Host, program: &'static str, file: &'static str) -> Self {
        Self {
            host,
            program,
            file,
            greeting: "hello",
        }
    }

    #[track_caller]
    pub(crate) fn command(self, args: impl Args) -> Command {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        // The first compose leaves `run` and `exec` to docker's client, unless it is told otherwise.
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{path}:{}", root.join("target/tools").display());
        let directory = root.join("tests/compose");
        let mut command = Command::new(tool(self.program));
        command
            .arg("-f")
            .arg(directory.join(self.file))
            .args(args.words())
            .env("COMPOSE_PROJECT_NAME", "shop")
            .env("DOCKER_HOST", self.host.url())
            .env("DOCKER_CONFIG", self.host.scratch())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .env("GREETING", self.greeting)
            .env("PATH", path);
        command
    }

    #[track_caller]
    pub(crate) fn spawn(self, args: impl Args) -> Spawned {
        Spawned::new(self.command(args), None)
    }

    #[track_caller]
    pub(crate) fn run(self, args: impl Args) -> Finished {
        self.spawn(args).finish()
    }

    #[track_caller]
    pub(crate) fn ok(self, args: impl Args) -> String {
        self.run(args).ok()
    }

    /// The ids of a service's containers.
    #[track_caller]
    pub(crate) fn ids(self, service: &str) -> BTreeSet<String> {
        let ids = self.ok(["ps", "-q", service]);
        ids.lines().map(str::to_owned).collect()
    }
}

/// What [`everything`] finds when there is nothing.
pub(crate) const NOTHING: [Vec<String>; 3] = [const { Vec::new() }; 3];

/// The names of all containers, of the networks beyond those that are always there, and of all volumes.
#[track_caller]
pub(crate) fn everything(host: &Host) -> [Vec<String>; 3] {
    let lists = [
        "ps -a --format {{.Names}}",
        "network ls -f type=custom --format {{.Name}}",
        "volume ls -q",
    ];
    lists.map(|list| {
        let mut names: Vec<String> = host.ok(list).lines().map(str::to_owned).collect();
        names.sort();
        names
    })
}
