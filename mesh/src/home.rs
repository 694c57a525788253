//! What a member keeps on its disk: who it is, its certificate and its key.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::authority::{self, Authority, AuthorityError, now};
use crate::client::Welcome;
use crate::files;
use crate::key::Key;
use crate::names::{MeshId, NodeId};
use crate::wire::Papers;

/// Where all of it is, in a host's data directory.
const DIRECTORY: &str = "mesh";
/// Where it is until it is complete.
const DRAFT: &str = ".new-mesh";
/// Where it is as it is removed.
const LEFT: &str = ".left-mesh";
const MEMBERSHIP: &str = "mesh.json";
/// Certificate and key in one file, so that they are replaced in one step.
const IDENTITY: &str = "node.pem";
const NEXT_KEY: &str = "next-key.pem";

/// A member's papers.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    membership: Membership,
}

/// Papers in the making. A join that was cut off is repeated with the same key, and counts once.
#[derive(Debug)]
pub struct Draft {
    data_root: PathBuf,
    directory: PathBuf,
}

/// Who this host is in which mesh, and where the others are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Membership {
    v: u32,
    /// The mesh.
    pub mesh: MeshId,
    /// This host.
    pub node: NodeId,
    /// The host that keeps the registry and admits the others.
    pub manager: NodeId,
    /// Where that is reached.
    pub registry: SocketAddr,
    /// Where this host listens for the others, if it is the manager.
    pub listen: Option<SocketAddr>,
    /// The address by which other hosts reach this one, if it was told when it joined.
    pub advertise: Option<IpAddr>,
    issued: u64,
    expires: u64,
}

/// Why there are no papers.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The host is a member.
    #[error("this node is already part of a mesh; to leave it, stop the daemon and run `nuncio leave` ({})", .0.display())]
    Member(PathBuf),
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} does not hold what it should: remove {} and join again", path.display(), mesh.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The directory it is in.
        mesh: PathBuf,
    },
    /// The authority could not be made.
    #[error("make the mesh's authority")]
    Authority(#[from] AuthorityError),
}

impl Draft {
    /// Begins, or goes on, to make this host a member.
    ///
    /// # Errors
    ///
    /// [`HomeError::Member`] if it is one.
    pub fn open(data_root: &Path) -> Result<Self, HomeError> {
        let home = data_root.join(DIRECTORY);
        if home.exists() {
            return Err(HomeError::Member(home));
        }
        let directory = data_root.join(DRAFT);
        files::private_directory(&directory).map_err(file(&directory))?;
        // Of a mesh that was not founded after all, only the key is of use.
        for name in files::names(&directory).map_err(file(&directory))? {
            if name != NEXT_KEY {
                let path = directory.join(name);
                std::fs::remove_file(&path).map_err(file(&path))?;
            }
        }
        Ok(Self {
            data_root: data_root.to_owned(),
            directory,
        })
    }

    /// The key to join with: the one of the last attempt, if that was cut off.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if it cannot be kept.
    pub fn key(&self) -> Result<Key, HomeError> {
        next_key(&self.directory, None)
    }

    /// Makes a new mesh, whose first member is this host, and keeps its authority here. Certificates are good for
    /// `lifetime`.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if something cannot be written.
    pub fn found(
        self,
        (node, name): (&NodeId, &str),
        (listen, registry): (SocketAddr, SocketAddr),
        advertise: Option<IpAddr>,
        lifetime: Duration,
    ) -> Result<Home, HomeError> {
        let authority = Authority::found(&self.directory, node, lifetime)?;
        let key = self.key()?;
        let papers = authority.enter_own(name, key.public(), registry.ip())?;
        let membership = Membership {
            v: 1,
            mesh: authority.mesh(),
            node: node.clone(),
            manager: node.clone(),
            registry,
            listen: Some(listen),
            advertise,
            issued: papers.issued,
            expires: papers.expires,
        };
        self.finish(membership, &papers, &key)
    }

    /// Keeps what the authority at `registry` gave this host for `key`.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if something cannot be written.
    pub fn accept(
        self,
        (mesh, node): (MeshId, &NodeId),
        registry: SocketAddr,
        advertise: Option<IpAddr>,
        (welcome, key): (&Welcome, &Key),
    ) -> Result<Home, HomeError> {
        let papers = &welcome.papers;
        let membership = Membership {
            v: 1,
            mesh,
            node: node.clone(),
            manager: papers.manager.clone(),
            registry,
            listen: None,
            advertise,
            issued: papers.issued,
            expires: papers.expires,
        };
        write(
            &self.directory.join(authority::CERTIFICATE),
            papers.authority.as_bytes(),
        )?;
        self.finish(membership, papers, key)
    }

    fn finish(self, membership: Membership, papers: &Papers, key: &Key) -> Result<Home, HomeError> {
        let home = Home {
            directory: self.directory.clone(),
            membership,
        };
        home.keep(papers, key)?;
        let directory = self.data_root.join(DIRECTORY);
        files::rename(&self.directory, &directory).map_err(file(&directory))?;
        Ok(Home { directory, ..home })
    }
}

impl Home {
    /// The papers in a host's data directory; `None` if it is no member of a mesh.
    ///
    /// # Errors
    ///
    /// [`HomeError`] names the file that is wrong.
    pub fn open(data_root: &Path) -> Result<Option<Self>, HomeError> {
        let directory = data_root.join(DIRECTORY);
        if !directory.exists() {
            return Ok(None);
        }
        files::private_directory(&directory).map_err(file(&directory))?;
        let path = directory.join(MEMBERSHIP);
        let membership = serde_json::from_slice(&read(&path)?);
        let membership = membership.map_err(|_| content(&path))?;
        Ok(Some(Self {
            directory,
            membership,
        }))
    }

    /// The authority, if this host has it.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] names the file that is wrong.
    pub fn authority(&self) -> Result<Option<Authority>, AuthorityError> {
        Authority::open(&self.directory)
    }

    /// Ends this host's membership: what it could show and sign with is gone.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if something cannot be removed. Once it is renamed, the host is no member any more.
    pub fn leave(self) -> Result<(), HomeError> {
        let left = self.directory.with_file_name(LEFT);
        match std::fs::remove_dir_all(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file(&left)(error));
            }
            _ => {}
        }
        files::rename(&self.directory, &left).map_err(file(&left))?;
        std::fs::remove_dir_all(&left).map_err(file(&left))
    }

    /// Who this host is.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// This host's certificate and key, and the authority's certificate, in PEM.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if a file cannot be read.
    pub fn credentials(&self) -> Result<(Vec<u8>, Vec<u8>), HomeError> {
        let identity = read(&self.directory.join(IDENTITY))?;
        Ok((
            identity,
            read(&self.directory.join(authority::CERTIFICATE))?,
        ))
    }

    /// Where these two are, the first of which holds certificate and key.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        let file = |name| self.directory.join(name);
        (file(IDENTITY), file(authority::CERTIFICATE))
    }

    /// How long it is until the certificate should be renewed: at half of its life.
    pub fn renewal(&self) -> Duration {
        let Membership {
            issued, expires, ..
        } = self.membership;
        let due = issued + expires.saturating_sub(issued) / 2;
        Duration::from_secs(due.saturating_sub(now()))
    }

    /// Has the certificate renewed, by the authority here or by the one that has the registry.
    ///
    /// # Errors
    ///
    /// [`RenewError`] if that is not possible now; what there was stays.
    pub async fn renew(&mut self, authority: Option<&Authority>) -> Result<(), RenewError> {
        let (identity, root) = self.credentials()?;
        let path = self.directory.join(IDENTITY);
        let identity = String::from_utf8(identity).map_err(|_| content(&path))?;
        let present = Key::from_pem(&identity).map_err(|_| content(&path))?;
        let next = next_key(&self.directory, Some(&present))?;
        let papers = match authority {
            Some(authority) => authority.renew_own(next.public(), self.membership.registry.ip())?,
            None => {
                let root = CertificateDer::from_pem_slice(&root);
                let root =
                    root.map_err(|_| content(&self.directory.join(authority::CERTIFICATE)))?;
                let Membership {
                    mesh,
                    registry,
                    ref node,
                    ..
                } = self.membership;
                let welcome =
                    crate::client::renew((mesh, &root), registry, node, (&present, &next));
                welcome.await?.papers
            }
        };
        self.membership.issued = papers.issued;
        self.membership.expires = papers.expires;
        Ok(self.keep(&papers, &next)?)
    }

    fn keep(&self, papers: &Papers, key: &Key) -> Result<(), HomeError> {
        let identity = format!("{}{}", papers.certificate, key.to_pem());
        write(&self.directory.join(IDENTITY), identity.as_bytes())?;
        let next = self.directory.join(NEXT_KEY);
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file(&next)(error));
            }
            _ => {}
        }
        // Last: should this not happen, the certificate is but renewed sooner.
        let membership = serde_json::to_vec_pretty(&self.membership).expect("it is JSON");
        write(&self.directory.join(MEMBERSHIP), &membership)
    }
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The authority did not give one.
    #[error(transparent)]
    Ask(#[from] crate::client::JoinError),
    /// It is here, and cannot.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The disk's fault.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// The key of an attempt that was cut off, or a new one, which is kept before anybody hears of it.
fn next_key(directory: &Path, present: Option<&Key>) -> Result<Key, HomeError> {
    let path = directory.join(NEXT_KEY);
    let kept = files::read(&path).map_err(file(&path))?;
    let kept = kept.and_then(|pem| Key::from_pem(&String::from_utf8(pem).ok()?).ok());
    let is_new = |key: &Key| present.is_none_or(|present| present.public() != key.public());
    if let Some(key) = kept.filter(is_new) {
        return Ok(key);
    }
    let key = Key::generate();
    write(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::File { path, source }
}

fn content(path: &Path) -> HomeError {
    HomeError::Content {
        path: path.to_owned(),
        mesh: path.parent().unwrap_or(path).to_owned(),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    files::write(path, bytes).map_err(file(path))
}

fn read(path: &Path) -> Result<Vec<u8>, HomeError> {
    let found = files::read(path).map_err(file(path))?;
    found.ok_or_else(|| file(path)(io::ErrorKind::NotFound.into()))
}
