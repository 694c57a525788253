//! `top`: the processes of a container, or, without one, what all hosts do, on the whole screen.

mod draw;
mod hear;
mod rows;
mod screen;

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use bollard_stubs::models::ContainerTopResponse;
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use self::hear::Hearing;
use self::rows::{Cell, Snapshot, Tab};
use self::screen::{Screen, Then};
use super::output::{line, write_out};
use super::table::table;
use crate::client::Client;

/// Flags of `top`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a container all hosts, containers, links and flows are shown on the whole screen, each second anew; `?` tells
the keys. Without a terminal, or with --once, what is so now is printed.

Examples:
  nuncio top web                      the processes of a container
  nuncio top                          all hosts
  nuncio top --json | jq '.containers[] | select(.cpu > 50) | .name'"
)]
pub(super) struct TopArgs {
    /// Without a container: print what is so now, and end
    #[arg(long, conflicts_with = "container")]
    once: bool,

    /// Without a container: the same as a JSON document
    #[arg(long, conflicts_with = "container")]
    json: bool,

    #[arg(value_name = "CONTAINER")]
    container: Option<String>,

    /// Options for ps
    #[arg(
        value_name = "PS OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

pub(super) async fn run(args: TopArgs, client: &Client) -> anyhow::Result<u8> {
    match &args.container {
        Some(container) => processes(container, &args.options, client).await?,
        None => {
            let both = io::stdin().is_terminal() && io::stdout().is_terminal();
            let mut hearing = Hearing::begin(client).await?;
            if args.json || args.once || !both {
                print(&hearing.once().await, args.json)?;
            } else {
                watch(hearing).await?;
            }
        }
    }
    Ok(0)
}

/// Prints the processes of a container.
async fn processes(container: &str, options: &[String], client: &Client) -> anyhow::Result<()> {
    let options = (!options.is_empty()).then(|| options.join(" "));
    let call = client
        .get(&format!("/containers/{container}/top"))
        .optional("ps_args", options);
    let top: ContainerTopResponse = call.send().await?.json().await?;
    let rows = top.processes.unwrap_or_default();
    write_out(table(&top.titles.unwrap_or_default(), &rows).as_bytes())
}

fn print(snapshot: &Snapshot, json: bool) -> anyhow::Result<()> {
    if json {
        return line(&snapshot.json().to_string());
    }
    for tab in Tab::ALL {
        let titles: Vec<&str> = tab.columns().iter().map(|(_, title)| *title).collect();
        let rows = snapshot.rows(tab).into_iter();
        let rows: Vec<Vec<String>> = rows
            .map(|row| {
                row.cells
                    .iter()
                    .map(|cell| Cell::shown(cell).to_owned())
                    .collect()
            })
            .collect();
        line(tab.title())?;
        write_out(table(&titles, &rows).as_bytes())?;
        line("")?;
    }
    Ok(())
}

/// Shows it until somebody has seen enough.
async fn watch(mut hearing: Hearing) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("use the whole screen")?;
    let shown = show(&mut terminal, &mut hearing).await;
    let restored = ratatui::try_restore().context("give the screen back");
    shown.and(restored)
}

async fn show(terminal: &mut DefaultTerminal, hearing: &mut Hearing) -> anyhow::Result<()> {
    let mut screen = Screen::new();
    let mut keys = read_keys();
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        tokio::select! {
            snapshot = hearing.next() => screen.update(snapshot),
            event = keys.recv() => match event {
                Some(Ok(Event::Key(key))) => {
                    let page = usize::from(terminal.size()?.height.saturating_sub(3));
                    if screen.key(key, page) == Then::Quit {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {} // another size: it is drawn anew
                Some(Err(error)) => return Err(error).context("read the terminal"),
                None => return Ok(()),
            },
        }
    }
}

/// Reads keys on a thread of its own, for a read of a terminal cannot be cancelled.
fn read_keys() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                break;
            }
        }
    });
    receiver
}
