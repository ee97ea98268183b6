//! Many clients in a process of their own; see `tests::crowd`.

fn main() {
    tests::crowd::main();
}
