//! Texts that must not reach a log, and what would forge one.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// A secret: compares and clones, but never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// Length of a seed as text, and of what is left of one at least to count as cut off.
const SEED_CHARS: usize = 58;
const CUT_SEED_CHARS: usize = 24;

/// `eyJ` is `{"` in base64: a JWT or host data.
const JWT_START: &[u8] = b"eyJ";
const MIN_JWT_CHARS: usize = 12;

/// A text as it may leave the process: on one line, without what looks like a secret. Everything that is written or
/// answered goes through here, because an operator can put a seed where no seed is expected.
pub fn cleaned(text: &str) -> Cow<'_, str> {
    match hidden(text) {
        Cow::Borrowed(text) => escaped(text, false),
        Cow::Owned(text) => Cow::Owned(escaped(&text, false).into_owned()),
    }
}

/// Without what looks like an nkey seed, a JWT, a private key, or the user of an address.
pub fn hidden(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let mut kept = 0;
    let mut at = 0;
    while at < bytes.len() {
        match secret_at(bytes, at) {
            None => at += 1,
            // All that is looked for begins and ends with ASCII, so these are boundaries of characters.
            Some(secret) => {
                clean.push_str(&text[kept..secret.start]);
                clean.push_str(HIDDEN);
                (at, kept) = (secret.end, secret.end);
            }
        }
    }
    match kept {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(clean + &text[kept..]),
    }
}

/// The secret that begins here.
fn secret_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    match bytes[at] {
        b'S' | b's' => seed(bytes, at),
        b'e' | b'E' => jwt(bytes, at),
        b':' => user(bytes, at),
        b'-' => private_key(bytes, at),
        _ => None,
    }
}

/// `S`, the kind of key, and 56 characters of base32, anywhere and in any case; or the beginning of that at the
/// beginning of a word. A public key has 56 characters in all.
fn seed(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const KINDS: &[u8] = b"OAUCNXMVPoaucnxmvp";
    if !KINDS.contains(bytes.get(at + 1)?) {
        return None;
    }
    let length = run(&bytes[at..], |byte| {
        byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7')
    });
    let begins_word = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
    let upper = || bytes[at..at + length].iter().all(|byte| !byte.is_ascii_lowercase());
    let is_seed = length >= SEED_CHARS || (begins_word && length >= CUT_SEED_CHARS && upper());
    is_seed.then_some(at..at + length)
}

/// Anywhere; in another case, as names of settings have it, at the beginning of a word: a public key can hold the
/// letters.
fn jwt(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let begins_word = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
    let start = bytes.get(at..at + JWT_START.len())?;
    if start != JWT_START && !(begins_word && start.eq_ignore_ascii_case(JWT_START)) {
        return None;
    }
    let length = run(&bytes[at..], |byte| {
        byte.is_ascii_alphanumeric() || b"-_.+/=".contains(&byte)
    });
    (length >= MIN_JWT_CHARS).then_some(at..at + length)
}

/// What stands between `://` and `@`.
fn user(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes[at..].strip_prefix(b"://")?;
    let length = run(rest, |byte| !byte.is_ascii_whitespace() && !b"/\"'<>,".contains(&byte));
    let end = rest[..length].iter().rposition(|byte| *byte == b'@')?;
    (end > 0).then_some(at + 3..at + 3 + end)
}

/// A private key in PEM, to its end or to the end of the text.
fn private_key(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const END: &[u8] = b"-----END ";
    let rest = bytes[at..].strip_prefix(b"-----BEGIN ")?;
    let heading = run(rest, |byte| byte.is_ascii_uppercase() || byte == b' ');
    if !rest[..heading].ends_with(b"PRIVATE KEY") {
        return None;
    }
    let end = rest.windows(END.len()).position(|window| window == END);
    let start = bytes.len() - rest.len() + heading;
    // What is hidden ends at a `-` or with the text.
    Some(start..end.map_or(bytes.len(), |end| bytes.len() - rest.len() + end))
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

/// On one line and as it reads: without control characters and without those that change the direction of writing.
/// Escapes as JSON has them. `colours` lets the escape character of terminals pass.
pub fn escaped(text: &str, colours: bool) -> Cow<'_, str> {
    let forges = |c: char| {
        (c.is_control() && !(colours && c == '\u{1b}'))
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let Some(first) = text.find(forges) else {
        return Cow::Borrowed(text);
    };
    let mut clean = text[..first].to_owned();
    for c in text[first..].chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            c if forges(c) => clean.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_every_kind_are_hidden_wherever_they_stand() {
        use nkeys::{KeyPair, KeyPairType};
        for kind in [
            KeyPairType::Account,
            KeyPairType::Cluster,
            KeyPairType::Curve,
            KeyPairType::Module,
            KeyPairType::Operator,
            KeyPairType::Server,
            KeyPairType::Service,
            KeyPairType::User,
        ] {
            // The middle of some other text is where a public key could be mistaken for one.
            for _ in 0..50 {
                let seed = KeyPair::new(kind.clone()).seed().unwrap();
                for text in [
                    seed.clone(),
                    format!("{{\"level\":\"{seed}\"}}"),
                    format!("lattice.{seed}.kvcache"),
                    format!("XY{seed}{seed}"),
                    format!("link={}", seed.to_lowercase()),
                    format!("cut '{}...", &seed[..30]),
                    format!("ünïcode{seed}ünïcode"),
                ] {
                    let clean = cleaned(&text);
                    assert!(clean.contains(HIDDEN), "{text}: {clean}");
                    assert!(!clean.to_uppercase().contains(&seed[8..28]), "{text}: {clean}");
                }
            }
        }
    }

    #[test]
    fn public_keys_digests_and_words_stay() {
        for _ in 0..500 {
            let key = nkeys::KeyPair::new_module().public_key();
            assert_eq!(
                cleaned(&format!("actor={key} node=8ce47d1b44b40fc6")),
                format!("actor={key} node=8ce47d1b44b40fc6")
            );
        }
        for text in [
            "",
            "SUBJECT SOMETHING SCALE",
            "STATE_REPL_SUBJECT and SYNC_TIMEOUT_SECS",
            "key=eyJ",
            "nats://host:4222, tls://other/",
            "mail to me@example.org",
            "naïve – ünïcode 名前 \u{1f600}",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(matches!(cleaned(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn jwts_private_keys_and_users_of_addresses_are_hidden() {
        for (text, clean) in [
            ("jwt eyJ0eXAiOiJKV1QifQ.e30.AA_-A!", "jwt (hidden)!"),
            ("'EYJ0EXAIOIJKV1QIFQ.E30'", "'(hidden)'"),
            ("url nats://me:pa@ss@host:4222/", "url nats://(hidden)@host:4222/"),
            ("[tls://token@a,tls://b]", "[tls://(hidden)@a,tls://b]"),
            (
                "x -----BEGIN EC PRIVATE KEY-----\nMIIE\n-----END EC PRIVATE KEY----- y",
                "x -----BEGIN EC PRIVATE KEY(hidden)-----END EC PRIVATE KEY----- y",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIEä", "-----BEGIN PRIVATE KEY(hidden)"),
        ] {
            assert_eq!(cleaned(text), clean);
        }
    }

    #[test]
    fn no_text_makes_a_second_line_or_another_look() {
        for (text, clean) in [
            ("a\nERROR forged", "a\\nERROR forged"),
            ("a\r\tb\u{0}\u{7f}", "a\\r\\tb\\u0000\\u007f"),
            ("\u{85}\u{2028}\u{202e}x", "\\u0085\\u2028\\u202ex"),
            ("\u{1b}[31mred", "\\u001b[31mred"),
        ] {
            assert_eq!(escaped(text, false), clean);
        }
        assert_eq!(escaped("\u{1b}[31mred\n", true), "\u{1b}[31mred\\n");
    }

    #[test]
    fn whatever_stands_around_a_seed_it_is_hidden_and_nothing_breaks() {
        use proptest::prelude::*;
        const PART: &str =
            "([SU]{1,3}|[A-Z2-7]{20,60}|eyJ[a-z.]{0,20}|://|@|-----BEGIN PRIVATE KEY|-----END |\\PC|\\s){0,8}";
        proptest!(|(before in PART, after in PART)| {
            let seed = "SUACSSNOTASEEDATALLBUTLONGENOUGHTOLOOKLIKEONEXXXXXXXXXXXXX";
            let clean = cleaned(&format!("{before}{seed}{after}")).into_owned();
            prop_assert!(!clean.contains("NOTASEED"), "{clean}");
            prop_assert!(!clean.contains(char::is_control), "{clean}");
        });
    }
}
