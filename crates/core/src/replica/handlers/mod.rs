//! What a replica does, by what it is about: methods that say `handle_` take what has come, those that say `send_` make
//! messages, `tick_` does what time asks for.
//!
//! | module | job |
//! | --- | --- |
//! | `receive` | messages as they arrive: authentic or not, taken before or not, and whose they are |
//! | `membership` | challenges and heartbeats: who is there, and who has to resync |
//! | `company`, `settling`, `states` | whether anybody is there, from the bootstrap to synced, and what is said of it |
//! | `frames`, `gaps`, `confirmations` | deltas out and in, those that are missing, and who has which |
//! | `repair`, `requests`, `answers` | which comparison is due, what it asks for, and what is done with the answers |
//! | `serving` | what peers ask for |
//! | `outbound` | how messages leave |
//! | `wall_clock` | clocks that are wrong |

mod answers;
mod company;
mod confirmations;
mod frames;
mod gaps;
mod membership;
mod outbound;
mod receive;
mod repair;
mod requests;
mod serving;
mod settling;
mod states;
mod wall_clock;
