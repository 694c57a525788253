//! The authority's end of a conversation.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use crate::authority::{Authority, AuthorityError};
use crate::hex;
use crate::key::PublicKey;
use crate::ledger::Denied;
use crate::pin::provider;
use crate::token::Secret;
use crate::wire::{self, Answer, LONGEST_NAME, Papers, Question};

/// The application protocol, by which a server tells this from others on one port.
pub const ALPN: &[u8] = b"nuncio-mesh/1";

/// Why a host got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection's fault, or what was asked is of no known form.
    #[error("hear what is asked for")]
    Connection(#[from] io::Error),
    /// TLS gave no secret of this connection.
    #[error("prepare TLS")]
    Tls(#[from] rustls::Error),
    /// The disk's fault.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authority {
    /// How TLS is spoken to hosts that want a certificate: TLS 1.3, and they need not have one.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] if no certificate can be made for it.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, AnswerError> {
        let (key, chain) = self.role()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain.to_vec(), key.to_der())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Answers the one question of a host that has connected from an address. It may take as long as it likes: bound it.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] if nothing could be asked or answered.
    pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: TlsStream<S>,
        from: IpAddr,
    ) -> Result<(), AnswerError> {
        let exported = wire::exported(stream.get_ref().1)?;
        let question = wire::read(&mut stream).await?;
        let answer = match self.decide(&exported, question, from)? {
            Ok(papers) => Answer::Welcome(papers),
            Err(reason) => Answer::Refused { reason },
        };
        wire::write(&answer, &mut stream).await?;
        stream.shutdown().await?;
        Ok(())
    }

    fn decide(
        &self,
        exported: &[u8; 32],
        question: Question,
        from: IpAddr,
    ) -> Result<Result<Papers, String>, AuthorityError> {
        let (node, key, proof) = match &question {
            Question::Join {
                node, key, proof, ..
            }
            | Question::Renew {
                node, key, proof, ..
            } => (node, *key, proof),
        };
        let statement = wire::statement(exported, node, &key);
        let signed = |key: &PublicKey, signature: &str| {
            hex::decode(signature).is_some_and(|signature| key.has_signed(&statement, &signature))
        };
        if !signed(&key, proof) {
            return Ok(Err("the key has not signed for itself".to_owned()));
        }
        let decided = match &question {
            Question::Join {
                token,
                secret,
                node,
                name,
                ..
            } => {
                if name.is_empty()
                    || name.len() > LONGEST_NAME
                    || name.chars().any(char::is_control)
                {
                    let wrong = format!("a host's name has 1 to {LONGEST_NAME} printable bytes");
                    return Ok(Err(wrong));
                }
                match hex::decode_array(secret).map(Secret) {
                    Some(secret) => self.join((token, &secret), (node, name, key), from)?,
                    None => Err(Denied::Token),
                }
            }
            Question::Renew {
                node, signature, ..
            } => self.renew((node, key), from, |known| signed(known, signature))?,
        };
        let what = match &question {
            Question::Join { .. } => "join",
            Question::Renew { .. } => "renewal",
        };
        Ok(match decided {
            Ok(papers) => {
                info!(%node, what, expires = papers.expires, "certificate issued");
                Ok(papers)
            }
            Err(denied) => {
                warn!(%node, what, error = %denied, "no certificate");
                Err(denied.to_string())
            }
        })
    }
}
