//! Links: which actors may call, and in which scope.
//!
//! Those of the host data come from whoever starts the process. All others come as messages that nobody signs, so they
//! say no more than the scope of their own actor, and are bounded in number and size.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use wasmbus_rpc::core::LinkDefinition;

use kvcache_node::settings::{LinkSettings, SettingsError};

/// So many links at a time; more are only those of the host data.
const MAX_LINKS: usize = 1 << 16;
/// Longest id of an actor that is taken from a message. A public key has 56 bytes.
const MAX_ACTOR_BYTES: usize = 256;

/// Why a link is not taken. Settings have a line each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("actor_id: expected the public key of an actor, found {0} bytes")]
    Actor(usize),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the actor is linked with other values; delete the link first")]
    Linked,
    #[error("{MAX_LINKS} links are there, which is as many as are taken; delete some")]
    Full,
}

/// The links that are put. Read on every call, changed hardly ever.
#[derive(Default)]
pub(super) struct Links(RwLock<HashMap<Arc<str>, Arc<LinkSettings>>>);

impl Links {
    /// The scope of an actor, if it is linked.
    pub fn of(&self, actor: &str) -> Option<Arc<LinkSettings>> {
        let links = self.0.read().unwrap_or_else(PoisonError::into_inner);
        links.get(actor).cloned()
    }

    /// Puts a link of the host data.
    pub fn put_trusted(&self, link: &LinkDefinition, settings: LinkSettings) {
        self.insert(&link.actor_id, settings);
    }

    /// Puts a link of a message. One that is there has to be deleted first.
    pub fn put(&self, link: &LinkDefinition, settings: LinkSettings) -> Result<(), LinkError> {
        let length = link.actor_id.len();
        if length == 0 || length > MAX_ACTOR_BYTES {
            return Err(LinkError::Actor(length));
        }
        if self.0.read().unwrap_or_else(PoisonError::into_inner).len() >= MAX_LINKS {
            return Err(LinkError::Full);
        }
        self.insert(&link.actor_id, settings);
        Ok(())
    }

    fn insert(&self, actor: &str, settings: LinkSettings) {
        let mut links = self.0.write().unwrap_or_else(PoisonError::into_inner);
        links.insert(actor.into(), Arc::new(settings));
    }

    /// Ends a link. Returns whether there was one.
    pub fn delete(&self, actor: &str) -> bool {
        let mut links = self.0.write().unwrap_or_else(PoisonError::into_inner);
        links.remove(actor).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(actor: &str) -> LinkDefinition {
        let mut link = LinkDefinition::default();
        link.actor_id = actor.into();
        link
    }

    #[test]
    fn links_are_bounded_in_number_and_in_the_size_of_their_actors() {
        let links = Links::default();
        assert_eq!(links.put(&link(""), LinkSettings::default()), Err(LinkError::Actor(0)));
        let long = "M".repeat(MAX_ACTOR_BYTES + 1);
        assert!(links.put(&link(&long), LinkSettings::default()).is_err());
        for number in 0..MAX_LINKS {
            links.put(&link(&number.to_string()), LinkSettings::default()).unwrap();
        }
        assert_eq!(
            links.put(&link("one more"), LinkSettings::default()),
            Err(LinkError::Full)
        );
        assert!(links.delete("7"));
        assert!(!links.delete("7"));
        assert_eq!(links.put(&link("one more"), LinkSettings::default()), Ok(()));
        assert!(links.of("one more").is_some() && links.of("7").is_none());
    }
}
