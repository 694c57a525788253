//! Whether packets arrive whose checksums are left to the devices on the way, as the kernel leaves those of containers.
//!
//! Some devices, or what drives them, do not find the checksum of a packet that VXLAN carries, and send it as it is: half
//! computed, so that the other side drops it. Pings get through then, since nobody leaves their checksums to a device, and
//! connections do not. So a peer is sent two packets that differ in nothing else. Both are UDP, to a port at which nobody
//! listens: its kernel says so of whichever arrived whole.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep_until, timeout_at},
};

use super::{PathTarget, checksum_packet as packet, packet::Cookie, sockets::Echoes};
use crate::{
    MacAddr,
    netlink::{FdbRow, Netlink, VxlanSettings},
    sys,
};

/// What the packets go by, for as long as they do: a VXLAN device that leads where the networks' own lead, and leaves
/// checksums to others whatever these do. Its network identifier is no network's.
pub(crate) const LINK: &str = "nx-checksums";
const NO_NETWORK: u32 = 0;
/// Its MTU is of no account: the packets are short.
const MTU: u16 = 1280;

/// How often each kind is sent, and how long its answer is waited for. The peer answers once a second, and six in a row.
const TRIES: u8 = 3;
const TRY: Duration = Duration::from_secs(1);
/// So many of the whole ones have to be answered before the others count as broken.
const ENOUGH: usize = 2;
/// Peers that are asked at the same time.
const AT_ONCE: usize = 16;

/// When a peer is asked again: after it was found broken or could not be asked, and after all was well. One that comes
/// back is asked at once.
const AGAIN: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(3600);

/// Which peers get packets whose checksums are left to devices.
pub(super) type Found = BTreeMap<IpAddr, bool>;

/// Asks those that are `reachable`, until nobody wants to know what is `found`.
pub(super) async fn run(
    cookie: Cookie,
    mut reachable: watch::Receiver<Vec<PathTarget>>,
    found: watch::Sender<Found>,
) {
    let mut due = BTreeMap::<IpAddr, Instant>::new();
    loop {
        let targets = reachable.borrow_and_update().clone();
        due.retain(|vtep, _| targets.iter().any(|target| target.vtep == *vtep));
        let now = Instant::now();
        let is_due = |target: &&PathTarget| due.get(&target.vtep).is_none_or(|at| *at <= now);
        let asked: Vec<_> = targets.iter().filter(is_due).take(AT_ONCE).collect();
        if asked.is_empty() {
            let next = due.values().min().copied();
            let next = next.unwrap_or_else(|| now + SELDOM);
            tokio::select! {
                changed = reachable.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = sleep_until(next.into()) => {}
            }
            continue;
        }
        let told = match ask(&asked, cookie).await {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%error, "try whether checksums can be left to devices");
                Found::new()
            }
        };
        for target in asked {
            let wait = match told.get(&target.vtep) {
                Some(true) => SELDOM,
                Some(false) | None => AGAIN,
            };
            due.insert(target.vtep, Instant::now() + wait);
        }
        found.send_if_modified(|found| {
            let before = found.clone();
            found.extend(told);
            before != *found
        });
    }
}

/// Who got which packets; peers of which that cannot be said are left out.
async fn ask(targets: &[&PathTarget], cookie: Cookie) -> io::Result<Found> {
    let netlink = Netlink::open()?;
    remove(&netlink).await?; // a process that was killed may have left it
    let asked = match add(&netlink, targets).await {
        Ok(link) => exchange(link, targets, cookie).await,
        Err(error) => Err(error),
    };
    remove(&netlink).await?;
    asked
}

async fn remove(netlink: &Netlink) -> io::Result<()> {
    match netlink.link(LINK).await? {
        Some(link) => netlink.delete_link(link.index).await,
        None => Ok(()),
    }
}

/// All peers are of one host, and so reached from one address by one port.
async fn add(netlink: &Netlink, targets: &[&PathTarget]) -> io::Result<u32> {
    let settings = VxlanSettings {
        vni: NO_NETWORK,
        local: targets.first().map(|target| target.local),
        port: targets.first().map_or(0, |target| target.port),
        learning: false,
    };
    let mac = MacAddr::of_node(LINK);
    netlink.add_trial_vxlan(LINK, &settings, mac, MTU).await?;
    let link = netlink.link(LINK).await?.map(|link| link.index);
    let link = link.ok_or(io::ErrorKind::NotFound)?;
    for target in targets {
        let row = FdbRow {
            link,
            mac: target.mac,
            vtep: target.vtep,
        };
        netlink.replace_fdb_into(row, target.vni.value()).await?;
    }
    Ok(link)
}

/// The answers to one kind of packet, by peers.
type Answers = BTreeMap<Ipv4Addr, usize>;

async fn exchange(link: u32, targets: &[&PathTarget], cookie: Cookie) -> io::Result<Found> {
    let echoes = Echoes::open()?;
    let socket = sys::frame_socket(link)?;
    let (mut left, mut whole) = (Answers::new(), Answers::new());
    for attempt in 0..TRIES {
        let waiting = |left: &Answers| {
            let silent = |target: &&&PathTarget| !left.contains_key(&target.gateway);
            targets.iter().filter(silent).copied().collect::<Vec<_>>()
        };
        for target in waiting(&left) {
            for is_left in [true, false] {
                let packet = packet::request(target, is_left, attempt, cookie);
                if let Err(error) = nix::unistd::write(&socket, &packet) {
                    tracing::debug!(vtep = %target.vtep, %error, "packet with a checksum to be tried");
                }
            }
        }
        let end = Instant::now() + TRY;
        while !waiting(&left).is_empty() {
            let answer = echoes.next(|packet| packet::answer(packet, cookie));
            match timeout_at(end.into(), answer).await {
                Ok(Ok((from, true))) => *left.entry(from).or_default() += 1,
                Ok(Ok((from, false))) => *whole.entry(from).or_default() += 1,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
    }
    let verdict = |target: &&PathTarget| {
        let arrives = left.contains_key(&target.gateway);
        let known = arrives || whole.get(&target.gateway).copied().unwrap_or_default() >= ENOUGH;
        known.then_some((target.vtep, arrives))
    };
    Ok(targets.iter().filter_map(verdict).collect())
}
