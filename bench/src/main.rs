//! What the scripts beside it call: servers and clients that load a forwarder, a runtime or a network, and the report.
//!
//! Each client prints its figures, separated by blanks, and nothing else.

mod control;
mod load;
mod mesh;
mod report;
mod runtime;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::{brief, dns, idle, serve, stall, steady, udp};
use runtime::{files, life, program};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves what the other commands need, until it is killed
    Serve { address: IpAddr },
    /// Makes connections that carry one byte each way: how many a second
    Connect {
        to: SocketAddr,
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Opens flows and leaves them idle: bytes of the forwarder's memory for each
    Idle {
        to: SocketAddr,
        #[arg(long)]
        flows: usize,
        /// The cgroup that has all the forwarder's processes, and no other
        #[arg(long)]
        cgroup: PathBuf,
    },
    /// Writes to one who does not read: bytes that were taken
    Stall { to: SocketAddr },
    /// Asks servers on and on until its input ends: requests that were answered, that failed, and the longest answer in
    /// milliseconds
    Steady {
        /// As HOST:PORT
        #[arg(long)]
        http: Vec<String>,
        /// As HOST:PORT
        #[arg(long)]
        redis: Vec<String>,
        /// Clients of each
        #[arg(long, default_value_t = 2, value_parser = clients)]
        clients: usize,
    },
    /// Sends datagrams as fast as it can: how many, and how many bits, arrive a second
    Udp {
        to: SocketAddr,
        /// Where the server tells what has arrived
        #[arg(long)]
        control: SocketAddr,
        #[arg(long, default_value_t = 1)]
        flows: usize,
        /// Bytes of a datagram
        #[arg(long)]
        size: u16,
        /// Hand the kernel many datagrams in one piece
        #[arg(long)]
        gso: bool,
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Asks a name server over and over: median and 99th percentile of the time to an answer in microseconds, and answers a
    /// second
    Dns {
        to: SocketAddr,
        name: String,
        /// Queries under way at once
        #[arg(long, default_value_t = 1)]
        outstanding: u16,
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Enters hosts and containers in a registry that are nowhere else, until its input ends
    Mesh {
        /// As http://198.18.2.1:2379
        registry: String,
        #[arg(long)]
        hosts: u32,
        /// Containers of all of them
        #[arg(long)]
        endpoints: u32,
    },
    /// Simulates the control traffic of many hosts with a registry of its own: what they cost it, and what its changes cost
    /// them, a line for each figure
    Control {
        #[arg(long, default_value_t = 10_000)]
        hosts: u32,
        /// Containers of all of them
        #[arg(long, default_value_t = 50_000)]
        endpoints: u32,
        /// Containers that change, one after the other
        #[arg(long, default_value_t = 20)]
        changes: u32,
        /// How long nothing changes
        #[arg(long, default_value = "10", value_parser = seconds)]
        quiet: Duration,
    },
    /// Serves a registry for `control`
    #[command(hide = true)]
    ControlRegistry { directory: PathBuf },
    /// Makes files that an image can be made of, the same ones each time
    Files {
        directory: PathBuf,
        #[arg(long)]
        megabytes: u64,
        /// KiB of the smallest file
        #[arg(long)]
        from: u64,
        /// KiB of the largest file
        #[arg(long)]
        to: u64,
        #[arg(long)]
        seed: u64,
    },
    /// Runs a program some times: the median of its time, in milliseconds
    Time {
        #[arg(long, default_value_t = 1, value_parser = runs)]
        runs: usize,
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Has an engine make, start and remove containers some times: the median of their lives, in milliseconds
    Life {
        /// The engine's socket
        socket: PathBuf,
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 1, value_parser = runs)]
        runs: usize,
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Prints medians and ratios, and writes them down
    Report(report::Arguments),
}

/// A number of seconds, bounded so that no measurement takes a machine for the day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds from 0.1 to 60".to_owned()),
    }
}

/// A number of runs, bounded likewise.
fn runs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(runs) if (1..=1000).contains(&runs) => Ok(runs),
        _ => Err("expected a number of runs from 1 to 1000".to_owned()),
    }
}

/// A number of clients, bounded likewise.
fn clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(clients) if (1..=100).contains(&clients) => Ok(clients),
        _ => Err("expected a number of clients from 1 to 100".to_owned()),
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve { address } => serve::run(address),
        Command::Connect { to, seconds } => brief::run(to, seconds),
        Command::Idle { to, flows, cgroup } => idle::run(to, flows, &cgroup),
        Command::Stall { to } => stall::run(to),
        Command::Steady {
            http,
            redis,
            clients,
        } => steady::run(&steady::Load {
            http,
            redis,
            clients,
        }),
        Command::Udp {
            to,
            control,
            flows,
            size,
            gso,
            seconds,
        } => udp::Load {
            to,
            flows,
            size,
            gso,
        }
        .run(control, seconds),
        Command::Dns {
            to,
            name,
            outstanding,
            seconds,
        } => dns::run(to, &name, outstanding, seconds),
        Command::Mesh {
            registry,
            hosts,
            endpoints,
        } => mesh::run(registry, hosts, endpoints),
        Command::Control {
            hosts,
            endpoints,
            changes,
            quiet,
        } => control::run(control::Load {
            hosts,
            endpoints,
            changes,
            quiet,
        }),
        Command::ControlRegistry { directory } => control::serve(&directory),
        Command::Files {
            directory,
            megabytes,
            from,
            to,
            seed,
        } => files::run(&directory, megabytes, from, to, seed),
        Command::Time { runs, command } => program::run(&command, runs),
        Command::Life {
            socket,
            image,
            runs,
            command,
        } => life::run(&socket, &image, &command, runs),
        Command::Report(arguments) => report::run(&arguments),
    }
}
