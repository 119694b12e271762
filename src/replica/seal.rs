//! Who may write: every message ends with a proof that its sender holds a seed this node accepts (docs/PROTOCOL.md,
//! "Authentication").
//!
//! Nodes of one seed use a keyed hash (BLAKE3, <https://github.com/BLAKE3-team/BLAKE3-specs>), which costs a fraction of
//! a microsecond. Beats, and everything while a peer of another listed issuer is present, carry a signature (ed25519,
//! RFC 8032). Keys and signatures are bound to the subjects of one cache, so that a message of one cache is worth
//! nothing in another.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use nkeys::KeyPair;

/// Bytes of the keyed hash that travel.
const TAG_BYTES: usize = 16;

/// Bytes of an issuer's public key, which as text (`C...`) is their base 32: prefix, key and checksum.
const ISSUER_BYTES: usize = 35;

/// Bytes of an ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// Bytes a seal adds to a message, at most.
pub(super) const MAX_SEAL_BYTES: usize = ISSUER_BYTES + SIGNATURE_BYTES + 1;

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
    Sealed,
    /// The proof does not fit the message: another seed, another cache, or a forgery.
    #[error("its proof does not fit")]
    Forged,
    /// Properly signed by an issuer that is not accepted here.
    #[error("its issuer {0} is not accepted here")]
    Foreign(String),
}

impl Keyring {
    /// For lattices that want no authentication: seals nothing, accepts everything.
    pub fn open() -> Self {
        Keyring {
            own: None,
            accepted: BTreeMap::new(),
            root: String::new(),
        }
    }

    /// Seals with the cluster's `seed` (`SC...`), accepts what the seeds of `issuers` (`C...`) and this seed have sealed.
    /// `root` names the cache: the subject its commands are published on.
    pub fn new(seed: &str, issuers: &[String], root: &str) -> Result<Self, KeyringError> {
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
        let mut secret = seed.as_bytes().to_vec();
        secret.push(0);
        secret.extend_from_slice(root.as_bytes());
        Ok(Keyring {
            own: Some(Own {
                issuer,
                issuer_bytes,
                pair,
                tag_key: blake3::derive_key("nats-kvcache 2 tag", &secret),
            }),
            accepted,
            root: root.into(),
        })
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
    pub(super) fn accepts_others(&self) -> bool {
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

    /// Appends the seal: a signature if `signed`, else the keyed hash.
    pub fn seal(&self, mut message: Vec<u8>, signed: bool) -> Bytes {
        let Some(own) = &self.own else {
            message.push(OPEN);
            return message.into();
        };
        if signed {
            // A key pair made from a seed can sign; there is nothing else it could fail for.
            let signature = own.pair.sign(&self.digest(&message)).unwrap_or_default();
            message.extend_from_slice(&own.issuer_bytes);
            message.extend_from_slice(&signature);
            message.push(SIGNED);
        } else {
            let tag = blake3::keyed_hash(&own.tag_key, &message);
            message.extend_from_slice(&tag.as_bytes()[..TAG_BYTES]);
            message.push(TAGGED);
        }
        message.into()
    }

    /// Checks the seal and takes it off.
    pub fn unseal(&self, sealed: &Bytes) -> Result<(Bytes, Proof), Refusal> {
        let (mode, seal_bytes) = match sealed.last() {
            Some(&TAGGED) => (TAGGED, TAG_BYTES + 1),
            Some(&SIGNED) => (SIGNED, MAX_SEAL_BYTES),
            Some(&OPEN) => (OPEN, 1),
            _ => return Err(Refusal::Forged),
        };
        let length = sealed.len().checked_sub(seal_bytes).ok_or(Refusal::Forged)?;
        let (message, seal) = (sealed.slice(..length), &sealed[length..sealed.len() - 1]);
        let Some(own) = &self.own else {
            return if mode == OPEN {
                Ok((message, Proof::Nothing))
            } else {
                Err(Refusal::Sealed)
            };
        };
        match mode {
            OPEN => Err(Refusal::Unauthenticated),
            TAGGED => {
                // blake3::Hash compares in constant time, but only at full length; a tag is 16 bytes of it.
                let tag = blake3::keyed_hash(&own.tag_key, &message);
                if !constant_time_eq::constant_time_eq(&tag.as_bytes()[..TAG_BYTES], seal) {
                    return Err(Refusal::Forged);
                }
                Ok((message, Proof::SameSeed))
            }
            _ => self.check_signature(own, message, seal),
        }
    }

    fn check_signature(&self, own: &Own, message: Bytes, seal: &[u8]) -> Result<(Bytes, Proof), Refusal> {
        let (issuer, signature) = seal.split_at(ISSUER_BYTES);
        let issuer = BASE32_NOPAD.encode(issuer);
        let digest = self.digest(&message);
        if let Some(key) = self.accepted.get(&issuer) {
            key.verify(&digest, signature).map_err(|_| Refusal::Forged)?;
            let proof = if issuer == own.issuer {
                Proof::SameSeed
            } else {
                Proof::OtherIssuer
            };
            return Ok((message, proof));
        }
        let stranger = KeyPair::from_public_key(&issuer).map_err(|_| Refusal::Forged)?;
        stranger.verify(&digest, signature).map_err(|_| Refusal::Forged)?;
        Err(Refusal::Foreign(issuer))
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

    fn pair(byte: u8) -> KeyPair {
        KeyPair::new_from_raw(nkeys::KeyPairType::Cluster, [byte; 32]).unwrap()
    }

    #[test]
    fn nodes_of_one_seed_accept_each_other_and_nobody_else() {
        let (one, same) = (ring(&pair(1), &[], "root"), ring(&pair(1), &[], "root"));
        let other = ring(&pair(2), &[], "root");
        for signed in [false, true] {
            let sealed = one.seal(b"message".to_vec(), signed);
            assert_eq!(
                same.unseal(&sealed),
                Ok((Bytes::from_static(b"message"), Proof::SameSeed))
            );
            assert!(other.unseal(&sealed).is_err());
        }
        let foreign = other.unseal(&one.seal(b"message".to_vec(), true));
        assert_eq!(foreign, Err(Refusal::Foreign(pair(1).public_key())));
        assert_eq!(
            other.unseal(&one.seal(b"message".to_vec(), false)),
            Err(Refusal::Forged)
        );
    }

    #[test]
    fn listed_issuers_accept_each_others_signatures() {
        let (one, two) = (ring(&pair(1), &[&pair(2)], "root"), ring(&pair(2), &[&pair(1)], "root"));
        assert_eq!(one.domain(), two.domain());
        assert_ne!(one.domain(), ring(&pair(1), &[], "root").domain());
        let sealed = one.seal(b"message".to_vec(), true);
        assert_eq!(
            two.unseal(&sealed),
            Ok((Bytes::from_static(b"message"), Proof::OtherIssuer))
        );
        assert_eq!(two.unseal(&one.seal(b"message".to_vec(), false)), Err(Refusal::Forged));
    }

    #[test]
    fn a_message_of_another_cache_is_worth_nothing() {
        let (here, there) = (ring(&pair(1), &[], "here"), ring(&pair(1), &[], "there"));
        for signed in [false, true] {
            assert_eq!(
                there.unseal(&here.seal(b"message".to_vec(), signed)),
                Err(Refusal::Forged)
            );
        }
    }

    /// The vectors of docs/PROTOCOL.md, over the bytes of tests/golden/v2_hello.hex.
    #[test]
    fn the_published_vectors_hold() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = include_str!("../../tests/golden/v2_hello.hex").replace(char::is_whitespace, "");
        let message: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap())
            .collect();
        let ring = ring(&pair(1), &[], "lattice.default.kvcache.default.commands");
        let published = include_str!("../../docs/PROTOCOL.md");
        let signed = ring.seal(message.clone(), true);
        let signature = &signed[signed.len() - 1 - SIGNATURE_BYTES..signed.len() - 1];
        let tagged = ring.seal(message.clone(), false);
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
        let ring = ring(&pair(1), &[], "root");
        for signed in [false, true] {
            let sealed = ring.seal(b"message".to_vec(), signed);
            for place in 0..sealed.len() {
                let mut bytes = sealed.to_vec();
                bytes[place] ^= 1;
                assert!(ring.unseal(&bytes.into()).is_err(), "byte {place}");
            }
            for length in 0..sealed.len() {
                assert!(ring.unseal(&sealed.slice(..length)).is_err(), "cut to {length}");
            }
        }
    }

    #[test]
    fn with_and_without_authentication_do_not_mix() {
        let (open, closed) = (Keyring::open(), ring(&pair(1), &[], "root"));
        let message = b"message".to_vec();
        assert_eq!(
            open.unseal(&open.seal(message.clone(), true)),
            Ok((Bytes::from_static(b"message"), Proof::Nothing))
        );
        assert_eq!(open.unseal(&closed.seal(message.clone(), false)), Err(Refusal::Sealed));
        assert_eq!(closed.unseal(&open.seal(message, false)), Err(Refusal::Unauthenticated));
    }
}
