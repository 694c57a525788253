//! What the dashboard's pages share: one map each second for all of them, and room for so many of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::events::Kind;
use super::map::Parts;
use super::refusal::Refusal;
use super::{Daemon, state_file};
use crate::dashboard::{self, Crossing, Gate, Secret};

/// Pages that are open at once.
const PAGES: usize = 64;
/// Terminals that are open in them.
const TERMINALS: usize = 32;
/// Containers of other hosts that pages look at; each takes two of the connections that another host has room for.
const ELSEWHERE: usize = 16;
/// How old the map is that a page shows.
const EVERY: Duration = Duration::from_secs(1);
/// Between two questions to other hosts.
const ASK: Duration = Duration::from_secs(2);
/// How long what passed in the last hour is not asked for again.
const PAST: Duration = Duration::from_secs(5);
/// Several changes at once are one.
const TOGETHER: Duration = Duration::from_millis(100);
/// Where the token is kept, below the daemon's `--exec-root`.
const SECRET: &str = "dashboard.json";

/// What pages share.
pub(crate) struct Pages {
    room: Arc<Semaphore>,
    terminals: Arc<Semaphore>,
    elsewhere: Arc<Semaphore>,
    /// The last map, as all pages are told of it; none until one was open.
    maps: watch::Sender<Option<Bytes>>,
    opened: Notify,
    /// What other hosts have told of the map.
    pub(super) parts: Mutex<Parts>,
    /// What passed in the last hour, as was told when it was asked last.
    past: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
    /// The address of `--dashboard-addr`, with the token.
    url: OnceLock<String>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(PAGES)),
            terminals: Arc::new(Semaphore::new(TERMINALS)),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE)),
            maps: watch::Sender::new(None),
            opened: Notify::new(),
            parts: Mutex::default(),
            past: tokio::sync::Mutex::default(),
            url: OnceLock::new(),
        }
    }
}

/// A page that is open.
pub(crate) struct Page {
    pub(crate) maps: watch::Receiver<Option<Bytes>>,
    _room: OwnedSemaphorePermit,
}

impl Pages {
    /// Makes room for one more page.
    ///
    /// # Errors
    ///
    /// What its user is to be told if there are too many.
    pub(crate) fn open(&self) -> Result<Page, String> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            format!("{PAGES} pages of this dashboard are open already: close one of them")
        })?;
        let mut maps = self.maps.subscribe();
        maps.mark_changed();
        self.opened.notify_one();
        Ok(Page { maps, _room: room })
    }

    /// Makes room for one more terminal.
    pub(crate) fn open_terminal(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let room = Arc::clone(&self.terminals).try_acquire_owned();
        room.map_err(|_| {
            Refusal::conflict(format!(
                "{TERMINALS} terminals are open in pages already: close one of them"
            ))
        })
    }

    /// Makes room for one more look at a container of another host.
    ///
    /// # Errors
    ///
    /// What the page is to be told if there are too many.
    pub(crate) fn look_elsewhere(&self) -> Result<OwnedSemaphorePermit, String> {
        let room = Arc::clone(&self.elsewhere).try_acquire_owned();
        room.map_err(|_| {
            format!("{ELSEWHERE} containers of other hosts are looked at already: close one of the pages that do")
        })
    }

    /// Where the daemon itself serves the page.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.get().map(String::as_str)
    }
}

/// Draws a map for the pages each second, and when a container begins or ends, for as long as a page is open.
pub(super) async fn draw(daemon: Arc<Daemon>, stop: CancellationToken) {
    let pages = &daemon.pages;
    let (mut asking, mut asked) = (JoinSet::new(), None::<Instant>);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while pages.maps.receiver_count() == 0 {
            pages.maps.send_replace(None);
            tokio::select! {
                () = stop.cancelled() => return,
                () = pages.opened.notified() => {}
            }
        }
        let (_, mut events) = daemon.events.listen();
        let began = Instant::now();
        while asking.try_join_next().is_some() {}
        if asking.is_empty() && asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            asked = Some(began);
            asking.spawn(Arc::clone(&daemon).hear_of_others());
        }
        match daemon.map_of_all().await {
            Ok(map) => drop(
                pages
                    .maps
                    .send_replace(Some(format!("{{\"map\":{map}}}").into())),
            ),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "draw the map"),
        }
        let change = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.kind != Kind::Container => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = change => {}
            () = pages.opened.notified() => {}
            _ = ticks.tick() => {}
        }
        sleep_until(began + TOGETHER).await;
    }
}

impl Daemon {
    /// The map of now, or with what passed in the last hour, as JSON; for all pages together it is asked for once in a while.
    pub(crate) async fn map_for_pages(self: &Arc<Self>, history: bool) -> anyhow::Result<Arc<str>> {
        if !history {
            return Ok(self.map_of_all().await?.to_string().into());
        }
        let mut past = self.pages.past.lock().await;
        if let Some((then, map)) = &*past
            && then.elapsed() < PAST
        {
            return Ok(Arc::clone(map));
        }
        let map: Arc<str> = self.map_of_all_now(true).await?.to_string().into();
        *past = Some((Instant::now(), Arc::clone(&map)));
        Ok(map)
    }

    /// Listens where `--dashboard-addr` says.
    pub(super) async fn open_dashboard(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> anyhow::Result<(TcpListener, Arc<Gate>)> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listen on --dashboard-addr {address}"))?;
        let address = listener.local_addr()?;
        let path = self.options.exec_root.join(SECRET);
        // The next daemon of this host lets in who has the page open now.
        let secret = match state_file::read::<Secret>(&path) {
            Ok(Some(secret)) => secret,
            _ => Secret::new(),
        };
        state_file::write_unsynced(&path, &secret)?;
        let crossing = Crossing::Here(crate::api::router(Arc::clone(self)));
        let exec = self.options.dashboard_exec;
        let gate = Arc::new(Gate::new(secret, exec, crossing, address));
        let _ = self.pages.url.set(gate.url()); // there is one daemon in a process
        tracing::info!(%address, "serving the dashboard; `nuncio dashboard` prints where, with the token");
        Ok((listener, gate))
    }
}

/// Lets browsers in until `stop`.
pub(super) async fn serve(listener: TcpListener, gate: Arc<Gate>, stop: CancellationToken) {
    dashboard::serve(listener, gate, stop).await;
}
