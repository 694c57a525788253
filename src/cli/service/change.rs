//! What `service update` changes in a specification.

use std::collections::HashMap;

use anyhow::bail;
use bollard_stubs::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    ServiceSpec, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecDnsConfig,
};

use super::create::{capabilities, generic, host_line, name_of, preference, ulimit};
use super::references;
use super::spec;
use super::update::{ListFlags, UpdateArgs};
use crate::cli::parse::{KeyValue, ServicePort};
use crate::client::Client;

/// Changes `spec` as the flags ask, but for the image.
///
/// # Errors
///
/// What is not there, and flags that contradict each other or the service's mode.
pub(super) async fn apply(
    args: &UpdateArgs,
    client: &Client,
    spec: &mut ServiceSpec,
) -> anyhow::Result<()> {
    spec::apply(&args.shared, spec)?;
    apply_mode(args, spec)?;
    let lists = &args.lists;
    labels(&lists.label_add, &lists.label_rm, &mut spec.labels);
    networks(lists, client, spec).await?;
    if !lists.publish_add.is_empty() || !lists.publish_rm.is_empty() {
        let endpoint = spec.endpoint_spec.get_or_insert_default();
        let before = endpoint.ports.take().unwrap_or_default();
        endpoint.ports = Some(ports(before, lists));
    }
    let task = spec.task_template.get_or_insert_default();
    if args.force {
        task.force_update = Some(task.force_update.unwrap_or_default() + 1);
    }
    placement(lists, task);
    resources(lists, task)?;
    let container = task.container_spec.get_or_insert_default();
    if let Some(words) = &args.args {
        container.args = Some(words.0.clone());
    }
    apply_container(lists, container)?;
    files(lists, client, container).await
}

fn apply_mode(args: &UpdateArgs, spec: &mut ServiceSpec) -> anyhow::Result<()> {
    let mode = spec.mode.get_or_insert_default();
    if let Some(replicas) = args.shared.replicas {
        match (&mut mode.replicated, &mut mode.replicated_job) {
            (Some(mode), _) => mode.replicas = Some(replicas),
            (None, Some(job)) => job.total_completions = Some(replicas),
            (None, None) => {
                bail!("replicas can only be used with replicated or replicated-job mode")
            }
        }
    }
    if let Some(most) = args.shared.max_concurrent {
        match &mut mode.replicated_job {
            Some(job) => job.max_concurrent = Some(most),
            None => bail!("max-concurrent can only be used with replicated-job mode"),
        }
    }
    Ok(())
}

fn labels(add: &[KeyValue], remove: &[String], labels: &mut Option<HashMap<String, String>>) {
    if !add.is_empty() {
        let added: HashMap<_, _> = spec::pairs(add);
        labels.get_or_insert_default().extend(added);
    }
    if let Some(labels) = labels {
        remove.iter().for_each(|key| drop(labels.remove(key)));
    }
}

async fn networks(
    lists: &ListFlags,
    client: &Client,
    spec: &mut ServiceSpec,
) -> anyhow::Result<()> {
    if lists.network_add.is_empty() && lists.network_rm.is_empty() {
        return Ok(());
    }
    // Older clients wrote them beside the tasks.
    let older = spec.networks.take();
    let task = spec.task_template.get_or_insert_default();
    let before = task.networks.take().filter(|networks| !networks.is_empty());
    let mut networks = before.or(older).unwrap_or_default();
    for name in &lists.network_rm {
        let id = references::network_id(client, name).await?;
        networks.retain(|network| network.target.as_ref() != Some(&id));
    }
    for network in references::networks(client, &lists.network_add).await? {
        if networks.iter().any(|other| other.target == network.target) {
            bail!(
                "service is already attached to network {}",
                network.target.unwrap_or_default()
            );
        }
        networks.push(network);
    }
    networks.sort_by(|one, other| one.target.cmp(&other.target));
    task.networks = Some(networks);
    Ok(())
}

/// The ports of before without those that are taken, and with those that are new, sorted.
fn ports(before: Vec<EndpointPortConfig>, lists: &ListFlags) -> Vec<EndpointPortConfig> {
    let tcp = EndpointPortConfigProtocolEnum::TCP;
    let ingress = EndpointPortConfigPublishModeEnum::INGRESS;
    let what = |port: &EndpointPortConfig| {
        (
            port.target_port,
            port.protocol.unwrap_or(tcp),
            port.publish_mode.unwrap_or(ingress),
        )
    };
    let is_taken = |port: &EndpointPortConfig| {
        let mut taken = lists.publish_rm.iter().flat_map(ServicePort::ports);
        taken.any(|other| what(other) == what(port))
    };
    let mut ports: Vec<_> = before
        .iter()
        .filter(|port| !is_taken(port))
        .cloned()
        .collect();
    let added = lists.publish_add.iter().flat_map(ServicePort::ports);
    let is_new = |port: &&EndpointPortConfig| {
        let same = |other: &EndpointPortConfig| {
            what(other) == what(port) && other.published_port == port.published_port
        };
        !before.iter().any(same)
    };
    ports.extend(added.filter(is_new).cloned());
    let text = |port: &EndpointPortConfig| {
        let (target, protocol, mode) = what(port);
        format!(
            "{}:{}/{protocol}/{mode}",
            port.published_port.unwrap_or_default(),
            target.unwrap_or_default()
        )
    };
    ports.sort_by_key(text);
    ports
}

fn placement(lists: &ListFlags, task: &mut TaskSpec) {
    if !lists.constraint_add.is_empty() || !lists.constraint_rm.is_empty() {
        let placement = task.placement.get_or_insert_default();
        let constraints = placement.constraints.get_or_insert_default();
        constraints.extend(lists.constraint_add.iter().cloned());
        constraints.retain(|one| !lists.constraint_rm.contains(one));
        constraints.sort();
    }
    if !lists.placement_pref_add.is_empty() || !lists.placement_pref_rm.is_empty() {
        let placement = task.placement.get_or_insert_default();
        let preferences = placement.preferences.get_or_insert_default();
        let taken: Vec<_> = lists.placement_pref_rm.iter().map(preference).collect();
        preferences.retain(|one| !taken.contains(one));
        preferences.extend(lists.placement_pref_add.iter().map(preference));
    }
}

fn resources(lists: &ListFlags, task: &mut TaskSpec) -> anyhow::Result<()> {
    if lists.generic_resource_add.is_empty() && lists.generic_resource_rm.is_empty() {
        return Ok(());
    }
    let resources = task.resources.get_or_insert_default();
    let reserved = resources.reservations.get_or_insert_default();
    let generics = reserved.generic_resources.get_or_insert_default();
    let kind = |one: &bollard_stubs::models::GenericResourcesInner| {
        let spec = one.discrete_resource_spec.as_ref();
        spec.and_then(|spec| spec.kind.clone()).unwrap_or_default()
    };
    for pair in &lists.generic_resource_add {
        let added = generic(pair)?;
        generics.retain(|other| kind(other) != pair.key);
        generics.push(added);
    }
    for gone in &lists.generic_resource_rm {
        let before = generics.len();
        generics.retain(|other| kind(other) != *gone);
        if generics.len() == before {
            bail!("could not find generic-resource `{gone}` to remove it");
        }
    }
    Ok(())
}

fn apply_container(lists: &ListFlags, container: &mut TaskSpecContainerSpec) -> anyhow::Result<()> {
    labels(
        &lists.container_label_add,
        &lists.container_label_rm,
        &mut container.labels,
    );
    labels(&lists.sysctl_add, &lists.sysctl_rm, &mut container.sysctls);
    environment(lists, container);
    mounts(lists, container)?;
    sorted(&lists.group_add, &lists.group_rm, &mut container.groups);
    hosts(lists, container);
    let mut dns = container.dns_config.take().unwrap_or_default();
    let servers: Vec<String> = lists.dns_add.iter().map(ToString::to_string).collect();
    sorted(&servers, &lists.dns_rm, &mut dns.nameservers);
    sorted(&lists.dns_search_add, &lists.dns_search_rm, &mut dns.search);
    sorted(
        &lists.dns_option_add,
        &lists.dns_option_rm,
        &mut dns.options,
    );
    container.dns_config = (dns != TaskSpecContainerSpecDnsConfig::default()).then_some(dns);
    capability(lists, container);
    if !lists.ulimit_add.is_empty() || !lists.ulimit_rm.is_empty() {
        let limits = container.ulimits.get_or_insert_default();
        for limit in &lists.ulimit_add {
            limits.retain(|other| other.name.as_ref() != Some(&limit.name));
            limits.push(ulimit(limit));
        }
        limits.retain(|limit| !is_named(&limit.name, &lists.ulimit_rm));
        limits.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Ok(())
}

fn environment(lists: &ListFlags, container: &mut TaskSpecContainerSpec) {
    if lists.env_add.is_empty() && lists.env_rm.is_empty() {
        return;
    }
    let environment = container.env.get_or_insert_default();
    for variable in &lists.env_add {
        let Some(variable) = variable.resolve(|name| std::env::var(name).ok()) else {
            continue;
        };
        match environment
            .iter_mut()
            .find(|other| name_of(other) == name_of(&variable))
        {
            Some(other) => *other = variable,
            None => environment.push(variable),
        }
    }
    environment.retain(|variable| !lists.env_rm.iter().any(|name| name == name_of(variable)));
}

/// The list with what is added, without what is taken, sorted; untouched if nothing is asked for.
fn sorted(add: &[String], remove: &[String], list: &mut Option<Vec<String>>) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let list = list.get_or_insert_default();
    list.extend(add.iter().cloned());
    list.retain(|one| !remove.contains(one));
    list.sort();
    list.dedup();
}

fn mounts(lists: &ListFlags, container: &mut TaskSpecContainerSpec) -> anyhow::Result<()> {
    if lists.mount_add.is_empty() && lists.mount_rm.is_empty() {
        return Ok(());
    }
    let here = std::env::current_dir()?;
    let mounts = container.mounts.get_or_insert_default();
    let mut added: Vec<bollard_stubs::models::Mount> = Vec::new();
    for mount in &lists.mount_add {
        let mount = mount.clone().into_mount(&here);
        if added.iter().any(|other| other.target == mount.target) {
            bail!(
                "duplicate mount target: {}",
                mount.target.unwrap_or_default()
            );
        }
        added.push(mount);
    }
    mounts.retain(|mount| !added.iter().any(|other| other.target == mount.target));
    mounts.extend(added);
    mounts.retain(|mount| !is_named(&mount.target, &lists.mount_rm));
    mounts.sort_by(|one, other| (&one.source, &one.target).cmp(&(&other.source, &other.target)));
    Ok(())
}

fn hosts(lists: &ListFlags, container: &mut TaskSpecContainerSpec) {
    if lists.host_add.is_empty() && lists.host_rm.is_empty() {
        return;
    }
    let hosts = container.hosts.get_or_insert_default();
    let taken = |line: &String| {
        let mut words = line.split_whitespace();
        let (address, name) = (words.next().unwrap_or_default(), words.next());
        let is = |text: &String| match text.split_once(':') {
            Some((host, ip)) => Some(host) == name && (ip.is_empty() || ip == address),
            None => Some(text.as_str()) == name,
        };
        lists.host_rm.iter().any(is)
    };
    hosts.retain(|line| !taken(line));
    for line in lists.host_add.iter().map(host_line) {
        if !hosts.contains(&line) {
            hosts.push(line);
        }
    }
}

/// What is given is dropped no more, and the other way round; both lists are sorted.
fn capability(lists: &ListFlags, container: &mut TaskSpecContainerSpec) {
    let (add, drop) = (capabilities(&lists.cap_add), capabilities(&lists.cap_drop));
    if add.is_empty() && drop.is_empty() {
        return;
    }
    let added = container.capability_add.get_or_insert_default();
    let dropped = container.capability_drop.get_or_insert_default();
    let take = |from: &mut Vec<String>, what: &[String]| from.retain(|one| !what.contains(one));
    // What stands in the other list goes from there, and comes only if it stood in neither.
    let fresh = |what: &[String], other: &[String]| -> Vec<String> {
        what.iter()
            .filter(|one| !other.contains(one))
            .cloned()
            .collect()
    };
    let (new_added, new_dropped) = (fresh(&add, dropped), fresh(&drop, added));
    take(dropped, &add);
    take(added, &drop);
    added.extend(new_added.into_iter().filter(|one| !drop.contains(one)));
    dropped.extend(new_dropped);
    for list in [added, dropped] {
        list.sort();
        list.dedup();
    }
}

async fn files(
    lists: &ListFlags,
    client: &Client,
    container: &mut TaskSpecContainerSpec,
) -> anyhow::Result<()> {
    if !lists.secret_add.is_empty() || !lists.secret_rm.is_empty() {
        let secrets = container.secrets.get_or_insert_default();
        secrets.retain(|one| !is_named(&one.secret_name, &lists.secret_rm));
        secrets.extend(references::secrets(client, &lists.secret_add).await?);
    }
    if !lists.config_add.is_empty() || !lists.config_rm.is_empty() {
        let configs = container.configs.get_or_insert_default();
        configs.retain(|one| !is_named(&one.config_name, &lists.config_rm));
        configs.extend(references::configs(client, &lists.config_add).await?);
    }
    Ok(())
}

fn is_named(name: &Option<String>, names: &[String]) -> bool {
    name.as_ref().is_some_and(|name| names.contains(name))
}
