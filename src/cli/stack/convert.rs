//! From a compose file to what the API wants of a stack.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    EndpointPortConfig, EndpointSpec, GenericResourcesInner,
    GenericResourcesInnerDiscreteResourceSpec, Limit, Mount, MountBindOptions, MountTmpfsOptions,
    MountTypeEnum, MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkAttachmentConfig,
    ResourceObject, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated,
    ServiceSpecModeReplicatedJob, ServiceSpecRollbackConfig, ServiceSpecUpdateConfig, TaskSpec,
    TaskSpecContainerSpec, TaskSpecContainerSpecDnsConfig, TaskSpecLogDriver, TaskSpecPlacement,
    TaskSpecPlacementPreferences, TaskSpecPlacementSpread, TaskSpecResources,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};

use super::compose::{Deploy, FileRef, Project, Resources, Service, UpdateConfig, Volume};
use super::{IMAGE, NAMESPACE};
use crate::cli::parse::{Granted, Reference};
use crate::cli::service::{capabilities, some_list};

/// A stack by its name.
pub(super) struct Namespace<'a>(pub(super) &'a str);

impl Namespace<'_> {
    /// What something of the file is called in the mesh.
    pub(super) fn scope(&self, name: &str) -> String {
        format!("{}_{name}", self.0)
    }

    /// The labels with the one that says whose they are.
    pub(super) fn labelled(&self, labels: &BTreeMap<String, String>) -> HashMap<String, String> {
        let own = (NAMESPACE.to_owned(), self.0.to_owned());
        labels.clone().into_iter().chain([own]).collect()
    }

    /// What a network of the file is called.
    pub(super) fn network(&self, name: &str, project: &Project) -> String {
        let network = project.networks.get(name);
        network
            .and_then(|network| network.name.clone())
            .or_else(|| {
                network
                    .filter(|network| network.external)
                    .map(|_| name.to_owned())
            })
            .unwrap_or_else(|| self.scope(name))
    }

    /// All of a service but for the secrets and configs, whose ids must be asked for.
    pub(super) fn service(&self, service: &Service, project: &Project) -> ServiceSpec {
        let deploy = &service.deploy;
        let mut labels = self.labelled(&deploy.labels);
        let image = service.image.as_ref().map(Reference::given);
        labels.insert(IMAGE.to_owned(), image.clone().unwrap_or_default());
        ServiceSpec {
            name: Some(self.scope(&service.name)),
            labels: Some(labels),
            task_template: Some(TaskSpec {
                container_spec: Some(self.container(service, image, project)),
                log_driver: service.log_driver.clone().map(|name| TaskSpecLogDriver {
                    name: Some(name),
                    options: Some(service.log_options.clone().into_iter().collect()),
                }),
                resources: resources(deploy),
                restart_policy: restart_policy(service),
                placement: Some(placement(deploy)),
                networks: Some(self.networks(service, project)),
                ..TaskSpec::default()
            }),
            mode: Some(mode(deploy)),
            update_config: deploy.update.as_ref().map(update_config),
            rollback_config: deploy.rollback.as_ref().map(rollback_config),
            endpoint_spec: Some(endpoint(service)),
            ..ServiceSpec::default()
        }
    }

    fn container(
        &self,
        service: &Service,
        image: Option<String>,
        project: &Project,
    ) -> TaskSpecContainerSpec {
        let mounts = service
            .volumes
            .iter()
            .map(|volume| self.mount(volume, project));
        let tmpfs = service.tmpfs.iter().map(|tmpfs| tmpfs_mount(tmpfs));
        let hosts = service.extra_hosts.iter().map(|entry| {
            let text = entry.to_string();
            let (name, address) = text.split_once(':').unwrap_or((&text, ""));
            format!("{address} {name}")
        });
        let dns = TaskSpecContainerSpecDnsConfig {
            nameservers: some_list(service.dns.clone()),
            search: some_list(service.dns_search.clone()),
            options: some_list(service.dns_opt.clone()),
        };
        TaskSpecContainerSpec {
            image,
            command: service.entrypoint.clone(),
            args: service.command.clone(),
            hostname: service.hostname.clone(),
            hosts: some_list(hosts.collect()),
            dns_config: (dns != TaskSpecContainerSpecDnsConfig::default()).then_some(dns),
            health_check: service.healthcheck.clone(),
            env: some_list(environment(service)),
            labels: Some(self.labelled(&service.labels)),
            dir: service.working_dir.clone(),
            user: service.user.clone(),
            groups: some_list(service.group_add.clone()),
            mounts: some_list(mounts.chain(tmpfs).collect()),
            stop_grace_period: service.stop_grace_period,
            stop_signal: service.stop_signal.clone(),
            tty: service.tty.then_some(true),
            open_stdin: service.stdin_open.then_some(true),
            read_only: service.read_only.then_some(true),
            init: service.init,
            sysctls: (!service.sysctls.is_empty())
                .then(|| service.sysctls.clone().into_iter().collect()),
            capability_add: some_list(capabilities(&service.cap_add)),
            capability_drop: some_list(capabilities(&service.cap_drop)),
            ulimits: some_list(service.ulimits.clone()),
            oom_score_adj: service.oom_score_adj,
            ..TaskSpecContainerSpec::default()
        }
    }

    /// Each network, on which the service has its own name too; sorted.
    fn networks(&self, service: &Service, project: &Project) -> Vec<NetworkAttachmentConfig> {
        let default = BTreeMap::from([("default".to_owned(), Default::default())]);
        let joined = match service.networks.is_empty() {
            true => &default,
            false => &service.networks,
        };
        let attach = joined.iter().map(|(name, join)| {
            let aliases = join.aliases.iter().cloned().chain([service.name.clone()]);
            NetworkAttachmentConfig {
                target: Some(self.network(name, project)),
                aliases: Some(aliases.collect()),
                driver_opts: (!join.driver_opts.is_empty())
                    .then(|| join.driver_opts.clone().into_iter().collect()),
            }
        });
        let mut networks: Vec<_> = attach.collect();
        networks.sort_by(|one, other| one.target.cmp(&other.target));
        networks
    }

    fn mount(&self, volume: &Volume, project: &Project) -> Mount {
        let mut mount = Mount {
            target: Some(volume.target.clone()),
            read_only: volume.read_only.then_some(true),
            source: volume.source.clone(),
            ..Mount::default()
        };
        match volume.kind.as_str() {
            "bind" => {
                mount.typ = Some(MountTypeEnum::BIND);
                let propagation = volume
                    .propagation
                    .as_deref()
                    .and_then(|word| word.parse().ok());
                mount.bind_options = propagation.map(|propagation| MountBindOptions {
                    propagation: Some(propagation),
                    ..MountBindOptions::default()
                });
            }
            "tmpfs" => {
                mount.typ = Some(MountTypeEnum::TMPFS);
                mount.tmpfs_options = (volume.tmpfs_size.is_some() || volume.tmpfs_mode.is_some())
                    .then_some(MountTmpfsOptions {
                        size_bytes: volume.tmpfs_size,
                        mode: volume.tmpfs_mode,
                        options: None,
                    });
            }
            _ => {
                mount.typ = Some(MountTypeEnum::VOLUME);
                let named = volume
                    .source
                    .as_ref()
                    .and_then(|name| Some((name, project.volumes.get(name)?)));
                if let Some((name, of_file)) = named {
                    let own_name = of_file.name.clone();
                    mount.source = Some(match of_file.external {
                        true => own_name.unwrap_or_else(|| name.clone()),
                        false => own_name.unwrap_or_else(|| self.scope(name)),
                    });
                    let has_driver = of_file.driver.is_some() || !of_file.driver_opts.is_empty();
                    mount.volume_options = Some(MountVolumeOptions {
                        no_copy: volume.no_copy.then_some(true),
                        labels: (!of_file.external).then(|| self.labelled(&of_file.labels)),
                        driver_config: (has_driver && !of_file.external).then(|| {
                            MountVolumeOptionsDriverConfig {
                                name: of_file.driver.clone(),
                                options: Some(of_file.driver_opts.clone().into_iter().collect()),
                            }
                        }),
                        subpath: None,
                    });
                }
            }
        }
        mount
    }

    /// A service's secrets or configs, by what they are called in the mesh, sorted.
    pub(super) fn files(
        &self,
        files: &[FileRef],
        name: impl Fn(&str) -> Option<(Option<String>, bool)>,
    ) -> Vec<Granted> {
        let granted = files.iter().map(|file| {
            let source = match name(&file.source) {
                Some((Some(own), _)) => own,
                Some((None, true)) => file.source.clone(),
                _ => self.scope(&file.source),
            };
            Granted {
                target: file.target.clone().unwrap_or_else(|| file.source.clone()),
                source,
                uid: file.uid.clone(),
                gid: file.gid.clone(),
                mode: file.mode,
            }
        });
        let mut granted: Vec<_> = granted.collect();
        granted.sort_by(|one, other| one.source.cmp(&other.source));
        granted
    }
}

/// `NAME=VALUE`, or the name alone of what has none; sorted.
pub(in crate::cli) fn environment(service: &Service) -> Vec<String> {
    let variables = service.environment.iter();
    let texts = variables.map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    });
    texts.collect()
}

/// `/run:size=64m,mode=1777`.
fn tmpfs_mount(text: &str) -> Mount {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let option = |key: &str| {
        let mut all = options
            .split(',')
            .filter_map(|option| option.split_once('='));
        all.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let size = option("size").and_then(|text| text.parse::<crate::cli::parse::Size>().ok());
    let mode = option("mode").and_then(|text| i64::from_str_radix(text, 8).ok());
    Mount {
        typ: Some(MountTypeEnum::TMPFS),
        target: Some(target.to_owned()),
        tmpfs_options: (size.is_some() || mode.is_some()).then(|| MountTmpfsOptions {
            size_bytes: size.map(crate::cli::parse::Size::bytes),
            mode,
            options: None,
        }),
        ..Mount::default()
    }
}

fn mode(deploy: &Deploy) -> ServiceSpecMode {
    let mode = ServiceSpecMode::default();
    match deploy.mode.as_deref() {
        Some("global") => ServiceSpecMode {
            global: Some(HashMap::new()),
            ..mode
        },
        Some("global-job") => ServiceSpecMode {
            global_job: Some(HashMap::new()),
            ..mode
        },
        Some("replicated-job") => ServiceSpecMode {
            replicated_job: Some(ServiceSpecModeReplicatedJob {
                max_concurrent: deploy.replicas,
                total_completions: deploy.replicas,
            }),
            ..mode
        },
        _ => ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated {
                replicas: deploy.replicas,
            }),
            ..mode
        },
    }
}

fn endpoint(service: &Service) -> EndpointSpec {
    let port = |port: &super::compose::Port| EndpointPortConfig {
        name: None,
        protocol: port.protocol.parse().ok(),
        target_port: Some(port.target.into()),
        published_port: port.published.parse().ok().filter(|port| *port > 0),
        publish_mode: port.mode.parse().ok(),
    };
    let mut ports: Vec<_> = service.ports.iter().map(port).collect();
    ports.sort_by_key(|port| port.published_port);
    EndpointSpec {
        mode: service
            .deploy
            .endpoint_mode
            .as_deref()
            .and_then(|mode| mode.parse().ok()),
        ports: some_list(ports),
    }
}

fn placement(deploy: &Deploy) -> TaskSpecPlacement {
    let preference = |what: &String| TaskSpecPlacementPreferences {
        spread: Some(TaskSpecPlacementSpread {
            spread_descriptor: Some(what.clone()),
        }),
    };
    TaskSpecPlacement {
        constraints: some_list(deploy.constraints.clone()),
        preferences: some_list(deploy.spreads.iter().map(preference).collect()),
        max_replicas: deploy.max_replicas_per_node,
        platforms: None,
    }
}

fn resources(deploy: &Deploy) -> Option<TaskSpecResources> {
    let generic = |(kind, value): &(String, i64)| GenericResourcesInner {
        named_resource_spec: None,
        discrete_resource_spec: Some(GenericResourcesInnerDiscreteResourceSpec {
            kind: Some(kind.clone()),
            value: Some(*value),
        }),
    };
    let (limits, reserved) = (&deploy.limits, &deploy.reservations);
    let resources = TaskSpecResources {
        limits: (*limits != Resources::default()).then_some(Limit {
            nano_cpus: limits.nano_cpus,
            memory_bytes: limits.memory,
            pids: limits.pids,
        }),
        reservations: (*reserved != Resources::default()).then(|| ResourceObject {
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory,
            generic_resources: some_list(reserved.generic.iter().map(generic).collect()),
        }),
    };
    (resources != TaskSpecResources::default()).then_some(resources)
}

/// That of `deploy`, else what `restart` comes to.
fn restart_policy(service: &Service) -> Option<TaskSpecRestartPolicy> {
    if let Some(policy) = &service.deploy.restart {
        return Some(TaskSpecRestartPolicy {
            condition: policy
                .condition
                .as_deref()
                .and_then(|word| word.parse().ok()),
            delay: policy.delay,
            max_attempts: policy.max_attempts,
            window: policy.window,
        });
    }
    let policy = service.restart.as_ref()?.policy();
    let condition = match policy.name.map(|name| name.to_string()).as_deref() {
        Some("always" | "unless-stopped") => TaskSpecRestartPolicyConditionEnum::ANY,
        Some("on-failure") => TaskSpecRestartPolicyConditionEnum::ON_FAILURE,
        _ => return None,
    };
    Some(TaskSpecRestartPolicy {
        condition: Some(condition),
        max_attempts: policy.maximum_retry_count.filter(|count| *count > 0),
        ..TaskSpecRestartPolicy::default()
    })
}

fn update_config(config: &UpdateConfig) -> ServiceSpecUpdateConfig {
    ServiceSpecUpdateConfig {
        parallelism: config.parallelism.or(Some(1)),
        delay: config.delay,
        failure_action: config
            .failure_action
            .as_deref()
            .and_then(|word| word.parse().ok()),
        monitor: config.monitor,
        max_failure_ratio: config.max_failure_ratio,
        order: config.order.as_deref().and_then(|word| word.parse().ok()),
    }
}

fn rollback_config(config: &UpdateConfig) -> ServiceSpecRollbackConfig {
    ServiceSpecRollbackConfig {
        parallelism: config.parallelism.or(Some(1)),
        delay: config.delay,
        failure_action: config
            .failure_action
            .as_deref()
            .and_then(|word| word.parse().ok()),
        monitor: config.monitor,
        max_failure_ratio: config.max_failure_ratio,
        order: config.order.as_deref().and_then(|word| word.parse().ok()),
    }
}
