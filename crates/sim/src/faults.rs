//! What goes wrong, and how it ends.

use std::collections::VecDeque;

use kvcache_core::cache::Millis;
use kvcache_core::replica::{Input, Replica, Start};
use rand::RngExt;

use crate::event::{End, Event};
use crate::node::{replica_config, Pause, Refusals};
use crate::scenario::{spread, Fault};
use crate::world::World;

/// Who is away from whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// This node from all others.
    Node(usize),
    /// A node from all others, or two from each other.
    One,
    /// Groups of several from each other, or three and more each from all others. For longer than deletions are
    /// remembered, deleted keys may come back (docs/GUARANTEES.md, "Deletions and long absence").
    Several,
}

/// With deletions that are forgotten soon, absences are this part of that time, and have this much rest between them.
const ABSENCE_PART: Millis = 8;
const REST_MS: Millis = 10_000;

impl World {
    pub(crate) fn end_at(&mut self, time: Millis, end: End) {
        let epoch = self.epoch;
        self.at(time, Event::End { epoch, end });
    }

    pub(crate) fn end_after(&mut self, duration: Millis, end: End) {
        self.end_at(self.now + duration, end);
    }

    /// Something goes wrong.
    pub(crate) fn fault(&mut self) {
        if self.now >= self.rest_until {
            let fault = self.scenario.faults[self.rng.random_range(0..self.scenario.faults.len())];
            let node = self.rng.random_range(0..self.nodes.len());
            self.go_wrong(fault, node);
        }
        let next = self.now + self.rng.random_range(100..=self.scenario.fault_gap_ms);
        self.at(next, Event::Fault);
    }

    fn go_wrong(&mut self, fault: Fault, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        match fault {
            Fault::Crash => {
                self.tell(|| format!("node {node} crashes"));
                self.outcome.crashes += 1;
                self.restart(node);
            }
            Fault::CrashAll => self.power_fails(),
            Fault::CrashSome => {
                for node in 0..self.nodes.len() {
                    if self.rng.random_bool(0.6) {
                        self.dies(node);
                    }
                }
            }
            Fault::StoreDown => self.store_goes(node, false),
            Fault::StoreCrash => self.store_goes(node, true),
            Fault::Leave => self.leave(node),
            Fault::Handover => self.hand_over(node),
            Fault::Cut => self.cut(node),
            Fault::ServerDown => self.server_goes(),
            Fault::RangeSplit => self.fall_apart(),
            Fault::OneWay => self.go_deaf(),
            Fault::Pause => self.pause(node),
            Fault::ClockJump => {
                self.outcome.clock_jumps += 1;
                self.nodes[node].skew = self.random_skew();
                self.tell(|| format!("the clock of node {node} jumps and is {} ms off", self.nodes[node].skew));
            }
            Fault::SlowConsumer => {
                let duration = self.absence(node, 50, 2_000);
                self.tell(|| format!("messages to node {node} are dropped for {duration} ms"));
                self.nodes[node].slow = true;
                let life = self.nodes[node].life;
                self.end_after(duration, End::Slow { node, life });
            }
            Fault::FalseAlarm => {
                if self.nodes[node].active() && self.nodes[node].told {
                    self.tell(|| format!("node {node} hears that messages were dropped, but none was"));
                    self.input(node, Input::MessagesLost);
                }
            }
            Fault::Refusal => self.refuse(node),
            Fault::Recordings => self.send_recordings(node),
            Fault::ForgedNotices => self.forge_notices(node),
            Fault::FarClock => {
                let (far, life) = (self.scenario.far_ms as i64, self.nodes[node].life);
                self.outcome.clock_jumps += 1;
                self.nodes[node].skew = if self.rng.random_bool(0.7) { far } else { -far };
                let duration = spread(&mut self.rng, 500, 20_000);
                self.tell(|| {
                    format!(
                        "the clock of node {node} is {} ms off for {duration} ms",
                        self.nodes[node].skew
                    )
                });
                self.end_after(duration, End::FarClock { node, life });
            }
        }
    }

    /// The server refuses a node some of what replication needs: all of it, or one thing, or some.
    fn refuse(&mut self, node: usize) {
        if self.nodes[node].refused != Refusals::default() {
            return;
        }
        let duration = self.absence(node, 200, 20_000);
        let mut refused = Refusals::default();
        // Who hears some messages of others and no heartbeats is out of contact all the same.
        let all = self.scenario.tombstone_ttl_ms.is_some();
        match self.rng.random_range(0..4) {
            _ if all => (refused.publish, refused.subscribe) = ([true; 4], [true; 4]),
            0 => (refused.publish, refused.subscribe) = ([true; 4], [true; 4]),
            1 => refused.publish[self.rng.random_range(0..4)] = true,
            2 => refused.subscribe[self.rng.random_range(0..4)] = true,
            _ => {
                refused.publish = refused.publish.map(|_| self.rng.random_bool(0.5));
                refused.subscribe = refused.subscribe.map(|_| self.rng.random_bool(0.5));
            }
        }
        self.tell(|| format!("for {duration} ms the server refuses node {node} {refused:?}"));
        self.outcome.refusals += 1;
        self.nodes[node].refused = refused;
        self.take_subscriptions(node);
        let life = self.nodes[node].life;
        self.end_after(duration, End::Refusal { node, life });
    }

    /// For how long a node is away from all others.
    fn absence(&mut self, node: usize, shortest: Millis, longest: Millis) -> Millis {
        self.absence_of(Apart::Node(node), shortest, longest)
    }

    /// For how long nodes are away from others. Where deletions are forgotten while the run lasts, that is short and
    /// has rest after it, unless the scenario wants it otherwise.
    fn absence_of(&mut self, apart: Apart, shortest: Millis, longest: Millis) -> Millis {
        let drawn = spread(&mut self.rng, shortest, longest);
        let Some(ttl) = self.scenario.tombstone_ttl_ms else {
            return drawn;
        };
        let long = self.scenario.long_absences && self.rng.random_bool(0.3);
        let may_be_long = match apart {
            Apart::Node(node) => self.may_be_away_for_long(Some(node)),
            Apart::One => self.may_be_away_for_long(None),
            Apart::Several => false,
        };
        let absence = if long && may_be_long {
            spread(&mut self.rng, ttl, ttl * 2)
        } else {
            drawn.min(ttl / ABSENCE_PART)
        };
        self.rest_until = self.now + absence + REST_MS;
        absence
    }

    /// All processes die at once.
    pub(crate) fn power_fails(&mut self) {
        self.tell(|| "all processes die".into());
        self.outcome.power_cuts += 1;
        for node in 0..self.nodes.len() {
            self.dies(node);
        }
    }

    /// A process dies, and another starts in its place. One that reads its store may die as well.
    fn dies(&mut self, node: usize) {
        let it = &self.nodes[node];
        let is_there = it.up || it.keeping.as_ref().is_some_and(|keeping| keeping.started);
        if is_there && !it.gone {
            self.tell(|| format!("node {node} dies"));
            self.outcome.crashes += 1;
            self.restart(node);
        }
    }

    /// A store cannot be reached for a while. It may lose what it has not synced.
    fn store_goes(&mut self, node: usize, loses: bool) {
        if self.engines.is_empty() {
            return;
        }
        let engine = self.engine_of(node);
        if self.engines[engine].down {
            return;
        }
        let longest = self.scenario.tombstone_ttl_ms.map_or(40_000, |ttl| ttl * 2);
        let duration = spread(&mut self.rng, 50, longest);
        self.tell(|| {
            format!(
                "store {engine} is away for {duration} ms{}",
                if loses { ", and loses its power" } else { "" }
            )
        });
        self.outcome.store_faults += 1;
        if loses {
            self.engines[engine].crash(&mut self.rng);
            self.forget_unsynced();
        } else {
            self.engines[engine].goes(&mut self.rng);
        }
        self.end_after(duration, End::StoreDown { engine });
    }

    /// Puts a process that has not been started in the place of another.
    fn restart(&mut self, node: usize) {
        if !self.engines.is_empty() {
            self.abandon_store(node);
            self.close_books(node);
        }
        self.nodes[node] = self.fresh_node();
        let down = if self.rng.random_bool(0.5) {
            0
        } else {
            self.absence(node, 10, 4_000)
        };
        self.end_after(down, End::Down { node });
    }

    fn leave(&mut self, node: usize) {
        if !self.nodes[node].active() {
            return;
        }
        self.tell(|| format!("node {node} leaves"));
        self.outcome.leaves += 1;
        self.flush(node);
        // When all are complete, itself included, and nothing at all is lost in this run, what it wrote outlives it.
        // What it wrote while its clock was far ahead nobody has taken yet, and then nobody ever will. Before they have
        // heard some heartbeats of each other, a frame may have overtaken the answer that proves its author, and was
        // not taken.
        let acquaintance = 3 * self.scenario.heartbeat_interval_ms + 4 * self.scenario.max_delay_ms;
        let handed_on = self.living().all(|place| {
            let there = &self.nodes[place];
            let synced = self.has_joined(place);
            there.active() && synced && self.now - there.began >= acquaintance
        });
        self.input(node, Input::Leaving);
        if handed_on && self.nodes[node].told && self.scenario.far_ms == 0 {
            let acknowledged = std::mem::take(&mut self.nodes[node].acknowledged);
            self.departed.push(acknowledged);
        }
        // With the last process at a place its store would be gone.
        if self.engines.is_empty() && self.living().count() > 2 && self.rng.random_bool(0.2) {
            self.tell(|| format!("no other process takes the place of node {node}"));
            self.nodes[node] = self.fresh_node();
            self.nodes[node].gone = true;
        } else {
            self.restart(node);
        }
    }

    fn hand_over(&mut self, node: usize) {
        if !self.nodes[node].active() {
            return;
        }
        self.tell(|| format!("the replica of node {node} hands over to another"));
        self.outcome.handovers += 1;
        self.flush(node);
        self.input(node, Input::Leaving);
        let config = replica_config(&self.scenario, self.nodes[node].life);
        let it = &mut self.nodes[node];
        it.replica = Replica::new(it.cache.clone(), config, Start::Handover(it.replica.handover()));
        (it.session, it.told, it.answers) = (None, false, false);
        let life = it.life;
        it.replica_since = self.now;
        self.is_out_of_touch(node);
        let connects = self.absence(node, 1, 200);
        self.end_after(connects, End::Cut { node, life });
    }

    fn cut(&mut self, node: usize) {
        if self.nodes[node].session.is_none() {
            return;
        }
        let duration = self.absence(node, 20, 20_000);
        self.tell(|| format!("node {node} loses its connection for {duration} ms"));
        self.outcome.cuts += 1;
        self.lose_connection(node, 3_000.min(duration));
        let life = self.nodes[node].life;
        self.end_after(duration, End::Cut { node, life });
    }

    /// The connection is gone; the node notices at once or later.
    fn lose_connection(&mut self, node: usize, latest: Millis) {
        self.nodes[node].session = None;
        let life = self.nodes[node].life;
        if self.rng.random_bool(0.7) {
            self.notice(node);
        } else {
            let unnoticed = self.rng.random_range(0..=latest);
            self.end_after(unnoticed, End::Unnoticed { node, life });
        }
    }

    fn server_goes(&mut self) {
        if self.server_down {
            return;
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let apart = if self.living().count() > 2 {
            Apart::Several
        } else {
            Apart::One
        };
        let duration = self.absence_of(apart, 20, 10_000);
        self.tell(|| format!("the server is gone for {duration} ms"));
        self.outcome.cuts += 1;
        self.server_down = true;
        for node in all {
            if self.nodes[node].session.is_some() {
                self.lose_connection(node, 500);
            }
        }
        self.end_after(duration, End::ServerDown);
    }

    fn server_comes(&mut self) {
        self.tell(|| "the server is back".into());
        self.server_down = false;
        if self.rng.random_bool(0.2) {
            self.max_payload = spread(&mut self.rng, 1 << 10, 1 << 20) as usize;
        }
        let living: Vec<usize> = self.living().collect();
        for node in living {
            let (life, wait) = (self.nodes[node].life, self.rng.random_range(0..2_000));
            self.end_after(wait, End::Cut { node, life });
        }
    }

    fn fall_apart(&mut self) {
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random_bool(0.5)).collect();
        let ones = self.living().filter(|&node| side[node]).count();
        let smaller = ones.min(self.living().count() - ones);
        let apart = if smaller > 1 { Apart::Several } else { Apart::One };
        let duration = self.absence_of(apart, 100, 15_000);
        self.tell(|| format!("for {duration} ms the nodes fall into halves: {side:?}"));
        self.outcome.cuts += 1;
        let known = self.rng.random_bool(0.5);
        let apart = |from: usize, to: usize| side[from] != side[to];
        self.separate(apart, known, duration);
    }

    fn go_deaf(&mut self) {
        let [from, to] = [0; 2].map(|_| self.rng.random_range(0..self.nodes.len()));
        let duration = self.absence_of(Apart::One, 100, 15_000);
        self.outcome.one_way_cuts += 1;
        match self.rng.random_range(0..3) {
            0 => {
                self.tell(|| format!("node {to} does not hear node {from} for {duration} ms"));
                if self.scenario.tombstone_ttl_ms.is_some_and(|ttl| duration >= ttl) {
                    self.apart_until = self.now + duration + REST_MS;
                }
                self.separate(|a, b| a == from && b == to, false, duration);
            }
            1 => {
                self.tell(|| format!("nobody hears node {from} for {duration} ms"));
                self.separate(|a, _| a == from, false, duration);
            }
            _ => {
                self.tell(|| format!("node {to} hears nobody for {duration} ms"));
                self.separate(|_, b| b == to, false, duration);
            }
        }
    }

    /// Messages between pairs of nodes do not arrive. `known`: the server knows, and says so of bootstrap requests.
    fn separate(&mut self, apart: impl Fn(usize, usize) -> bool, known: bool, duration: Millis) {
        let places = self.nodes.len();
        let mut pairs = Vec::new();
        for from in 0..places {
            for to in (0..places).filter(|&to| to != from && apart(from, to)) {
                // A pair that is separated already is free again with the first of the two faults.
                self.deaf[from * places + to] = true;
                self.split[from * places + to] |= known;
                pairs.push((from, to));
            }
        }
        self.end_after(duration, End::Deaf { pairs });
    }

    fn pause(&mut self, node: usize) {
        if !self.nodes[node].active() {
            return;
        }
        let longest = self.scenario.trouble_ms.clamp(4_000, 300_000);
        let duration = self.absence(node, 1_000, longest);
        self.tell(|| format!("node {node} does nothing for {duration} ms"));
        self.outcome.pauses += 1;
        let it = &mut self.nodes[node];
        it.pause = Some(Pause {
            mailbox: VecDeque::new(),
            overflow: false,
        });
        let life = it.life;
        if self.rng.random_bool(0.3) {
            let patience = self.rng.random_range(0..duration);
            self.end_after(patience, End::Patience { node, life });
        }
        self.end_after(duration, End::Pause { node, life });
    }

    fn resume(&mut self, node: usize) {
        let Some(pause) = self.nodes[node].pause.take() else {
            return;
        };
        self.tell(|| format!("node {node} goes on; {} messages wait for it", pause.mailbox.len()));
        // Its timers and its messages are all due; either may come first.
        self.nodes[node].wake = Millis::MAX;
        if self.rng.random_bool(0.5) {
            self.tick_now(node);
        }
        for mail in pause.mailbox {
            self.receive(node, mail);
        }
        if pause.overflow {
            self.outcome.slow_consumers += 1;
            self.input(node, Input::MessagesLost);
        }
        if self.nodes[node].session.is_none() {
            self.notice(node);
            let (life, wait) = (self.nodes[node].life, self.rng.random_range(0..2_000));
            self.end_after(wait, End::Cut { node, life });
        }
        self.flush(node);
        self.schedule(node);
    }

    fn hears_again(&mut self, node: usize) {
        self.nodes[node].slow = false;
        if self.nodes[node].active() && self.nodes[node].told {
            self.tell(|| format!("node {node} hears that messages were dropped"));
            self.outcome.slow_consumers += 1;
            self.input(node, Input::MessagesLost);
        }
    }

    /// Something that went wrong is over.
    pub(crate) fn end(&mut self, end: End) {
        match end {
            End::Down { node } => self.start(node),
            End::Unnoticed { node, life } if self.nodes[node].life == life => self.notice(node),
            End::Cut { node, life } if self.nodes[node].life == life => self.connect(node),
            End::ServerDown => self.server_comes(),
            End::Deaf { pairs } => {
                self.tell(|| format!("messages get through again: {pairs:?}"));
                for (from, to) in pairs {
                    let pair = from * self.nodes.len() + to;
                    (self.deaf[pair], self.split[pair]) = (false, false);
                }
            }
            End::Pause { node, life } if self.nodes[node].life == life => self.resume(node),
            End::Patience { node, life } if self.nodes[node].life == life => {
                self.tell(|| format!("the server cuts node {node} off"));
                self.outcome.cuts += 1;
                self.nodes[node].session = None;
            }
            End::Slow { node, life } if self.nodes[node].life == life => self.hears_again(node),
            End::Refusal { node, life } if self.nodes[node].life == life => self.grant(node),
            End::FarClock { node, life } if self.nodes[node].life == life => {
                self.nodes[node].skew = self.random_skew();
                self.tell(|| format!("the clock of node {node} is {} ms off again", self.nodes[node].skew));
            }
            End::StoreDown { engine } => {
                self.tell(|| format!("store {engine} can be reached again"));
                self.engines[engine].down = false;
            }
            End::Recordings { left, to, which } => self.recordings(left, to, which),
            End::ForgedNotices { left, to } => self.forged_notices(left, to),
            _ => {}
        }
    }

    fn grant(&mut self, node: usize) {
        if self.nodes[node].refused != Refusals::default() {
            self.tell(|| format!("the server refuses node {node} nothing any more"));
            self.nodes[node].refused = Refusals::default();
        }
    }

    fn start(&mut self, node: usize) {
        // A newcomer that hears two nodes which are out of contact for long brings their states together, which is a
        // known weakness (docs/GUARANTEES.md, "Deletions and long absence").
        if self.trouble && self.now < self.apart_until {
            return self.end_after(self.apart_until - self.now, End::Down { node });
        }
        if self.nodes[node].up || self.nodes[node].gone {
            return;
        }
        match self.nodes[node].keeping {
            Some(_) => self.open_store(node),
            None => self.goes_into_service(node),
        }
    }

    /// A process replicates from here on.
    pub(crate) fn goes_into_service(&mut self, node: usize) {
        self.tell(|| format!("node {node} starts as {}", self.nodes[node].cache.node()));
        self.nodes[node].up = true;
        self.nodes[node].began = self.now;
        self.is_new(node);
        self.connect(node);
        self.schedule(node);
    }

    /// All faults end, and clients write no more.
    pub(crate) fn heal(&mut self) {
        self.tell(|| "all is well again".into());
        self.trouble = false;
        self.epoch += 1;
        self.server_down = false;
        self.engines.iter_mut().for_each(|engine| engine.down = false);
        self.deaf.fill(false);
        self.split.fill(false);
        let living: Vec<usize> = self.living().collect();
        for node in living {
            self.start(node);
            self.grant(node);
            if self.nodes[node].skew.unsigned_abs() > self.scenario.max_skew_ms {
                self.nodes[node].skew = self.random_skew();
            }
            let pause = self.nodes[node].pause.as_ref();
            self.waiting += pause.map_or(0, |pause| pause.mailbox.len() as u64);
            self.resume(node);
            if self.nodes[node].slow {
                self.hears_again(node);
            }
            self.connect(node);
        }
    }
}
