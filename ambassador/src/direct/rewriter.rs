//! The programs in the kernel, and what they choose from.
#![expect(
    deprecated,
    reason = "only the older cgroup storage belongs to the cgroup to which a program is attached"
)]

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, CgroupStorage, CgroupStorageKey, HashOfMaps, Map, MapData, MapError};
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use aya::{Ebpf, include_bytes_aligned};

use super::cgroup;
use super::endpoints::{self, Endpoint};
use super::error::{DirectError, SetError};
use super::layout::{self, Element, FIRST_SLOT, Key};
use super::service::{Scope, ServiceKey};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rewrite.bpf.o"));

/// In the order of attaching: an address is shown before it is rewritten.
const PROGRAMS: [&str; 8] = [
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// `enum bpf_attach_type` of the programs that look for services: `BPF_CGROUP_INET4_CONNECT`,
/// `INET6_CONNECT`, `UDP4_SENDMSG` and `UDP6_SENDMSG`.
const LOOKING: [u32; 4] = [10, 11, 14, 15];

/// `BPF_F_INNER_MAP`: sets may differ in length.
const INNER_MAP: u32 = 1 << 12;

type Set = Array<MapData, Element>;

/// `struct attachment`: scope and cgroup.
type Attachment = [u64; 2];

/// Rewrites connections of the cgroups it is attached to, until it is dropped or its process ends.
///
/// Changes wait for each other, and up to some ten milliseconds for the kernel to be done with what
/// they replace.
pub struct Rewriter {
    state: Mutex<State>,
    /// Apart, so that who reads need not wait for the kernel.
    installed: Mutex<HashMap<(Scope, ServiceKey), Arc<Installed>>>,
}

struct State {
    programs: Ebpf,
    services: HashOfMaps<MapData, Key, Set>,
    attachments: CgroupStorage<MapData, Attachment>,
    attached: HashMap<PathBuf, Attached>,
    next: u64,
}

/// Dropping the links detaches the programs. Another path to the same cgroup shares them.
struct Attached {
    id: u64,
    scope: Scope,
    links: Arc<Vec<CgroupSockAddrLink>>,
}

struct Installed {
    set: Set,
    endpoints: Vec<Endpoint>,
    /// How often each was chosen out of earlier sets.
    earlier: HashMap<SocketAddr, u64>,
}

/// How often an endpoint was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counter {
    /// Who has chosen.
    pub scope: Scope,
    /// What for.
    pub service: ServiceKey,
    /// What was chosen.
    pub endpoint: SocketAddr,
    /// Calls of `connect`, and datagram sockets that were given it, since it came into the set.
    pub connects: u64,
}

/// Whether this machine, and this process, can rewrite connections.
///
/// # Errors
///
/// What [`Rewriter::load`] says.
pub fn probe() -> Result<(), DirectError> {
    Rewriter::load().map(drop)
}

impl Rewriter {
    /// Loads the programs. They do nothing yet.
    ///
    /// # Errors
    ///
    /// [`DirectError`], which names what is missing: cgroup2, bpf(2), a capability or a feature of
    /// the kernel.
    pub fn load() -> Result<Self, DirectError> {
        cgroup::mount()?;
        let mut programs = Ebpf::load(OBJECT).map_err(DirectError::object)?;
        for name in PROGRAMS {
            let loaded = program(&mut programs, name).and_then(CgroupSockAddr::load);
            loaded.map_err(|error| DirectError::program(name, error))?;
        }
        let unfit = |error| DirectError::Object(Box::new(aya::EbpfError::MapError(error)));
        let state = State {
            services: HashOfMaps::try_from(map(&mut programs, "services")).map_err(unfit)?,
            attachments: CgroupStorage::try_from(map(&mut programs, "attachments"))
                .map_err(unfit)?,
            programs,
            attached: HashMap::new(),
            next: 1,
        };
        Ok(Self {
            state: Mutex::new(state),
            installed: Mutex::default(),
        })
    }

    /// Rewrites what the processes in `cgroup`, and in cgroups below it, connect to from now on,
    /// if it is a service of `scope`. Other programs on it go on. Attached already, it may change
    /// its scope; a directory that was made anew is attached anew.
    ///
    /// # Errors
    ///
    /// [`DirectError`]; nothing is attached then.
    pub fn attach(&self, cgroup: &Path, scope: Scope) -> Result<(), DirectError> {
        let (directory, id) = cgroup::open(cgroup)?;
        let mut state = lock(&self.state);
        let state = &mut *state;
        let known = state.attached.get(cgroup).filter(|known| known.id == id);
        if known.is_some_and(|known| known.scope == scope) {
            return Ok(());
        }
        let same = state.attached.values().find(|known| known.id == id);
        let links = match same {
            Some(same) => same.links.clone(),
            None => Arc::new(attach_all(&mut state.programs, cgroup, &directory)?),
        };
        for attach_type in LOOKING {
            let key = CgroupStorageKey::new(id, attach_type);
            let told = (state.attachments).insert(key, [scope.number(), id], 0);
            told.map_err(|source| DirectError::Scope {
                cgroup: cgroup.to_owned(),
                source: Box::new(source),
            })?;
        }
        let attached = Attached { id, scope, links };
        state.attached.insert(cgroup.to_owned(), attached);
        Ok(())
    }

    /// Ends what [`Self::attach`] has begun; false if it has not, under that path. Connections
    /// that were made go on, though `getpeername` tells them the endpoint's address.
    pub fn detach(&self, cgroup: &Path) -> bool {
        lock(&self.state).attached.remove(cgroup).is_some()
    }

    /// Makes `endpoints` what the next `connect` to `service` chooses from, each as often as its
    /// weight says.
    ///
    /// An endpoint with weight 0 is not chosen, but datagram sockets that send to it already go on
    /// doing so. Where there is none to choose, connections go to the service's address itself.
    ///
    /// # Errors
    ///
    /// [`SetError`]; the endpoints that were set before stay.
    pub fn set(
        &self,
        scope: Scope,
        service: ServiceKey,
        endpoints: &[(SocketAddr, u16)],
    ) -> Result<(), SetError> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        // Nobody else changes it meanwhile.
        let known = lock(&self.installed).get(&(scope, service)).cloned();
        let before = (known.as_ref()).map_or(&[][..], |known| &known.endpoints);
        let after = endpoints::follow(&service, before, endpoints, &mut state.next)?;
        if known.is_some() && before == after {
            return Ok(());
        }
        let kernel = |source| SetError::Kernel {
            service,
            source: Box::new(source),
        };
        let elements = layout::set(scope, &service, &after);
        let set = fill(&elements).map_err(kernel)?;
        let key = layout::key(scope, &service);
        // On return the kernel has seen to it that nobody uses the old set any more.
        state.services.insert(key, &set, 0).map_err(kernel)?;
        let mut earlier = known.map_or_else(HashMap::new, |known| known.chosen());
        earlier.retain(|address, _| after.iter().any(|endpoint| endpoint.address == *address));
        let installed = Installed {
            set,
            endpoints: after,
            earlier,
        };
        lock(&self.installed).insert((scope, service), Arc::new(installed));
        Ok(())
    }

    /// Lets connections go to the service's address itself again.
    ///
    /// # Errors
    ///
    /// [`SetError::Kernel`], and then it is not certain whether it stays.
    pub fn remove(&self, scope: Scope, service: ServiceKey) -> Result<(), SetError> {
        let mut state = lock(&self.state);
        if lock(&self.installed).remove(&(scope, service)).is_none() {
            return Ok(());
        }
        let removed = state.services.remove(&layout::key(scope, &service));
        removed.map_err(|source| SetError::Kernel {
            service,
            source: Box::new(source),
        })
    }

    /// How often each endpoint of each service was chosen, in no order. An endpoint that leaves
    /// the set is forgotten. Waits for nobody.
    #[must_use]
    pub fn counters(&self) -> Vec<Counter> {
        let installed = lock(&self.installed).clone();
        let of_service =
            |((scope, service), installed): (&(Scope, ServiceKey), &Arc<Installed>)| {
                let (scope, service) = (*scope, *service);
                let chosen = installed.chosen().into_iter();
                chosen.map(move |(endpoint, connects)| Counter {
                    scope,
                    service,
                    endpoint,
                    connects,
                })
            };
        installed.iter().flat_map(of_service).collect()
    }
}

impl Installed {
    fn chosen(&self) -> HashMap<SocketAddr, u64> {
        let slots = self.endpoints.iter().zip(FIRST_SLOT..);
        slots
            .map(|(endpoint, index)| {
                // The map is ours, and as long as its set.
                let slot = self.set.get(&index, 0);
                let chosen = slot.map_or(0, |slot| layout::chosen(&slot));
                let earlier = self.earlier.get(&endpoint.address).copied();
                (endpoint.address, chosen + earlier.unwrap_or(0))
            })
            .collect()
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewriter")
            .field("services", &lock(&self.installed).keys())
            .finish_non_exhaustive()
    }
}

/// A set that nobody uses yet.
fn fill(elements: &[Element]) -> Result<Set, MapError> {
    let length = u32::try_from(elements.len()).unwrap_or(u32::MAX);
    let mut set = Set::create(length, INNER_MAP)?;
    for (element, index) in elements.iter().zip(0..) {
        set.set(index, element, 0)?;
    }
    Ok(set)
}

fn attach_all(
    programs: &mut Ebpf,
    cgroup: &Path,
    directory: &File,
) -> Result<Vec<CgroupSockAddrLink>, DirectError> {
    let mut links = Vec::with_capacity(PROGRAMS.len());
    for name in PROGRAMS {
        let link = attach(programs, name, directory);
        links.push(link.map_err(|error| DirectError::Attach {
            cgroup: cgroup.to_owned(),
            program: name,
            source: Box::new(error),
        })?);
    }
    Ok(links)
}

fn attach(
    programs: &mut Ebpf,
    name: &str,
    cgroup: &File,
) -> Result<CgroupSockAddrLink, ProgramError> {
    let program = program(programs, name)?;
    // A link always shares the cgroup with others, and the kernel refuses to be told so.
    let link = program.attach(cgroup, CgroupAttachMode::Single)?;
    program.take_link(link)
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr, ProgramError> {
    let program = programs.program_mut(name);
    program.expect("bpf/rewrite.bpf.c has it").try_into()
}

fn map(programs: &mut Ebpf, name: &str) -> Map {
    let map = programs.take_map(name);
    map.expect("bpf/rewrite.bpf.c has it")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
