//! Who asks, for what, and which rules there are about it. Pure.

use core_types::UnitName;
use core_types::access::{AccessOperation, AccessPolicy};
use core_types::header::Sender;
use core_types::name::{BUS, CLI, DaemonName, LAUNCHER, PROFILE, ProfileName, SECRETS};
use core_types::program::Program;
use core_types::protocol::explanation::Asker;
use core_types::protocol::profile::Operation;
use core_types::rule_book::{Judged, RuleBook, Ruling};

/// Declares what can be asked of the daemon, each with what it is called in the audit log.
macro_rules! actions {
    ($( $(#[$only:meta])* $action:ident => $operation:expr, )+) => {
        /// What can be asked of the daemon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Action {
            $( $(#[$only])* $action, )+
        }

        impl Action {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[ $( $(#[$only])* Self::$action, )+ ];

            /// What it is called in the audit log; `None` for what is not recorded when it succeeds.
            pub(crate) fn operation(self) -> Option<Operation> {
                match self {
                    $( $(#[$only])* Self::$action => $operation, )+
                }
            }
        }
    };
}

actions! {
    Init => Some(Operation::Init),
    Unlock => Some(Operation::Unlock),
    Lock => Some(Operation::Lock),
    Profiles => None,
    ChangePassword => Some(Operation::ChangePassword),
    Factors => None,
    AddFactor => Some(Operation::AddFactor),
    RemoveFactor => Some(Operation::RemoveFactor),
    SetPolicy => Some(Operation::SetPolicy),
    CheckRecovery => Some(Operation::CheckRecovery),
    Rekey => Some(Operation::Rekey),
    RekeyProgress => None,
    Get => Some(Operation::Get),
    GetBatch => Some(Operation::Get),
    Set => Some(Operation::Set),
    Import => Some(Operation::Set),
    Compare => Some(Operation::Compare),
    Delete => Some(Operation::Delete),
    List => Some(Operation::List),
    History => Some(Operation::History),
    Restore => Some(Operation::Restore),
    Purge => Some(Operation::Purge),
    Move => Some(Operation::Move),
    AcceptRollback => Some(Operation::AcceptRollback),
    Protection => None,
    Rules => None,
    // Looking is no attempt.
    Explain => None,
    Grant => Some(Operation::Grant),
    Grants => None,
    RevokeGrant => Some(Operation::RevokeGrant),
    Backup => Some(Operation::Backup),
    InspectBackup => None,
    RestoreBackup => Some(Operation::RestoreBackup),
    #[cfg(feature = "ipc-field-encryption")]
    FieldKey => Some(Operation::FieldKey),
}

impl Action {
    /// Whether a client that has a value may get another one afterwards, or one that it could not have.
    pub(crate) fn changes_what_can_be_read(self) -> bool {
        use Action::{Delete, Import, Init, Move, Restore, RestoreBackup, Set, Unlock};
        matches!(self, Init | Unlock | Set | Import | Delete | Restore | Move | RestoreBackup)
    }
}

/// What a requester is to this daemon. It follows from the name that belongs to the requester's Noise key, and from
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A client without a registered key: the command line of this user.
    Cli,
    /// `daemon-launcher`.
    Launcher,
    /// `daemon-profile`.
    Profile,
    /// One of our own daemons that never has to ask for a secret, or a key registered under the name `cli`.
    Bystander,
    /// A third party's daemon.
    Enrolled,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requester {
    name: String,
    role: Role,
    /// The program that the launcher reads for, where it has looked at it.
    program: Option<Program>,
}

impl From<&Sender> for Requester {
    fn from(sender: &Sender) -> Self {
        let role = match sender.name.as_ref().map(DaemonName::as_str) {
            None => Role::Cli,
            Some(CLI) => Role::Bystander,
            Some(name) => Role::of_daemon(name),
        };
        Self::new(sender.requester().to_owned(), role)
    }
}

impl Role {
    fn of_daemon(name: &str) -> Self {
        match name {
            LAUNCHER => Self::Launcher,
            PROFILE => Self::Profile,
            BUS | SECRETS => Self::Bystander,
            _ => Self::Enrolled,
        }
    }
}

impl Requester {
    fn new(name: String, role: Role) -> Self {
        Self { name, role, program: None }
    }

    /// The same, reading for this program. Nobody is asked about it but the launcher.
    pub(crate) fn reading_for(self, program: Option<&Program>) -> Self {
        Self { program: program.cloned(), ..self }
    }

    /// Whoever rules and the audit log know by this name: someone else than a sender, to be asked about.
    pub(crate) fn known_as(asker: &Asker) -> Self {
        match asker {
            Asker::Daemon(name) if name.as_str() == CLI => Self::new(CLI.to_owned(), Role::Cli),
            Asker::Daemon(name) => Self::new(name.as_str().to_owned(), Role::of_daemon(name.as_str())),
            Asker::Unit(unit) => Self::new(unit.requester(), Role::Enrolled),
        }
    }

    /// A systemd unit, for which `daemon-launcher` asks; whoever else claims to has no business here.
    pub(crate) fn unit(unit: &UnitName, sender: &Sender) -> Self {
        match Self::from(sender) {
            Self { role: Role::Launcher, .. } => Self::new(unit.requester(), Role::Enrolled),
            other => other.out_of_place(),
        }
    }

    /// `daemon-launcher`.
    pub(crate) fn launcher() -> Self {
        Self::new(LAUNCHER.to_owned(), Role::Launcher)
    }

    /// What it is to this daemon.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The same requester where it has no business.
    pub(crate) fn out_of_place(self) -> Self {
        Self { role: Role::Bystander, ..self }
    }

    /// Whom the rules know it as.
    pub(crate) fn judged(&self) -> Judged<'_> {
        match self.role {
            Role::Cli => Judged::Cli,
            Role::Launcher => Judged::Launcher(self.program.as_ref()),
            Role::Enrolled => Judged::Enrolled(&self.name),
            Role::Profile | Role::Bystander => Judged::Nobody(&self.name),
        }
    }

    /// The name that rules, rate limits and the audit log use.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether such a requester may ask for such an action at all, whatever the rules say.
    ///
    /// The launcher reads and never writes, `daemon-profile` locks and never sees a secret, the bus does neither.
    pub(crate) fn may_ask(&self, action: Action) -> bool {
        use Action::{
            Delete, Explain, Get, GetBatch, History, List, Lock, Move, Profiles, Purge, Restore, Set,
        };
        // Whoever may ask for values needs the key that they come with.
        #[cfg(feature = "ipc-field-encryption")]
        let action = if action == Action::FieldKey { Get } else { action };
        match self.role {
            Role::Cli => true,
            Role::Launcher => matches!(action, Get | GetBatch | List | Profiles),
            Role::Profile => matches!(action, Lock | Profiles),
            Role::Enrolled => {
                matches!(
                    action,
                    Get | GetBatch | Set | Delete | List | History | Restore | Purge | Move | Explain
                )
            }
            Role::Bystander => false,
        }
    }
}

/// What rules must allow for an action, on the name at this `place` among those that it is about.
///
/// What the launcher reads it gives to a program. Moving a secret lets whoever may read the new name read what was
/// under the old one, so it takes no less than doing it by hand.
fn needed(role: Role, action: Action, place: usize) -> &'static [AccessOperation] {
    use AccessOperation as On;
    match (action, role) {
        (Action::Get | Action::GetBatch, Role::Launcher) => &[On::Run],
        (Action::Get | Action::GetBatch | Action::History | Action::Compare, _) => &[On::Get],
        (Action::List, _) => &[On::List],
        (Action::Set | Action::Import | Action::Restore, _) => &[On::Set],
        (Action::Delete | Action::Purge, _) => &[On::Delete],
        (Action::Move, _) if place == 0 => &[On::Get, On::Delete],
        (Action::Move, _) => &[On::Set],
        // Nothing else is about one secret, so no rule can be about it.
        _ => &[],
    }
}

/// The access rules of the configuration, as they are asked about attempts.
#[derive(Debug, Default)]
pub(crate) struct AccessRules(RuleBook);

impl AccessRules {
    pub(crate) fn new(policy: &AccessPolicy) -> Self {
        Self(RuleBook::new(policy))
    }

    /// What the rules say of an action on the name at this `place` among those that it is about: the first that denies
    /// it, or else the first that allows it; `None` where no rule can be about it.
    pub(crate) fn ruling<'a>(
        &'a self,
        requester: &'a Requester,
        profile: &ProfileName,
        action: Action,
        (place, name): (usize, &str),
    ) -> Option<Ruling<'a>> {
        let needed = needed(requester.role, action, place).iter();
        let judged = needed
            .map(|operation| self.0.judge(requester.judged(), profile.as_str(), *operation, Some(name)));
        judged.reduce(|first, next| if first.allowed { next } else { first })
    }

    /// Whether the rules allow an action on the name at this `place` among those that it is about.
    pub(crate) fn allow(
        &self,
        requester: &Requester,
        profile: &ProfileName,
        action: Action,
        place: (usize, &str),
    ) -> bool {
        self.ruling(requester, profile, action, place).is_none_or(|ruling| ruling.allowed)
    }

    /// Whether the rules allow an action that is about no name in particular.
    pub(crate) fn allow_some(&self, requester: &Requester, profile: &ProfileName, action: Action) -> bool {
        // Who may ask for values or store them needs the key that they come with.
        #[cfg(feature = "ipc-field-encryption")]
        if action == Action::FieldKey {
            let actions = [Action::Get, Action::Set];
            return actions.into_iter().any(|action| self.allow_some(requester, profile, action));
        }
        let judge =
            |operation: &_| self.0.judge(requester.judged(), profile.as_str(), *operation, None).allowed;
        match needed(requester.role, action, 0) {
            [] => requester.role == Role::Cli,
            needed => needed.iter().all(judge),
        }
    }

    /// Whether a name that is in a vault is shown to the requester, and which rule says so.
    pub(crate) fn showing<'a>(
        &'a self,
        requester: &'a Requester,
        profile: &ProfileName,
        name: &str,
    ) -> Ruling<'a> {
        self.0.shows(requester.judged(), profile.as_str(), name)
    }

    /// Whether a name that is in a vault is shown to the requester.
    pub(crate) fn show(&self, requester: &Requester, profile: &ProfileName, name: &str) -> bool {
        self.showing(requester, profile, name).allowed
    }

    /// Whether the requester may have the value of a name.
    pub(crate) fn may_read(&self, requester: &Requester, profile: &ProfileName, name: &str) -> bool {
        self.allow(requester, profile, Action::GetBatch, (0, name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sender that the bus knows by `name`.
    pub(crate) fn sender(name: Option<&str>) -> Sender {
        Sender {
            name: name.map(|name| DaemonName::parse(name).unwrap()),
            connection: 1,
            uid: 1000,
            gid: 1000,
            pid: None,
            executable: None,
            unit: None,
        }
    }

    pub(crate) fn requester(name: Option<&str>) -> Requester {
        Requester::from(&sender(name))
    }

    #[test]
    fn the_identity_table() {
        use Action::*;
        let table: [(Option<&str>, &[Action]); 7] = [
            (None, Action::ALL),
            (Some("daemon-launcher"), &[Profiles, Get, GetBatch, List]),
            (Some("daemon-profile"), &[Lock, Profiles]),
            (Some("daemon-bus"), &[]),
            (Some("daemon-secrets"), &[]),
            (Some("cli"), &[]),
            (Some("backup"), &[Get, GetBatch, Set, Delete, List, History, Restore, Purge, Move, Explain]),
        ];
        for (name, allowed) in table {
            for &action in Action::ALL {
                let expected = allowed.contains(&action);
                assert_eq!(requester(name).may_ask(action), expected, "{name:?} {action:?}");
            }
        }
    }

    fn profile() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    /// Rules about the profile `work`.
    pub(crate) fn rules(text: &str) -> AccessRules {
        AccessRules::new(&core_types::config::Config::parse(text).unwrap().access)
    }

    /// What a requester may do with a name by these rules.
    fn allowed(rules: &AccessRules, who: Option<&str>, name: &str) -> Vec<Action> {
        let may = |action: &&Action| rules.allow(&requester(who), &profile(), **action, (0, name));
        [Action::Get, Action::Set, Action::Delete, Action::List].iter().filter(may).copied().collect()
    }

    #[test]
    fn without_a_table_only_the_users_own_front_ends_are_allowed() {
        let elsewhere = "[profiles.home.access.cli]\n[profiles.home.access.backup]\nget = ['*']\n";
        for rules in [AccessRules::default(), rules(elsewhere)] {
            for (who, expected) in [
                (None, true),
                (Some("daemon-launcher"), true),
                (Some("daemon-profile"), false),
                (Some("daemon-bus"), false),
                (Some("cli"), false),
                (Some("backup"), false),
            ] {
                assert_eq!(!allowed(&rules, who, "a").is_empty(), expected, "{who:?}");
                assert_eq!(rules.allow_some(&requester(who), &profile(), Action::List), expected, "{who:?}");
            }
        }
    }

    #[test]
    fn a_daemon_of_ours_gains_nothing_by_a_table_of_that_name() {
        let rules = rules("[profiles.work.access.cli]\nget = ['*']\n");
        assert_eq!(allowed(&rules, Some("cli"), "a"), []);
        assert_eq!(allowed(&rules, None, "a"), [Action::Get]);
    }

    #[test]
    fn a_table_allows_what_it_lists_and_denial_wins() {
        let rules = rules(
            "[profiles.work.access.backup]\nget = ['db/*', 'a']\nset = []\nlist = ['*']\ndeny = ['db/root*']\n",
        );
        let backup = Some("backup");
        assert_eq!(allowed(&rules, backup, "db/x"), [Action::Get, Action::List]);
        assert_eq!(allowed(&rules, backup, "a"), [Action::Get, Action::List]);
        assert_eq!(allowed(&rules, backup, "b"), [Action::List]);
        assert_eq!(allowed(&rules, backup, "db/root/1"), []);
        let some = |action| rules.allow_some(&requester(backup), &profile(), action);
        assert!(some(Action::GetBatch) && some(Action::List) && !some(Action::Set) && !some(Action::Delete));
        let shown = |name| rules.show(&requester(backup), &profile(), name);
        assert!(shown("a") && shown("db/x") && !shown("b") && !shown("db/root"));
    }

    #[test]
    fn the_launcher_may_run_what_both_tables_allow() {
        let run = |text: &str, name: &str| {
            rules(text).allow(&requester(Some(LAUNCHER)), &profile(), Action::GetBatch, (0, name))
        };
        assert!(run("", "a"));
        let launchers = "[profiles.work.access.daemon-launcher]\nrun = ['a*']\nget = ['*']\n";
        assert!(run(launchers, "a1") && !run(launchers, "b1"));
        let users = "[profiles.work.access.cli]\nrun = ['*1']\nget = ['*']\n";
        assert!(run(users, "b1") && !run(users, "b2"));
        let both = format!("{launchers}{users}");
        assert!(run(&both, "a1") && !run(&both, "a2") && !run(&both, "b1"));
        assert!(!run("[profiles.work.access.cli]\nget = ['*']\n", "a"), "what is not listed is not allowed");
    }

    #[test]
    fn moving_takes_reading_and_removing_the_one_and_writing_the_other() {
        let may = |text: &str| {
            let (rules, backup) =
                (rules(&format!("[profiles.work.access.backup]\n{text}\n")), requester(Some("backup")));
            [(0, "a"), (1, "b")].iter().all(|name| rules.allow(&backup, &profile(), Action::Move, *name))
        };
        assert!(may("get = ['a']\ndelete = ['a']\nset = ['b']"));
        assert!(!may("delete = ['a']\nset = ['b']\nget = ['b']"), "it could be read under its new name");
        assert!(!may("get = ['a']\nset = ['*']"));
        assert!(!may("get = ['*']\ndelete = ['*']\nset = ['a']"));
        assert!(!may("get = ['*']\ndelete = ['*']\nset = ['*']\ndeny = ['b']"));
    }
}
