//! Guarantees G1 to G7 on real Redis servers that are killed, hung, emptied, filled, cut off and replaced.
//!
//! Nodes are hubs in this process, each with its guardian; a producer makes numbered events on a schedule; clients note
//! when each event came. Every scenario ends in a verdict over what clients saw, what the store holds, and the counters.
#![allow(clippy::needless_pass_by_value, reason = "what is closed is gone")]

mod client;
mod stage;

mod asleep;
mod clock;
mod cut_off;
mod distance;
mod emptied;
mod failover;
mod full;
mod halves;
mod idle;
mod killed;
mod network;
mod scripts;
mod unanswered;
mod wrong_type;
