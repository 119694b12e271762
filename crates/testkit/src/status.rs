//! The one line that a provider says about itself in its health message.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{bail, Context, Result};

/// Where a node stands in the lattice, as its health message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The bootstrap is not over yet.
    Starting,
    /// The state of a peer is on its way.
    Syncing,
    /// Has the state of a peer.
    Synced,
    /// Has proved that it is the first of its lattice.
    Alone,
    /// The server refuses what it needs, or it and those it hears do not accept each other.
    Isolated,
    /// Others are heard, and none answers.
    Unreachable,
    /// What a peer holds is stamped in the future.
    Refused,
    /// Takes its peers' state after a long absence.
    Resyncing,
    /// Serves without a completed first sync.
    Unsynced,
    /// Replication is switched off.
    Standalone,
    /// The server is away.
    Disconnected,
}

impl FromStr for SyncState {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "starting" => Self::Starting,
            "syncing" => Self::Syncing,
            "synced" => Self::Synced,
            "alone" => Self::Alone,
            "isolated" => Self::Isolated,
            "unreachable" => Self::Unreachable,
            "refused" => Self::Refused,
            "resyncing" => Self::Resyncing,
            "unsynced" => Self::Unsynced,
            "standalone" => Self::Standalone,
            "disconnected" => Self::Disconnected,
            other => bail!("unknown sync state {other:?}"),
        })
    }
}

/// A parsed health message: `node=… keys=… peers=… sync=… digest=…`, possibly with more pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node: String,
    pub keys: u64,
    pub peers: u64,
    pub sync: SyncState,
    /// What is wrong, in words.
    pub reason: Option<String>,
    pub digest: String,
    /// Every pair of the message, the ones above included.
    pub pairs: BTreeMap<String, String>,
}

impl FromStr for Status {
    type Err = anyhow::Error;

    fn from_str(message: &str) -> Result<Self> {
        let pairs = parse_pairs(message)?;
        let pair = |name: &str| {
            pairs
                .get(name)
                .cloned()
                .with_context(|| format!("health message {message:?} lacks {name}="))
        };
        let number = |name: &str| {
            pair(name)?
                .parse()
                .with_context(|| format!("{name}= of health message {message:?}"))
        };
        Ok(Self {
            node: hex_16(&pair("node")?)?,
            keys: number("keys")?,
            peers: number("peers")?,
            sync: pair("sync")?.parse()?,
            reason: pairs.get("reason").cloned(),
            digest: hex_16(&pair("digest")?)?,
            pairs: pairs.clone(),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sync = format!("{:?}", self.sync).to_lowercase();
        write!(
            f,
            "keys={} peers={} sync={sync} digest={}",
            self.keys, self.peers, self.digest
        )
    }
}

fn parse_pairs(message: &str) -> Result<BTreeMap<String, String>> {
    if message.lines().count() > 1 {
        bail!("health message of more than one line: {message:?}");
    }
    let mut pairs = BTreeMap::new();
    let mut rest = message.trim_start();
    while !rest.is_empty() {
        let word = rest.split_whitespace().next().unwrap_or(rest);
        let (name, after) = rest
            .split_once('=')
            .filter(|(name, _)| !name.contains(char::is_whitespace))
            .with_context(|| format!("no name=value pair: {word:?}"))?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted).with_context(|| format!("{name}= has no closing quote: {message:?}"))?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.insert(name.to_owned(), value);
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A text up to its closing quote, and what follows. Backslashes stand before what they protect.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[place + 1..])),
            '\\' => text.push(characters.next()?.1),
            _ => text.push(character),
        }
    }
    None
}

fn hex_16(text: &str) -> Result<String> {
    if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("{text:?} is not 16 hexadecimal digits");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_message_is_parsed_with_unknown_pairs() {
        let message =
            "node=00000000000000ff keys=3 peers=2 sync=synced reason=\"a \\\"b\\\"\" digest=0123456789abcdef lag=4";
        let status: Status = message.parse().unwrap();
        assert_eq!(status.reason.as_deref(), Some("a \"b\""));
        assert_eq!((status.keys, status.peers, status.sync), (3, 2, SyncState::Synced));
        assert_eq!(status.pairs["lag"], "4");
    }

    #[test]
    fn a_broken_health_message_is_an_error_that_says_why() {
        for (message, reason) in [
            (
                "node=1 keys=3 peers=2 sync=synced digest=0123456789abcdef",
                "16 hexadecimal digits",
            ),
            (
                "node=00000000000000ff keys=x peers=2 sync=synced digest=0123456789abcdef",
                "keys=",
            ),
            (
                "node=00000000000000ff peers=2 sync=synced digest=0123456789abcdef",
                "lacks keys=",
            ),
            ("all is well", "no name=value pair"),
        ] {
            let error = message.parse::<Status>().unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{message:?}: {error:#}");
        }
    }
}
