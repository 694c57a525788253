//! Ports as they are asked for by name (RFC 2782).

use std::net::IpAddr;

use hickory_proto::{
    op::Query,
    rr::{Name, RData, Record, rdata::SRV},
};

use super::{
    Offer,
    reply::{TTL, address_record},
};
use crate::Protocol;

/// `_PORT._PROTOCOL.NAME`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Asked<'a> {
    /// A number, or what the container calls the port.
    port: &'a str,
    protocol: Protocol,
    pub(super) name: &'a str,
}

/// Where an offer is found.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) target: String,
    pub(super) port: u16,
    pub(super) address: IpAddr,
}

impl<'a> Asked<'a> {
    /// `None` if the name is not that of a port.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let mut labels = name.splitn(3, '.');
        let port = labels.next()?.strip_prefix('_')?;
        let protocol = labels.next()?;
        let protocol = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|known| protocol.eq_ignore_ascii_case(&format!("_{known}")))?;
        let name = labels.next().filter(|name| !name.is_empty())?;
        Some(Self {
            port,
            protocol,
            name,
        })
    }

    pub(super) fn fits(&self, offer: &Offer) -> bool {
        let is_called = |name: &String| name.eq_ignore_ascii_case(self.port);
        offer.protocol == self.protocol
            && (offer.port.to_string() == self.port || offer.name.as_ref().is_some_and(is_called))
    }
}

/// One record for each target and port, and beside them the targets' addresses, so that nobody has to ask again.
pub(super) fn records(question: &Query, mut places: Vec<Place>) -> (Vec<Record>, Vec<Record>) {
    places.sort();
    places.dedup();
    let (mut answers, mut addresses) = (Vec::<Record>::new(), Vec::<Record>::new());
    for place in places {
        let Ok(target) = Name::from_ascii(format!("{}.", place.target)) else {
            continue; // it fits no packet
        };
        let srv = RData::SRV(SRV::new(0, 0, place.port, target.clone()));
        let srv = Record::from_rdata(question.name().clone(), TTL, srv);
        if answers.last() != Some(&srv) {
            answers.push(srv);
        }
        let address = address_record(target, place.address);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    (answers, addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_asked_for_by_number_or_name() {
        let asked = |port, name| {
            Some(Asked {
                port,
                protocol: Protocol::Tcp,
                name,
            })
        };
        assert_eq!(Asked::parse("_6379._tcp.db"), asked("6379", "db"));
        assert_eq!(Asked::parse("_http._TCP.a.mesh."), asked("http", "a.mesh."));
        for wrong in [
            "",
            "db",
            "_80._tcp",
            "_80._tcp.",
            "80._tcp.db",
            "_80._icmp.db",
        ] {
            assert_eq!(Asked::parse(wrong), None, "{wrong:?}");
        }
        let offer = Offer {
            name: Some("http".to_owned()),
            protocol: Protocol::Tcp,
            port: 80,
        };
        for (name, fits) in [
            ("_80._tcp.db", true),
            ("_HTTP._tcp.db", true),
            ("_http._udp.db", false),
            ("_080._tcp.db", false),
            ("_._tcp.db", false),
        ] {
            let asked = Asked::parse(name);
            assert_eq!(
                asked.is_some_and(|asked| asked.fits(&offer)),
                fits,
                "{name}"
            );
        }
    }
}
