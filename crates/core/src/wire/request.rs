//! Messages that want an answer which is work.

use super::bootstrap::BootstrapRequest;
use super::compare::{Compare, Fetch};
use super::gaps::FramesRequest;
use super::sketch::{DigestRequest, Reconcile, SketchRequest};

/// Any message that wants an answer which is work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Bootstrap(BootstrapRequest),
    Compare(Compare),
    Fetch(Fetch),
    DigestRequest(DigestRequest),
    Symbols(SketchRequest),
    Reconcile(Reconcile),
    Frames(FramesRequest),
}

impl Request {
    /// Its number, which its sender never used before.
    pub fn number(&self) -> u64 {
        match self {
            Request::Bootstrap(request) => request.request,
            Request::Compare(request) => request.request,
            Request::Fetch(request) => request.request,
            Request::DigestRequest(request) => request.request,
            Request::Symbols(request) => request.request,
            Request::Reconcile(request) => request.request,
            Request::Frames(request) => request.request,
        }
    }

    /// About how many bytes the answer may have, if it says so.
    pub fn budget(&self) -> Option<u64> {
        match self {
            Request::Bootstrap(request) => Some(request.budget),
            Request::Compare(request) => Some(request.budget),
            Request::Fetch(request) => Some(request.budget),
            Request::DigestRequest(request) => Some(request.budget),
            Request::Reconcile(request) => Some(request.budget),
            Request::Frames(request) => Some(request.budget),
            Request::Symbols(_) => None,
        }
    }
}
