//! `pull`, and the progress of whatever fetches layers.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use anyhow::bail;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;

use super::credentials::{Credentials, server_of};
use super::output::{line, warn};
use super::parse::Reference;
use super::rare_flags::trusts;
use crate::client::{Call, Client, Lines};

/// Flags of `pull`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio pull redis
  nuncio pull localhost:5000/team/app:1.2")]
pub(super) struct PullArgs {
    /// Fetch all tags that the repository has
    #[arg(short, long)]
    all_tags: bool,

    /// Print nothing but the name of the image
    #[arg(short, long)]
    quiet: bool,

    /// Taken for old scripts' sake: nothing is signed
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    disable_content_trust: bool,

    /// OS and architecture, as linux/amd64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    image: Reference,
}

/// Pulls an image and prints its name in full.
pub(super) async fn run(args: PullArgs, client: &Client) -> anyhow::Result<u8> {
    let image = &args.image;
    trusts(args.disable_content_trust)?;
    if args.all_tags && !image.is_name_only() {
        bail!("tag can't be used with --all-tags/-a");
    }
    if !args.quiet && !args.all_tags && image.is_name_only() {
        line("Using default tag: latest")?;
    }
    let progress = if args.quiet {
        Progress::None
    } else {
        Progress::Stdout
    };
    let tag = (!args.all_tags).then(|| image.tag_or_digest());
    fetch(client, image, tag, args.platform.as_deref(), progress).await?;
    if args.all_tags {
        line(&image.repository())?;
        return Ok(0);
    }
    let mark = if image.tag_or_digest().contains(':') {
        '@'
    } else {
        ':'
    };
    line(&format!(
        "{}{mark}{}",
        image.repository(),
        image.tag_or_digest()
    ))?;
    Ok(0)
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    None,
    Stdout,
    Stderr,
}

/// Pulls an image.
///
/// # Errors
///
/// The daemon's words if it cannot.
pub(super) async fn pull(
    client: &Client,
    image: &Reference,
    platform: Option<&str>,
    progress: Progress,
) -> anyhow::Result<()> {
    let tag = Some(image.tag_or_digest());
    fetch(client, image, tag, platform, progress).await
}

/// Without a tag, all that the repository has.
async fn fetch(
    client: &Client,
    image: &Reference,
    tag: Option<&str>,
    platform: Option<&str>,
    progress: Progress,
) -> anyhow::Result<()> {
    let call = client
        .post("/images/create")
        .query("fromImage", image.repository())
        .optional("tag", tag)
        .optional("platform", platform);
    let call = authorized(call, image)?;
    show(call.send().await?.lines(), progress).await
}

/// The call with the account at the image's registry, if there is one.
///
/// # Errors
///
/// A configuration that cannot be read, or a credential helper that fails.
pub(super) fn authorized<'a>(call: Call<'a>, image: &Reference) -> anyhow::Result<Call<'a>> {
    let repository = image.repository();
    let server = server_of(repository.split('/').next().unwrap_or_default());
    Ok(match Credentials::load()?.get(server)? {
        Some(account) => call.secret_header("x-registry-auth", account.header(server)),
        // no credentials, as Docker's client says it
        None => call.header("x-registry-auth", "e30="),
    })
}

/// One line of a stream of progress.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    id: Option<String>,
    status: Option<String>,
    stream: Option<String>,
    error: Option<String>,
    #[serde(rename = "progressDetail")]
    detail: Option<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: Option<u64>,
    total: Option<u64>,
}

/// Shows a stream of progress to its end.
///
/// # Errors
///
/// The error that stands in the stream, or what breaks it.
pub(super) async fn show(mut lines: Lines, progress: Progress) -> anyhow::Result<()> {
    let mut display = Display::new(progress);
    while let Some(event) = lines.next_json::<Event>().await? {
        if let Some(error) = event.error {
            display.finish();
            bail!("Error response from daemon: {error}");
        }
        display.show(&event)?;
    }
    display.finish();
    Ok(())
}

enum Display {
    None,
    /// A bar for each layer.
    Bars {
        all: MultiProgress,
        layers: HashMap<String, ProgressBar>,
        to: Progress,
    },
    /// A line whenever the state of a layer changes.
    Lines {
        seen: HashMap<String, String>,
        to: Progress,
    },
}

impl Display {
    fn new(progress: Progress) -> Self {
        let (is_terminal, target) = match progress {
            Progress::None => return Self::None,
            Progress::Stdout => (
                std::io::stdout().is_terminal(),
                ProgressDrawTarget::stdout(),
            ),
            Progress::Stderr => (
                std::io::stderr().is_terminal(),
                ProgressDrawTarget::stderr(),
            ),
        };
        if is_terminal {
            let all = MultiProgress::with_draw_target(target);
            Self::Bars {
                all,
                layers: HashMap::new(),
                to: progress,
            }
        } else {
            Self::Lines {
                seen: HashMap::new(),
                to: progress,
            }
        }
    }

    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        let text = event
            .status
            .as_deref()
            .or(event.stream.as_deref())
            .unwrap_or("")
            .trim_end();
        if text.is_empty() {
            return Ok(());
        }
        let id = event.id.as_deref().filter(|id| !id.is_empty());
        match (self, id) {
            (Self::None, _) => Ok(()),
            (Self::Bars { all, to, .. }, None) => all.suspend(|| print(*to, text)),
            (Self::Lines { to, .. }, None) => print(*to, text),
            (Self::Bars { all, layers, .. }, Some(id)) => {
                let bar = layers
                    .entry(id.to_owned())
                    .or_insert_with(|| all.add(ProgressBar::no_length()));
                update(bar, id, text, event.detail.as_ref());
                Ok(())
            }
            (Self::Lines { seen, to }, Some(id)) => {
                let changed = seen.insert(id.to_owned(), text.to_owned()).as_deref() != Some(text);
                if changed {
                    print(*to, &format!("{id}: {text}"))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Leaves the bars as they are.
    fn finish(&self) {
        if let Self::Bars { layers, .. } = self {
            layers.values().for_each(ProgressBar::abandon);
        }
    }
}

fn update(bar: &ProgressBar, id: &str, text: &str, detail: Option<&Detail>) {
    let detail =
        detail.and_then(|detail| Some((detail.current?, detail.total.filter(|total| *total > 0)?)));
    let template = match detail {
        Some((current, total)) => {
            bar.set_length(total);
            bar.set_position(current);
            "{prefix}: {msg:<12} [{bar:40}] {bytes}/{total_bytes}"
        }
        None => "{prefix}: {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("a template of ours");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(id.to_owned());
    bar.set_message(text.to_owned());
}

fn print(to: Progress, text: &str) -> anyhow::Result<()> {
    if to == Progress::Stdout {
        return line(text);
    }
    warn(text);
    Ok(())
}
