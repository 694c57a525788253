//! The daemon's run: start, serve, keep kernel and registry in step, end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::api_connection::{Caller, Cuttable};
use super::api_tls::{ApiListener, Papers};
use super::outfit::CGROUP_PARENT;
use super::{
    Daemon, api_socket, api_tls, dashboard, drift, map, metrics, orchestrator, state_file, traces,
};
use crate::cli::daemon::DaemonOptions;
use crate::cli::host::Host;

/// How often kernel, ambassador and names are compared with what they should be when nothing changes.
const COMPARE: Duration = Duration::from_secs(30);
/// How often the ambassador is looked after: a dead one is started again.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How often the host's tunnel is asked who is connected by TLS.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// A step of the start that takes longer is told of.
const LONG: Duration = Duration::from_secs(3);
/// How long requests under way may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a host's daemon until SIGTERM or SIGINT. Containers go on without it.
///
/// # Errors
///
/// What kept it from starting: not root, a missing kernel feature, a registry out of reach.
pub(crate) async fn run(options: DaemonOptions) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the daemon makes namespaces and mounts: run it as root");
    }
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    api_tls::check(&options)?;
    let group = api_socket::group(options.group.as_deref())?;
    let registry = CancellationToken::new();
    let daemon = Daemon::open(options, &registry).await?;
    patiently("take over what runs", daemon.take_over()).await?;
    daemon.look_at_fallback().await;
    patiently("bring the host in step", daemon.sync()).await?;
    let metrics = match daemon.options.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let pages = match daemon.options.dashboard {
        Some(address) => Some(daemon.open_dashboard(address).await?),
        None => None,
    };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    serve_api(&daemon, group, &mut tasks, &stop).await?;
    let drift = Arc::new(Notify::new());
    tasks.spawn(drift::watch(Arc::clone(&drift), stop.clone()));
    tasks.spawn(keep_in_step(Arc::clone(&daemon), drift, stop.clone()));
    tasks.spawn(map::sample(Arc::clone(&daemon), stop.clone()));
    tasks.spawn(dashboard::draw(Arc::clone(&daemon), stop.clone()));
    if let Some((listener, gate)) = pages {
        tasks.spawn(dashboard::serve(listener, gate, stop.clone()));
    }
    if let Some(listener) = metrics {
        tasks.spawn(metrics::serve(Arc::clone(&daemon), listener, stop.clone()));
    }
    if daemon.traces.is_some() {
        let client = traces::client().context("make a client for --otlp-endpoint")?;
        tasks.spawn(traces::export(Arc::clone(&daemon), client, stop.clone()));
        tasks.spawn(traces::follow(Arc::clone(&daemon), stop.clone()));
    }
    let (outside, gateways) = (
        Arc::clone(&daemon).look_outside(),
        Arc::clone(&daemon).follow_gateways(),
    );
    let until_ended = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = until_ended.cancelled() => {}
            ((), ()) = async { tokio::join!(outside, gateways) } => {}
        }
    });
    if let Some(listener) = daemon.open_gateway().await? {
        tasks.spawn(Arc::clone(&daemon).serve_gateway(listener, stop.clone()));
    }
    let answers = super::why::answer_questions(Arc::clone(&daemon));
    let until = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            () = answers => {}
        }
    });
    tasks.spawn(orchestrator::run_tasks(Arc::clone(&daemon), stop.clone()));
    tasks.spawn(orchestrator::lead(Arc::clone(&daemon), stop.clone()));
    tasks.spawn(orchestrator::hand_on_sealed(
        Arc::clone(&daemon),
        stop.clone(),
    ));
    let restarts = Arc::clone(&daemon);
    tokio::spawn(async move { restarts.start_with_daemon().await });
    tracing::info!(node = daemon.node.name, address = %daemon.node.address, "ready");
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, ended).await; // streams that never end are cut off
    let left = daemon.leave().await;
    for host in &daemon.options.hosts {
        if let Host::Unix(path) = host {
            state_file::remove(path)?;
        }
    }
    registry.cancel();
    left
}

/// Serves the API wherever it is wanted, once it can be served everywhere.
async fn serve_api(
    daemon: &Arc<Daemon>,
    group: Option<u32>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
    for host in &daemon.options.hosts {
        match host {
            Host::Unix(path) => sockets.push(api_socket::open(path, group)?),
            Host::Tcp { address, .. } => {
                let papers = Papers::choose(daemon.options.tls.as_ref(), daemon.mesh.as_ref())?;
                listeners.push(ApiListener::open(address, papers, stop).await?);
            }
        }
    }
    let service = || {
        let router = crate::api::router(Arc::clone(daemon));
        router.into_make_service_with_connect_info::<Caller>()
    };
    let ended = |served: std::io::Result<()>| {
        if let Err(error) = served {
            tracing::error!(%error, "serve the API");
        }
    };
    for socket in sockets {
        let (service, stop) = (service(), stop.clone());
        let socket = Cuttable(socket);
        let served = axum::serve(socket, service).with_graceful_shutdown(stop.cancelled_owned());
        tasks.spawn(async move { ended(served.await) });
    }
    for listener in listeners {
        let (service, stop) = (service(), stop.clone());
        let listener = Cuttable(listener);
        let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
        tasks.spawn(async move { ended(served.await) });
    }
    if let Some(listener) = daemon.open_peek(stop).await? {
        let router = crate::api::peek_router(Arc::clone(daemon));
        let service = router.into_make_service_with_connect_info::<Caller>();
        let stop = stop.clone();
        let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
        tasks.spawn(async move { ended(served.await) });
    }
    Ok(())
}

/// Does a step of the start, and tells of it when it takes long.
pub(super) async fn patiently<T>(what: &str, step: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut long = interval_at(began + LONG, LONG);
    let mut step = pin!(step);
    let done = loop {
        tokio::select! {
            done = &mut step => break done,
            _ = long.tick() => tracing::warn!(after = ?began.elapsed(), "still not done: {what}"),
        }
    };
    if began.elapsed() >= LONG {
        tracing::warn!(after = ?began.elapsed(), "done: {what}");
    }
    done
}

impl Daemon {
    /// With containers running all stays as it is for the next daemon; else nothing of ours is left behind.
    async fn leave(&self) -> anyhow::Result<()> {
        let running = self
            .containers()
            .iter()
            .filter(|container| container.is_active())
            .count();
        if running > 0 {
            tracing::info!(running, "ending; containers go on");
            return Ok(());
        }
        self.ambassador.end()?;
        self.tunnel.end()?;
        self.kernel
            .lock()
            .await
            .clear()
            .await
            .context("remove links and rules")?;
        nuncio_runtime::remove_cgroup_parent(CGROUP_PARENT);
        tracing::info!("ending; nothing runs");
        Ok(())
    }

    /// Whether the processes that carry for this host are there.
    async fn processes_answer(&self) -> bool {
        self.ambassador.answers().await && (!self.is_tunnelling() || self.tunnel.answers().await)
    }
}

async fn keep_in_step(daemon: Arc<Daemon>, drift: Arc<Notify>, stop: CancellationToken) {
    let mut catalog = daemon.catalog_changes.clone();
    daemon.tell_news();
    let mut paths = daemon.paths.states();
    let mut compare = interval(COMPARE);
    let mut look_after = interval(LOOK_AFTER);
    let mut fallback = interval(LOOK_AROUND);
    compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look_after.set_missed_tick_behavior(MissedTickBehavior::Delay);
    fallback.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = drift.notified() => {}
            changed = catalog.changed() => {
                if changed.is_err() { return }
                daemon.tell_news();
            }
            changed = paths.changed() => {
                if changed.is_err() { return }
                daemon.tell_paths();
            }
            _ = compare.tick() => {
                nuncio_runtime::memory::give_back();
                if let Err(error) = daemon.rotate_old_keys().await {
                    tracing::warn!(error = format!("{error:#}"), "rotate the keys of encrypted networks");
                }
                if let Err(error) = daemon.announce_links().await {
                    tracing::warn!(error = format!("{error:#}"), "tell other hosts of this one's links");
                }
                if let Err(error) = daemon.forget_removed_networks().await {
                    tracing::warn!(error = format!("{error:#}"), "look for removed networks");
                }
            }
            _ = fallback.tick() => if !daemon.look_at_fallback().await { continue },
            _ = look_after.tick() => if daemon.processes_answer().await { continue },
        }
        if let Err(error) = daemon.enter_ingress().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "join the network of published ports"
            );
        }
        // What is known now is what the host is brought in step with, or more.
        let known = daemon.catalog();
        match daemon.sync().await {
            Ok(()) => daemon.acknowledge(&known).await,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "bring the host in step");
            }
        }
        if let Err(error) = daemon.kernel.lock().await.settle().await {
            tracing::warn!(%error, "list the rules");
        }
    }
}
