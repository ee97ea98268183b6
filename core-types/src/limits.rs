//! Every limit of the system in one place: what is refused, and from which size on.

/// Longest secret name, in bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 256;
/// Longest profile name, in bytes.
pub const PROFILE_NAME_BYTES_MAX: usize = 64;
/// Longest daemon name, in bytes.
pub const DAEMON_NAME_BYTES_MAX: usize = 64;
/// Largest secret value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest note on a secret, in bytes.
pub const NOTE_BYTES_MAX: usize = 1 << 10;
/// Most bytes of the values that are looked for in what a program writes, together.
pub const MASKED_BYTES_MAX: usize = 64 << 10;
/// Old versions of a secret that are kept, if nothing else is configured.
pub const OLD_VERSIONS_DEFAULT: u64 = 10;
/// Most old versions that can be configured: the history of a secret, with the longest notes, fits into one answer.
pub const OLD_VERSIONS_MAX: u64 = 1_000;
/// Largest password, in bytes, before it is stretched.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// Most ways to unlock a vault can have.
pub const FACTORS_MAX: usize = 32;
/// Longest label of a factor, in bytes.
pub const FACTOR_LABEL_BYTES_MAX: usize = 128;
/// Largest SSH public key, in bytes: RSA with 16384 bits.
pub const AGENT_KEY_BYTES_MAX: usize = 2100;
/// Largest signature of an SSH key, in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 2048;

/// Largest frame on the bus (header and body), in bytes; checked before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Largest body the ends of the bus may send, in bytes: a frame less room for its header and seal.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - 4096;
/// Most file descriptors one frame may carry.
pub const DESCRIPTORS_MAX: usize = 8;
/// Most bytes read from a connection before its handshake has ended.
pub const PRE_HANDSHAKE_BYTES_MAX: usize = 256;
/// Most connections that may wait for their handshake at once, or for a place for it.
pub const UNAUTHENTICATED_MAX: usize = 256;
/// How long a handshake may take, in milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Most connections the bus keeps, over all users of it.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of [`CONNECTIONS_MAX`] that only registered daemons may take.
pub const CONNECTIONS_RESERVED: usize = 16;
/// Most connections of one process that are not registered daemons'; a further one waits for a place.
pub const PROCESS_CONNECTIONS_MAX: usize = 64;
/// Most requests that services have at once from all such connections of one process; further ones are held.
pub const PROCESS_DELIVERED_MAX: usize = 16;
/// Most requests that services have at once from all processes that ask for more than they wait for.
pub const PRESSING_DELIVERED_MAX: usize = 8;
/// How long a key may be used on a connection, or a sealed session be used, in seconds.
pub const KEY_SECONDS_MAX: u64 = 3_600;
/// Most requests one connection may have unanswered.
pub const IN_FLIGHT_MAX: usize = 64;
/// Most bytes waiting to be written to one connection.
pub const OUTGOING_BYTES_MAX: usize = 8 << 20;
/// Most bytes that the bus keeps for one connection that is not a registered daemon's: a frame that has not arrived
/// whole, requests that wait for their turn, and what it does not read.
pub const STRANGER_BYTES_MAX: usize = 9 << 20;
/// Most bytes that the bus keeps for all such connections together.
pub const STRANGERS_BYTES_MAX: usize = 96 << 20;
/// Most file descriptors in all frames that the bus has received and not passed on.
pub const DESCRIPTORS_HELD_MAX: usize = 256;
/// Deadline of a request that names none, in milliseconds.
pub const DEADLINE_MS_DEFAULT: u32 = 10_000;
/// Longest deadline a request may ask for, in milliseconds.
pub const DEADLINE_MS_MAX: u32 = 120_000;

/// Longest time that a decrypted value may stay in memory to be read again, in seconds.
pub const CACHE_TTL_SECONDS_MAX: u64 = 300;

/// Largest page of a listing, in names.
pub const LIST_PAGE_MAX: usize = 4_000;
/// Most names, patterns or mappings in one selection.
pub const SELECTION_MAX: usize = 10_000;
/// Most arguments of a child and most variables of its environment.
pub const ARGUMENTS_MAX: usize = 200_000;
/// Most secrets that a child gets as descriptors.
pub const SECRET_DESCRIPTORS_MAX: usize = 64;
/// Largest page of programs that run, in programs: with the longest names of their secrets it fits into one answer.
pub const CHILD_PAGE_MAX: usize = 50;
/// Longest single `NAME=value` string Linux accepts, its NUL included (`MAX_ARG_STRLEN`, execve(2)).
pub const ENVIRONMENT_STRING_BYTES_MAX: usize = 131_072;

/// Most daemons of others that can be enrolled.
pub const ENROLLED_MAX: usize = 256;
/// Most revoked keys that are remembered; then the oldest is forgotten.
pub const REVOKED_MAX: usize = 4_096;
/// Largest file of enrolled daemons, in bytes.
pub const ENROLLED_BYTES_MAX: usize = 1 << 20;

/// Most secrets of one import.
pub const IMPORT_SECRETS_MAX: usize = 20_000;
/// Most bytes of one import, with names and notes: what `daemon-secrets` stores in one transaction.
pub const IMPORT_BYTES_MAX: usize = 128 << 20;
/// Secrets of an import that cost a token.
pub const IMPORT_SECRETS_PER_TOKEN: usize = 100;
/// Most secrets that are compared at once.
pub const COMPARE_MAX: usize = 1_000;

/// How long a grant holds that is given no time, in seconds.
pub const GRANT_SECONDS_DEFAULT: u64 = 10 * 60;
/// Longest time that a grant can hold, in seconds.
pub const GRANT_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// Most uses that a grant can be given, where they are counted.
pub const GRANT_USES_MAX: u64 = 1_000_000;
/// Most grants that hold at the same time, and most that are remembered after their end.
pub const GRANTS_MAX: usize = 1_000;
/// How long after its time a grant is remembered, so that a denial can name it, in seconds.
pub const GRANT_ENDED_SECONDS: u64 = 24 * 60 * 60;

/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Largest page of audit lines in one answer.
pub const AUDIT_PAGE_MAX: usize = 1_000;

/// Longest name of a systemd unit, its kind included (systemd.unit(5)).
pub const UNIT_NAME_BYTES_MAX: usize = 255;
/// Credentials that are being given to units at the same time; who comes then waits.
pub const CREDENTIALS_AT_ONCE: usize = 32;
/// What systemd takes as a credential at most: one byte more, and it refuses to start the unit (systemd.exec(5)).
pub const CREDENTIAL_BYTES_MAX: usize = 1 << 20;
