//! Hosts that may do what docs/OPERATIONS.md says, and nothing else.

use testkit::{workspace_root, Actor, Lattice, NatsServer, ProviderOptions, ProviderProcess, Status, SyncState};

use crate::cluster::{BINARY, LIMIT};

/// The user that the table is about. Whoever names none is one without bounds: the callers.
const HOST: &str = "host";

/// A row of the tables: what a user may do on some subjects.
#[derive(Debug)]
struct Row {
    subjects: Vec<String>,
    publish: bool,
    subscribe: bool,
    /// Of the subscriptions, if there are any.
    groups: Option<String>,
}

impl Row {
    /// Reads `| subjects | yes | yes (queue groups ...) | ...`.
    fn of(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [subjects, publish, subscribe, ..] = cells[..] else {
            return None;
        };
        let spans = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let is_yes = |cell: &str| match cell.split(' ').next() {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        };
        Some(Row {
            subjects: spans(subjects),
            publish: is_yes(publish)?,
            subscribe: is_yes(subscribe)?,
            groups: spans(subscribe).pop(),
        })
    }
}

/// The tables of replication and of the lattice.
fn tables() -> [Vec<Row>; 2] {
    let text = std::fs::read_to_string(workspace_root().join("docs/OPERATIONS.md")).unwrap();
    let (_, section) = text.split_once("\n## NATS permissions\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = |table: &str| table.lines().filter_map(Row::of).collect::<Vec<_>>();
    let (replication, lattice) = section.split_once("The connection to the lattice").expect("two tables");
    let tables = [rows(replication), rows(lattice)];
    let [subjects, others] = tables
        .each_ref()
        .map(|rows| rows.iter().flat_map(|row| &row.subjects).count());
    assert_eq!((subjects, others), (4, 9), "{tables:?}");
    tables
}

/// What a user may do, as the configuration of a server has it.
#[derive(Clone, Default)]
struct Rights {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Rights {
    /// Of the hosts of a lattice, with or without the queue groups of the table.
    fn of<'a>(rows: impl IntoIterator<Item = &'a Row>, lattice: &str, providers: &[&str], with_groups: bool) -> Self {
        let mut rights = Rights::default();
        for row in rows {
            for subject in &row.subjects {
                for provider in providers {
                    let root = format!("wasmbus.rpc.{lattice}.{provider}.default");
                    let subject = match subject.strip_prefix('P') {
                        Some(rest) => format!("{root}{rest}"),
                        None => subject.replace("{lattice}", lattice).replace("{link}", "default"),
                    };
                    rights.add(row, subject, with_groups);
                }
            }
        }
        rights
    }

    fn add(&mut self, row: &Row, subject: String, with_groups: bool) {
        if row.publish {
            self.publish.push(subject.clone());
        }
        match &row.groups {
            _ if !row.subscribe => {}
            Some(groups) if with_groups => self.subscribe.push(format!("{subject} {groups}")),
            _ => self.subscribe.push(subject),
        }
    }

    fn configuration(&self) -> String {
        let Rights { publish, subscribe } = self;
        format!(
            "authorization {{ users: [ {{ user: caller, password: secret }}, {{ user: {HOST}, password: secret, permissions: \
             {{ publish: {publish:?}, subscribe: {subscribe:?} }} }} ] }}\nno_auth_user: caller"
        )
    }
}

/// A server that gives hosts these rights, and a lattice on it whose actors have all. `None` if the test is skipped.
async fn lattice_with(rights: &Rights, name: &str) -> Option<(NatsServer, Lattice)> {
    let builder = NatsServer::builder().jetstream().config(rights.configuration());
    let server = builder.start_or_skip().await?;
    let lattice = Lattice::new(server.url()).with_prefix(name);
    Some((server, lattice))
}

fn options(key: &str) -> ProviderOptions {
    ProviderOptions::new(BINARY).provider_key(key).adjust(|data| {
        let url = format!("nats://{HOST}:secret@");
        data.lattice_rpc_url = data.lattice_rpc_url.replace("nats://", &url);
    })
}

fn provider_key() -> String {
    ProviderOptions::new(BINARY).key().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_may_do_what_the_table_says_lack_nothing() {
    let (keys, actor) = ([provider_key(), provider_key()], Actor::new());
    for (name, with_groups) in [("permitted-any-group", false), ("permitted-groups", true)] {
        let rights = Rights::of(tables().iter().flatten(), name, &[&keys[0], &keys[1]], with_groups);
        let Some((server, lattice)) = lattice_with(&rights, name).await else {
            return;
        };
        let mut providers: Vec<ProviderProcess> = Vec::new();
        for key in &keys {
            let options = options(key).link(&actor).log_level("debug");
            providers.push(lattice.start_ready(options, LIMIT).await.unwrap());
        }
        for provider in &mut providers {
            let met = |status: &Status| status.peers == 1 && status.sync == SyncState::Synced;
            provider.wait_status(LIMIT, met).await.unwrap();
        }
        let kvs = [
            providers[0].keyvalue(&actor).await.unwrap(),
            providers[1].keyvalue(&actor).await.unwrap(),
        ];
        let large = "x".repeat(2 << 20);
        for (writer, reader) in [(0, 1), (1, 0)] {
            let key = format!("from{writer}");
            kvs[writer].set(&key, "small").await.unwrap();
            // Arguments and answer go through the object store.
            kvs[writer].set("large", &large).await.unwrap();
            let arrived = testkit::eventually(LIMIT, || async {
                anyhow::ensure!(
                    kvs[reader].get(&key).await?.as_deref() == Some("small"),
                    "not replicated"
                );
                anyhow::ensure!(kvs[reader].get("large").await? == Some(large.clone()), "not replicated");
                Ok(())
            });
            arrived.await.unwrap();
            kvs[reader].del("large").await.unwrap();
        }
        let linked = Actor::new();
        providers[0].put_link(&linked, &[]).await.unwrap();
        providers[0].wait_linked(&linked, LIMIT).await.unwrap();
        providers[0].delete_link(&linked).await.unwrap();
        providers[0].wait_unlinked(&linked, LIMIT).await.unwrap();
        for provider in &mut providers {
            let health = provider.health().await.unwrap();
            assert!(health.healthy, "{health:?}");
            provider.shutdown().await.unwrap();
            for log in [provider.log().text(), server.log()] {
                assert!(!log.contains("iolation"), "{name}: something is refused:\n{log}");
            }
        }
    }
}

/// A host that lacks the right to `what` says so in its health.
async fn expect_named(rights: &Rights, number: usize, key: &str, what: &str) {
    let Some((_server, lattice)) = lattice_with(rights, &format!("lacking{number}")).await else {
        return;
    };
    let actor = Actor::new();
    let mut provider = lattice.start(options(key).link(&actor)).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    // That writes are refused shows with the first one.
    let writing = tokio::spawn(async move { while kv.set("key", "value").await.is_err() {} });
    let isolated = |status: &Status| status.sync == SyncState::Isolated;
    let status = provider.wait_status(LIMIT, isolated).await;
    writing.abort();
    let status = status.unwrap_or_else(|error| panic!("without {what}: {error:#}"));
    let reason = status.reason.unwrap_or_default();
    assert!(reason.contains(what), "without {what}: {reason}");
    assert!(!provider.health().await.unwrap().healthy, "without {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_lack_one_right_of_replication_say_which() {
    let (key, [replication, lattice]) = (provider_key(), tables());
    let mut number = 0;
    for row in &replication {
        for (direction, words) in [("publish", "publishing to "), ("subscribe", "subscribing to ")] {
            number += 1;
            let name = format!("lacking{number}");
            let all = Rights::of(replication.iter().chain(&lattice), &name, &[&key], false);
            let of_row = Rights::of([row], &name, &[&key], false);
            let mut rights = all.clone();
            match direction {
                "publish" => rights.publish.retain(|subject| !of_row.publish.contains(subject)),
                _ => rights.subscribe.retain(|subject| !of_row.subscribe.contains(subject)),
            }
            let subject = of_row.publish[0].trim_end_matches('>').to_owned();
            expect_named(&rights, number, &key, &format!("{words}{subject}")).await;
        }
    }
    // What one would guess: the groups have longer names.
    let name = format!("lacking{}", number + 1);
    let mut rights = Rights::of(replication.iter().chain(&lattice), &name, &[&key], false);
    let replay = rights
        .subscribe
        .iter_mut()
        .find(|subject| subject.ends_with(".replay"))
        .unwrap();
    let wanted = format!("subscribing to {replay}");
    replay.push_str(" replay");
    expect_named(&rights, number + 1, &key, &wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_lack_the_rights_of_the_lattice_say_which_in_the_log() {
    let (key, [replication, lattice]) = (provider_key(), tables());
    let name = "lacking-the-lattice";
    let Some((_server, place)) = lattice_with(&Rights::of(&replication, name, &[&key], false), name).await else {
        return;
    };
    let provider = place.start(options(&key)).await.unwrap();
    let root = format!("wasmbus.rpc.{name}.{key}.default");
    for subject in Rights::of(&lattice, name, &[&key], false).subscribe {
        if subject.starts_with(&root) {
            let refused = format!("Permissions Violation for Subscription to \"{subject}\"");
            provider.wait_for_log(&refused, LIMIT).await.unwrap();
        }
    }
}
