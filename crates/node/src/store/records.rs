//! The records of a section, as one map.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kvcache_core::durable::{Held, Record, Section};

use super::{Store, StoreError};

/// The records of some sections by id: of several values the largest, which is the one that is meant.
pub(super) async fn records_of(store: &dyn Store, sections: &[Section]) -> Result<BTreeMap<Section, Held>, StoreError> {
    let found: Mutex<BTreeMap<Section, Held>> = Mutex::default();
    let sink = |section: Section, record: Record<'_>| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let value = found.entry(section).or_default().entry(record.id.into()).or_default();
        if **value < *record.value {
            *value = record.value.into();
        }
    };
    store.load(sections, &sink).await?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}
