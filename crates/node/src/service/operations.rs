//! The operations. A new one has its place here: its rule in the cache, a method over [`Service::write`] or
//! [`Service::read`], and a line in each front end.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kvcache_core::cache::{Blob, Cache, CacheError, Delta, Key, Millis};

use super::edge::{Adds, Full};
use super::reads::Turn;
use super::{Error, Scope, Service};
use crate::time;

/// An answer up to this size is made at once, where the call is. Larger ones wait for each other.
const SMALL_ANSWER_BYTES: usize = 32 << 10;
/// Sets of a union or an intersection up to this number are looked at where the call is.
const FEW_SETS: usize = 16;

/// What a read answers.
pub struct Answer<T> {
    /// As the front end has encoded it.
    pub content: T,
    /// That of a large read. To be kept until the answer has left.
    pub turn: Option<Turn>,
}

impl<T> Answer<T> {
    /// One that need not wait for others.
    pub fn small(content: T) -> Self {
        Answer { content, turn: None }
    }
}

/// Whether the answer of a write depends on what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// It must not miss a write that was confirmed: the node catches up first.
    AtState,
    /// It replaces what is there, whatever it is: under `ACK=all` it need not wait to catch up, only for confirmations.
    Nowhere,
}

impl Service {
    /// The key that the scope means by `name`, unless the store is still read. Every operation asks here, also those that
    /// write nothing: what is looked up need not be longer than what can be there.
    fn key(&self, scope: &Scope<'_>, name: &[u8]) -> Result<Key, Error> {
        self.is_open()?;
        let key = Key::new(scope.namespace, name)?;
        let (length, limit) = (key.as_bytes().len(), self.limits().max_value_bytes);
        if length > limit {
            return Err(Error::Refused(CacheError::TooLarge {
                what: "key",
                length,
                limit,
            }));
        }
        Ok(key)
    }

    fn keys(&self, scope: &Scope<'_>, names: &[&[u8]]) -> Result<Vec<Key>, Error> {
        names.iter().map(|name| self.key(scope, name)).collect()
    }

    /// The path of every write.
    async fn write<T>(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        looks: Looks,
        adds: Adds,
        operation: impl FnOnce(&Cache, &Key, Millis) -> Result<(T, Option<Delta>), CacheError>,
    ) -> Result<T, Error> {
        let key = self.key(scope, name)?;
        self.may_be_confirmed(scope.acks)?;
        if looks == Looks::AtState {
            self.catch_up(scope.acks).await?;
        }
        self.make_room(scope, &key, adds).await?;
        let (answer, delta) = operation(&self.inner.cache, &key, time::wall()).map_err(|error| match error {
            CacheError::CollectionFull { items, limit } => {
                self.inner.edge.refuses();
                Error::Full(Full::CollectionItems { limit, used: items })
            }
            error => Error::Refused(error),
        })?;
        if let Some(delta) = delta {
            self.confirm(scope.acks, delta).await?;
        }
        Ok(answer)
    }

    /// The path of reads of elements, which `read` gives up beyond so many bytes. It is made here if it `may_be_small`
    /// and is.
    async fn read<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        may_be_small: bool,
        read: impl Fn(&Cache, usize) -> Result<Vec<Bytes>, CacheError> + Send + 'static,
        encode: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        self.catch_up(scope.acks).await?;
        let limit = scope.max_answer_bytes;
        if may_be_small {
            match read(&self.inner.cache, SMALL_ANSWER_BYTES.min(limit)) {
                Err(CacheError::AnswerTooLarge { .. }) if limit > SMALL_ANSWER_BYTES => {}
                small => return Ok(Answer::small(encode(small?))),
            }
        }
        let cache = self.inner.cache.clone();
        let make = move || read(&cache, limit).map(encode);
        let (made, turn) = self.inner.large_reads.make(scope.caller, make).await?;
        Ok(Answer {
            content: made?,
            turn: Some(turn),
        })
    }

    // --- reads

    /// Whether there is such a key.
    pub async fn contains(&self, scope: &Scope<'_>, name: &[u8]) -> Result<bool, Error> {
        let key = self.key(scope, name)?;
        self.catch_up(scope.acks).await?;
        Ok(self.inner.cache.contains(&key, time::wall()))
    }

    /// The value of a scalar, if there is one.
    pub async fn get<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        encode: impl FnOnce(Option<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let key = self.key(scope, name)?;
        self.catch_up(scope.acks).await?;
        let value = self.inner.cache.get(&key, time::wall())?;
        match &value {
            Some(large) if large.len() > SMALL_ANSWER_BYTES => {
                let limit = scope.max_answer_bytes;
                if large.len() > limit {
                    return Err(Error::Refused(CacheError::AnswerTooLarge { limit }));
                }
                let make = move || encode(value);
                let (content, turn) = self.inner.large_reads.make(scope.caller, make).await?;
                Ok(Answer {
                    content,
                    turn: Some(turn),
                })
            }
            _ => Ok(Answer::small(encode(value))),
        }
    }

    /// Items of a list from `start` to `stop`, both inclusive; negative ones count from its end.
    pub async fn list_range<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        (start, stop): (i64, i64),
        encode: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let key = self.key(scope, name)?;
        let read = move |cache: &Cache, limit| cache.list_range(&key, start, stop, time::wall(), limit);
        self.read(scope, true, read, encode).await
    }

    /// Members of a set, sorted.
    pub async fn set_members<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        encode: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let key = self.key(scope, name)?;
        let read = move |cache: &Cache, limit| cache.set_members(&key, time::wall(), limit);
        self.read(scope, true, read, encode).await
    }

    /// Members of any of the sets, sorted.
    pub async fn set_union<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        names: &[&[u8]],
        encode: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let keys = self.keys(scope, names)?;
        let few = keys.len() <= FEW_SETS;
        let read = move |cache: &Cache, limit| cache.set_union(&keys, time::wall(), limit);
        self.read(scope, few, read, encode).await
    }

    /// Members of all of the sets, sorted.
    pub async fn set_intersection<T: Send + 'static>(
        &self,
        scope: &Scope<'_>,
        names: &[&[u8]],
        encode: impl FnOnce(Vec<Bytes>) -> T + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let keys = self.keys(scope, names)?;
        let cache = &self.inner.cache;
        // It is made from the smallest set, however little of that is left.
        let is_small = |key| cache.set_members(key, time::wall(), SMALL_ANSWER_BYTES).is_ok();
        let few = keys.len() <= FEW_SETS && keys.iter().any(is_small);
        let read = move |cache: &Cache, limit| cache.set_intersection(&keys, time::wall(), limit);
        self.read(scope, few, read, encode).await
    }

    // --- writes

    /// Sets a value, which expires after so many seconds; 0 for never.
    pub async fn set(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        value: impl Into<Blob>,
        expires_secs: u32,
    ) -> Result<(), Error> {
        let value = value.into();
        let adds = Adds::Value(value.len());
        let set = |cache: &Cache, key: &Key, now| Ok(((), Some(cache.set(key, value, expires_secs, now)?)));
        self.write(scope, name, Looks::Nowhere, adds, set).await
    }

    /// Deletes a key of any type. Returns whether it was there.
    pub async fn delete(&self, scope: &Scope<'_>, name: &[u8]) -> Result<bool, Error> {
        let delete = |cache: &Cache, key: &Key, now| {
            if self.forgets_deletions() && !cache.contains(key, now) {
                return Ok((false, None));
            }
            cache.delete(key, now).map(with_delta)
        };
        self.write(scope, name, Looks::AtState, Adds::Nothing, delete).await
    }

    /// Adds to a number. Returns the sum.
    pub async fn increment(&self, scope: &Scope<'_>, name: &[u8], amount: i64) -> Result<i64, Error> {
        self.increment_within(scope, name, amount, i64::MIN..=i64::MAX).await
    }

    /// Adds to a number unless the sum would leave `range`, which is what the contract of the front end can carry.
    pub async fn increment_within(
        &self,
        scope: &Scope<'_>,
        name: &[u8],
        amount: i64,
        range: RangeInclusive<i64>,
    ) -> Result<i64, Error> {
        let increment = |cache: &Cache, key: &Key, now| cache.increment_within(key, amount, range, now).map(with_delta);
        self.write(scope, name, Looks::AtState, Adds::Number, increment).await
    }

    /// Appends an item to a list. Returns its new length.
    pub async fn list_push(&self, scope: &Scope<'_>, name: &[u8], value: impl Into<Blob>) -> Result<u32, Error> {
        let (value, most) = (value.into(), scope.caps.collection_items);
        let adds = Adds::Element(value.len());
        let push = |cache: &Cache, key: &Key, now| cache.list_push_within(key, value, most, now).map(with_delta);
        self.write(scope, name, Looks::AtState, adds, push).await
    }

    /// Removes the first item of a list that is equal. Returns whether there was one.
    pub async fn list_remove(&self, scope: &Scope<'_>, name: &[u8], value: &[u8]) -> Result<bool, Error> {
        let remove = |cache: &Cache, key: &Key, now| {
            let delta = cache.list_remove(key, value, now)?;
            Ok((delta.is_some(), delta))
        };
        self.write(scope, name, Looks::AtState, Adds::Nothing, remove).await
    }

    /// Adds a member to a set. Returns whether it is new.
    pub async fn set_add(&self, scope: &Scope<'_>, name: &[u8], member: impl Into<Blob>) -> Result<bool, Error> {
        let (member, most) = (member.into(), scope.caps.collection_items);
        let adds = self.adds_member(scope, name, &member);
        let add = |cache: &Cache, key: &Key, now| cache.set_add_within(key, member, most, now).map(with_delta);
        self.write(scope, name, Looks::AtState, adds, add).await
    }

    /// Removes a member of a set. Returns whether it was one.
    pub async fn set_remove(&self, scope: &Scope<'_>, name: &[u8], member: impl Into<Blob>) -> Result<bool, Error> {
        let member = member.into();
        let remove = |cache: &Cache, key: &Key, now| {
            if self.forgets_deletions() && !cache.set_contains(key, &member, now)? {
                return Ok((false, None));
            }
            cache.set_remove(key, member, now)
        };
        self.write(scope, name, Looks::AtState, Adds::Nothing, remove).await
    }
}

fn with_delta<T>((answer, delta): (T, Delta)) -> (T, Option<Delta>) {
    (answer, Some(delta))
}
