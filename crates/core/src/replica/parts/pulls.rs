//! The pulls of a node that are under way: one of its own, and one of what a peer that compares with it has shown it to
//! lack. Both keep to one pace.

use super::pace::Pace;
use super::pull::{Progress, Pull};
use super::task::{Purpose, Task};
use crate::cache::{Millis, NodeId};

#[derive(Default)]
pub(crate) struct Pulls {
    own: Option<Pull>,
    /// What a peer that compares has shown this node to lack.
    reverse: Option<Pull>,
    /// How fast answers come, whatever they answer.
    pace: Pace,
}

/// The next request of a pull.
pub(crate) struct NextRequest {
    pub purpose: Purpose,
    /// Somebody else may take it, or nobody: one that is known to be there should be asked.
    pub doubtful: bool,
    pub task: Task,
    /// Bytes that the answer may have.
    pub budget: usize,
}

impl Pulls {
    /// This node's own pull.
    pub fn own(&self) -> Option<&Pull> {
        self.own.as_ref()
    }

    /// This node's own pull, if it is the bootstrap.
    pub fn first(&mut self) -> Option<&mut Pull> {
        self.own.as_mut().filter(|pull| pull.purpose == Purpose::Bootstrap)
    }

    pub fn start(&mut self, pull: Pull) {
        self.own = Some(pull);
    }

    pub fn end_own(&mut self) {
        self.own = None;
    }

    pub fn has_reverse(&self) -> bool {
        self.reverse.is_some()
    }

    pub fn end_reverse(&mut self) {
        self.reverse = None;
    }

    /// Adds tasks to what is fetched from a peer that compares. While another one does, nothing is added.
    pub fn add_reverse(&mut self, node: NodeId, tasks: Vec<Task>, now: Millis) {
        let reverse = self
            .reverse
            .get_or_insert_with(|| Pull::of(Purpose::Reverse(node), now));
        if reverse.purpose.peer() == Some(node) && reverse.has_room() {
            reverse.add(tasks);
        }
    }

    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    pub fn pace_mut(&mut self) -> &mut Pace {
        &mut self.pace
    }

    fn all(&self) -> impl Iterator<Item = &Pull> {
        [&self.own, &self.reverse].into_iter().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.reverse.is_none()
    }

    /// Whether one of them has made this request.
    pub fn has_request(&self, request: u64) -> bool {
        self.all().any(|pull| pull.has_request(request))
    }

    /// The pull that has made `request`, if the answer comes from whom it asked.
    pub fn asked(&mut self, node: NodeId, request: u64) -> Option<(&mut Pull, &mut Pace)> {
        let pull = [&mut self.own, &mut self.reverse]
            .into_iter()
            .flatten()
            .find(|pull| pull.has_request(request))?;
        (pull.purpose.peer().is_none_or(|peer| peer == node)).then_some((pull, &mut self.pace))
    }

    /// Bytes that were asked for and are still to come.
    pub fn under_way(&self) -> usize {
        self.all().map(Pull::under_way).sum()
    }

    /// When something of them counts as lost.
    pub fn deadline(&self) -> Option<Millis> {
        self.all().filter_map(|pull| pull.deadline(&self.pace)).min()
    }

    /// The next request, to be sent as `request`, if there is room beside the bytes `under_way`. It names at most
    /// `most` partitions.
    pub fn next_request(&mut self, request: u64, most: u16, under_way: usize, now: Millis) -> Option<NextRequest> {
        for pull in [&mut self.own, &mut self.reverse].into_iter().flatten() {
            if let Some((task, budget)) = pull.next_request(request, most, &self.pace, under_way, now) {
                return Some(NextRequest {
                    purpose: pull.purpose,
                    doubtful: pull.again || pull.swallowed || pull.failures() > 0,
                    task,
                    budget,
                });
            }
        }
        None
    }

    /// An answer to `request` may be complete. Returns what became of its pull.
    pub fn close(&mut self, request: u64, now: Millis) -> Option<(Purpose, Progress)> {
        let pull = [&mut self.own, &mut self.reverse]
            .into_iter()
            .flatten()
            .find(|pull| pull.has_request(request))?;
        Some((pull.purpose, pull.close(request, &mut self.pace, now)))
    }

    /// Asks again for what has not been answered in time. Returns what became of the pulls.
    pub fn tick(&mut self, now: Millis) -> Vec<(Purpose, Progress)> {
        let pace = &mut self.pace;
        let pulls = [&mut self.own, &mut self.reverse].into_iter().flatten();
        pulls.map(|pull| (pull.purpose, pull.tick(pace, now))).collect()
    }

    /// Takes out the pull of this purpose.
    pub fn take(&mut self, purpose: Purpose) -> Option<Pull> {
        match purpose {
            Purpose::Reverse(_) => self.reverse.take(),
            _ => self.own.take(),
        }
    }

    /// What differs comes with missing frames.
    pub fn leave_to_frames(&mut self) {
        let pulls = [&mut self.own, &mut self.reverse].into_iter().flatten();
        pulls.for_each(Pull::leave_to_frames);
    }

    /// The connection is lost. The own pull goes on later if it is to be kept; how much of it has arrived, in percent.
    pub fn interrupted(&mut self, keep: bool) -> Option<u8> {
        self.reverse = None;
        self.own = self.own.take().filter(|_| keep);
        let pull = self.own.as_mut()?;
        let percent = pull.percent();
        pull.interrupted();
        Some(percent)
    }

    /// A peer is gone: nobody waits for its answers any longer. Returns the purpose of the pull that ends by it.
    pub fn gone(&mut self, node: NodeId, now: Millis) -> Option<Purpose> {
        let from = |pull: &mut Pull| pull.purpose.peer() == Some(node);
        let ended = self.own.take_if(from).map(|pull| pull.purpose);
        self.reverse.take_if(from);
        if let Some(pull) = &mut self.own {
            pull.gone(node, now);
        }
        ended
    }

    /// When a request of the bootstrap counts as swallowed by those that NATS has picked.
    pub fn swallowed_at(&self) -> Option<Millis> {
        self.own.as_ref().and_then(|pull| pull.swallowed_at(&self.pace))
    }

    /// Others are asked than those who do not answer.
    pub fn ask_others(&mut self) {
        self.own.as_mut().into_iter().for_each(Pull::ask_others);
    }
}
