//! Who asks, for what, and which rules there are about it. Pure.

use core_types::header::Sender;
use core_types::name::{BUS, CLI, DaemonName, LAUNCHER, PROFILE, SECRETS};
use core_types::protocol::profile::Operation;

/// What can be asked of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Init,
    Unlock,
    Lock,
    Profiles,
    ChangePassword,
    Factors,
    AddFactor,
    RemoveFactor,
    SetPolicy,
    CheckRecovery,
    Rekey,
    RekeyProgress,
    Get,
    GetBatch,
    Set,
    Delete,
    List,
    History,
    Restore,
    Purge,
    Move,
    AcceptRollback,
    Protection,
    Backup,
    InspectBackup,
    RestoreBackup,
    #[cfg(feature = "ipc-field-encryption")]
    FieldKey,
}

impl Action {
    /// What it is called in the audit log; `None` for what is not recorded when it succeeds.
    pub(crate) fn operation(self) -> Option<Operation> {
        match self {
            Self::Init => Some(Operation::Init),
            Self::Unlock => Some(Operation::Unlock),
            Self::Lock => Some(Operation::Lock),
            Self::ChangePassword => Some(Operation::ChangePassword),
            Self::Get | Self::GetBatch => Some(Operation::Get),
            Self::Set => Some(Operation::Set),
            Self::Delete => Some(Operation::Delete),
            Self::List => Some(Operation::List),
            Self::AddFactor => Some(Operation::AddFactor),
            Self::RemoveFactor => Some(Operation::RemoveFactor),
            Self::SetPolicy => Some(Operation::SetPolicy),
            Self::CheckRecovery => Some(Operation::CheckRecovery),
            Self::Rekey => Some(Operation::Rekey),
            Self::History => Some(Operation::History),
            Self::Restore => Some(Operation::Restore),
            Self::Purge => Some(Operation::Purge),
            Self::Move => Some(Operation::Move),
            Self::AcceptRollback => Some(Operation::AcceptRollback),
            #[cfg(feature = "ipc-field-encryption")]
            Self::FieldKey => Some(Operation::FieldKey),
            Self::Profiles | Self::Factors | Self::RekeyProgress | Self::Protection | Self::InspectBackup => {
                None
            }
            Self::Backup => Some(Operation::Backup),
            Self::RestoreBackup => Some(Operation::RestoreBackup),
        }
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
}

impl From<&Sender> for Requester {
    fn from(sender: &Sender) -> Self {
        let role = match sender.name.as_ref().map(DaemonName::as_str) {
            None => Role::Cli,
            Some(LAUNCHER) => Role::Launcher,
            Some(PROFILE) => Role::Profile,
            Some(BUS | SECRETS | CLI) => Role::Bystander,
            Some(_) => Role::Enrolled,
        };
        Self { name: sender.requester().to_owned(), role }
    }
}

impl Requester {
    /// The name that rules, rate limits and the audit log use.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether such a requester may ask for such an action at all, whatever the rules say.
    ///
    /// The launcher reads and never writes, `daemon-profile` locks and never sees a secret, the bus does neither.
    pub(crate) fn may_ask(&self, action: Action) -> bool {
        use Action::{Delete, Get, GetBatch, History, List, Lock, Move, Profiles, Purge, Restore, Set};
        // Whoever may ask for values needs the key that they come with.
        #[cfg(feature = "ipc-field-encryption")]
        let action = if action == Action::FieldKey { Get } else { action };
        match self.role {
            Role::Cli => true,
            Role::Launcher => matches!(action, Get | GetBatch | List | Profiles),
            Role::Profile => matches!(action, Lock | Profiles),
            Role::Enrolled => {
                matches!(action, Get | GetBatch | Set | Delete | List | History | Restore | Purge | Move)
            }
            Role::Bystander => false,
        }
    }
}

/// The access rules of the configuration. There are none yet, so what holds is what holds without rules.
#[derive(Debug, Default)]
pub(crate) struct AccessRules {}

impl AccessRules {
    /// Whether the rules allow an action, on one secret or (with no name) at all. Without a rule the command line
    /// and the launcher of the same user are allowed, and nobody else.
    pub(crate) fn allow(&self, requester: &Requester, _action: Action, _name: Option<&str>) -> bool {
        matches!(requester.role, Role::Cli | Role::Launcher)
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
        let all = [
            Init,
            Unlock,
            Lock,
            Profiles,
            ChangePassword,
            Factors,
            AddFactor,
            RemoveFactor,
            SetPolicy,
            CheckRecovery,
            Rekey,
            RekeyProgress,
            Get,
            GetBatch,
            Set,
            Delete,
            List,
            History,
            Restore,
            Purge,
            Move,
            AcceptRollback,
            Protection,
            Backup,
            InspectBackup,
            RestoreBackup,
        ];
        let table: [(Option<&str>, &[Action]); 7] = [
            (None, &all),
            (Some("daemon-launcher"), &[Profiles, Get, GetBatch, List]),
            (Some("daemon-profile"), &[Lock, Profiles]),
            (Some("daemon-bus"), &[]),
            (Some("daemon-secrets"), &[]),
            (Some("cli"), &[]),
            (Some("backup"), &[Get, GetBatch, Set, Delete, List, History, Restore, Purge, Move]),
        ];
        for (name, allowed) in table {
            for action in all {
                let expected = allowed.contains(&action);
                assert_eq!(requester(name).may_ask(action), expected, "{name:?} {action:?}");
            }
        }
    }

    #[test]
    fn without_a_rule_only_the_users_own_front_ends_are_allowed() {
        let rules = AccessRules::default();
        let table = [
            (None, true),
            (Some("daemon-launcher"), true),
            (Some("daemon-profile"), false),
            (Some("daemon-bus"), false),
            (Some("cli"), false),
            (Some("backup"), false),
        ];
        for (name, expected) in table {
            assert_eq!(rules.allow(&requester(name), Action::Get, Some("a")), expected, "{name:?}");
            assert_eq!(rules.allow(&requester(name), Action::List, None), expected, "{name:?}");
        }
    }
}
