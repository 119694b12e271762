//! When to connect again, and why it has not worked so far.

use async_nats::Server;

use kvcache_core::cache::Millis;

/// A connection that ended sooner did not work: the next attempt waits as after one that failed.
const LASTED_MS: Millis = 10_000;

const FIRST_DELAY_MS: Millis = 50;
const MAX_DELAY_MS: Millis = 2_000;

/// Between two warnings about servers that stay away ...
const WARNING_INTERVAL_MS: Millis = 30_000;

/// ... and about ones that have begun to fail in another way.
const CHANGE_INTERVAL_MS: Millis = 1_000;

/// Longer reasons are cut: a server chooses its own words.
const MAX_REASON_CHARS: usize = 200;

/// Longer and longer delays between attempts, until a connection has lasted. A server that accepts a connection and
/// drops it again is no better than one that is away.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    /// When the last attempt began.
    attempted: Option<Millis>,
}

impl Backoff {
    /// How long to wait before an attempt. The client library counts attempts from 1 since the last connection.
    pub fn delay(&mut self, attempt: usize, now: Millis) -> Millis {
        self.failures = match self.attempted {
            None => 0,
            Some(attempted) if attempt <= 1 && now.saturating_sub(attempted) >= LASTED_MS => 0,
            Some(_) => self.failures.saturating_add(1),
        };
        let delay = match self.failures.checked_sub(1) {
            None => 0,
            Some(doublings) => (FIRST_DELAY_MS << doublings.min(8)).min(MAX_DELAY_MS),
        };
        self.attempted = Some(now + delay);
        delay
    }
}

/// What to say about attempts that failed, and when.
#[derive(Default)]
pub(super) struct Reasons {
    failures: usize,
    told: String,
    told_at: Option<Millis>,
}

impl Reasons {
    /// Looks at what the client library remembers of its servers. Returns why attempts have failed, if there were any
    /// since the last time.
    pub fn of(&mut self, servers: &[Server]) -> Option<String> {
        let failures = servers.iter().map(|server| server.failed_attempts).sum();
        if std::mem::replace(&mut self.failures, failures) >= failures {
            return None;
        }
        let failed = servers.iter().filter(|server| server.failed_attempts > 0);
        let mut reasons: Vec<_> = failed
            .filter_map(|server| {
                let error = server.last_error.as_deref()?;
                Some(format!(
                    "{}:{}: {}",
                    server.addr.host(),
                    server.addr.port(),
                    explain(error)
                ))
            })
            .collect();
        reasons.sort_unstable();
        Some(reasons.join("; "))
    }

    /// Whether a reason is to be told now.
    pub fn tell(&mut self, reason: &str, now: Millis) -> bool {
        let interval = match reason == self.told {
            true => WARNING_INTERVAL_MS,
            false => CHANGE_INTERVAL_MS,
        };
        if self.told_at.is_some_and(|told_at| now < told_at + interval) {
            return false;
        }
        self.told_at = Some(now);
        self.told = reason.into();
        true
    }
}

/// What an error of the client library means to an operator. The library's own words follow in parentheses.
pub fn explain(error: &str) -> String {
    const KNOWN: [(&str, &str); 21] = [
        (
            "unknownissuer",
            "its certificate is not trusted here: NATS_TLS_CA has to name the authority that signed it",
        ),
        (
            "notvalidforname",
            "its certificate is for another name than the one in the address",
        ),
        (
            "certificate not valid for name",
            "its certificate is for another name than the one in the address",
        ),
        ("invalid peer certificate: expired", "its certificate has expired"),
        (
            "certificaterequired",
            "it asks for a certificate of the client: NATS_TLS_CERT and NATS_TLS_KEY",
        ),
        (
            "received fatal alert",
            "it refuses TLS with this client (NATS_TLS_CERT, NATS_TLS_KEY)",
        ),
        ("invalidcontenttype", "it does not speak TLS"),
        (
            "could not load platform certs",
            "the certificates that this system trusts cannot be read",
        ),
        (
            "badsignature",
            "its certificate is not trusted here: NATS_TLS_CA names another authority of the same name",
        ),
        ("invalid peer certificate", "its certificate cannot be used"),
        ("autherror", "the credentials cannot be used"),
        ("authorization violation", "it refuses the credentials"),
        ("authentication", "it refuses the credentials"),
        ("connections exceeded", "it is full (it allows no more connections)"),
        ("connection refused", "nobody listens there"),
        ("dns error", "its name cannot be resolved"),
        ("lookup address", "its name cannot be resolved"),
        ("unreachable", "there is no way to it"),
        (
            "timed out",
            "it does not answer, at least not as a NATS server (TLS before its greeting is not supported)",
        ),
        ("invalid server operation", "it does not speak the protocol of NATS"),
        ("expected info", "it does not greet as a NATS server"),
    ];
    let lower = error.to_lowercase();
    let shown: String = match error.chars().count() > MAX_REASON_CHARS {
        true => error.chars().take(MAX_REASON_CHARS).chain("...".chars()).collect(),
        false => error.to_owned(),
    };
    match KNOWN.iter().find(|(pattern, _)| lower.contains(pattern)) {
        Some((_, meaning)) => format!("{meaning} ({shown})"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_a_connection_has_lasted() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut delays = |attempts: &[usize], lasted: Millis| -> Vec<Millis> {
            let delays = attempts.iter().map(|attempt| {
                let delay = backoff.delay(*attempt, now);
                now += delay + lasted;
                delay
            });
            delays.collect()
        };
        // A server that stays away.
        assert_eq!(
            delays(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 0),
            [0, 50, 100, 200, 400, 800, 1_600, 2_000, 2_000]
        );
        // One that takes the connection, and drops it: the library counts from 1 each time.
        assert_eq!(delays(&[1, 1, 1], 300), [2_000, 2_000, 2_000]);
        // The last of them lasts.
        assert_eq!(delays(&[1], LASTED_MS), [2_000]);
        assert_eq!(delays(&[1, 1, 1, 2], 300), [0, 50, 100, 200]);
    }

    #[test]
    fn a_long_attempt_that_fails_is_no_connection_that_lasted() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 0), 0);
        assert_eq!(backoff.delay(2, 20_000), 50);
        assert_eq!(backoff.delay(3, 40_000), 100);
    }

    #[test]
    fn a_reason_is_told_once_and_another_one_soon() {
        let mut reasons = Reasons::default();
        let mut tell = |reason: &str, now| reasons.tell(reason, now);
        assert!(tell("refused", 0));
        assert!(!tell("refused", WARNING_INTERVAL_MS - 1));
        assert!(tell("refused", WARNING_INTERVAL_MS));
        assert!(!tell("full", WARNING_INTERVAL_MS + 1));
        assert!(tell("full", WARNING_INTERVAL_MS + CHANGE_INTERVAL_MS));
    }

    #[test]
    fn errors_are_explained_and_bounded() {
        let explained = explain("IO error: invalid peer certificate: UnknownIssuer");
        assert!(
            explained.contains("not trusted") && explained.ends_with("UnknownIssuer)"),
            "{explained}"
        );
        assert!(explain("IO error: Connection refused (os error 111)").contains("nobody listens"));
        let unreadable = "authentication error: AuthError(/user.creds: it cannot be read)";
        assert!(explain(unreadable).contains("cannot be used"));
        assert!(explain("IO error: nats: maximum account active connections exceeded").contains("is full"));
        assert!(explain(&"x".repeat(10_000)).len() < 300);
        assert_eq!(explain("of another kind"), "of another kind");
    }
}
