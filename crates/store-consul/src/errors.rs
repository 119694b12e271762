//! What answers of Consul mean for a store.

use kvcache_node::secret::cleaned;
use kvcache_node::store::StoreError;

/// What is needed to name an error.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Such as `Consul at host:8500`.
    pub(crate) server: String,
    /// What all keys of the store begin with, for the rule that lets it in.
    pub(crate) prefix: String,
}

impl Place {
    /// Out of reach, too slow, or without a leader.
    pub(crate) fn away(&self, tried: &str, why: &dyn std::fmt::Display) -> StoreError {
        StoreError::Away(self.text(tried, why))
    }

    /// It will say the same again.
    pub(crate) fn unusable(&self, tried: &str, why: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unusable(self.text(tried, why))
    }

    /// It holds what we have not written.
    pub(crate) fn damaged(&self, tried: &str, why: &dyn std::fmt::Display) -> StoreError {
        StoreError::Damaged(self.text(tried, why))
    }

    /// An answer that is no success.
    pub(crate) fn refused(&self, tried: &str, status: u16, answer: &str) -> StoreError {
        let answer = answer.trim();
        let why = format!("it answers {status}: {answer}");
        if says_forbidden(answer) || status == 401 || status == 403 {
            let prefix = &self.prefix;
            let rule = format!("key_prefix \"{prefix}\" {{ policy = \"write\" }}");
            return self.unusable(
                tried,
                &format!("{why} (the token needs a policy with the rule: {rule})"),
            );
        }
        match status {
            // Too many, no leader, a leader that was lost: for now.
            429 | 500..=599 => self.away(tried, &why),
            409 => self.away(tried, &why),
            _ => self.unusable(tried, &why),
        }
    }

    fn text(&self, tried: &str, why: &dyn std::fmt::Display) -> String {
        cleaned(&format!("{}: {tried}: {why}", self.server)).into_owned()
    }
}

/// In a transaction that is an error of an operation, without a status of its own.
fn says_forbidden(answer: &str) -> bool {
    ["Permission denied", "ACL not found"]
        .iter()
        .any(|words| answer.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        let place = Place {
            server: "Consul at host:8500".into(),
            prefix: "team/nats-kvcache/".into(),
        };
        for (status, answer) in [(500, "No cluster leader"), (503, ""), (429, "rate"), (409, "odd")] {
            let error = place.refused("writing", status, answer);
            assert!(matches!(error, StoreError::Away(_)), "{error}");
        }
        for (status, answer) in [(400, "what?"), (413, "too large"), (404, "no such page")] {
            let error = place.refused("writing", status, answer);
            assert!(matches!(error, StoreError::Unusable(_)), "{error}");
        }
        for (status, answer) in [
            (403, "ACL not found"),
            (409, "Permission denied: x"),
            (500, "ACL not found"),
        ] {
            let error = place.refused("writing", status, answer);
            let rule = "key_prefix \"team/nats-kvcache/\" { policy = \"write\" }";
            assert!(
                matches!(&error, StoreError::Unusable(text) if text.contains(rule)),
                "{error}"
            );
        }
    }
}
