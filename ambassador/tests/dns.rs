//! DNS over UDP: dig asks a server by way of the relay.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Edns, Message, Metadata};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

mod support;
use support::program::*;
use support::*;

const TEXTS: usize = 40;
const EDNS: u16 = 4096;

/// One of the texts that answer a TXT question.
fn text(number: usize) -> String {
    format!("{number:04}").repeat(20)
}

/// The address that answers for `host-N.test.`.
fn address(name: &Name) -> Option<Ipv4Addr> {
    let name = name.to_ascii();
    let number: u16 = name
        .strip_prefix("host-")?
        .strip_suffix(".test.")?
        .parse()
        .ok()?;
    let [high, low] = number.to_be_bytes();
    Some(Ipv4Addr::new(10, 0, high, low))
}

fn answer(query: &[u8]) -> Result<Vec<u8>> {
    let query = Message::from_vec(query)?;
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.add_queries(query.queries.iter().cloned());
    for question in &query.queries {
        let name = question.name();
        let record = |data| Record::from_rdata(name.clone(), 0, data);
        match question.query_type() {
            RecordType::A => {
                let address = address(name).map(|address| record(RData::A(A(address))));
                response.add_answers(address);
            }
            RecordType::TXT => {
                let data = |number| RData::TXT(TXT::new(vec![text(number)]));
                response.add_answers((0..TEXTS).map(data).map(record));
            }
            _ => {}
        }
    }
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS);
    response.set_edns(edns);
    Ok(response.to_vec()?)
}

async fn server() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let local = socket.local_addr()?;
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok((bytes, from)) = socket.recv_from(&mut query).await {
            if let Ok(response) = answer(&query[..bytes]) {
                let _ = socket.send_to(&response, from).await;
            }
        }
    });
    Ok(local)
}

async fn dig(at: SocketAddr, arguments: &[String]) -> Result<String> {
    let mut dig = program("dig");
    dig.arg(format!("@{}", at.ip()))
        .args(["-p", &at.port().to_string()])
        .args(["+notcp", "+ignore", "+tries=3", "+timeout=5"])
        .args(arguments);
    Ok(String::from_utf8(output(dig).await?)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_question_gets_its_own_answer() -> Result<()> {
    let (_ambassador, local) = running(udp("dns", &[server().await?])).await?;
    // One dig asks from a port of its own for each name; several of them at once.
    let mut digs = tokio::task::JoinSet::new();
    for first in [0, 300, 600, 900] {
        digs.spawn(async move {
            let numbers: Vec<u16> = (first..first + 25).collect();
            let names = numbers.iter().map(|number| format!("host-{number}.test"));
            let asked: Vec<_> = names.flat_map(|name| ["+short".to_owned(), name]).collect();
            let answers = dig(local, &asked).await?;
            let expected = numbers.iter().map(|number| {
                let [high, low] = number.to_be_bytes();
                format!("10.0.{high}.{low}\n")
            });
            // What dig remarks, such as that it asks again, begins with a semicolon.
            let found = answers.split_inclusive('\n');
            let found: String = found.filter(|line| !line.starts_with(';')).collect();
            ensure!(found == expected.collect::<String>(), "{answers:?}");
            Ok(())
        });
    }
    while let Some(done) = digs.join_next().await {
        done??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_four_kibibytes_arrives_whole() -> Result<()> {
    let (_ambassador, local) = running(udp("dns", &[server().await?])).await?;
    let words = [
        &format!("+bufsize={EDNS}"),
        "+noall",
        "+answer",
        "+stats",
        "large.test",
        "TXT",
    ];
    let printed = dig(local, &words.map(ToOwned::to_owned)).await?;
    for number in 0..TEXTS {
        let text = format!("\"{}\"", text(number));
        ensure!(printed.contains(&text), "{text} is not in {printed}");
    }
    let size = printed
        .lines()
        .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
    let size: usize = size
        .with_context(|| format!("a size in {printed}"))?
        .parse()?;
    ensure!((3_500..=usize::from(EDNS)).contains(&size), "{size} bytes");
    Ok(())
}
