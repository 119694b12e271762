//! Writes that wait for room, and room that is made before they have to.

use std::collections::HashMap;
use std::sync::{PoisonError, Weak};
use std::time::Duration;

use kvcache_core::cache::{Held, Key};

use super::edge::{Adds, Caps, Full, Policy, SPARE};
use super::{AckPolicy, Error, Inner, Scope, Service};
use crate::time;

/// How often it is looked whether room has to be made.
const LOOK: Duration = Duration::from_millis(20);
/// In how many of these looks peers and reads are looked at.
const LOOKS_AT_PEERS: u32 = 5;
/// How long a write waits for others to make room before it does that itself, and in all.
const OTHERS: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts of a write.
const PAUSE: Duration = Duration::from_millis(5);

impl Service {
    /// Sees that what a write adds has room, before it is applied. Makes room, if that is the policy.
    #[inline]
    pub(super) async fn make_room(&self, scope: &Scope<'_>, key: &Key, adds: Adds) -> Result<(), Error> {
        let (edge, cache) = (&self.inner.edge, &self.inner.cache);
        let any_room = scope.caps.namespace_bytes == u64::MAX && scope.caps.namespace_keys == u64::MAX;
        if any_room && edge.has_room(cache, adds.bytes(key, Held::default())) {
            return Ok(());
        }
        Box::pin(self.make_room_or_refuse(scope, key, adds)).await
    }

    async fn make_room_or_refuse(&self, scope: &Scope<'_>, key: &Key, adds: Adds) -> Result<(), Error> {
        if matches!(adds, Adds::Nothing) {
            return Ok(());
        }
        let (edge, cache) = (&self.inner.edge, &self.inner.cache);
        let held = cache.held(key);
        let needed = adds.bytes(key, held);
        let fits = self.fits_namespace(scope, held, needed);
        let fits = match fits {
            Ok(()) if needed > 0 => self.fits(needed).await,
            fits => fits,
        };
        fits.map_err(|full| {
            edge.refuses();
            Error::Full(full)
        })
    }

    fn fits_namespace(&self, scope: &Scope<'_>, held: Held, needed: u64) -> Result<(), Full> {
        let Caps {
            namespace_bytes,
            namespace_keys,
            ..
        } = scope.caps;
        if namespace_bytes == u64::MAX && namespace_keys == u64::MAX {
            return Ok(());
        }
        let usage = self.inner.cache.usage_of(scope.namespace);
        if !held.holds_data && usage.keys >= namespace_keys {
            return Err(Full::NamespaceKeys {
                limit: namespace_keys,
                used: usage.keys,
            });
        }
        if needed > 0 && usage.bytes.saturating_add(needed) > namespace_bytes {
            return Err(Full::NamespaceBytes {
                limit: namespace_bytes,
                used: usage.bytes,
                needed,
            });
        }
        Ok(())
    }

    /// Waits until so many bytes fit.
    async fn fits(&self, needed: u64) -> Result<(), Full> {
        let (edge, cache) = (&self.inner.edge, &self.inner.cache);
        let since = time::mono();
        while !edge.has_room(cache, needed) {
            if edge.config.policy == Policy::Refuse || needed > edge.limit() {
                return Err(edge.full(cache, needed));
            }
            let waited = Duration::from_millis(time::mono().saturating_sub(since));
            let all = waited >= OTHERS;
            let made = edge.make_room(cache, needed, all);
            let nothing_is_left = all && made.as_ref().is_some_and(Vec::is_empty);
            for delta in made.unwrap_or_default() {
                // That it is stopping is for the write to find out.
                let _ = self.replicate(AckPolicy::default(), delta).await;
            }
            if edge.has_room(cache, needed) {
                return Ok(());
            }
            if nothing_is_left || waited >= PATIENCE {
                return Err(edge.full(cache, needed));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// What a set takes more by a member: nothing, if that is one already.
    pub(super) fn adds_member(&self, scope: &Scope<'_>, name: &[u8], member: &[u8]) -> Adds {
        let (edge, cache, adds) = (&self.inner.edge, &self.inner.cache, Adds::Element(member.len()));
        let Ok(key) = Key::new(scope.namespace, name) else {
            return adds;
        };
        // Looked up only where it may matter.
        let any_room =
            scope.caps.namespace_bytes == u64::MAX && edge.has_room(cache, adds.bytes(&key, Held::default()));
        match !any_room && cache.set_contains(&key, member, time::wall()) == Ok(true) {
            true => Adds::Nothing,
            false => adds,
        }
    }

    /// Whether a deletion of what is not there is better forgotten.
    pub(super) fn forgets_deletions(&self) -> bool {
        self.inner.edge.is_short(&self.inner.cache)
    }
}

impl Service {
    /// Makes room before writers have to, until the service is gone.
    pub(super) async fn keep_room(inner: Weak<Inner>) {
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known = HashMap::new();
        let mut looks = 0u32;
        loop {
            let looks_at_peers = looks.is_multiple_of(LOOKS_AT_PEERS);
            looks = looks.wrapping_add(1);
            interval.tick().await;
            let Some(inner) = inner.upgrade() else { return };
            let service = Service { inner };
            let Inner { edge, cache, .. } = &*service.inner;
            if looks_at_peers {
                let status = service.replicator().map(|replicator| replicator.status());
                let peers = status.map(|status| status.peers).unwrap_or_default();
                edge.look_at_peers(cache, &peers, &mut known);
                if edge.config.policy != Policy::Refuse {
                    let company = service.inner.company();
                    let mut own = edge.own.lock().unwrap_or_else(PoisonError::into_inner);
                    own.among(cache.node(), company.synced);
                }
                if edge.config.policy == Policy::EvictLfu {
                    cache.cool();
                }
            }
            let limit = edge.limit();
            if edge.config.policy == Policy::Refuse || limit == u64::MAX {
                continue;
            }
            if edge.has_room(cache, limit / SPARE) {
                continue;
            }
            for delta in edge.make_room(cache, limit / SPARE, false).unwrap_or_default() {
                // That it is stopping is for the next write to find out.
                let _ = service.replicate(AckPolicy::default(), delta).await;
            }
        }
    }
}
