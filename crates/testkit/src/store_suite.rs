//! What every engine of a store has to do, as one suite that runs against all of them: each as a real server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use async_trait::async_trait;
use kvcache_core::cache::Partition;
use kvcache_node::store::{Batch, CacheName, Opener, Record, Section, Store, StoreError, StoreUrl, Written};

use crate::local_server::{LocalServer, Program};
use crate::wait::eventually;

/// No question to an engine takes longer, whatever its server does.
const ASKED_LIMIT: Duration = Duration::from_secs(20);
/// A server is back in service so long after it was started again.
const BACK_LIMIT: Duration = Duration::from_secs(90);

/// An engine with its server.
#[async_trait]
pub trait StoreEngine: Send + Sync {
    /// What opens it.
    fn opener(&self) -> &dyn Opener;
    /// The URL of the server, or of the folder.
    fn url(&self) -> String;
    /// Ends the server with SIGKILL. Nothing for an engine without one.
    async fn kill(&mut self) -> Result<()>;
    /// Starts it again with its data.
    async fn restart(&mut self) -> Result<()>;
    /// Stops it (SIGSTOP). Returns whether there is a server to stop.
    async fn freeze(&mut self) -> Result<bool>;
    /// Lets it go on.
    async fn thaw(&mut self) -> Result<()>;

    /// Whether a smaller value can be written where one was removed: see [`Store::remove`].
    fn forgets_what_it_removes(&self) -> bool {
        true
    }

    /// The store of a cache.
    async fn open(&self, cache: &CacheName) -> Result<Arc<dyn Store>> {
        let url = StoreUrl::parse(&self.url())?;
        self.opener().check(&url)?;
        let opened = tokio::time::timeout(ASKED_LIMIT, self.opener().open(&url, cache)).await;
        Ok(opened.with_context(|| format!("opening {url} took longer than {ASKED_LIMIT:?}"))??)
    }
}

/// An engine whose server is one process of the kit.
pub struct ServedStore<O, P, const N: usize> {
    /// What opens it.
    pub opener: O,
    /// The server.
    pub server: LocalServer<P, N>,
    /// The URL of its store.
    pub url: String,
    /// See [`StoreEngine::forgets_what_it_removes`].
    pub forgets_what_it_removes: bool,
}

#[async_trait]
impl<O: Opener, P: Program<N> + Send + Sync, const N: usize> StoreEngine for ServedStore<O, P, N> {
    fn opener(&self) -> &dyn Opener {
        &self.opener
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn forgets_what_it_removes(&self) -> bool {
        self.forgets_what_it_removes
    }

    async fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    async fn freeze(&mut self) -> Result<bool> {
        self.server.pause().map(|()| true)
    }

    async fn thaw(&mut self) -> Result<()> {
        self.server.resume()
    }
}

/// All records of a section.
pub type Held = BTreeMap<Vec<u8>, Vec<u8>>;

/// The name of a cache.
pub fn cache_name(lattice: &str, link: &str) -> CacheName {
    CacheName {
        lattice: lattice.into(),
        link: link.into(),
    }
}

/// Runs all of the suite against an engine. Each part uses caches of its own, so an engine may be used before.
pub async fn run_store_suite(engine: &mut dyn StoreEngine) -> Result<()> {
    records_come_back_as_they_were(engine)
        .await
        .context("records come back")?;
    caches_do_not_mix(engine).await.context("caches do not mix")?;
    of_one_id_in_a_batch_the_largest_stays(engine)
        .await
        .context("one id twice in a batch")?;
    if engine.open(&cache_name("suite", "kind")).await?.is_shared() {
        the_larger_value_stays(engine).await.context("the larger value stays")?;
        writers_at_one_time_lose_nothing(engine).await.context("two writers")?;
        what_has_changed_is_not_removed(engine).await.context("removing")?;
        what_is_replaced_while_it_is_loaded_is_shown(engine)
            .await
            .context("loading while others write")?;
    } else {
        a_section_is_replaced(engine).await.context("replacing")?;
    }
    what_was_written_outlives_a_kill(engine).await.context("SIGKILL")?;
    a_server_that_does_not_answer_is_away(engine)
        .await
        .context("a frozen server")?;
    Ok(())
}

/// The records of some sections.
pub async fn load(store: &dyn Store, sections: &[Section]) -> Result<BTreeMap<Section, Held>> {
    let found: Mutex<BTreeMap<Section, Held>> = Mutex::default();
    let sink = |section: Section, record: Record<'_>| {
        let mut found = found.lock().expect("no panic");
        let held = found.entry(section).or_default().entry(record.id.to_vec()).or_default();
        // Of several values for one id the largest is meant.
        if held[..] < *record.value {
            *held = record.value.to_vec();
        }
    };
    asked(store.load(sections, &sink)).await?;
    Ok(found.into_inner().expect("no panic"))
}

async fn load_one(store: &dyn Store, section: Section) -> Result<Held> {
    Ok(load(store, &[section]).await?.remove(&section).unwrap_or_default())
}

async fn asked<T>(question: impl std::future::Future<Output = Result<T, StoreError>>) -> Result<T> {
    let answer = tokio::time::timeout(ASKED_LIMIT, question).await;
    Ok(answer.map_err(|_| anyhow!("no answer of the engine within {ASKED_LIMIT:?}"))??)
}

/// A batch of records.
pub fn batch(section: Section, records: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = Batch::new(section);
    for (id, value) in records {
        batch.push(Record { id, value });
    }
    batch
}

fn section(number: u16) -> Section {
    Section::of(Partition(number))
}

fn held(records: &[(&[u8], &[u8])]) -> Held {
    records
        .iter()
        .map(|(id, value)| (id.to_vec(), value.to_vec()))
        .collect()
}

/// A value as records have them: a stamp, and something after it.
fn stamped(time: u64, node: u64, content: &[u8]) -> Vec<u8> {
    [&(time << 16).to_be_bytes()[..], &node.to_be_bytes(), content].concat()
}

async fn records_come_back_as_they_were(engine: &dyn StoreEngine) -> Result<()> {
    let name = cache_name("suite", "sizes");
    let store = engine.open(&name).await?;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let wide: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
    let now = 1_790_000_000_000;
    // 5 MiB are more than one message of most servers takes.
    let contents: [&[u8]; 8] = [
        b"",
        b"\0",
        b"text",
        &all_bytes,
        &wide,
        &[0; 600_000],
        &[b'x'; 1 << 20],
        &[0xff; 5 << 20],
    ];
    let ids: [&[u8]; 8] = [
        b"",
        b"\0",
        b"a",
        b"A.b*c>d e/f\\g%h:i{j}\xff\xfe",
        &all_bytes,
        &[0; 300],
        &[b'k'; 3_000],
        &[0xff; 100_000],
    ];
    let values: Vec<Vec<u8>> = contents.iter().map(|content| stamped(now, 7, content)).collect();
    let sections = [section(0), section(1), section(1023), Section::HEAD];
    let mut expected: BTreeMap<Section, Held> = BTreeMap::new();
    for (n, of) in sections.into_iter().enumerate() {
        let records: Vec<(&[u8], &[u8])> = (0..ids.len())
            .map(|i| (ids[i], values[(i + n * 3) % values.len()].as_slice()))
            .collect();
        let written = asked(store.write(&[batch(of, &records)])).await?;
        ensure!(written == Written::default(), "{written:?} where nothing was");
        expected.insert(of, held(&records));
    }
    // Many small ones, over several batches of one call.
    let many: Vec<(Vec<u8>, Vec<u8>)> = (0..3_000u32)
        .map(|n| (n.to_be_bytes().to_vec(), stamped(now, 8, &n.to_le_bytes())))
        .collect();
    let batches: Vec<Batch> = (0..3)
        .map(|part| {
            let of_part = many.iter().skip(part * 1_000).take(1_000);
            let records: Vec<(&[u8], &[u8])> = of_part.map(|(id, value)| (&id[..], &value[..])).collect();
            batch(section(500 + part as u16), &records)
        })
        .collect();
    asked(store.write(&batches)).await?;
    for batch in &batches {
        let records = batch.iter().map(|record| (record.id.to_vec(), record.value.to_vec()));
        expected.insert(batch.section(), records.collect());
    }
    let all: Vec<Section> = (0..=1024).filter_map(Section::numbered).collect();
    for again in ["the same store", "the store opened again"] {
        let store = match again {
            "the same store" => store.clone(),
            _ => {
                asked(store.close()).await?;
                engine.open(&name).await?
            }
        };
        let found = load(&*store, &all).await?;
        for (section, expected) in &expected {
            let found = found.get(section).cloned().unwrap_or_default();
            let differ = |(id, value): (&Vec<u8>, &Vec<u8>)| (found.get(id) != Some(value)).then_some(id.len());
            let lost: Vec<usize> = expected.iter().filter_map(differ).collect();
            ensure!(
                found.len() == expected.len() && lost.is_empty(),
                "{again}: section {} has {} of {} records; those with ids of {lost:?} bytes are lost or others",
                section.number(),
                found.len(),
                expected.len()
            );
        }
        let number = |held: &BTreeMap<Section, Held>| held.values().map(Held::len).sum::<usize>();
        ensure!(
            number(&found) == number(&expected),
            "{again}: records that nobody wrote"
        );
        let one = load_one(&*store, section(501)).await?;
        ensure!(one == expected[&section(501)], "one section alone");
        ensure!(
            load_one(&*store, section(77)).await?.is_empty(),
            "a section nobody wrote to"
        );
    }
    Ok(())
}

async fn caches_do_not_mix(engine: &dyn StoreEngine) -> Result<()> {
    let names = [
        ("mix", "default"),
        ("mix.default", ""),
        ("mix", "default.1"),
        ("mix:1", "x"),
        ("mix", "1:x"),
        ("Mix", "default"),
        ("mix*", ">"),
        ("mix {ü}/\\\"'`", "%2e é"),
        (&"long".repeat(60), "default"),
    ];
    let at = section(3);
    for (n, (lattice, link)) in names.iter().enumerate() {
        let store = engine.open(&cache_name(lattice, link)).await?;
        let value = stamped(1_000, n as u64, b"");
        asked(store.write(&[batch(at, &[(b"id", &value)])])).await?;
    }
    for (n, (lattice, link)) in names.iter().enumerate() {
        let store = engine.open(&cache_name(lattice, link)).await?;
        let value = stamped(1_000, n as u64, b"");
        let found = load_one(&*store, at).await?;
        ensure!(
            found == held(&[(b"id", &value)]),
            "{lattice:?} {link:?} sees another one's record"
        );
    }
    Ok(())
}

async fn the_larger_value_stays(engine: &dyn StoreEngine) -> Result<()> {
    let store = engine.open(&cache_name("suite", "larger")).await?;
    let at = section(9);
    let write = |id: &'static [u8], value: Vec<u8>| {
        let store = store.clone();
        async move { asked(store.write(&[batch(at, &[(id, &value)])])).await }
    };
    // In the order of their bytes; of equal stamps the content decides, and a zero byte counts as one.
    let growing = [
        stamped(1, 0, b""),
        stamped(1, 0, b"\0"),
        stamped(1, 0, b"\0\0"),
        stamped(1, 0, b"\x01"),
        stamped(1, 0, b"z"),
        stamped(1, 1, b"a"),
        stamped(1, 200, b"a"),
        stamped(1, u64::MAX, b""),
        stamped(2, 0, b"b"),
        stamped(1_790_000_000_000, 3, b"\xff"),
        stamped(1_790_000_000_001, 3, b"\x00"),
        // As far as clocks go.
        stamped((1 << 47) - 1, 0, b"\x00"),
    ];
    ensure!(growing.is_sorted());
    for value in &growing {
        let written = write(b"growing", value.clone()).await?;
        ensure!(written.conflicts == 0, "{value:?} was taken for a smaller one");
        ensure!(load_one(&*store, at).await?[&b"growing"[..]] == *value);
        // Again, which changes nothing and is no conflict.
        let written = write(b"growing", value.clone()).await?;
        ensure!(written.conflicts == 0, "an equal value is a conflict");
    }
    let largest = growing.last().expect("there are some").clone();
    for value in growing.iter().rev().skip(1) {
        write(b"growing", value.clone()).await?;
        ensure!(
            load_one(&*store, at).await?[&b"growing"[..]] == largest,
            "{value:?} has won"
        );
    }
    // Values larger than a message against small ones, both ways.
    for (id, first, second) in [
        (
            &b"large first"[..],
            stamped(5, 1, &[1; 2 << 20]),
            stamped(6, 1, b"small"),
        ),
        (b"small first", stamped(5, 1, b"small"), stamped(6, 1, &[1; 2 << 20])),
        (
            b"both large",
            stamped(5, 1, &[1; 2 << 20]),
            stamped(6, 1, &[2; 1 << 20]),
        ),
    ] {
        for order in [[&first, &second], [&second, &first]] {
            for value in order {
                asked(store.write(&[batch(at, &[(id, value)])])).await?;
            }
            ensure!(
                load_one(&*store, at).await?[id] == second,
                "{}",
                String::from_utf8_lossy(id)
            );
        }
    }
    Ok(())
}

async fn of_one_id_in_a_batch_the_largest_stays(engine: &dyn StoreEngine) -> Result<()> {
    let store = engine.open(&cache_name("suite", "twice")).await?;
    let at = section(10);
    let [first, second, third] = [1, 2, 3].map(|time| stamped(time, 1, b""));
    let records: [(&[u8], &[u8]); 6] = [
        (b"grows", &first),
        (b"shrinks", &third),
        (b"grows", &second),
        (b"shrinks", &first),
        (b"grows", &third),
        (b"shrinks", &second),
    ];
    asked(store.write(&[batch(at, &records)])).await?;
    let expected = held(&[(b"grows", &third), (b"shrinks", &third)]);
    let found = load_one(&*store, at).await?;
    ensure!(found == expected, "{found:?}");
    asked(store.close()).await?;
    Ok(())
}

/// Engines that read what they hold in the order in which it was written have to follow what moves.
async fn what_is_replaced_while_it_is_loaded_is_shown(engine: &dyn StoreEngine) -> Result<()> {
    const IDS: u64 = 3_000;
    const EACH: usize = 29;
    const LOADS: usize = 6;
    let name = cache_name("suite", "moving");
    let store = engine.open(&name).await?;
    let at = section(17);
    let of_round = |round: u64, each: usize| {
        let mut batch = Batch::new(at);
        for id in (0..IDS).step_by(each) {
            let value = stamped(round, 1, &[7; 100]);
            batch.push(Record {
                id: &id.to_be_bytes(),
                value: &value,
            });
        }
        batch
    };
    asked(store.write(&[of_round(1, 1)])).await?;
    let writer = engine.open(&name).await?;
    let has_ended = AtomicBool::new(false);
    let writing = async {
        let mut round = 2;
        while !has_ended.load(Ordering::Relaxed) {
            asked(writer.write(&[of_round(round, EACH)])).await?;
            round += 1;
        }
        Ok(())
    };
    let loading = async {
        for load in 0..LOADS {
            let found = load_one(&*store, at).await;
            has_ended.store(load + 1 == LOADS || found.is_err(), Ordering::Relaxed);
            let found = found?.len() as u64;
            if found != IDS {
                has_ended.store(true, Ordering::Relaxed);
                bail!("{found} of {IDS} records were shown");
            }
        }
        Ok(())
    };
    let (written, loaded) = tokio::join!(writing, loading);
    written.and(loaded)
}

async fn writers_at_one_time_lose_nothing(engine: &dyn StoreEngine) -> Result<()> {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 15;
    const IDS: u64 = 40;
    let name = cache_name("suite", "two writers");
    let at = section(11);
    let value = |writer: u64, round: u64, id: u64| {
        // No order of writers or rounds wins everywhere.
        let time = (writer * 7 + round * 13 + id * 5) % 97;
        stamped(1_000 + time, writer, &round.to_be_bytes())
    };
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let store = engine.open(&name).await?;
        tasks.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let mut batch = Batch::new(at);
                for id in 0..IDS {
                    let (id, value) = (id.to_be_bytes(), value(writer, round, id));
                    batch.push(Record { id: &id, value: &value });
                }
                // Losing a race for a while is not losing a record.
                eventually(BACK_LIMIT, || asked(store.write(std::slice::from_ref(&batch)))).await?;
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let found = load_one(&*engine.open(&name).await?, at).await?;
    ensure!(found.len() as u64 == IDS, "{} of {IDS} records", found.len());
    for id in 0..IDS {
        let all = (0..WRITERS).flat_map(|writer| (0..ROUNDS).map(move |round| value(writer, round, id)));
        let largest = all.max().expect("there are some");
        ensure!(
            found[&id.to_be_bytes()[..]] == largest,
            "id {id} is not the largest written"
        );
    }
    Ok(())
}

async fn what_has_changed_is_not_removed(engine: &dyn StoreEngine) -> Result<()> {
    let store = engine.open(&cache_name("suite", "remove")).await?;
    let at = section(12);
    let (old, new, large) = (
        stamped(5, 1, b"old"),
        stamped(6, 1, b"new"),
        stamped(5, 1, &[3; 2 << 20]),
    );
    let records: [(&[u8], &[u8]); 4] = [
        (b"stays", &old),
        (b"goes", &old),
        (b"changed", &old),
        (b"large", &large),
    ];
    asked(store.write(&[batch(at, &records)])).await?;
    asked(store.write(&[batch(at, &[(b"changed", &new)])])).await?;
    let gone: [(&[u8], &[u8]); 4] = [
        (b"goes", &old),
        (b"changed", &old),
        (b"never was", &old),
        (b"large", &large),
    ];
    asked(store.remove(&batch(at, &gone))).await?;
    let expected = held(&[(b"stays", &old), (b"changed", &new)]);
    ensure!(load_one(&*store, at).await? == expected, "after the removal");
    // What a removed one was is forgotten, or hides what is smaller; never what is larger.
    let smaller = stamped(4, 1, b"smaller");
    asked(store.write(&[batch(at, &[(b"goes", &smaller)])])).await?;
    let found = load_one(&*store, at).await?;
    let expected = engine.forgets_what_it_removes().then_some(&smaller);
    ensure!(
        found.get(&b"goes"[..]) == expected,
        "a smaller value after a removal: {found:?}"
    );
    asked(store.write(&[batch(at, &[(b"goes", &new), (b"large", &new)])])).await?;
    let found = load_one(&*store, at).await?;
    let expected = held(&[(b"stays", &old), (b"changed", &new), (b"goes", &new), (b"large", &new)]);
    ensure!(found == expected, "a larger value after a removal: {found:?}");
    Ok(())
}

async fn a_section_is_replaced(engine: &dyn StoreEngine) -> Result<()> {
    let store = engine.open(&cache_name("suite", "kind")).await?;
    let (old, new) = (stamped(5, 1, b"old"), stamped(6, 1, b"new"));
    let at = section(13);
    let other = section(14);
    asked(store.write(&[
        batch(at, &[(b"goes", &old), (b"changes", &old)]),
        batch(other, &[(b"stays", &old)]),
    ]))
    .await?;
    asked(store.write(&[batch(at, &[(b"changes", &new)])])).await?;
    let all = [batch(at, &[(b"changes", &new), (b"comes", &old)])];
    asked(store.replace(&all)).await?;
    ensure!(load_one(&*store, at).await? == held(&[(b"changes", &new), (b"comes", &old)]));
    ensure!(load_one(&*store, other).await? == held(&[(b"stays", &old)]));
    asked(store.replace(&[Batch::new(at)])).await?;
    ensure!(load_one(&*store, at).await?.is_empty(), "replaced by nothing");
    asked(store.close()).await?;
    Ok(())
}

async fn what_was_written_outlives_a_kill(engine: &mut dyn StoreEngine) -> Result<()> {
    let name = cache_name("suite", "kill");
    let store = engine.open(&name).await?;
    let at = section(15);
    let value = stamped(5, 1, b"value");
    asked(store.write(&[batch(at, &[(b"before", &value)])])).await?;
    engine.kill().await?;
    engine.restart().await?;
    let after = [batch(at, &[(b"after", &value)])];
    // The open store finds its server again by itself.
    eventually(BACK_LIMIT, || asked(store.write(&after))).await?;
    let expected = held(&[(b"before", &value), (b"after", &value)]);
    // A server that is back may be away once more for a moment.
    let found = eventually(BACK_LIMIT, || load_one(&*store, at)).await?;
    ensure!(found == expected, "by the store that was open");
    asked(store.close()).await?;
    let again = eventually(BACK_LIMIT, || engine.open(&name)).await?;
    let found = eventually(BACK_LIMIT, || load_one(&*again, at)).await?;
    ensure!(found == expected, "by one that was opened again");
    asked(again.close()).await?;
    Ok(())
}

async fn a_server_that_does_not_answer_is_away(engine: &mut dyn StoreEngine) -> Result<()> {
    let name = cache_name("suite", "frozen");
    let store = engine.open(&name).await?;
    let at = section(16);
    let value = stamped(5, 1, b"value");
    asked(store.write(&[batch(at, &[(b"id", &value)])])).await?;
    if engine.freeze().await? {
        let began = Instant::now();
        let sink = |_: Section, _: Record<'_>| ();
        let batches = [batch(at, &[(b"other", &value)])];
        let sections = [at];
        let (written, loaded) = tokio::join!(store.write(&batches), store.load(&sections, &sink));
        engine.thaw().await?;
        ensure!(began.elapsed() < ASKED_LIMIT, "took {:?}", began.elapsed());
        ensure!(matches!(written, Err(StoreError::Away(_))), "writing: {written:?}");
        ensure!(matches!(loaded, Err(StoreError::Away(_))), "loading: {loaded:?}");
        let again = [batch(at, &[(b"id", &value)])];
        eventually(BACK_LIMIT, || asked(store.write(&again))).await?;
        let found = eventually(BACK_LIMIT, || load_one(&*store, at)).await?;
        ensure!(found.contains_key(&b"id"[..]));
    }
    asked(store.close()).await?;
    Ok(())
}
