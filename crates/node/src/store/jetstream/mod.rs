//! A store of the cache in a KV bucket of JetStream, on the NATS that the cache replicates over.
//!
//! ```text
//! jetstream:bucket?replicas=3&storage=file&timeout_ms=5000
//! ```
//!
//! | part | meaning |
//! | --- | --- |
//! | `bucket` | its name: letters, digits, `_` and `-`. Made where it is missing; caches may share one |
//! | `replicas` | of a bucket that is made: 1 (as by default) to 5 |
//! | `storage` | `file` (as by default) or `memory`, which forgets when its servers stop |
//! | `max_bytes` | of a bucket that is made: the most it may hold. A full one refuses; some accounts have to say one |
//! | `timeout_ms` | how long connecting, and then each answer, may take: 100 to 60,000, by default 5,000 |
//!
//! **What it writes**, below `$KV.bucket.`:
//!
//! ```text
//! c.CACHE.section.HASH       a record; HASH is that of its id
//! p.CACHE.section.NONCE.n    the n-th part of a record that is too large for one message
//! n.CACHE                    which cache that is, for people
//! CACHE                      lattice/link; all but letters, digits, _ and - is escaped, and what is long is hashed
//! ```
//!
//! **How the larger value stays.** A record is published with the sequence that its subject is expected to have: none at
//! first. Where that is wrong the one that is there is read and compared, and the larger one is published in its place,
//! with its sequence. So two writers lose nothing. Of what was written last the sequence and the beginning of the value are
//! kept, of some ten thousand records: what is written often is not read each time. A record goes by its sequence too, and
//! leaves no marker.
//!
//! **Large records** are in parts of their own, written before the record and removed after it. One whose parts are
//! missing is not there. What a crash has left of parts goes at a later load.
//!
//! **Replicas.** What is written is answered when most of them have it, and is read back from the one that leads. A
//! reader of sections may be on one that is behind: it writes a mark, and reads until that comes. While a bucket chooses
//! another leader, nats-server may accept what two writers write at that moment (its issue 8469).
//!
//! **What it needs.** nats-server 2.9 or later with JetStream, 2.10.19 or later with replicas, and a user who may publish
//! on
//!
//! ```text
//! $KV.bucket.>
//! $JS.API.STREAM.INFO.KV_bucket          $JS.API.STREAM.MSG.GET.KV_bucket      $JS.API.CONSUMER.CREATE.KV_bucket
//! $JS.API.STREAM.CREATE.KV_bucket        $JS.API.STREAM.MSG.DELETE.KV_bucket   $JS.API.CONSUMER.INFO.KV_bucket.*
//! $JS.API.STREAM.PURGE.KV_bucket         $JS.API.DIRECT.GET.KV_bucket.>        $JS.API.CONSUMER.DELETE.KV_bucket.*
//!                                                                              $JS.API.CONSUMER.MSG.NEXT.KV_bucket.*
//! ```
//!
//! and subscribe to `_INBOX.>`. `STREAM.CREATE` is needed only where the bucket is missing.

mod answer;
mod bucket;
mod consumer;
mod fault;
mod form;
mod held;
mod known;
mod link;
mod load;
mod opener;
mod remove;
mod store;
mod subject;
mod sweep;
mod target;
mod write;

pub use opener::JetStreamOpener;
