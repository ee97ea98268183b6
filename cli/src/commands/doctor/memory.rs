//! Whether secrets are kept out of swap, and what limits that.

use core_crypto::memory::Protection as Level;
use core_types::protocol::secrets::ProtectionLevel;

use super::super::status::mebibytes;
use super::{Facts, Finding, problem};

/// Least locked memory that everyday use needs, in bytes; what Linux gives an ordinary user since 5.16.
const LOCK_LIMIT_MIN: u64 = 8 << 20;
/// The three ways to raise the limit on locked memory.
const RAISE_LOCK_LIMIT: &str = "raise the limit on locked memory, then `pds daemon restart`: with `ulimit -l 65536` in \
the shell that starts the daemons; or with `* soft memlock 65536` and `* hard memlock 65536` in \
/etc/security/limits.conf, and a new login; or, for a service, with LimitMEMLOCK=infinity in its unit";

/// The secrets that are in memory now, and those that were, are kept out of swap.
pub(super) fn memory_of_secrets(facts: &Facts) -> Finding {
    let memory = match &facts.memory {
        Ok(memory) => memory,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    let bytes = memory.bytes_in_use;
    match (memory.level, memory.swap) {
        (ProtectionLevel::Secret, _) => {
            Finding::Good(format!("kept out of swap and unreadable from outside; {bytes} bytes in use"))
        }
        (ProtectionLevel::Locked, _) => Finding::Good(format!("kept out of swap; {bytes} bytes in use")),
        (ProtectionLevel::Plain, Some(false)) => problem(
            "some could not be locked; this machine does not swap now, but may hibernate",
            RAISE_LOCK_LIMIT,
        ),
        (ProtectionLevel::Plain, _) => {
            problem("some could not be locked, so they may be swapped to disk", RAISE_LOCK_LIMIT)
        }
    }
}

/// The daemon may lock as much memory as everyday use needs.
pub(super) fn lock_limit(facts: &Facts) -> Finding {
    let memory = match &facts.memory {
        Ok(memory) => memory,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    match memory.lock_limit_bytes {
        None => Finding::Good("none".to_owned()),
        Some(limit) if limit < LOCK_LIMIT_MIN => problem(
            format!("{}, and everyday use needs {}", mebibytes(limit), mebibytes(LOCK_LIMIT_MIN)),
            RAISE_LOCK_LIMIT,
        ),
        Some(limit) => Finding::Good(format!(
            "{}; a server that uses many secrets at once should have {}",
            mebibytes(limit),
            mebibytes(64 << 20)
        )),
    }
}

/// The kernel has memory that nobody but its process can read.
pub(super) fn kernel_memory(facts: &Facts) -> Finding {
    match facts.best_level {
        Level::SecretMemory => Finding::Good("there is memfd_secret".to_owned()),
        Level::Locked | Level::Plain => Finding::Note(
            "memfd_secret is not to be had here, so secrets are locked in ordinary memory: Linux has it since 5.14 \
             (before 6.5 with the boot option secretmem.enable=1), and a container may forbid it"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use core_types::protocol::secrets::MemoryProtection;

    use super::super::tests::facts;
    use super::*;

    #[test]
    fn nothing_is_wrong_on_an_ordinary_machine_with_or_without_secret_memory() {
        assert!(problems(&facts()).is_empty());
        let mut older = facts();
        older.best_level = Level::Locked;
        older.memory.as_mut().unwrap().level = ProtectionLevel::Locked;
        assert!(problems(&older).is_empty());
        assert!(matches!(kernel_memory(&older), Finding::Note(_)));
    }

    #[test]
    fn unlocked_memory_and_a_low_limit_come_with_the_three_ways_to_raise_it() {
        let mut facts = facts();
        *facts.memory.as_mut().unwrap() = MemoryProtection {
            level: ProtectionLevel::Plain,
            bytes_in_use: 64,
            lock_limit_bytes: Some(64 << 10),
            swap: None,
        };
        assert_eq!(problems(&facts), ["memory of secrets", "limit on locked memory"]);
        let Finding::Problem { next, .. } = lock_limit(&facts) else { panic!("no problem") };
        for way in ["ulimit -l 65536", "soft memlock 65536", "hard memlock 65536", "LimitMEMLOCK=infinity"] {
            assert!(next.contains(way), "{next}");
        }
    }

    fn problems(facts: &Facts) -> Vec<&'static str> {
        let judged = [
            ("memory of secrets", memory_of_secrets(facts)),
            ("limit on locked memory", lock_limit(facts)),
            ("secret memory of the kernel", kernel_memory(facts)),
        ];
        let found = judged.into_iter().filter(|(_, finding)| matches!(finding, Finding::Problem { .. }));
        found.map(|(name, _)| name).collect()
    }
}
