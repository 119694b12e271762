//! What a NATS server refuses, read from its error messages.

use super::subjects::Subjects;
use kvcache_core::replica::{Channel, Refused};

/// A refusal in the server's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// A message on this subject.
    Publish(String),
    /// A subscription to this subject.
    Subscribe(String),
    /// A further subscription.
    Subscriptions(String),
    /// The connection.
    Connection(String),
}

impl Refusal {
    /// Reads an error of the server; `None` if it is no refusal.
    pub fn of(error: &str) -> Option<Self> {
        let error = error.trim().trim_start_matches("nats: ").trim_matches('\'');
        let lower = error.to_ascii_lowercase();
        let quoted = || error.split('"').nth(1).unwrap_or(error).to_owned();
        if lower.starts_with("permissions violation for publish") {
            return Some(Refusal::Publish(quoted()));
        }
        if lower.starts_with("permissions violation for subscription") {
            return Some(Refusal::Subscribe(quoted()));
        }
        if lower.starts_with("maximum subscriptions exceeded") {
            return Some(Refusal::Subscriptions(error.into()));
        }
        let ends = [
            "maximum connections exceeded",
            "maximum account active connections exceeded",
        ];
        let is_connection = lower.starts_with("authorization violation")
            || lower.contains("authentication expired")
            || lower.contains("authentication revoked")
            || lower.contains("authorization expired")
            || ends.iter().any(|end| lower.starts_with(end));
        is_connection.then(|| Refusal::Connection(error.into()))
    }

    /// As the replica understands it; `None` for a subject that is none of ours.
    pub fn for_replica(self, subjects: &Subjects) -> Option<(Refused, String)> {
        Some(match self {
            Refusal::Publish(subject) => (Refused::Publish(channel(subjects, &subject)?), subject),
            Refusal::Subscribe(subject) => (Refused::Subscribe(channel(subjects, &subject)?), subject),
            Refusal::Subscriptions(text) => (Refused::Subscriptions, text),
            Refusal::Connection(text) => (Refused::Connection, text),
        })
    }
}

fn channel(subjects: &Subjects, subject: &str) -> Option<Channel> {
    if subject == subjects.commands() {
        Some(Channel::Deltas)
    } else if subject == subjects.beat() {
        Some(Channel::Heartbeat)
    } else if subject == subjects.replay() {
        Some(Channel::Bootstrap)
    } else {
        subject.starts_with(&subjects.nodes()).then_some(Channel::Node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvcache_core::cache::NodeId;

    #[test]
    fn the_words_of_servers_are_understood() {
        let subjects = Subjects::of("l", "k");
        let node = subjects.node(NodeId(7));
        let replica = |error: &str| Refusal::of(error)?.for_replica(&subjects);
        for (error, what) in [
            (
                format!("nats: Permissions Violation for Publish to \"{}\"", subjects.commands()),
                Refused::Publish(Channel::Deltas),
            ),
            (
                format!("Permissions Violation for Subscription to \"{node}.*\""),
                Refused::Subscribe(Channel::Node),
            ),
            (
                format!(
                    "'Permissions Violation for Subscription to \"{}\" using queue \"q\"'",
                    subjects.replay()
                ),
                Refused::Subscribe(Channel::Bootstrap),
            ),
            (
                format!("Permissions Violation for Publish to \"{}\"", subjects.beat()),
                Refused::Publish(Channel::Heartbeat),
            ),
            ("maximum subscriptions exceeded".into(), Refused::Subscriptions),
            ("maximum connections exceeded".into(), Refused::Connection),
            (
                "maximum account active connections exceeded".into(),
                Refused::Connection,
            ),
            ("User Authentication Expired".into(), Refused::Connection),
            ("nats: authorization violation".into(), Refused::Connection),
        ] {
            assert_eq!(replica(&error).map(|(what, _)| what), Some(what), "{error}");
        }
        for other in [
            "Permissions Violation for Publish to \"elsewhere\"",
            "Unknown Protocol Operation",
            "Stale Connection",
            "",
        ] {
            assert_eq!(replica(other), None, "{other}");
        }
    }
}
