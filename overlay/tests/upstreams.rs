//! Names that others answer for, and ports by name.

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use nuncio_overlay::{NameServer, NamesDocument, Offer, Protocol, Subscriber, Zone};
use support::{
    Pod,
    resolver::{addresses, ask, ask_tcp},
};

/// A name server, over UDP and TCP at one port, that answer until they are dropped.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    /// `answer` says what to send for a query over UDP (`false`) or TCP (`true`); `None`: nothing.
    fn start(
        answer: impl Fn(&Message, bool) -> Option<Message> + Clone + Send + 'static,
    ) -> Result<Self> {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, over_udp) = (Arc::clone(&asked), answer.clone());
        // These end with the test's process.
        std::thread::spawn(move || -> Result<()> {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer)?;
                count.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(&buffer[..length])?;
                if let Some(answer) = over_udp(&query, false) {
                    udp.send_to(&answer.to_vec()?, client)?;
                }
            }
        });
        std::thread::spawn(move || -> Result<()> {
            loop {
                let (mut client, _) = tcp.accept()?;
                let mut length = [0; 2];
                client.read_exact(&mut length)?;
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                client.read_exact(&mut query)?;
                if let Some(answer) = answer(&Message::from_vec(&query)?, true) {
                    let bytes = answer.to_vec()?;
                    client.write_all(&u16::try_from(bytes.len())?.to_be_bytes())?;
                    client.write_all(&bytes)?;
                }
            }
        });
        Ok(Self { address, asked })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn response(query: &Message, code: ResponseCode, answers: u8) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.response_code = code;
    message.add_queries(query.queries.iter().cloned());
    for last in 1..=answers {
        let data = RData::A(A(Ipv4Addr::new(203, 0, 113, last)));
        let record = Record::from_rdata(query.queries[0].name().clone(), 300, data);
        message.add_answer(record);
    }
    message
}

fn subscriber(netns: &Path) -> Subscriber {
    Subscriber {
        id: "a".to_owned(),
        netns: netns.to_owned(),
        networks: vec!["n".to_owned()],
        aliases: BTreeMap::new(),
        upstreams: Vec::new(),
        listen: None,
        external: true,
    }
}

fn document(netns: &Path, upstreams: &[&Upstream]) -> NamesDocument {
    let zone = Zone {
        domain: Some("mesh".to_owned()),
        names: BTreeMap::from([("db".to_owned(), vec![[10, 0, 1, 2].into()])]),
        ..Zone::default()
    };
    NamesDocument {
        zones: BTreeMap::from([("n".to_owned(), zone)]),
        upstreams: upstreams.iter().map(|upstream| upstream.address).collect(),
        search: Vec::new(),
        subscribers: vec![subscriber(netns)],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_over_udp_is_whole_over_tcp() -> Result<()> {
    let pod = Pod::new_async().await?;
    let large = Upstream::start(|query, tcp| {
        let mut answer = response(query, ResponseCode::NoError, if tcp { 200 } else { 0 });
        answer.metadata.truncation = !tcp;
        Some(answer)
    })?;
    let server = NameServer::new();
    server.apply(document(&pod.path, &[&large])).await?;
    let cut = ask(&pod.path, "large.example.org.", RecordType::A)?;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask_tcp(&pod.path, "large.example.org.", RecordType::A)?;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_tell_is_passed_over_and_who_is_deaf_asked_last() -> Result<()> {
    let pod = Pod::new_async().await?;
    let failing = Upstream::start(|query, _| Some(response(query, ResponseCode::ServFail, 0)))?;
    let deaf = Upstream::start(|_, _| None)?;
    let good = Upstream::start(|query, _| Some(response(query, ResponseCode::NoError, 1)))?;
    let server = NameServer::new();
    let all = [&failing, &deaf, &good];
    server.apply(document(&pod.path, &all)).await?;
    for _ in 0..3 {
        let answer = ask(&pod.path, "example.org.", RecordType::A)?;
        assert_eq!(addresses(&answer), ["203.0.113.1"]);
    }
    assert!(deaf.asked() < 3, "it is asked only after the others");

    // With nobody else its word counts.
    server.apply(document(&pod.path, &[&failing])).await?;
    let answer = ask(&pod.path, "example.org.", RecordType::A)?;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);

    // With nobody at all the container hears so.
    server.apply(document(&pod.path, &[&deaf])).await?;
    let answer = ask(&pod.path, "example.org.", RecordType::A)?;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_upstreams_of_its_own() -> Result<()> {
    let pod = Pod::new_async().await?;
    let host = Upstream::start(|query, _| Some(response(query, ResponseCode::NoError, 1)))?;
    let own = Upstream::start(|query, _| Some(response(query, ResponseCode::NoError, 2)))?;
    let mut document = document(&pod.path, &[&host]);
    document.subscribers[0].upstreams = vec![own.address];
    let server = NameServer::new();
    server.apply(document).await?;
    let answer = ask(&pod.path, "example.org.", RecordType::A)?;
    assert_eq!(addresses(&answer), ["203.0.113.1", "203.0.113.2"]);
    assert_eq!((host.asked(), own.asked()), (0, 1));
    Ok(())
}

/// A cache in the container that kept it would not see the container that comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_name_in_our_networks_is_unknown_is_not_kept() -> Result<()> {
    let pod = Pod::new_async().await?;
    let upstream = Upstream::start(|query, _| {
        let mut answer = response(query, ResponseCode::NXDomain, 0);
        let name = Name::from_ascii("example.org.").ok()?;
        let soa = SOA::new(name.clone(), name.clone(), 1, 600, 600, 600, 600);
        answer.add_authority(Record::from_rdata(name, 600, RData::SOA(soa)));
        Some(answer)
    })?;
    let server = NameServer::new();
    server.apply(document(&pod.path, &[&upstream])).await?;
    for (name, kept) in [("web.mesh.", 0), ("_80._tcp.web.mesh.", 0), ("web.org.", 1)] {
        let answer = ask(&pod.path, name, RecordType::A)?;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        assert_eq!(answer.authorities.len(), kept, "{name}");
    }
    assert_eq!(upstream.asked(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_told_by_number_and_by_name() -> Result<()> {
    let pod = Pod::new_async().await?;
    let upstream = Upstream::start(|query, _| Some(response(query, ResponseCode::NXDomain, 0)))?;
    let mut document = document(&pod.path, &[&upstream]);
    let zone = document.zones.get_mut("n").context("the zone")?;
    let (db, twin): (IpAddr, IpAddr) = ([10, 0, 1, 2].into(), [10, 0, 2, 2].into());
    let offer = |name: Option<&str>, port| Offer {
        name: name.map(str::to_owned),
        protocol: Protocol::Tcp,
        port,
    };
    zone.names.insert("tasks.db".to_owned(), vec![db, twin]);
    zone.reverse.insert(twin, "twin".to_owned());
    let named = vec![offer(Some("http"), 8080), offer(None, 6379)];
    zone.offers = BTreeMap::from([(db, named), (twin, vec![offer(Some("http"), 8081)])]);
    let server = NameServer::new();
    server.apply(document).await?;

    let services = |name: &str| -> Result<Vec<String>> {
        let answer = ask(&pod.path, name, RecordType::SRV)?;
        ensure!(
            answer.metadata.response_code == ResponseCode::NoError,
            "{answer:?}"
        );
        Ok(answer
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect())
    };
    assert_eq!(services("_6379._tcp.db.")?, ["0 0 6379 db.mesh."]);
    assert_eq!(services("_http._TCP.DB.mesh.")?, ["0 0 8080 db.mesh."]);
    let both = ["0 0 8080 db.mesh.", "0 0 8081 twin.mesh."];
    assert_eq!(services("_http._tcp.tasks.db.")?, both);
    for none in ["_80._tcp.db.", "_6379._udp.db.", "_ssh._tcp.db."] {
        assert_eq!(services(none)?, [""; 0], "{none}");
    }

    // The addresses come along, and what is no SRV record is not there.
    let answer = ask(&pod.path, "_http._tcp.tasks.db.", RecordType::SRV)?;
    let beside = answer
        .additionals
        .iter()
        .map(|record| record.data.to_string());
    assert_eq!(beside.collect::<Vec<_>>(), ["10.0.1.2", "10.0.2.2"]);
    let answer = ask(&pod.path, "_http._tcp.db.", RecordType::A)?;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    let unknown = ask(&pod.path, "_http._tcp.nobody.", RecordType::SRV)?;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(upstream.asked(), 0);
    let elsewhere = ask(&pod.path, "_http._tcp.example.org.", RecordType::SRV)?;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(upstream.asked(), 1);
    Ok(())
}
