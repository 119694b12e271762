//! Values that are too large for a bucket: written in parts before it, read after it, and removed once it needs them no
//! more.

use std::collections::{BTreeMap, BTreeSet};

use kvcache_node::store::{Batch, StoreError};

use crate::bucket::{index_of, Bucket, Whole};
use crate::client::{Consul, Found, Operation, Outcome, OPERATIONS};
use crate::layout::{At, Keys, PART};

/// Writes the parts of a value.
pub(crate) async fn write(consul: &Consul, keys: &Keys, at: At, name: &str, whole: &Batch) -> Result<(), StoreError> {
    let parts = whole.as_bytes().chunks(PART).enumerate();
    let parts: Vec<(String, &[u8])> = parts
        .map(|(number, part)| (keys.part(at, name, number), part))
        .collect();
    let operations: Vec<_> = parts.iter().map(|(key, part)| Operation::Set(key, part)).collect();
    consul.execute_all("writing parts of a value", &operations).await
}

/// Puts the parts of a value together. `None` where some are missing: they are not there any more, or were lost.
pub(crate) async fn read(
    consul: &Consul,
    keys: &Keys,
    at: At,
    whole: &Whole<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let name = whole.name();
    let mut bytes = Vec::new();
    let mut number = 0;
    // One at a time: together they may be large.
    while (bytes.len() as u64) < whole.length {
        let key = keys.part(at, &name, number);
        let found = match consul
            .execute("reading parts of a value", &[Operation::Get(&key)])
            .await?
        {
            Outcome::Done(found) => found,
            Outcome::Otherwise => return Ok(None),
        };
        match found.first() {
            Some(Found { value, .. }) if !value.is_empty() => bytes.extend_from_slice(value),
            _ => return Ok(None),
        }
        number += 1;
    }
    Ok(Some(bytes))
}

/// Removes the parts of values.
pub(crate) async fn remove(consul: &Consul, keys: &Keys, values: &[(At, String)]) -> Result<(), StoreError> {
    let trees: Vec<String> = values.iter().map(|(at, name)| keys.parts(*at, name)).collect();
    let operations: Vec<_> = trees.iter().map(|tree| Operation::DeleteTree(tree)).collect();
    consul.execute_all("removing parts of a value", &operations).await
}

/// Removes the parts that writers have left behind who ended between writing parts and buckets. Those of writers that are
/// still at it stay: their bucket has not changed since they read it.
pub(crate) async fn remove_left_behind(consul: &Consul, keys: &Keys) -> Result<(), StoreError> {
    let tried = "looking for parts that nobody needs";
    let mut names: BTreeMap<At, BTreeSet<String>> = BTreeMap::new();
    for key in consul.keys(tried, &keys.all_parts()).await? {
        if let Some((at, name)) = keys.owner(&key) {
            names.entry(at).or_default().insert(name.to_owned());
        }
    }
    let names: Vec<_> = names.into_iter().collect();
    for some in names.chunks(OPERATIONS) {
        let buckets: Vec<String> = some.iter().map(|(at, _)| keys.bucket(*at)).collect();
        let operations: Vec<_> = buckets.iter().map(|key| Operation::GetTree(key)).collect();
        let Outcome::Done(found) = consul.execute(tried, &operations).await? else {
            continue;
        };
        let mut garbage = Vec::new();
        for found in found {
            let Some(bucket) = Bucket::read(&found.value) else {
                continue;
            };
            let of_it = some.iter().zip(&buckets).filter(|(_, key)| **key == found.key);
            for name in of_it.flat_map(|((at, names), _)| names.iter().map(move |name| (*at, name))) {
                let is_old = index_of(name.1).is_some_and(|index| index < found.index);
                if is_old && !bucket.needs(name.1) {
                    garbage.push((name.0, name.1.clone()));
                }
            }
        }
        remove(consul, keys, &garbage).await?;
    }
    Ok(())
}
