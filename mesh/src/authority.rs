//! Who admits hosts to a mesh and signs their certificates.

mod error;
mod issue;
mod tokens;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::certificate::root;
use crate::key::{Key, KeyError, PublicKey};
use crate::ledger::{Denied, Ledger, Member};
use crate::names::{MeshId, NodeId};
use crate::pin::Fingerprint;
use crate::token::Secret;
use crate::wire::Papers;
use crate::{files, hex};

pub use error::{AuthorityError, NodeError, TokenRefusal};
pub use issue::{CertifyError, OperatorPapers};

/// The authority's certificate, which every member has.
pub(crate) const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";
const LEDGER: &str = "authority.json";

/// A mesh's authority: its key, its members and the tokens by which others become members.
pub struct Authority {
    directory: PathBuf,
    key: Key,
    certificate: CertificateDer<'static>,
    pem: String,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    /// Cancelled when a member is removed.
    admitted: BTreeMap<NodeId, CancellationToken>,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Authority {
    /// Makes the authority of a new mesh in `directory`, whose certificates are good for `lifetime`. Its host is the
    /// first member.
    pub(crate) fn found(
        directory: &Path,
        manager: &NodeId,
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        let (mesh, key) = (MeshId::generate(), Key::generate());
        let certificate = root(mesh, now()).self_signed(key.pair())?;
        let ledger = Ledger::new(mesh, manager.clone(), lifetime.as_secs());
        let authority = Self {
            directory: directory.to_owned(),
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key,
            state: Mutex::new(State {
                ledger: ledger.clone(),
                admitted: BTreeMap::new(),
            }),
        };
        authority.write(KEY, authority.key.to_pem().as_bytes())?;
        authority.write(CERTIFICATE, authority.pem.as_bytes())?;
        authority.write_ledger(&ledger)?;
        Ok(authority)
    }

    /// Opens the authority in `directory`; `None` if this host has none.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] names the file that is wrong.
    pub(crate) fn open(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let read = |name: &str| {
            let path = directory.join(name);
            let bytes = files::read(&path).map_err(|source| AuthorityError::File {
                path: path.clone(),
                source,
            })?;
            Ok::<_, AuthorityError>((path, bytes))
        };
        let (path, Some(ledger)) = read(LEDGER)? else {
            return Ok(None);
        };
        let ledger = serde_json::from_slice::<Ledger>(&ledger)
            .map_err(|error| AuthorityError::Content(path, error.into()))?;
        let (path, key) = read(KEY)?;
        let key = String::from_utf8(key.unwrap_or_default()).unwrap_or_default();
        let key = Key::from_pem(&key)
            .map_err(|error: KeyError| AuthorityError::Content(path, error.into()))?;
        let (path, pem) = read(CERTIFICATE)?;
        let pem = String::from_utf8(pem.unwrap_or_default()).unwrap_or_default();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| AuthorityError::Content(path.clone(), error.into()))?;
        if Fingerprint::of(&certificate) != Some(Fingerprint::of_key(&key.public())) {
            let error = format!("it is not the certificate of the key in {KEY}");
            return Err(AuthorityError::Content(path, error.into()));
        }
        Ok(Some(Self {
            directory: directory.to_owned(),
            key,
            certificate,
            pem,
            state: Mutex::new(State {
                ledger,
                admitted: BTreeMap::new(),
            }),
        }))
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.lock().ledger.mesh
    }

    /// Those who were let in and not removed.
    pub fn members(&self) -> Vec<Member> {
        self.lock().ledger.members()
    }

    /// Whether a host with this certificate is a member, and what is cancelled when it no longer is. The certificate
    /// has been verified.
    pub fn admit(
        &self,
        node: &NodeId,
        certificate: &CertificateDer<'_>,
    ) -> Option<CancellationToken> {
        let key = Fingerprint::of(certificate)?;
        let mut state = self.lock();
        if !state.ledger.admits(node, key) {
            return None;
        }
        let token = state.admitted.entry(node.clone()).or_default();
        Some(token.child_token())
    }

    /// Removes a member, by its id, the beginning of it, or its name: it is admitted no more, and whatever it has open
    /// is cut off.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if there is no such member, or it is the one that has the authority.
    pub fn remove_member(&self, wanted: &str) -> Result<NodeId, NodeError> {
        let node = self.find(wanted)?;
        self.change(|ledger| match ledger.remove(now(), &node) {
            true => Ok(()),
            false => Err(NodeError::NotFound(wanted.to_owned())),
        })?;
        if let Some(token) = self.lock().admitted.remove(&node) {
            token.cancel();
        }
        Ok(node)
    }

    fn find(&self, wanted: &str) -> Result<NodeId, NodeError> {
        let members = self.members();
        let of = |test: &dyn Fn(&Member) -> bool| {
            let found = members.iter().filter(|member| test(member));
            found.cloned().collect::<Vec<_>>()
        };
        let mut found = of(&|member| member.node.as_str() == wanted);
        if found.is_empty() {
            found = of(&|member| member.name == wanted);
        }
        if found.is_empty() && !wanted.is_empty() {
            found = of(&|member| member.node.as_str().starts_with(wanted));
        }
        match found.as_slice() {
            [] => Err(NodeError::NotFound(wanted.to_owned())),
            [member] if member.manager => Err(NodeError::Manager(member.node.clone())),
            [member] => Ok(member.node.clone()),
            several => Err(NodeError::Ambiguous(wanted.to_owned(), several.len())),
        }
    }

    /// Makes the host that has the authority a member.
    pub(crate) fn enter_own(
        &self,
        name: &str,
        key: PublicKey,
        address: IpAddr,
    ) -> Result<Papers, AuthorityError> {
        let manager = self.lock().ledger.manager.clone();
        self.change(|ledger| {
            ledger.enter(now(), &manager, name, key);
            Ok::<_, AuthorityError>(())
        })?;
        self.issue(&manager, key, address)
    }

    /// A certificate for the next key of the host that has the authority, which need not prove who it is.
    pub(crate) fn renew_own(
        &self,
        next: PublicKey,
        address: IpAddr,
    ) -> Result<Papers, AuthorityError> {
        let manager = self.lock().ledger.manager.clone();
        let renewed = self.renew((&manager, next), address, |_| true)?;
        renewed.map_err(|denied| {
            AuthorityError::Content(self.directory.join(LEDGER), Box::new(denied))
        })
    }

    pub(crate) fn join(
        &self,
        (token, secret): (&str, &Secret),
        host: (&NodeId, &str, PublicKey),
        address: IpAddr,
    ) -> Result<Result<Papers, Denied>, AuthorityError> {
        let (node, _, key) = host;
        match self.attempt(|ledger| ledger.join(now(), (token, secret), host))? {
            Ok(()) => self.issue(node, key, address).map(Ok),
            Err(denied) => Ok(Err(denied)),
        }
    }

    pub(crate) fn renew(
        &self,
        (node, next): (&NodeId, PublicKey),
        address: IpAddr,
        signed_by: impl Fn(&PublicKey) -> bool,
    ) -> Result<Result<Papers, Denied>, AuthorityError> {
        match self.attempt(|ledger| ledger.renew(node, next, &signed_by))? {
            Ok(()) => self.issue(node, next, address).map(Ok),
            Err(denied) => Ok(Err(denied)),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_key(&self.key.public())
    }

    /// Changes what is known, on the disk first.
    fn change<T, E: From<AuthorityError>>(
        &self,
        change: impl FnOnce(&mut Ledger) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        let mut ledger = state.ledger.clone();
        let done = change(&mut ledger)?;
        self.write_ledger(&ledger)?;
        state.ledger = ledger;
        Ok(done)
    }

    /// As [`Authority::change`], of what may be denied.
    fn attempt(
        &self,
        change: impl FnOnce(&mut Ledger) -> Result<(), Denied>,
    ) -> Result<Result<(), Denied>, AuthorityError> {
        enum Not {
            Allowed(Denied),
            Possible(AuthorityError),
        }
        impl From<AuthorityError> for Not {
            fn from(error: AuthorityError) -> Self {
                Self::Possible(error)
            }
        }
        match self.change(|ledger| change(ledger).map_err(Not::Allowed)) {
            Ok(()) => Ok(Ok(())),
            Err(Not::Allowed(denied)) => Ok(Err(denied)),
            Err(Not::Possible(error)) => Err(error),
        }
    }

    fn write_ledger(&self, ledger: &Ledger) -> Result<(), AuthorityError> {
        let bytes = serde_json::to_vec_pretty(ledger).expect("a ledger is JSON");
        self.write(LEDGER, &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
        let path = self.directory.join(name);
        files::write(&path, bytes).map_err(|source| AuthorityError::File { path, source })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("mesh", &self.mesh())
            .field("key", &hex::encode(&self.fingerprint().0))
            .finish_non_exhaustive()
    }
}
