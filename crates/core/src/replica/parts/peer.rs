//! What this node knows of another: whether it is alive, its position in its frame sequence, and its last heartbeat.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::heartbeats::PRESENT_HEARTBEATS;
use super::index::{Marks, Rank};
use super::lacking::{Asked, Doubt, Withheld};
use super::recordings::{Sent, Taken};
use super::seq_tracker::SeqTracker;
use super::throttle::Budget;
use crate::cache::{Digest, Millis, Time};
use crate::wire::{Heartbeat, HeartbeatState, Request};

/// Requests of a node that has yet to prove that it is alive wait for that, so many and so many bytes of each node.
const MAX_PARKED: usize = 8;
const MAX_PARKED_BYTES: usize = 16 << 10;

/// A peer is gone after this many of its heartbeat intervals without a word.
const MISSED_HEARTBEATS: u64 = 5;

/// Longest heartbeat interval that is believed.
const MAX_INTERVAL_MS: Millis = 3_600_000;

/// How long a node that was heard may take to prove that it is alive.
const UNPROVEN_MS: Millis = 8_000;

/// A node of which only others have heard, and that has not answered by then, does not delay the bootstrap.
const PASSED_OVER_MS: Millis = 150;

/// How long the last frames of a node that leaves are waited for.
const LEAVING_MS: Millis = 1_500;

/// Between two challenges of one node.
const CHALLENGE_MS: Millis = 400;

/// From a challenge to the next one if the answer was that the other does not know this node. That one is about to: it
/// challenges this node as well. Doubles each time, up to the time above.
const FIRST_CHALLENGES_MS: Millis = 10;

/// Unanswered challenges of one node that are remembered.
const MAX_CHALLENGES: usize = 8;

/// Writers wait for confirmations for 10 minutes at most.
const LONGEST_WAIT_MS: Millis = 660_000;

/// Another node, as far as this one knows it.
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
    /// When to look whether it is silent: its place among the timers.
    pub timer: Millis,
    /// It authenticates with another issuer's seed.
    pub other_issuer: bool,
    /// Its frames.
    pub frames: SeqTracker,
    /// Bytes of the largest of them, as far as deltas are gathered to one: a single larger value says nothing of others.
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
    /// Only what is no recording counts: a new heartbeat, a new frame.
    last_heard: Millis,
    interval: Millis,
    pub heartbeat: Option<Heartbeat>,
    /// What its clock said in its newest heartbeat, and when that reached this node; and the same if it is one that runs.
    heartbeat_clock: Option<(Millis, Millis)>,
    said: Option<(Millis, Millis)>,
}

impl Peer {
    /// One that is known from `now` on. Its clock was at least at `clock`. It may have left challenges unanswered before.
    pub fn new(clock: Time, unanswered: bool, now: Millis) -> Self {
        Peer {
            proven: false,
            knows_us: false,
            challenges: VecDeque::new(),
            challenged_at: None,
            challenge_after: FIRST_CHALLENGES_MS,
            unanswered: unanswered.into(),
            number: 0,
            hello: 0,
            clock,
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
            heartbeat: None,
            heartbeat_clock: None,
            said: None,
        }
    }

    pub fn synced(&self) -> bool {
        self.proven
            && self
                .heartbeat
                .as_ref()
                .is_some_and(|heartbeat| heartbeat.state == HeartbeatState::Synced)
    }

    /// Whether it still has to be challenged: to prove that it is alive, or to tell that it knows this node.
    pub fn is_unverified(&self) -> bool {
        !self.proven || !self.knows_us
    }

    /// From when on it does not delay the bootstrap, if nothing is heard of it.
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
        let deltas = self.withheld.map_or(0, |known| known.deltas) + withheld.deltas;
        self.withhold(Withheld { deltas, ..withheld });
    }

    /// Something of what it holds was refused.
    pub fn withhold(&mut self, new: Withheld) {
        let known = self.withheld.get_or_insert(new);
        known.deltas = known.deltas.max(new.deltas);
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
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.state == HeartbeatState::Leaving)
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
    pub fn present_until(&self) -> Millis {
        self.last_heard + self.interval * PRESENT_HEARTBEATS
    }

    /// How far it is with its frames, what it holds and what its clock says, as its newest heartbeat tells, which reached
    /// this node at `heard`. `own` and `floor` are this node's digest and floor.
    pub fn takes_heartbeat(&mut self, heartbeat: Heartbeat, (own, floor): (Digest, Time), now: Millis, heard: Millis) {
        self.last_heard = self.last_heard.max(heard);
        self.requests.reached(heartbeat.number, now);
        self.interval = heartbeat.interval_ms.clamp(1, MAX_INTERVAL_MS);
        if heartbeat.digest == own {
            self.complete_to(heartbeat.seq, now);
            self.differs_since = None;
            self.certain_to(heartbeat.seq);
            self.withheld = self.withheld.filter(|_| self.doubt.first().is_some());
        } else {
            self.frames.announced(heartbeat.seq);
            self.update_gap(now);
            let comparable = !self.frames.has_gap() && heartbeat.state == HeartbeatState::Synced;
            self.differs_since = comparable.then(|| self.differs_since.unwrap_or(now));
            self.floor_agrees = heartbeat.floor == floor;
        }
        let clock = heartbeat.clock.millis();
        // A hybrid clock that stands still is no wall clock: two nodes that were ahead together would believe each
        // other for ever.
        let runs = |(before, at): (Millis, Millis)| clock.saturating_sub(before) * 4 >= heard.saturating_sub(at);
        let goes_on = self.heartbeat_clock.is_none_or(runs);
        self.heartbeat_clock = Some((clock, heard));
        self.said = self.heartbeat_clock.filter(|_| goes_on);
        self.heartbeat = Some(heartbeat);
    }

    /// A message of it has arrived, which it had sent with this number and clock.
    pub fn heard(&mut self, other_issuer: bool, sent: Sent) {
        self.heard = true;
        self.other_issuer = other_issuer;
        self.number = self.number.max(sent.number.unwrap_or_default());
        if !self.proven {
            self.clock = self.clock.max(sent.clock);
        }
    }

    /// Silence until now means nothing, nor does what it has said of this node.
    pub fn restart_silence(&mut self, now: Millis) {
        self.last_heard = self.last_heard.max(now);
        self.first_heard = now;
        self.knows_us = false;
        self.challenges.clear();
        self.challenge_after = FIRST_CHALLENGES_MS;
    }

    /// The newest number it is known to have used.
    pub fn number(&self) -> u64 {
        self.number.max(self.hello)
    }

    /// Whether it was challenged and has not answered since.
    pub fn leaves_unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// Its place among those that have yet to prove that they are alive: those that were not asked yet first, and among
    /// them those that spoke last. Recordings are older than what is alive, and do not answer.
    pub fn rank(&self) -> Rank {
        (self.unanswered, Reverse(self.clock))
    }

    /// What the index has to know of it.
    pub fn marks(&self) -> Marks {
        Marks {
            proven: self.proven,
            synced: self.synced(),
            unverified: self.is_unverified(),
            unaware: self.proven && !self.knows_us,
            rank: (!self.proven && self.challenged_at.is_none()).then(|| self.rank()),
            challenged: (!self.proven && self.challenged_at.is_some()).then_some(Reverse(self.clock)),
            challenge_at: self.is_unverified().then(|| self.next_challenge()),
            gap: self.proven && self.frames.has_gap(),
            differs: self.proven && self.differs_since.is_some(),
            withholds: self.proven && self.withheld.is_some(),
            other_issuer: self.proven && self.other_issuer,
            version: self
                .heartbeat
                .as_ref()
                .filter(|_| self.proven)
                .map(|heartbeat| heartbeat.versions.1),
            present_until: self.proven.then(|| self.present_until()),
        }
    }

    /// When it counts as silent if nothing more is heard.
    pub fn deadline(&self) -> Millis {
        if self.is_leaving() {
            self.last_heard + LEAVING_MS
        } else if self.proven {
            self.last_heard + self.interval * MISSED_HEARTBEATS
        } else {
            self.first_heard + UNPROVEN_MS
        }
    }
}
