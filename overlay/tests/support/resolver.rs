//! A container's resolver.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};

use super::within;

pub const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn query(name: &str, kind: RecordType) -> Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(message)
}

/// Asks over UDP from inside a namespace.
pub fn ask(netns: &Path, name: &str, kind: RecordType) -> Result<Message> {
    let query = query(name, kind)?;
    within(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(SERVER)?;
        socket.send(&query.to_vec()?)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer)?;
        let answer = Message::from_vec(&buffer[..length])?;
        assert_eq!(answer.metadata.id, query.metadata.id);
        Ok(answer)
    })
}

pub fn ask_tcp(netns: &Path, name: &str, kind: RecordType) -> Result<Message> {
    let query = query(name, kind)?.to_vec()?;
    within(netns, || {
        let mut stream = TcpStream::connect(SERVER)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&u16::try_from(query.len())?.to_be_bytes())?;
        stream.write_all(&query)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(Message::from_vec(&answer)?)
    })
}

pub fn addresses(message: &Message) -> Vec<String> {
    let addresses = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.to_string()),
            _ => None,
        });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort();
    addresses
}
