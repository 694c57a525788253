//! Debian's docker-registry.

use std::fs;

use super::command::Spawned;
use super::host::Host;
use super::wait_until;

/// What a registry is to have besides its storage.
#[derive(Clone, Copy, Default)]
pub(crate) struct RegistryKind<'a> {
    pub(crate) port: u16,
    /// YAML below `http:`.
    pub(crate) tls: &'a str,
    /// YAML at the top.
    pub(crate) more: &'a str,
}

/// A registry in the host's namespace.
#[track_caller]
pub(crate) fn registry(host: &Host, address: &str, kind: RegistryKind<'_>) -> Spawned {
    let (port, storage) = (
        kind.port,
        host.scratch().join(format!("storage-{}", kind.port)),
    );
    let config = host.scratch().join(format!("registry-{port}.yml"));
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http:\n  addr: '{address}:{port}'\n{}\n{}\n",
        storage.display(),
        kind.tls,
        kind.more,
    );
    fs::write(&config, text).expect("write the configuration");
    let mut registry = host.spawn_inside(
        "docker-registry",
        ["serve", config.to_str().expect("a path in UTF-8")],
    );
    wait_until("the registry listens", || {
        assert!(registry.runs(), "the registry ended");
        let connect = format!(": </dev/tcp/{address}/{port}");
        host.inside("bash", ["-c", &connect]).code == 0
    });
    registry
}

/// One on the host's loopback at port 5000, which takes whatever comes.
#[track_caller]
pub(crate) fn plain_registry(host: &Host) -> Spawned {
    let kind = RegistryKind {
        port: 5000,
        ..RegistryKind::default()
    };
    registry(host, "127.0.0.1", kind)
}

/// One at port 5000 that lets in `me` with the password `U*U`, and nobody else.
#[track_caller]
pub(crate) fn guarded_registry(host: &Host, address: &str) -> Spawned {
    let users = host.scratch().join("htpasswd");
    let line = "me:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
    fs::write(&users, line).expect("write the users");
    let more = format!(
        "auth: {{htpasswd: {{realm: r, path: {}}}}}",
        users.display()
    );
    let kind = RegistryKind {
        port: 5000,
        more: &more,
        ..RegistryKind::default()
    };
    registry(host, address, kind)
}
