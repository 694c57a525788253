//! Whether VXLAN gets through to each peer, how fast, and how long its packets may be.
//!
//! What is believed of a path is what answers: no ICMP of a router is needed, and none is heeded. A probe is a VXLAN packet
//! from this process to the peer's port, with an echo request to the peer's gateway in it, which the peer's kernel answers.
//! So nothing of ours has to run there, a firewall sees what it sees of the overlay anyway, and neither this host's routes
//! nor what its kernel believes of the path decide where the probe goes.

mod checksum;
mod checksum_packet;
mod judge;
mod packet;
mod sockets;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    judge::Judge,
    packet::{Cookie, least},
    sockets::Sockets,
};
use crate::{Carrier, HostState, MacAddr, Vni, gateway_of, segment};

pub(crate) use self::checksum::LINK as CHECKSUM_LINK;

/// UDP port of gateways at which hosts ask each other whether checksums arrive: that of discard (RFC 863), since nobody is
/// to listen there.
pub(crate) const CHECKSUM_PORT: u16 = 9;

/// Changes of targets that may wait; who makes more waits himself.
const AIMS: usize = 16;

/// What is known of the way to a peer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PathState {
    /// Whether VXLAN gets there, and answers come back; `None` before that is known. Three probes lost in a row, one each
    /// second, are taken to mean that it does not.
    pub reachable: Option<bool>,
    /// How long an answer takes, smoothed.
    pub round_trip: Option<Duration>,
    /// Probes that `lost` is of, the last 32 at most.
    pub sent: u8,
    /// Of these, those without an answer.
    pub lost: u8,
    /// Bytes of the greatest IP packet that gets there over the underlay; `None` before that is known.
    pub mtu: Option<u16>,
    /// It is better to go another way: nothing gets there, or has not again for long enough to be relied on. That is five
    /// probes in a row, and twice as many each time the path comes and goes.
    pub blocked: bool,
    /// Packets whose checksums are left to the devices on the way arrive; `None` before that is known.
    pub offload: Option<bool>,
}

/// A peer, and the network whose tunnel probes go through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathTarget {
    /// Underlay address of the peer, which names the path.
    pub vtep: IpAddr,
    /// Underlay address of this host.
    pub local: IpAddr,
    /// UDP port of the peer's VXLAN.
    pub port: u16,
    /// A network that both are in.
    pub vni: Vni,
    /// The peer's end of the tunnel.
    pub mac: MacAddr,
    /// This host's end of the tunnel.
    pub source_mac: MacAddr,
    /// The peer's gateway in that network.
    pub gateway: Ipv4Addr,
    /// This host's gateway in that network.
    pub source: Ipv4Addr,
    /// Bytes of the greatest IP packet that this host's link to the underlay takes.
    pub most: u16,
}

impl PathTarget {
    /// The peers of all segments, each once, over an underlay whose link takes IP packets of `most` bytes.
    #[must_use]
    pub fn of(state: &HostState, most: u16) -> Vec<Self> {
        let mut targets = BTreeMap::new();
        for segment in &state.segments {
            let own = segment.blocks.iter().copied().find_map(segment::v4);
            let (Some(vxlan), Some(own)) = (&segment.vxlan, own) else {
                continue;
            };
            if vxlan.carrier != Carrier::Vxlan {
                continue;
            }
            for peer in &segment.peers {
                let Some(block) = segment::v4(peer.block) else {
                    continue;
                };
                targets.entry(peer.vtep).or_insert_with(|| Self {
                    vtep: peer.vtep,
                    local: vxlan.local,
                    port: vxlan.port,
                    vni: vxlan.vni,
                    mac: peer.mac,
                    source_mac: vxlan.mac,
                    gateway: gateway_of(block),
                    source: gateway_of(own),
                    most,
                });
            }
        }
        targets.into_values().collect()
    }
}

/// What is known of all peers, by their underlay addresses.
pub type PathStates = Arc<BTreeMap<IpAddr, PathState>>;

/// Probes the ways to peers for as long as it lives.
#[derive(Debug)]
pub struct Paths {
    aim: mpsc::Sender<Vec<PathTarget>>,
    states: watch::Receiver<PathStates>,
    /// MTUs that were found before this began.
    known: BTreeMap<IpAddr, u16>,
    /// Peers that were blocked before this began.
    blocked: BTreeSet<IpAddr>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// Why paths cannot be probed.
#[derive(Debug, thiserror::Error)]
#[error("open a raw socket for echo replies: this needs CAP_NET_RAW")]
pub struct OpenPathsError(#[from] io::Error);

impl Paths {
    /// Begins in the calling thread's network namespace, with no targets. `known` are MTUs that were found before, and
    /// `blocked` those peers that were.
    ///
    /// # Errors
    ///
    /// If the kernel gives no raw socket.
    pub fn open(
        known: BTreeMap<IpAddr, u16>,
        blocked: BTreeSet<IpAddr>,
    ) -> Result<Self, OpenPathsError> {
        let sockets = Sockets::open()?;
        let (aim, aims) = mpsc::channel(AIMS);
        let (report, states) = watch::channel(PathStates::default());
        let (reachable, asked) = watch::channel(Vec::new());
        let (found, checksums) = watch::channel(checksum::Found::new());
        let cookie = cookie();
        let prober = Prober {
            sockets,
            cookie,
            reachable,
            checksums,
            known: known.clone(),
            blocked: blocked.clone(),
            peers: BTreeMap::new(),
            report,
        };
        Ok(Self {
            aim,
            states,
            known,
            blocked,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(prober.run(aims))),
                AbortOnDropHandle::new(tokio::spawn(checksum::run(cookie, asked, found))),
            ],
        })
    }

    /// Probes these from now on, and no others. What is known of those that stay is kept.
    pub async fn aim(&self, targets: Vec<PathTarget>) {
        // The task ends only with this.
        let _ = self.aim.send(targets).await;
    }

    /// Bytes of the greatest IP packet that gets to `vtep`, as far as that is known, if only from before.
    #[must_use]
    pub fn mtu(&self, vtep: IpAddr) -> Option<u16> {
        let now = self.states.borrow().get(&vtep).and_then(|state| state.mtu);
        now.or_else(|| self.known_before(vtep))
    }

    /// The same, as it was found before this began.
    #[must_use]
    pub fn known_before(&self, vtep: IpAddr) -> Option<u16> {
        self.known.get(&vtep).copied()
    }

    /// Whether it is better to go another way to `vtep`, as far as that is known, if only from before.
    #[must_use]
    pub fn is_blocked(&self, vtep: IpAddr) -> bool {
        let now = self.states.borrow().get(&vtep).map(|state| state.blocked);
        now.unwrap_or_else(|| self.blocked.contains(&vtep))
    }

    /// Whether packets whose checksums are left to devices arrive at `vtep`, as far as that is known.
    #[must_use]
    pub fn offload(&self, vtep: IpAddr) -> Option<bool> {
        let states = self.states.borrow();
        states.get(&vtep).and_then(|state| state.offload)
    }

    /// What is known. Only whether a peer is reachable and blocked, its MTU and its checksums, and peers that come and go count as a change.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<PathStates> {
        self.states.clone()
    }
}

/// By chance, so that neither a former process's probes nor another host's are taken for ours.
fn cookie() -> Cookie {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new()
        .hash_one(std::process::id())
        .to_ne_bytes()
}

struct Peer {
    target: PathTarget,
    judge: Judge,
}

struct Prober {
    sockets: Sockets,
    cookie: Cookie,
    /// Peers that can be asked whether checksums arrive, and what they said.
    reachable: watch::Sender<Vec<PathTarget>>,
    checksums: watch::Receiver<checksum::Found>,
    known: BTreeMap<IpAddr, u16>,
    blocked: BTreeSet<IpAddr>,
    peers: BTreeMap<IpAddr, Peer>,
    report: watch::Sender<PathStates>,
}

impl Prober {
    async fn run(mut self, mut aims: mpsc::Receiver<Vec<PathTarget>>) {
        /// Nothing is to be done before the next aim.
        const IDLE: Duration = Duration::from_secs(3600);
        loop {
            let wake = self.peers.values().map(|peer| peer.judge.wake()).min();
            let wake = wake.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                aim = aims.recv() => match aim {
                    Some(targets) => self.aim(targets),
                    None => return,
                },
                answer = self.sockets.answer(self.cookie) => match answer {
                    Ok((from, sequence)) => self.answered(from, sequence),
                    Err(error) => {
                        tracing::warn!(%error, "receive echo replies");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
                Ok(()) = self.checksums.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
            self.tick().await;
            self.ask();
            self.tell();
        }
    }

    fn aim(&mut self, targets: Vec<PathTarget>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.peers);
        for target in targets {
            let peer = match before.remove(&target.vtep) {
                Some(mut peer) => {
                    peer.judge.set_most(target.most, now);
                    Peer { target, ..peer }
                }
                None => {
                    let known = self.known.get(&target.vtep).copied();
                    let mut judge = Judge::new(least(target.vtep), target.most, known, now);
                    judge.set_blocked(self.blocked.contains(&target.vtep));
                    Peer { target, judge }
                }
            };
            self.peers.insert(peer.target.vtep, peer);
        }
        let locals = self.peers.values().map(|peer| peer.target.local).collect();
        self.sockets.keep(&locals);
    }

    fn answered(&mut self, from: Ipv4Addr, sequence: u16) {
        let now = Instant::now();
        let mut peers = self.peers.values_mut();
        if let Some(peer) = peers.find(|peer| peer.target.gateway == from) {
            peer.judge.answered(sequence, now);
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        for peer in self.peers.values_mut() {
            for send in peer.judge.tick(now) {
                let packet = packet::request(&peer.target, send.size, send.sequence, self.cookie);
                if let Err(error) = self.sockets.send(&peer.target, &packet).await {
                    tracing::debug!(vtep = %peer.target.vtep, size = send.size, %error, "probe");
                    peer.judge.unsent(send.sequence, now);
                }
            }
        }
    }

    /// Has those that are reachable now asked whether checksums arrive.
    fn ask(&self) {
        let peers = self.peers.values();
        let reachable = peers.filter(|peer| peer.judge.state().reachable == Some(true));
        let reachable: Vec<_> = reachable.map(|peer| peer.target.clone()).collect();
        self.reachable.send_if_modified(|before| {
            let changed = *before != reachable;
            *before = reachable;
            changed
        });
    }

    fn tell(&mut self) {
        let checksums = self.checksums.borrow_and_update().clone();
        let states = self.peers.iter();
        let states: BTreeMap<_, _> = states
            .map(|(vtep, peer)| {
                let offload = checksums.get(vtep).copied();
                let state = peer.judge.state();
                (*vtep, PathState { offload, ..state })
            })
            .collect();
        self.report.send_if_modified(|before| {
            if **before == states {
                return false;
            }
            let essence = |states: &BTreeMap<IpAddr, PathState>| {
                let states = states.iter();
                states
                    .map(|(vtep, state)| {
                        let PathState {
                            reachable,
                            mtu,
                            blocked,
                            offload,
                            ..
                        } = *state;
                        (*vtep, reachable, mtu, blocked, offload)
                    })
                    .collect::<Vec<_>>()
            };
            let changed = essence(before) != essence(&states);
            *before = Arc::new(states);
            changed
        });
    }
}
