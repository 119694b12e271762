//! What leaves a node, in order, and the numbers it has used.

use std::collections::VecDeque;

use super::notice::Notice;
use crate::replica::io::Output;
use crate::wire::ENVELOPE_BYTES;

/// Larger frames do not travel faster, but delay what comes after them.
pub(crate) const MAX_FRAME_BYTES: usize = 256 << 10;

/// What the shell has to do, and what its messages are numbered with.
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    /// Newest heartbeat, request, challenge or fragmented message.
    id: u64,
    /// Largest message the server takes.
    max_message: usize,
}

impl Outbox {
    /// Goes on after the number `id`.
    pub fn after(id: u64) -> Self {
        Outbox {
            outputs: VecDeque::new(),
            id,
            max_message: 64 << 10,
        }
    }

    pub fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Tells people, if there is something to be told.
    pub fn tell(&mut self, notice: impl Into<Option<Notice>>) {
        self.outputs.extend(notice.into().map(Output::Tell));
    }

    pub fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was not published yet cannot be any more.
    pub fn drop_messages(&mut self) {
        self.outputs.retain(|output| !matches!(output, Output::Publish { .. }));
    }

    /// The newest number used.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A number that was never used.
    pub fn fresh_id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    pub fn set_max_message(&mut self, bytes: usize) {
        self.max_message = bytes;
    }

    /// Bytes of the largest message without its authenticator.
    pub fn max_bare(&self) -> usize {
        self.max_message.saturating_sub(ENVELOPE_BYTES)
    }

    /// Bytes that go into one message without fragments, with room for what is about them.
    pub fn max_content(&self) -> usize {
        self.max_message.saturating_sub(2 * ENVELOPE_BYTES)
    }
}
