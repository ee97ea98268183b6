//! Daemons under tight limits: they work, or refuse with one clear line; they never just die.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests and what they share

use std::path::Path;

use core_ipc::CallOptions;
use core_types::pattern::Pattern;
use core_types::protocol::secrets::{GetBatch, Protection, ProtectionLevel, Selection};
use tests::{Spec, System};

const WARNING: &str = "WARN: Unable to lock memory (RLIMIT_MEMLOCK too low). Secrets may be swapped to disk.";
/// Far above any test's needs, so that no rate limit stands in its way.
const UNLIMITED_RATE: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// With a limit, and without the capability of root to which it would not apply.
fn limited(spec: Spec, limit: &str) -> Spec {
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"];
    let first = if rustix::process::geteuid().is_root() { powerless.as_slice() } else { &[] };
    spec.under(&[first, &["prlimit", limit, "--"]].concat())
}

fn warnings(system: &System) -> usize {
    String::from_utf8_lossy(&system.log()).matches(WARNING).count()
}

fn level(system: &System) -> serde_json::Value {
    system.pds(["--json", "status"]).run().done().json()["memory"]["level"].clone()
}

#[test]
fn with_little_or_no_lockable_memory_all_works_and_the_user_is_told() {
    for bytes in ["0", "65536"] {
        let system = System::boot(limited(Spec::ready(), &format!("--memlock={bytes}:{bytes}")));
        for number in 0..100 {
            let name = format!("key/{number}");
            system.pds(["set", &name]).stdin(vec![b'x'; 1_000]).run().done();
            system.pds(["get", &name]).run().done().prints(vec![b'x'; 1_000]);
        }
        assert_eq!(level(&system), "plain", "{bytes}");
        let status = system.pds(["status"]).run().done();
        status.prints_among("see `pds doctor`");
        let doctor = system.pds(["doctor"]).run().exits(1);
        for way in ["ulimit -l 65536", "hard memlock 65536", "LimitMEMLOCK=infinity"] {
            doctor.prints_among(way);
        }
        system.pds(["lock"]).run().done();
        system.pds(["unlock"]).password().run().done();
        // Each daemon that had to keep a key in such memory said so, once.
        assert!((1..=5).contains(&warnings(&system)), "{}", warnings(&system));
    }
}

/// The default of an ordinary user holds a cache of 5,000 secrets, with everything else that is locked.
#[test]
fn five_thousand_secrets_stay_locked_under_the_default_limit() {
    let mut spec = Spec::ready().config(UNLIMITED_RATE).below(Path::new("/dev/shm"));
    for number in 0..5_000 {
        spec = spec.secret(&format!("s{}/{number}", number % 5), vec![b'x'; 1_000]);
    }
    let system = System::boot(limited(spec, "--memlock=8388608:8388608"));
    let mut client = system.client();
    for part in 0..5 {
        let pattern = Pattern::parse(format!("s{part}/*")).unwrap();
        let call = GetBatch {
            profile: "default".parse().unwrap(),
            selection: Selection::Only(vec![pattern]),
            program: None,
        };
        assert_eq!(client.call(&call, CallOptions::default()).unwrap().len(), 1_000);
    }
    let memory = client.call(&Protection {}, CallOptions::default()).unwrap();
    assert!(memory.bytes_in_use >= 5_000_000, "{memory:?}");
    assert_ne!(memory.level, ProtectionLevel::Plain, "{memory:?}");
    assert_eq!(memory.lock_limit_bytes, Some(8 << 20));
    assert_eq!(warnings(&system), 0);
    system.pds(["doctor"]).run().done();
}

#[test]
fn too_few_open_files_are_refused_in_one_line_and_a_soft_limit_is_raised() {
    let system = System::boot(Spec::new().not_started());
    let pds = system.programs().join("pds");
    let under = |limit: &str, word: &str| {
        system.program("prlimit", [limit.as_ref(), "--".as_ref(), pds.as_os_str(), word.as_ref()]).run()
    };
    under("--nofile=16:16", "status").exits(7).says("daemons.log");
    let log = String::from_utf8(system.log()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("RLIMIT_NOFILE is 16, and at least 64 are needed") && log.contains("ulimit -n"),
        "{log}"
    );
    under("--nofile=16:4096", "status").done();
    system.pds(["init"]).password().run().done();
}

#[test]
fn a_tight_address_space_is_refused_in_one_line_or_is_enough() {
    let system = System::boot(Spec::new().not_started());
    let pds = system.programs().join("pds");
    let under = |bytes: u64, word: &str| {
        let limit = format!("--as={bytes}:{bytes}");
        system.program("prlimit", [limit.as_ref(), "--".as_ref(), pds.as_os_str(), word.as_ref()]).run()
    };
    under(128 << 20, "status").exits(7);
    let log = String::from_utf8(system.log()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("RLIMIT_AS is 134217728") && log.contains("ulimit -v"), "{log}");
    under(512 << 20, "status").done();
    system.pds(["init"]).password().run().done();
    system.pds(["set", "large"]).stdin(vec![7; 1 << 20]).run().done();
    system.pds(["get", "large"]).run().done().prints(vec![7; 1 << 20]);
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    system.pds(["run", "--only", "none", "--", "true"]).run().exits(125);
    assert!(system.all_serve(), "nobody died");
}
