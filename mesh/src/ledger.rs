//! What the authority knows: tokens and members. Without I/O; times are seconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hex;
use crate::key::{self, PublicKey};
use crate::names::{MeshId, NodeId};
use crate::pin::Fingerprint;
use crate::token::{Secret, TokenId};

/// Tokens at most; those that let nobody in any more make way.
const MOST_TOKENS: usize = 256;

/// As it lies on the disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Ledger {
    v: u32,
    pub(crate) mesh: MeshId,
    pub(crate) manager: NodeId,
    /// Seconds for which certificates are good.
    pub(crate) lifetime: u64,
    tokens: Vec<StoredToken>,
    members: BTreeMap<NodeId, StoredMember>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct StoredToken {
    id: String,
    /// SHA-256 of its secret.
    hash: String,
    created: u64,
    /// `None`: never.
    expires: Option<u64>,
    /// `None`: any number.
    uses: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct StoredMember {
    name: String,
    /// Of its last certificate.
    key: PublicKey,
    /// Of the one before, which is good until it expires.
    #[serde(default)]
    previous: Option<PublicKey>,
    since: u64,
    #[serde(default)]
    removed: Option<u64>,
}

/// A join token without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenEntry {
    /// What it is called by.
    pub id: String,
    /// When it was made, in seconds since 1970, as all times here.
    pub created: u64,
    /// When it lets nobody in any more; `None`: never.
    pub expires: Option<u64>,
    /// How many hosts it lets in yet; `None`: any number.
    pub uses: Option<u32>,
}

/// A host that was let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its identifier.
    pub node: NodeId,
    /// What it was called when it joined.
    pub name: String,
    /// When it joined, in seconds since 1970.
    pub since: u64,
    /// Whether it keeps the registry and admits the others.
    pub manager: bool,
}

/// Why a host is not let in, or gets no new certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the join token is not valid: it was removed, rotated, or is another mesh's")]
    Token,
    #[error("the join token {0} has expired: make another with `nuncio token create`")]
    Expired(String),
    #[error("the join token {0} is used up: make another with `nuncio token create`")]
    UsedUp(String),
    #[error("node {0} is a member already, with another key: `nuncio node rm` it first")]
    Member(NodeId),
    #[error("node {0} was removed from the mesh: it may join again with a new token")]
    Removed(NodeId),
    #[error("node {0} is not a member of the mesh")]
    Stranger(NodeId),
    #[error(
        "the key is not the one that node {0} has: if it has been stolen, `nuncio node rm` the node and join again"
    )]
    Key(NodeId),
}

/// More tokens than are kept.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there are {MOST_TOKENS} valid join tokens: remove some with `nuncio token rm`")]
pub struct TooManyTokens;

impl Ledger {
    pub(crate) fn new(mesh: MeshId, manager: NodeId, lifetime: u64) -> Self {
        Self {
            v: 1,
            mesh,
            manager,
            lifetime,
            tokens: Vec::new(),
            members: BTreeMap::new(),
        }
    }

    pub(crate) fn add_token(
        &mut self,
        now: u64,
        expires: Option<u64>,
        uses: Option<u32>,
    ) -> Result<(TokenId, Secret), TooManyTokens> {
        if self.tokens.len() >= MOST_TOKENS {
            self.tokens.retain(|token| token.check(now).is_ok());
        }
        if self.tokens.len() >= MOST_TOKENS {
            return Err(TooManyTokens);
        }
        let (id, secret) = (key::random(), Secret(key::random()));
        self.tokens.push(StoredToken {
            id: hex::encode(&id),
            hash: hex::encode(&secret.hash()),
            created: now,
            expires,
            uses,
        });
        Ok((id, secret))
    }

    /// Whether there was one.
    pub(crate) fn remove_token(&mut self, id: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.id != id);
        self.tokens.len() < before
    }

    pub(crate) fn remove_tokens(&mut self) {
        self.tokens.clear();
    }

    pub(crate) fn tokens(&self) -> Vec<TokenEntry> {
        let entry = |token: &StoredToken| TokenEntry {
            id: token.id.clone(),
            created: token.created,
            expires: token.expires,
            uses: token.uses,
        };
        self.tokens.iter().map(entry).collect()
    }

    /// Lets a host in by a token. Who has the key of a member is one: an answer that was lost is given again.
    pub(crate) fn join(
        &mut self,
        now: u64,
        (id, secret): (&str, &Secret),
        (node, name, key): (&NodeId, &str, PublicKey),
    ) -> Result<(), Denied> {
        match self.present(node) {
            Some(member) if member.key == key => return Ok(()),
            _ => {}
        }
        let hash = hex::encode(&secret.hash());
        let token = self.tokens.iter_mut();
        let token = token
            .into_iter()
            .find(|token| token.id == id && token.hash == hash);
        let token = token.ok_or(Denied::Token)?;
        token.check(now)?;
        if self
            .members
            .get(node)
            .is_some_and(|member| member.removed.is_none())
        {
            return Err(Denied::Member(node.clone()));
        }
        token.uses = token.uses.map(|uses| uses - 1);
        self.enter(now, node, name, key);
        Ok(())
    }

    pub(crate) fn enter(&mut self, now: u64, node: &NodeId, name: &str, key: PublicKey) {
        let member = StoredMember {
            name: name.to_owned(),
            key,
            previous: None,
            since: now,
            removed: None,
        };
        self.members.insert(node.clone(), member);
    }

    /// Has a member use another key, if `signed_by` says that who asks has the one it uses now. If the member's key is
    /// `next` already, the answer to that was lost, and who asks has the one before.
    pub(crate) fn renew(
        &mut self,
        node: &NodeId,
        next: PublicKey,
        signed_by: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), Denied> {
        let member = match self.members.get_mut(node) {
            None => return Err(Denied::Stranger(node.clone())),
            Some(member) if member.removed.is_some() => return Err(Denied::Removed(node.clone())),
            Some(member) => member,
        };
        if member.key == next {
            return match member.previous.filter(&signed_by) {
                Some(_) => Ok(()),
                None => Err(Denied::Key(node.clone())),
            };
        }
        if !signed_by(&member.key) {
            return Err(Denied::Key(node.clone()));
        }
        member.previous = Some(std::mem::replace(&mut member.key, next));
        Ok(())
    }

    /// Whether a host with a certificate for this key is a member.
    pub(crate) fn admits(&self, node: &NodeId, key: Fingerprint) -> bool {
        self.present(node).is_some_and(|member| {
            let mut keys = std::iter::once(&member.key).chain(&member.previous);
            keys.any(|known| Fingerprint::of_key(known) == key)
        })
    }

    /// Whether it was a member.
    pub(crate) fn remove(&mut self, now: u64, node: &NodeId) -> bool {
        let member = self
            .members
            .get_mut(node)
            .filter(|member| member.removed.is_none());
        member.map(|member| member.removed = Some(now)).is_some()
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        let present = self
            .members
            .iter()
            .filter(|(_, member)| member.removed.is_none());
        let present = present.map(|(node, member)| Member {
            manager: *node == self.manager,
            node: node.clone(),
            name: member.name.clone(),
            since: member.since,
        });
        present.collect()
    }

    fn present(&self, node: &NodeId) -> Option<&StoredMember> {
        self.members
            .get(node)
            .filter(|member| member.removed.is_none())
    }
}

impl StoredToken {
    fn check(&self, now: u64) -> Result<(), Denied> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(Denied::Expired(self.id.clone()));
        }
        match self.uses {
            Some(0) => Err(Denied::UsedUp(self.id.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::key::Key;

    fn node(digit: char) -> NodeId {
        digit.to_string().repeat(32).parse().unwrap()
    }

    fn ledger() -> Ledger {
        Ledger::new(MeshId::generate(), node('0'), 60)
    }

    fn join(
        ledger: &mut Ledger,
        now: u64,
        (id, secret): &(TokenId, Secret),
        digit: char,
        key: &Key,
    ) -> Result<(), Denied> {
        let host = (&node(digit), "host", key.public());
        ledger.join(now, (&hex::encode(id), secret), host)
    }

    #[test]
    fn a_token_lets_in_as_many_as_it_says_until_it_expires() {
        let mut ledger = ledger();
        let token = ledger.add_token(100, Some(200), Some(2)).unwrap();
        let keys: Vec<Key> = (0..4).map(|_| Key::generate()).collect();
        join(&mut ledger, 199, &token, '1', &keys[1]).unwrap();
        let error = join(&mut ledger, 200, &token, '2', &keys[2]).unwrap_err();
        assert!(matches!(error, Denied::Expired(_)), "{error}");
        join(&mut ledger, 150, &token, '2', &keys[2]).unwrap();
        let error = join(&mut ledger, 150, &token, '3', &keys[3]).unwrap_err();
        assert!(matches!(error, Denied::UsedUp(_)), "{error}");
        // An answer that was lost is given again, whatever has become of the token.
        join(&mut ledger, 250, &token, '2', &keys[2]).unwrap();
        let names: Vec<_> = ledger
            .members()
            .into_iter()
            .map(|member| member.node)
            .collect();
        assert_eq!(names, [node('1'), node('2')]);
    }

    #[test]
    fn a_wrong_secret_is_as_good_as_no_token() {
        let mut ledger = ledger();
        let (id, _) = ledger.add_token(0, Some(1), None).unwrap();
        let key = Key::generate();
        let error = join(&mut ledger, 9, &(id, Secret([0; 16])), '1', &key).unwrap_err();
        assert_eq!(error, Denied::Token, "not even that it has expired is told");
        assert!(ledger.members().is_empty());
    }

    #[test]
    fn nobody_takes_a_members_name_and_a_removed_one_needs_a_new_key() {
        let mut ledger = ledger();
        let token = ledger.add_token(0, None, None).unwrap();
        let (key, other) = (Key::generate(), Key::generate());
        join(&mut ledger, 0, &token, '1', &key).unwrap();
        let error = join(&mut ledger, 0, &token, '1', &other).unwrap_err();
        assert_eq!(error, Denied::Member(node('1')));
        let fingerprint = |key: &Key| Fingerprint::of_key(&key.public());
        assert!(ledger.admits(&node('1'), fingerprint(&key)));
        assert!(!ledger.admits(&node('1'), fingerprint(&other)));
        assert!(ledger.remove(1, &node('1')) && !ledger.remove(1, &node('1')));
        assert!(!ledger.admits(&node('1'), fingerprint(&key)));
        let renewed = ledger.renew(&node('1'), other.public(), |_| true);
        assert_eq!(renewed, Err(Denied::Removed(node('1'))));
        join(&mut ledger, 2, &token, '1', &other).unwrap();
        assert!(ledger.admits(&node('1'), fingerprint(&other)));
        assert!(
            !ledger.admits(&node('1'), fingerprint(&key)),
            "nor is its old key good again"
        );
    }

    #[test]
    fn a_renewal_is_by_the_present_key_and_can_be_repeated() {
        let mut ledger = ledger();
        let keys: Vec<Key> = (0..3).map(|_| Key::generate()).collect();
        ledger.enter(0, &node('1'), "host", keys[0].public());
        let by = |key: &Key| {
            let key = key.public();
            move |known: &PublicKey| *known == key
        };
        let next = keys[1].public();
        let stranger = ledger.renew(&node('2'), next, |_| true);
        assert_eq!(stranger, Err(Denied::Stranger(node('2'))));
        let wrong = ledger.renew(&node('1'), next, by(&keys[2]));
        assert_eq!(wrong, Err(Denied::Key(node('1'))));
        ledger.renew(&node('1'), next, by(&keys[0])).unwrap();
        ledger.renew(&node('1'), next, by(&keys[0])).unwrap();
        for key in &keys[..2] {
            assert!(ledger.admits(&node('1'), Fingerprint::of_key(&key.public())));
        }
        // Who has but the key before gets no other one.
        let late = ledger.renew(&node('1'), keys[2].public(), by(&keys[0]));
        assert_eq!(late, Err(Denied::Key(node('1'))));
        ledger
            .renew(&node('1'), keys[2].public(), by(&keys[1]))
            .unwrap();
        assert!(!ledger.admits(&node('1'), Fingerprint::of_key(&keys[0].public())));
    }

    #[test]
    fn tokens_that_let_nobody_in_make_way_for_new_ones() {
        let mut ledger = ledger();
        for _ in 0..MOST_TOKENS {
            ledger.add_token(0, Some(10), None).unwrap();
        }
        assert!(ledger.add_token(9, None, None).is_err());
        ledger.add_token(10, None, None).unwrap();
        assert_eq!(ledger.tokens().len(), 1);
    }
}
