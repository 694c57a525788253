//! Credentials in files, read again when they change.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Credentials, CredentialsError, Part};

const INTERVAL: Duration = Duration::from_secs(1);
const LARGEST: u64 = 1 << 20;

/// Where credentials are, in PEM.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and an authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that vouch for peers.
    pub bundle: PathBuf,
}

/// Why files give no credentials.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be had.
    #[error("read the {part} from {}", .path.display())]
    Read {
        /// What it should hold.
        part: Part,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{part} {}", .path.display())]
    Content {
        /// What it should hold.
        part: Part,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
}

type Sender = watch::Sender<Arc<Credentials>>;
/// What tells one version of the files from another.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

/// Watches files; one watch for all who want the same ones, which ends with the last of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileSource(Arc<Mutex<HashMap<TlsFiles, Weak<Sender>>>>);

impl FileSource {
    /// Reads the files, and reads them again whenever they change, looking once a second. A change
    /// that makes no credentials is told, and what was valid stays.
    pub(crate) fn watch(
        &self,
        files: &TlsFiles,
    ) -> Result<watch::Receiver<Arc<Credentials>>, TlsFilesError> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| sender.strong_count() > 0);
        if let Some(sender) = watched.get(files).and_then(Weak::upgrade) {
            return Ok(sender.subscribe());
        }
        // Before they are read: a change meanwhile makes a difference to what comes next.
        let stamp = files.stamp();
        let credentials = Arc::new(files.read()?);
        info!(identity = %credentials.identity(), certificate = %files.certificate.display(), "credentials");
        let (sender, receiver) = watch::channel(credentials);
        let sender = Arc::new(sender);
        watched.insert(files.clone(), Arc::downgrade(&sender));
        tokio::spawn(refresh(self.clone(), files.clone(), stamp, sender));
        Ok(receiver)
    }
}

async fn refresh(source: FileSource, files: TlsFiles, mut read: Stamp, sender: Arc<Sender>) {
    let (mut before, mut expired) = (read, false);
    loop {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = sender.closed() => {}
        }
        {
            // Under the lock, so that nobody subscribes in between.
            let _watched = source.0.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.is_closed() {
                drop(sender);
                return;
            }
        }
        let looked = {
            let files = files.clone();
            // Who writes three files is given time until nothing changes any more.
            spawn_blocking(move || {
                let now = files.stamp();
                (now, (now != read && now == before).then(|| files.read()))
            })
        };
        let Ok((now, credentials)) = looked.await else {
            continue;
        };
        before = now;
        match credentials {
            None if expired => {}
            None => expired = tell_expired(&sender.borrow().clone(), &files),
            Some(Ok(credentials)) => {
                (read, expired) = (now, false);
                info!(identity = %credentials.identity(), certificate = %files.certificate.display(), "credentials renewed");
                sender.send_replace(Arc::new(credentials));
            }
            Some(Err(error)) => {
                read = now;
                let reason = crate::edge::chain(&error);
                warn!(
                    error = reason,
                    "changed credentials are not taken, and what was valid goes on"
                );
            }
        }
    }
}

/// Tells whoever is to renew them that it is late, if it is.
fn tell_expired(credentials: &Credentials, files: &TlsFiles) -> bool {
    let Err(error) = credentials.valid_now() else {
        return false;
    };
    warn!(
        identity = %credentials.identity(),
        certificate = %files.certificate.display(),
        error = crate::edge::chain(&error),
        "these credentials are out of date, and peers refuse them: renew the files"
    );
    true
}

impl TlsFiles {
    fn path(&self, part: Part) -> &Path {
        match part {
            Part::Certificate => &self.certificate,
            Part::Key => &self.key,
            Part::Bundle => &self.bundle,
        }
    }

    fn stamp(&self) -> Stamp {
        [Part::Certificate, Part::Key, Part::Bundle].map(|part| {
            let data = std::fs::metadata(self.path(part)).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
        })
    }

    /// Whether they make credentials now.
    pub(crate) fn check(&self) -> Result<(), TlsFilesError> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<Credentials, TlsFilesError> {
        let read = |part| {
            let path = self.path(part);
            bounded(path).map_err(|source| TlsFilesError::Read {
                part,
                path: path.to_owned(),
                source,
            })
        };
        let (certificate, key) = (read(Part::Certificate)?, read(Part::Key)?);
        let made = Credentials::from_pem(&certificate, &key, &read(Part::Bundle)?);
        made.map_err(|source| TlsFilesError::Content {
            part: source.part(),
            path: self.path(source.part()).to_owned(),
            source,
        })
    }
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        let what = "larger than 1 MiB, which no certificate or key is";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}
