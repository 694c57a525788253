//! Which endpoint a client's session goes to.

use std::net::SocketAddr;
use std::time::Instant;

use super::maglev::{Maglev, hash, mix};
use crate::Policy;
use crate::balance::{Balancer, Choice, NoChoice};

/// How often an ejected endpoint is passed over before any that is left will do.
const ATTEMPTS: usize = 32;

/// Chooses by the client's address and port, so that other ambassadors, and this one after a
/// restart, choose alike, and a change of the endpoints moves few clients.
#[derive(Debug, Default)]
pub(super) struct Picker {
    /// What the table was made from.
    revision: Option<u64>,
    endpoints: Vec<(SocketAddr, u32)>,
    maglev: Option<Maglev>,
}

impl Picker {
    /// Where an endpoint is ejected, its clients are spread over the others, again alike
    /// everywhere, and come back to it afterwards. A policy that was asked for is followed; the
    /// default, which goes by the time of connecting, says nothing about datagrams.
    pub(super) fn pick(
        &mut self,
        balancer: &Balancer,
        client: SocketAddr,
        now: Instant,
    ) -> Result<Choice, NoChoice> {
        let revision = balancer.revision();
        if self.revision != Some(revision) {
            self.endpoints = balancer.weights();
            // One is found without a table.
            let wanted = self.endpoints.len() > 1 && balancer.policy() == Policy::P2c;
            self.maglev = wanted.then(|| Maglev::new(&self.endpoints));
            self.revision = Some(revision);
        }
        if let Some(maglev) = &self.maglev {
            let mut hash = hash(client);
            for _ in 0..ATTEMPTS {
                let Some(index) = maglev.choose(hash) else {
                    break;
                };
                if let Some(choice) = balancer.take(self.endpoints[index].0, now) {
                    return Ok(choice);
                }
                hash = mix(hash);
            }
        }
        balancer.choose(client.ip(), &[], now)
    }
}
