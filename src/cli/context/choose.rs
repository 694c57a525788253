//! Which daemon a command is for: by Docker's order of flags, environment and configuration.

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::store::{DEFAULT, DOCKER, Store};
use crate::cli::config_file::{self, ConfigFile};
use crate::cli::host::{DEFAULT_HOST, Host, VARIABLES};
use crate::cli::tls::{TlsArgs, TlsFiles};

/// Where `config.json` says which context is in use.
pub(super) const CURRENT: &str = "currentContext";

/// What the command line says of the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// `-H`.
    pub(crate) host: Option<Host>,
    /// `--context`.
    pub(crate) context: Option<String>,
    /// `--tlsverify` and its kin.
    pub(crate) tls: TlsArgs,
}

impl Target {
    /// The daemon that is meant.
    ///
    /// # Errors
    ///
    /// Flags that contradict each other, and a context that is not there or leads nowhere.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        match self.named()? {
            Some(host) => Ok(host),
            None => {
                let host = Host::choose(None, |name| std::env::var(name).ok())?;
                Ok(host.showing(self.files()?))
            }
        }
    }

    /// The name of the context in use.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be read.
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        current(self)
    }

    /// The daemon that flags or a context name; `None` if it is left to the environment.
    ///
    /// # Errors
    ///
    /// As [`Target::host`].
    pub(crate) fn named(&self) -> anyhow::Result<Option<Host>> {
        if self.host.is_some() && self.context.is_some() {
            bail!("conflicting options: cannot specify both --host and --context");
        }
        if let Some(host) = &self.host {
            return Ok(Some(host.clone().showing(self.files()?)));
        }
        let name = current(self)?;
        if name == DEFAULT {
            return Ok(None);
        }
        let meta = Store::own()
            .find(&name)
            .context("unable to resolve docker endpoint")?;
        let host: Result<Host, _> = meta.host().parse();
        let host = host.with_context(|| format!("context {name:?}"))?;
        let kept = TlsFiles::within(&Store::own().tls_directory(&name).join(DOCKER));
        let files = self.files()?.or(kept.ca.exists().then_some(kept));
        Ok(Some(host.showing(files)))
    }

    /// The certificates that flags and environment name, if they ask for TLS.
    fn files(&self) -> anyhow::Result<Option<TlsFiles>> {
        let variable = |name: &str| std::env::var(name).ok();
        self.tls.client(variable, &config_file::directory())
    }
}

/// The variable that says where the daemon is, whatever context is in use.
pub(super) fn overriding() -> Option<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    VARIABLES.into_iter().find(is_set)
}

/// What the default context leads to.
pub(super) fn of_environment(target: &Target) -> String {
    if let Some(host) = &target.host {
        return host.to_string();
    }
    let set = overriding().and_then(|name| std::env::var(name).ok());
    set.unwrap_or_else(|| DEFAULT_HOST.to_owned())
}

/// The name of the context in use, whether or not there is one of that name.
///
/// # Errors
///
/// A configuration that cannot be read.
pub(super) fn current(target: &Target) -> anyhow::Result<String> {
    let configured = || -> anyhow::Result<Option<String>> {
        let config = ConfigFile::read(&config_file::directory())?;
        let name = config.fields.get(CURRENT).and_then(Value::as_str);
        Ok(name.map(str::to_owned))
    };
    Ok(name(
        target,
        overriding().is_some(),
        std::env::var("DOCKER_CONTEXT").ok(),
        configured()?,
    ))
}

fn name(
    target: &Target,
    overridden: bool,
    variable: Option<String>,
    configured: Option<String>,
) -> String {
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    let default = || DEFAULT.to_owned();
    if let Some(name) = given(target.context.clone()) {
        return name;
    }
    if target.host.is_some() || overridden {
        return default();
    }
    given(variable)
        .or(given(configured))
        .unwrap_or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_then_hosts_then_the_variable_then_the_file() {
        let some = |text: &str| Some(text.to_owned());
        let flag = Target {
            context: some("flag"),
            ..Target::default()
        };
        let host = Target {
            host: "unix:///x".parse().ok(),
            ..Target::default()
        };
        let none = Target::default();
        assert_eq!(name(&flag, true, some("env"), some("file")), "flag");
        assert_eq!(name(&host, false, some("env"), some("file")), "default");
        assert_eq!(name(&none, true, some("env"), some("file")), "default");
        assert_eq!(name(&none, false, some("env"), some("file")), "env");
        assert_eq!(name(&none, false, some(""), some("file")), "file");
        assert_eq!(name(&none, false, None, None), "default");
    }
}
