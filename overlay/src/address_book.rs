mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use self::page::{Page, is_usable};

/// Which address of this host's blocks is whose. It outlives the daemon: every change is written down
/// before it is told.
pub struct AddressBook {
    path: PathBuf,
    pages: Pages,
    keep: KeepBook,
}

impl fmt::Debug for AddressBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, pages, .. } = self;
        f.debug_struct("AddressBook")
            .field("path", path)
            .field("pages", pages)
            .finish_non_exhaustive()
    }
}

/// Puts the content of a book where it is found again; a call that returns well has replaced what was there.
pub type KeepBook = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// The file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pages {
    v: u32,
    networks: BTreeMap<String, Page>,
}

const VERSION: u32 = 1;

/// Why the book could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBookError {
    /// The file cannot be read.
    #[error("read address book {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not what this crate writes.
    #[error("address book {} is damaged: restore it, or stop all containers and remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file is a newer program's.
    #[error("address book {} has version {found}, this program reads {VERSION}: use a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// All are held.
    #[error("network {network} has no free address on this host: {held} are held")]
    Full {
        /// The network.
        network: String,
        /// How many.
        held: usize,
    },
    /// The wanted one is not this host's to give.
    #[error(
        "{address} is not in this host's part of network {network}: {}",
        list(blocks)
    )]
    NotHere {
        /// The network.
        network: String,
        /// The wanted one.
        address: IpAddr,
        /// This host's part.
        blocks: Vec<IpNetwork>,
    },
    /// The wanted one is a network's, a gateway's or a broadcast address.
    #[error(
        "{address} is reserved in network {network}: it is a network, gateway or broadcast address"
    )]
    Reserved {
        /// The network.
        network: String,
        /// The wanted one.
        address: IpAddr,
    },
    /// The wanted one is held.
    #[error("{address} in network {network} is held by {owner}")]
    Taken {
        /// The network.
        network: String,
        /// The wanted one.
        address: IpAddr,
        /// By whom.
        owner: String,
    },
    /// The book could not be written.
    #[error(transparent)]
    Write(#[from] WriteBookError),
}

/// Why a change could not be written; the book is as before.
#[derive(Debug, thiserror::Error)]
#[error("write address book {}", path.display())]
pub struct WriteBookError {
    path: PathBuf,
    source: io::Error,
}

impl AddressBook {
    /// Opens the book, or begins one if there is no file.
    ///
    /// # Errors
    ///
    /// A damaged file is not begun anew, for then two containers could get one address.
    pub fn open(path: &Path) -> Result<Self, OpenBookError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(OpenBookError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let _ = fs::remove_file(draft(path)); // mostly there is none; else the next one takes its place
        let file = path.to_owned();
        let keep = move |bytes: &[u8]| replace(&file, bytes);
        Self::kept_by(path, bytes.as_deref(), Box::new(keep))
    }

    /// The book that was `found`, if any, whose changes `keep` writes down. `path` stands for it in errors.
    ///
    /// # Errors
    ///
    /// As [`AddressBook::open`].
    pub fn kept_by(
        path: &Path,
        found: Option<&[u8]>,
        keep: KeepBook,
    ) -> Result<Self, OpenBookError> {
        let pages = match found {
            None => Pages {
                v: VERSION,
                networks: BTreeMap::new(),
            },
            Some(bytes) => read(bytes, path)?,
        };
        Ok(Self {
            path: path.to_owned(),
            pages,
            keep,
        })
    }

    /// Gives `owner` an address of `network` within `blocks`, which are all of IPv4 or all of IPv6, the one
    /// `wanted` if any: one that was never held, else the longest free. Who holds one of that family already
    /// keeps it, so a call can be repeated.
    ///
    /// # Errors
    ///
    /// If all are held or the wanted one cannot be had.
    pub fn allocate(
        &mut self,
        network: &str,
        blocks: &[IpNetwork],
        owner: &str,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, AllocateError> {
        let is_v6 = blocks.first().is_some_and(IpNetwork::is_ipv6);
        let held = self.pages.networks.get(network).and_then(|page| {
            let mut held = page.held.iter();
            let own = held.find(|(address, holder)| address.is_ipv6() == is_v6 && *holder == owner);
            own.map(|(address, _)| *address)
        });
        let suits = |address: &IpAddr| {
            is_usable(blocks, *address) && wanted.is_none_or(|wanted| wanted == *address)
        };
        if let Some(address) = held.filter(suits) {
            return Ok(address);
        }
        let mut pages = self.pages.clone();
        let page = pages.networks.entry(network.to_owned()).or_default();
        if let Some(address) = held {
            page.free(address); // of a block since given back, or of another wish
        }
        let address = match wanted {
            Some(address) => page.check(network, blocks, address)?,
            None => page
                .choose(blocks, is_v6)
                .ok_or_else(|| AllocateError::Full {
                    network: network.to_owned(),
                    held: page.held_of(is_v6),
                })?,
        };
        page.freed.retain(|freed| *freed != address);
        page.held.insert(address, owner.to_owned());
        self.write(pages)?;
        Ok(address)
    }

    /// Frees all that `owner` holds.
    ///
    /// # Errors
    ///
    /// If the book cannot be written.
    pub fn release(&mut self, owner: &str) -> Result<(), WriteBookError> {
        self.free(|_, holder| holder == owner)
    }

    /// Frees what `owner` holds in one network.
    ///
    /// # Errors
    ///
    /// If the book cannot be written.
    pub fn release_one(&mut self, network: &str, owner: &str) -> Result<(), WriteBookError> {
        self.free(|of, holder| of == network && holder == owner)
    }

    /// Forgets a network that is no more, and all that was held in it.
    ///
    /// # Errors
    ///
    /// If the book cannot be written.
    pub fn forget(&mut self, network: &str) -> Result<(), WriteBookError> {
        let mut pages = self.pages.clone();
        match pages.networks.remove(network) {
            Some(_) => self.write(pages),
            None => Ok(()),
        }
    }

    /// All networks in which somebody holds an address, or held one.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        self.pages.networks.keys().cloned().collect()
    }

    /// All who hold an address.
    #[must_use]
    pub fn owners(&self) -> BTreeSet<String> {
        let pages = self.pages.networks.values();
        pages.flat_map(|page| page.held.values().cloned()).collect()
    }

    /// What is held in a network, and by whom.
    #[must_use]
    pub fn held(&self, network: &str) -> BTreeMap<IpAddr, String> {
        let page = self.pages.networks.get(network);
        page.map(|page| page.held.clone()).unwrap_or_default()
    }

    fn free(&mut self, which: impl Fn(&str, &str) -> bool) -> Result<(), WriteBookError> {
        let mut pages = self.pages.clone();
        let mut changed = false;
        for (network, page) in &mut pages.networks {
            let held = page.held.iter().filter(|(_, owner)| which(network, owner));
            let addresses: Vec<_> = held.map(|(address, _)| *address).collect();
            changed |= !addresses.is_empty();
            for address in addresses {
                page.free(address);
            }
        }
        if changed { self.write(pages) } else { Ok(()) }
    }

    /// Writes the new pages down, and then has them in memory.
    fn write(&mut self, pages: Pages) -> Result<(), WriteBookError> {
        let kept = serde_json::to_vec(&pages)
            .map_err(io::Error::from)
            .and_then(|bytes| (self.keep)(&bytes));
        kept.map_err(|source| WriteBookError {
            path: self.path.clone(),
            source,
        })?;
        self.pages = pages;
        Ok(())
    }
}

fn read(bytes: &[u8], path: &Path) -> Result<Pages, OpenBookError> {
    /// Any version's file has this much in common.
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let damaged = |source| OpenBookError::Damaged {
        path: path.to_owned(),
        source,
    };
    let found = serde_json::from_slice::<Versioned>(bytes)
        .map_err(damaged)?
        .v;
    if found != VERSION {
        return Err(OpenBookError::Version {
            path: path.to_owned(),
            found,
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// What is to take the file's place; what a killed process left of it is nobody's.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Whoever reads the file sees the old pages or the new, whenever the power fails.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = draft(path);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn list(blocks: &[IpNetwork]) -> String {
    let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
    blocks.join(", ")
}
