//! Pins the bytes of every message: postcard carries neither names nor lengths, so a moved field or variant would
//! be read as something else by a process of another version.

#![allow(clippy::unwrap_used)] // a test, as a whole

use core_types::access::AccessOperation;
use core_types::grant::{GrantBounds, GrantId, GrantRecord};
use core_types::header::{Destination, Header, Kind, Refusal, Seal, Sender};
use core_types::pattern::Pattern;
use core_types::program::{ImageDigest, Program};
use core_types::protocol::bus::{
    Announce, BusDenial, BusRequest, Enroll, Enrolled, EnrolledDaemon, KeyOf, Peers, RegistryChange, Revoke,
    Subscribe,
};
use core_types::protocol::explanation::{Decision, Explain, Explanation, GateVerdict, Verdict};
use core_types::protocol::grants::{Grant, GrantEntry, GrantState, Grants, RevokeGrant};
use core_types::protocol::import::{Compare, Comparison, Import, ImportedSecret, Supposed};
use core_types::protocol::launcher::{
    self, ChildCommand, ChildEvent, Children, ControllingTerminal, Files, Handed, Inherited, LauncherDenial,
    LauncherRequest, Mapping, Pin, ResourceLimit, Run, Standing, Started, TerminalState,
};
use core_types::protocol::profile::{
    AuditHead, AuditPoint, AuditSearch, AuditStatus, AuditSync, AuditTail, AuditVerify, AutoLock, AutoLocks,
    BeginUnlock, ChildExit, ChildRecord, EndUnlock, LastReads, LockCause, Operation, Outcome, ProfileRequest,
    Record, Requester, SecretOperationAudit, SessionWatch, SessionWatchState,
};
use core_types::protocol::secrets::{
    AcceptRollback, AddFactor, AgentKey, AuditAnchor, AuditKey, ChangePassword, CheckRecovery, Delete,
    DeliverAudit, FactorEntry, FactorKind, FactorLabel, FactorPolicy, FactorProof, FactorSheet, Factors,
    Gate, Get, GetBatch, GetFor, History, Init, List, Lock, LockFor, Move, NewFactor, Profiles, Purge, Rekey,
    RekeyProgress, RekeyState, RemoveFactor, Restore, SecretsDenial, SecretsRequest, Selection, Set,
    SetPolicy, Unlock, UnsupportedKey, VersionEntry,
};
use core_types::protocol::secrets::{
    Backup, BackupSheet, InspectBackup, MemoryProtection, Protection, ProtectionLevel, RestoreBackup, Rules,
    RulesState,
};
use core_types::protocol::{Topic, encode};
use core_types::reference::{ReferenceError, SecretReference};
use core_types::rule_book::{CitedRule, RuleKey};
use core_types::{NameError, ProfileName, SecretName, UnitName, WireSecret};
use serde::Serialize;

const GOLDEN: &str = include_str!("golden.txt");

fn profile() -> ProfileName {
    "work".parse().unwrap()
}

fn secret() -> WireSecret {
    WireSecret::new(vec![0xAA, 0xBB])
}

fn line<T: Serialize>(name: &str, message: &T) -> String {
    let bytes = encode(message).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {hex}")
}

fn headers() -> Vec<String> {
    let sender = Sender {
        name: Some("daemon-launcher".parse().unwrap()),
        connection: 3,
        uid: 1000,
        gid: 1000,
        pid: Some(77),
        executable: None,
        unit: Some("a.service".to_owned()),
    };
    let request = Header {
        kind: Kind::Request,
        id: 1,
        correlation: 0,
        destination: Destination::Service("daemon-secrets".parse().unwrap()),
        method: 6,
        sender: Some(sender),
        deadline_ms: 10_000,
        descriptors: 0,
        seal: Seal::Session(9),
    };
    let response = Header {
        kind: Kind::Response,
        correlation: 1,
        destination: Destination::Asker,
        sender: None,
        seal: Seal::Handshake,
        ..request.clone()
    };
    let event = Header {
        kind: Kind::Event,
        destination: Destination::Topic(Topic::BusIncident),
        seal: Seal::None,
        ..response.clone()
    };
    vec![
        line("header.request", &request),
        line("header.response", &response),
        line("header.event", &event),
        line("refusal.busy", &Refusal::Busy),
    ]
}

fn bus() -> Vec<String> {
    let announce = Announce { name: "daemon-x".parse().unwrap(), version: "1".to_owned() };
    vec![
        line("bus.announce", &BusRequest::from(announce)),
        line("bus.subscribe", &BusRequest::from(Subscribe { topic: Topic::ProfileState })),
        line("bus.peers", &BusRequest::from(Peers {})),
        line("bus.key_of", &BusRequest::from(KeyOf { name: "daemon-secrets".parse().unwrap() })),
    ]
}

fn enrolling() -> Vec<String> {
    let name = || "backup".parse().unwrap();
    let sender =
        Sender { name: None, connection: 3, uid: 0, gid: 0, pid: None, executable: None, unit: None };
    vec![
        line("bus.enroll", &BusRequest::from(Enroll { name: name(), key: [7; 32] })),
        line("bus.revoke", &BusRequest::from(Revoke { name: name() })),
        line("bus.enrolled", &BusRequest::from(Enrolled {})),
        line(
            "reply.enrolled",
            &EnrolledDaemon { name: name(), key: [7; 32], since_unix_ms: 1, connections: 2 },
        ),
        line("denial.already-enrolled", &BusDenial::AlreadyEnrolled(name())),
        line("denial.not-enrolled", &BusDenial::NotEnrolled(name())),
        line("event.registry-change", &RegistryChange { name: name(), enrolled: true, sender }),
        line("bus.subscribe-secrets", &BusRequest::from(Subscribe { topic: Topic::SecretsChanged })),
    ]
}

fn proof(factor: u32) -> FactorProof {
    FactorProof { factor, secret: secret() }
}

fn agent_key() -> AgentKey {
    AgentKey { public_key: vec![1, 2], nonce: [7; 32] }
}

fn factor_requests() -> Vec<(&'static str, SecretsRequest)> {
    let profile = profile();
    let add = |new| AddFactor {
        profile: profile.clone(),
        present: vec![proof(1)],
        label: FactorLabel::of("l"),
        new,
    };
    vec![
        ("secrets.factors", Factors { profile: profile.clone() }.into()),
        ("secrets.add-password", add(NewFactor::Password { password: secret() }).into()),
        ("secrets.add-agent", add(NewFactor::SshAgent { key: agent_key(), signature: secret() }).into()),
        ("secrets.add-recovery", add(NewFactor::Recovery { code: secret() }).into()),
        (
            "secrets.remove-factor",
            RemoveFactor { profile: profile.clone(), present: vec![proof(1)], factor: 2 }.into(),
        ),
        (
            "secrets.set-policy",
            SetPolicy {
                profile: profile.clone(),
                present: vec![proof(1)],
                policy: FactorPolicy::Threshold(2),
            }
            .into(),
        ),
        ("secrets.rekey", Rekey { profile: profile.clone(), present: vec![proof(1)] }.into()),
        ("secrets.rekey-progress", RekeyProgress { profile: profile.clone() }.into()),
        ("secrets.check-recovery", CheckRecovery { profile: profile.clone(), code: secret() }.into()),
    ]
}

fn get_for(profile: &ProfileName) -> GetFor {
    let unit = UnitName::parse("web.service").unwrap();
    GetFor { profile: profile.clone(), name: "a/b".to_owned(), unit, uid: 1000, pid: 7 }
}

fn secrets() -> Vec<String> {
    let (profile, name) = (profile(), "a/b".to_owned());
    let entries: Vec<(&str, SecretsRequest)> = vec![
        ("secrets.init", Init { profile: profile.clone(), password: secret() }.into()),
        ("secrets.unlock", Unlock { profile: profile.clone(), factors: vec![proof(1)] }.into()),
        ("secrets.lock", Lock { profile: None }.into()),
        ("secrets.profiles", Profiles {}.into()),
        (
            "secrets.change-password",
            ChangePassword { profile: profile.clone(), factor: 1, present: vec![proof(1)], new: secret() }
                .into(),
        ),
        ("secrets.get", Get { profile: profile.clone(), name: name.clone(), version: None }.into()),
        (
            "secrets.get-version",
            Get { profile: profile.clone(), name: name.clone(), version: Some(2) }.into(),
        ),
        (
            "secrets.get-batch-all",
            GetBatch { profile: profile.clone(), selection: Selection::All, program: None }.into(),
        ),
        (
            "secrets.get-batch-only",
            GetBatch {
                profile: profile.clone(),
                selection: Selection::Only(vec![core_types::pattern::Pattern::parse("a/*").unwrap()]),
                program: Some(Program { path: "/p".to_owned(), image: ImageDigest::new([7; 32]) }),
            }
            .into(),
        ),
        (
            "secrets.set",
            Set {
                profile: profile.clone(),
                name: name.clone(),
                value: secret(),
                expires_unix_ms: None,
                note: None,
            }
            .into(),
        ),
        (
            "secrets.set-with",
            Set {
                profile: profile.clone(),
                name: name.clone(),
                value: secret(),
                expires_unix_ms: Some(5),
                note: Some("n".parse().unwrap()),
            }
            .into(),
        ),
        ("secrets.delete", Delete { profile: profile.clone(), name: name.clone() }.into()),
        (
            "secrets.list",
            List { profile: profile.clone(), pattern: None, after: Some("a".parse().unwrap()) }.into(),
        ),
        ("secrets.history", History { profile: profile.clone(), name: name.clone() }.into()),
        (
            "secrets.restore",
            Restore { profile: profile.clone(), name: name.clone(), version: Some(3) }.into(),
        ),
        ("secrets.purge", Purge { profile: profile.clone(), name: name.clone() }.into()),
        ("secrets.move", Move { profile: profile.clone(), from: name, to: "c".to_owned() }.into()),
        ("secrets.accept-rollback", AcceptRollback { profile: profile.clone() }.into()),
        ("secrets.audit-key", AuditKey { profile: profile.clone(), nonce: [5; 16] }.into()),
        (
            "secrets.audit-anchor",
            AuditAnchor { profile: profile.clone(), point: AuditPoint { sequence: 3, link: [6; 32] } }.into(),
        ),
        ("secrets.lock-for", LockFor { profile: profile.clone(), cause: LockCause::Idle }.into()),
        ("secrets.get-for", get_for(&profile).into()),
    ];
    let entries = entries.into_iter().chain(factor_requests());
    let denials = [
        ("denial.locked", SecretsDenial::Locked),
        ("denial.invalid-name", SecretsDenial::InvalidName(NameError::Slash)),
        ("denial.rolled-back", SecretsDenial::RolledBack { profile: profile.clone(), found: "f".to_owned() }),
        ("denial.expired", SecretsDenial::Expired { name: "a".to_owned(), since_unix_ms: 1 }),
        ("denial.unrecorded", SecretsDenial::Unrecorded),
        ("denial.wrong-factor", SecretsDenial::WrongFactor(FactorKind::SshAgent)),
        ("denial.not-enough-factors", SecretsDenial::NotEnoughFactors { given: 1, needed: 2, of: 3 }),
        ("denial.policy", SecretsDenial::PolicyImpossible { policy: FactorPolicy::Threshold(2), factors: 1 }),
        (
            "denial.audit-unwritable",
            SecretsDenial::AuditUnwritable { profile: "work".to_owned(), reason: "r".to_owned() },
        ),
        ("denial.unsupported-key", SecretsDenial::UnsupportedKey(UnsupportedKey::Ecdsa)),
    ];
    let sheet = FactorSheet {
        policy: FactorPolicy::All,
        factors: vec![FactorEntry {
            id: 2,
            kind: FactorKind::SshAgent,
            label: FactorLabel::of("l"),
            created_unix_ms: 3,
            agent: Some(agent_key()),
        }],
    };
    let version = VersionEntry {
        version: 2,
        set_unix_ms: 1,
        bytes: 3,
        expires_unix_ms: None,
        removed_unix_ms: Some(4),
        current: false,
        note: None,
    };
    let requests = entries.map(|(name, request)| line(name, &request));
    let running = RekeyState::Running { done: 3, total: 300 };
    let replies = [line("reply.factors", &sheet), line("reply.rekey-running", &running)];
    let requests = requests.chain(replies);
    let denials = denials.iter().map(|(name, denial)| line(name, denial));
    requests.chain(denials).chain([line("secrets.version-entry", &version)]).collect()
}

fn protection() -> Vec<String> {
    let reply = MemoryProtection {
        level: ProtectionLevel::Locked,
        bytes_in_use: 300,
        lock_limit_bytes: Some(8 << 20),
        swap: Some(true),
    };
    vec![
        line("secrets.protection", &SecretsRequest::from(Protection {})),
        line("reply.memory-protection", &reply),
    ]
}

fn rules() -> Vec<String> {
    let state = RulesState { patterns: 300, problem: Some("p".to_owned()) };
    vec![
        line("secrets.rules", &SecretsRequest::from(Rules {})),
        line("reply.rules", &state),
        line("operation.config-change", &Operation::ConfigChange),
        line("operation.enroll", &Operation::Enroll),
        line("operation.revoke", &Operation::Revoke),
        line("operation.grant", &Operation::Grant),
        line("operation.revoke-grant", &Operation::RevokeGrant),
        line("cause.rekey", &LockCause::Rekey),
        line("cause.after", &LockCause::After),
        line("cause.logout", &LockCause::Logout),
        line("exit.unknown", &ChildExit::Unknown),
    ]
}

fn importing() -> Vec<String> {
    let secret_of_file = ImportedSecret {
        name: "a".to_owned(),
        value: secret(),
        expires_unix_ms: Some(5),
        note: Some("n".parse().unwrap()),
        replaces: Some(3),
    };
    let compare =
        Compare { profile: profile(), secrets: vec![Supposed { name: "a".to_owned(), value: secret() }] };
    vec![
        line(
            "secrets.import",
            &SecretsRequest::from(Import { profile: profile(), key: secret(), count: 300 }),
        ),
        line("import.secret", &secret_of_file),
        line("secrets.compare", &SecretsRequest::from(compare)),
        line("reply.compare", &[Comparison::Missing, Comparison::Same, Comparison::Different]),
        line("operation.compare", &Operation::Compare),
        line("denial.bad-import", &SecretsDenial::BadImport("r".to_owned())),
        line("denial.import-too-large", &SecretsDenial::ImportTooLarge),
        line("secrets.deliver-audit", &SecretsRequest::from(DeliverAudit {})),
        line("denial.changed-meanwhile", &SecretsDenial::ChangedMeanwhile("a".to_owned())),
    ]
}

fn grant() -> GrantEntry {
    GrantEntry {
        id: GrantId(0x3fa9_1c02),
        profile: profile(),
        pattern: Pattern::parse("a*").unwrap(),
        to: "backup".parse().unwrap(),
        made_unix_ms: 300,
        state: GrantState::Live { seconds_left: 7 },
        uses: Some(3),
        uses_left: Some(2),
    }
}

fn granting() -> Vec<String> {
    let call = Grant {
        profile: profile(),
        pattern: Pattern::parse("a*").unwrap(),
        to: "backup".parse().unwrap(),
        seconds: 600,
        uses: Some(3),
    };
    let id = GrantId(0x3fa9_1c02);
    vec![
        line("secrets.grant", &SecretsRequest::from(call)),
        line("secrets.grants", &SecretsRequest::from(Grants {})),
        line("secrets.revoke-grant", &SecretsRequest::from(RevokeGrant { id })),
        line("reply.grant", &grant()),
        line("reply.grant-expired", &GrantState::Expired),
        line("reply.grant-used-up", &GrantState::UsedUp),
        line("denial.grant-expired", &SecretsDenial::GrantExpired(id)),
        line("denial.grant-used-up", &SecretsDenial::GrantUsedUp(id)),
        line("denial.no-such-grant", &SecretsDenial::NoSuchGrant(id)),
        line("denial.too-many-grants", &SecretsDenial::TooManyGrants),
        line("denial.not-grantable", &SecretsDenial::NotGrantable("cli".parse().unwrap())),
        line("denial.grant-bounds", &SecretsDenial::GrantBounds),
    ]
}

fn explaining() -> Vec<String> {
    let explain = Explain {
        profile: profile(),
        name: "a".to_owned(),
        requester: Some("backup".parse().unwrap()),
        operation: AccessOperation::Delete,
    };
    let rule = CitedRule {
        allowed: false,
        requester: "backup".to_owned(),
        key: RuleKey::NotListed(AccessOperation::Delete),
        pattern: Some(Pattern::parse("a*").unwrap()),
    };
    let verdict = |verdict| GateVerdict { gate: Gate::AccessRule, verdict };
    let explanation = Explanation {
        requester: "backup".to_owned(),
        gates: vec![
            verdict(Verdict::Passes),
            verdict(Verdict::Denies(SecretsDenial::Forbidden)),
            verdict(Verdict::NotAsked),
            verdict(Verdict::NotTold),
        ],
        rule: Some(rule),
        grant: Some(grant()),
        decision: Decision::Denied(Gate::AccessRule),
    };
    let of_unit = Explain { requester: Some("unit:web.service".parse().unwrap()), ..explain.clone() };
    vec![
        line("secrets.explain", &SecretsRequest::from(explain)),
        line("secrets.explain-unit", &SecretsRequest::from(of_unit)),
        line("reply.explanation", &explanation),
    ]
}

fn backups() -> Vec<String> {
    let sheet = BackupSheet {
        profile: profile(),
        created_unix_ms: 1,
        database_bytes: 300,
        factors: FactorSheet { policy: FactorPolicy::Any, factors: Vec::new() },
    };
    let restore = RestoreBackup { profile: profile(), factors: vec![proof(1)], replace: true };
    vec![
        line("secrets.backup", &SecretsRequest::from(Backup { profile: profile() })),
        line("secrets.inspect-backup", &SecretsRequest::from(InspectBackup {})),
        line("secrets.restore-backup", &SecretsRequest::from(restore)),
        line("reply.backup-sheet", &sheet),
        line("denial.bad-backup", &SecretsDenial::BadBackup("r".to_owned())),
    ]
}

fn profile_service() -> Vec<String> {
    let search = AuditSearch {
        after: 1,
        profile: Some(profile()),
        subject: Some("a".to_owned()),
        requester: None,
        since_unix_ms: Some(2),
    };
    let entry = SecretOperationAudit {
        unix_ms: 1,
        operation: Operation::Get,
        profile: Some(profile()),
        subject: Some("a".to_owned()),
        requester: Requester { name: "cli".to_owned(), uid: 0, pid: None, executable: None, unit: None },
        outcome: Outcome::Denied { gate: Gate::RateLimit, reason: "r".to_owned() },
        generation: Some(300),
        cause: Some(LockCause::Shutdown),
        child: Some(ChildRecord {
            pid: 7,
            profiles: vec!["work".to_owned()],
            secrets: vec!["a".to_owned()],
            variables: vec!["V".to_owned()],
            exit: Some(ChildExit::Signal(9)),
        }),
        missing: Some(2),
        grant: Some(GrantRecord {
            id: GrantId(0x3fa9_1c02),
            bounds: Some(GrantBounds { to: "backup".parse().unwrap(), seconds: 600, uses: Some(3) }),
        }),
    };
    vec![
        line("profile.begin-unlock", &ProfileRequest::from(BeginUnlock { profile: profile() })),
        line("profile.end-unlock", &ProfileRequest::from(EndUnlock { profile: profile(), right: true })),
        line(
            "profile.record",
            &ProfileRequest::from(Record { origin: 1, first: 2, entries: vec![entry], missing: 3 }),
        ),
        line("profile.audit-tail", &ProfileRequest::from(AuditTail { count: 5, after: Some(1) })),
        line("profile.audit-verify", &ProfileRequest::from(AuditVerify {})),
        line("profile.audit-status", &ProfileRequest::from(AuditStatus {})),
        line("profile.audit-sync", &ProfileRequest::from(AuditSync {})),
        line("profile.audit-head", &ProfileRequest::from(AuditHead {})),
        line("profile.audit-search", &ProfileRequest::from(search)),
        line("profile.auto-locks", &ProfileRequest::from(AutoLocks {})),
        line("reply.auto-lock", &AutoLock { profile: profile(), seconds_left: 300, cause: LockCause::Idle }),
        line("profile.session-watch", &ProfileRequest::from(SessionWatch {})),
        line("reply.session-watch", &SessionWatchState::Absent("r".to_owned())),
        line("profile.last-reads", &ProfileRequest::from(LastReads { profile: profile(), after: None })),
    ]
}

fn launcher() -> Vec<String> {
    let run = Run {
        profiles: vec![profile()],
        selection: Selection::All,
        mappings: vec![Mapping { variable: "V".to_owned(), name: SecretName::parse("a").unwrap() }],
        prefix: "P_".to_owned(),
        handed: Box::new(Handed {
            descriptors: vec![SecretName::parse("b").unwrap()],
            stdin: Some(SecretName::parse("c").unwrap()),
            files: Some(Files { folder: Some("/s".to_owned()), owner: Some((300, 2)) }),
        }),
        arguments: vec![WireSecret::new(b"true".to_vec())],
        environment: vec![WireSecret::new(b"A=b".to_vec())],
        umask: 0o22,
        limits: vec![ResourceLimit { resource: 7, soft: Some(1024), hard: None }],
        inherited: Box::new(Inherited { ignored_signals: 1, blocked_signals: 300, nice: 5 }),
        terminal: ControllingTerminal::Apart,
        standing: Box::new(Standing { witness: secret(), namespaces: vec![1, 300] }),
        mask: true,
        pin: Some(Box::new(Pin::Image(ImageDigest::new([7; 32])))),
    };
    let ruled = Run { pin: Some(Box::new(Pin::Ruled)), ..Run::default() };
    let malformed = LauncherDenial::MalformedReference {
        variable: "V".to_owned(),
        text: "pds://x".to_owned(),
        error: ReferenceError::NoName,
    };
    let unresolved = LauncherDenial::UnresolvedReference {
        variable: "V".to_owned(),
        reference: SecretReference::parse("pds://work/a").unwrap(),
        denial: Box::new(SecretsDenial::ForbiddenName("a".to_owned())),
    };
    vec![
        line("launcher.run", &LauncherRequest::from(run)),
        line("launcher.run-ruled", &LauncherRequest::from(ruled)),
        line("launcher.children", &LauncherRequest::from(Children { after: Some(300) })),
        line("launcher.deliver-audit", &LauncherRequest::from(launcher::DeliverAudit {})),
        line("child.signal", &ChildCommand::Signal(15)),
        line("child.signal-group", &ChildCommand::SignalGroup(2)),
        line("child.continue", &ChildCommand::Continue),
        line(
            "child.take-terminal",
            &ChildCommand::TakeTerminal {
                found: TerminalState { modes: [1, 2, 3, 400], waits: [1, 0] },
                made: TerminalState { modes: [0, 0, 3, 0], waits: [2, 5] },
            },
        ),
        line("child.gave-terminal-back", &ChildCommand::GaveTerminalBack),
        line("child.stopped", &ChildEvent::Stopped(20)),
        line("child.exited", &ChildEvent::Exited(37)),
        line("child.killed", &ChildEvent::Killed(9)),
        line("child.executed", &ChildEvent::Executed),
        line("denial.malformed-reference", &malformed),
        line("denial.unresolved-reference", &unresolved),
        line("denial.too-much-to-mask", &LauncherDenial::TooMuchToMask { bytes: 300, limit: 65_536 }),
        line(
            "denial.other-image",
            &LauncherDenial::OtherImage {
                expected: ImageDigest::new([7; 32]),
                found: ImageDigest::new([8; 32]),
            },
        ),
        line("denial.unpinnable", &LauncherDenial::Unpinnable("x".to_owned())),
        line(
            "reply.started",
            &Started { pid: 300, masked: vec![secret()], exposed: Some("/r/files/a".to_owned()) },
        ),
    ]
}

#[test]
fn the_bytes_of_every_message_are_as_they_were() {
    let now = [
        headers(),
        bus(),
        secrets(),
        profile_service(),
        launcher(),
        protection(),
        backups(),
        rules(),
        enrolling(),
        explaining(),
        granting(),
        importing(),
    ]
    .concat()
    .join("\n");
    assert_eq!(now, GOLDEN.trim_end(), "a message changed: add a call instead of changing one\n{now}");
}
