//! The operations on versions of secrets: listing, restoring and purging them, and giving a secret another name.

use core_daemon::Room;
use core_types::header::Sender;
use core_types::protocol::secrets::{History, Move, Purge, Restore, SecretsDenial, VersionEntry};

use crate::acl::Action;
use crate::crud::{AskedName, Refusal};
use crate::neighbours::Neighbours;
use crate::operations::{about, one};
use crate::record::conclude;
use crate::service::SecretsDaemon;

impl<N: Neighbours> SecretsDaemon<N> {
    /// Lists the versions of a secret.
    pub(crate) async fn history(
        &self,
        call: &History,
        sender: &Sender,
    ) -> Result<Vec<VersionEntry>, SecretsDenial> {
        let attempt = one(Action::History, &call.profile, &call.name, sender);
        let result = async {
            let permit = self.authorize(&attempt).await?;
            let versions = self.vaults.history(&permit).await.map_err(Refusal::by_vault)?;
            Ok(versions.into_iter().map(shown).collect())
        };
        conclude(&self.neighbours, about(&attempt, sender, [&call.name]), result.await).await
    }

    /// Makes an old version the latest, or takes back a removal.
    pub(crate) async fn restore(&self, call: &Restore, sender: &Sender) -> Result<u64, SecretsDenial> {
        let attempt = one(Action::Restore, &call.profile, &call.name, sender);
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            self.vaults.restore(&permit, call.version).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            about(&attempt, sender, [&call.name]).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Deletes old versions for good.
    pub(crate) async fn purge(&self, call: &Purge, sender: &Sender) -> Result<u64, SecretsDenial> {
        let attempt = one(Action::Purge, &call.profile, &call.name, sender);
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            self.vaults.purge(&permit).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            about(&attempt, sender, [&call.name]).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Gives a secret another name. Both names pass the gates; the record has both.
    pub(crate) async fn rename(&self, call: &Move, sender: &Sender) -> Result<(), SecretsDenial> {
        let mut attempt = one(Action::Move, &call.profile, &call.from, sender);
        attempt.names.push(AskedName::new(&call.to));
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            self.vaults.rename(&permit).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        let subject = format!("{} -> {}", call.from, call.to);
        conclude(
            &self.neighbours,
            about(&attempt, sender, [subject]).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }
}

fn shown(version: core_secrets::sqlcipher::VersionEntry) -> VersionEntry {
    VersionEntry {
        version: version.version,
        set_unix_ms: version.set_unix_ms,
        bytes: version.bytes,
        expires_unix_ms: version.expires_unix_ms,
        removed_unix_ms: version.removed_unix_ms,
        current: version.current,
        note: version.note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, profile, wire};
    use core_types::Note;
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::{Delete, Get, GetBatch, List, Selection, Set};

    async fn restore(world: &World, name: &str, version: Option<u64>) -> Result<u64, SecretsDenial> {
        let call = Restore { profile: profile("work"), name: name.to_owned(), version };
        world.daemon.restore(&call, &cli()).await
    }

    async fn rename(world: &World, from: &str, to: &str) -> Result<(), SecretsDenial> {
        let call = Move { profile: profile("work"), from: from.to_owned(), to: to.to_owned() };
        world.daemon.rename(&call, &cli()).await
    }

    async fn numbers(world: &World, name: &str) -> Result<Vec<u64>, SecretsDenial> {
        let call = History { profile: profile("work"), name: name.to_owned() };
        let versions = world.daemon.history(&call, &cli()).await?;
        Ok(versions.iter().map(|version| version.version).collect())
    }

    async fn get_version(world: &World, name: &str, version: u64) -> Result<Vec<u8>, SecretsDenial> {
        let call = Get { profile: profile("work"), name: name.to_owned(), version: Some(version) };
        world.daemon.get(&call, &cli()).await.map(|value| value.expose().to_vec())
    }

    fn done(operation: Operation, subject: &str) -> (Operation, Option<String>, String) {
        (operation, Some(subject.to_owned()), "done".to_owned())
    }

    #[tokio::test]
    async fn each_operation_does_it_at_once_and_leaves_one_record() {
        let world = World::with_vault().await;
        world.set("a", b"one").await.unwrap();
        world.set("a", b"two").await.unwrap();
        assert_eq!(world.get("a").await.unwrap(), b"two");
        assert_eq!(numbers(&world, "a").await.unwrap(), [2, 1]);
        assert_eq!(get_version(&world, "a", 1).await.unwrap(), b"one");
        assert_eq!(restore(&world, "a", Some(1)).await.unwrap(), 3);
        assert_eq!(world.get("a").await.unwrap(), b"one", "not what was cached before");
        let delete = Delete { profile: profile("work"), name: "a".to_owned() };
        world.daemon.delete(&delete, &cli()).await.unwrap();
        assert_eq!(restore(&world, "a", None).await.unwrap(), 3);
        rename(&world, "a", "b").await.unwrap();
        assert_eq!(world.get("a").await, Err(SecretsDenial::NoSuchSecret("a".to_owned())));
        assert_eq!(world.get("b").await.unwrap(), b"one");
        let purge = Purge { profile: profile("work"), name: "b".to_owned() };
        assert_eq!(world.daemon.purge(&purge, &cli()).await.unwrap(), 2);
        let expected = [
            done(Operation::Set, "a"),
            done(Operation::Set, "a"),
            done(Operation::Get, "a"),
            done(Operation::History, "a"),
            done(Operation::Get, "a"),
            done(Operation::Restore, "a"),
            done(Operation::Get, "a"),
            done(Operation::Delete, "a"),
            done(Operation::Restore, "a"),
            done(Operation::Move, "a -> b"),
            (Operation::Get, Some("a".to_owned()), "failed: there is no secret 'a'".to_owned()),
            done(Operation::Get, "b"),
            done(Operation::Purge, "b"),
        ];
        assert_eq!(world.outcomes(), expected);
    }

    #[tokio::test]
    async fn what_cannot_be_done_has_a_denial_of_its_own() {
        let world = World::with_vault().await;
        for name in ["a", "b", "gone"] {
            world.set(name, b"x").await.unwrap();
        }
        let delete = Delete { profile: profile("work"), name: "gone".to_owned() };
        world.daemon.delete(&delete, &cli()).await.unwrap();
        let no_version = SecretsDenial::NoSuchVersion { name: "a".to_owned(), version: 7 };
        assert_eq!(get_version(&world, "a", 7).await, Err(no_version.clone()));
        assert_eq!(restore(&world, "a", Some(7)).await, Err(no_version));
        assert_eq!(restore(&world, "a", None).await, Err(SecretsDenial::NotRemoved("a".to_owned())));
        let missing = || SecretsDenial::NoSuchSecret("none".to_owned());
        assert_eq!(numbers(&world, "none").await, Err(missing()));
        assert_eq!(restore(&world, "none", None).await, Err(missing()));
        assert_eq!(rename(&world, "none", "c").await, Err(missing()));
        for (to, removed) in [("b", false), ("gone", true)] {
            let taken = SecretsDenial::SecretExists { name: to.to_owned(), removed };
            assert_eq!(rename(&world, "a", to).await, Err(taken));
        }
        for (from, to) in [("../x", "c"), ("a", "../x")] {
            let refused = rename(&world, from, to).await;
            assert!(matches!(refused, Err(SecretsDenial::InvalidName(_))), "{from} {to}");
        }
    }

    #[tokio::test]
    async fn what_has_expired_is_given_by_no_way() {
        let world = World::with_vault().await;
        let set = |expires_unix_ms| Set {
            profile: profile("work"),
            name: "a".to_owned(),
            value: wire(b"x"),
            expires_unix_ms,
            note: Some(Note::parse("from the provider").unwrap()),
        };
        world.daemon.set(&set(Some(1_000)), &cli()).await.unwrap();
        world.set("b", b"y").await.unwrap();
        let expired = || SecretsDenial::Expired { name: "a".to_owned(), since_unix_ms: 1_000 };
        assert_eq!(world.get("a").await, Err(expired()));
        assert_eq!(get_version(&world, "a", 1).await, Err(expired()));
        world.outcomes();
        let batch = GetBatch { profile: profile("work"), selection: Selection::All, program: None };
        assert_eq!(world.daemon.get_batch(&batch, &cli()).await.unwrap_err(), expired());
        let failed = (Operation::Get, Some("a".to_owned()), "failed: 'a' has expired".to_owned());
        assert_eq!(world.outcomes(), [failed]);
        let list = List { profile: profile("work"), pattern: None, after: None };
        let listed = world.daemon.list(&list, &cli()).await.unwrap().entries.remove(0);
        assert_eq!((listed.expires_unix_ms, listed.version, listed.versions), (Some(1_000), 1, 1));
        assert_eq!(listed.note.unwrap().as_str(), "from the provider");
        world.daemon.set(&set(None), &cli()).await.unwrap();
        assert_eq!(world.get("a").await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_stranger_gets_at_no_history() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        let (who, work, name) = (sender(Some("backup")), profile("work"), "a".to_owned());
        let history = History { profile: work.clone(), name: name.clone() };
        assert_eq!(world.daemon.history(&history, &who).await, Err(SecretsDenial::Forbidden));
        let call = Restore { profile: work.clone(), name: name.clone(), version: None };
        assert_eq!(world.daemon.restore(&call, &who).await, Err(SecretsDenial::Forbidden));
        let purge = Purge { profile: work.clone(), name: name.clone() };
        assert_eq!(world.daemon.purge(&purge, &who).await, Err(SecretsDenial::Forbidden));
        let call = Move { profile: work, from: name, to: "b".to_owned() };
        assert_eq!(world.daemon.rename(&call, &who).await, Err(SecretsDenial::Forbidden));
    }
}
