//! Messages that want an answer which is work.

use super::compare::{Compare, Fetch};
use super::gaps::FramesRequest;
use super::replay::ReplayRequest;
use super::sketch::{Exchange, SketchRequest, Survey};

/// Any message that wants an answer which is work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Replay(ReplayRequest),
    Compare(Compare),
    Fetch(Fetch),
    Survey(Survey),
    Symbols(SketchRequest),
    Exchange(Exchange),
    Frames(FramesRequest),
}

impl Request {
    /// Its number, which its sender never used before.
    pub fn number(&self) -> u64 {
        match self {
            Request::Replay(request) => request.request,
            Request::Compare(request) => request.request,
            Request::Fetch(request) => request.request,
            Request::Survey(request) => request.request,
            Request::Symbols(request) => request.request,
            Request::Exchange(request) => request.request,
            Request::Frames(request) => request.request,
        }
    }

    /// About how many bytes the answer may have, if it says so.
    pub fn budget(&self) -> Option<u64> {
        match self {
            Request::Replay(request) => Some(request.budget),
            Request::Compare(request) => Some(request.budget),
            Request::Fetch(request) => Some(request.budget),
            Request::Survey(request) => Some(request.budget),
            Request::Exchange(request) => Some(request.budget),
            Request::Frames(request) => Some(request.budget),
            Request::Symbols(_) => None,
        }
    }
}
