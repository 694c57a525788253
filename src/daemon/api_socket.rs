//! The API's unix socket: root's, and a group's: that of `daemon --group`, else the one called `nuncio`, if there is one.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{Gid, Mode, chmod, chown, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::UnixListener;

use super::state_file;

/// Whose members may use the daemon, and with it the whole host.
const GROUP: &str = "nuncio";
const GROUPS: &str = "/etc/group";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// The number of the group whose the sockets are: of the one that is named, else of nuncio's, if there is one.
pub(super) fn group(named: Option<&str>) -> anyhow::Result<Option<u32>> {
    let groups = std::fs::read_to_string(GROUPS).unwrap_or_default();
    let Some(name) = named else {
        return Ok(group_of(GROUP, &groups));
    };
    let found = name.parse().ok().or_else(|| group_of(name, &groups));
    let missing = || format!("--group {name}: {GROUPS} has no such group");
    found.with_context(missing).map(Some)
}

/// Listens at `path`, in place of a socket that nobody serves any more.
pub(super) fn open(path: &Path, group: Option<u32>) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!(
            "{} is served by another daemon: stop it, or give this one another -H",
            path.display()
        );
    }
    state_file::remove(path)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    let socket = bound(path).with_context(|| format!("listen on {}", path.display()))?;
    if let Some(group) = group {
        let shared = chown(path, None, Some(Gid::from_raw(group)))
            .and_then(|()| chmod(path, Mode::from_raw_mode(0o660)));
        shared.with_context(|| format!("let group {group} use {}", path.display()))?;
    }
    let socket = std::os::unix::net::UnixListener::from(socket);
    Ok(UnixListener::from_std(socket)?)
}

/// A socket that is root's alone from its first moment: the file gets the mode that the socket has.
fn bound(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The number of a group in what `/etc/group` says.
fn group_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = "root:x:0:\nnuncios:x:7:a\nnuncio:x:991:ann,bob\n";
        assert_eq!(group_of("nuncio", groups), Some(991));
        assert_eq!(group_of("docker", groups), None);
        assert_eq!(group_of("nuncio", "nuncio:x:none:\nnuncio"), None);
    }
}
