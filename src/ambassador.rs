//! `nuncio ambassador`: a forwarder, on its own or as the one of a host that the daemon directs.

mod admin;
mod check;
mod flags;
mod handover;
mod member;
mod services;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use nuncio_ambassador::{
    AccessLog, Ambassador, Control, FlowFilter, Options, Resolver, Successors,
};
use nuncio_registry::{ConnectOptions, Mirror, Registry};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use admin::Admin;
use flags::AmbassadorCommand;
use signals::{Signals, Told};

pub(crate) use flags::AmbassadorArgs;

/// How long the end may wait for the access log.
const LAST_RECORDS: Duration = Duration::from_secs(2);
/// Between two attempts to serve what could not be served at first, as a port that somebody has.
const RETRY: Duration = Duration::from_secs(2);

/// Forwards until told to end.
///
/// The ambassador of a host is given what its admin side serves besides; it is told there what to forward.
///
/// # Errors
///
/// What keeps it from beginning.
pub(crate) async fn run(args: AmbassadorArgs, of_host: Option<Router>) -> anyhow::Result<u8> {
    if let Some(AmbassadorCommand::Check(args)) = &args.command {
        return check::run(args).await;
    }
    let mut signals = Signals::catch().context("catch signals")?;
    let mirror = follow(&args).await?;
    let resolver = match &mirror {
        Some(mirror) => services::with_services(Resolver::new(), mirror.catalog()),
        None => Resolver::new(),
    };
    let control = Arc::new(Control::new(
        Arc::new(Ambassador::new(Options::default())),
        resolver,
    ));
    let log = open_log(&args)?;
    if let Some(log) = &log {
        control.ambassador().log_flows(log.clone());
    }
    let (admin, successors, missing) = begin(&args, &control, of_host).await?;
    for bound in control.ambassador().listeners() {
        info!(forward = %bound.name, listen = %bound.local, "ready");
    }
    let retry = AbortOnDropHandle::new(tokio::spawn(retry(Arc::clone(&control), missing)));
    forward(&args, &control, successors, &mut signals, log.as_ref()).await;
    drop(retry);
    drain(&control, args.drain, &mut signals).await;
    if let Some(log) = log {
        finish(&control, &log).await;
    }
    if let Some(admin) = admin {
        admin.end();
    }
    if let Some(mirror) = mirror {
        mirror.stop().await;
    }
    Ok(0)
}

/// Serves the forwards and the admin side, in the place of a predecessor if there is one. Returns who may take its own
/// place, and whether some of the forwards cannot be served yet.
async fn begin(
    args: &AmbassadorArgs,
    control: &Arc<Control>,
    of_host: Option<Router>,
) -> anyhow::Result<(Option<Admin>, Option<Successors>, bool)> {
    let predecessor = args.upgrade_from.as_deref();
    let Some(mut heritage) = handover::claim(predecessor).await? else {
        let is_told = of_host.is_some();
        // bound before anything is forwarded: whoever asks finds it not ready, rather than nobody
        let admin = serve_admin(args, control, of_host).await?;
        let missing = !is_told && serve_available(args, control).await?;
        // those who ask a host's ambassador for names would find them answered by nobody
        let address = args.admin.as_ref().filter(|_| !is_told);
        return Ok((admin, handover::successors(address), missing));
    };
    control.ambassador().inherit(&mut heritage);
    control.put(args.forwards()?).await?;
    // not before: should this process fail, its predecessor is still asked
    let admin = serve_admin(args, control, of_host).await?;
    let successors = handover::successors(args.admin.as_ref());
    handover::take_over(heritage).await;
    Ok((admin, successors, false))
}

/// Serves what can be served. If that is nothing, it is an error; else what is missing is told, and that it is.
async fn serve_available(args: &AmbassadorArgs, control: &Control) -> anyhow::Result<bool> {
    let mut unavailable = control.put_available(args.forwards()?).await?;
    if control.ambassador().listeners().is_empty() && !unavailable.is_empty() {
        return Err(unavailable.swap_remove(0).error.into());
    }
    let missing = !unavailable.is_empty();
    for one in unavailable {
        let error = anyhow::Error::from(one.error);
        error!(forward = %one.forward, error = %format!("{error:#}"), "not served yet, and tried again");
    }
    Ok(missing)
}

/// Tries again what could not be served, until it can.
async fn retry(control: Arc<Control>, mut missing: bool) {
    while missing {
        tokio::time::sleep(RETRY).await;
        // A configuration that was read meanwhile is a whole one: then nothing is missing.
        match control.put_available(control.specs().await).await {
            Ok(unavailable) => missing = !unavailable.is_empty(),
            Err(error) => {
                let error = anyhow::Error::from(error);
                debug!(error = format!("{error:#}"), "try again what is not served");
            }
        }
    }
}

async fn serve_admin(
    args: &AmbassadorArgs,
    control: &Arc<Control>,
    of_host: Option<Router>,
) -> anyhow::Result<Option<Admin>> {
    let Some(address) = &args.admin else {
        return Ok(None);
    };
    let predecessor = args.upgrade_from.as_deref();
    let admin = Admin::bind(address, control.clone(), of_host, predecessor);
    Ok(Some(admin.await?))
}

/// Serves until told to end, or until a successor does.
async fn forward(
    args: &AmbassadorArgs,
    control: &Control,
    successors: Option<Successors>,
    signals: &mut Signals,
    log: Option<&AccessLog>,
) {
    let replaced = handover::replaced(successors.as_ref(), control.ambassador());
    tokio::pin!(replaced);
    loop {
        tokio::select! {
            () = &mut replaced => {
                info!("a successor has taken over");
                return;
            }
            told = signals.next() => match told {
                Told::End => return,
                Told::Reload => reload(args, control, log).await,
            }
        }
    }
}

fn open_log(args: &AmbassadorArgs) -> anyhow::Result<Option<AccessLog>> {
    let Some(path) = &args.access_log else {
        return Ok(None);
    };
    let log = AccessLog::open(path, args.access_log_format.into());
    log.with_context(|| format!("open --access-log {}", path.display()))
        .map(Some)
}

/// Ends what is left, for it is to be in the log too, and sees the log written.
async fn finish(control: &Control, log: &AccessLog) {
    let ambassador = control.ambassador();
    ambassador.end_flows(&FlowFilter::default());
    let ended = tokio::time::timeout(LAST_RECORDS, ambassador.idle()).await;
    if ended.is_err() || !log.flush(LAST_RECORDS).await {
        warn!("the last records of the access log are not written: it takes too long");
    }
}

/// Keeps a catalog of the registry, if there is one to ask: that of the flags, or of the mesh that this host is in.
async fn follow(args: &AmbassadorArgs) -> anyhow::Result<Option<Mirror>> {
    let member = args.data_root.as_deref().map(member::Member::open);
    let member = member.transpose()?;
    let endpoints = match (&args.registry[..], &member) {
        ([], None) => return Ok(None),
        ([], Some(member)) => vec![member.registry_url()],
        (urls, _) => urls.to_vec(),
    };
    if member.is_some() && endpoints.len() > 1 {
        anyhow::bail!(
            "--registry with --data-root: a mesh keeps its registry in one place; give that alone, or none"
        );
    }
    let options = ConnectOptions {
        endpoints,
        tls: args.registry_access.tls(),
        user: args.registry_access.user()?,
        dialer: member.map(member::Member::dialer),
        ..ConnectOptions::default()
    };
    let registry = Registry::connect(&options).await?;
    Ok(Some(Mirror::start(registry, None)))
}

/// Reads the file again. If it is wrong, what runs goes on.
async fn reload(args: &AmbassadorArgs, control: &Control, log: Option<&AccessLog>) {
    if let Some(log) = log {
        log.reopen();
    }
    if args.config.is_none() && log.is_some() {
        return;
    }
    if args.config.is_none() {
        warn!("SIGHUP: there is no file to read again, for --config is not given");
        return;
    }
    let applied = async { anyhow::Ok(control.put(args.forwards()?).await?) };
    match applied.await {
        Ok(()) => info!("read the configuration again"),
        Err(error) => warn!("the configuration is not taken, and what ran goes on: {error:#}"),
    }
}

/// Serves on until nobody is left, the time is over, or a second signal comes.
async fn drain(control: &Control, grace: Duration, signals: &mut Signals) {
    let ambassador = control.ambassador();
    ambassador.unready();
    info!(
        flows = ambassador.flows().len(),
        ?grace,
        "ending as soon as no flow is left"
    );
    let deadline = tokio::time::sleep(grace);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = ambassador.idle() => return,
            () = &mut deadline => {
                warn!(flows = ambassador.flows().len(), "the time is over");
                return;
            }
            told = signals.next() => if let Told::End = told {
                warn!(flows = ambassador.flows().len(), "told twice");
                return;
            }
        }
    }
}
