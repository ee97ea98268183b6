//! Values that `pds` makes: by chance, and codes of the time.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::{Spec, System};

#[test]
fn a_generated_value_is_stored_and_never_shown() {
    let system = System::boot(Spec::new().profile("default"));
    let ended = system.pds(["set", "a", "--generate", "--json"]).run().done();
    let value = system.pds(["get", "a"]).run().done().stdout;
    assert!(value.len() == 32 && value.iter().all(u8::is_ascii_alphanumeric));
    assert_eq!(ended.json()["bytes"], 32);
    ended.says("190.5 bits of entropy");
    for told in [&ended.stdout, &ended.stderr] {
        assert!(!told.windows(value.len()).any(|window| window == value));
    }
    system
        .pds(["set", "a", "--generate", "--length", "6", "--charset", "digits"])
        .run()
        .done()
        .says("19.9 bits")
        .prints("");
    let value = system.pds(["get", "a"]).run().done().text();
    assert!(value.len() == 6 && value.bytes().all(|byte| byte.is_ascii_digit()));
    system.pds(["set", "a", "--generate", "--words", "6"]).run().done().says("77.5 bits");
    assert_eq!(system.pds(["get", "a"]).run().done().text().split('.').count(), 6);
    for wrong in [
        &["--length", "9"][..],
        &["--generate", "--length", "0"],
        &["--generate", "--words", "2", "--length", "3"],
        &["--generate", "--file", "x"],
        &["--generate", "--charset", "x"],
    ] {
        system.pds([&["set", "a"], wrong].concat()).run().exits(2);
    }
}

#[test]
fn a_code_is_that_of_now() {
    let system = System::boot(
        Spec::new()
            .profile("default")
            .secret("otp", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
            .secret("no", "hunter2!!"),
    );
    let told = system.pds(["totp", "otp", "--json"]).run().done().json();
    let left = told["seconds_left"].as_u64().unwrap();
    assert!((1..=30).contains(&left));
    let code = system.pds(["totp", "otp"]).run().done().text();
    assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
    system.pds(["totp", "no"]).run().exits(1).prints("").says("neither base32");
    system.pds(["totp", "nothing"]).run().exits(4);
}
