//! `docs/access-table.txt` and a naive judge, against the gates.

use core_types::access::{AccessOperation, AccessPolicy, RuleRequester};
use core_types::config::Config;
use core_types::header::Sender;
use core_types::name::{LAUNCHER, ProfileName};
use core_types::protocol::secrets::{Gate, SecretsDenial};
use core_types::rule_book::RuleBook;
use proptest::prelude::*;

use crate::acl::tests::{requester, sender};
use crate::acl::{AccessRules, Action};
use crate::crud::{AccessState, AskedName, Attempt, ProfileStatus, authorize};
use crate::grants::Grants;
use crate::grants::tests::{grants, make};
use crate::operations::one;
use crate::rate_limit::{Cost, RateLimits};

const TABLE: &str = include_str!("../../docs/access-table.txt");
/// The columns, and what each asks for.
const COLUMNS: [Action; 9] = [
    Action::Get,
    Action::List,
    Action::Set,
    Action::Delete,
    Action::GetBatch,
    Action::History,
    Action::Restore,
    Action::Purge,
    Action::Move,
];
const RUN: usize = 4;

fn profile() -> ProfileName {
    ProfileName::parse("work").unwrap()
}

/// The configuration of a state, for the requester that rules know as `name`.
fn config(state: &str, name: &str) -> String {
    let every = |patterns: &str, deny: &str| {
        let allowed = ["get", "list", "set", "delete", "run"].map(|key| format!("{key} = ['{patterns}']\n"));
        format!("{}deny = ['{deny}']\n", allowed.concat())
    };
    let table = match state {
        "locked" | "elsewhere" | "missing" | "no-table" => return String::new(),
        "granted" | "expired" | "used-up" => return String::new(),
        "vetoed" => "deny = ['a*']\n".to_owned(),
        "empty" => String::new(),
        "all" => every("a*", "none"),
        "others" => every("b*", "none"),
        "denied" => every("*", "a*"),
        "kept" => every("a*", "b*"),
        operation => format!("{operation} = ['a*']\n"),
    };
    format!("[profiles.work.access.{name}]\n{table}")
}

fn attempt(action: Action, sender: &Sender) -> Attempt {
    let mut attempt = one(action, &profile(), "a1", sender);
    match action {
        Action::List => attempt.names.clear(),
        Action::Move => attempt.names.push(AskedName::new("a2")),
        _ => {}
    }
    attempt
}

/// The grants of a state, to `backup`.
fn granted(state: &str) -> Grants {
    let (grants, clock) = grants();
    match state {
        "granted" | "vetoed" => drop(make(&grants, "a*", 10, None)),
        "expired" => {
            make(&grants, "a*", 1, None);
            clock.advance(1);
        }
        "used-up" => {
            make(&grants, "a*", 10, Some(1));
            grants.take("backup", &profile(), "a1").unwrap().spend();
        }
        _ => {}
    }
    grants
}

/// What the gates say in a cell, in the words of the table.
fn cell(state: &str, rules: &AccessRules, who: Option<&str>, action: Action) -> &'static str {
    let rates = RateLimits::new(&Config::default());
    let attempt = attempt(action, &sender(who));
    let grants = granted(state);
    let state = AccessState {
        any_unlocked: state != "locked",
        profile: match state {
            "locked" | "elsewhere" => ProfileStatus::Locked,
            "missing" => ProfileStatus::Missing,
            _ => ProfileStatus::Unlocked,
        },
        rules,
        rates: &rates,
        grants: &grants,
    };
    match authorize(&attempt, &state).map_err(|refusal| (refusal.gate, refusal.denial)) {
        Ok(_) if action == Action::List && !rules.show(&attempt.requester, &profile(), "a1") => "hidden",
        Ok(_) => "ok",
        Err((Gate::Lock, SecretsDenial::Locked)) => "locked",
        Err((Gate::ActiveProfile, SecretsDenial::ProfileNotActive(_))) => "inactive",
        Err((Gate::ActiveProfile, SecretsDenial::NoSuchProfile(_))) => "missing",
        Err((Gate::Identity, SecretsDenial::Identity { .. })) => "identity",
        Err((Gate::AccessRule, SecretsDenial::Forbidden)) => "forbidden",
        Err((Gate::AccessRule, SecretsDenial::GrantExpired(_))) => "expired",
        Err((Gate::AccessRule, SecretsDenial::GrantUsedUp(_))) => "used-up",
        Err(_) => "something else",
    }
}

#[test]
fn every_cell_of_the_table() {
    let mut cells = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (who, state, expected) = (words[0], words[1], &words[2..]);
        assert_eq!(expected.len(), COLUMNS.len(), "{line}");
        let stamped = match who {
            "cli" => None,
            "enrolled" => Some("backup"),
            name => Some(name),
        };
        let ruled = if who == "enrolled" { "backup" } else { who };
        // No table can be about these two.
        let config = match who {
            "daemon-profile" | "daemon-bus" => String::new(),
            _ => config(state, ruled),
        };
        let rules = AccessRules::new(&Config::parse(&config).unwrap().access);
        for (column, expected) in expected.iter().enumerate() {
            let asker = match (who, column) {
                ("enrolled", RUN) => continue,
                ("cli", RUN) => Some(LAUNCHER),
                _ => stamped,
            };
            let found = cell(state, &rules, asker, COLUMNS[column]);
            assert_eq!(found, *expected, "{who} {state} {:?}", COLUMNS[column]);
            cells += 1;
        }
    }
    assert_eq!(cells, (5 * 14 + 4) * 9 - (14 + 4), "rows are missing");
}

/// Whether a pattern matches, by trying every length of each star.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|taken| matches(rest, &name[taken..])),
        Some((byte, rest)) => {
            name.split_first().is_some_and(|(first, left)| first == byte && matches(rest, left))
        }
    }
}

/// What a table says of an operation by its key, read as the documentation has it.
fn table_says(policy: &AccessPolicy, who: &str, key: &str, name: &str) -> Option<bool> {
    let table = policy.table("work", who)?;
    let listed = match key {
        "get" => &table.get,
        "list" => &table.list,
        "set" => &table.set,
        "delete" => &table.delete,
        _ => &table.run,
    };
    let any = |patterns: &[core_types::pattern::Pattern]| {
        patterns.iter().any(|pattern| matches(pattern.as_str().as_bytes(), name.as_bytes()))
    };
    Some(any(listed) && !any(&table.deny))
}

fn naive(policy: &AccessPolicy, who: Option<&str>, action: Action, names: &[&str]) -> bool {
    let says = |key: &str, name: &str| match who {
        None => table_says(policy, "cli", key, name).unwrap_or(true),
        Some(LAUNCHER) => {
            let own = table_says(policy, LAUNCHER, key, name).unwrap_or(true);
            own && (key != "run" || table_says(policy, "cli", key, name).unwrap_or(true))
        }
        Some(name_of) => table_says(policy, name_of, key, name).unwrap_or(false),
    };
    let reads = if who == Some(LAUNCHER) { "run" } else { "get" };
    match action {
        Action::Get | Action::GetBatch => names.iter().all(|name| says(reads, name)),
        Action::History => says("get", names[0]),
        Action::Set | Action::Restore => says("set", names[0]),
        Action::Delete | Action::Purge => says("delete", names[0]),
        Action::Move => says("get", names[0]) && says("delete", names[0]) && says("set", names[1]),
        _ => true,
    }
}

fn action_of(operation: AccessOperation) -> Action {
    match operation {
        AccessOperation::Get => Action::Get,
        AccessOperation::List => Action::List,
        AccessOperation::Set => Action::Set,
        AccessOperation::Delete => Action::Delete,
        AccessOperation::Run => Action::GetBatch,
    }
}

fn lists() -> impl Strategy<Value = String> {
    let pattern = prop_oneof!["[ab]{1,2}", "[ab]\\*", "\\*[ab]", "\\*", "[ab]\\*[ab]"];
    prop::collection::vec(pattern, 0..3).prop_map(|patterns| format!("{patterns:?}"))
}

fn table(who: &'static str) -> impl Strategy<Value = String> {
    let keys = ["get", "list", "set", "delete", "run", "deny"];
    let lines = keys.map(|key| {
        prop::option::of(lists())
            .prop_map(move |list| list.map_or_else(String::new, |list| format!("{key} = {list}\n")))
    });
    lines.prop_map(move |lines| format!("[profiles.work.access.{who}]\n{}", lines.concat()))
}

pub(crate) fn policies() -> impl Strategy<Value = String> {
    let tables = ["cli", "daemon-launcher", "backup"].map(|who| prop::option::of(table(who)));
    tables.prop_map(|tables| tables.into_iter().flatten().collect())
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_naive_judge(
        config in policies(),
        who in prop::sample::select(vec![None, Some(LAUNCHER), Some("backup"), Some("other")]),
        action in prop::sample::select(COLUMNS.to_vec()),
        names in prop::collection::vec("[ab]{1,3}", 2),
    ) {
        let policy = Config::parse(&config).unwrap().access;
        let rules = AccessRules::new(&policy);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let names = if matches!(action, Action::Move | Action::GetBatch) { &names[..] } else { &names[..1] };
        let asker = requester(who);
        prop_assume!(action != Action::List && asker.may_ask(action));
        let rates = RateLimits::new(&Config::default());
        let attempt = Attempt {
            action,
            profile: profile(),
            requester: asker,
            names: names.iter().map(|name| AskedName::new(name)).collect(),
            cost: Cost { tokens: 1, names: 1 },
        };
        let grants = Grants::default();
        let state = AccessState::open(&rules, &rates, &grants);
        let decided = authorize(&attempt, &state);
        let expected = naive(&policy, who, action, names);
        prop_assert_eq!(decided.is_ok(), expected, "{:?}", decided.err().map(|refusal| refusal.denial));
    }

    /// What `pds config check` tries a file by is what the gates decide.
    #[test]
    fn the_rule_book_decides_for_a_test_of_the_configuration_as_the_gates_do(
        config in policies(),
        who in prop::sample::select(vec!["cli", LAUNCHER, "backup", "other"]),
        operation in prop::sample::select(AccessOperation::ALL.to_vec()),
        name in "[ab]{1,3}",
    ) {
        let policy = Config::parse(&config).unwrap().access;
        let (rules, book) = (AccessRules::new(&policy), RuleBook::new(&policy));
        let (asker, action) = match (who, operation) {
            ("cli", AccessOperation::Run) => (requester(Some(LAUNCHER)), Action::GetBatch),
            ("cli", _) => (requester(None), action_of(operation)),
            (name, _) => (requester(Some(name)), action_of(operation)),
        };
        let rates = RateLimits::new(&Config::default());
        let names = if action == Action::List { Vec::new() } else { vec![AskedName::new(&name)] };
        let cost = Cost { tokens: 1, names: 1 };
        let attempt = Attempt { action, profile: profile(), requester: asker, names, cost };
        let grants = Grants::default();
        let state = AccessState::open(&rules, &rates, &grants);
        // An enrolled daemon that wants a program run is denied by the launcher.
        let launched = who != "backup" && who != "other" || operation != AccessOperation::Run;
        let shown = action != Action::List || rules.show(&attempt.requester, &profile(), &name);
        let expected = launched && authorize(&attempt, &state).is_ok() && shown;
        let who = RuleRequester::parse(who).unwrap();
        prop_assert_eq!(book.decide(&who, "work", operation, &name).allowed, expected);
    }

    #[test]
    fn a_listing_shows_what_may_be_listed_and_read(config in policies(), name in "[ab]{1,3}") {
        let policy = Config::parse(&config).unwrap().access;
        let rules = AccessRules::new(&policy);
        for who in [None, Some(LAUNCHER), Some("backup")] {
            let ruled = who.unwrap_or("cli");
            let listed = table_says(&policy, ruled, "list", &name).unwrap_or(who != Some("backup"));
            let expected = listed && naive(&policy, who, Action::Get, &[&name]);
            prop_assert_eq!(rules.show(&requester(who), &profile(), &name), expected, "{:?}", who);
        }
    }
}
