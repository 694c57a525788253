//! `-p` of services: short as for containers, or in words.

use std::str::FromStr;

use bollard_stubs::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
};

use super::port::{InvalidPort, Publish};

/// `8080:80`, or `published=8080,target=80,protocol=tcp,mode=ingress`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServicePort(Vec<EndpointPortConfig>);

/// Not a port of a service.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidServicePort {
    #[error(transparent)]
    Short(#[from] InvalidPort),
    #[error(
        "invalid field {field} in {text:?}: expected target, published, protocol or mode, with a value"
    )]
    Field { field: String, text: String },
    #[error("invalid {key} {value:?} in {text:?}: expected {expected}")]
    Value {
        key: &'static str,
        value: String,
        text: String,
        expected: &'static str,
    },
    #[error("missing mandatory field 'target' in {0:?}")]
    NoTarget(String),
}

const PORT: &str = "a number from 1 to 65535";

impl ServicePort {
    /// Each port, as the API wants it.
    pub(crate) fn ports(&self) -> &[EndpointPortConfig] {
        &self.0
    }

    fn short(text: &str) -> Result<Vec<EndpointPortConfig>, InvalidPort> {
        let publish: Publish = text.parse()?;
        let mut ports = Vec::new();
        for binding in publish.bindings() {
            let (target, protocol) = binding
                .port
                .split_once('/')
                .unwrap_or((&binding.port, "tcp"));
            let (first, last) = binding
                .host_port
                .split_once('-')
                .unwrap_or((&binding.host_port, &binding.host_port));
            let number = |text: &str| text.parse::<u16>().unwrap_or_default();
            for published in number(first)..=number(last) {
                ports.push(EndpointPortConfig {
                    protocol: parse_protocol(protocol),
                    target_port: target.parse().ok(),
                    published_port: (published > 0).then_some(published.into()),
                    publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
                    name: None,
                });
            }
        }
        Ok(ports)
    }

    fn long(text: &str) -> Result<EndpointPortConfig, InvalidServicePort> {
        let mut port = EndpointPortConfig {
            protocol: Some(EndpointPortConfigProtocolEnum::TCP),
            publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
            ..EndpointPortConfig::default()
        };
        for field in text.split(',') {
            let wrong = |key, value: &str, expected| InvalidServicePort::Value {
                key,
                value: value.to_owned(),
                text: text.to_owned(),
                expected,
            };
            let number = |key, value: &str| match value.parse::<u16>() {
                Ok(number) if number > 0 => Ok(Some(i64::from(number))),
                _ => Err(wrong(key, value, PORT)),
            };
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            match key.trim().to_ascii_lowercase().as_str() {
                "target" => port.target_port = number("target", value)?,
                "published" => port.published_port = number("published", value)?,
                "protocol" => {
                    let found = parse_protocol(value);
                    port.protocol =
                        Some(found.ok_or_else(|| wrong("protocol", value, "tcp, udp or sctp"))?);
                }
                "mode" => {
                    port.publish_mode = Some(match value {
                        "host" => EndpointPortConfigPublishModeEnum::HOST,
                        "ingress" => EndpointPortConfigPublishModeEnum::INGRESS,
                        _ => return Err(wrong("mode", value, "ingress or host")),
                    });
                }
                _ => {
                    return Err(InvalidServicePort::Field {
                        field: field.to_owned(),
                        text: text.to_owned(),
                    });
                }
            }
        }
        match port.target_port {
            Some(_) => Ok(port),
            None => Err(InvalidServicePort::NoTarget(text.to_owned())),
        }
    }
}

impl FromStr for ServicePort {
    type Err = InvalidServicePort;

    fn from_str(text: &str) -> Result<Self, InvalidServicePort> {
        Ok(Self(match text.contains('=') {
            true => vec![Self::long(text)?],
            false => Self::short(text)?,
        }))
    }
}

fn parse_protocol(text: &str) -> Option<EndpointPortConfigProtocolEnum> {
    Some(match text.to_ascii_lowercase().as_str() {
        "tcp" => EndpointPortConfigProtocolEnum::TCP,
        "udp" => EndpointPortConfigProtocolEnum::UDP,
        "sctp" => EndpointPortConfigProtocolEnum::SCTP,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<(Option<i64>, Option<i64>, String, String)> {
        let parsed: ServicePort = text.parse().expect(text);
        let ports = parsed.0.into_iter().map(|port| {
            let protocol = port.protocol.map(|it| it.to_string()).unwrap_or_default();
            let mode = port
                .publish_mode
                .map(|it| it.to_string())
                .unwrap_or_default();
            (port.published_port, port.target_port, protocol, mode)
        });
        ports.collect()
    }

    #[test]
    fn ports() {
        let port = |published, target, protocol: &str, mode: &str| {
            (
                published,
                Some(target),
                protocol.to_owned(),
                mode.to_owned(),
            )
        };
        assert_eq!(parse("80"), [port(None, 80, "tcp", "ingress")]);
        assert_eq!(
            parse("8080:80/udp"),
            [port(Some(8080), 80, "udp", "ingress")]
        );
        assert_eq!(
            parse("8000-8001:80"),
            [
                port(Some(8000), 80, "tcp", "ingress"),
                port(Some(8001), 80, "tcp", "ingress")
            ]
        );
        assert_eq!(
            parse("mode=host,target=80,published=8080"),
            [port(Some(8080), 80, "tcp", "host")]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| text.parse::<ServicePort>().expect_err(text).to_string();
        assert!(wrong("published=80").starts_with("missing mandatory field 'target'"));
        assert!(wrong("target=x").contains("invalid target \"x\""));
        assert!(wrong("target=80,mode=vip").contains("expected ingress or host"));
        assert!(wrong("target=80,foo=1").starts_with("invalid field foo=1"));
        assert!(wrong("80:x").starts_with("invalid containerPort"));
    }
}
