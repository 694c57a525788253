//! A container as `ps` shows it, and whether the filters let it through.

use std::path::Path;

use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings,
    ContainerSummaryStateEnum,
};
use jiff::Timestamp;

use super::container_view::networks;
use super::filters::Filters;
use super::{health, mounts, ports};
use crate::daemon::config::{ContainerConfig, Port};
use crate::daemon::health::Health;
use crate::daemon::record::{Phase, Record};
use crate::daemon::refusal::Refusal;

pub(crate) const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
const STATUSES: [&str; 7] = [
    "created",
    "dead",
    "exited",
    "paused",
    "removing",
    "restarting",
    "running",
];

/// `volumes` is where volumes lie.
pub(crate) fn summary(
    record: &Record,
    health: Option<&Health>,
    now: Timestamp,
    volumes: &Path,
) -> ContainerSummary {
    let config = &record.config;
    let running = matches!(record.phase, Phase::Running { .. });
    let published = if running {
        record.published.as_slice()
    } else {
        &[]
    };
    let exposed = if running {
        config.exposed.as_slice()
    } else {
        &[]
    };
    ContainerSummary {
        id: Some(record.id.clone()),
        names: Some(names(record)),
        image: Some(config.image.clone()),
        image_id: Some(record.image_id.clone()),
        command: Some(command(config)),
        created: Some(record.created.as_second()),
        ports: Some(ports::summary(exposed, published)),
        labels: Some(config.labels.clone().into_iter().collect()),
        state: Some(state(&record.phase)),
        status: Some(status(&record.phase, health, now)),
        host_config: Some(ContainerSummaryHostConfig {
            network_mode: Some(config.host.network.to_string()),
            ..ContainerSummaryHostConfig::default()
        }),
        network_settings: Some(ContainerSummaryNetworkSettings {
            networks: Some(networks(record)),
        }),
        mounts: Some(mounts::points(&record.mounts, volumes)),
        ..ContainerSummary::default()
    }
}

/// Words with spaces are in quotes, so that people can tell them apart.
fn command(config: &ContainerConfig) -> String {
    let words = config.entrypoint.iter().chain(&config.cmd).flatten();
    let quoted = words.map(|word| match word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn names(record: &Record) -> Vec<String> {
    vec![format!("/{}", record.name)]
}

/// Whether it is listed without being asked for all; one about to be started again is.
pub(crate) fn is_running(record: &Record) -> bool {
    matches!(
        record.phase,
        Phase::Running { .. } | Phase::Restarting { .. }
    )
}

fn state(phase: &Phase) -> ContainerSummaryStateEnum {
    match phase {
        Phase::Created | Phase::Exited { started: None, .. } => ContainerSummaryStateEnum::CREATED,
        Phase::Running { paused: true, .. } => ContainerSummaryStateEnum::PAUSED,
        Phase::Running { .. } => ContainerSummaryStateEnum::RUNNING,
        Phase::Restarting { .. } => ContainerSummaryStateEnum::RESTARTING,
        Phase::Exited { .. } => ContainerSummaryStateEnum::EXITED,
    }
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`.
fn status(phase: &Phase, health: Option<&Health>, now: Timestamp) -> String {
    match phase {
        Phase::Created | Phase::Exited { started: None, .. } => "Created".to_owned(),
        Phase::Running {
            started, paused, ..
        } => {
            let more = match paused {
                true => " (Paused)",
                false => health.map_or("", health::remark),
            };
            format!(
                "Up {}{more}",
                duration(now.as_second() - started.as_second())
            )
        }
        Phase::Restarting { code, finished, .. } => {
            format!(
                "Restarting ({code}) {} ago",
                duration(now.as_second() - finished.as_second())
            )
        }
        Phase::Exited { code, finished, .. } => {
            format!(
                "Exited ({code}) {} ago",
                duration(now.as_second() - finished.as_second())
            )
        }
    }
}

/// A duration in one unit, rounded as Docker does.
fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Refuses values of filters that cannot be any container's.
pub(crate) fn check(filters: &Filters) -> Result<(), Refusal> {
    if let Some(wrong) = filters
        .values("status")
        .find(|value| !STATUSES.contains(value))
    {
        let message = format!(
            "invalid filter 'status={wrong}': expected one of {}",
            STATUSES.join(", ")
        );
        return Err(Refusal::invalid(message));
    }
    if let Some(wrong) = filters
        .values("health")
        .find(|value| !HEALTH.contains(value))
    {
        return Err(Refusal::invalid(format!(
            "invalid filter 'health={wrong}': expected one of {}",
            HEALTH.join(", ")
        )));
    }
    match filters
        .values("exited")
        .find(|value| value.parse::<i32>().is_err())
    {
        Some(wrong) => Err(Refusal::invalid(format!(
            "invalid filter 'exited={wrong}': expected an exit code"
        ))),
        None => Ok(()),
    }
}

/// The ports of a container that are on the host while it runs.
fn published(record: &Record) -> impl Iterator<Item = Port> {
    let asked = record
        .config
        .host
        .publish
        .iter()
        .map(|binding| binding.port);
    let all = record.config.host.publish_all;
    asked.chain(record.config.exposed.iter().copied().filter(move |_| all))
}

/// Whether `wanted`, as `80`, `80-90` or `53/udp`, has the port.
fn is_port(port: Port, wanted: &str) -> bool {
    let (numbers, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    protocol == port.protocol.to_string()
        && range.is_some_and(|(first, last)| (first..=last).contains(&port.number))
}

/// Whether the filters let a container through; `images` are the ids of `ancestor` images.
pub(crate) fn accepts(
    filters: &Filters,
    record: &Record,
    health: Option<&Health>,
    images: &[String],
) -> bool {
    let exited = |code: &str| match &record.phase {
        Phase::Exited { code: own, .. } => code.parse() == Ok(*own),
        Phase::Created | Phase::Running { .. } | Phase::Restarting { .. } => false,
    };
    let in_network = |wanted: &str| {
        let networks = networks(record);
        networks.contains_key(wanted)
            || networks
                .values()
                .filter_map(|network| network.network_id.as_deref())
                .any(|id| id == wanted)
    };
    let no_task = |value: &str| matches!(value, "0" | "false" | "False");
    filters.any("status", |status| {
            state(&record.phase).to_string() == status
        })
        && filters.any("health", |wanted| {
            health.map_or("none", |health| health.status.word()) == wanted
        })
        && filters.any("exited", exited)
        && filters.any("network", in_network)
        && filters.any("isolation", |_| true) // which only other systems have
        && filters.any("expose", |wanted| {
            record.config.exposed.iter().any(|port| is_port(*port, wanted))
        })
        && filters.any("publish", |wanted| {
            published(record).any(|port| is_port(port, wanted))
        })
        && filters.any("volume", |wanted| {
            mounts::points(&record.mounts, Path::new("")).iter().any(|point| {
                let places = [&point.name, &point.source, &point.destination];
                places.into_iter().flatten().any(|place| place == wanted)
            })
        })
        && filters.any("is-task", no_task)
        && filters.any("ancestor", |image| {
            record.config.image == image || images.contains(&record.image_id)
        })
        && filters.labels(&record.config.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::container_view::tests::{record, time};

    #[test]
    fn the_status_is_made_for_people() {
        let now = time("2026-01-02T03:04:05Z");
        let ago =
            |seconds: i64| Timestamp::from_second(now.as_second() - seconds).expect("in range");
        let up = |seconds| {
            status(
                &Phase::Running {
                    pid: 1,
                    started: ago(seconds),
                    paused: false,
                },
                None,
                now,
            )
        };
        for (seconds, expected) in [
            (0, "Up Less than a second"),
            (1, "Up 1 second"),
            (59, "Up 59 seconds"),
            (60, "Up About a minute"),
            (150, "Up 2 minutes"),
            (3600, "Up About an hour"),
            (7200, "Up 2 hours"),
            (86400 * 3, "Up 3 days"),
            (86400 * 20, "Up 2 weeks"),
            (86400 * 90, "Up 3 months"),
            (86400 * 800, "Up 2 years"),
        ] {
            assert_eq!(up(seconds), expected);
        }
        let ended = |started| Phase::Exited {
            code: 2,
            started,
            finished: ago(3),
            oom: false,
            error: String::new(),
        };
        assert_eq!(
            status(&ended(Some(ago(9))), None, now),
            "Exited (2) 3 seconds ago"
        );
        assert_eq!(status(&ended(None), None, now), "Created");
        assert_eq!(status(&Phase::Created, None, now), "Created");
    }

    #[test]
    fn words_with_spaces_are_quoted() {
        let mut record = record(Phase::Created);
        record.config.cmd = Some(vec!["-c".to_owned(), "echo hi".to_owned()]);
        assert_eq!(command(&record.config), "/entry -c 'echo hi'");
    }

    #[test]
    fn filters_narrow_the_list() {
        let record = record(Phase::Created);
        let accepted = |text: &str| {
            let filters = Filters::parse(Some(text), FILTERS).expect("valid");
            accepts(&filters, &record, None, &["sha256:1234".to_owned()])
        };
        for (text, expected) in [
            (r#"{"status":["created"]}"#, true),
            (r#"{"status":["running"]}"#, false),
            (r#"{"network":["bridge"]}"#, true),
            (r#"{"network":["mesh"]}"#, false),
            (r#"{"exited":["0"]}"#, false),
            (r#"{"expose":["80"]}"#, true),
            (r#"{"expose":["79-81/tcp"]}"#, true),
            (r#"{"expose":["80/udp"]}"#, false),
            (r#"{"publish":["80"]}"#, false),
            (r#"{"volume":["/data"]}"#, false),
            (r#"{"ancestor":["anything"]}"#, true),
            (r#"{"label":["a"]}"#, false),
        ] {
            assert_eq!(accepted(text), expected, "{text}");
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        for text in [r#"{"status":["asleep"]}"#, r#"{"exited":["x"]}"#] {
            assert!(
                check(&Filters::parse(Some(text), FILTERS).expect("known keys")).is_err(),
                "{text}"
            );
        }
    }
}
