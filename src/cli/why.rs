//! `why`.

use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::failure::{DAEMON_FAILED, Failure};
use super::output::{line, write_out};
use crate::client::Client;

/// `nuncio why`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct WhyArgs {
    /// The container that wants to reach something, on whatever host
    #[arg(value_name = "FROM")]
    from: String,

    /// What it wants to reach: a container, a service, an alias, an address, or HOST:PORT
    #[arg(value_name = "TO")]
    to: String,

    /// The port it wants to reach it at
    #[arg(value_name = "PORT[/tcp|/udp]")]
    port: Option<String>,

    /// Walk the way of IPv4: so it is unless TO is an address of IPv6
    #[arg(short = '4', long)]
    ipv4: bool,

    /// Walk the way of IPv6, in a network that carries it
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    ipv6: bool,

    /// Print all that was found as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Each place that a packet passes is looked at, on both hosts: the container, its link, address and route, the bridge and the
rules of the host, the tunnel (route, neighbour, forwarding row, VXLAN device), the underlay and how long its packets may be,
the registry, and the same on the other side, down to who listens. Where it breaks stands an arrow, with what would mend it.
With a TCP port a connection is made to try it, and closed at once.

The exit status is 0 if nothing is wrong, 1 if something is, and 125 if that could not be found out.

Examples:
  nuncio why web db                             whether web reaches db at all
  nuncio why web db 6379                        and whether somebody listens there
  nuncio why -6 web db 6379                     the same by IPv6
  nuncio why web 192.0.2.7:443                  out of the mesh
  nuncio why web '[2001:db8::7]:443'            and by IPv6
  nuncio why web db 6379 --json | jq '.hops[] | select(.status != \"ok\")'";

/// What the daemon answers.
#[derive(Debug, Deserialize)]
struct Why {
    from: String,
    to: String,
    hops: Vec<Hop>,
    /// Which of them it breaks at.
    culprit: Option<usize>,
}

/// A place on the way.
#[derive(Debug, Deserialize)]
struct Hop {
    host: String,
    hop: String,
    status: Status,
    detail: String,
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Broken,
    Unknown,
}

/// Prints the way, and where it breaks.
pub(super) async fn run(args: WhyArgs, client: &Client) -> Result<u8, Failure> {
    let asked = async {
        let call = client
            .get("/nuncio/v1/why")
            .query("from", &args.from)
            .query("to", &args.to);
        let family = match (args.ipv4, args.ipv6) {
            (true, _) => Some("4"),
            (_, true) => Some("6"),
            _ => None,
        };
        let call = call
            .optional("port", args.port.as_deref())
            .optional("family", family);
        anyhow::Ok(call.send().await?.json::<Value>().await?)
    };
    let told = asked
        .await
        .map_err(|error| Failure::new(DAEMON_FAILED, error))?;
    let why: Why =
        serde_json::from_value(told.clone()).map_err(|error| Failure::new(DAEMON_FAILED, error))?;
    if args.json {
        line(&told.to_string())?;
    } else {
        write_out(screen(&why).as_bytes())?;
    }
    Ok(u8::from(why.culprit.is_some()))
}

/// One line for each place, and what to do about the one where it breaks.
fn screen(why: &Why) -> String {
    let mut out = String::new();
    let width = |of: fn(&Hop) -> &str| why.hops.iter().map(|hop| of(hop).len()).max().unwrap_or(0);
    let (hosts, names) = (width(|hop| &hop.host), width(|hop| &hop.hop));
    for (at, hop) in why.hops.iter().enumerate() {
        let mark = match hop.status {
            Status::Ok => "ok",
            Status::Broken => "✗ ",
            Status::Unknown => "? ",
        };
        let arrow = if why.culprit == Some(at) { "→" } else { " " };
        let _ = writeln!(
            out,
            "{arrow} {mark} {:hosts$}  {:names$}  {}",
            hop.host, hop.hop, hop.detail
        );
    }
    let (from, to) = (&why.from, &why.to);
    let _ = match why.culprit.and_then(|at| why.hops.get(at)) {
        None if why.hops.iter().any(|hop| hop.status == Status::Unknown) => {
            writeln!(
                out,
                "\nnothing is known to keep {from} from {to}, but not all could be looked at"
            )
        }
        None => writeln!(out, "\nnothing keeps {from} from {to}"),
        Some(hop) => {
            let _ = writeln!(
                out,
                "\n{from} does not reach {to}: on {}, {}",
                hop.host, hop.detail
            );
            match &hop.mend {
                Some(mend) => writeln!(out, "to mend it, on {}: {mend}", hop.host),
                None => Ok(()),
            }
        }
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_where_it_breaks_has_an_arrow_and_a_remedy() {
        let hop = |hop: &str, status| Hop {
            host: "h1".to_owned(),
            hop: hop.to_owned(),
            status,
            detail: format!("about {hop}"),
            mend: (status == Status::Broken).then(|| "do this".to_owned()),
        };
        let mut why = Why {
            from: "a".to_owned(),
            to: "b".to_owned(),
            hops: vec![
                hop("link", Status::Ok),
                hop("bridge", Status::Broken),
                hop("path", Status::Unknown),
            ],
            culprit: Some(1),
        };
        let text = "  ok h1  link    about link\n→ ✗  h1  bridge  about bridge\n  ?  h1  path    about path\n\n\
                    a does not reach b: on h1, about bridge\nto mend it, on h1: do this\n";
        assert_eq!(screen(&why), text);
        why.culprit = None;
        why.hops.truncate(1);
        assert!(screen(&why).ends_with("\nnothing keeps a from b\n"));
    }
}
