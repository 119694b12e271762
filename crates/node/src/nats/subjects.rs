//! Names of the NATS subjects of one lattice and link name.

use std::str::FromStr;

use kvcache_core::cache::NodeId;
use kvcache_core::replica::Keyring;
use kvcache_core::wire::VERSION;

/// Queue group of those who answer replay requests: only nodes that understand and accept each other share one, so that
/// a request is not delivered to somebody who will not answer it.
pub(super) fn replay_group(keyring: &Keyring) -> String {
    format!("replay.{VERSION}.{}", keyring.domain())
}

/// Longest subject. A request names two of them in one line of the protocol, of which a server reads 4,096 bytes.
const MAX_SUBJECT_BYTES: usize = 1_024;

/// What stands behind the root at most: `.node.{node}.{request}`.
const MAX_SUFFIX_BYTES: usize = ".node.".len() + 16 + ".".len() + 20;

/// Why a text cannot be used as a subject.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it cannot be used as a subject: {reason}")]
pub struct SubjectError {
    reason: &'static str,
}

/// A subject to publish on: no wildcards, and none of those of the server or of replies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject(String);

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check(text)?;
        Ok(Subject(text.into()))
    }
}

/// The subjects of one cache: nodes that share them share the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subjects {
    commands: String,
    replay: String,
    root: String,
}

impl Subjects {
    /// The subjects of the cache of `link` in `lattice`: below `lattice.{lattice}.kvcache.{link}`.
    pub fn of(lattice: &str, link: &str) -> Self {
        let root = format!("lattice.{}.kvcache.{}", escape(lattice), escape(link));
        Subjects {
            commands: format!("{root}.commands"),
            replay: format!("{root}.replay"),
            root,
        }
    }

    /// With the subject of commands replaced. Everything but it moves below it, so that two caches with different
    /// command subjects have nothing in common.
    pub fn with_commands(self, Subject(subject): &Subject) -> Self {
        Subjects {
            commands: subject.clone(),
            replay: format!("{subject}.replay"),
            root: subject.clone(),
        }
    }

    /// With the subject of replay requests replaced.
    pub fn with_replay(self, Subject(subject): &Subject) -> Self {
        Subjects {
            replay: subject.clone(),
            ..self
        }
    }

    /// Whether the subjects can be used together, and none is too long for a server.
    pub fn check(&self) -> Result<(), SubjectError> {
        let below = |name: &str| {
            let rest = self
                .replay
                .strip_prefix(&self.root)
                .and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| rest.split('.').next() == Some(name))
        };
        let reason = if self.replay == self.commands {
            "it is the one of commands as well"
        } else if below("beat") || below("node") {
            "it is one of the subjects of beats or nodes as well"
        } else if self.root.len() + MAX_SUFFIX_BYTES > MAX_SUBJECT_BYTES {
            "it is longer than 981 bytes"
        } else if self.replay.len() > MAX_SUBJECT_BYTES {
            "it is longer than 1,024 bytes"
        } else {
            return Ok(());
        };
        Err(SubjectError { reason })
    }

    /// Frames of commands.
    pub fn commands(&self) -> &str {
        &self.commands
    }

    /// Replay requests to any synced peer.
    pub fn replay(&self) -> &str {
        &self.replay
    }

    /// Beats.
    pub fn beat(&self) -> String {
        format!("{}.beat", self.root)
    }

    /// What the subjects of all nodes begin with.
    pub(super) fn nodes(&self) -> String {
        format!("{}.node.", self.root)
    }

    /// Messages to one node.
    pub fn node(&self, node: NodeId) -> String {
        format!("{}.node.{node}", self.root)
    }

    /// The request a reply subject of `node` belongs to.
    pub fn request_of(&self, node: NodeId, subject: &str) -> Option<u64> {
        let token = subject.strip_prefix(&self.node(node))?.strip_prefix('.')?;
        token.parse().ok()
    }

    /// Where the server says that nobody listens for request `request` of `node`.
    pub fn reply(&self, node: NodeId, request: u64) -> String {
        format!("{}.{request}", self.node(node))
    }

    /// Where nobody listens, and where the server says so to `node`.
    pub fn nobody(&self, node: NodeId) -> (String, String) {
        let reply = format!("{}.end", self.node(node));
        (format!("{reply}.nobody"), reply)
    }
}

/// One token of a subject: letters, digits, `-` and `_` stand for themselves, any other byte as `%XX`.
fn escape(token: &str) -> String {
    if token.is_empty() {
        // No other token escapes to this.
        return "%".into();
    }
    let mut escaped = String::with_capacity(token.len());
    for byte in token.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn check(subject: &str) -> Result<(), SubjectError> {
    let reason = if subject.is_empty() {
        "it is empty"
    } else if subject.split('.').any(str::is_empty) {
        "it has an empty token"
    } else if subject.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "it contains white space or control characters"
    } else if subject.split('.').any(|token| token == "*" || token == ">") {
        "it contains a wildcard"
    } else if subject.starts_with('$') || subject.starts_with("_INBOX.") {
        "it begins like the subjects of the server or of replies"
    } else {
        return Ok(());
    };
    Err(SubjectError { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Subject {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_cannot_break_out_of_their_place() {
        let subjects = Subjects::of("a.b", "de fault>*");
        assert_eq!(subjects.commands(), "lattice.a%2Eb.kvcache.de%20fault%3E%2A.commands");
        assert_ne!(Subjects::of("a%2Eb", "l"), Subjects::of("a.b", "l"));
        assert_ne!(Subjects::of("a", "b"), Subjects::of("a", "c"));
    }

    #[test]
    fn overrides_keep_caches_apart() {
        let moved = Subjects::of("a", "b").with_commands(&subject("my.cache"));
        assert_eq!(moved.commands(), "my.cache");
        assert_eq!(moved.replay(), "my.cache.replay");
        assert_eq!(moved.beat(), "my.cache.beat");
        assert_eq!(moved.clone().with_replay(&subject("my.replays")).replay(), "my.replays");
        for bad in [
            "",
            "a..b",
            "a b",
            "a.*",
            ">",
            ".a",
            "a\tb",
            "a\u{a0}b",
            "$SYS.a",
            "$JS.API.x",
            "_INBOX.a",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_two_subjects_are_the_same() {
        let derived = || Subjects::of("a", "b");
        let moved = || derived().with_commands(&subject("my.cache"));
        for (subjects, replay) in [
            (derived(), "lattice.a.kvcache.b.commands"),
            (derived(), "lattice.a.kvcache.b.beat"),
            (derived(), "lattice.a.kvcache.b.node.1"),
            (moved(), "my.cache"),
            (moved(), "my.cache.beat"),
            (moved(), "my.cache.node"),
            (moved(), "my.cache.node.0123456789abcdef.7"),
        ] {
            assert!(subjects.with_replay(&subject(replay)).check().is_err(), "{replay}");
        }
        for replay in ["my.cache.beats", "my.cache.replays.beat", "my", "my.cache2.beat"] {
            assert_eq!(moved().with_replay(&subject(replay)).check(), Ok(()), "{replay}");
        }
    }

    #[test]
    fn subjects_fit_the_line_that_a_server_reads() {
        let longest = "s".repeat(MAX_SUBJECT_BYTES - MAX_SUFFIX_BYTES);
        let subjects = Subjects::of("a", "b").with_commands(&subject(&longest));
        assert_eq!(subjects.check(), Ok(()));
        assert_eq!(subjects.reply(NodeId(u64::MAX), u64::MAX).len(), MAX_SUBJECT_BYTES);
        assert!(subjects.nobody(NodeId(u64::MAX)).0.len() <= MAX_SUBJECT_BYTES);
        let longer = Subjects::of("a", "b").with_commands(&subject(&(longest + "s")));
        assert!(longer.check().is_err());
        assert!(Subjects::of(&"ä".repeat(200), "b").check().is_err());
        assert!(Subjects::of("a", "b")
            .with_replay(&subject(&"r".repeat(MAX_SUBJECT_BYTES + 1)))
            .check()
            .is_err());
    }
}
