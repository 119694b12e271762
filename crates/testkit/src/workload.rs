//! A large, predictable content of all types, written through the calls of the contract.

use anyhow::{ensure, Context, Result};
use futures::TryStreamExt;
use wasmbus_rpc::common::Transport;

use crate::keyvalue::KeyValue;

/// Calls under way at once: enough to hide the latency of each.
const PARALLEL: usize = 64;

/// Keys numbered from 0 whose type and content follow from the number: mostly texts, and every eighth key is in turn a
/// counter, a list, a set and a text with a distant deadline.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    keys: usize,
}

enum Content {
    Text,
    Counter,
    List,
    Set,
    Deadline,
}

impl Workload {
    pub fn new(keys: usize) -> Self {
        Self { keys }
    }

    pub fn len(&self) -> usize {
        self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Writes everything, spread over `nodes`.
    pub async fn write<T: Transport + Send + Sync>(&self, nodes: &[KeyValue<T>]) -> Result<()> {
        ensure!(!nodes.is_empty(), "no node to write through");
        futures::stream::iter((0..self.keys).map(Ok))
            .try_for_each_concurrent(PARALLEL, |number| {
                let node = &nodes[number % nodes.len()];
                async move {
                    write_key(node, number)
                        .await
                        .with_context(|| format!("writing {}", name_of(number)))
                }
            })
            .await
    }

    /// Reads every `step`-th key through `node` and compares.
    pub async fn verify<T: Transport + Send + Sync>(&self, node: &KeyValue<T>, step: usize) -> Result<()> {
        futures::stream::iter((0..self.keys).step_by(step.max(1)).map(Ok))
            .try_for_each_concurrent(PARALLEL, |number| async move {
                verify_key(node, number)
                    .await
                    .with_context(|| format!("reading {}", name_of(number)))
            })
            .await
    }
}

async fn write_key<T: Transport + Send + Sync>(node: &KeyValue<T>, number: usize) -> Result<()> {
    let key = name_of(number);
    match content_of(number) {
        Content::Text => node.set(&key, &text_of(number)).await?,
        Content::Deadline => node.set_for(&key, &text_of(number), 100_000).await?,
        Content::Counter => drop(node.increment(&key, number as i32).await?),
        Content::List => {
            node.list_add(&key, &text_of(number)).await?;
            node.list_add(&key, "last").await?;
        }
        Content::Set => {
            node.set_add(&key, &text_of(number)).await?;
            node.set_add(&key, "member").await?;
        }
    }
    Ok(())
}

async fn verify_key<T: Transport + Send + Sync>(node: &KeyValue<T>, number: usize) -> Result<()> {
    let key = name_of(number);
    match content_of(number) {
        Content::Text | Content::Deadline => expect(node.get(&key).await?, Some(text_of(number))),
        Content::Counter => expect(node.get(&key).await?, Some(number.to_string())),
        Content::List => expect(node.list(&key).await?, vec![text_of(number), "last".to_owned()]),
        Content::Set => {
            let mut members = node.set_query(&key).await?;
            members.sort();
            let mut expected = vec![text_of(number), "member".to_owned()];
            expected.sort();
            expect(members, expected)
        }
    }
}

fn expect<V: PartialEq + std::fmt::Debug>(found: V, expected: V) -> Result<()> {
    ensure!(found == expected, "found {found:?}, expected {expected:?}");
    Ok(())
}

fn content_of(number: usize) -> Content {
    match number % 32 {
        7 => Content::Counter,
        15 => Content::List,
        23 => Content::Set,
        31 => Content::Deadline,
        _ => Content::Text,
    }
}

/// 16 bytes.
fn name_of(number: usize) -> String {
    format!("key/{number:012}")
}

/// 32 bytes.
fn text_of(number: usize) -> String {
    format!(
        "{:032x}",
        (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    )
}
