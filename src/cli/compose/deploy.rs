//! How many tasks a service has, where, and how they are replaced.

use std::collections::BTreeMap;

use super::decode::Section;
use super::yaml::Wrong;
use crate::cli::parse::{Cpus, Size};

/// The section `deploy`.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Deploy {
    pub(in crate::cli) mode: Option<String>,
    pub(in crate::cli) replicas: Option<i64>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) endpoint_mode: Option<String>,
    pub(in crate::cli) constraints: Vec<String>,
    pub(in crate::cli) spreads: Vec<String>,
    pub(in crate::cli) max_replicas_per_node: Option<i64>,
    pub(in crate::cli) limits: Resources,
    pub(in crate::cli) reservations: Resources,
    pub(in crate::cli) restart: Option<RestartPolicy>,
    pub(in crate::cli) update: Option<UpdateConfig>,
    pub(in crate::cli) rollback: Option<UpdateConfig>,
}

/// What a task may take, or has kept for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Resources {
    pub(in crate::cli) nano_cpus: Option<i64>,
    pub(in crate::cli) memory: Option<i64>,
    pub(in crate::cli) pids: Option<i64>,
    pub(in crate::cli) generic: Vec<(String, i64)>,
}

/// Times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct RestartPolicy {
    pub(in crate::cli) condition: Option<String>,
    pub(in crate::cli) delay: Option<i64>,
    pub(in crate::cli) max_attempts: Option<i64>,
    pub(in crate::cli) window: Option<i64>,
}

/// Times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct UpdateConfig {
    pub(in crate::cli) parallelism: Option<i64>,
    pub(in crate::cli) delay: Option<i64>,
    pub(in crate::cli) failure_action: Option<String>,
    pub(in crate::cli) monitor: Option<i64>,
    pub(in crate::cli) max_failure_ratio: Option<f64>,
    pub(in crate::cli) order: Option<String>,
}

impl Deploy {
    /// # Errors
    ///
    /// What is unknown or of another kind, with its place.
    pub(super) fn decode(section: Option<Section>) -> Result<Self, Wrong> {
        let Some(mut section) = section else {
            return Ok(Self::default());
        };
        const MODES: &[&str] = &["replicated", "global", "replicated-job", "global-job"];
        let mut deploy = Self {
            mode: word(&mut section, "mode", MODES)?,
            replicas: section.integer("replicas")?,
            labels: section.labels("labels")?,
            endpoint_mode: word(&mut section, "endpoint_mode", &["vip", "dnsrr"])?,
            update: UpdateConfig::decode(
                section.section("update_config")?,
                &["continue", "pause", "rollback"],
            )?,
            rollback: UpdateConfig::decode(
                section.section("rollback_config")?,
                &["continue", "pause"],
            )?,
            restart: RestartPolicy::decode(section.section("restart_policy")?)?,
            ..Self::default()
        };
        if let Some(mut resources) = section.section("resources")? {
            deploy.limits = Resources::decode(resources.section("limits")?)?;
            deploy.reservations = Resources::decode(resources.section("reservations")?)?;
            resources.finish()?;
        }
        if let Some(mut placement) = section.section("placement")? {
            deploy.constraints = placement.texts("constraints")?;
            for preference in placement.list("preferences")? {
                let mut preference = Section::new(&placement.path_of("preferences"), preference)?;
                let spread = preference.text("spread")?;
                deploy
                    .spreads
                    .push(spread.ok_or_else(|| preference.wrong("spread is required"))?);
                preference.finish()?;
            }
            deploy.max_replicas_per_node = placement.integer("max_replicas_per_node")?;
            placement.finish()?;
        }
        section.finish()?;
        Ok(deploy)
    }
}

/// One of a few words.
fn word(section: &mut Section, key: &str, words: &[&str]) -> Result<Option<String>, Wrong> {
    let path = section.path_of(key);
    let at = section.at.clone();
    match section.text(key)? {
        Some(given) if !words.contains(&given.as_str()) => {
            let words = words.join(", ");
            Err(at.wrong(format!(
                "{path}: {given:?} is none: expected one of {words}"
            )))
        }
        given => Ok(given),
    }
}

impl Resources {
    fn decode(section: Option<Section>) -> Result<Self, Wrong> {
        let Some(mut section) = section else {
            return Ok(Self::default());
        };
        let mut resources = Self {
            nano_cpus: section.parsed::<Cpus>("cpus")?.map(Cpus::nano),
            memory: section.parsed::<Size>("memory")?.map(Size::bytes),
            pids: section.integer("pids")?,
            generic: Vec::new(),
        };
        if let Some(node) = section.take("devices") {
            return Err(node.at.wrong(format!(
                "{}.devices: there is no driver for GPUs",
                section.path
            )));
        }
        for generic in section.list("generic_resources")? {
            let mut generic = Section::new(&section.path_of("generic_resources"), generic)?;
            let Some(mut spec) = generic.section("discrete_resource_spec")? else {
                return Err(generic.wrong("discrete_resource_spec is required"));
            };
            match (spec.text("kind")?, spec.integer("value")?) {
                (Some(kind), Some(value)) => resources.generic.push((kind, value)),
                _ => return Err(spec.wrong("kind and value are required")),
            }
            spec.finish()?;
            generic.finish()?;
        }
        section.finish()?;
        Ok(resources)
    }
}

impl RestartPolicy {
    fn decode(section: Option<Section>) -> Result<Option<Self>, Wrong> {
        let Some(mut section) = section else {
            return Ok(None);
        };
        let policy = Self {
            condition: word(&mut section, "condition", &["none", "on-failure", "any"])?,
            delay: section.span("delay")?,
            max_attempts: section.integer("max_attempts")?,
            window: section.span("window")?,
        };
        section.finish()?;
        Ok(Some(policy))
    }
}

impl UpdateConfig {
    fn decode(section: Option<Section>, actions: &[&str]) -> Result<Option<Self>, Wrong> {
        let Some(mut section) = section else {
            return Ok(None);
        };
        let ratio = section.path_of("max_failure_ratio");
        let config = Self {
            parallelism: section.integer("parallelism")?,
            delay: section.span("delay")?,
            failure_action: word(&mut section, "failure_action", actions)?,
            monitor: section.span("monitor")?,
            max_failure_ratio: match section.text("max_failure_ratio")? {
                None => None,
                Some(text) => match text.parse() {
                    Ok(number) => Some(number),
                    Err(_) => {
                        return Err(section
                            .at
                            .wrong(format!("{ratio} must be a number, and is {text:?}")));
                    }
                },
            },
            order: word(&mut section, "order", &["start-first", "stop-first"])?,
        };
        section.finish()?;
        Ok(Some(config))
    }
}
