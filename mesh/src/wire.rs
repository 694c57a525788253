//! What a host and the authority say to each other: one question and one answer, each a length in four bytes and JSON.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::key::PublicKey;
use crate::names::NodeId;

/// Bytes of a message at most.
const LONGEST: u32 = 16 << 10;
/// Characters of a host's name at most.
pub(crate) const LONGEST_NAME: usize = 255;

/// What a host asks for: a certificate.
#[derive(Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// It is not a member yet.
    Join {
        /// The token's id and secret.
        token: String,
        secret: String,
        node: NodeId,
        name: String,
        key: PublicKey,
        /// Made with that key.
        proof: String,
    },
    /// It is one.
    Renew {
        node: NodeId,
        /// The next one.
        key: PublicKey,
        /// Made with that key.
        proof: String,
        /// Made with the key of its present certificate.
        signature: String,
    },
}

/// What the authority says to that.
#[derive(Deserialize, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Answer {
    Welcome(Papers),
    Refused { reason: String },
}

/// What makes a host a member.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Papers {
    /// In PEM.
    pub(crate) certificate: String,
    /// The authority's certificate, in PEM.
    pub(crate) authority: String,
    /// The member that has the authority and the registry.
    pub(crate) manager: NodeId,
    /// Seconds since 1970.
    pub(crate) issued: u64,
    pub(crate) expires: u64,
}

/// What the holder of a key signs, so that it is of use on this connection only and for this alone.
pub(crate) fn statement(exported: &[u8; 32], node: &NodeId, key: &PublicKey) -> Vec<u8> {
    let parts = [
        b"nuncio mesh 1: a certificate for ",
        node.as_str().as_bytes(),
        key.as_bytes(),
        exported,
    ];
    parts.concat()
}

/// What both ends of one TLS connection know, and nobody else.
pub(crate) fn exported<Data>(
    connection: &rustls::ConnectionCommon<Data>,
) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], b"EXPORTER-nuncio-mesh", None)
}

pub(crate) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    read_within(from, LONGEST).await
}

/// As [`read`], of a message of `most` bytes.
pub(crate) async fn read_within<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    most: u32,
) -> io::Result<T> {
    let length = from.read_u32().await?;
    if length > most {
        let what = format!("a message of {length} bytes: {most} are the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = Vec::new();
    from.take(length.into()).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Without what was found there: it may be a secret.
    serde_json::from_slice(&bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a message of another form"))
}

pub(crate) async fn write(
    message: &impl Serialize,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    write_within(message, to, LONGEST).await
}

/// As [`write`], of a message of `most` bytes.
pub(crate) async fn write_within(
    message: &impl Serialize,
    to: &mut (impl AsyncWrite + Unpin),
    most: u32,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len())
        .ok()
        .filter(|&length| length <= most);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    to.write_all(&[&length.to_be_bytes()[..], &bytes].concat())
        .await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async { read(&mut &*bytes).await })
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn a_message_goes_round_and_larger_ones_are_not_read() {
        let refused = Answer::Refused {
            reason: "no".to_owned(),
        };
        let bytes = framed(&serde_json::to_vec(&refused).unwrap());
        assert!(matches!(parse(&bytes), Ok(Answer::Refused { reason }) if reason == "no"));
        let error = parse::<Answer>(&bytes[..bytes.len() - 1]).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let large = framed(&vec![b' '; LONGEST as usize + 1]);
        let error = parse::<Answer>(&large).err().unwrap();
        assert!(error.to_string().contains("16384"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), body in "\\PC{0,64}") {
            let _ = parse::<Question>(&bytes);
            let _ = parse::<Question>(&framed(body.as_bytes()));
            let _ = parse::<Answer>(&framed(&bytes));
        }

        #[test]
        fn what_lacks_or_adds_a_field_is_not_taken(extra in "[a-z]{1,8}") {
            let field = |name: &str| format!(r#"{{"ask":"join","{name}":"x"}}"#);
            prop_assert!(parse::<Question>(&framed(field(&extra).as_bytes())).is_err());
        }
    }
}
