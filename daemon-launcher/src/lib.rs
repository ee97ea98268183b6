//! The starter of programs: fetches what a request selects, starts the program with it, and forgets it.
//!
//! Reading order: `service` (one request), `batches` and `environment` (what it decides), `spawn` (what it does),
//! then `spawner`, `monitor` and `stage`, the small processes by which every child comes about.
//! Absent on purpose: vault keys, terminals' data, and anything that outlives a request.

pub mod batches;
pub mod environment;
mod fields;
mod fork;
mod handover;
mod monitor;
mod own_process;
pub mod service;
pub mod spawn;
pub mod spawner;
mod stage;

pub use handover::{StagePlan, Step, StepError};
