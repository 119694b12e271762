//! Removes parts that no record refers to: what is left when a writer ends between them and the record.

use std::collections::HashSet;

use serde_json::{json, Value};

use super::store::JetStreamStore;
use super::subject::Nonce;
use crate::store::{Section, StoreError};

impl JetStreamStore {
    /// Those of these sections. `in_use` are the parts of all their records. Those of one that is being written are in use
    /// too, but not for an hour.
    pub(super) async fn sweep(&self, sections: &HashSet<Section>, in_use: &HashSet<Nonce>) -> Result<(), StoreError> {
        let question = format!("STREAM.INFO.{}", self.bucket.stream);
        let body = json!({ "subjects_filter": self.subjects.all_parts() });
        let info = self.link.api_or_fault(&question, &body).await?;
        let Some(Value::Object(subjects)) = info["state"].get("subjects") else {
            return Ok(());
        };
        let newest = info["state"]["last_ts"].as_str().unwrap_or_default();
        let mut seen = HashSet::new();
        for subject in subjects.keys() {
            let Some((section, nonce)) = self.subjects.part_of(subject) else {
                continue;
            };
            if !sections.contains(&section) || in_use.contains(&nonce) || !seen.insert(nonce) {
                continue;
            }
            let part = self.last(subject).await?;
            if part.is_some_and(|part| is_old(&part.time, newest)) {
                let body = json!({ "filter": self.subjects.parts(section, &nonce) });
                let question = format!("STREAM.PURGE.{}", self.bucket.stream);
                self.link.api_or_fault(&question, &body).await?;
            }
        }
        Ok(())
    }
}

/// Whether at least an hour lies between two times of the server (RFC 3339, UTC): they are of different days, and the
/// later day is an hour old. So a part stays for a day and an hour at most.
fn is_old(written: &str, newest: &str) -> bool {
    const DATE: usize = "2026-11-28".len();
    const HOUR: std::ops::Range<usize> = DATE + 1..DATE + 3;
    match (written.get(..DATE), newest.get(..DATE), newest.get(HOUR)) {
        (Some(written), Some(newest), Some(hour)) => written < newest && hour >= "01",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_old_after_an_hour_at_least_and_a_day_and_an_hour_at_most() {
        for (written, newest, expected) in [
            ("2026-11-27T23:59:59.9Z", "2026-11-28T00:59:59Z", false),
            ("2026-11-27T23:59:59.9Z", "2026-11-28T01:00:00Z", true),
            ("2026-11-28T00:00:00Z", "2026-11-28T23:59:59Z", false),
            ("2026-11-28T00:00:00Z", "2026-11-29T01:00:00.000000001Z", true),
            ("2026-11-30T12:00:00Z", "2026-12-01T12:00:00Z", true),
            ("2026-12-31T12:00:00Z", "2027-01-01T01:00:00Z", true),
            ("2026-11-28T12:00:00Z", "2026-11-27T12:00:00Z", false),
            ("", "2026-11-27T12:00:00Z", false),
            ("2026-11-28T12:00:00Z", "", false),
        ] {
            assert_eq!(is_old(written, newest), expected, "{written} {newest}");
        }
    }
}
