//! The starter of programs: fetches what a request selects, starts the program with it, and forgets it.
//!
//! Reading order: `service` (one request, which goes by `core_types::child`), `confinement` (for whom
//! nothing is started), `spawn` (what it does),
//! then `spawner`, `monitor` and `stage`, the small processes by which every child comes about, and `children` and
//! `record` (what the audit log is told of them), and `scope` (where systemd keeps each of them). Beside them, `credentials` gives secrets to units of systemd.
//! Absent on purpose: vault keys, terminals' data, and any secret that outlives a request.

mod children;
mod confinement;
mod credentials;
mod fields;
mod fork;
mod handover;
mod ignored;
mod image;
mod monitor;
mod own_process;
mod record;
mod scope;
mod secret_files;
pub mod service;
pub mod spawn;
pub mod spawner;
mod stage;
pub mod witness;

pub use handover::{SecretFiles, StagePlan, Step, StepError};
