//! A client in another language, written from docs/protocol.md alone.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::{Invocation, Spec, System, programs};

const VALUE: &[u8] = b"python-canary \0\n\xff";

/// The client; its one package is Debian's, so it is run by Debian's Python.
fn client<'a>(system: &'a System, arguments: &[&str]) -> Invocation<'a> {
    let script = programs::workspace().join("tests/python/pds_client.py");
    let script = script.to_str().unwrap();
    let arguments: Vec<&str> = std::iter::once(script).chain(arguments.iter().copied()).collect();
    system.program("/usr/bin/python3", arguments)
}

#[test]
fn a_client_in_python_gets_secrets_of_every_size() {
    let large: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let system =
        System::boot(Spec::ready().secret("api-key", VALUE).secret("large", &large).secret("empty", b""));
    client(&system, &["default", "api-key"]).run().done().prints(VALUE);
    client(&system, &["default", "empty", "large", "api-key"])
        .run()
        .done()
        .prints([large.as_slice(), VALUE].concat());
}

#[test]
fn a_client_in_python_is_told_when_it_is_refused() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    client(&system, &["default", "nothing"]).run().exits(1);
    system.pds(["lock"]).run().done();
    client(&system, &["default", "api-key"]).run().exits(1);
}
