//! What holds of whatever a container sends its name server.

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{
    forward::{read_message, write_message},
    lookup::Table,
    reply::{Reply, Transport, reply, without_authority},
    srv::Asked,
};

fn table() -> Table {
    let document = json!({
        "zones": { "n": {
            "domain": "mesh",
            "names": { "db": ["10.0.1.2", "10.0.1.3"] },
            "offers": { "10.0.1.2": [{ "protocol": "tcp", "port": 80, "name": "http" }] },
        } },
        "upstreams": ["192.0.2.53:53"],
        "subscribers": [{ "id": "a", "netns": "/a", "networks": ["n"] }],
    });
    Table::new(serde_json::from_value(document).expect("a document"))
}

/// An answer has its query's id, says that it is one, fits, and can be read.
fn answers_well(query: &[u8], transport: Transport) {
    let bytes = match reply(&table(), "a", query, transport) {
        Reply::Silence => return,
        Reply::Now(bytes) => bytes,
        Reply::Forward(instead) => instead.otherwise,
    };
    assert_eq!(bytes[..2], query[..2], "the id");
    assert_ne!(bytes[2] & 0x80, 0, "it is an answer");
    assert!(transport == Transport::Tcp || bytes.len() <= 1232);
    Message::from_vec(&bytes).expect("a message");
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("a query")
}

/// Queries that are answered in each way.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        query("db.", RecordType::A),
        query("_http._tcp.db.mesh.", RecordType::SRV),
        query("2.1.0.10.in-addr.arpa.", RecordType::PTR),
        query("nobody.", RecordType::AAAA),
        query("example.org.", RecordType::MX),
    ])
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_not(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        answers_well(&bytes, Transport::Udp);
        answers_well(&bytes, Transport::Tcp);
        without_authority(bytes);
    }

    #[test]
    fn so_is_what_changes_make_of_a_query(
        query in queries(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = query;
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        answers_well(&bytes, Transport::Udp);
        without_authority(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        answers_well(&bytes, Transport::Tcp);
    }

    #[test]
    fn any_name_may_be_a_port_s(name in "\\PC{0,64}") {
        if let Some(asked) = Asked::parse(&name) {
            prop_assert!(name.ends_with(asked.name));
        }
    }

    /// However TCP cuts them, messages come out as they went in; what breaks off is none.
    #[test]
    fn framed_messages_come_out_as_they_went_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        piece in 1usize..64,
        missing in 1usize..3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut framed = Vec::new();
            for message in &messages {
                write_message(&mut framed, message).await.expect("it is short");
            }
            let mut broken = Vec::new();
            write_message(&mut broken, b"it breaks off").await.expect("it is short");
            framed.extend_from_slice(&broken[..broken.len() - missing]);
            let (mut near, mut far) = tokio::io::duplex(piece);
            let sending = async {
                near.write_all(&framed).await.expect("the other end is there");
                drop(near);
            };
            let receiving = async {
                for message in &messages {
                    let read = read_message(&mut far).await.expect("it is whole");
                    assert_eq!(&read, message);
                }
                assert!(read_message(&mut far).await.is_err());
            };
            tokio::join!(sending, receiving);
        });
    }
}

#[tokio::test]
async fn a_message_longer_than_its_length_can_say_is_not_sent() {
    let mut framed = Vec::new();
    assert!(write_message(&mut framed, &vec![0; 65536]).await.is_err());
    assert!(framed.is_empty());
}
