//! What hosts ask each other, by way of the registry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context as _;
use nuncio_overlay::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Asked, Daemon, Family, Hop, PATIENCE, PATIENCE_FOR_BOTH, Why, begins};
use crate::daemon::container::Container;
use crate::daemon::record::Endpoint;
use crate::daemon::refusal::Refusal;

/// A container's place in a network.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct EndpointAt {
    pub(super) network: String,
    pub(super) address: Ipv4Addr,
    /// If the network carries IPv6.
    #[serde(default)]
    pub(super) address_v6: Option<Ipv6Addr>,
}

impl EndpointAt {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self {
            network: endpoint.network_id.clone(),
            address: endpoint.address,
            address_v6: endpoint.v6.map(|v6| v6.address),
        }
    }

    pub(super) fn address_of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(self.address.into()),
            Family::V6 => self.address_v6.map(IpAddr::V6),
        }
    }
}

/// What the host sees of a container that another one wants to reach.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct EndQuestion {
    pub(super) container: String,
    /// Where those are who want to reach it.
    pub(super) from: Vec<EndpointAt>,
    pub(super) port: Option<(String, u16)>,
    #[serde(default)]
    pub(super) family: Family,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct EndAnswer {
    pub(super) name: String,
    /// Where it is, whether or not the asker is in those networks.
    pub(super) endpoints: Vec<EndpointAt>,
    pub(super) hops: Vec<Hop>,
}

/// The whole way, from a container of the host that is asked.
#[derive(Debug, Deserialize, Serialize)]
struct WayQuestion {
    from: String,
    to: String,
    port: Option<(String, u16)>,
    #[serde(default)]
    family: Option<Family>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", tag = "ask")]
enum Question {
    End(EndQuestion),
    Way(WayQuestion),
    /// What the host knows of the map.
    Map {
        history: bool,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", tag = "answer")]
enum Answer {
    End(EndAnswer),
    Way(Why),
    Map {
        part: Value,
    },
    /// No such container.
    Nobody,
    Failed {
        error: String,
    },
}

pub(super) fn wire_of(port: Option<(Protocol, u16)>) -> Option<(String, u16)> {
    port.map(|(protocol, number)| (protocol.to_string(), number))
}

fn port_of(wire: Option<&(String, u16)>) -> Option<(Protocol, u16)> {
    wire.map(|(protocol, number)| match protocol.as_str() {
        "udp" => (Protocol::Udp, *number),
        _ => (Protocol::Tcp, *number),
    })
}

/// Tells other hosts what they ask, for as long as this is polled.
pub(in crate::daemon) async fn answer_questions(daemon: Arc<Daemon>) {
    let registry = daemon.registry.clone();
    let node = daemon.node.id.clone();
    let answer = |question: String| {
        let daemon = Arc::clone(&daemon);
        async move {
            let answer = daemon.answer(&question).await;
            let answer = answer.unwrap_or_else(|error| Answer::Failed {
                error: format!("{error:#}"),
            });
            serde_json::to_string(&answer).unwrap_or_default()
        }
    };
    registry.answer(&node, answer).await;
}

impl Daemon {
    async fn answer(&self, question: &str) -> anyhow::Result<Answer> {
        match serde_json::from_str(question).context("a question of another version")? {
            Question::End(question) => {
                let named = self.container_exactly(&question.container);
                let Some(container) = named.or_else(|| self.container_begun(&question.container))
                else {
                    return Ok(Answer::Nobody);
                };
                let port = port_of(question.port.as_ref());
                let answer = self.end(&container, &question, port).await?;
                Ok(Answer::End(answer))
            }
            Question::Way(question) => {
                let Ok(from) = self.container(&question.from) else {
                    return Ok(Answer::Nobody);
                };
                let asked = Asked {
                    port: port_of(question.port.as_ref()),
                    from: question.from,
                    to: question.to,
                    family: question.family,
                };
                let why = Box::pin(self.why_from_here(&from.view(), &asked)).await?;
                Ok(Answer::Way(why))
            }
            Question::Map { history } => Ok(Answer::Map {
                part: self.map_part(history).await?,
            }),
        }
    }

    /// All hosts may be asked for a name: ids that happen to begin like a short one are not meant.
    fn container_begun(&self, wanted: &str) -> Option<Arc<Container>> {
        let found = self.container(wanted).ok()?;
        begins(wanted, &found.id).then_some(found)
    }

    async fn question(&self, node: &str, question: &Question) -> anyhow::Result<Answer> {
        let patience = match question {
            Question::End(_) | Question::Map { .. } => PATIENCE,
            Question::Way(_) => PATIENCE_FOR_BOTH,
        };
        let question = serde_json::to_string(question)?;
        let answer = self.registry.ask(node, &question, patience).await?;
        serde_json::from_str(&answer).context("an answer of another version")
    }

    /// What `node` knows of the map, best of all hosts.
    pub(in crate::daemon) async fn ask_map(
        &self,
        node: &str,
        history: bool,
    ) -> anyhow::Result<Value> {
        match self.question(node, &Question::Map { history }).await? {
            Answer::Map { part } => Ok(part),
            Answer::Failed { error } => anyhow::bail!("{error}"),
            _ => anyhow::bail!("an answer to another question"),
        }
    }

    /// What `node` sees of a container; `None` if it has none of that name.
    pub(super) async fn ask_end(
        &self,
        node: &str,
        question: EndQuestion,
    ) -> anyhow::Result<Option<EndAnswer>> {
        match self.question(node, &Question::End(question)).await? {
            Answer::End(answer) => Ok(Some(answer)),
            Answer::Nobody => Ok(None),
            Answer::Failed { error } => anyhow::bail!("{error}"),
            Answer::Way(_) | Answer::Map { .. } => anyhow::bail!("an answer to another question"),
        }
    }

    /// The way from a container of `node`, as that host walks it.
    pub(super) async fn why_from(&self, node: &str, asked: &Asked) -> anyhow::Result<Why> {
        let question = Question::Way(WayQuestion {
            from: asked.from.clone(),
            to: asked.to.clone(),
            port: wire_of(asked.port),
            family: asked.family,
        });
        match self.question(node, &question).await? {
            Answer::Way(why) => Ok(why),
            Answer::Failed { error } => Err(Refusal::not_found(error).into()),
            Answer::Nobody | Answer::End(_) | Answer::Map { .. } => {
                Err(Refusal::not_found(format!("no such container: {}", asked.from)).into())
            }
        }
    }
}
