//! What errors of the client and the server mean for a store.

use kvcache_node::secret::cleaned;
use kvcache_node::store::StoreError;
use redis::{ErrorKind, RedisError};

const RIGHTS: &str = "its user needs ~nats-kvcache:1:* +eval +evalsha +exists +hmget +hset +hdel +hscan +select +info";

/// What the server refuses until somebody changes something, and what that is. A script of Redis 6 wraps the words of
/// a command in others, so they are looked for anywhere.
const UNUSABLE: [(&str, &str); 9] = [
    ("NOAUTH", "the URL has to name a password"),
    ("WRONGPASS", "user or password in the URL are wrong"),
    ("invalid password", "the password in the URL is wrong"),
    (
        "AUTH <password> called without any password",
        "it asks for no password: take it out of the URL",
    ),
    ("NOPERM", RIGHTS),
    ("user executing the script can't", RIGHTS),
    (
        "WRONGTYPE",
        "a key of ours is held by something else: use another database",
    ),
    (
        "DB index is out of range",
        "it has no database of that number: see its setting databases",
    ),
    (
        "unknown command",
        "it lacks a command: Redis 6 or a Valkey is needed, with its commands under their own names",
    ),
];

/// The server refuses as a node of a cluster that has the key elsewhere.
const CLUSTER: [&str; 4] = ["MOVED", "ASK ", "CROSSSLOT", "SELECT is not allowed in cluster mode"];

/// The error of a store for one of a connection to the server of this name.
pub(crate) fn fault(server: &str, error: &RedisError) -> StoreError {
    let said = words(error);
    let text = |meaning: &str| match meaning {
        "" => format!("{server}: {said}"),
        _ => format!("{server}: {said}: {meaning}"),
    };
    if let Some((_, meaning)) = UNUSABLE.iter().find(|(words, _)| said.contains(words)) {
        return StoreError::Unusable(text(meaning));
    }
    if CLUSTER.iter().any(|words| said.starts_with(words)) {
        return StoreError::Unusable(text("Redis Cluster is not supported"));
    }
    match error.kind() {
        ErrorKind::InvalidClientConfig => StoreError::Unusable(text("")),
        ErrorKind::Io if error.is_timeout() => StoreError::Away(format!("{server}: no answer in time")),
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
            StoreError::Unusable(text("it does not speak as Redis does"))
        }
        _ => StoreError::Away(text("")),
    }
}

/// Whether the connection is of no use any more. A server that has become a replica is left too: its name may lead to
/// the new primary.
pub(crate) fn ends_connection(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => true,
        _ => error.is_unrecoverable_error() || ["READONLY", "NOAUTH"].iter().any(|code| words(error).contains(code)),
    }
}

/// What the server said, in its own words.
fn words(error: &RedisError) -> String {
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    cleaned(said.trim()).into_owned()
}
