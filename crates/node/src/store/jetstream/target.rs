//! What a URL says of a bucket.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::store::{StoreUrl, UrlError};

pub(super) const SCHEMES: [&str; 1] = ["jetstream"];

const REPLICAS: RangeInclusive<u64> = 1..=5;

/// A bucket, and how it is made where it is missing.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub bucket: String,
    pub replicas: u64,
    pub storage: Storage,
    pub max_bytes: Option<u64>,
    pub timeout: Duration,
}

/// Where a bucket keeps its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Storage {
    File,
    Memory,
}

impl Storage {
    /// As JetStream calls it.
    pub fn name(self) -> &'static str {
        match self {
            Storage::File => "file",
            Storage::Memory => "memory",
        }
    }
}

impl FromStr for Storage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Storage::File, Storage::Memory]
            .into_iter()
            .find(|storage| storage.name() == text)
            .ok_or(())
    }
}

impl Target {
    pub fn of(url: &StoreUrl) -> Result<Self, UrlError> {
        url.only_parameters(&["replicas", "storage", "max_bytes", "timeout_ms"])?;
        if !url.hosts.is_empty() || !url.user.is_empty() || url.password.is_some() {
            return Err(UrlError(
                "expected jetstream:bucket: its servers and credentials are those of replication".into(),
            ));
        }
        let bucket = url.path.clone();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if bucket.is_empty() || bucket.len() > 64 || !bucket.bytes().all(is_plain) {
            return Err(UrlError(format!(
                "bucket {bucket:?}: expected 1 to 64 letters, digits, '_' and '-', as in jetstream:kvcache"
            )));
        }
        Ok(Target {
            bucket,
            replicas: number(url, "replicas", "a number", REPLICAS)?.unwrap_or(1),
            storage: url.parameter("storage", "file or memory")?.unwrap_or(Storage::File),
            max_bytes: number(url, "max_bytes", "bytes", 1 << 20..=i64::MAX as u64)?,
            timeout: url.timeout()?,
        })
    }

    /// Its stream.
    pub fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }
}

fn number(url: &StoreUrl, name: &str, expected: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, UrlError> {
    let number = url.parameter(name, expected)?;
    match number {
        Some(number) if !range.contains(&number) => {
            let (from, to) = range.into_inner();
            Err(UrlError(format!("parameter {name}={number}: expected {from} to {to}")))
        }
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, UrlError> {
        Target::of(&StoreUrl::parse(url)?)
    }

    #[test]
    fn a_url_says_which_bucket_and_how_it_is_made() {
        let plain = target("jetstream:kvcache").unwrap();
        assert_eq!((plain.stream().as_str(), plain.replicas), ("KV_kvcache", 1));
        assert_eq!((plain.storage, plain.timeout.as_secs()), (Storage::File, 5));
        let all = target("jetstream:b-1?replicas=3&storage=memory&max_bytes=1073741824&timeout_ms=100").unwrap();
        assert_eq!((all.replicas, all.storage), (3, Storage::Memory));
        assert_eq!((all.max_bytes, all.timeout.as_millis()), (Some(1 << 30), 100));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("jetstream:", "expected 1 to 64 letters"),
            ("jetstream:a.b", "expected 1 to 64 letters"),
            ("jetstream://host/bucket", "those of replication"),
            ("jetstream:b?replicas=6", "expected 1 to 5"),
            ("jetstream:b?storage=disk", "expected file or memory"),
            ("jetstream:b?timeout_ms=0", "from 100 to 60000"),
            ("jetstream:b?max_bytes=1", "expected 1048576"),
            ("jetstream:b?ttl=1", "unknown parameter"),
        ] {
            let error = target(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
