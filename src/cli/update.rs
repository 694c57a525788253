//! `update`.

use anyhow::bail;
use bollard_stubs::models::{ContainerUpdateBody, ContainerUpdateResponse};
use clap::Args;

use super::container_flags::swap;
use super::failure::each;
use super::output::{line, warn};
use super::parse::{Cpus, Restart, Size};
use crate::client::Client;

/// Flags of `update`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio update --memory 512m --memory-swap 1g web
  nuncio update --restart unless-stopped web db")]
pub(super) struct UpdateArgs {
    /// Most memory, as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Size>,

    /// Most memory and swap together; -1 is without limit
    #[arg(long, value_name = "BYTES", value_parser = swap)]
    memory_swap: Option<i64>,

    /// Memory to keep when it is scarce
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<Size>,

    /// Most processors, as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,

    /// Microseconds in which --cpu-quota is counted
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,

    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,

    /// Weight against other containers (1024 is ordinary)
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<i64>,

    /// The processors to run on, as 0-3 or 0,1
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,

    /// The memory nodes to use, as 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,

    /// Most processes; -1 is without limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,

    /// Weight against other containers where a disk is busy, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,

    /// Microseconds in which --cpu-rt-runtime is counted
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,

    /// Microseconds of real time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,

    /// What to do when the container exits: no, on-failure or on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Changes containers, and prints their names as given.
pub(super) async fn update(args: UpdateArgs, client: &Client) -> anyhow::Result<u8> {
    let body = ContainerUpdateBody {
        memory: args.memory.map(Size::bytes),
        memory_swap: args.memory_swap,
        memory_reservation: args.memory_reservation.map(Size::bytes),
        nano_cpus: args.cpus.map(Cpus::nano),
        cpu_period: args.cpu_period,
        cpu_quota: args.cpu_quota,
        cpu_shares: args.cpu_shares,
        cpuset_cpus: args.cpuset_cpus,
        cpuset_mems: args.cpuset_mems,
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight,
        cpu_realtime_period: args.cpu_rt_period,
        cpu_realtime_runtime: args.cpu_rt_runtime,
        restart_policy: args.restart.map(|restart| restart.policy()),
        ..ContainerUpdateBody::default()
    };
    if body == ContainerUpdateBody::default() {
        bail!("you must provide one or more flags when using this command");
    }
    each(&args.containers, async |container| {
        let call = client.post(&format!("/containers/{container}/update"));
        let answer: ContainerUpdateResponse = call.json(&body).send().await?.json().await?;
        for warning in answer.warnings.unwrap_or_default() {
            warn(&format!("WARNING: {warning}"));
        }
        line(container)
    })
    .await
}
