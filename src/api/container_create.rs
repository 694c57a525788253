//! The body of `POST /containers/create`, made into the daemon's own configuration or refused.

use std::collections::BTreeMap;

use bollard_stubs::models::ContainerCreateBody;
use serde_json::{Map, Value};

use super::endpoint;
use super::error::ApiError;
use super::health;
use super::host_options::host_options;
use super::{mounts, ports, restart_policy};
use crate::daemon::config::{ContainerConfig, NetworkMode};
use crate::daemon::refusal::Refusal;

/// Reads the body as Docker does, which is laxer than its types: commands may be strings, and empty objects `null`.
pub(crate) fn parse(mut body: Value) -> Result<ContainerConfig, ApiError> {
    let Some(fields) = body.as_object_mut() else {
        return Err(ApiError::bad_request(
            "config cannot be empty in order to create a container",
        ));
    };
    for key in ["Cmd", "Entrypoint"] {
        if let Some(value @ Value::String(_)) = fields.get_mut(key) {
            *value = Value::Array(vec![value.take()]);
        }
    }
    for key in ["ExposedPorts", "Volumes"] {
        if let Some(Value::Object(entries)) = fields.get_mut(key) {
            entries
                .values_mut()
                .filter(|value| value.is_null())
                .for_each(|value| *value = Map::new().into());
        }
    }
    restart_policy::check_name(&body["HostConfig"]["RestartPolicy"])?;
    let body = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    Ok(config(body)?)
}

fn config(body: ContainerCreateBody) -> Result<ContainerConfig, Refusal> {
    refuse_unbuilt(&body)?;
    let host_config = body.host_config.unwrap_or_default();
    let tty = body.tty.unwrap_or_default();
    let terminal_size = terminal_size(host_config.console_size.as_deref())?.filter(|_| tty);
    let host = host_options(host_config)?;
    let mut endpoints = body
        .networking_config
        .and_then(|networking| networking.endpoints_config)
        .unwrap_or_default();
    endpoint::share_mac(body.mac_address, &mut endpoints, &host.network)?;
    let config = ContainerConfig {
        image: body
            .image
            .filter(|image| !image.is_empty())
            .ok_or_else(|| Refusal::invalid("no image specified"))?,
        hostname: hostname(body.hostname.unwrap_or_default())?,
        domainname: hostname(body.domainname.unwrap_or_default())?,
        user: body.user.unwrap_or_default(),
        env: environment(body.env.unwrap_or_default())?,
        entrypoint: body.entrypoint.map(command).transpose()?,
        cmd: body.cmd.map(arguments).transpose()?,
        working_dir: working_dir(body.working_dir.unwrap_or_default())?,
        labels: sorted(body.labels),
        exposed: ports::exposed(body.exposed_ports)?,
        tty,
        terminal_size,
        open_stdin: body.open_stdin.unwrap_or_default(),
        stdin_once: body.stdin_once.unwrap_or_default(),
        attach_stdin: body.attach_stdin.unwrap_or_default(),
        attach_stdout: body.attach_stdout.unwrap_or_default(),
        attach_stderr: body.attach_stderr.unwrap_or_default(),
        stop_signal: body.stop_signal.unwrap_or_default(),
        stop_timeout: body.stop_timeout,
        volumes: mounts::anonymous_targets(body.volumes.into_iter().flatten().map(|(at, _)| at))?,
        endpoints: endpoint::requests(endpoints, &host.network)?,
        healthcheck: body.healthcheck.map(health::check).transpose()?,
        left_first: false,
        files: Vec::new(),
        host,
    };
    check_combination(&config)?;
    Ok(config)
}

/// `ConsoleSize`: rows and columns; two zeros, or none, leave it to the kernel.
pub(super) fn terminal_size(asked: Option<&[usize]>) -> Result<Option<(u16, u16)>, Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid ConsoleSize {:?}: expected rows and columns, each below 65536",
            asked.unwrap_or_default()
        ))
    };
    let size = match asked {
        None | Some([] | [0, 0]) => return Ok(None),
        Some([rows, columns]) => (u16::try_from(*rows), u16::try_from(*columns)),
        Some(_) => return Err(wrong()),
    };
    match size {
        (Ok(rows), Ok(columns)) => Ok(Some((rows, columns))),
        _ => Err(wrong()),
    }
}

fn refuse_unbuilt(body: &ContainerCreateBody) -> Result<(), Refusal> {
    let asked = [(
        body.network_disabled == Some(true),
        "NetworkDisabled; use --network none",
    )];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Refusal::unsupported(format!("not built: {flag}"))),
        None => Ok(()),
    }
}

fn hostname(text: String) -> Result<String, Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.len() <= 63 && text.bytes().all(allowed) {
        return Ok(text);
    }
    let message = format!(
        "invalid hostname format: {text}: at most 63 letters, digits, dots, hyphens and underscores"
    );
    Err(Refusal::invalid(message))
}

fn environment(env: Vec<String>) -> Result<Vec<String>, Refusal> {
    match env.iter().find(|variable| {
        variable.is_empty() || variable.starts_with('=') || variable.contains('\0')
    }) {
        Some(variable) => Err(Refusal::invalid(format!(
            "invalid environment variable: {variable:?}: expected NAME=VALUE"
        ))),
        None => Ok(env),
    }
}

/// An entrypoint of one empty string means none, as `--entrypoint ""` sends it.
fn command(words: Vec<String>) -> Result<Vec<String>, Refusal> {
    match words.as_slice() {
        [word] if word.is_empty() => Ok(Vec::new()),
        _ => arguments(words),
    }
}

fn arguments(words: Vec<String>) -> Result<Vec<String>, Refusal> {
    match words.iter().find(|word| word.contains('\0')) {
        Some(word) => Err(Refusal::invalid(format!(
            "invalid argument {word:?}: it contains a NUL byte"
        ))),
        None => Ok(words),
    }
}

fn working_dir(path: String) -> Result<String, Refusal> {
    if path.is_empty() || path.starts_with('/') && !path.contains('\0') {
        return Ok(path);
    }
    let message =
        format!("the working directory '{path}' is invalid, it needs to be an absolute path");
    Err(Refusal::invalid(message))
}

fn check_combination(config: &ContainerConfig) -> Result<(), Refusal> {
    let host = &config.host;
    let conflict = match &host.network {
        NetworkMode::Container(_) => [
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (!host.links.is_empty(), "container type network can't be used with links. This would result in undefined behavior"),
            (!host.dns.is_empty(), "dns and the network mode"),
            (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
            (!host.publish.is_empty() || host.publish_all, "port publishing and the container type network mode"),
            (!config.exposed.is_empty(), "port exposing and the container type network mode"),
        ]
        .into_iter()
        .find(|(wrong, _)| *wrong),
        NetworkMode::Host if !host.links.is_empty() => {
            Some((true, "host type networking can't be used with links. This would result in undefined behavior"))
        }
        _ => None,
    };
    match conflict {
        Some((_, what)) => Err(Refusal::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// Checks a container's name and takes off the slash that Docker puts before it.
pub(crate) fn name(text: &str) -> Result<&str, Refusal> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    {
        return Ok(name);
    }
    Err(Refusal::invalid(format!(
        "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Labels as a sorted map, whatever order they came in.
pub(crate) fn sorted<V>(map: Option<impl IntoIterator<Item = (String, V)>>) -> BTreeMap<String, V> {
    map.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
