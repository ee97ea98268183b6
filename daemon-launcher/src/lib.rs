//! The starter of programs: fetches what a request selects, starts the program with it, and forgets it.
//!
//! Reading order: `service` (one request), `batches` and `environment` (what it decides), `spawn` (what it does),
//! then `stage` and `monitor`, the two small processes every child gets.
//! Absent on purpose: vault keys, terminals' data, and anything that outlives a request.

pub mod batches;
pub mod environment;
mod fields;
mod handover;
pub mod monitor;
mod own_process;
pub mod service;
pub mod spawn;
pub mod stage;

pub use handover::{StagePlan, Step, StepError};
