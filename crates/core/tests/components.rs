//! Components by name: comparing, exchanging and forgetting them; folding of counters.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kvcache_core::cache::{
    Blob, Cache, Component, Delta, Digest, Key, KeyHash, Limits, NodeId, Partition, Position, Slot, Span, StateDelta,
    Time, Value,
};
use proptest::prelude::*;
use proptest::sample::{Index, Selector};
use support::*;

fn all_components(cache: &Cache) -> Vec<Component> {
    Partition::all().flat_map(|p| cache.components(Span::of(p))).collect()
}

fn hashes(cache: &Cache) -> BTreeSet<u64> {
    all_components(cache).iter().map(|component| component.hash).collect()
}

fn digest_of(components: &[Component]) -> Digest {
    components.iter().map(|component| Digest(component.hash)).sum()
}

fn all_selected(cache: &Cache, mut wanted: impl FnMut(u64) -> bool) -> Vec<Delta> {
    let mut selected = Vec::new();
    for partition in Partition::all() {
        cache.select(Span::of(partition), &mut wanted, |delta| {
            selected.push(delta.to_owned())
        });
    }
    selected
}

/// The position just before another one, in the same partition.
fn before(position: Position) -> Position {
    match position.element {
        0 => Position {
            key: position.key - 1,
            element: u64::MAX,
        },
        element => Position {
            element: element - 1,
            ..position
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn hashes_of_components_add_up_to_the_digest(steps in steps(), cuts in any::<[Index; 2]>()) {
        let History { nodes, .. } = play(&steps);
        for node in &nodes {
            for partition in Partition::all() {
                let whole = Span::of(partition);
                let components = node.components(whole);
                prop_assert_eq!(digest_of(&components), node.digest(partition));
                prop_assert!(components.is_sorted());
                let deltas = all_deltas(node, partition);
                prop_assert_eq!(components.len(), deltas);
                let mut spans = vec![whole];
                for cut in cuts.iter().filter(|_| !components.is_empty()) {
                    let first = cut.get(&components).position;
                    let old = spans.pop().unwrap();
                    if let (Some(left), Some(right)) = (Span::new(old.first, before(first)), Span::new(first, old.last)) {
                        spans.extend([left, right]);
                    } else {
                        spans.push(old);
                    }
                }
                let parts: Vec<Component> = spans.iter().flat_map(|&span| node.components(span)).collect();
                prop_assert_eq!(parts, components, "spans that cover a partition hold all of it once");
            }
        }
    }

    #[test]
    fn a_component_keeps_its_position_when_it_is_written_again(steps in steps()) {
        let mut positions = HashMap::new();
        let mut slots = BTreeMap::new();
        let mut names = BTreeMap::new();
        let deltas = play(&steps).deltas;
        for delta in &deltas {
            let alone = cache(10);
            apply_all(&alone, [delta], START + 1_000_000);
            let [component] = all_components(&alone)[..] else { panic!("one delta is one component: {delta:?}") };
            prop_assert_eq!(component.position.element == 0, delta.slot() == Slot::Reset);
            let slot = (delta.key.clone(), delta.slot());
            let known = *positions.entry(slot.clone()).or_insert(component.position);
            prop_assert_eq!(known, component.position, "{:?}", delta);
            prop_assert_eq!(slots.entry(component.position).or_insert(slot.clone()), &slot);
            // A push and its repetition are one component; everything else has a stamp of its own.
            let name = (slot.0, format!("{:?}", slot.1), delta.newest());
            prop_assert_eq!(names.entry(component.hash).or_insert(name.clone()), &name);
        }
    }

    #[test]
    fn selecting_writes_out_exactly_what_is_wanted(steps in steps(), selector in any::<Selector>()) {
        let History { nodes, now, .. } = play(&steps);
        for node in &nodes {
            let components = all_components(node);
            let wanted: BTreeSet<u64> =
                components.iter().map(|c| c.hash).filter(|_| *selector.select(&[true, false])).collect();
            let mut written = BTreeSet::new();
            for delta in all_selected(node, |hash| wanted.contains(&hash)) {
                let alone = cache(10);
                apply_all(&alone, [&delta], now);
                written.extend(hashes(&alone));
            }
            prop_assert_eq!(&written, &wanted);
            for span in components.iter().map(|c| Span::new(c.position, c.position).unwrap()) {
                let mut selected = 0;
                node.select(span, |_| true, |_| selected += 1);
                prop_assert_eq!(selected, node.components(span).len());
            }
        }
    }

    #[test]
    fn exchanging_missing_components_makes_caches_equal(steps in steps(), swept in any::<[bool; 2]>()) {
        let History { nodes, now, .. } = play(&steps);
        let (a, b) = (&nodes[0], &nodes[1]);
        for (node, swept) in [a, b].into_iter().zip(swept) {
            if swept {
                node.sweep(1_024, now);
            }
        }
        let (held_by_a, held_by_b) = (hashes(a), hashes(b));
        let for_a = all_selected(b, |hash| !held_by_a.contains(&hash));
        let for_b = all_selected(a, |hash| !held_by_b.contains(&hash));
        prop_assert_eq!(for_a.len(), held_by_b.difference(&held_by_a).count());
        apply_all(a, &for_a, now);
        apply_all(b, &for_b, now);
        prop_assert_eq!(checked_digest(a), checked_digest(b));
        prop_assert_eq!(all_components(a), all_components(b));
        for key in keys() {
            prop_assert_eq!(seen(a, &key, now), seen(b, &key, now));
        }
    }

    #[test]
    fn forgetting_leaves_a_state_that_is_whole(
        steps in steps(), selector in any::<Selector>(), age in 0u64..3_000, cut in any::<Index>()
    ) {
        let History { nodes, now, .. } = play(&steps);
        let floor = Time::from_millis(now - age);
        for node in &nodes {
            let held = all_components(node);
            let to_remove: BTreeSet<u64> =
                held.iter().map(|c| c.hash).filter(|_| *selector.select(&[true, true, false])).collect();
            let old: BTreeSet<u64> = old_components(node, floor);
            let mut dropped = 0;
            for partition in Partition::all() {
                let whole = Span::of(partition);
                let inside = node.components(whole);
                let cut = if inside.is_empty() { whole.last } else { cut.get(&inside).position };
                let left = Span::new(whole.first, cut).unwrap();
                dropped += node.forget(left, floor, |hash| to_remove.contains(&hash), now);
                if let Some(right) = Span::new(Position { element: cut.element.wrapping_add(1), ..cut }, whole.last) {
                    dropped += node.forget(right, floor, |hash| to_remove.contains(&hash), now);
                }
            }
            let left = hashes(node);
            prop_assert_eq!(held.len() - dropped, left.len());
            for component in &held {
                let gone = !left.contains(&component.hash);
                prop_assert!(gone || !(to_remove.contains(&component.hash) && old.contains(&component.hash)));
            }
            // The digest, the number of keys and the state are those of a cache that never had the rest.
            let copy = cache(10);
            apply_all(&copy, &deltas(node), now);
            prop_assert_eq!(checked_digest(node), checked_digest(&copy));
            prop_assert_eq!(deltas(node), deltas(&copy));
            prop_assert_eq!((node.keys(), node.entries()), (copy.keys(), copy.entries()));
            for key in keys() {
                prop_assert_eq!(seen(node, &key, now), seen(&copy, &key, now));
            }
            // What was forgotten can come back, and is then as it was.
            apply_all(node, &deltas(&nodes[2]), now);
            apply_all(&copy, &deltas(&nodes[2]), now);
            prop_assert_eq!(checked_digest(node), checked_digest(&copy));
            prop_assert_eq!(deltas(node), deltas(&copy));
        }
    }
}

fn all_deltas(cache: &Cache, partition: Partition) -> usize {
    let mut count = 0;
    cache.deltas(partition, |_| count += 1);
    count
}

/// Hashes of the components whose newest stamp lies before `floor`.
fn old_components(cache: &Cache, floor: Time) -> BTreeSet<u64> {
    let mut old = BTreeSet::new();
    for component in all_components(cache) {
        for delta in all_selected(cache, |hash| hash == component.hash) {
            if delta.newest().time < floor {
                old.insert(component.hash);
            }
        }
    }
    old
}

#[test]
fn only_what_is_older_than_the_floor_is_forgotten() {
    let node = cache(1);
    let key = |name: &str| Key::shared(name.as_bytes());
    let (old, new) = (START, START + 1_000);
    for (name, at) in [("old", old), ("new", new)] {
        node.set(&key(name), "v", 0, at).unwrap();
        node.list_push(&key("list"), name, at).unwrap();
        node.set_add(&key("set"), name, at).unwrap();
        node.increment(&key(&format!("{name} counter")), 1, at).unwrap();
    }
    let floor = Time::from_millis(START + 500);
    let forget = |to_remove: bool| -> usize {
        Partition::all()
            .map(|p| node.forget(Span::of(p), floor, |_| to_remove, new))
            .sum()
    };
    assert_eq!(forget(false), 0);
    assert_eq!(forget(true), 4);
    assert_eq!(seen(&node, &key("old"), new), Seen::Nothing);
    assert_eq!(seen(&node, &key("new"), new), Seen::Scalar("v".into()));
    assert_eq!(seen(&node, &key("list"), new), Seen::List(vec!["new".into()]));
    assert_eq!(seen(&node, &key("set"), new), Seen::Set(vec!["new".into()]));
    assert_eq!(seen(&node, &key("old counter"), new), Seen::Nothing);
    assert_eq!(seen(&node, &key("new counter"), new), Seen::Scalar("1".into()));
    assert_eq!((node.keys(), node.entries()), (4, 4));
    checked_digest(&node);
}

#[test]
fn what_is_forgotten_decides_no_conflict_of_types() {
    let key = Key::shared(b"k");
    let floor = Time::from_millis(START + 1_000);
    let (push, add) = (
        |text: &str| Write::Push(text.into()),
        |text: &str| Write::Add(text.into()),
    );
    let cases = [
        ([push("a"), push("b"), add("c")], Seen::Set(vec!["c".into()])),
        ([add("a"), add("b"), push("c")], Seen::List(vec!["c".into()])),
    ];
    for ([first, second, other], shown) in cases {
        let node = cache(1);
        perform(&node, &key, &first, START).unwrap();
        let kept = hashes(&node);
        perform(&node, &key, &second, START + 20).unwrap();
        let span = Span::of(Partition::of(KeyHash::of(key.as_bytes())));
        assert_eq!(node.forget(span, floor, |hash| !kept.contains(&hash), START + 30), 1);
        // Newer than what is left, older than what was forgotten.
        let other = perform(&cache(2), &key, &other, START + 10).unwrap();
        apply_all(&node, &other, START + 30);
        assert_eq!(seen(&node, &key, START + 30), shown);
    }
}

#[test]
fn a_forgotten_reset_takes_the_entries_with_it_that_it_had_seen_in_part() {
    let (node, key) = (cache(1), Key::shared(b"k"));
    let (_, before) = node.increment(&key, 4, START).unwrap();
    let author = cache(2);
    apply_all(&author, [&before], START);
    let put = author.set(&key, "100", 0, START + 10).unwrap();
    node.increment(&key, 1, START + 20).unwrap();
    apply_all(&node, [&put], START + 20);
    assert_eq!(seen(&node, &key, START + 20), Seen::Scalar("101".into()));
    let floor = Time::from_millis(START + 15);
    let reset = hashes(&author);
    let span = Span::of(Partition::of(KeyHash::of(key.as_bytes())));
    assert_eq!(node.forget(span, floor, |hash| reset.contains(&hash), START + 30), 2);
    assert_eq!((seen(&node, &key, START + 30), node.entries()), (Seen::Nothing, 0));
}

/// A peer swept a deletion before an addition that builds upon it arrived. A node that takes its state from that peer
/// drops the deletion, and counts the addition as the peer does.
#[test]
fn what_was_added_on_a_forgotten_reset_goes_on_counting() {
    let key = Key::shared(b"counter");
    let span = Span::of(Partition::of(KeyHash::of(key.as_bytes())));
    let (floor, now) = (Time::from_millis(START + 500), START + 1_000);
    for reset in [
        Write::Delete,
        Write::Set {
            value: "100".into(),
            expires: 0,
        },
    ] {
        let (node, peer) = (cache(1), cache(2));
        perform(&node, &key, &reset, START).unwrap();
        let (_, addition) = node.increment(&key, 3, now).unwrap();
        apply_all(&peer, [&addition], now);
        for cache in [&node, &peer] {
            cache.raise_floor(floor);
        }
        let held = hashes(&peer);
        node.forget(span, floor, |hash| !held.contains(&hash), now);
        assert_eq!(checked_digest(&node), checked_digest(&peer));
        for cache in [&node, &peer] {
            assert_eq!(seen(cache, &key, now), Seen::Scalar("3".into()), "{reset:?}");
        }
        let (five, _) = node.increment(&key, 2, now).unwrap();
        assert_eq!(five, 5);
    }
}

/// What was added on a base of its own is not forgotten as long as there are later additions to it.
#[test]
fn a_counter_that_began_anew_before_the_floor_stays_while_it_is_added_to() {
    let (node, key) = (cache(1), Key::shared(b"counter"));
    let span = Span::of(Partition::of(KeyHash::of(key.as_bytes())));
    node.raise_floor(Time::from_millis(START - 1));
    for at in [0, 1_000] {
        node.increment(&key, 3, START + at).unwrap();
    }
    let forget = |before| node.forget(span, Time::from_millis(START + before), |_| true, START + 1_000);
    assert_eq!(forget(500), 0);
    assert_eq!(seen(&node, &key, START + 1_000), Seen::Scalar("6".into()));
    assert_eq!((forget(1_001), node.entries()), (1, 0));
}

#[test]
fn selecting_names_the_key_of_each_component() {
    let node = cache(1);
    for n in 0..3_000 {
        let key = Key::shared(format!("key{n}").as_bytes());
        node.set(&key, &*n.to_string(), 0, START).unwrap();
    }
    let copy = cache(2);
    apply_all(&copy, &all_selected(&node, |_| true), START);
    assert_eq!(deltas(&copy), deltas(&node));
}

/// A counter that a stale node went on adding to comes back neither in full nor in part, once the peers have reset it.
#[test]
fn a_counter_on_a_base_that_the_peers_replaced_is_forgotten_with_its_old_sum() {
    let (stale, peer) = (cache(1), cache(2));
    let key = Key::shared(b"counter");
    let (_, before) = stale.increment(&key, 100, START).unwrap();
    apply_all(&peer, [&before], START);
    // The peers fold or set the counter; the stale node adds after the floor to what it still holds.
    // Whoever folds has nothing left to name as seen.
    let folded = cache(3).set(&key, "100", 0, START + 10).unwrap();
    apply_all(&peer, [&folded], START + 10);
    let (_, after) = stale.increment(&key, 1, START + 1_000).unwrap();
    apply_all(&stale, [&folded, &after], START + 1_000);
    assert_eq!(
        seen(&stale, &key, START + 1_000),
        Seen::Scalar("201".into()),
        "what forgetting prevents"
    );
    let floor = Time::from_millis(START + 500);
    let held: BTreeSet<u64> = hashes(&peer);
    for partition in Partition::all() {
        stale.forget(Span::of(partition), floor, |hash| !held.contains(&hash), START + 1_000);
    }
    assert_eq!(seen(&stale, &key, START + 1_000), Seen::Scalar("100".into()));
    checked_digest(&stale);
}

// --- folding

/// What happens to a counter.
#[derive(Clone, Debug)]
enum Turn {
    Write { node: usize, write: Write, pause: u64 },
    Deliver { node: usize, write: Index, fold: Index },
    Fold { node: usize },
}

const NODES: usize = 5;

fn turns(writes: impl Strategy<Value = Write>, nodes: usize) -> impl Strategy<Value = Vec<Turn>> {
    let pause = prop_oneof![8 => 0u64..30, 1 => 500u64..2_500];
    let turn = prop_oneof![
        4 => (0..nodes, writes, pause).prop_map(|(node, write, pause)| Turn::Write { node, write, pause }),
        4 => (0..nodes, any::<Index>(), any::<Index>())
            .prop_map(|(node, write, fold)| Turn::Deliver { node, write, fold }),
        2 => (0..nodes).prop_map(|node| Turn::Fold { node }),
    ];
    prop::collection::vec(turn, 0..20)
}

fn increment() -> impl Strategy<Value = Write> {
    (-9i64..10).prop_map(Write::Increment)
}

fn counter_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        8 => increment(),
        1 => (-50i64..50, prop_oneof![2 => Just(0u32), 1 => 1u32..4])
            .prop_map(|(n, expires)| Write::Set { value: n.to_string(), expires }),
        1 => Just(Write::Delete),
    ]
}

/// Sums that can only grow, and no deadlines.
fn growing_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (0i64..10).prop_map(Write::Increment),
        1 => (-50i64..50).prop_map(|n| Write::Set { value: n.to_string(), expires: 0 }),
        1 => Just(Write::Delete),
    ]
}

/// One counter on several nodes, with or without folding.
struct Counter {
    nodes: Vec<Cache>,
    writes: Vec<Delta>,
    /// What clients added, and when.
    added: Vec<(Time, i64)>,
    folds: Vec<Delta>,
    now: u64,
    /// Of each node: whether it folds, and how many nodes may have added after its floor.
    folders: [Option<u64>; NODES],
    folding: bool,
}

impl Counter {
    /// Nodes below `forgetful` begin counters on bases of their own.
    fn new(folding: bool, forgetful: usize) -> Self {
        let nodes: Vec<Cache> = (1..=NODES as u64).map(cache).collect();
        for node in &nodes[..forgetful] {
            node.raise_floor(Time::from_millis(START - 1));
        }
        Counter {
            nodes,
            writes: Vec::new(),
            added: Vec::new(),
            folds: Vec::new(),
            now: START,
            folders: [None; NODES],
            folding,
        }
    }

    fn key() -> Key {
        Key::shared(b"counter")
    }

    fn play(&mut self, turns: &[Turn]) {
        for turn in turns {
            match turn {
                Turn::Write { node, write, pause } => {
                    self.now += pause;
                    let delta = perform(&self.nodes[*node], &Self::key(), write, self.now);
                    if let (Ok(Some(delta)), Write::Increment(amount)) = (&delta, write) {
                        self.added.push((delta.newest().time, *amount));
                    }
                    self.writes.extend(delta.ok().flatten());
                }
                Turn::Deliver { node, write, fold } => {
                    for (deltas, index) in [(&self.writes, write), (&self.folds, fold)] {
                        if !deltas.is_empty() {
                            apply_all(&self.nodes[*node], [index.get(deltas)], self.now);
                        }
                    }
                }
                Turn::Fold { node } => {
                    if let (true, Some(living)) = (self.folding, self.folders[*node]) {
                        self.fold(*node, living);
                    }
                }
            }
        }
    }

    fn fold(&mut self, node: usize, living: u64) {
        let cache = &self.nodes[node];
        let shown = |later| seen(cache, &Self::key(), self.now + later);
        let before = [0, 2_000, 10_000].map(shown);
        let span = Span::of(Partition::of(KeyHash::of(Self::key().as_bytes())));
        self.folds
            .extend(cache.fold(span.partition(), 1, self.now, |id| id.0 <= living));
        assert_eq!([0, 2_000, 10_000].map(shown), before, "a fold changes what is shown");
        checked_digest(cache);
    }

    /// All writes from before now arrive everywhere, folds only if so said; the floors of nodes up to `folder` rise to
    /// now, and nodes from `living` on have added for the last time.
    fn settle(&mut self, folder: usize, living: usize, folds_arrive: bool) {
        self.now += 1;
        for node in &self.nodes {
            apply_all(node, &self.writes, self.now);
            if folds_arrive {
                apply_all(node, &self.folds, self.now);
            }
        }
        for folder in 0..=folder {
            self.nodes[folder].raise_floor(Time::from_millis(self.now));
            self.folders[folder] = Some(living as u64);
        }
    }

    fn finish(&self, selector: Selector) {
        for node in &self.nodes {
            let mut order: Vec<&Delta> = self.writes.iter().chain(&self.folds).collect();
            while !order.is_empty() {
                let index = *selector.select(&(0..order.len()).collect::<Vec<_>>());
                apply_all(node, [order.swap_remove(index)], self.now);
            }
        }
        for node in &self.nodes[1..] {
            assert_eq!(checked_digest(node), checked_digest(&self.nodes[0]));
        }
        // What the next sweep drops is not written out; that depends on floor and clock.
        let floor = self.nodes.iter().map(Cache::floor).max().unwrap();
        for node in &self.nodes {
            node.raise_floor(floor);
            node.clock().observe(Time::from_millis(self.now));
            assert_eq!(deltas(node), deltas(&self.nodes[0]));
        }
    }

    fn shown(&self, later: u64) -> Vec<Seen> {
        self.nodes
            .iter()
            .map(|node| seen(node, &Self::key(), self.now + later))
            .collect()
    }
}

/// Three phases with a floor between them. At the first floor two nodes stop and node 0 begins to fold, at the second
/// another one stops and node 1 folds as well, perhaps without knowing of the folds of node 0.
type Phases = [Vec<Turn>; 3];

fn run(phases: &Phases, folds_arrive: bool, folding: bool, forgetful: usize, selector: Selector) -> Counter {
    let mut counter = Counter::new(folding, forgetful);
    counter.play(&phases[0]);
    counter.settle(0, 3, true);
    counter.play(&[Turn::Fold { node: 0 }]);
    counter.play(&phases[1]);
    counter.settle(1, 2, folds_arrive);
    counter.play(&[Turn::Fold { node: 1 }, Turn::Fold { node: 0 }]);
    counter.play(&phases[2]);
    counter.finish(selector);
    counter
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn folding_never_changes_what_a_counter_shows(
        first in turns(counter_write(), 5), second in turns(increment(), 3), third in turns(increment(), 2),
        folds_arrive in any::<bool>(), forgetful in 0..=NODES, selector in any::<Selector>(),
    ) {
        let phases = [first, second, third];
        let folded = run(&phases, folds_arrive, true, forgetful, selector.clone());
        let plain = run(&phases, folds_arrive, false, forgetful, selector);
        for later in [0, 2_000, 10_000] {
            prop_assert_eq!(folded.shown(later), plain.shown(later));
        }
    }

    #[test]
    fn folds_among_resets_lose_no_increment(
        first in turns(growing_write(), 5), second in turns(growing_write(), 3), third in turns(growing_write(), 2),
        folds_arrive in any::<bool>(), forgetful in 0..=NODES, selector in any::<Selector>(),
    ) {
        let counter = run(&[first, second, third], folds_arrive, true, forgetful, selector);
        let reset = counter.writes.iter().filter(|c| c.slot() == Slot::Reset).max_by_key(|c| c.newest());
        let (start, since) = match reset.map(|delta| &delta.change) {
            Some(StateDelta::Put { at, value: Value::Held(value), .. }) => (std::str::from_utf8(value).unwrap().parse().unwrap(), at.time),
            Some(StateDelta::Delete { at, .. }) => (0, at.time),
            _ => (0, Time::default()),
        };
        let owed: i64 = counter.added.iter().filter(|(at, _)| *at > since).fold(start, |sum, (_, amount)| sum + amount);
        if let Seen::Scalar(text) = &counter.shown(0)[0] {
            let total: i64 = std::str::from_utf8(text).unwrap().parse().unwrap();
            prop_assert!(total >= owed, "{} although {} are owed", total, owed);
        }
    }

    #[test]
    fn folds_among_writes_of_any_kind_converge(
        first in turns(write(), 5), second in turns(write(), 3), third in turns(write(), 2),
        folds_arrive in any::<bool>(), forgetful in 0..=NODES, selector in any::<Selector>(),
    ) {
        run(&[first, second, third], folds_arrive, true, forgetful, selector);
    }
}

#[test]
fn two_folds_at_different_floors_show_the_same_total_and_the_newer_one_stays() {
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    let nodes: Vec<Cache> = (1..=5).map(cache).collect();
    let share = |deltas: &[Delta]| nodes.iter().for_each(|node| apply_all(node, deltas, START + 500));
    // Node 4 stops early, node 5 later; nodes 1 to 3 go on.
    for (node, at) in [(3, 0), (0, 10), (4, 20), (1, 30), (4, 40), (2, 50)] {
        share(&[nodes[node].increment(&key, 1 << node, START + at).unwrap().1]);
    }
    nodes[0].raise_floor(Time::from_millis(START + 5));
    nodes[1].raise_floor(Time::from_millis(START + 45));
    let early = nodes[0].fold(partition, 1, START + 100, |node| node != NodeId(4));
    let late = nodes[1].fold(partition, 1, START + 100, |node| node.0 < 4);
    assert_eq!((early.len(), late.len()), (1, 1));
    assert!(late[0].supersedes(&early[0]) && !early[0].supersedes(&late[0]));
    // An increment by one that has seen only the first, one by one that has seen none.
    let (_, on_early) = nodes[0].increment(&key, 100, START + 110).unwrap();
    let (_, on_none) = nodes[2].increment(&key, 1_000, START + 120).unwrap();
    let total = Seen::Scalar((1 + 2 + 4 + 8 + 16 + 16 + 1_100).to_string().into());
    let all = [&early[0], &late[0], &on_early, &on_none];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 3, 1], [1, 2, 3, 0]] {
        let node = cache(10);
        apply_all(&node, &deltas(&nodes[4]), START + 200);
        apply_all(&node, order.map(|n| all[n]), START + 200);
        assert_eq!(seen(&node, &key, START + 200), total);
    }
    for node in &nodes {
        apply_all(node, all, START + 200);
        assert_eq!(seen(node, &key, START + 200), total);
        assert_eq!(checked_digest(node), checked_digest(&nodes[0]));
    }
}

#[test]
fn a_node_that_missed_two_folds_is_not_counted_twice() {
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    let (folder, late) = (cache(1), cache(2));
    let mut before = vec![late.increment(&key, 4, START).unwrap().1];
    for (dead, at) in [(3, 10), (4, 1_000)] {
        let process = cache(dead);
        apply_all(&process, &deltas(&folder), START + at);
        before.push(process.increment(&key, 1, START + at).unwrap().1);
        apply_all(&folder, &before, START + at);
        folder.raise_floor(Time::from_millis(START + at + 1));
        assert_eq!(
            folder
                .fold(partition, 1, START + at + 1, |node| node == NodeId(2))
                .len(),
            1
        );
    }
    assert_eq!(seen(&folder, &key, START + 2_000), Seen::Scalar("6".into()));
    // It goes on adding to its entry of before both folds.
    let (_, more) = late.increment(&key, 10, START + 2_000).unwrap();
    apply_all(&folder, [&more], START + 2_000);
    assert_eq!(seen(&folder, &key, START + 2_000), Seen::Scalar("16".into()));
    apply_all(&late, &deltas(&folder), START + 2_000);
    assert_eq!(seen(&late, &key, START + 2_000), Seen::Scalar("16".into()));
}

#[test]
fn an_addition_from_before_a_fold_that_arrives_after_two_counts_once() {
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    let (folder, late, first, second) = (cache(1), cache(2), cache(3), cache(4));
    let fold = |at| {
        folder.raise_floor(Time::from_millis(START + at));
        folder.fold(partition, 1, START + at, |node| node == NodeId(2))
    };
    let add = |node: &Cache, amount, at| node.increment(&key, amount, START + at).unwrap().1;
    apply_all(&folder, &[add(&late, 4, 0), add(&first, 1, 10)], START + 10);
    let folds = fold(11);
    let delayed = add(&late, 10, 20);
    apply_all(&late, &folds, START + 30);
    apply_all(&second, &folds, START + 15);
    apply_all(&folder, &[add(&second, 1, 15), add(&late, 100, 30)], START + 30);
    assert_eq!(fold(16).len(), 1);
    apply_all(&folder, [&delayed], START + 40);
    assert_eq!(seen(&folder, &key, START + 40), Seen::Scalar("116".into()));
}

#[test]
fn what_shows_no_number_is_left_alone() {
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    let fold = |node: &Cache, at_least| {
        node.raise_floor(Time::from_millis(START + 1_000_000));
        node.fold(partition, at_least, START + 1_000_000, |_| false)
    };
    let counted = |node: &Cache| {
        for other in 2..5 {
            let (_, add) = cache(other).increment(&key, 1, START + other).unwrap();
            apply_all(node, [&add], START);
        }
    };
    let node = cache(1);
    counted(&node);
    assert!(fold(&node, 4).is_empty(), "too few");
    assert!(node.fold(partition, 1, START, |_| true).is_empty(), "none is gone");
    assert_eq!(fold(&node, 3).len(), 1);
    assert!(fold(&node, 0).is_empty(), "nothing left");
    assert_eq!(seen(&node, &key, START), Seen::Scalar("3".into()));

    // A text that won over additions which its author had not seen, and a sum beyond i64.
    for (value, at) in [("text", START), ("9223372036854775806", START)] {
        let (author, node) = (cache(9), cache(1));
        let put = author.set(&key, value, 0, at).unwrap();
        apply_all(&node, [&put], START);
        counted(&node);
        let before = seen(&node, &key, START);
        assert!(fold(&node, 1).is_empty());
        assert_eq!(seen(&node, &key, START), before);
    }
    // Additions on a reset that has not arrived.
    let (author, node) = (cache(9), cache(1));
    let put = author.set(&key, "5", 0, START).unwrap();
    let (_, add) = author.increment(&key, 1, START + 1).unwrap();
    apply_all(&node, [&add], START);
    counted(&node);
    assert!(fold(&node, 1).is_empty());
    apply_all(&node, [&put], START);
    assert_eq!(seen(&node, &key, START), Seen::Scalar("9".into()));
    // This process itself is not gone.
    let node = cache(1);
    node.increment(&key, 1, START).unwrap();
    assert!(fold(&node, 1).is_empty());
}

#[test]
fn a_counter_that_outlived_its_deadline_is_folded_from_there() {
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    let nodes: Vec<Cache> = (1..=3).map(cache).collect();
    let mut all = vec![nodes[0].set(&key, "100", 5, START).unwrap()];
    for (at, amount) in [(10, 1), (20, 2), (6_000, 4), (6_010, 8)] {
        for node in &nodes {
            apply_all(node, &all, START + at);
        }
        all.push(nodes[1].increment(&key, amount, START + at).unwrap().1);
    }
    apply_all(&nodes[0], &all, START + 6_020);
    nodes[0].raise_floor(Time::from_millis(START + 15));
    assert!(
        nodes[0].fold(partition, 1, START + 6_020, |_| false).is_empty(),
        "no entry from before the floor counts"
    );
    nodes[0].raise_floor(Time::from_millis(START + 6_020));
    let folds = nodes[0].fold(partition, 1, START + 6_020, |_| false);
    let [Delta {
        change:
            StateDelta::Put {
                value: Value::Held(value),
                expires_at: None,
                seen: none,
                ..
            },
        ..
    }] = &folds[..]
    else {
        panic!("{folds:?}")
    };
    assert_eq!((&value[..], none.len()), (&b"12"[..], 0));
    all.extend(folds);
    apply_all(&nodes[2], &all, START + 6_020);
    for node in [&nodes[0], &nodes[2]] {
        assert_eq!(seen(node, &key, START + 60_000), Seen::Scalar("12".into()));
    }
    assert_eq!(checked_digest(&nodes[0]), checked_digest(&nodes[2]));
}

#[test]
fn ten_thousand_restarts_do_not_make_a_counter_grow() {
    const AT_LEAST: usize = 16;
    let key = Counter::key();
    let partition = Partition::of(KeyHash::of(key.as_bytes()));
    // Two processes that stay, and one that restarts all the time.
    let staying = [cache(1), cache(2)];
    let mut now = START;
    let mut total = 0;
    let (mut most, mut longest) = (0, 0);
    for restart in 0..10_000u64 {
        let process = Cache::new(NodeId(100 + restart), Limits::default());
        apply_all(&process, &deltas_of(&staying[0], partition), now);
        now += 10;
        let mut additions = vec![process.increment(&key, 1, now).unwrap().1];
        total += 1;
        // One goes on all the time, the other hardly ever.
        for (node, every) in staying.iter().zip([3, 1_000]) {
            if restart % every == 0 {
                additions.push(node.increment(&key, 1, now).unwrap().1);
                total += 1;
            }
        }
        for node in &staying {
            apply_all(node, &additions, now);
            node.raise_floor(Time::from_millis(now - 100));
        }
        let folder = &staying[(restart % 2) as usize];
        let folds = folder.fold(partition, AT_LEAST, now, |node| {
            node.0 + 12 > 100 + restart || node.0 < 3
        });
        staying.iter().for_each(|node| apply_all(node, &folds, now));
        let of_counter = deltas_of(&staying[0], partition);
        most = most.max(of_counter.len());
        for delta in &of_counter {
            if let StateDelta::Put { seen, .. } = &delta.change {
                longest = longest.max(seen.len());
            }
        }
    }
    for node in &staying {
        assert_eq!(seen(node, &key, now), Seen::Scalar(total.to_string().into()));
        checked_digest(node);
    }
    assert_eq!(checked_digest(&staying[0]), checked_digest(&staying[1]));
    // The reset, fewer than AT_LEAST that could be folded, 12 that stopped only just now, the two that stay with what
    // they added on two bases.
    assert!(most <= 1 + (AT_LEAST - 1) + 12 + 4, "{most} components");
    assert!(longest <= 12 + 6, "{longest} entries in what a reset has seen");
}

fn deltas_of(cache: &Cache, partition: Partition) -> Vec<Delta> {
    let mut deltas = Vec::new();
    cache.deltas(partition, |delta| deltas.push(delta.to_owned()));
    deltas
}

/// Long runs of deltas for one partition are merged under one lock, but not all at once.
#[test]
fn a_batch_for_one_partition_is_its_deltas_one_by_one() {
    let author = Cache::new(NodeId(1), Limits::default());
    let wanted = Partition(5);
    let keys = (0u32..)
        .map(|number| Key::shared(&number.to_be_bytes()))
        .filter(|key| Partition::of(KeyHash::of(key.as_bytes())) == wanted);
    let mut deltas = Vec::new();
    for (number, key) in keys.take(600).enumerate() {
        let value = Blob::from(&*number.to_string());
        deltas.push(author.set(&key, value, 0, START).expect("a small value"));
        // In the middle of the run, something that is already there, and something that is refused.
        deltas.push(deltas[3 * (number / 2)].clone());
        let mut early = deltas[0].clone();
        if let StateDelta::Put { at, .. } = &mut early.change {
            at.time = Time::from_millis(START + 3_600_000);
        }
        deltas.push(early);
    }
    let (batch, single) = (
        Cache::new(NodeId(2), Limits::default()),
        Cache::new(NodeId(3), Limits::default()),
    );
    let mut answers = Vec::new();
    batch.apply_all(&deltas, START, |answer| answers.push(answer));
    let expected: Vec<_> = deltas.iter().map(|delta| single.apply(delta, START)).collect();
    assert_eq!(answers, expected);
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 600);
    assert_eq!(checked_digest(&batch), checked_digest(&author));
    assert_eq!(checked_digest(&single), checked_digest(&author));
}

/// One entry of a counter is an i64 like the number itself, but a number that begins near one end can be counted to the
/// other.
#[test]
fn a_number_is_counted_from_one_end_of_i64_to_the_other_on_every_node() {
    let (author, peer) = (cache(1), cache(2));
    let key = Key::shared(b"wide");
    let mut deltas = vec![author
        .set(&key, bytes::Bytes::from(i64::MAX.to_string()), 0, START)
        .unwrap()];
    for (amount, expected) in [
        (i64::MIN, -1),
        (-i64::MAX, i64::MIN),
        (i64::MAX, -1),
        (i64::MAX, i64::MAX - 1),
    ] {
        let (sum, delta) = author.increment(&key, amount, START).unwrap();
        assert_eq!(sum, expected, "after an increment by {amount}");
        deltas.push(delta);
    }
    assert!(author.increment(&key, 2, START).is_err());
    assert!(author.increment_within(&key, -1, -5..=5, START).is_err());
    for delta in deltas.iter().rev() {
        peer.apply(delta, START).unwrap();
    }
    assert_eq!(peer.root_digest(), author.root_digest());
    let shown = Ok(Some((i64::MAX - 1).to_string().into()));
    assert_eq!((peer.get(&key, START), author.get(&key, START)), (shown.clone(), shown));
    assert_eq!(peer.increment(&key, -1, START).unwrap().0, i64::MAX - 2);
}
