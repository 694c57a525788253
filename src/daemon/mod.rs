//! The daemon: decides what runs on this host and how it is reached. It holds nothing that runs; those
//! are the shims, the ambassador and the kernel, which go on without it and are found again.

mod addresses;
mod adopted;
mod ambassador_process;
pub(crate) mod api_connection;
mod api_socket;
pub(crate) mod api_tls;
mod archive;
pub(crate) mod audit;
mod commit;
pub(crate) mod config;
mod connect;
pub(crate) mod container;
mod create;
pub(crate) mod dashboard;
mod drift;
mod end;
pub(crate) mod events;
pub(crate) mod exec;
mod fallback;
mod files;
mod forwards;
pub(crate) mod health;
mod host_process;
mod images;
mod kernel_state;
pub(crate) mod limits;
mod link;
mod link_targets;
mod link_tls;
pub(crate) mod map;
pub(crate) mod mesh;
mod metrics;
pub(crate) mod mount;
mod mounting;
mod names;
mod namespaces;
pub(crate) mod network_edit;
pub(crate) mod network_options;
pub(crate) mod networks;
mod news;
pub(crate) mod node;
mod offering;
mod offers;
pub(crate) mod orchestrator;
mod outfit;
pub(crate) mod outside;
mod paths;
mod pause;
pub(crate) mod peek;
pub(crate) mod peers;
mod plane;
mod ports;
mod ran;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod registered;
mod registry;
mod registry_access;
mod removal;
mod restart;
pub(crate) mod sealed;
mod sealing;
mod serve;
mod service_check;
mod service_zone;
mod services;
mod signal;
mod start;
mod state_file;
pub(crate) mod stats;
mod strangers;
mod subject;
mod take_over;
mod tally;
pub(crate) mod traces;
mod tunnel_process;
pub(crate) mod update;
pub(crate) mod view;
pub(crate) mod volumes;
pub(crate) mod why;
mod zones;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use nuncio_overlay::{AddressBook, HostState, Kernel, PathStates, Paths, default_underlay_address};
use nuncio_registry::{Catalog, Mirror, NetworkRecord, Presence, Registry};
use nuncio_runtime::Shims;
use nuncio_runtime::image::ImageStore;
use nuncio_runtime::volume::VolumeStore;
use nuncio_tunnel::KeyRing;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::ambassador_process::AmbassadorProcess;
use self::container::{Container, RECORD, locked};
use self::events::EventLog;
use self::exec::Exec;
use self::mesh::Mesh;
use self::networks::LocalNetwork;
use self::node::Identity;
use self::record::{Phase, Record};
use self::tally::Tally;
use self::tunnel_process::TunnelProcess;
use crate::cli::daemon::DaemonOptions;

pub(crate) use self::outfit::{device_rule, is_device_access};
pub(crate) use self::registry::PORT as REGISTRY_PORT;
pub(crate) use self::sealing::ENCRYPTED;
pub(crate) use self::serve::run;
pub(crate) use self::signal::number as signal_number;

/// Bridge of the default network.
pub(crate) const DEFAULT_BRIDGE: &str = "nuncio0";
/// File that remembers where links to other hosts led.
const LINK_TARGETS: &str = "link_targets.json";
/// File that remembers who was in the services of other hosts.
const SERVICES: &str = "services.json";
/// How long a request waits for the registry to know of it, or to be heard from; then it goes on without.
const SETTLE: Duration = Duration::from_secs(2);

/// A host's daemon.
pub(crate) struct Daemon {
    pub(crate) options: DaemonOptions,
    pub(crate) node: Identity,
    binary: PathBuf,
    shims: Shims,
    images: ImageStore,
    volumes: Arc<VolumeStore>,
    /// Held by whoever decides by whether a volume is in use, and by whoever begins to use one.
    volume_turn: tokio::sync::Mutex<()>,
    registry: Registry,
    /// `None` where this host is in no mesh whose members are known.
    mesh: Option<Mesh>,
    presence: Presence,
    /// By which tasks are planned.
    mesh_time: orchestrator::MeshTime,
    /// Keeps the catalog up to date for as long as it lives.
    mirror: Mirror,
    catalog_changes: watch::Receiver<Arc<Catalog>>,
    default_record: OnceLock<Arc<NetworkRecord>>,
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
    execs: Mutex<VecDeque<Arc<Exec>>>,
    /// What happened, for `events`.
    pub(crate) events: EventLog,
    tally: Tally,
    /// `None`: nothing is traced.
    pub(crate) traces: Option<traces::Traces>,
    /// What links have carried in the last hour.
    rings: Mutex<map::Rings>,
    /// What the dashboard's pages share.
    pub(crate) pages: dashboard::Pages,
    /// What was last told of the registry's news.
    news_told: Mutex<Option<Arc<Catalog>>>,
    /// What records of services and tasks mean.
    parsed: orchestrator::parsed::Parsed,
    local_networks: Mutex<BTreeMap<String, LocalNetwork>>,
    /// This host's blocks by network id.
    blocks: Mutex<BTreeMap<String, Vec<IpNetwork>>>,
    addresses: Mutex<AddressBook>,
    /// Where each link's forward led when that was last known.
    link_targets: Mutex<BTreeMap<String, Vec<Ipv4Addr>>>,
    services: Mutex<services::KnownServices>,
    outside: outside::Outside,
    /// `None` where this host is no gateway between meshes.
    peers: Option<peers::Peers>,
    /// The keys of the gateways of other meshes that are heard of now.
    heard: Mutex<BTreeSet<String>>,
    /// For checks and queries of what is outside.
    outside_room: Arc<Semaphore>,
    kernel: tokio::sync::Mutex<Kernel>,
    /// What the kernel was last made, if that is not mended but only changed.
    programmed: Mutex<Option<HostState>>,
    paths: Paths,
    /// What was last told of the ways to other hosts.
    paths_told: Mutex<PathStates>,
    /// MTU of the link to the underlay, when it was last looked at.
    underlay_mtu: Mutex<Option<u16>>,
    ambassador: AmbassadorProcess,
    tunnel: TunnelProcess,
    /// To whom it is gone around VXLAN.
    around: Mutex<fallback::Around>,
    /// This host's keys for encrypted networks.
    ring: Mutex<KeyRing>,
    /// Held by who changes them.
    key_turn: tokio::sync::Mutex<()>,
    /// By which this host reads what is confidential.
    seal_key: sealed::NodeKey,
    /// Why encrypted networks are not carried, if that is so.
    unsealed: Mutex<Option<String>>,
    /// What the ambassador cannot listen on, by the forward's name, and why.
    unserved: Mutex<BTreeMap<String, String>>,
    /// For questions to other hosts.
    peeks: Arc<Semaphore>,
    /// Where changes by the API are written down, if anywhere.
    audit: Option<audit::AuditLog>,
    /// Held while the daemon runs, so that no second one works in the same directory.
    _lock: std::fs::File,
}

/// 64 hexadecimal digits, by chance.
pub(crate) fn new_id() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}

impl Daemon {
    /// Makes everything ready but serves nobody yet.
    async fn open(options: DaemonOptions, stop: &CancellationToken) -> anyhow::Result<Arc<Self>> {
        make_directories(&options)?;
        let lock = lock(&options.data_root)?;
        state_file::remove_drafts(&options.data_root)?;
        state_file::remove_drafts(&options.data_root.join("networks"))?;
        let audit = options.audit_log.as_deref();
        let audit = audit.map(audit::AuditLog::open).transpose()?;
        let mesh = Mesh::open(&options.data_root)?;
        peek::check(&options, mesh.as_ref())?;
        let advertise = options.advertise;
        let address = match advertise.or(mesh.as_ref().and_then(Mesh::advertise)) {
            Some(address) => address,
            None => default_underlay_address()
                .await
                .context("choose an address for other hosts to reach this one")?,
        };
        nuncio_overlay::mtu_of_address(address)
            .await
            .with_context(|| format!("--advertise-addr {address}"))?;
        let name = options.node_name.clone().unwrap_or_else(node::hostname);
        let node = Identity::load(&options.data_root, name, address)?;
        if let Some(mesh) = &mesh {
            mesh.require(&node.id)?;
        }
        let registry = registry::open(&options, mesh.as_ref(), &node, stop).await?;
        let mirror = Mirror::start(
            registry.clone(),
            Some(options.data_root.join("catalog.json")),
        );
        let records = load_records(&options.data_root)?;
        let local_networks = networks::load_local(&options.data_root.join("networks"))?;
        let presence = start_presence(
            &registry,
            &node,
            &options.exec_root,
            &records,
            &local_networks,
        );
        let binary = std::env::current_exe().context("find the running binary")?;
        let containers = records.into_iter().map(|record| {
            let directory = options.data_root.join("containers").join(&record.id);
            (
                record.id.clone(),
                Container::new(record, directory, &options.exec_root),
            )
        });
        let daemon = Arc::new(Self {
            images: ImageStore::open(&options.data_root.join("images"))?,
            volumes: Arc::new(VolumeStore::open(&options.data_root.join("volumes"))?),
            volume_turn: tokio::sync::Mutex::default(),
            presence,
            mesh_time: orchestrator::MeshTime::begin(),
            catalog_changes: mirror.catalog(),
            mirror,
            default_record: OnceLock::new(),
            containers: RwLock::new(containers.collect()),
            execs: Mutex::default(),
            events: EventLog::open(&options.data_root)?,
            rings: Mutex::default(),
            pages: dashboard::Pages::default(),
            news_told: Mutex::default(),
            parsed: orchestrator::parsed::Parsed::default(),
            tally: Tally::default(),
            traces: (options.otlp.as_ref()).map(|endpoint| traces::Traces::new(endpoint, &node)),
            local_networks: Mutex::new(local_networks),
            blocks: Mutex::new(
                state_file::read(&options.data_root.join("blocks.json"))?.unwrap_or_default(),
            ),
            addresses: Mutex::new(addresses::open_book(&options.data_root)?),
            link_targets: Mutex::new(
                state_file::read(&options.data_root.join(LINK_TARGETS))?.unwrap_or_default(),
            ),
            services: Mutex::new(
                state_file::read(&options.data_root.join(SERVICES))?.unwrap_or_default(),
            ),
            outside: outside::Outside::default(),
            peers: peers::Peers::open(&options.data_root, &node.id, options.gateway)?,
            heard: Mutex::default(),
            outside_room: outside::room(),
            kernel: tokio::sync::Mutex::new(Kernel::open().await?),
            programmed: Mutex::default(),
            paths: paths::open(&options.data_root)?,
            paths_told: Mutex::default(),
            underlay_mtu: Mutex::default(),
            ambassador: AmbassadorProcess::new(binary.clone(), &options.exec_root),
            tunnel: TunnelProcess::new(
                binary.clone(),
                &options.exec_root,
                sealing::ring_path(&options.data_root),
                (address, options.tunnel_port).into(),
                (address, options.fallback_port).into(),
            ),
            around: Mutex::new(fallback::Around::begun(fallback::read(&options.data_root)?)),
            ring: Mutex::new(sealing::open_ring(&options.data_root)?),
            key_turn: tokio::sync::Mutex::default(),
            seal_key: sealed::NodeKey::open(&options.data_root)?,
            unsealed: Mutex::default(),
            unserved: Mutex::default(),
            peeks: Arc::new(Semaphore::new(peek::UNDER_WAY)),
            audit,
            _lock: lock,
            shims: Shims::new(binary.clone()).owned_by(options.exec_root.clone()),
            binary,
            registry,
            mesh,
            node,
            options,
        });
        serve::patiently("join the mesh", daemon.join_mesh()).await?;
        Ok(daemon)
    }

    /// Makes this host known, if the registry is there; a host that was in the mesh before goes on without.
    async fn join_mesh(&self) -> anyhow::Result<()> {
        let node = self.node_record(&locked(&self.ring).clone());
        match self.registry.register_node(&node).await {
            Ok(()) => self.catch_up().await,
            Err(nuncio_registry::RegisterNodeError::Call(error)) if self.was_in_mesh() => {
                tracing::warn!(%error, "the registry does not answer: going on with what was known");
            }
            Err(error) => return Err(error).context("join the mesh"),
        }
        self.ensure_default_network().await
    }

    /// What is known of the mesh now.
    ///
    /// No more than this may look into the channel: who holds a look and takes another waits for ever if the mirror waits
    /// for the first to end.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog_changes.borrow().clone()
    }

    /// Writes down what somebody has changed by the API, or tried to.
    pub(crate) fn note_change(&self, change: &audit::Change) {
        if let Some(log) = &self.audit {
            log.note(change);
        }
    }

    fn was_in_mesh(&self) -> bool {
        self.mesh_default().is_some() || self.catalog().nodes.contains_key(&self.node.id)
    }

    /// Waits until all that was in the registry before the call is known here, for a bounded time.
    pub(super) async fn catch_up(&self) {
        let mut catalog = self.catalog_changes.clone();
        let caught_up = async {
            let latest = self.registry.latest_revision().await?;
            catalog
                .wait_for(|catalog| catalog.revision >= latest)
                .await
                .context("the mirror has ended")?;
            anyhow::Ok(())
        };
        match timeout(SETTLE, caught_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "ask the registry for news");
            }
            Err(_) => tracing::warn!("the registry's news did not come within {SETTLE:?}"),
        }
    }

    /// Waits until the registry knows what was published, for a bounded time.
    pub(super) async fn await_registration(&self) {
        if timeout(SETTLE, self.presence.settled()).await.is_err() {
            tracing::warn!("the registry does not answer: other hosts will hear of this later");
        }
    }
}

fn make_directories(options: &DaemonOptions) -> anyhow::Result<()> {
    let data = ["containers", "images", "networks"].map(|name| options.data_root.join(name));
    let exec = ["run", "netns", "exec", "files"].map(|name| options.exec_root.join(name));
    for directory in data.iter().chain(&exec) {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    Ok(())
}

/// Held by whoever works in a data directory.
pub(crate) fn lock(data_root: &Path) -> anyhow::Result<std::fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let path = data_root.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!(
            "another daemon works in {}: stop it, or give this one another --data-root",
            data_root.display()
        )
    })?;
    Ok(file)
}

fn load_records(data_root: &Path) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(data_root.join("containers"))? {
        let directory = entry?.path();
        match state_file::read::<Record>(&directory.join(RECORD))? {
            Some(record) => {
                state_file::remove_drafts(&directory)?;
                records.push(record);
            }
            None => state_file::remove(&directory)?, // a create or a removal that was cut off
        }
    }
    Ok(records)
}

/// Begins with what ran when the last daemon ended, so that other hosts do not see it go and come.
fn start_presence(
    registry: &Registry,
    node: &Identity,
    exec_root: &Path,
    records: &[Record],
    local: &BTreeMap<String, LocalNetwork>,
) -> Presence {
    let running = records
        .iter()
        .filter(|record| matches!(record.phase, Phase::Running { .. }));
    let endpoints = running.flat_map(|record| {
        let health = health::remembered(exec_root, record);
        let endpoints = plane::registrations(record, node, |id| local.contains_key(id));
        endpoints.into_iter().map(move |mut endpoint| {
            endpoint.health = services::health_of(health);
            endpoint
        })
    });
    Presence::start(registry.clone(), &node.id, endpoints)
}
