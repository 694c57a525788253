//! `registry migrate`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nuncio_registry::{ConnectOptions, Registry, TlsFiles};

use super::daemon::{RegistryAccess, RegistryChoice};
use super::line;

/// How long each call to either registry may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `nuncio registry migrate`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio registry migrate --from http://10.0.0.1:2379 --to http://10.0.1.1:2379,http://10.0.1.2:2379,http://10.0.1.3:2379

Both must run meanwhile. Daemons follow by themselves, with the certificates and the user they were started with; one that lacks
these goes on with what it knows until it is started again with --registry and what the target asks for. A daemon that is
started anew follows as long as the source is there: give it the target as --registry before that is removed. If this is
interrupted, run it again.")]
pub(super) struct MigrateArgs {
    /// Where it is now: the URLs of an etcd's members, or of a daemon that embeds it
    #[arg(long, value_name = "URL[,URL]")]
    from: RegistryChoice,

    /// Where it is to be, as hosts reach it; a daemon that embeds one must run there
    #[arg(long, value_name = "URL[,URL]")]
    to: RegistryChoice,

    /// Replace what the target holds of nuncio
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    access: RegistryAccess,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<u8> {
    let (from, to) = (urls(&args.from, "--from")?, urls(&args.to, "--to")?);
    let source = connect(&from, &args.access).await.context("--from")?;
    let target = connect(&to, &args.access).await.context("--to")?;
    let migrated = source.migrate(&target, &to, args.force).await?;
    let to = to.join(",");
    match migrated.already {
        true => line(&format!("{to} has it already: {} keys", migrated.keys))?,
        false => line(&format!("{} keys moved to {to}", migrated.keys))?,
    }
    Ok(0)
}

fn urls(choice: &RegistryChoice, flag: &str) -> anyhow::Result<Vec<String>> {
    match choice {
        RegistryChoice::Urls(urls) => Ok(urls.clone()),
        RegistryChoice::Embedded => bail!(
            "{flag} embedded does not say whose: give the URL of the daemon that embeds it, as http://10.0.0.1:2379"
        ),
    }
}

/// Certificates are for the one of the two that asks for them.
async fn connect(urls: &[String], access: &RegistryAccess) -> anyhow::Result<Registry> {
    let plain = urls.iter().all(|url| !url.starts_with("https://"));
    let options = ConnectOptions {
        endpoints: urls.to_vec(),
        timeout: TIMEOUT,
        tls: match plain {
            true => TlsFiles::default(),
            false => access.tls(),
        },
        user: access.user()?,
        dialer: None,
    };
    Ok(Registry::connect_here(&options).await?)
}
