//! The one way a pds daemon starts, serves and ends.
//!
//! A daemon gives data (its name, the topics it wants) and a service; it owns no signal handler, no logger and no
//! connection loop. The order is fixed in [`process`]: close the process to others, find the folders, take the
//! instance lock, read the configuration, log, enter the sandbox, and only then build the runtime, connect, and say
//! "ready".

mod audit;
mod boot_timer;
mod inherited;
mod limits;
mod live_config;
mod living;
mod logging;
pub mod process;
pub mod sandbox;
mod serve;
pub mod signals;
mod units;
mod wall_clock;
mod watchdog;

pub use audit::{AuditQueue, NotDurable, Room};
pub use boot_timer::BootTimer;
pub use inherited::inherited_listener;
pub use limits::LimitTooLow;
pub use live_config::{Change, LiveConfig};
pub use living::lives;
pub use process::{Process, StartError};
pub use serve::{Answer, Caller, Context, Daemon, Serve, answer, run};
pub use units::Units;
pub use wall_clock::unix_ms_now;
pub use watchdog::Watchdog;
