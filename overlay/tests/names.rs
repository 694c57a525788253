//! DNS, as a container's resolver sees it.

mod support;

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, TXT},
    },
};
use nuncio_overlay::{NameServer, NamesDocument, Subscriber, Zone};
use support::{
    Pod,
    resolver::{PATIENCE, SERVER, addresses, ask, ask_tcp},
    within,
};

fn subscriber(id: &str, netns: &Path) -> Subscriber {
    Subscriber {
        id: id.to_owned(),
        netns: netns.to_owned(),
        networks: vec!["n".to_owned()],
        aliases: BTreeMap::new(),
        upstreams: Vec::new(),
        listen: None,
        external: true,
    }
}

fn document(subscribers: Vec<Subscriber>) -> NamesDocument {
    let many = (1..=200)
        .map(|last| Ipv4Addr::new(10, 0, 9, last).into())
        .collect();
    let zone = Zone {
        domain: Some("mesh".to_owned()),
        names: BTreeMap::from([
            (
                "db".to_owned(),
                vec![IpAddr::from([10, 0, 1, 2]), [10, 0, 2, 2].into()],
            ),
            ("six".to_owned(), vec![[0xfd00, 0, 0, 0, 0, 0, 0, 2].into()]),
            ("many".to_owned(), many),
        ]),
        ..Zone::default()
    };
    NamesDocument {
        zones: BTreeMap::from([("n".to_owned(), zone)]),
        upstreams: Vec::new(),
        search: Vec::new(),
        subscribers,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_names_and_addresses_of_its_networks() -> Result<()> {
    let pod = Pod::new_async().await?;
    let mut own = subscriber("a", &pod.path);
    own.aliases = BTreeMap::from([("redis".to_owned(), vec![[172, 17, 1, 9].into()])]);
    let server = NameServer::new();
    server.apply(document(vec![own])).await?;
    for name in ["db.", "DB.", "db.mesh."] {
        assert_eq!(
            addresses(&ask(&pod.path, name, RecordType::A)?),
            ["10.0.1.2", "10.0.2.2"]
        );
    }
    assert_eq!(
        addresses(&ask(&pod.path, "redis.", RecordType::A)?),
        ["172.17.1.9"]
    );
    assert_eq!(
        addresses(&ask_tcp(&pod.path, "db.", RecordType::A)?),
        ["10.0.1.2", "10.0.2.2"]
    );
    let none = ask(&pod.path, "db.", RecordType::AAAA)?;
    assert_eq!(
        (none.metadata.response_code, none.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let six = ask(&pod.path, "six.", RecordType::AAAA)?;
    assert_eq!(six.answers[0].data.to_string(), "fd00::2");
    let none = ask(&pod.path, "six.", RecordType::A)?;
    assert_eq!(
        (none.metadata.response_code, none.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let reverse = format!("2.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    let reverse = ask(&pod.path, &reverse, RecordType::PTR)?;
    assert_eq!(reverse.answers[0].data.to_string(), "six.mesh.");
    let unknown = ask(&pod.path, "nobody.", RecordType::A)?;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    let reverse = ask(&pod.path, "2.1.0.10.in-addr.arpa.", RecordType::PTR)?;
    assert_eq!(reverse.answers[0].data.to_string(), "db.mesh.");
    let elsewhere = ask(&pod.path, "example.org.", RecordType::A)?;
    assert_eq!(
        elsewhere.metadata.response_code,
        ResponseCode::ServFail,
        "no upstreams"
    );

    let cut = ask(&pod.path, "many.", RecordType::A)?;
    assert!(cut.metadata.truncation);
    assert_eq!(
        ask_tcp(&pod.path, "many.", RecordType::A)?.answers.len(),
        200
    );
    Ok(())
}

/// A name server that answers everything with one address and one long text, over UDP only once.
fn upstream(socket: UdpSocket) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 4096];
        let (length, client) = socket.recv_from(&mut buffer)?;
        let query = Message::from_vec(&buffer[..length])?;
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        let name = query.queries[0].name().clone();
        answer.add_queries(query.queries.iter().cloned());
        answer.add_answer(Record::from_rdata(
            name.clone(),
            300,
            RData::A(A::new(203, 0, 113, 9)),
        ));
        let text = TXT::new(vec!["kept as it is".to_owned()]);
        answer.add_answer(Record::from_rdata(name, 300, RData::TXT(text)));
        let forged = Message::response(query.metadata.id.wrapping_add(1), query.metadata.op_code);
        socket.send_to(&forged.to_vec()?, client)?;
        socket.send_to(&answer.to_vec()?, client)?;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_the_next_upstream_for_the_rest() -> Result<()> {
    let (pod, internal) = (Pod::new_async().await?, Pod::new_async().await?);
    let deaf = UdpSocket::bind("127.0.0.1:0")?; // never answers
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut kept_in = subscriber("b", &internal.path);
    kept_in.external = false;
    let mut document = document(vec![subscriber("a", &pod.path), kept_in]);
    document.upstreams = vec![deaf.local_addr()?, socket.local_addr()?];
    let answering = upstream(socket);
    let server = NameServer::new();
    server.apply(document).await?;
    let answer = ask(&pod.path, "example.org.", RecordType::A)?;
    assert_eq!(addresses(&answer), ["203.0.113.9"]);
    assert_eq!(answer.answers.len(), 2);
    assert!(answering.join().is_ok_and(|served| served.is_ok()));
    let forbidden = ask(&internal.path, "example.org.", RecordType::A)?;
    assert_eq!(forbidden.metadata.response_code, ResponseCode::ServFail);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_come_and_go_without_disturbing_others() -> Result<()> {
    let (stays, goes) = (Pod::new_async().await?, Pod::new_async().await?);
    let server = NameServer::new();
    let all = document(vec![
        subscriber("stays", &stays.path),
        subscriber("goes", &goes.path),
    ]);
    server.apply(all.clone()).await?;
    let socket = within(&stays.path, || {
        let socket = TcpStream::connect(SERVER)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(socket)
    })?;
    assert!(ask(&goes.path, "db.", RecordType::A).is_ok());

    // It went without a word: a new container has its path meanwhile.
    let path = goes.path.clone();
    drop_namespace(&path)?;
    let failed = server.apply(all.clone()).await;
    let failed = failed.expect_err("one namespace is gone").to_string();
    assert!(failed.starts_with("no name server for goes: "), "{failed}");
    assert!(ask(&stays.path, "db.", RecordType::A).is_ok());
    let still_open = (&socket).read(&mut [0; 1]).expect_err("nothing was sent");
    assert_eq!(
        still_open.kind(),
        std::io::ErrorKind::WouldBlock,
        "the connection stayed"
    );
    nuncio_overlay::NetNs::create(&path).await?;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = ask_now(&path) {
        if Instant::now() > until {
            bail!("the new namespace has no name server: {error:#}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The same namespace under another id: its address must be free in time.
    let renamed = vec![
        subscriber("stays", &stays.path),
        subscriber("renamed", &path),
    ];
    server.apply(document(renamed)).await?;
    assert!(ask(&path, "db.", RecordType::A).is_ok());
    server
        .apply(document(vec![subscriber("stays", &stays.path)]))
        .await?;
    assert!(ask_now(&path).is_err(), "it is no subscriber any more");
    drop(server);
    let until = Instant::now() + PATIENCE;
    while ask_now(&stays.path).is_ok() {
        assert!(Instant::now() < until, "the sockets outlive the server");
    }
    Ok(())
}

fn drop_namespace(path: &Path) -> Result<()> {
    Ok(nuncio_overlay::NetNs::remove(path)?)
}

/// Whether somebody listens.
fn ask_now(netns: &Path) -> Result<()> {
    within(netns, || {
        let address = SocketAddr::from(SERVER);
        TcpStream::connect_timeout(&address, PATIENCE)
            .map(drop)
            .map_err(Into::into)
    })
}
