//! The answer to by far the most queries: one name's addresses. It is put together of the query's own bytes, and is to the
//! last of them what [`super::reply`] makes of it in general.

use std::net::IpAddr;

use super::{
    lookup::Table,
    reply::{HEADER, LEAST_PAYLOAD, PAYLOAD, TTL, Transport, turn},
};

/// Types and a class of RFC 1035, 3596 and 6891.
const A: u16 = 1;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const IN: u16 = 1;
/// Where the question's name is, as a name that is not written once more (RFC 1035 §4.1.4).
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Bits of the header's third and fourth byte (RFC 1035 §4.1.1, RFC 4035 §3.2).
const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const CHECKING_DISABLED: u8 = 0x10;

/// What is asked, of a query that asks nothing else.
struct Question {
    /// In lower case, without a dot at the end.
    name: String,
    v6: bool,
    /// Where it ends.
    end: usize,
    /// The payload that the client takes, if it says so by EDNS.
    payload: Option<u16>,
}

/// The answer, if it is as simple as that.
pub(super) fn answer(
    table: &Table,
    subscriber: &str,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let question = Question::parse(query)?;
    let subscriber = table.subscriber(subscriber)?;
    let addresses = table.named(subscriber, &question.name)?;
    let fits = |address: &&IpAddr| address.is_ipv6() == question.v6;
    let count = addresses.iter().filter(fits).count();
    let turned = addresses.iter().filter(fits).cycle().skip(turn(count));
    let mut out = question.begin(query, u16::try_from(count).ok()?);
    for address in turned.take(count) {
        out.extend(SAME_NAME);
        out.extend((if question.v6 { AAAA } else { A }).to_be_bytes());
        out.extend(IN.to_be_bytes());
        out.extend(TTL.to_be_bytes());
        match address {
            IpAddr::V4(address) => {
                out.extend([0, 4]);
                out.extend(address.octets());
            }
            IpAddr::V6(address) => {
                out.extend([0, 16]);
                out.extend(address.octets());
            }
        }
    }
    if question.payload.is_some() {
        out.push(0);
        out.extend(OPT.to_be_bytes());
        out.extend(PAYLOAD.to_be_bytes());
        out.extend([0; 6]);
    }
    let payload = question.payload.unwrap_or(LEAST_PAYLOAD);
    let most = match transport {
        Transport::Udp => payload.clamp(LEAST_PAYLOAD, PAYLOAD),
        Transport::Tcp => u16::MAX,
    };
    (out.len() <= most.into()).then_some(out)
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        let header = query.get(..HEADER)?;
        let [.., flags, more] = header[..4] else {
            return None;
        };
        let is_plain = flags & !RECURSION_DESIRED == 0 && more & !CHECKING_DISABLED == 0;
        let [0, 1, 0, 0, 0, 0, 0, extra @ (0 | 1)] = header[4..] else {
            return None;
        };
        if !is_plain {
            return None;
        }
        let mut name = String::with_capacity(64);
        let mut at = HEADER;
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = query.get(at..at + length).filter(|_| length < 64)?;
            let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            if !label.iter().all(is_usual) || name.len() + length > 253 {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(
                label
                    .iter()
                    .map(|byte| char::from(byte.to_ascii_lowercase())),
            );
            at += length;
        }
        // Ports, and names of addresses, are asked for otherwise.
        if name.starts_with('_') || name.ends_with(".arpa") {
            return None;
        }
        let word = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
        let v6 = match word(at)? {
            A => false,
            AAAA => true,
            _ => return None,
        };
        let end = at + 4;
        if word(at + 2)? != IN {
            return None;
        }
        let payload = match (extra, query.get(end..)?) {
            (0, []) => None,
            // Version 0, no flags and no options.
            (1, [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]) => Some(u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        Some(Self {
            name,
            v6,
            end,
            payload,
        })
    }

    /// The answer's header and question, with so many records to follow.
    fn begin(&self, query: &[u8], count: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(usize::from(PAYLOAD));
        let (flags, more) = (query[2], query[3]);
        out.extend(&query[..2]);
        out.push(RESPONSE | AUTHORITATIVE | flags & RECURSION_DESIRED);
        out.push(RECURSION_AVAILABLE | more & CHECKING_DISABLED);
        out.extend([0, 1]);
        out.extend(count.to_be_bytes());
        out.extend([0, 0, 0, self.payload.is_some().into()]);
        out.extend(&query[HEADER..self.end]);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use hickory_proto::{
        op::{Edns, Message, Query},
        rr::{Name, RecordType},
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::names::reply::{Reply, in_general};

    fn table() -> Table {
        let many: Vec<_> = (1..=60).map(|n| format!("10.0.9.{n}")).collect();
        let document = json!({
            "zones": { "n": { "domain": "mesh", "names": {
                "db": ["10.0.1.2"], "both": ["10.0.1.3", "fd00::3"], "six": ["fd00::4"], "idle": [], "many": many,
            } } },
            "search": ["example.org"],
            "upstreams": ["192.0.2.53:53"],
            "subscribers": [{ "id": "a", "netns": "/a", "networks": ["n"] }],
        });
        Table::new(serde_json::from_value(document).unwrap())
    }

    fn query(name: &str, kind: RecordType, payload: Option<u16>, bits: [bool; 3]) -> Vec<u8> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        query.metadata.id = 0xbeef;
        [
            query.metadata.recursion_desired,
            query.metadata.checking_disabled,
            query.metadata.authentic_data,
        ] = bits;
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            query.set_edns(edns);
        }
        query.to_vec().unwrap()
    }

    fn names() -> impl Strategy<Value = &'static str> {
        let names = [
            "db.",
            "DB.mesh.",
            "both.",
            "six.Example.org.",
            "idle.",
            "nobody.",
            "example.com.",
            "_80._tcp.db.",
            "2.1.0.10.in-addr.arpa.",
            ".",
        ];
        prop::sample::select(names.to_vec())
    }

    fn kinds() -> impl Strategy<Value = RecordType> {
        use RecordType::{A, AAAA, ANY, SRV};
        prop::sample::select(vec![A, AAAA, ANY, SRV])
    }

    proptest! {
        #[test]
        fn it_is_what_it_would_be_in_general(
            name in names(),
            kind in kinds(),
            payload in prop::option::of(any::<u16>()),
            bits: [bool; 3],
            udp: bool,
            change in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut query = query(name, kind, payload, bits);
            if let Some((at, byte)) = change {
                let at = at.index(query.len());
                query[at] = byte;
            }
            let (table, transport) = (table(), if udp { Transport::Udp } else { Transport::Tcp });
            if let Some(quick) = answer(&table, "a", &query, transport) {
                match in_general(&table, "a", &query, transport) {
                    Reply::Now(general) => prop_assert_eq!(quick, general),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }

    #[test]
    fn usual_queries_are_answered_so() {
        for (name, kind, records) in [
            ("db.", RecordType::A, 1),
            ("Both.Mesh.", RecordType::AAAA, 1),
            ("db.example.org.", RecordType::AAAA, 0),
            ("many.", RecordType::A, 60),
        ] {
            for payload in [None, Some(1232)] {
                let query = query(name, kind, payload, [true, false, false]);
                let answer = answer(&table(), "a", &query, Transport::Udp);
                if records == 60 && payload.is_none() {
                    assert!(answer.is_none(), "it is too long");
                    continue;
                }
                let answer = Message::from_vec(&answer.unwrap()).unwrap();
                assert_eq!(answer.answers.len(), records, "{name}");
                assert_eq!(answer.edns.is_some(), payload.is_some());
            }
        }
    }
}
