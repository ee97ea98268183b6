//! What a header promises, tried with factors of every kind and with headers that were changed.

use core_types::factor::AGENT_NONCE_BYTES;

use super::file::{Content, File, canonical};
use super::*;

const CHEAP: Argon2Params = Argon2Params::FLOOR;
const PASSWORD: u32 = 1;
const AGENT: u32 = 2;
const RECOVERY: u32 = 3;

fn profile() -> ProfileName {
    ProfileName::parse("work").unwrap()
}

fn bytes(bytes: &[u8]) -> SecureBytes {
    SecureBytes::copy_of(bytes)
}

fn header() -> (VaultHeader, SecureBytes) {
    VaultHeader::create(&profile(), b"right", CHEAP).unwrap()
}

fn proof(factor: u32, secret: &[u8]) -> Proof {
    Proof { factor, secret: bytes(secret) }
}

fn password(secret: &[u8]) -> [Proof; 1] {
    [proof(PASSWORD, secret)]
}

fn ed25519_key() -> Vec<u8> {
    let mut key = vec![0, 0, 0, 11];
    key.extend_from_slice(b"ssh-ed25519");
    key.extend_from_slice(&[0, 0, 0, 32]);
    key.extend_from_slice(&[9; 32]);
    key
}

fn agent() -> NewFactor {
    let nonce = [4; AGENT_NONCE_BYTES];
    NewFactor::SshAgent { public_key: ed25519_key(), nonce, signature: bytes(&[1; 64]) }
}

/// The right secrets of the three factors of [`three`], picked by their numbers.
fn right(factors: &[u32]) -> Vec<Proof> {
    let secret = |factor: u32| match factor {
        PASSWORD => bytes(b"right"),
        AGENT => bytes(&[1; 64]),
        _ => bytes(&[7; 32]),
    };
    factors.iter().map(|factor| Proof { factor: *factor, secret: secret(*factor) }).collect()
}

/// A password, an SSH key and a recovery code, under a policy.
fn three(policy: FactorPolicy) -> (VaultHeader, SecureBytes) {
    let (header, master) = header();
    let add = |header: VaultHeader, new, id| {
        let added = header.with_factor(&password(b"right"), FactorLabel::of("a label"), new, CHEAP).unwrap();
        assert_eq!(added.result, id);
        added.header
    };
    let header = add(add(header, agent(), AGENT), NewFactor::Recovery(bytes(&[7; 32])), RECOVERY);
    if policy == FactorPolicy::Any {
        return (header, master);
    }
    (header.with_policy(&right(&[PASSWORD, AGENT, RECOVERY]), policy).unwrap(), master)
}

const SUBSETS: [&[u32]; 7] = [
    &[PASSWORD],
    &[AGENT],
    &[RECOVERY],
    &[PASSWORD, AGENT],
    &[AGENT, RECOVERY],
    &[RECOVERY, PASSWORD],
    &[PASSWORD, AGENT, RECOVERY],
];
const POLICIES: [(FactorPolicy, usize); 4] = [
    (FactorPolicy::Any, 1),
    (FactorPolicy::Threshold(2), 2),
    (FactorPolicy::Threshold(3), 3),
    (FactorPolicy::All, 3),
];

/// The text of a header after `change`, with a checksum that fits, as someone who tampers would make it.
fn tampered(header: &VaultHeader, change: impl FnOnce(&mut Content)) -> Vec<u8> {
    let mut content = header.content.clone();
    change(&mut content);
    let checksum = checksum(&canonical(&content).unwrap());
    serde_json::to_vec(&File { format: FORMAT, content, checksum, mac: header.mac }).unwrap()
}

fn parse(bytes: &[u8]) -> Result<VaultHeader, HeaderError> {
    VaultHeader::parse(bytes, &profile())
}

fn set_cost(content: &mut Content, cost: Argon2Params) {
    if let Way::Password { argon2, .. } = &mut content.factors[0].way {
        *argon2 = cost.into();
    }
}

fn cost_of(header: &VaultHeader, factor: usize) -> Argon2Params {
    let Way::Password { argon2, .. } = header.factors()[factor].way else { panic!("not a password") };
    argon2.into()
}

fn salt_of(header: &VaultHeader) -> [u8; 16] {
    let Way::Password { salt, .. } = header.factors()[0].way else { panic!("not a password") };
    salt
}

#[test]
fn the_password_unwraps_the_master_key_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    let (header, master) = header();
    header.save(&path).unwrap();
    let loaded = VaultHeader::load(&path, &profile()).unwrap();
    assert_eq!(loaded, header);
    assert!(loaded.unlock(&password(b"right")).unwrap().ct_eq(master.expose()));
    for wrong in [&b"wrong"[..], b"", b"right\n", b"RIGHT"] {
        let error = loaded.unlock(&password(wrong)).unwrap_err();
        assert!(matches!(error, HeaderError::WrongFactor(FactorKind::Password)));
    }
}

#[test]
fn each_policy_opens_with_as_many_as_it_needs_and_with_no_fewer() {
    for (policy, needed) in POLICIES {
        let (header, master) = three(policy);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("header.json");
        header.save(&path).unwrap();
        let header = VaultHeader::load(&path, &profile()).unwrap();
        for subset in SUBSETS {
            match header.unlock(&right(subset)) {
                Ok(found) => {
                    assert!(subset.len() >= needed, "{policy:?} {subset:?}");
                    assert!(found.ct_eq(master.expose()));
                }
                Err(HeaderError::NotEnough { given, needed: said, of: 3 }) => {
                    assert!(subset.len() < needed, "{policy:?} {subset:?}");
                    assert_eq!((usize::from(given), usize::from(said)), (subset.len(), needed));
                }
                Err(error) => panic!("{policy:?} {subset:?}: {error}"),
            }
        }
    }
}

/// Without the daemon's counting: what the file gives to someone who has it, and all but one of the factors.
#[test]
fn too_few_factors_and_the_whole_header_do_not_give_the_key() {
    for (policy, needed) in POLICIES {
        let (header, master) = three(policy);
        let content = &header.content;
        for subset in SUBSETS {
            let keys = content.keys(&right(subset)).unwrap();
            let opened = content.unwrap(&keys);
            let found = opened.is_ok_and(|key| key.ct_eq(master.expose()));
            assert_eq!(found, subset.len() >= needed, "{policy:?} {subset:?}");
            // Nothing that a factor seals is the master key itself, unless one of them is enough.
            for key in &keys {
                let sealed = content.factor(key.factor).unwrap();
                let part = sealed.open(&profile(), &key.kek, sealed_by(policy)).unwrap();
                let whole = part.expose().windows(32).any(|window| master.ct_eq(window));
                assert_eq!(whole, policy == FactorPolicy::Any, "{policy:?}");
            }
        }
    }
}

#[test]
fn one_factor_given_twice_is_one_factor() {
    let (header, _) = three(FactorPolicy::Threshold(2));
    let twice = [right(&[PASSWORD]), right(&[PASSWORD])].concat_proofs();
    assert!(matches!(header.unlock(&twice), Err(HeaderError::NotEnough { given: 1, needed: 2, of: 3 })));
    let more = [right(&[PASSWORD, AGENT, RECOVERY]), right(&[AGENT])].concat_proofs();
    assert!(matches!(header.unlock(&more), Err(HeaderError::NotEnough { given: 3, .. })));
    let unknown = [right(&[PASSWORD]), vec![proof(9, b"x")]].concat_proofs();
    assert!(matches!(header.unlock(&unknown), Err(HeaderError::NoSuchFactor(9))));
}

trait ConcatProofs {
    fn concat_proofs(self) -> Vec<Proof>;
}

impl<const N: usize> ConcatProofs for [Vec<Proof>; N] {
    fn concat_proofs(self) -> Vec<Proof> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn one_wrong_factor_among_right_ones_is_named() {
    for (policy, _) in POLICIES {
        let (header, _) = three(policy);
        for (wrong, kind) in [
            (PASSWORD, FactorKind::Password),
            (AGENT, FactorKind::SshAgent),
            (RECOVERY, FactorKind::Recovery),
        ] {
            let mut proofs = right(&[PASSWORD, AGENT, RECOVERY]);
            proofs[wrong as usize - 1].secret = bytes(&[2; 32]);
            let error = header.unlock(&proofs).unwrap_err();
            assert!(matches!(error, HeaderError::WrongFactor(found) if found == kind), "{policy:?}: {error}");
        }
    }
}

#[test]
fn two_vaults_with_one_password_share_nothing() {
    let (first, first_master) = header();
    let (second, second_master) = header();
    assert!(!first_master.ct_eq(second_master.expose()));
    assert_ne!(first.content.factors[0].sealed, second.content.factors[0].sealed);
    assert_ne!(salt_of(&first), salt_of(&second));
}

#[test]
fn a_new_password_works_under_every_policy_and_changes_nothing_else() {
    for (policy, needed) in POLICIES {
        let (header, master) = three(policy);
        let all = right(&[PASSWORD, AGENT, RECOVERY]);
        let change = |proofs: &[Proof], master: Option<&SecureBytes>| {
            header.with_password(PASSWORD, proofs, master, bytes(b"new"), CHEAP)
        };
        for (changed, what) in [
            (change(&all[..needed], None).unwrap(), "locked"),
            (change(&right(&[PASSWORD]), Some(&master)).unwrap(), "unlocked"),
        ] {
            let mut new = right(&[PASSWORD, AGENT, RECOVERY]);
            let old = changed.unlock(&new);
            assert!(matches!(old, Err(HeaderError::WrongFactor(FactorKind::Password))), "{policy:?} {what}");
            new[0].secret = bytes(b"new");
            assert!(changed.unlock(&new[..needed]).unwrap().ct_eq(master.expose()), "{policy:?} {what}");
            assert_eq!(changed.content.factors[1..], header.content.factors[1..]);
            assert_eq!(changed.content.shared_master_key, header.content.shared_master_key);
            assert_ne!(salt_of(&changed), salt_of(&header));
            assert_eq!(changed.generation(), header.generation() + 1);
        }
        let mut wrong = right(&[PASSWORD, AGENT, RECOVERY]);
        wrong[0].secret = bytes(b"wrong");
        for master in [None, Some(&master)] {
            assert!(matches!(change(&wrong, master), Err(HeaderError::WrongFactor(_))), "{policy:?}");
        }
        assert!(change(&right(&[AGENT, RECOVERY]), Some(&master)).is_err(), "the password itself is needed");
        if needed > 1 {
            assert!(matches!(change(&right(&[PASSWORD]), None), Err(HeaderError::NotEnough { .. })));
        }
        let agent = header.with_password(AGENT, &all, None, bytes(b"new"), CHEAP);
        assert!(matches!(agent, Err(HeaderError::NotAPassword(AGENT))));
    }
}

#[test]
fn another_master_key_does_not_pass_for_the_one_that_is_known() {
    let (header, _) = three(FactorPolicy::All);
    let other = SecureBytes::zeroed(32);
    let changed = header.with_password(PASSWORD, &right(&[PASSWORD]), Some(&other), bytes(b"new"), CHEAP);
    assert!(matches!(changed, Err(HeaderError::Tampered)));
}

#[test]
fn a_cheap_password_is_made_dearer_and_a_dear_one_stays() {
    let dearer = Argon2Params { passes: 3, ..CHEAP };
    for (policy, needed) in POLICIES {
        let (header, master) = three(policy);
        let all = right(&[PASSWORD, AGENT, RECOVERY]);
        let raised = header.with_cost(&all[..needed], &master, dearer).unwrap().unwrap();
        assert_eq!(cost_of(&raised, 0), dearer);
        assert!(raised.unlock(&all[..needed]).unwrap().ct_eq(master.expose()));
        assert!(raised.with_cost(&all, &master, CHEAP).unwrap().is_none(), "never lowered");
        assert!(raised.with_cost(&all, &master, dearer).unwrap().is_none());
        assert!(header.with_cost(&right(&[AGENT]), &master, dearer).unwrap().is_none(), "no password");
    }
}

/// Whoever types a password does not know which of several it is.
#[test]
fn one_of_two_passwords_opens_whichever_is_named() {
    let (header, master) = header();
    let second = NewFactor::Password(bytes(b"second"));
    let two = header.with_factor(&password(b"right"), FactorLabel::default(), second, CHEAP).unwrap().header;
    for (named, secret) in [(1, b"right".as_slice()), (2, b"right"), (1, b"second"), (2, b"second")] {
        assert!(two.unlock(&[proof(named, secret)]).unwrap().ct_eq(master.expose()), "{named}");
    }
    assert!(matches!(two.unlock(&password(b"third")), Err(HeaderError::WrongFactor(_))));
    let dearer = Argon2Params { passes: 3, ..CHEAP };
    let raised = two.with_cost(&[proof(1, b"second")], &master, dearer).unwrap().unwrap();
    assert_eq!((cost_of(&raised, 0), cost_of(&raised, 1)), (CHEAP, dearer));
    let both = two.with_policy(&[proof(2, b"right"), proof(1, b"second")], FactorPolicy::All).unwrap();
    assert!(both.unlock(&[proof(1, b"second"), proof(2, b"right")]).unwrap().ct_eq(master.expose()));
    let twice = both.unlock(&[proof(1, b"right"), proof(2, b"right")]);
    assert!(matches!(twice, Err(HeaderError::WrongFactor(_))), "one password is one factor");
    let other = two.with_password(1, &[proof(1, b"second")], None, bytes(b"new"), CHEAP);
    assert!(matches!(other, Err(HeaderError::WrongFactor(_))), "the one that is changed has to be known");
}

#[test]
fn a_factor_is_added_with_one_or_with_all_as_the_policy_wants() {
    for (policy, _) in POLICIES {
        let (header, master) = three(policy);
        let add = |proofs: &[Proof]| {
            header.with_factor(proofs, FactorLabel::default(), NewFactor::Password(bytes(b"second")), CHEAP)
        };
        let needed = if policy == FactorPolicy::Any { 1 } else { 3 };
        assert_eq!(header.needed_for(Change::Add).unwrap(), needed);
        if needed > 1 {
            let some = add(&right(&[PASSWORD, AGENT]));
            assert!(matches!(some, Err(HeaderError::NotEnough { given: 2, needed: 3, of: 3 })), "{policy:?}");
        }
        let Changed { header: added, result: id } = add(&right(&[PASSWORD, AGENT, RECOVERY])).unwrap();
        assert_eq!(id, 4);
        let proofs = match policy {
            FactorPolicy::Any => vec![proof(4, b"second")],
            FactorPolicy::Threshold(2) => [vec![proof(4, b"second")], right(&[RECOVERY])].concat_proofs(),
            FactorPolicy::Threshold(_) => {
                [vec![proof(4, b"second")], right(&[AGENT, RECOVERY])].concat_proofs()
            }
            FactorPolicy::All => {
                let without = added.unlock(&right(&[PASSWORD, AGENT, RECOVERY]));
                assert!(matches!(without, Err(HeaderError::NotEnough { needed: 4, .. })));
                [right(&[PASSWORD, AGENT, RECOVERY]), vec![proof(4, b"second")]].concat_proofs()
            }
        };
        assert!(added.unlock(&proofs).unwrap().ct_eq(master.expose()), "{policy:?}");
        let wrong = add(&[proof(PASSWORD, b"wrong"), proof(AGENT, b"x"), proof(RECOVERY, b"x")]);
        assert!(matches!(wrong, Err(HeaderError::WrongFactor(_))));
    }
}

/// A share of an older split opens nothing that was split anew.
#[test]
fn shares_of_two_splits_do_not_mix() {
    let (header, _) = three(FactorPolicy::Threshold(2));
    let all = right(&[PASSWORD, AGENT, RECOVERY]);
    let again = header.with_policy(&all, FactorPolicy::Threshold(2)).unwrap();
    let mut mixed = again.content.clone();
    mixed.factors[0] = header.content.factors[0].clone();
    let keys = mixed.keys(&right(&[PASSWORD, AGENT])).unwrap();
    assert!(matches!(mixed.unwrap(&keys), Err(HeaderError::Tampered)));
}

#[test]
fn a_factor_is_removed_but_never_the_last_that_the_policy_needs() {
    let (header, master) = three(FactorPolicy::Any);
    let left = header.without_factor(&right(&[PASSWORD]), PASSWORD).unwrap();
    assert!(matches!(left.unlock(&right(&[PASSWORD])), Err(HeaderError::NoSuchFactor(PASSWORD))));
    let left = left.without_factor(&right(&[AGENT]), RECOVERY).unwrap();
    assert!(left.unlock(&right(&[AGENT])).unwrap().ct_eq(master.expose()));
    assert!(matches!(left.without_factor(&right(&[AGENT]), AGENT), Err(HeaderError::LastFactor)));
    assert!(matches!(left.without_factor(&right(&[AGENT]), 9), Err(HeaderError::NoSuchFactor(9))));
    let back = left.with_factor(
        &right(&[AGENT]),
        FactorLabel::default(),
        NewFactor::Recovery(bytes(&[8; 32])),
        CHEAP,
    );
    assert_eq!(back.unwrap().result, 4, "no number is used twice");

    let (header, master) = three(FactorPolicy::Threshold(2));
    let few = header.without_factor(&right(&[PASSWORD]), RECOVERY);
    assert!(matches!(few, Err(HeaderError::NotEnough { given: 1, needed: 2, of: 3 })));
    let left = header.without_factor(&right(&[PASSWORD, AGENT]), RECOVERY).unwrap();
    assert!(left.unlock(&right(&[PASSWORD, AGENT])).unwrap().ct_eq(master.expose()));
    let below = left.without_factor(&right(&[PASSWORD, AGENT]), AGENT);
    assert!(matches!(below, Err(HeaderError::Policy { factors: 1, .. })));

    let (header, master) = three(FactorPolicy::All);
    let few = header.without_factor(&right(&[PASSWORD, AGENT]), RECOVERY);
    assert!(matches!(few, Err(HeaderError::NotEnough { needed: 3, .. })));
    let left = header.without_factor(&right(&[PASSWORD, AGENT, RECOVERY]), RECOVERY).unwrap();
    assert!(left.unlock(&right(&[PASSWORD, AGENT])).unwrap().ct_eq(master.expose()));
    assert!(matches!(left.unlock(&right(&[PASSWORD])), Err(HeaderError::NotEnough { needed: 2, .. })));
    let below = left.without_factor(&right(&[PASSWORD, AGENT]), AGENT);
    assert!(matches!(below, Err(HeaderError::Policy { factors: 1, .. })));
}

#[test]
fn a_policy_is_changed_by_all_factors_together_and_must_make_sense() {
    let all = right(&[PASSWORD, AGENT, RECOVERY]);
    for (from, _) in POLICIES {
        let (header, master) = three(from);
        for (to, needed) in POLICIES {
            let changed = header.with_policy(&all, to).unwrap();
            assert!(changed.unlock(&all[..needed]).unwrap().ct_eq(master.expose()), "{from:?} {to:?}");
            let few = header.with_policy(&all[..2], to);
            assert!(matches!(few, Err(HeaderError::NotEnough { given: 2, needed: 3, of: 3 })));
        }
        for wrong in [FactorPolicy::Threshold(0), FactorPolicy::Threshold(1), FactorPolicy::Threshold(4)] {
            assert!(matches!(header.with_policy(&all, wrong), Err(HeaderError::Policy { factors: 3, .. })));
        }
    }
    let (one, _) = header();
    assert!(matches!(
        one.with_policy(&password(b"right"), FactorPolicy::All),
        Err(HeaderError::Policy { .. })
    ));
}

#[test]
fn a_new_master_key_opens_with_the_same_factors() {
    for (policy, needed) in POLICIES {
        let (header, old) = three(policy);
        let all = right(&[PASSWORD, AGENT, RECOVERY]);
        let Changed { header: changed, result: new } = header.with_new_master_key(&all).unwrap();
        assert!(!new.ct_eq(old.expose()));
        assert!(changed.unlock(&all[..needed]).unwrap().ct_eq(new.expose()));
        assert!(matches!(header.with_new_master_key(&all[..2]), Err(HeaderError::NotEnough { .. })));
    }
}

#[test]
fn a_recovery_code_is_recognised_under_every_policy() {
    for (policy, _) in POLICIES {
        let (header, _) = three(policy);
        assert!(header.has_recovery_code(&bytes(&[7; 32])).unwrap());
        assert!(!header.has_recovery_code(&bytes(&[8; 32])).unwrap());
    }
    assert!(!header().0.has_recovery_code(&bytes(&[7; 32])).unwrap());
}

#[test]
fn one_ssh_key_is_enrolled_once_and_one_that_cannot_unlock_never() {
    let (header, _) = three(FactorPolicy::Any);
    let again = header.with_factor(&right(&[PASSWORD]), FactorLabel::default(), agent(), CHEAP);
    assert!(matches!(again, Err(HeaderError::FactorExists(AGENT))));
    let mut ecdsa = vec![0, 0, 0, 19];
    ecdsa.extend_from_slice(b"ecdsa-sha2-nistp256");
    let new = NewFactor::SshAgent { public_key: ecdsa, nonce: [0; 32], signature: bytes(b"x") };
    let refused = header.with_factor(&right(&[PASSWORD]), FactorLabel::default(), new, CHEAP);
    assert!(matches!(refused, Err(HeaderError::UnsupportedKey(UnsupportedKey::Ecdsa))));
}

#[test]
fn there_are_at_most_as_many_factors_as_the_limit_says_and_all_of_them_fit() {
    let (mut header, master) = header();
    for number in 2..=FACTORS_MAX {
        let number = u8::try_from(number).unwrap();
        let label = FactorLabel::of(&"\u{1f512}".repeat(32));
        let mut key = vec![0, 0, 0, 7];
        key.extend_from_slice(b"ssh-rsa\0\0\0\x03\x01\0\x01\0\0\x08\x01\0");
        key.extend_from_slice(&[0x80 | number; 2048]);
        let new = NewFactor::SshAgent { public_key: key, nonce: [0; 32], signature: bytes(&[number; 64]) };
        header = header.with_factor(&password(b"right"), label, new, CHEAP).unwrap().header;
    }
    let more = header.with_factor(&password(b"right"), FactorLabel::default(), agent(), CHEAP);
    assert!(matches!(more, Err(HeaderError::TooManyFactors)));
    let mut all: Vec<Proof> =
        (2..=32).map(|number| proof(number, &[u8::try_from(number).unwrap(); 64])).collect();
    all.push(proof(PASSWORD, b"right"));
    let header = header.with_policy(&all, FactorPolicy::All).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    header.save(&path).unwrap();
    let loaded = VaultHeader::load(&path, &profile()).unwrap();
    assert!(loaded.unlock(&all).unwrap().ct_eq(master.expose()));
}

#[test]
fn each_change_raises_the_generation_and_changes_the_digest() {
    let (header, _) = header();
    assert_eq!(header.generation(), 0);
    let (changed, _) = three(FactorPolicy::All);
    assert_eq!(changed.generation(), 3);
    assert_ne!(header.digest().unwrap(), changed.digest().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    changed.save(&path).unwrap();
    assert_eq!(VaultHeader::load(&path, &profile()).unwrap().digest().unwrap(), changed.digest().unwrap());
}

#[test]
fn a_changed_header_is_not_a_wrong_password() {
    let (header, _) = three(FactorPolicy::Any);
    let changes: [fn(&mut Content); 5] = [
        |content| content.created_unix_ms += 1,
        |content| content.generation += 1,
        |content| content.next_factor += 1,
        |content| content.factors[1].label = FactorLabel::of("another"),
        |content| {
            content.factors.pop();
        },
    ];
    for change in changes {
        let changed = parse(&tampered(&header, change)).unwrap();
        let error = changed.unlock(&password(b"right")).unwrap_err();
        assert!(matches!(error, HeaderError::Tampered) && error.is_damage());
        assert!(matches!(changed.unlock(&password(b"wrong")), Err(HeaderError::WrongFactor(_))));
    }
}

#[test]
fn costs_out_of_range_are_refused_before_a_password_is_needed() {
    let (header, _) = header();
    let costs = [
        Argon2Params { memory_kib: 8 << 20, ..CHEAP },
        Argon2Params { memory_kib: 19 * 1024 - 1, ..CHEAP },
        Argon2Params { passes: 1, ..CHEAP },
        Argon2Params { passes: u32::MAX, ..CHEAP },
        Argon2Params { lanes: 0, ..CHEAP },
    ];
    for cost in costs {
        let error = parse(&tampered(&header, |content| set_cost(content, cost))).unwrap_err();
        assert!(matches!(error, HeaderError::Kdf(_)) && error.is_damage(), "{cost:?}: {error}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_before_a_secret_is_needed() {
    let (any, _) = three(FactorPolicy::Any);
    let (split, _) = three(FactorPolicy::Threshold(2));
    type Change = fn(&mut Content);
    let changes: [(&VaultHeader, Change); 9] = [
        (&any, |content| content.policy = FactorPolicy::All),
        (&any, |content| content.policy = FactorPolicy::Threshold(2)),
        (&any, |content| content.shared_master_key = Some(vec![0; SHARED_BYTES])),
        (&any, |content| content.factors[2].id = 1),
        (&any, |content| content.next_factor = 3),
        (&any, |content| content.factors[0].sealed.push(0)),
        (&split, |content| content.policy = FactorPolicy::Any),
        (&split, |content| content.policy = FactorPolicy::Threshold(4)),
        (&split, |content| content.shared_master_key = None),
    ];
    for (at, (header, change)) in changes.into_iter().enumerate() {
        let error = parse(&tampered(header, change)).unwrap_err();
        assert!(matches!(error, HeaderError::Inconsistent) && error.is_damage(), "{at}: {error}");
    }
}

#[test]
fn another_format_another_profile_and_no_factor_are_named() {
    let (header, _) = header();
    let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
    let later = text.replacen("\"format\":2", "\"format\":3,\"more\":[]", 1);
    assert!(matches!(parse(later.as_bytes()), Err(HeaderError::Format { found: 3 })));
    let other = ProfileName::parse("home").unwrap();
    assert!(matches!(VaultHeader::parse(text.as_bytes(), &other), Err(HeaderError::OtherProfile { .. })));
    let none = tampered(&header, |content| content.factors.clear());
    assert!(matches!(parse(&none), Err(HeaderError::Factors { found: 0 })));
    let many = tampered(&header, |content| content.factors = vec![content.factors[0].clone(); 33]);
    assert!(matches!(parse(&many), Err(HeaderError::Factors { found: 33 })));
}

#[test]
fn a_cut_salt_and_an_unknown_field_are_refused() {
    let (header, _) = header();
    let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
    let salt = hex::encode(salt_of(&header));
    for (from, to) in [
        (salt.as_str(), &salt[2..]),
        (salt.as_str(), ""),
        ("\"policy\":\"any\"", "\"policy\":\"none\""),
        ("\"policy\":", "\"also\":1,\"policy\":"),
        ("\"checksum\":", "\"also\":1,\"checksum\":"),
        ("\"label\":\"\"", "\"label\":\"\\u001b\""),
        ("\"kind\":\"password\"", "\"kind\":\"nothing\""),
        ("\"sealed\":\"", "\"sealed\":\"x"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(matches!(parse(changed.as_bytes()), Err(HeaderError::Syntax { .. })), "{from}");
    }
}

/// Each bit of the file in turn: never a panic, never taken for a wrong password, never unnoticed.
#[test]
fn every_flipped_bit_is_found_without_a_password() {
    let (header, _) = three(FactorPolicy::Threshold(2));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    header.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mac_at = good.windows(5).position(|window| window == b"\"mac\"").unwrap();
    for bit in 0..mac_at * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match parse(&bytes) {
            Err(error) => assert!(error.is_damage(), "bit {bit}: {error}"),
            // White space, or a digit in the other case, means the same.
            Ok(same) => assert_eq!(same, header, "bit {bit}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_the_authentication_code_is_found_when_unlocking() {
    let (mut header, _) = header();
    header.mac[3] ^= 1;
    assert!(matches!(header.unlock(&password(b"right")), Err(HeaderError::Tampered)));
}

#[test]
fn errors_quote_nothing_of_the_file() {
    let error = parse(br#"{"format":2,"content":"hunter2"}"#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
