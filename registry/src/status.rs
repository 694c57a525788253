//! How the members of the registry are.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::client::Registry;
use crate::connect::ConnectOptions;

/// What is at one of the endpoints.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The endpoint as given.
    pub endpoint: String,
    /// How it is, or why it does not say so.
    pub health: Result<Health, String>,
}

/// A member that answers.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its identifier in the cluster.
    pub id: u64,
    /// Its name there, if it has one.
    pub name: String,
    /// The version of etcd that it is, or speaks as.
    pub version: String,
    /// Whether it leads the cluster; none if nobody does.
    pub leader: Option<bool>,
    /// The last revision it has.
    pub revision: i64,
    /// The last entry of the cluster's log that it has applied.
    pub applied: u64,
    /// By how many entries some other member is ahead of it.
    pub lag: u64,
    /// Leases there are.
    pub leases: usize,
    /// Bytes of its store.
    pub size: i64,
    /// What it complains of, as `NOSPACE`.
    pub errors: Vec<String>,
}

impl Registry {
    /// Asks each of the endpoints by itself how it is, all at once and each for no longer than the time-out.
    pub async fn status(&self) -> Vec<MemberStatus> {
        let mut asked = JoinSet::new();
        let here = self.options();
        for (place, endpoint) in here.endpoints.iter().enumerate() {
            let endpoint = endpoint.clone();
            let options = ConnectOptions {
                endpoints: vec![endpoint.clone()],
                ..(*here).clone()
            };
            asked.spawn(async move {
                let asked = tokio::time::timeout(options.timeout, ask(&options));
                let health = asked
                    .await
                    .unwrap_or_else(|_| Err(format!("no answer within {:?}", options.timeout)));
                (place, MemberStatus { endpoint, health })
            });
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((place, status)) => answers.insert(place, status),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
        }
        let mut members: Vec<MemberStatus> = answers.into_values().collect();
        let healthy = || {
            members
                .iter()
                .filter_map(|member| member.health.as_ref().ok())
        };
        let furthest = healthy().map(|health| health.applied).max();
        for health in members.iter_mut().filter_map(|it| it.health.as_mut().ok()) {
            health.lag = furthest.unwrap_or_default() - health.applied;
        }
        members
    }
}

/// Asks a member, the only endpoint in `options`.
async fn ask(options: &ConnectOptions) -> Result<Health, String> {
    let registry = Registry::connect_here(options)
        .await
        .map_err(|error| chain(&error))?;
    let told = |error: etcd_client::Error| chain(&*crate::client::cause(error));
    let mut client = registry.client();
    let status = client.status().await.map_err(told)?;
    let members = client.member_list().await.map_err(told)?;
    let leases = client.leases().await.map_err(told)?;
    let header = status.header();
    let id = header.map_or(0, etcd_client::ResponseHeader::member_id);
    let named = members.members().iter().find(|member| member.id() == id);
    Ok(Health {
        id,
        name: named.map_or_else(String::new, |member| member.name().to_owned()),
        version: status.version().to_owned(),
        leader: (status.leader() != 0).then_some(status.leader() == id),
        revision: header.map_or(0, etcd_client::ResponseHeader::revision),
        applied: status.raft_applied_index(),
        lag: 0,
        leases: leases.leases().len(),
        size: status.db_size(),
        errors: status.errors().to_vec(),
    })
}

/// An error with all that it stems from.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}
