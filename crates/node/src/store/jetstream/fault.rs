//! What errors of JetStream mean for a store.

use super::answer::{code, Refused};
use crate::secret::cleaned;
use crate::store::StoreError;

/// The error of a store for one that JetStream answers. `bucket` is for people.
pub(super) fn fault(bucket: &str, refused: &Refused) -> StoreError {
    let said = cleaned(&refused.text).into_owned();
    let remedy = match refused.code {
        code::JETSTREAM_NOT_ENABLED => "the NATS server needs JetStream ('jetstream {}' in its configuration)",
        code::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => "the account needs JetStream",
        code::MAX_BYTES_REQUIRED => "the account wants to know the most it may hold: max_bytes in the URL",
        code::REPLICAS_NOT_SUPPORTED => "write another number of replicas in the URL",
        code::STREAM_NOT_FOUND => "the bucket is gone",
        // What is full may have room again.
        code::RESOURCE_LIMITS_EXCEEDED => return StoreError::Away(format!("{bucket}: {said}")),
        _ if refused.status >= 500 || refused.status == 0 => return StoreError::Away(format!("{bucket}: {said}")),
        _ => return StoreError::Unusable(format!("{bucket}: {said}")),
    };
    StoreError::Unusable(format!("{bucket}: {said}: {remedy}"))
}
