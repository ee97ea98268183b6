//! The system calls of the daemons: what the runtime, the allocator, SQLite and the C library make, by what they are for,
//! and the filter that is made of them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Descriptors, and what is read and written over them.
const DESCRIPTORS: &[i64] = &[
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Files and folders; which ones, Landlock says.
const FILES: &[i64] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// Files by the names that x86-64 has from earlier.
#[cfg(target_arch = "x86_64")]
const FILES_EARLIER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const FILES_EARLIER: &[i64] = &[];

/// Waiting, and being woken.
const EVENTS: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];
#[cfg(target_arch = "x86_64")]
const EVENTS_EARLIER: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const EVENTS_EARLIER: &[i64] = &[];

/// Unix sockets; that no other kind is made, [`CONDITIONS`] says.
const SOCKETS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];

/// Memory; that none of it is made executable, [`CONDITIONS`] says.
const MEMORY: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
];

/// The number that a tracer gives a call which shall not be made (ptrace(2)); the kernel has none of it.
const SKIPPED: i64 = u32::MAX as i64;

/// Threads, signals, clocks, limits, and the process itself.
const PROCESS: &[i64] = &[
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_pidfd_open,
    libc::SYS_prlimit64,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
    SKIPPED,
];

/// A system call that is allowed with some arguments only: the number of the argument, and what it has to be.
struct Condition {
    call: i64,
    argument: u8,
    is: SeccompCmpOp,
    value: u64,
}

impl Condition {
    const fn equal(call: i64, argument: u8, value: u64) -> Self {
        Self { call, argument, is: SeccompCmpOp::Eq, value }
    }

    /// Of the bits of `mask`, those of `value` are set.
    const fn bits(call: i64, argument: u8, mask: u64, value: u64) -> Self {
        Self { call, argument, is: SeccompCmpOp::MaskedEq(mask), value }
    }
}

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
/// Reads the auxiliary vector (linux/prctl.h, since Linux 6.4).
const PR_GET_AUXV: u64 = 0x4155_5856;
const THREAD: u64 = libc::CLONE_THREAD as u64;

/// Where a call stands here several times, each of the conditions will do.
const CONDITIONS: &[Condition] = &[
    Condition::equal(libc::SYS_socket, 0, libc::AF_UNIX as u64),
    // No other process, only threads.
    Condition::bits(libc::SYS_clone, 0, THREAD, THREAD),
    Condition::bits(libc::SYS_mmap, 2, EXECUTABLE, 0),
    Condition::bits(libc::SYS_mprotect, 2, EXECUTABLE, 0),
    Condition::equal(libc::SYS_ioctl, 1, libc::FIONBIO),
    Condition::equal(libc::SYS_ioctl, 1, libc::FIONREAD),
    Condition::equal(libc::SYS_ioctl, 1, libc::TCGETS),
    Condition::equal(libc::SYS_ioctl, 1, libc::TIOCGWINSZ),
    Condition::equal(libc::SYS_prctl, 0, PR_GET_AUXV),
    Condition::equal(libc::SYS_prctl, 0, libc::PR_SET_NAME as u64),
    Condition::equal(libc::SYS_prctl, 0, libc::PR_SET_VMA as u64),
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// Allows these calls from now on, and no other; or says why that was not possible.
pub(super) fn keep() -> Result<(), String> {
    let programs = programs().map_err(|error| error.to_string())?;
    programs.iter().try_for_each(|program| apply_filter(program)).map_err(|error| error.to_string())
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let groups = [DESCRIPTORS, FILES, FILES_EARLIER, EVENTS, EVENTS_EARLIER, SOCKETS, MEMORY, PROCESS];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        groups.into_iter().flatten().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone3, Vec::new());
    for Condition { call, argument, is, value } in CONDITIONS {
        let condition = SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, is.clone(), *value)?;
        rules.entry(*call).or_default().push(SeccompRule::new(vec![condition])?);
    }
    let allowed = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, ARCHITECTURE)?;
    // Its arguments lie where no filter sees them. Told that there is none, the C library takes clone(2).
    let absent = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        ARCHITECTURE,
    )?;
    Ok([absent.try_into()?, allowed.try_into()?])
}
