//! What a name means to a container: its own name server is asked, from inside.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

use crate::NetNs;

/// Where every container's name server is.
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);
/// It answers in microseconds, or asks upstream.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of IPv4, or of IPv6, that a name has in the network namespace at `netns`; none of a name that does not
/// exist.
///
/// # Errors
///
/// If the server does not answer, or refuses to.
pub async fn resolve(netns: &Path, name: &str, ipv6: bool) -> io::Result<Vec<IpAddr>> {
    let namespace = NetNs::open(netns).map_err(io::Error::other)?;
    let name = Name::from_ascii(name).map_err(io::Error::other)?;
    let kind = if ipv6 {
        RecordType::AAAA
    } else {
        RecordType::A
    };
    namespace.run(move || ask(name, kind)).await?
}

fn ask(name: Name, kind: RecordType) -> io::Result<Vec<IpAddr>> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SERVER)?;
    socket.send(&query.to_vec().map_err(io::Error::other)?)?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer)?;
    let answer = Message::from_vec(&answer[..length]).map_err(io::Error::other)?;
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(io::Error::other(format!("the name server says {code}"))),
    }
    let addresses = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0.into()),
            RData::AAAA(address) => Some(address.0.into()),
            _ => None,
        });
    Ok(addresses.collect())
}
