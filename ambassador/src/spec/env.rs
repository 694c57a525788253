//! The environment that Docker gives an ambassador for each of its links.

use super::text::{self, printable};
use super::{EdgeSpec, ForwardSpec, ParseError, Target};
use crate::{Balance, Limits, Listen, Protocol};

/// What an environment asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FromEnv {
    /// The forwards, each named after its variable.
    pub forwards: Vec<ForwardSpec>,
    /// What was passed over, as sentences for a log.
    pub warnings: Vec<String>,
}

/// Why an environment makes no forwards.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EnvError {
    /// A variable that asks for a forward does not say whereto.
    #[error(
        "variable {name}={}: {source}; write {name}={protocol}://HOST:PORT",
        printable(.value),
        name = printable(.variable),
    )]
    Value {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What its name promises.
        protocol: Protocol,
        /// What is wrong.
        source: ParseError,
    },
    /// The port in a variable's name is none.
    #[error("variable {}: {source}; write NAME_PORT_<1 to 65535>_TCP or _UDP", printable(.variable))]
    Port {
        /// The variable.
        variable: String,
        /// What is wrong.
        source: ParseError,
    },
    /// No variable asks for a forward.
    #[error(
        "no variable says what to forward; set one such as REDIS_PORT_6379_TCP=tcp://10.0.0.5:6379 \
         or DNS_PORT_53_UDP=udp://10.0.0.5:53, link a container, or give HOST PORT"
    )]
    Nothing,
}

/// Reads `<ANY>_PORT_<n>_TCP=tcp://HOST:PORT` and `<ANY>_PORT_<n>_UDP=udp://HOST:PORT`.
///
/// Each makes a listener on port `n` at every address. What a linked container has in its own
/// environment, `<ANY>_ENV_<ANY>`, is none of our business. When two variables ask for one port,
/// the first one has it.
///
/// # Errors
///
/// [`EnvError`] if such a variable is malformed, or there is none.
pub fn from_env(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<FromEnv, EnvError> {
    let mut found = FromEnv::default();
    for (variable, value) in variables {
        let Some((number, protocol)) = asks(&variable) else {
            continue;
        };
        let port = text::port(number).map_err(|source| EnvError::Port {
            variable: variable.clone(),
            source,
        })?;
        let listen = text::everywhere(protocol, port);
        let spec = forward(variable, value, listen)?;
        match found.forwards.iter().find(|first| first.listen == listen) {
            Some(first) => found.warnings.push(format!(
                "{} is passed over, for {} has port {port} already",
                printable(&spec.name),
                printable(&first.name)
            )),
            None => found.forwards.push(spec),
        }
    }
    if found.forwards.is_empty() {
        return Err(EnvError::Nothing);
    }
    Ok(found)
}

/// The port and the protocol that a variable's name asks for.
fn asks(variable: &str) -> Option<(&str, Protocol)> {
    let tcp = variable
        .strip_suffix("_TCP")
        .map(|rest| (rest, Protocol::Tcp));
    let udp = || Some((variable.strip_suffix("_UDP")?, Protocol::Udp));
    let (rest, protocol) = tcp.or_else(udp)?;
    let (name, number) = rest.rsplit_once("_PORT_")?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !name.contains("_ENV_") && !name.ends_with("_ENV")).then_some((number, protocol))
}

fn forward(variable: String, value: String, listen: Listen) -> Result<ForwardSpec, EnvError> {
    let protocol = listen.protocol;
    let prefix = match protocol {
        Protocol::Tcp => "tcp://",
        Protocol::Udp => "udp://",
    };
    let upstream = match value.strip_prefix(prefix) {
        Some(rest) => text::host_port(rest),
        None => Err(ParseError::Scheme {
            text: value.clone(),
            expected: prefix,
        }),
    };
    match upstream {
        Ok(upstream) => Ok(ForwardSpec {
            name: variable,
            listen,
            target: Target::Host(vec![upstream.into()]),
            limits: Limits::default(),
            edge: EdgeSpec::default(),
            balance: Balance::default(),
            direct: Vec::new(),
            not_direct: None,
        }),
        Err(source) => Err(EnvError::Value {
            variable,
            value,
            protocol,
            source,
        }),
    }
}
