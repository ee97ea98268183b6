//! Backups of vaults, and vaults from backups. The file is the asker's own: it comes as a descriptor, so that this
//! process opens no path that it is told.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use core_daemon::Room;
use core_secrets::backup::Beginning;
use core_secrets::vault::VaultError;
use core_types::header::Sender;
use core_types::protocol::profile::LockCause;
use core_types::protocol::secrets::{Backup, BackupSheet, RestoreBackup, SecretsDenial};

use crate::acl::Action;
use crate::attempt::{Proves, blocking, by_vault, failed, identified};
use crate::crud::{ProfileStatus, Refusal};
use crate::factors::sheet;
use crate::neighbours::Neighbours;
use crate::operations::{about, several};
use crate::proofs::proofs;
use crate::rate_limit::Cost;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;

impl<N: Neighbours> SecretsDaemon<N> {
    /// Writes a backup of an unlocked vault into the one file that came with the request; its length.
    pub(crate) async fn backup(
        &self,
        call: &Backup,
        sender: &Sender,
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<u64, SecretsDenial> {
        let profile = &call.profile;
        let attempt = several(Action::Backup, profile, Vec::new(), Cost { tokens: 1, names: 1 }, sender);
        let result = async {
            let permit = self.authorize(&attempt).await?;
            permit.names_for(Action::Backup).map_err(by_vault)?;
            let mut file = only_file(descriptors)?;
            let _turn = self.turn(profile, deadline).await?;
            let _one_at_a_time = self.backups.lock().await;
            let locked = || by_vault(SecretsDenial::ProfileNotActive(profile.clone()));
            let held = self.vaults.hold(profile).ok_or_else(locked)?;
            let folder = self.vaults.folder(profile);
            let written = blocking(move || Ok(folder.backup(&held.lock, &held.master_key, &mut file)?)).await;
            written.map_err(|error| failed(profile, error))
        };
        conclude(&self.neighbours, about(&attempt, sender, [""; 0]), result.await).await
    }

    /// What a backup says of itself that needs no factor: whose it is, and how it opens.
    pub(crate) async fn inspect_backup(
        &self,
        sender: &Sender,
        descriptors: Vec<OwnedFd>,
    ) -> Result<BackupSheet, SecretsDenial> {
        let result = async {
            identified(Action::InspectBackup, sender)?;
            let (beginning, _) = self.beginning(descriptors).await?;
            Ok(BackupSheet {
                profile: beginning.profile().clone(),
                created_unix_ms: beginning.header().created_unix_ms(),
                database_bytes: beginning.database_bytes(),
                factors: sheet(beginning.header()),
            })
        };
        conclude(&self.neighbours, About::of(Action::InspectBackup, None, sender), result.await).await
    }

    /// Makes a vault of a backup, or puts it in the place of the one there is; whether it did that. The profile is
    /// unlocked afterwards, by the factors that opened the backup.
    ///
    /// Guessing those factors waits as guessing any does, but a right one forgives no wrong ones: the backup need not
    /// be the vault's.
    pub(crate) async fn restore_backup(
        &self,
        call: &RestoreBackup,
        sender: &Sender,
        descriptors: Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<bool, SecretsDenial> {
        let profile = &call.profile;
        let mut room = Room::none();
        let result = async {
            identified(Action::RestoreBackup, sender)?;
            room = self.room(profile)?;
            self.check_place(call)?;
            let _turn = self.turn(profile, deadline).await?;
            let (beginning, mut file) = self.beginning(descriptors).await?;
            let proofs = proofs(beginning.header(), &call.factors)?;
            beginning.header().check_enough(&proofs).map_err(|error| failed(profile, error.into()))?;
            let unlocking = self.try_factor(profile, deadline, Proves::APart, move |recorded| {
                let master_key = beginning.unlock(&proofs)?;
                Ok((beginning, master_key, recorded))
            });
            let (beginning, master_key, recorded) = unlocking.await?;
            let _one_at_a_time = self.backups.lock().await;
            let folder = self.vaults.folder(profile);
            let unpacked = blocking(move || folder.unpack(beginning, &mut file, master_key)).await;
            let unpacked = unpacked.map_err(|error| failed(profile, error))?;
            // From here on the new vault is known to be good.
            let replaced = self.vaults.status(profile) != ProfileStatus::Missing;
            if self.vaults.status(profile) == ProfileStatus::Unlocked {
                self.lock_because(profile, sender, LockCause::Restore).await;
            }
            let (folder, replace) = (self.vaults.folder(profile), call.replace);
            let open = blocking(move || folder.put_in_place(unpacked, replace)).await;
            let open = open.map_err(|error| failed(profile, error))?;
            // That it is not the vault that was written last is what was asked for; its state is now above all.
            let header = self.header(profile).await?.mark();
            let accepted = match header {
                Ok(header) => open.store.accept_rollback(header, recorded).await.map_err(VaultError::from),
                Err(error) => Err(error.into()),
            };
            self.opened(profile, open);
            accepted.map(|_| replaced).map_err(|error| failed(profile, error))
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            About::of(Action::RestoreBackup, Some(profile), sender).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Refuses to replace what nobody said is to be replaced, before a factor is tried.
    fn check_place(&self, call: &RestoreBackup) -> Result<(), Refusal> {
        match self.vaults.status(&call.profile) {
            ProfileStatus::Unlocked | ProfileStatus::Locked if !call.replace => {
                Err(by_vault(SecretsDenial::ProfileExists(call.profile.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Reads as much of a backup as needs no factor.
    async fn beginning(&self, descriptors: Vec<OwnedFd>) -> Result<(Beginning, File), Refusal> {
        let mut file = only_file(descriptors)?;
        let _one_at_a_time = self.backups.lock().await;
        let read = blocking(move || Ok((Beginning::read(&mut file)?, file))).await;
        read.map_err(|error| by_vault(unusable(error)))
    }
}

fn unusable(error: VaultError) -> SecretsDenial {
    match error {
        VaultError::Backup(error) if error.is_damage() => SecretsDenial::BadBackup(error.to_string()),
        other => SecretsDenial::Storage(other.to_string()),
    }
}

/// The one descriptor of a request, as a file; what it is a descriptor of is not known yet.
fn only_file(descriptors: Vec<OwnedFd>) -> Result<File, Refusal> {
    let count = descriptors.len();
    match <[OwnedFd; 1]>::try_from(descriptors) {
        Ok([descriptor]) => Ok(File::from(descriptor)),
        Err(_) => {
            let reason = format!("{count} files came with the request instead of one");
            Err(by_vault(SecretsDenial::BadBackup(reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{PASSWORD, World, cli, later, profile, wire};
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::{FactorProof, Lock};
    use std::io::{Read, Seek, SeekFrom, Write};

    fn empty() -> File {
        tempfile::tempfile().unwrap()
    }

    /// The same file, as the other side of a request has it.
    fn sent(file: &File) -> Vec<OwnedFd> {
        vec![file.try_clone().unwrap().into()]
    }

    async fn backup(world: &World, file: &File) -> Result<u64, SecretsDenial> {
        let call = Backup { profile: profile("work") };
        world.daemon.backup(&call, &cli(), sent(file), later()).await
    }

    async fn restore(
        world: &World,
        file: &File,
        password: &[u8],
        replace: bool,
    ) -> Result<bool, SecretsDenial> {
        let factors = vec![FactorProof { factor: 1, secret: wire(password) }];
        let call = RestoreBackup { profile: profile("work"), factors, replace };
        world.daemon.restore_backup(&call, &cli(), sent(file), later()).await
    }

    fn failures(world: &World) -> Vec<(Operation, String)> {
        let recorded = world.outcomes().into_iter();
        recorded.map(|(operation, _, outcome)| (operation, outcome)).collect()
    }

    #[tokio::test]
    async fn a_backup_restores_what_was_there_and_both_are_recorded() {
        let world = World::with_vault().await;
        world.set("a", b"old").await.unwrap();
        let file = empty();
        let bytes = backup(&world, &file).await.unwrap();
        assert_eq!(file.metadata().unwrap().len(), bytes);
        let sheet = world.daemon.inspect_backup(&cli(), sent(&file)).await.unwrap();
        assert_eq!((sheet.profile.as_str(), sheet.factors.factors.len()), ("work", 1));
        world.set("a", b"new").await.unwrap();
        world.outcomes();
        assert_eq!(restore(&world, &file, PASSWORD, true).await, Ok(true));
        let done = |operation| (operation, "done".to_owned());
        assert_eq!(failures(&world), [done(Operation::Lock), done(Operation::RestoreBackup)]);
        assert_eq!(world.get("a").await.unwrap(), b"old", "unlocked, and nothing old is cached");
        let elsewhere = World::new();
        assert_eq!(restore(&elsewhere, &file, PASSWORD, false).await, Ok(false));
        assert_eq!(elsewhere.get("a").await.unwrap(), b"old");
        elsewhere.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        elsewhere.unlock("work", PASSWORD).await.unwrap();
        assert_eq!(elsewhere.get("a").await.unwrap(), b"old");
    }

    #[tokio::test]
    async fn a_wrong_factor_and_damage_change_nothing_and_a_right_one_forgives_nothing() {
        let world = World::with_vault().await;
        world.set("a", b"old").await.unwrap();
        let mut file = empty();
        backup(&world, &file).await.unwrap();
        world.set("a", b"new").await.unwrap();
        let refused = restore(&world, &file, PASSWORD, false).await;
        assert_eq!(refused, Err(SecretsDenial::ProfileExists(profile("work"))));
        let wrong = restore(&world, &file, b"wrong", true).await;
        assert!(matches!(wrong, Err(SecretsDenial::WrongFactor(_))), "{wrong:?}");
        let length = file.metadata().unwrap().len();
        file.seek(SeekFrom::Start(length - 1)).unwrap();
        let mut last = [0];
        file.read_exact(&mut last).unwrap();
        file.seek(SeekFrom::Start(length - 1)).unwrap();
        file.write_all(&[last[0] ^ 1]).unwrap();
        let damaged = restore(&world, &file, PASSWORD, true).await;
        assert!(matches!(damaged, Err(SecretsDenial::BadBackup(_))), "{damaged:?}");
        assert_eq!(world.get("a").await.unwrap(), b"new", "it is unlocked as it was");
        let ended = std::mem::take(&mut *world.daemon.neighbours.ended.lock().unwrap());
        assert_eq!(ended, [false, false], "a right password of a backup is none of the vault");
    }

    #[tokio::test]
    async fn only_the_command_line_and_only_while_unlocked() {
        let world = World::with_vault().await;
        let file = empty();
        let call = Backup { profile: profile("work") };
        for name in ["daemon-launcher", "backup", "cli"] {
            let refused = world.daemon.backup(&call, &sender(Some(name)), sent(&file), later()).await;
            assert!(matches!(refused, Err(SecretsDenial::Identity { .. })), "{name}");
            let refused = world.daemon.inspect_backup(&sender(Some(name)), sent(&file)).await;
            assert!(matches!(refused, Err(SecretsDenial::Identity { .. })), "{name}");
        }
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        assert_eq!(backup(&world, &file).await, Err(SecretsDenial::Locked));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn what_is_no_file_or_not_one_file_is_refused() {
        let world = World::with_vault().await;
        let pipe = std::io::pipe().unwrap();
        let call = Backup { profile: profile("work") };
        let wrong: [Vec<OwnedFd>; 3] =
            [Vec::new(), vec![pipe.0.into()], vec![empty().into(), empty().into()]];
        for descriptors in wrong {
            let refused = world.daemon.backup(&call, &cli(), descriptors, later()).await;
            assert!(matches!(refused, Err(SecretsDenial::BadBackup(_))), "{refused:?}");
        }
        for path in ["/dev/zero", "/dev/null", "/"] {
            let refused = world.daemon.inspect_backup(&cli(), sent(&File::open(path).unwrap())).await;
            assert!(matches!(refused, Err(SecretsDenial::BadBackup(_))), "{path}");
        }
    }
}
