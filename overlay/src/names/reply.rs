use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};

use super::{
    lookup::{Found, Table},
    quick,
    srv::{self, Asked},
};

/// Endpoints come and go, so nothing may be kept.
pub(super) const TTL: u32 = 0;

/// Most bytes of a datagram that no path has to fragment (DNS flag day 2020).
pub(super) const PAYLOAD: u16 = 1232;

/// Least bytes of a datagram that any client takes (RFC 1035 §4.2.1).
pub(super) const LEAST_PAYLOAD: u16 = 512;

/// A header, without which there is no id to answer to.
pub(super) const HEADER: usize = 12;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What to do about a query.
#[derive(Debug)]
pub(super) enum Reply {
    /// Send this.
    Now(Vec<u8>),
    /// Ask an upstream.
    Forward(Instead),
    /// It was no query.
    Silence,
}

/// What to send where an upstream's answer will not do.
#[derive(Debug)]
pub(super) struct Instead {
    /// If none answers.
    pub(super) otherwise: Vec<u8>,
    /// It may be a name of ours later, so that a negative answer must not be kept.
    pub(super) may_be_ours: bool,
}

/// Turns addresses around with each answer, so that clients who take the first spread over them.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// At which of so many addresses the next answer begins.
pub(super) fn turn(count: usize) -> usize {
    match count {
        0 | 1 => 0,
        count => TURN.fetch_add(1, Ordering::Relaxed) % count,
    }
}

/// Answers a query of one subscriber from the table.
pub(super) fn reply(table: &Table, subscriber: &str, query: &[u8], transport: Transport) -> Reply {
    match quick::answer(table, subscriber, query, transport) {
        Some(answer) => Reply::Now(answer),
        None => in_general(table, subscriber, query, transport),
    }
}

/// The same, whatever the query is.
pub(super) fn in_general(
    table: &Table,
    subscriber: &str,
    query: &[u8],
    transport: Transport,
) -> Reply {
    let Ok(message) = Message::from_vec(query) else {
        return malformed(query);
    };
    if message.metadata.message_type != MessageType::Query {
        return Reply::Silence;
    }
    let refuse = |code| encoded(&message, code, false, Vec::new(), transport);
    let [question] = message.queries.as_slice() else {
        return refuse(ResponseCode::FormErr);
    };
    if message.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return refuse(ResponseCode::NotImp);
    }
    let Some(subscriber) = table.subscriber(subscriber) else {
        return refuse(ResponseCode::ServFail); // gone from the table; its sockets go next
    };
    let name = question.name().to_ascii();
    let port = Asked::parse(&name);
    let owner = port.as_ref().map_or(name.as_str(), |asked| asked.name);
    match (table.find(subscriber, owner), port) {
        (Found::Addresses(addresses), port)
            if port.is_some() || question.query_type() == RecordType::SRV =>
        {
            let is_wanted = matches!(question.query_type(), RecordType::SRV | RecordType::ANY);
            let served = table.served(subscriber, owner, port.as_ref());
            let places = match (served, port) {
                _ if !is_wanted => Vec::new(),
                (Some(served), _) => served,
                (None, Some(asked)) => table.places(subscriber, &asked, &addresses),
                (None, None) => Vec::new(),
            };
            let (answers, addresses) = srv::records(question, places);
            let code = ResponseCode::NoError;
            encoded_with(&message, code, true, answers, addresses, transport)
        }
        (Found::Addresses(addresses), _) => encoded(
            &message,
            ResponseCode::NoError,
            true,
            address_records(question, addresses),
            transport,
        ),
        (Found::Name(name), _) => encoded(
            &message,
            ResponseCode::NoError,
            true,
            ptr_records(question, &name),
            transport,
        ),
        (Found::NoSuchName, _) => encoded(
            &message,
            ResponseCode::NXDomain,
            true,
            Vec::new(),
            transport,
        ),
        (Found::Forbidden, _) => refuse(ResponseCode::ServFail),
        // Who asked goes on to its next server.
        (Found::NotServed, _) => refuse(ResponseCode::Refused),
        (Found::Elsewhere, _) => match refuse(ResponseCode::ServFail) {
            Reply::Now(otherwise) if !table.upstreams_of(&subscriber.id).is_empty() => {
                Reply::Forward(Instead {
                    otherwise,
                    may_be_ours: table.may_be_ours(subscriber, &name),
                })
            }
            other => other,
        },
    }
}

/// The addresses of the family asked for; a name that has none of it is known nevertheless.
fn address_records(question: &Query, mut addresses: Vec<IpAddr>) -> Vec<Record> {
    addresses.retain(|address| match question.query_type() {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        kind => kind == RecordType::ANY,
    });
    let turn = turn(addresses.len());
    addresses.rotate_left(turn);
    let record = |address| address_record(question.name().clone(), address);
    addresses.into_iter().map(record).collect()
}

pub(super) fn address_record(name: Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name, TTL, data)
}

fn ptr_records(question: &Query, name: &str) -> Vec<Record> {
    if !matches!(question.query_type(), RecordType::PTR | RecordType::ANY) {
        return Vec::new();
    }
    let name = Name::from_ascii(format!("{name}.")).ok();
    let record = |name| Record::from_rdata(question.name().clone(), TTL, RData::PTR(PTR(name)));
    name.map(record).into_iter().collect()
}

/// A negative answer carries no SOA, and so is not kept either (RFC 2308 §5).
fn encoded(
    query: &Message,
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    transport: Transport,
) -> Reply {
    encoded_with(query, code, authoritative, answers, Vec::new(), transport)
}

/// With records beside the answer, for what the client would ask next.
fn encoded_with(
    query: &Message,
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    additional: Vec<Record>,
    transport: Transport,
) -> Reply {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.authoritative = authoritative;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(query.queries.iter().cloned());
    response.add_answers(answers);
    response.add_additionals(additional);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        response.set_edns(edns);
    }
    let limit = match transport {
        Transport::Udp => query.max_payload().clamp(LEAST_PAYLOAD, PAYLOAD),
        Transport::Tcp => u16::MAX,
    };
    let bytes = response.to_vec().and_then(|mut bytes| {
        if bytes.len() > usize::from(limit) {
            response.additionals.clear(); // without which the answer is whole
            bytes = response.to_vec()?;
        }
        if bytes.len() > usize::from(limit) {
            bytes = response.truncate().to_vec()?;
        }
        Ok(bytes)
    });
    match bytes {
        Ok(bytes) => Reply::Now(bytes),
        Err(error) => {
            tracing::warn!(%error, "encode a DNS answer");
            Reply::Silence
        }
    }
}

/// A negative answer of an upstream, so that nobody keeps it (RFC 2308 §5); any other as it is.
pub(super) fn without_authority(answer: Vec<u8>) -> Vec<u8> {
    let Ok(mut message) = Message::from_vec(&answer) else {
        return answer;
    };
    let code = message.metadata.response_code;
    let is_negative = message.answers.is_empty()
        && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    if !is_negative || message.authorities.is_empty() {
        return answer;
    }
    message.authorities.clear();
    message.to_vec().unwrap_or(answer)
}

/// Answers with the id alone what cannot be read further.
fn malformed(query: &[u8]) -> Reply {
    let is_query = query.len() >= HEADER && query[2] & 0x80 == 0;
    if !is_query {
        return Reply::Silence;
    }
    let id = u16::from_be_bytes([query[0], query[1]]);
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    message.to_vec().map_or(Reply::Silence, Reply::Now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use serde_json::json;

    use super::*;

    fn table(addresses: usize) -> Table {
        let addresses: Vec<_> = (1..=addresses)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        let document = json!({
            "zones": { "n": { "names": { "db": addresses } } },
            "subscribers": [{ "id": "a", "netns": "/a", "networks": ["n"] }],
        });
        Table::new(serde_json::from_value(document).unwrap())
    }

    fn ask(table: &Table, name: &str, kind: RecordType, transport: Transport) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match reply(table, "a", &query.to_vec().unwrap(), transport) {
            Reply::Now(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn turns_the_addresses_around() {
        let table = table(2);
        let first = || ask(&table, "db.", RecordType::A, Transport::Udp).answers[0].clone();
        let seen: Vec<_> = (0..8).map(|_| first()).collect();
        assert!(
            seen.iter().any(|record| record.data != seen[0].data),
            "{seen:?}"
        );
        assert!(seen.iter().all(|record| record.ttl == 0));
    }

    #[test]
    fn a_known_name_has_no_aaaa_and_an_unknown_one_does_not_exist() {
        let table = table(1);
        let none = ask(&table, "db.", RecordType::AAAA, Transport::Udp);
        assert_eq!(
            (none.metadata.response_code, none.answers.len()),
            (ResponseCode::NoError, 0)
        );
        let unknown = ask(&table, "nobody.", RecordType::A, Transport::Udp);
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert!(unknown.authorities.is_empty());
    }

    #[test]
    fn too_long_for_a_datagram_is_cut_and_whole_over_tcp() {
        let table = table(300);
        let udp = ask(&table, "db.", RecordType::A, Transport::Udp);
        assert!(udp.metadata.truncation);
        let tcp = ask(&table, "db.", RecordType::A, Transport::Tcp);
        assert!(!tcp.metadata.truncation);
        assert_eq!(tcp.answers.len(), 300);
    }

    #[test]
    fn without_upstreams_others_fail() {
        let other = ask(&table(1), "example.org.", RecordType::A, Transport::Udp);
        assert_eq!(other.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn answers_garbage_only_if_it_may_be_a_query() {
        assert!(matches!(
            reply(&table(1), "a", b"short", Transport::Udp),
            Reply::Silence
        ));
        assert!(matches!(
            reply(&table(1), "a", &[0xff; 40], Transport::Udp),
            Reply::Silence
        ));
        let mut garbage = [0xff; 40];
        garbage[2] = 0;
        assert!(matches!(
            reply(&table(1), "a", &garbage, Transport::Udp),
            Reply::Now(_)
        ));
    }
}
