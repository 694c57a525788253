//! Members of etcd on loopback, each killed and revived as a test asks.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// A cluster of etcds, with its data below one directory.
pub(crate) struct Cluster {
    dir: PathBuf,
    members: Vec<Member>,
    /// Arguments for all of them, such as those of TLS.
    args: Vec<String>,
    scheme: &'static str,
}

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Cluster {
    /// Chooses ports for `count` members and starts none of them.
    pub(crate) fn new(dir: &Path, count: usize) -> Result<Self> {
        // All are bound at once, so that no two are the same.
        let listeners: Vec<_> = (0..2 * count)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()?;
        let addresses: Vec<_> = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let member = |pair: &[SocketAddr]| Member {
            client: pair[0],
            peer: pair[1],
            child: None,
        };
        Ok(Self {
            dir: dir.to_owned(),
            members: addresses.chunks(2).map(member).collect(),
            args: Vec::new(),
            scheme: "http",
        })
    }

    /// Has clients come by TLS, with `args` that say how.
    pub(crate) fn with_tls(mut self, args: Vec<String>) -> Self {
        (self.args, self.scheme) = (args, "https");
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach the members, in order.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let url = |member: &Member| format!("{}://{}", self.scheme, member.client);
        self.members.iter().map(url).collect()
    }

    /// Starts those that do not run, on the data there is.
    pub(crate) fn start(&mut self) -> Result<()> {
        (0..self.members.len()).try_for_each(|index| self.start_one(index))
    }

    pub(crate) fn start_one(&mut self, index: usize) -> Result<()> {
        let name = |index| format!("m{index}");
        let peer = |member: &Member| format!("http://{}", member.peer);
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(i, member)| format!("{}={}", name(i), peer(member)))
            .collect();
        let member = &self.members[index];
        if member.child.is_some() {
            return Ok(());
        }
        let (client, peer) = (format!("{}://{}", self.scheme, member.client), peer(member));
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.dir.join(name(index))) // etcd makes it, and private
            .args(["--name", &name(index), "--initial-cluster", &all.join(",")])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--logger", "zap", "--log-level", "error"])
            .args(&self.args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .context("start etcd: install it with `apt-get install etcd-server`")?;
        self.members[index].child = Some(child);
        Ok(())
    }

    /// Fails if one has ended that nobody killed.
    pub(crate) fn check(&mut self) -> Result<()> {
        for child in self.members.iter_mut().filter_map(|m| m.child.as_mut()) {
            if let Some(status) = child.try_wait()? {
                bail!("etcd exited with {status}");
            }
        }
        Ok(())
    }

    /// Kills a member by SIGKILL.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    pub(crate) async fn kill_all(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            self.kill(index).await?;
        }
        Ok(())
    }
}
