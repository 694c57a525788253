//! Clients of versions of the API that the daemon speaks, and of others.

mod support;

use std::process::Command;

use support::{Client, Spawned, single};

#[test]
fn clients_of_versions_that_are_not_spoken_are_told() {
    let host = single(&[]);
    for client in Client::ALL {
        for (version, words) in [
            (
                "1.20",
                "client version 1.20 is too old. Minimum supported API version is 1.24",
            ),
            (
                "1.99",
                "client version 1.99 is too new. Maximum supported API version is 1.49",
            ),
        ] {
            let mut command = match client {
                Client::Docker => host.docker_client("ps"),
                Client::Nuncio => host.client("ps"),
            };
            let told = Spawned::new(run_with(&mut command, version), None).finish();
            assert_eq!(told.code, 1, "{told:?}");
            assert!(told.stderr.contains(words), "{client:?}: {told:?}");
        }
        let mut command = match client {
            Client::Docker => host.docker_client("version --format {{.Client.APIVersion}}"),
            Client::Nuncio => host.client("version --format {{.Client.APIVersion}}"),
        };
        let told = Spawned::new(run_with(&mut command, "1.41"), None).finish();
        assert_eq!(told.ok(), "1.41", "{client:?}");
        assert_eq!(client.ok(&host, "version --format {{.Client.APIVersion}}/{{.Server.APIVersion}}/{{.Server.MinAPIVersion}}"), "1.49/1.49/1.24");
        assert_eq!(
            client.ok(
                &host,
                "info --format {{.Swarm.LocalNodeState}}/{{.ClientInfo.Context}}"
            ),
            "active/default"
        );
    }
}

/// The command with another version of the API.
fn run_with(command: &mut Command, version: &str) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other.env("DOCKER_API_VERSION", version);
    other
}
