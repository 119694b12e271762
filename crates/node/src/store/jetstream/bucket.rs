//! The bucket: made where it is missing, refused where it would lose records.

use serde_json::{json, Value};

use super::answer::code;
use super::fault::fault;
use super::form::MANIFEST_BYTES;
use super::link::Link;
use super::target::Target;
use crate::store::StoreError;

/// What a message has beside its payload, which servers count too.
const HEADER_BYTES: usize = 512;

/// Since then a replicated stream accepts one of two messages only that expect the same sequence (issue 4320 and change
/// 5794 of nats-server).
const REPLICATED_SINCE: [u32; 3] = [2, 10, 19];

/// A bucket that can be used.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Name of its stream.
    pub stream: String,
    /// The longest payload of a record, or of a part of one.
    pub payload: usize,
    /// Whether messages may be deleted by their sequence. In buckets that tools have made they may only be purged.
    pub deletes: bool,
    /// Whether it is kept by several servers, of which some may be behind.
    pub is_replicated: bool,
}

impl Bucket {
    /// Finds the bucket, or makes it.
    pub async fn open(link: &Link, target: &Target, max_payload: usize) -> Result<Self, StoreError> {
        let stream = target.stream();
        let question = format!("STREAM.INFO.{stream}");
        let info = match link.api(&question, &Value::Null).await? {
            Ok(info) => info,
            Err(refused) if refused.code == code::STREAM_NOT_FOUND => {
                let made = link.api(&format!("STREAM.CREATE.{stream}"), &wanted(target)).await?;
                match made {
                    Ok(info) => info,
                    // Somebody else has made another one meanwhile.
                    Err(refused) if refused.code == code::NAME_IN_USE => {
                        link.api_or_fault(&question, &Value::Null).await?
                    }
                    Err(refused) => return Err(fault(&link.name, &refused)),
                }
            }
            Err(refused) => return Err(fault(&link.name, &refused)),
        };
        let config = &info["config"];
        let unusable = |reason: &str| StoreError::Unusable(format!("{}: {reason}", link.name));
        if let Some(reason) = fault_of(config, target) {
            return Err(unusable(&reason));
        }
        let is_replicated = config["num_replicas"].as_u64().is_some_and(|replicas| replicas > 1);
        if is_replicated && !link.is_at_least(REPLICATED_SINCE) {
            let version = REPLICATED_SINCE.map(|number| number.to_string()).join(".");
            return Err(unusable(&format!(
                "with replicas nats-server {version} or later is needed: those before it accept what two writers write at \
                 the same time, and one of both is lost"
            )));
        }
        let most = config["max_msg_size"]
            .as_i64()
            .and_then(|most| usize::try_from(most).ok());
        let most = most.filter(|most| *most > 0).unwrap_or(usize::MAX).min(max_payload);
        let payload = most.saturating_sub(HEADER_BYTES);
        if payload < MANIFEST_BYTES {
            return Err(unusable(&format!(
                "messages of {most} bytes (max_payload, max_msg_size) are too short: it needs {}",
                HEADER_BYTES + MANIFEST_BYTES
            )));
        }
        Ok(Bucket {
            payload,
            deletes: !is_set(config, "deny_delete"),
            is_replicated,
            stream,
        })
    }
}

fn wanted(target: &Target) -> Value {
    let max_bytes = target.max_bytes.map_or(-1, |bytes| bytes as i64);
    json!({
        "name": target.stream(),
        "description": "nats-kvcache: records of caches",
        "subjects": [format!("$KV.{}.>", target.bucket)],
        "retention": "limits",
        "storage": target.storage.name(),
        "num_replicas": target.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": max_bytes,
        "max_age": 0,
        "max_msg_size": -1,
        "max_msgs_per_subject": 1,
        // A full one refuses what is new, and keeps what it has.
        "discard": "new",
        "allow_direct": true,
        "allow_rollup_hdrs": true,
        "deny_delete": false,
        "deny_purge": false,
    })
}

/// Why a stream would lose records, or cannot be used.
fn fault_of(config: &Value, target: &Target) -> Option<String> {
    let number = |name: &str| config[name].as_i64().unwrap_or(0);
    let word = |name: &str, usual: &'static str| config[name].as_str().unwrap_or(usual).to_owned();
    let drops_old = word("discard", "old") == "old";
    let subject = format!("$KV.{}.>", target.bucket);
    let subjects = config["subjects"].as_array().into_iter().flatten();
    let faults = [
        (
            number("max_age") > 0,
            "it drops records by their age (max_age): set it to 0 (no TTL)".to_owned(),
        ),
        (
            drops_old && (number("max_bytes") > 0 || number("max_msgs") > 0),
            "it drops old records when it is full (discard old): set discard to new".into(),
        ),
        (
            number("max_msgs_per_subject") != 1,
            format!("it has a history of {}: set it to 1", number("max_msgs_per_subject")),
        ),
        (
            is_set(config, "discard_new_per_subject"),
            "it refuses to replace records (discard_new_per_subject)".into(),
        ),
        (
            word("retention", "limits") != "limits",
            "its retention is not limits".into(),
        ),
        (
            config["mirror"].is_object() || config["sources"].as_array().is_some_and(|of| !of.is_empty()),
            "it copies another stream (mirror, sources)".into(),
        ),
        (is_set(config, "sealed"), "it is sealed: nothing can be written".into()),
        (is_set(config, "no_ack"), "it acknowledges nothing (no_ack)".into()),
        (
            is_set(config, "deny_purge"),
            "nothing can be removed from it (deny_purge)".into(),
        ),
        (
            !is_set(config, "allow_direct"),
            "it allows no direct gets (allow_direct): nats-server 2.9 or later is needed, and a bucket made with it"
                .into(),
        ),
        (
            !subjects.into_iter().any(|of| of == subject.as_str()),
            format!("it does not keep {subject}: it is no KV bucket of that name"),
        ),
        (
            word("storage", "file") != target.storage.name(),
            format!(
                "it keeps its records in {}: write storage={} in the URL if that is meant",
                word("storage", "file"),
                word("storage", "file")
            ),
        ),
    ];
    let found = faults.into_iter().find(|(is_fault, _)| *is_fault);
    found.map(|(_, reason)| reason)
}

fn is_set(config: &Value, name: &str) -> bool {
    config[name].as_bool().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreUrl;

    #[test]
    fn the_bucket_that_is_made_has_no_fault_and_others_are_named() {
        let target = Target::of(&StoreUrl::parse("jetstream:b").unwrap()).unwrap();
        let made = wanted(&target);
        assert_eq!(fault_of(&made, &target), None);
        for (name, value, part) in [
            ("max_age", json!(1), "max_age"),
            ("max_msgs_per_subject", json!(5), "history of 5"),
            ("max_msgs_per_subject", json!(-1), "history of -1"),
            ("retention", json!("workqueue"), "retention"),
            ("mirror", json!({"name": "other"}), "copies"),
            ("sealed", json!(true), "sealed"),
            ("no_ack", json!(true), "no_ack"),
            ("deny_purge", json!(true), "deny_purge"),
            ("allow_direct", json!(false), "allow_direct"),
            ("subjects", json!(["other.>"]), "no KV bucket"),
            ("storage", json!("memory"), "storage=memory"),
        ] {
            let mut config = made.clone();
            config[name] = value;
            let fault = fault_of(&config, &target).unwrap_or_default();
            assert!(fault.contains(part), "{name}: {fault}");
        }
        let mut full = made.clone();
        full["max_bytes"] = json!(1 << 20);
        assert_eq!(fault_of(&full, &target), None);
        full["discard"] = json!("old");
        assert!(fault_of(&full, &target).unwrap().contains("discard"));
    }
}
