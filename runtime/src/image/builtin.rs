//! Images made of one static binary on this host, for which no registry is asked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Config, ImageConfiguration, RootFs};
use serde::{Deserialize, Serialize};

use super::blob::{self, BlobWriter, StoreBlobError};
use super::catalog::Image;
use super::decompress::BUFFER;
use super::digest::Digest;
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::load::{LoadError, synthetic_manifest};
use super::platform::Platform;
use super::reference::{InvalidReference, Reference};
use super::store::ImageStore;

/// Where the binary stands in the image.
const BINARY: &str = "nuncio";
/// Directories that the runtime mounts on or writes files to.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
];

/// Why a built-in image could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallBuiltinError {
    /// A name for it is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The binary cannot be read.
    #[error("read {}", path.display())]
    Binary {
        /// The binary.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its layer cannot be stored.
    #[error(transparent)]
    Blob(#[from] StoreBlobError),
    /// Its manifest cannot be stored.
    #[error(transparent)]
    Manifest(#[from] LoadError),
    /// Its configuration cannot be written.
    #[error("write the image's configuration")]
    Config(#[source] serde_json::Error),
    /// It cannot be made usable.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// What was installed cannot be remembered.
    #[error("write {}", path.display())]
    Remember {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that did it died.
    #[error("installing the image stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Which binary an image was made of, so that it need not be read again to know.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Installed {
    v: u32,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
    config: String,
    image: String,
}

impl ImageStore {
    /// Makes an image that holds `binary` as `/nuncio` beside empty directories, run as `config` says.
    ///
    /// The image's ID follows from the binary's content and `config` alone. When it is there already, this costs
    /// a look at the file's status.
    ///
    /// # Errors
    ///
    /// See [`InstallBuiltinError`].
    pub async fn install_builtin(
        &self,
        names: &[&str],
        binary: &Path,
        config: Config,
    ) -> Result<Image, InstallBuiltinError> {
        let names = names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<BTreeSet<Reference>, _>>()?;
        let lease = Arc::new(Lease::new(&self.inner));
        let store = self.clone();
        let binary = binary.to_owned();
        let memory = self.inner.root.join("builtin.json");
        let prepare = {
            let (names, lease, memory) = (names.clone(), Arc::clone(&lease), memory.clone());
            move || prepare(&store, &names, &binary, config, &memory, &lease)
        };
        let (plan, seen) = match tokio::task::spawn_blocking(prepare).await?? {
            Prepared::There(image) => return Ok(image),
            Prepared::Made(plan, seen) => (plan, seen),
        };
        let size = plan.make_layers_quietly(&lease).await?;
        let image = plan.record(&lease, size, names, BTreeSet::new()).await?;

        let seen = Installed {
            image: image.id.clone(),
            ..seen
        };
        let tmp = self.inner.tmp();
        let remember = move || {
            let content = serde_json::to_vec(&seen).map_err(InstallBuiltinError::Config)?;
            blob::replace_file(&memory, &tmp, &content).map_err(|source| {
                InstallBuiltinError::Remember {
                    path: memory,
                    source,
                }
            })
        };
        tokio::task::spawn_blocking(remember).await??;
        Ok(image)
    }
}

enum Prepared {
    There(Image),
    Made(Plan, Installed),
}

fn prepare(
    store: &ImageStore,
    names: &BTreeSet<Reference>,
    binary: &Path,
    config: Config,
    memory: &Path,
    lease: &Lease,
) -> Result<Prepared, InstallBuiltinError> {
    let unread = |source| InstallBuiltinError::Binary {
        path: binary.to_owned(),
        source,
    };
    let file = File::open(binary).map_err(unread)?;
    let found = file.metadata().map_err(unread)?;
    let config_json = serde_json::to_vec(&config).map_err(InstallBuiltinError::Config)?;
    let seen = Installed {
        v: 1,
        device: found.dev(),
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        size: found.size(),
        config: Digest::of(&config_json).to_string(),
        image: String::new(),
    };
    if let Some(image) = remembered(store, names, &seen, memory) {
        return Ok(Prepared::There(image));
    }

    let mut writer = store.inner.blobs.create(store.inner.limits.blob_bytes)?;
    write_layer(&mut writer, file, seen.size, binary)?;
    let (layer, _) = writer.commit(None, lease)?;
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(vec![layer.to_string()]);
    let mut image = ImageConfiguration::default();
    image.set_architecture(Platform::host().architecture().into());
    image.set_config(Some(config));
    image.set_rootfs(rootfs);
    let image = serde_json::to_vec(&image).map_err(InstallBuiltinError::Config)?;
    let id = store.inner.blobs.put(&image, lease)?;
    let manifest = synthetic_manifest(id, &[layer], lease)?;
    Ok(Prepared::Made(
        Plan::new(lease, id, manifest, &[layer])?,
        seen,
    ))
}

/// The image made of this very file, if it is there and has the names.
fn remembered(
    store: &ImageStore,
    names: &BTreeSet<Reference>,
    seen: &Installed,
    memory: &Path,
) -> Option<Image> {
    let content = blob::read_if_present(memory).ok()??;
    let known: Installed = serde_json::from_slice(&content).ok()?;
    let same = Installed {
        image: known.image.clone(),
        ..seen.clone()
    } == known;
    let catalog = store.inner.catalog();
    let record = catalog
        .records
        .iter()
        .find(|record| record.id.to_string() == known.image)?;
    (same && names.is_subset(&record.names)).then(|| record.to_image())
}

/// The layer's tar. Times are zero, so that its digest depends on the content alone.
fn write_layer(
    writer: &mut BlobWriter,
    mut file: File,
    size: u64,
    path: &Path,
) -> Result<(), InstallBuiltinError> {
    let unread = |source| InstallBuiltinError::Binary {
        path: path.to_owned(),
        source,
    };
    for &(name, mode) in DIRECTORIES {
        writer.write(header(name, tar::EntryType::Directory, mode, 0).as_bytes())?;
    }
    writer.write(header(BINARY, tar::EntryType::Regular, 0o755, size).as_bytes())?;
    let mut buffer = vec![0; BUFFER];
    let mut left = size;
    while left > 0 {
        let room = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
        file.read_exact(&mut buffer[..room]).map_err(unread)?;
        writer.write(&buffer[..room])?;
        left -= room as u64;
    }
    let padding = size.wrapping_neg() % 512;
    // Two blocks of zeros end an archive.
    writer.write(&[0; 1536][..padding as usize + 1024])?;
    Ok(())
}

fn header(name: &str, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("the names here are short");
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}
