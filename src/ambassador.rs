//! `nuncio ambassador`: forwards TCP and UDP, alone beside containers or as a host's ambassador under its daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use clap::Args;
use nuncio_ambassador::{
    Ambassador, Control, EndpointSet, ForwardSpec, Options, RelayMode, Resolver, admin, spec,
};
use nuncio_overlay::{NameServer, NamesDocument};
use nuncio_registry::{Catalog, ConnectOptions, Mirror, Registry};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

const EXAMPLES: &str = "\
Examples:
  As in Docker's ambassador containers, from the environment:
    REDIS_PORT_6379_TCP=tcp://10.0.0.1:6379 nuncio ambassador
  Beside anything, by hand:
    nuncio ambassador --listen tcp://127.0.0.1:6379 --to tcp://10.0.0.1:6379,tcp://10.0.0.2:6379
  To whatever offers a service now:
    nuncio ambassador --registry http://10.0.0.1:2379 --listen tcp://:6379 --to service://redis";

/// Flags of `nuncio ambassador`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AmbassadorArgs {
    /// Forward PORT to the same port of HOST
    #[arg(num_args = 2, value_names = ["HOST", "PORT"], conflicts_with_all = ["listen", "config"])]
    host_port: Vec<String>,

    /// Where newcomers arrive
    #[arg(long, value_name = "tcp|udp://[ADDR]:PORT", requires = "to")]
    listen: Option<String>,

    /// Where they are sent
    #[arg(
        long,
        value_name = "tcp|udp://HOST:PORT,.. | service://NAME[:PORT]",
        requires = "listen"
    )]
    to: Option<String>,

    /// Read forwards from a TOML file; SIGHUP reads it again
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    config: Option<PathBuf>,

    /// How TCP is carried: copied through user space, spliced in the kernel, or whichever suits
    #[arg(long, value_enum, default_value = "auto")]
    mode: Mode,

    /// Serve /metrics, /ready, /flows and /config
    #[arg(long, value_name = "ADDR:PORT|unix://PATH")]
    admin: Option<String>,

    /// Registry to find services in
    #[arg(long, value_name = "URL,..", value_delimiter = ',')]
    registry: Vec<String>,

    /// Seconds to let open flows end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,

    /// Serve names too, and begin with nothing to forward: a host's ambassador, told all by its daemon
    #[arg(long, hide = true, requires = "admin")]
    names: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Mode {
    Auto,
    Copy,
    Splice,
}

/// Forwards until SIGTERM, then until idle or the drain is over; a second signal ends it at once.
///
/// # Errors
///
/// What kept it from starting.
pub(crate) async fn run(args: AmbassadorArgs) -> anyhow::Result<()> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut hup = signal(SignalKind::hangup())?;
    let resolver = match args.registry.as_slice() {
        [] => Resolver::new(),
        urls => services(urls).await?,
    };
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let control = Arc::new(Control::new(Arc::clone(&ambassador), resolver));
    let specs = specs(&args)?;
    if !specs.is_empty() {
        control.put(specs).await?;
    }
    if let Some(admin) = &args.admin {
        serve_admin(admin, &control, args.names).await?;
    }
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => reload(&args, &control).await,
        }
    }
    ambassador.unready();
    info!("ending when idle, within {} s", args.drain);
    tokio::select! {
        () = ambassador.idle() => {}
        () = tokio::time::sleep(Duration::from_secs(args.drain)) => warn!("open flows are cut off"),
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// What the arguments, the file or the environment ask for.
fn specs(args: &AmbassadorArgs) -> anyhow::Result<Vec<ForwardSpec>> {
    let mut specs = match (
        &args.listen,
        &args.to,
        &args.config,
        args.host_port.as_slice(),
    ) {
        (Some(listen), Some(to), ..) => vec![spec::from_urls(listen, to)?],
        (_, _, Some(file), _) => spec::from_file(file)?,
        (_, _, _, [host, port]) => vec![spec::from_host_port(host, port)?],
        _ if args.names => Vec::new(),
        _ => {
            let variables = std::env::vars_os();
            let text = variables.filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            });
            let found = spec::from_env(text)?;
            for warning in &found.warnings {
                warn!("{warning}");
            }
            found.forwards
        }
    };
    let mode = match args.mode {
        Mode::Auto => return Ok(specs),
        Mode::Copy => RelayMode::Copy,
        Mode::Splice => RelayMode::Splice,
    };
    for spec in &mut specs {
        spec.limits.mode = mode;
    }
    Ok(specs)
}

async fn reload(args: &AmbassadorArgs, control: &Control) {
    if args.config.is_none() {
        info!("nothing to read again: there is no --config");
        return;
    }
    let applied = match specs(args) {
        Ok(specs) => control.put(specs).await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match applied {
        Ok(()) => info!("read the configuration again"),
        Err(error) => error!(
            error = format!("{error:#}"),
            "the configuration stays as it was"
        ),
    }
}

/// A resolver that knows the registry's services.
async fn services(urls: &[String]) -> anyhow::Result<Resolver> {
    let options = ConnectOptions {
        endpoints: urls.to_vec(),
        ..ConnectOptions::default()
    };
    let registry = Registry::connect(&options)
        .await
        .context("cannot reach the registry: check --registry")?;
    let mirror = Mirror::start(registry, None);
    let catalog = mirror.catalog();
    // The mirror lives as long as the process, which is as long as anything can ask it.
    std::mem::forget(mirror);
    Ok(Resolver::new()
        .with_services(move |name, port| Ok(follow(name.to_owned(), port, catalog.clone()))))
}

fn follow(
    name: String,
    port: Option<u16>,
    mut catalog: watch::Receiver<Arc<Catalog>>,
) -> watch::Receiver<Arc<EndpointSet>> {
    let (sets, receiver) = watch::channel(Arc::new(EndpointSet::default()));
    tokio::spawn(async move {
        loop {
            let upstreams = catalog.borrow_and_update().upstreams(&name, port);
            let addresses = upstreams
                .iter()
                .filter_map(|upstream| upstream.to_string().parse().ok())
                .collect();
            let next = Arc::new(EndpointSet::known(addresses));
            sets.send_if_modified(|set| {
                let changed = **set != *next;
                *set = next;
                changed
            });
            tokio::select! {
                changed = catalog.changed() => if changed.is_err() { return },
                () = sets.closed() => return,
            }
        }
    });
    receiver
}

async fn serve_admin(address: &str, control: &Arc<Control>, names: bool) -> anyhow::Result<()> {
    let mut router = admin::router(Arc::clone(control));
    if names {
        let server = Arc::new(NameServer::new());
        router = router.route(
            "/names",
            put(move |document| put_names(Arc::clone(&server), document)),
        );
    }
    let context = || format!("serve --admin {address}");
    match address.strip_prefix("unix://") {
        Some(path) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!("{path} is served by another process: stop it, or give another --admin");
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(context);
                }
                _ => {}
            }
            let socket = UnixListener::bind(path).with_context(context)?;
            spawn(axum::serve(socket, router).into_future());
        }
        None => {
            let socket = TcpListener::bind(address).await.with_context(context)?;
            spawn(axum::serve(socket, router).into_future());
        }
    }
    Ok(())
}

fn spawn(serving: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            error!(%error, "the admin listener has ended");
        }
    });
}

async fn put_names(server: Arc<NameServer>, Json(document): Json<NamesDocument>) -> Response {
    match server.apply(document).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let message = format!("{:#}", anyhow::Error::from(error));
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                Json(serde_json::json!({ "message": message })),
            )
                .into_response()
        }
    }
}
