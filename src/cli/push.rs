//! `push`.

use anyhow::bail;
use clap::Args;

use super::output::line;
use super::parse::Reference;
use super::pull::{Progress, authorized, show};
use super::rare_flags::trusts;
use crate::client::Client;

/// Flags of `push`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio tag app localhost:5000/team/app:1.2
  nuncio push localhost:5000/team/app:1.2
  nuncio push -a localhost:5000/team/app")]
pub(super) struct PushArgs {
    /// Push all tags that the repository has here
    #[arg(short, long)]
    all_tags: bool,

    /// Print nothing but the name of the image
    #[arg(short, long)]
    quiet: bool,

    /// OS and architecture, as linux/amd64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    /// Taken for old scripts' sake: nothing is signed
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    disable_content_trust: bool,

    #[arg(value_name = "NAME[:TAG]")]
    image: Reference,
}

/// Sends an image to the registry of its name.
pub(super) async fn run(args: PushArgs, client: &Client) -> anyhow::Result<u8> {
    let image = &args.image;
    trusts(args.disable_content_trust)?;
    let tag = match (args.all_tags, image.tag()) {
        (true, Some(_)) => bail!("tag can't be used with --all-tags/-a"),
        (true, None) => None,
        (false, Some(tag)) => Some(tag),
        (false, None) => {
            if image.is_name_only() && !args.quiet {
                line("Using default tag: latest")?;
            }
            Some("latest")
        }
    };
    let call = client
        .post(&format!("/images/{}/push", image.familiar_name()))
        .optional("tag", tag);
    let call = authorized(call, image)?;
    let progress = if args.quiet {
        Progress::None
    } else {
        Progress::Stdout
    };
    show(call.send().await?.lines(), progress).await?;
    if args.quiet {
        match tag {
            Some(tag) => line(&format!("{}:{tag}", image.repository()))?,
            None => line(&image.repository())?,
        }
    }
    Ok(0)
}
