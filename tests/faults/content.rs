//! What a reader sees of a key, small enough to be kept for thousands of keys.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use testkit::RpcResult;

use crate::lab::Kv;

/// Reads under way at once.
const PARALLEL: usize = 16;
/// Items of a list that are read at once: the answer stays small.
const PAGE: i32 = 10;
const START: usize = 24;

/// A text by its length, hash and beginning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Print {
    length: usize,
    hash: u64,
    start: String,
}

impl Print {
    pub fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self {
            length: text.len(),
            hash: hasher.finish(),
            start: text.chars().take(START).collect(),
        }
    }
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.start)?;
        if self.length > self.start.len() {
            write!(f, "... ({} bytes, {:016x})", self.length, self.hash)?;
        }
        Ok(())
    }
}

/// A key as a reader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Nothing,
    Text(Print),
    List(Vec<Print>),
    Set(Vec<Print>),
}

impl Content {
    pub fn text(text: &str) -> Self {
        Self::Text(Print::of(text))
    }

    pub fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> Self {
        let items: Vec<_> = items.into_iter().map(|item| Print::of(item)).collect();
        if items.is_empty() {
            Self::Nothing
        } else {
            Self::List(items)
        }
    }

    pub fn set<'a>(members: impl IntoIterator<Item = &'a String>) -> Self {
        let mut members: Vec<_> = members.into_iter().map(|member| Print::of(member)).collect();
        members.sort();
        if members.is_empty() {
            Self::Nothing
        } else {
            Self::Set(members)
        }
    }

    /// The text, items or members.
    pub fn parts(&self) -> &[Print] {
        match self {
            Self::Nothing => &[],
            Self::Text(text) => std::slice::from_ref(text),
            Self::List(parts) | Self::Set(parts) => parts,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |parts: &[Print]| {
            let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
            parts.join(", ")
        };
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Text(text) => write!(f, "text {text}"),
            Self::List(items) => write!(f, "list of {} [{}]", items.len(), shown(items)),
            Self::Set(members) => write!(f, "set of {} {{{}}}", members.len(), shown(members)),
        }
    }
}

/// Was the operation refused because of what the key holds? Then nothing has changed.
pub fn is_refusal(error: &testkit::RpcError) -> bool {
    let text = error.to_string();
    ["WRONGTYPE", "not an integer", "would leave the range"]
        .iter()
        .any(|reason| text.contains(reason))
}

fn unless_refused<T>(answer: RpcResult<T>) -> RpcResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

pub async fn read_list(kv: &Kv, key: &str) -> RpcResult<Vec<String>> {
    let mut items = Vec::new();
    loop {
        let start = items.len() as i32;
        let page = kv.list_range(key, start, start + PAGE - 1).await?;
        let last = (page.len() as i32) < PAGE;
        items.extend(page);
        if last {
            return Ok(items);
        }
    }
}

/// Reads a key of any type.
pub async fn read(kv: &Kv, key: &str) -> RpcResult<Content> {
    if let Some(text) = unless_refused(kv.get(key).await)? {
        return Ok(text.map_or(Content::Nothing, |text| Content::text(&text)));
    }
    if let Some(items) = unless_refused(read_list(kv, key).await)? {
        return Ok(Content::list(&items));
    }
    Ok(Content::set(&kv.set_query(key).await?))
}

/// Reads all `keys`.
pub async fn dump(kv: &Kv, keys: &[String]) -> Result<BTreeMap<String, Content>> {
    futures::stream::iter(keys)
        .map(|key| async move {
            let content = read(kv, key).await.with_context(|| format!("reading {key}"))?;
            anyhow::Ok((key.clone(), content))
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}
