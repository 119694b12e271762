//! The replication protocol between bare replicas: single situations, each as small as it can be.

mod absence;
mod acks;
mod clocks;
mod crowd;
mod flood;
mod net;
mod repair;
mod search;
mod slow;
mod trust;
