//! Who may write: every message ends with a proof that its sender holds a seed this node accepts (docs/PROTOCOL.md,
//! "Authentication").
//!
//! Nodes of one seed use a keyed hash (BLAKE3, <https://github.com/BLAKE3-team/BLAKE3-specs>), which costs a fraction
//! of a microsecond. Heartbeats, and everything while a peer of another listed issuer is present, carry a signature
//! (ed25519, RFC 8032) beside it. A signature costs a hundred times as much to check, and anybody can send one. So it
//! is checked only if its issuer is accepted and another one's, and by the caller, who knows whether the message could
//! count and how many were checked of late. Keys and signatures are bound to the subjects of one cache, so that a
//! message of one cache is worth nothing in another.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use nkeys::KeyPair;

use crate::wire::{ISSUER_BYTES, MAX_AUTHENTICATOR_BYTES, SIGNATURE_BYTES, TAG_BYTES};

const OPEN: u8 = 0;
const TAGGED: u8 = 1;
const SIGNED: u8 = 2;

/// Keys that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyringError {
    /// No seed of a cluster.
    #[error("the cluster seed is not a valid nkey seed ({0})")]
    Seed(String),
    /// No public key.
    #[error("cluster issuer '{issuer}' is not a public key ({reason})")]
    Issuer {
        /// What was given.
        issuer: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The seed of a cluster, and the issuers whose hosts are trusted as well. Of no certain cache yet.
pub struct ClusterKeys {
    /// As it was given: the key of tags is derived from this text.
    seed: String,
    issuer: String,
    issuer_bytes: Vec<u8>,
    pair: KeyPair,
    accepted: BTreeMap<String, KeyPair>,
}

impl ClusterKeys {
    /// Reads a seed (`SC...`) and public keys (`C...`).
    pub fn new(seed: &str, issuers: &[String]) -> Result<Self, KeyringError> {
        let seed = seed.trim();
        let pair = KeyPair::from_seed(seed).map_err(|error| KeyringError::Seed(error.to_string()))?;
        let mut accepted = BTreeMap::new();
        for issuer in issuers {
            let key = KeyPair::from_public_key(issuer.trim()).map_err(|error| KeyringError::Issuer {
                issuer: issuer.clone(),
                reason: error.to_string(),
            })?;
            accepted.insert(issuer.trim().to_owned(), key);
        }
        let issuer = pair.public_key();
        let issuer_bytes = BASE32_NOPAD
            .decode(issuer.as_bytes())
            .map_err(|error| KeyringError::Seed(error.to_string()))?;
        accepted.insert(issuer.clone(), pair.clone());
        Ok(ClusterKeys {
            seed: seed.into(),
            issuer,
            issuer_bytes,
            pair,
            accepted,
        })
    }
}

/// What a node signs with, and whose messages it accepts.
pub struct Keyring {
    own: Option<Own>,
    accepted: BTreeMap<String, KeyPair>,
    /// Hash that every signature is made over begins with the subjects of this cache.
    root: String,
}

struct Own {
    issuer: String,
    issuer_bytes: Vec<u8>,
    pair: KeyPair,
    tag_key: [u8; 32],
}

/// How the sender of a message proved who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Not at all, and none is asked for.
    Nothing,
    /// It holds this node's seed.
    SameSeed,
    /// It holds the seed of another issuer that is accepted here.
    OtherIssuer,
}

/// Why a message is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No proof where one is asked for.
    #[error("it is not authenticated")]
    Unauthenticated,
    /// A proof where authentication is off: the sender would accept nothing from here.
    #[error("it is authenticated, but authentication is off here")]
    Authenticated,
    /// The proof does not fit the message: another seed, another cache, or a forgery.
    #[error("its proof does not fit")]
    Forged,
    /// It names an issuer that is not accepted here. Whether it holds the seed of that issuer was not looked at.
    #[error("its issuer {0} is not accepted here")]
    Foreign(String),
}

/// A message without its authenticator.
#[derive(PartialEq, Eq, Debug)]
pub enum Verified<'a> {
    /// Accepted.
    Accepted(Bytes, Proof),
    /// Signed, as it says, by another issuer that is accepted here.
    Signed(Bytes, Signature<'a>),
}

/// A signature that has yet to be checked.
pub struct Signature<'a> {
    keyring: &'a Keyring,
    key: &'a KeyPair,
    bytes: [u8; SIGNATURE_BYTES],
}

impl Signature<'_> {
    /// Whether it is one of this message. Costs some ten microseconds.
    pub fn fits(&self, message: &[u8]) -> bool {
        self.key.verify(&self.keyring.digest(message), &self.bytes).is_ok()
    }
}

impl PartialEq for Signature<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Signature<'_> {}

impl fmt::Debug for Signature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").finish_non_exhaustive()
    }
}

impl Keyring {
    /// For lattices that want no authentication: authenticators nothing, accepts everything.
    pub fn disabled() -> Self {
        Keyring {
            own: None,
            accepted: BTreeMap::new(),
            root: String::new(),
        }
    }

    /// Authenticates with the cluster's `seed` (`SC...`), accepts what the seeds of `issuers` (`C...`) and this seed
    /// have authenticated. `root` names the cache: the subject its deltas are published on.
    pub fn new(seed: &str, issuers: &[String], root: &str) -> Result<Self, KeyringError> {
        Ok(Self::of(&ClusterKeys::new(seed, issuers)?, root))
    }

    /// Authenticates with these keys, in the cache that `root` names.
    pub fn of(keys: &ClusterKeys, root: &str) -> Self {
        let mut secret = keys.seed.as_bytes().to_vec();
        secret.push(0);
        secret.extend_from_slice(root.as_bytes());
        Keyring {
            own: Some(Own {
                issuer: keys.issuer.clone(),
                issuer_bytes: keys.issuer_bytes.clone(),
                pair: keys.pair.clone(),
                tag_key: blake3::derive_key("nats-kvcache 2 tag", &secret),
            }),
            accepted: keys.accepted.clone(),
            root: root.into(),
        }
    }

    /// Whether messages are authenticated.
    pub fn is_open(&self) -> bool {
        self.own.is_none()
    }

    /// The public key others have to list, unless authentication is off.
    pub fn issuer(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.issuer.as_str())
    }

    /// Whether peers of other issuers may be there.
    pub(crate) fn accepts_others(&self) -> bool {
        self.accepted.len() > 1
    }

    /// Names the nodes that accept each other: the part of a queue group's name that keeps them apart from others.
    pub fn domain(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("nats-kvcache 2 domain");
        for issuer in self.accepted.keys() {
            hasher.update(issuer.as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Appends the authenticator: the keyed hash, and a signature if `signed`.
    pub fn authenticate(&self, mut message: Vec<u8>, signed: bool) -> Bytes {
        let Some(own) = &self.own else {
            message.push(OPEN);
            return message.into();
        };
        let tag = blake3::keyed_hash(&own.tag_key, &message);
        // A key pair made from a seed can sign; there is nothing else it could fail for.
        let signature = signed.then(|| own.pair.sign(&self.digest(&message)).unwrap_or_default());
        message.extend_from_slice(&tag.as_bytes()[..TAG_BYTES]);
        match signature {
            Some(signature) => {
                message.extend_from_slice(&own.issuer_bytes);
                message.extend_from_slice(&signature);
                message.push(SIGNED);
            }
            None => message.push(TAGGED),
        }
        message.into()
    }

    /// Takes the authenticator off, and checks it unless it is a signature of another issuer.
    pub fn verify(&self, authenticated: &Bytes) -> Result<Verified<'_>, Refusal> {
        let (mode, authenticator_bytes) = match authenticated.last() {
            Some(&TAGGED) => (TAGGED, TAG_BYTES + 1),
            Some(&SIGNED) => (SIGNED, MAX_AUTHENTICATOR_BYTES),
            Some(&OPEN) => (OPEN, 1),
            _ => return Err(Refusal::Forged),
        };
        let length = authenticated
            .len()
            .checked_sub(authenticator_bytes)
            .ok_or(Refusal::Forged)?;
        let (message, authenticator) = (
            authenticated.slice(..length),
            &authenticated[length..authenticated.len() - 1],
        );
        let Some(own) = &self.own else {
            return match mode {
                OPEN => Ok(Verified::Accepted(message, Proof::Nothing)),
                _ => Err(Refusal::Authenticated),
            };
        };
        if mode == OPEN {
            return Err(Refusal::Unauthenticated);
        }
        let (tag, signed) = authenticator.split_at(TAG_BYTES);
        if mode == SIGNED && !signed.starts_with(&own.issuer_bytes) {
            return self.signed_by_another(message, signed);
        }
        // Whoever has the seed can make both, so the tag alone decides. blake3::Hash compares in constant time, but
        // only at full length; a tag is 16 bytes of it.
        let own_tag = blake3::keyed_hash(&own.tag_key, &message);
        if !constant_time_eq::constant_time_eq(&own_tag.as_bytes()[..TAG_BYTES], tag) {
            return Err(Refusal::Forged);
        }
        Ok(Verified::Accepted(message, Proof::SameSeed))
    }

    fn signed_by_another(&self, message: Bytes, signed: &[u8]) -> Result<Verified<'_>, Refusal> {
        let (issuer, signature) = signed.split_at(ISSUER_BYTES);
        let issuer = BASE32_NOPAD.encode(issuer);
        let Some(key) = self.accepted.get(&issuer) else {
            return Err(match KeyPair::from_public_key(&issuer) {
                Ok(_) => Refusal::Foreign(issuer),
                Err(_) => Refusal::Forged,
            });
        };
        let bytes = signature.try_into().map_err(|_| Refusal::Forged)?;
        let signature = Signature {
            keyring: self,
            key,
            bytes,
        };
        Ok(Verified::Signed(message, signature))
    }

    /// What is signed.
    fn digest(&self, message: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("nats-kvcache 2 signature");
        hasher.update(self.root.as_bytes()).update(&[0]).update(message);
        hasher.finalize().into()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("issuer", &self.issuer())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(seed: &KeyPair, others: &[&KeyPair], root: &str) -> Keyring {
        let issuers: Vec<String> = others.iter().map(|pair| pair.public_key()).collect();
        Keyring::new(&seed.seed().unwrap(), &issuers, root).unwrap()
    }

    /// What a receiver makes of a message that may count.
    fn open(ring: &Keyring, authenticated: &Bytes) -> Result<(Bytes, Proof), Refusal> {
        match ring.verify(authenticated)? {
            Verified::Accepted(message, proof) => Ok((message, proof)),
            Verified::Signed(message, signature) if signature.fits(&message) => Ok((message, Proof::OtherIssuer)),
            Verified::Signed(..) => Err(Refusal::Forged),
        }
    }

    fn pair(byte: u8) -> KeyPair {
        KeyPair::new_from_raw(nkeys::KeyPairType::Cluster, [byte; 32]).unwrap()
    }

    #[test]
    fn nodes_of_one_seed_accept_each_other_and_nobody_else() {
        let (one, same) = (ring(&pair(1), &[], "root"), ring(&pair(1), &[], "root"));
        let other = ring(&pair(2), &[], "root");
        for signed in [false, true] {
            let authenticated = one.authenticate(b"message".to_vec(), signed);
            assert_eq!(
                open(&same, &authenticated),
                Ok((Bytes::from_static(b"message"), Proof::SameSeed))
            );
            assert!(open(&other, &authenticated).is_err());
        }
        let foreign = open(&other, &one.authenticate(b"message".to_vec(), true));
        assert_eq!(foreign, Err(Refusal::Foreign(pair(1).public_key())));
        assert_eq!(
            open(&other, &one.authenticate(b"message".to_vec(), false)),
            Err(Refusal::Forged)
        );
    }

    #[test]
    fn listed_issuers_accept_each_others_signatures() {
        let (one, two) = (ring(&pair(1), &[&pair(2)], "root"), ring(&pair(2), &[&pair(1)], "root"));
        assert_eq!(one.domain(), two.domain());
        assert_ne!(one.domain(), ring(&pair(1), &[], "root").domain());
        let authenticated = one.authenticate(b"message".to_vec(), true);
        assert_eq!(
            open(&two, &authenticated),
            Ok((Bytes::from_static(b"message"), Proof::OtherIssuer))
        );
        assert_eq!(
            open(&two, &one.authenticate(b"message".to_vec(), false)),
            Err(Refusal::Forged)
        );
    }

    #[test]
    fn a_message_of_another_cache_is_worth_nothing() {
        let (here, there) = (ring(&pair(1), &[], "here"), ring(&pair(1), &[], "there"));
        for signed in [false, true] {
            assert_eq!(
                open(&there, &here.authenticate(b"message".to_vec(), signed)),
                Err(Refusal::Forged)
            );
        }
    }

    /// The vectors of docs/PROTOCOL.md, over the bytes of tests/golden/v2_hello.hex.
    #[test]
    fn the_published_vectors_hold() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = include_str!("../../../tests/golden/v2_hello.hex").replace(char::is_whitespace, "");
        let message: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap())
            .collect();
        let ring = ring(&pair(1), &[], "lattice.default.kvcache.default.commands");
        let published = include_str!("../../../../../docs/PROTOCOL.md");
        let signed = ring.authenticate(message.clone(), true);
        let signature = &signed[signed.len() - 1 - SIGNATURE_BYTES..signed.len() - 1];
        let tagged = ring.authenticate(message.clone(), false);
        for (what, value) in [
            ("issuer", pair(1).public_key()),
            ("domain", ring.domain()),
            ("tag", hex(&tagged[message.len()..message.len() + TAG_BYTES])),
            ("digest", hex(&ring.digest(&message))),
            ("tag key", hex(&ring.own.as_ref().unwrap().tag_key)),
            ("signature, first half", hex(&signature[..32])),
            ("signature, second half", hex(&signature[32..])),
        ] {
            assert!(
                published.contains(&format!("| {what} | `{value}` |")),
                "{what} is {value}"
            );
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (one, two) = (ring(&pair(1), &[&pair(2)], "root"), ring(&pair(2), &[&pair(1)], "root"));
        let message = b"message".to_vec();
        for (signed, reader) in [(false, &one), (true, &one), (true, &two)] {
            let authenticated = one.authenticate(message.clone(), signed);
            for place in 0..authenticated.len() {
                let mut bytes = authenticated.to_vec();
                bytes[place] ^= 1;
                // Who has the seed looks at the tag, all others at the signature.
                let tag = (message.len()..message.len() + TAG_BYTES).contains(&place);
                let signature = (message.len() + TAG_BYTES + ISSUER_BYTES..authenticated.len() - 1).contains(&place);
                let unread = signed
                    && if reader.issuer() == one.issuer() {
                        signature
                    } else {
                        tag
                    };
                assert_eq!(
                    open(reader, &bytes.into()).is_ok(),
                    unread,
                    "byte {place}, signed {signed}"
                );
            }
            for length in 0..authenticated.len() {
                assert!(open(reader, &authenticated.slice(..length)).is_err(), "cut to {length}");
            }
        }
    }

    #[test]
    fn what_a_stranger_signs_costs_no_signature() {
        let here = ring(&pair(1), &[&pair(2)], "root");
        // Neither an issuer that nobody lists, nor this one's own, which needs the tag.
        let stranger = ring(&pair(3), &[], "root").authenticate(b"message".to_vec(), true);
        assert_eq!(here.verify(&stranger), Err(Refusal::Foreign(pair(3).public_key())));
        let mut forged = here.authenticate(b"message".to_vec(), true).to_vec();
        forged[7] ^= 1;
        assert_eq!(here.verify(&forged.into()), Err(Refusal::Forged));
        let listed = ring(&pair(2), &[], "root").authenticate(b"message".to_vec(), true);
        assert!(matches!(here.verify(&listed), Ok(Verified::Signed(..))));
    }

    #[test]
    fn with_and_without_authentication_do_not_mix() {
        let (off, on) = (Keyring::disabled(), ring(&pair(1), &[], "root"));
        let message = b"message".to_vec();
        assert_eq!(
            open(&off, &off.authenticate(message.clone(), true)),
            Ok((Bytes::from_static(b"message"), Proof::Nothing))
        );
        assert_eq!(
            open(&off, &on.authenticate(message.clone(), false)),
            Err(Refusal::Authenticated)
        );
        assert_eq!(
            open(&on, &off.authenticate(message, false)),
            Err(Refusal::Unauthenticated)
        );
    }
}
