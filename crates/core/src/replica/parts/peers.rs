//! What this node knows of the others: whether they are alive, their position in their frame sequences, and their last
//! beat.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::cmp::Reverse;

use super::heartbeats::PRESENT_BEATS;
use super::index::{Index, Marks, Rank};
use super::lacking::{Asked, Doubt, Withheld};
use super::recordings::{Memory, Sent, Taken};
use super::seq_tracker::SeqTracker;
use super::status::PeerStatus;
use super::throttle::Budget;
use crate::cache::{Digest, Millis, NodeId, Time};
use crate::wire::{Beat, BeatState, Request};

/// Most peers kept at a time. More than that come from a broken or hostile client.
const MAX_PEERS: usize = 4_096;

/// Most nodes kept at a time that were not challenged yet. They may all be recordings, and keep no peer out. How many
/// wait for an answer is bounded by the number of challenges in a second.
const MAX_UNPROVEN: usize = 512;

/// With more nodes than this the index is not compared with them.
const MOST_CHECKED: usize = 64;

/// Nodes that did not prove to be alive and are still remembered, so that their recordings are known as such.
const MAX_UNANSWERED: usize = 16_384;

/// Requests of a node that has yet to prove that it is alive wait for that, so many and so many bytes of each node.
const MAX_PARKED: usize = 8;
const MAX_PARKED_BYTES: usize = 16 << 10;

/// A peer is gone after this many of its beat intervals without a word.
const MISSED_BEATS: u64 = 5;

/// Longest beat interval that is believed.
const MAX_INTERVAL_MS: Millis = 3_600_000;

/// How long a node that was heard may take to prove that it is alive.
const UNPROVEN_MS: Millis = 8_000;

/// A node of which only others have heard, and that has not answered by then, does not delay the first replay.
const PASSED_OVER_MS: Millis = 150;

/// How long the last frames of a node that leaves are waited for.
const LEAVING_MS: Millis = 1_500;

/// Between two challenges of one node.
pub(crate) const CHALLENGE_MS: Millis = 400;

/// From a challenge to the next one if the answer was that the other does not know this node. That one is about to: it
/// challenges this node as well. Doubles each time, up to the time above.
const FIRST_CHALLENGES_MS: Millis = 10;

/// Unanswered challenges of one node that are remembered.
const MAX_CHALLENGES: usize = 8;

/// Writers wait for confirmations for 10 minutes at most.
const LONGEST_WAIT_MS: Millis = 660_000;

/// Nodes that are gone and still remembered.
const MAX_GONE: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Peer {
    /// It has answered a challenge of this process: it is alive, and no recording.
    pub proven: bool,
    /// It has said that it counts this node as a peer.
    pub knows_us: bool,
    /// The latest challenges it has not answered: an answer may take longer than the time between two of them.
    challenges: VecDeque<u64>,
    /// When the last one was sent.
    challenged_at: Option<Millis>,
    /// When the next one may follow if that one was answered.
    challenge_after: Millis,
    /// How many it has not answered since it is known.
    unanswered: u32,
    /// The newest number it is known to have used.
    number: u64,
    /// Its newest challenge. Each counts once.
    hello: u64,
    /// Its clock when it was heard last, as far as that can be right.
    clock: Time,
    /// Its requests.
    pub requests: Taken,
    /// Requests that wait until it has proven to be alive.
    parked: Vec<Request>,
    parked_bytes: usize,
    /// How often it may be told again that a frame has arrived, and be sent frames again.
    pub repeats: Budget,
    pub resends: Budget,
    /// Signatures of it that may be checked.
    pub signatures: Budget,
    /// When to look whether it is silent.
    timer: Millis,
    /// It seals with another issuer's seed.
    pub other_issuer: bool,
    /// Its frames.
    pub frames: SeqTracker,
    /// Bytes of the largest of them, as far as commands are gathered to one: a single larger value says nothing of others.
    pub largest: usize,
    /// Which of this node's frames it has confirmed.
    pub confirmed: SeqTracker,
    /// What was refused here of what it holds.
    pub withheld: Option<Withheld>,
    doubt: Doubt,
    /// Since when frames are missing.
    pub gap_since: Option<Millis>,
    /// What was done about it.
    pub asked: Asked,
    /// Since when its digest differs although no frame is missing.
    pub differs_since: Option<Millis>,
    /// Whether it has forgotten deletions up to the same time as this node.
    pub floor_agrees: bool,
    pub host: String,
    pub release: String,
    /// A message of it has arrived. Else only others have named it.
    heard: bool,
    first_heard: Millis,
    /// Only what is no recording counts: a new beat, a new frame.
    last_heard: Millis,
    interval: Millis,
    pub beat: Option<Beat>,
    /// What its clock said in its newest beat, and when that reached this node; and the same if it is one that runs.
    beat_clock: Option<(Millis, Millis)>,
    said: Option<(Millis, Millis)>,
}

impl Peer {
    fn new(now: Millis) -> Self {
        Peer {
            proven: false,
            knows_us: false,
            challenges: VecDeque::new(),
            challenged_at: None,
            challenge_after: FIRST_CHALLENGES_MS,
            unanswered: 0,
            number: 0,
            hello: 0,
            clock: Time::default(),
            requests: Taken::default(),
            parked: Vec::new(),
            parked_bytes: 0,
            repeats: Budget::per_second(200, 400),
            resends: Budget::per_second(20, 20),
            signatures: Budget::per_second(2_000, 4_000),
            timer: 0,
            other_issuer: false,
            frames: SeqTracker::default(),
            largest: 0,
            confirmed: SeqTracker::default(),
            withheld: None,
            doubt: Doubt::default(),
            gap_since: None,
            asked: Asked::default(),
            differs_since: None,
            floor_agrees: false,
            host: String::new(),
            release: String::new(),
            heard: false,
            first_heard: now,
            last_heard: now,
            interval: UNPROVEN_MS,
            beat: None,
            beat_clock: None,
            said: None,
        }
    }

    pub fn synced(&self) -> bool {
        self.proven && self.beat.as_ref().is_some_and(|beat| beat.state == BeatState::Synced)
    }

    /// Whether it still has to be challenged: to prove that it is alive, or to tell that it knows this node.
    pub fn is_strange(&self) -> bool {
        !self.proven || !self.knows_us
    }

    /// From when on it does not delay the first replay, if nothing is heard of it.
    pub fn passed_over_at(&self) -> Option<Millis> {
        (!self.heard && self.challenged_at.is_some()).then_some(self.first_heard + PASSED_OVER_MS)
    }

    /// When the next challenge may go out.
    pub fn next_challenge(&self) -> Millis {
        let pause = match self.challenges.is_empty() {
            true => self.challenge_after,
            false => CHALLENGE_MS,
        };
        self.challenged_at.map_or(0, |at| at + pause)
    }

    /// A challenge of this number was sent.
    pub fn challenged(&mut self, number: u64, now: Millis) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.challenges.len() == MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back(number);
        self.challenged_at = Some(now);
    }

    /// Whether an answer to this number is one that was waited for. It counts once.
    pub fn answers(&mut self, number: u64) -> bool {
        let place = self.challenges.iter().position(|known| *known == number);
        place.and_then(|place| self.challenges.remove(place)).is_some()
    }

    /// Whether an answer to this number is waited for.
    pub fn expects(&self, number: u64) -> bool {
        self.challenges.contains(&number)
    }

    /// Whether a challenge of this number is one that was not taken before, nor made before one that was: a challenge
    /// counts once.
    pub fn challenges_anew(&self, number: u64) -> bool {
        number > self.hello
    }

    /// It has asked this node to prove that it is alive.
    pub fn asked_for_answer(&mut self, number: u64, knows_us: bool) {
        self.hello = number;
        // Else it does not count this node as a peer, or no longer.
        self.knows_us &= knows_us;
    }

    /// Keeps a request until this node has proven to be alive, if there is room.
    pub fn park(&mut self, request: Request, bytes: usize) {
        if self.parked.len() < MAX_PARKED && self.parked_bytes + bytes <= MAX_PARKED_BYTES {
            self.parked_bytes += bytes;
            self.parked.push(request);
        }
    }

    pub fn take_parked(&mut self) -> Vec<Request> {
        self.parked_bytes = 0;
        std::mem::take(&mut self.parked)
    }

    /// Takes a request. Returns whether it counts.
    pub fn takes_request(&mut self, number: u64) -> bool {
        self.requests.take(number)
    }

    /// It has answered a challenge, and said whether it knows this node.
    pub fn answered(&mut self, knows_us: bool) {
        self.knows_us = knows_us;
        self.unanswered = 0;
        self.challenge_after = match knows_us {
            true => CHALLENGE_MS,
            false => CHALLENGE_MS.min(2 * self.challenge_after),
        };
    }

    /// What was asked for, if this frame is part of it.
    pub fn asked_for(&self, seq: u64) -> Option<Asked> {
        (seq <= self.asked.newest).then_some(self.asked)
    }

    /// So many bytes of what was asked for have arrived.
    pub fn answered_in_part(&mut self, bytes: usize, now: Millis) {
        self.asked.arrived(bytes, now);
    }

    /// Takes note of a frame that had not arrived before. It reached this node at `heard`.
    pub fn arrived(&mut self, seq: u64, now: Millis, heard: Millis) {
        self.last_heard = self.last_heard.max(heard);
        if self.frames.arrived(seq) {
            self.asked.times = 0;
        }
        self.update_gap(now);
    }

    /// A frame is known to exist that cannot be taken.
    pub fn announced(&mut self, seq: u64, now: Millis) {
        self.frames.announced(seq);
        self.update_gap(now);
    }

    /// A frame has arrived of which something was refused, as `withheld` tells.
    pub fn arrived_in_vain(&mut self, seq: u64, withheld: Withheld, now: Millis, heard: Millis) {
        self.arrived(seq, now, heard);
        self.doubt.add(seq, now);
        let commands = self.withheld.map_or(0, |known| known.commands) + withheld.commands;
        self.withhold(Withheld { commands, ..withheld });
    }

    /// Something of what it holds was refused.
    pub fn withhold(&mut self, new: Withheld) {
        let known = self.withheld.get_or_insert(new);
        known.commands = known.commands.max(new.commands);
        known.from = known.from.min(new.from);
    }

    /// A comparison stands for all its frames up to `seq`, but something of it was refused.
    pub fn complete_in_vain(&mut self, seq: u64, now: Millis) {
        let next = self.frames.contiguous() + 1;
        if seq >= next {
            self.doubt.add_from(next, now);
            self.complete_to(seq, now);
        }
    }

    /// The effect of all its frames up to `seq` is here for certain. Returns whether that was in doubt.
    pub fn certain_to(&mut self, seq: u64) -> bool {
        let doubted = self.doubt.first().is_some_and(|first| first <= seq);
        self.doubt.end_to(seq, self.frames.contiguous());
        doubted
    }

    /// Whether something of it is missing here, or may be.
    pub fn is_lacking(&self) -> bool {
        self.frames.has_gap() || self.doubt.first().is_some()
    }

    /// Up to which frame everything of it has its effect here.
    pub fn effective(&self) -> u64 {
        let contiguous = self.frames.contiguous();
        self.doubt.first().map_or(contiguous, |first| contiguous.min(first - 1))
    }

    /// The same for those who wait to be told. Nobody waits for what was refused long ago, and the author remembers only
    /// so many confirmations beyond what it lacks.
    pub fn confirmed_to(&self, now: Millis) -> u64 {
        match now.saturating_sub(self.doubt.since()) < LONGEST_WAIT_MS {
            true => self.effective(),
            false => self.frames.contiguous(),
        }
    }

    /// Whether a frame has arrived, and nothing of it was refused.
    pub fn has_effect_of(&self, seq: u64) -> bool {
        self.frames.covers(seq, seq) && !self.doubt.is_about(seq)
    }

    pub fn is_leaving(&self) -> bool {
        self.beat.as_ref().is_some_and(|beat| beat.state == BeatState::Leaving)
    }

    /// Starts or stops the clock of a gap.
    fn update_gap(&mut self, now: Millis) {
        if self.frames.has_gap() {
            self.gap_since.get_or_insert(now);
        } else {
            self.gap_since = None;
            self.asked = Asked::default();
        }
    }

    /// The effect of all its frames up to `seq` is here.
    pub fn complete_to(&mut self, seq: u64, now: Millis) {
        let before = self.frames.contiguous();
        self.frames.complete_to(seq);
        // What the author no longer keeps is not asked for again because others do not have it either.
        if self.frames.contiguous() > before {
            self.gap_since = None;
            self.asked = Asked::default();
        }
        self.update_gap(now);
    }

    /// What its clock says by now, as far as is known.
    pub fn clock_at(&self, now: Millis) -> Option<Millis> {
        let (clock, heard) = self.said?;
        Some(clock.saturating_add(now.saturating_sub(heard)))
    }

    /// Until when it is certain that this peer is in contact.
    fn present_until(&self) -> Millis {
        self.last_heard + self.interval * PRESENT_BEATS
    }

    /// Its place among those that have yet to prove that they are alive: those that were not asked yet first, and among
    /// them those that spoke last. Recordings are older than what is alive, and do not answer.
    fn rank(&self) -> Rank {
        (self.unanswered, Reverse(self.clock))
    }

    fn marks(&self) -> Marks {
        Marks {
            proven: self.proven,
            synced: self.synced(),
            strange: self.is_strange(),
            unaware: self.proven && !self.knows_us,
            rank: (!self.proven && self.challenged_at.is_none()).then(|| self.rank()),
            challenged: (!self.proven && self.challenged_at.is_some()).then_some(Reverse(self.clock)),
            challenge_at: self.is_strange().then(|| self.next_challenge()),
            gap: self.proven && self.frames.has_gap(),
            differs: self.proven && self.differs_since.is_some(),
            withholds: self.proven && self.withheld.is_some(),
            other_issuer: self.proven && self.other_issuer,
            version: self.beat.as_ref().filter(|_| self.proven).map(|beat| beat.versions.1),
            present_until: self.proven.then(|| self.present_until()),
        }
    }

    fn deadline(&self) -> Millis {
        if self.is_leaving() {
            self.last_heard + LEAVING_MS
        } else if self.proven {
            self.last_heard + self.interval * MISSED_BEATS
        } else {
            self.first_heard + UNPROVEN_MS
        }
    }
}

/// All peers, by id.
#[derive(Debug)]
pub(crate) struct Peers {
    known: BTreeMap<NodeId, Peer>,
    /// Made of all that are known.
    index: Index,
    /// Peers that went.
    gone: Memory,
    /// Nodes that were heard and did not prove to be alive.
    unanswered: Memory,
    /// When to look at a peer whether it is silent; some entries are out of date.
    timers: BTreeSet<(Millis, NodeId)>,
}

impl Default for Peers {
    fn default() -> Self {
        Peers {
            known: BTreeMap::new(),
            index: Index::default(),
            gone: Memory::of(MAX_GONE),
            unanswered: Memory::of(MAX_UNANSWERED),
            timers: BTreeSet::new(),
        }
    }
}

impl Peers {
    /// A message of a node has arrived. Returns whether it has proven to be alive; `None` when it is not known, and either
    /// the message is a recording or there is no room for another node.
    pub fn heard(&mut self, node: NodeId, other_issuer: bool, sent: Sent, now: Millis) -> Option<bool> {
        if !self.known.contains_key(&node) && self.is_old(node, sent) {
            return None;
        }
        self.make_known(node, sent.clock, now);
        self.change(node, |peer| {
            peer.heard = true;
            peer.other_issuer = other_issuer;
            peer.number = peer.number.max(sent.number.unwrap_or_default());
            if !peer.proven {
                peer.clock = peer.clock.max(sent.clock);
            }
            peer.proven
        })
    }

    /// Whether a node that is not known was known before, and a message is no news of it.
    pub fn is_old(&self, node: NodeId, sent: Sent) -> bool {
        let before = [&self.gone, &self.unanswered]
            .into_iter()
            .filter_map(|memory| memory.get(node));
        let newest = before.map(|(_, newest)| newest).max();
        !sent.asked && newest.is_some_and(|newest| sent.number.is_none_or(|number| number <= newest))
    }

    /// Another one has named a node. It is known from now on, if there is room for another.
    pub fn named(&mut self, node: NodeId, clock: Time, now: Millis) {
        self.make_known(node, clock, now);
    }

    fn make_known(&mut self, node: NodeId, clock: Time, now: Millis) {
        if self.known.contains_key(&node) {
            return;
        }
        let mut peer = Peer::new(now);
        peer.clock = clock;
        peer.unanswered = self.unanswered.get(node).map_or(0, |_| 1);
        if self.index.unchallenged() >= MAX_UNPROVEN {
            match self.index.last_unchallenged() {
                Some((rank, last)) if rank > peer.rank() => {
                    self.remove(last, now);
                }
                _ => return,
            }
        }
        peer.timer = peer.deadline();
        self.timers.insert((peer.timer, node));
        self.index.update(node, Marks::default(), peer.marks());
        self.known.insert(node, peer);
    }

    /// A node has proven to be alive. Returns whether that is news. `None` when there is no room for another peer.
    pub fn prove(&mut self, node: NodeId) -> Option<bool> {
        if self.proven(node).is_none() && self.len() >= MAX_PEERS {
            return None;
        }
        let before = self.change(node, |peer| std::mem::replace(&mut peer.proven, true));
        let news = before == Some(false);
        if news {
            self.unanswered.forget(node);
        }
        Some(news)
    }

    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.known.get(&node)
    }

    /// A peer that has proven to be alive.
    pub fn proven(&self, node: NodeId) -> Option<&Peer> {
        self.get(node).filter(|peer| peer.proven)
    }

    /// Changes what is known of a node, if it is known. There is no other way to do so.
    pub fn change<R>(&mut self, node: NodeId, change: impl FnOnce(&mut Peer) -> R) -> Option<R> {
        let peer = self.known.get_mut(&node)?;
        let before = peer.marks();
        let result = change(peer);
        self.index.update(node, before, peer.marks());
        let deadline = peer.deadline();
        if deadline < peer.timer {
            self.timers.remove(&(peer.timer, node));
            peer.timer = deadline;
            self.timers.insert((deadline, node));
        }
        Some(result)
    }

    /// Whether the index says what a look at each peer says, as far as that is soon done.
    pub fn index_is_right(&self) -> bool {
        if self.known.len() > MOST_CHECKED {
            return true;
        }
        let mut index = Index::default();
        for (node, peer) in &self.known {
            index.update(*node, Marks::default(), peer.marks());
        }
        index == self.index
    }

    /// Takes note of the beat of a proven peer, which reached this node at `heard`. `own` and `floor` are this node's
    /// digest and floor. Returns false for a beat that is older than one before.
    pub fn beat(&mut self, node: NodeId, beat: Beat, (own, floor): (Digest, Time), now: Millis, heard: Millis) -> bool {
        let is_news = |last: &Peer| last.beat.as_ref().is_none_or(|last| beat.number > last.number);
        if !self.proven(node).is_some_and(is_news) {
            return false;
        }
        self.change(node, |peer| {
            peer.last_heard = peer.last_heard.max(heard);
            peer.requests.reached(beat.number, now);
            peer.interval = beat.interval_ms.clamp(1, MAX_INTERVAL_MS);
            if beat.digest == own {
                peer.complete_to(beat.seq, now);
                peer.differs_since = None;
                peer.certain_to(beat.seq);
                peer.withheld = peer.withheld.filter(|_| peer.doubt.first().is_some());
            } else {
                peer.frames.announced(beat.seq);
                peer.update_gap(now);
                let comparable = !peer.frames.has_gap() && beat.state == BeatState::Synced;
                peer.differs_since = comparable.then(|| peer.differs_since.unwrap_or(now));
                peer.floor_agrees = beat.floor == floor;
            }
            let clock = beat.clock.millis();
            // A hybrid clock that stands still is no wall clock: two nodes that were ahead together would believe each
            // other for ever.
            let runs = |(before, at): (Millis, Millis)| clock.saturating_sub(before) * 4 >= heard.saturating_sub(at);
            let goes_on = peer.beat_clock.is_none_or(runs);
            peer.beat_clock = Some((clock, heard));
            peer.said = peer.beat_clock.filter(|_| goes_on);
            peer.beat = Some(beat);
        });
        true
    }

    /// Forgets a peer. Returns whether it was known and something of it is missing here.
    pub fn remove(&mut self, node: NodeId, now: Millis) -> bool {
        let Some(peer) = self.known.remove(&node) else {
            return false;
        };
        self.index.update(node, peer.marks(), Marks::default());
        self.timers.remove(&(peer.timer, node));
        let number = peer.number.max(peer.hello);
        if peer.proven {
            self.gone.remember(node, now, number);
        } else if peer.unanswered > 0 {
            self.unanswered.remember(node, now, number);
        }
        peer.proven && peer.is_lacking()
    }

    /// Whether a node is here, or went less than `within` ago.
    pub fn may_return(&self, node: NodeId, within: Millis, now: Millis) -> bool {
        let recently = |(at, _): (Millis, u64)| now.saturating_sub(at) < within;
        self.known.contains_key(&node) || self.gone.get(node).is_some_and(recently)
    }

    /// Forgets those who went longer than `within` ago.
    pub fn forget_gone(&mut self, within: Millis, now: Millis) {
        if let Some(until) = now.checked_sub(within) {
            self.gone.forget_until(until);
            self.unanswered.forget_until(until);
        }
    }

    /// Peers that have been silent for too long, as far as all is taken in that arrived until `now`.
    pub fn silent(&mut self, now: Millis) -> Vec<NodeId> {
        let mut silent = Vec::new();
        while let Some((at, node)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, node));
            let Some(peer) = self.known.get_mut(&node) else {
                continue;
            };
            // It was heard since the timer was set. One that is silent is looked at again if it is not removed.
            peer.timer = peer.deadline();
            if peer.timer <= now {
                peer.timer = now + 1;
                silent.push(node);
            }
            self.timers.insert((peer.timer, node));
        }
        silent
    }

    /// This node did not listen for a while: silence until now means nothing. Nor does what waits to be taken in, which
    /// may be old: only the answer to a new challenge shows where a peer stands.
    pub fn pardon_silence(&mut self, now: Millis) {
        for (node, peer) in &mut self.known {
            let before = peer.marks();
            peer.last_heard = peer.last_heard.max(now);
            peer.first_heard = now;
            peer.knows_us = false;
            peer.challenges.clear();
            peer.challenge_after = FIRST_CHALLENGES_MS;
            self.index.update(*node, before, peer.marks());
        }
    }

    /// Peers that have proven to be alive.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.proven())
    }

    /// Those of them that are synced.
    pub fn synced(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.synced())
    }

    /// Those that were only heard as well.
    pub fn all(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.known.iter().map(|(node, peer)| (*node, peer))
    }

    /// Whether one that has proven to be alive does not count this node as a peer, as far as is known.
    pub fn any_unaware(&self) -> bool {
        self.index.any_unaware()
    }

    /// Those that have proven to be alive, do not count this node as a peer, and may be challenged by now.
    pub fn due_unaware(&self, now: Millis) -> Vec<NodeId> {
        self.index.due_unaware(now)
    }

    /// The one to be challenged first of those that have yet to prove that they are alive and may be challenged by now: one
    /// that was not challenged yet. Every other time it is the one that spoke last, even if it was challenged before: the
    /// answer may be lost.
    pub fn due_unproven(&self, now: Millis, number: u64) -> Option<NodeId> {
        let fresh = self.index.first_unchallenged();
        // Those that were challenged a moment ago are few.
        let due =
            |(_, node): &(Reverse<Time>, NodeId)| self.get(*node).is_some_and(|peer| peer.next_challenge() <= now);
        let again = || self.index.challenged().find(due);
        match fresh {
            Some(((_, clock), node)) if number % 2 == 1 => {
                let newer = again().filter(|(newest, _)| *newest < clock);
                Some(newer.map_or(node, |(_, node)| node))
            }
            Some((_, node)) => Some(node),
            None => again().map(|(_, node)| node),
        }
    }

    /// When the next challenge may follow: of those that have proven to be alive, and of the others.
    pub fn next_challenges(&self) -> (Option<Millis>, Option<Millis>) {
        self.index.next_challenges()
    }

    /// Those that still have to be challenged, proven or not.
    pub fn strange(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.strange())
    }

    /// Those that have proven to be alive and of which frames are missing.
    pub fn with_gaps(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.gaps())
    }

    /// Bytes of frames that were asked for and are still to come.
    pub fn under_way(&self) -> usize {
        self.with_gaps().map(|(_, peer)| peer.asked.outstanding()).sum()
    }

    /// Those that have proven to be alive and differ although no frame is missing.
    pub fn differing(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.differing())
    }

    /// Those that have proven to be alive and hold what was refused here.
    pub fn withholding(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.withholding())
    }

    fn of<'a>(&'a self, nodes: &'a BTreeSet<NodeId>) -> impl Iterator<Item = (NodeId, &'a Peer)> {
        nodes.iter().filter_map(|node| Some((*node, self.known.get(node)?)))
    }

    /// Those that do not know this node, or of which something is missing here.
    pub fn unsettled(&self) -> impl Iterator<Item = &Peer> {
        let known = self.with_gaps().filter(|(_, peer)| !peer.is_strange());
        self.strange().chain(known).map(|(_, peer)| peer)
    }

    /// Whether one that has proven to be alive seals with another issuer's seed.
    pub fn any_other_issuer(&self) -> bool {
        self.index.any_other_issuer()
    }

    /// The newest version that all speak that have proven to be alive.
    pub fn version(&self) -> Option<u8> {
        self.index.version()
    }

    /// Until when all that have proven to be alive are certain to be in contact.
    pub fn present_until(&self) -> Option<Millis> {
        self.index.present_until()
    }

    /// Whether no other node is known, proven or not.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn len(&self) -> usize {
        self.index.proven().len()
    }

    /// What the clocks of the peers say by now: half of all nodes and more, this one not among them, say the first time or
    /// an earlier one, and half and more the second or a later one. `None` if there is no peer.
    pub fn clocks(&self, now: Millis) -> Option<[Millis; 2]> {
        let mut clocks: Vec<Millis> = self.iter().filter_map(|(_, peer)| peer.clock_at(now)).collect();
        clocks.sort_unstable();
        let half = (clocks.len() + 1).div_ceil(2);
        let first = clocks.get(half - 1)?;
        Some([*first, *clocks.get(clocks.len() - half)?])
    }

    /// How the host of a peer is called, or the peer if that is not known.
    pub fn host(&self, node: NodeId) -> Option<String> {
        let peer = self.get(node)?;
        Some(match peer.host.as_str() {
            "" => node.to_string(),
            host => host.to_owned(),
        })
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        let known = |(node, peer): (NodeId, &Peer)| {
            peer.beat.as_ref().map(|beat| PeerStatus {
                node,
                host: peer.host.clone(),
                release: peer.release.clone(),
                keys: beat.keys,
                digest: beat.digest,
                synced: peer.synced(),
            })
        };
        self.iter().filter_map(known).collect()
    }
}
