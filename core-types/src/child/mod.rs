//! What a child of `pds run` gets: which secrets, from which profiles, and as what. Decides; does nothing.
//!
//! It stands here because two processes start children: the launcher, and `pds run --here`, which has none. Both go by
//! this.

pub mod batches;
pub mod environment;
pub mod files;
pub mod references;
