//! Many secrets at once, all or none, and what is compared before. The secrets come as a sealed file in memory, which is
//! read twice: once for the names that the gates judge, and once by the vault, one value at a time.

use std::os::fd::OwnedFd;

use core_crypto::{FrameReader, SecureBytes};
use core_daemon::Room;
use core_secrets::sqlcipher::{Attributes, Incoming};
use core_secrets::store::StoreError;
use core_types::header::Sender;
use core_types::limits::{
    COMPARE_MAX, IMPORT_BYTES_MAX, IMPORT_SECRETS_MAX, IMPORT_SECRETS_PER_TOKEN, NOTE_BYTES_MAX,
    SECRET_NAME_BYTES_MAX, VALUE_BYTES_MAX,
};
use core_types::name::SecretName;
use core_types::protocol::decode;
use core_types::protocol::import::{Compare, Comparison, IMPORT_FILE, Import, ImportedSecret, Supposed};
use core_types::protocol::secrets::{Gate, SecretsDenial};

use crate::acl::{Action, Requester};
use crate::attempt::identified;
use crate::crud::{AskedName, Attempt, Permit, Refusal};
use crate::fields::Fields;
use crate::neighbours::Neighbours;
use crate::operations::{about, check_size};
use crate::rate_limit::Cost;
use crate::record::conclude;
use crate::service::SecretsDaemon;

/// Bytes that a secret takes in the file besides its name, note and value, at most.
const AROUND: usize = 64;
/// Longest secret of a file, in bytes.
const SECRET_BYTES_MAX: usize = SECRET_NAME_BYTES_MAX + NOTE_BYTES_MAX + VALUE_BYTES_MAX + AROUND;

/// The file of an import, of which all is as it has to be, and the names in it.
struct Batch {
    reader: FrameReader,
    names: Vec<String>,
}

impl<N: Neighbours> SecretsDaemon<N> {
    /// Stores many secrets in one step; how many.
    pub(crate) async fn import(
        &self,
        call: &Import,
        sender: &Sender,
        descriptors: Vec<OwnedFd>,
    ) -> Result<u64, SecretsDenial> {
        let mut attempt = Attempt {
            action: Action::Import,
            profile: call.profile.clone(),
            requester: Requester::from(sender),
            names: Vec::new(),
            cost: cost(call.count),
        };
        let (mut room, mut names) = (Room::none(), Vec::new());
        let result = async {
            // Nothing is read for whoever may not import at all.
            identified(Action::Import, sender)?;
            let batch = read(call, descriptors).await?;
            attempt.names = batch.names.iter().map(|name| AskedName::new(name)).collect();
            names = batch.names;
            let permit = self.authorize(&attempt).await.map_err(|refusal| self.naming(refusal, &attempt))?;
            room = self.room_for(&call.profile, names.len())?;
            let stored = self.vaults.import(&permit, secrets_of(batch.reader, call.count)).await;
            stored.map_err(Refusal::by_vault)
        };
        let result = result.await;
        let subjects = match &result {
            Ok(_) => names,
            Err(refusal) => Vec::from_iter(subject_of(&refusal.denial)),
        };
        let about = about(&attempt, sender, subjects).changing(&self.vaults).holding(room);
        conclude(&self.neighbours, about, result).await
    }

    /// Says whether secrets have certain values. It tells as much as reading them, to whoever guesses right.
    pub(crate) async fn compare(
        &self,
        call: &Compare,
        sender: &Sender,
    ) -> Result<Vec<Comparison>, SecretsDenial> {
        let names = u32::try_from(call.secrets.len()).unwrap_or(u32::MAX);
        let attempt = Attempt {
            action: Action::Compare,
            profile: call.profile.clone(),
            requester: Requester::from(sender),
            names: call.secrets.iter().map(|secret| AskedName::new(&secret.name)).collect(),
            cost: Cost { tokens: names.max(1), names },
        };
        let result = async {
            if call.secrets.len() > COMPARE_MAX {
                let limit = u64::try_from(COMPARE_MAX).unwrap_or(u64::MAX);
                return Err(Refusal::by_vault(SecretsDenial::BatchTooLarge { limit }));
            }
            let permit = self.authorize(&attempt).await.map_err(|refusal| self.naming(refusal, &attempt))?;
            let values = self.supposed(&permit, &call.secrets).map_err(Refusal::by_vault)?;
            self.vaults.compare(&permit, values).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        let subjects = match &result {
            Ok(_) => call.secrets.iter().map(|secret| secret.name.clone()).collect(),
            Err(refusal) => Vec::from_iter(subject_of(&refusal.denial)),
        };
        conclude(&self.neighbours, about(&attempt, sender, subjects), result).await
    }

    fn supposed(&self, permit: &Permit, secrets: &[Supposed]) -> Result<Vec<SecureBytes>, SecretsDenial> {
        let fields = Fields::of(&self.vaults, permit)?;
        let named = permit.names_for(Action::Compare)?.iter().zip(secrets);
        named
            .map(|(name, secret)| {
                check_size(&secret.value)?;
                fields.incoming(name, &secret.value)
            })
            .collect()
    }

    /// The same refusal with the name that the rules do not allow, of those that the requester named itself.
    fn naming(&self, refusal: Refusal, attempt: &Attempt) -> Refusal {
        if refusal.gate != Gate::AccessRule || refusal.denial != SecretsDenial::Forbidden {
            return refusal;
        }
        let rules = self.rules.current();
        let allowed =
            |name: &str| rules.allow(&attempt.requester, &attempt.profile, attempt.action, (0, name));
        match attempt.names.iter().map(AskedName::text).find(|name| !allowed(name)) {
            Some(name) => Refusal { denial: SecretsDenial::ForbiddenName(name.to_owned()), ..refusal },
            None => refusal,
        }
    }
}

/// An import costs less than setting each secret by itself: it is one transaction, and gives nothing away.
fn cost(count: u32) -> Cost {
    let per_token = u32::try_from(IMPORT_SECRETS_PER_TOKEN).unwrap_or(1);
    let tokens = count.div_ceil(per_token).max(1);
    Cost { tokens, names: tokens }
}

fn bad(reason: impl std::fmt::Display) -> Refusal {
    Refusal::by_vault(SecretsDenial::BadImport(reason.to_string()))
}

/// Opens the file of an import and reads it once.
async fn read(call: &Import, descriptors: Vec<OwnedFd>) -> Result<Batch, Refusal> {
    let count = descriptors.len();
    let Ok([file]) = <[OwnedFd; 1]>::try_from(descriptors) else {
        return Err(bad(format!("{count} files came with the request instead of one")));
    };
    let too_large = || Refusal::by_vault(SecretsDenial::ImportTooLarge);
    let secrets = call.count;
    if usize::try_from(secrets).map_or(true, |secrets| secrets > IMPORT_SECRETS_MAX) {
        return Err(too_large());
    }
    let key = SecureBytes::copy_of(call.key.expose());
    let reader = FrameReader::new(file, key, IMPORT_FILE, SECRET_BYTES_MAX).map_err(bad)?;
    if reader.bytes().map_err(bad)? > u64::try_from(IMPORT_BYTES_MAX).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let reading = tokio::task::spawn_blocking(move || names_of(reader, secrets));
    reading.await.unwrap_or_else(|error| Err(Refusal::by_vault(SecretsDenial::Storage(error.to_string()))))
}

/// The names of a file's secrets; the file is then at its beginning again.
fn names_of(mut reader: FrameReader, count: u32) -> Result<Batch, Refusal> {
    let mut names = Vec::new();
    for _ in 0..count {
        let secret = next(&mut reader).map_err(bad)?;
        check_size(&secret.value).map_err(Refusal::by_vault)?;
        names.push(secret.name);
    }
    if !reader.is_at_end().map_err(bad)? {
        return Err(bad("it has more secrets than it was to have"));
    }
    reader.rewind().map_err(bad)?;
    Ok(Batch { reader, names })
}

/// The next secret of a file, or why it cannot be had.
fn next(reader: &mut FrameReader) -> Result<ImportedSecret, String> {
    let bytes = reader.next_value().map_err(|error| error.to_string())?;
    decode(bytes.expose()).map_err(|_| "a secret of it is not one".to_owned())
}

/// The secrets of a file that was read once, one after the other.
fn secrets_of(
    mut reader: FrameReader,
    count: u32,
) -> impl FnMut() -> Result<Option<Incoming>, StoreError> + Send + 'static {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| StoreError::Io {
        action: "read the import",
        source: std::io::Error::other(error),
    };
    let mut left = count;
    move || {
        if left == 0 {
            return Ok(None);
        }
        left -= 1;
        let ImportedSecret { name, value, expires_unix_ms, note, replaces } =
            next(&mut reader).map_err(|error| failed(error.into()))?;
        let name = SecretName::parse(name).map_err(|error| failed(error.into()))?;
        let value = SecureBytes::copy_of(value.expose());
        Ok(Some(Incoming { name, value, attributes: Attributes { expires_unix_ms, note }, replaces }))
    }
}

/// The secret that a denial is about, where it names one.
fn subject_of(denial: &SecretsDenial) -> Option<String> {
    match denial {
        SecretsDenial::ForbiddenName(name)
        | SecretsDenial::ChangedMeanwhile(name)
        | SecretsDenial::SecretExists { name, .. } => Some(name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, profile, wire};
    use core_crypto::{FrameWriter, sealed_file};
    use core_types::WireSecret;
    use core_types::protocol::encode;
    use core_types::protocol::profile::Operation;
    use std::sync::atomic::Ordering;

    fn secret(name: &str, value: &[u8], replaces: Option<u64>) -> ImportedSecret {
        ImportedSecret {
            name: name.to_owned(),
            value: wire(value),
            expires_unix_ms: None,
            note: None,
            replaces,
        }
    }

    fn packed(secrets: &[ImportedSecret]) -> (Import, Vec<OwnedFd>) {
        let mut writer = FrameWriter::new(IMPORT_FILE).unwrap();
        secrets.iter().for_each(|secret| writer.add(&encode(secret).unwrap()).unwrap());
        let (file, key) = writer.finish().unwrap();
        let key = WireSecret::new(key.expose().to_vec());
        (Import { profile: profile("work"), key, count: secrets.len().try_into().unwrap() }, vec![file])
    }

    async fn import(world: &World, secrets: &[ImportedSecret]) -> Result<u64, SecretsDenial> {
        let (call, file) = packed(secrets);
        world.daemon.import(&call, &cli(), file).await
    }

    fn done(name: &str) -> (Operation, Option<String>, String) {
        (Operation::Set, Some(name.to_owned()), "done".to_owned())
    }

    #[tokio::test]
    async fn an_import_is_recorded_as_each_of_its_secrets() {
        let world = World::with_vault().await;
        world.set("b", b"old").await.unwrap();
        assert_eq!(world.get("b").await.unwrap(), b"old");
        world.outcomes();
        let secrets = [secret("a", b"1", None), secret("b", b"2", Some(1))];
        assert_eq!(import(&world, &secrets).await, Ok(2));
        assert_eq!(world.outcomes(), [done("a"), done("b")]);
        assert_eq!(world.get("a").await.unwrap(), b"1");
        assert_eq!(world.get("b").await.unwrap(), b"2", "not what was cached before");
    }

    #[tokio::test]
    async fn what_cannot_be_stored_as_a_whole_is_not_stored_at_all() {
        let world = World::with_vault().await;
        world.set("there", b"x").await.unwrap();
        world.outcomes();
        let taken = SecretsDenial::SecretExists { name: "there".to_owned(), removed: false };
        let first = || secret("a", b"1", None);
        assert_eq!(import(&world, &[first(), secret("there", b"", None)]).await, Err(taken));
        let changed = SecretsDenial::ChangedMeanwhile("there".to_owned());
        assert_eq!(import(&world, &[first(), secret("there", b"", Some(9))]).await, Err(changed));
        let invalid = import(&world, &[first(), secret("../b", b"", None)]).await;
        assert!(matches!(invalid, Err(SecretsDenial::InvalidName(_))));
        let large = import(&world, &[first(), secret("b", &[0; VALUE_BYTES_MAX + 1], None)]).await;
        assert!(matches!(large, Err(SecretsDenial::ValueTooLarge { .. })), "{large:?}");
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        assert!(matches!(import(&world, &[first()]).await, Err(SecretsDenial::AuditUnwritable { .. })));
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        assert_eq!(world.get("a").await, Err(SecretsDenial::NoSuchSecret("a".to_owned())));
        assert!(!world.outcomes().contains(&done("a")));
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_imports_own_is_refused() {
        let world = World::with_vault().await;
        let bad = |answer: Result<u64, SecretsDenial>| {
            assert!(matches!(answer, Err(SecretsDenial::BadImport(_))), "{answer:?}");
        };
        let (call, file) = packed(&[secret("a", b"1", None), secret("b", b"2", None)]);
        let again = || vec![file[0].try_clone().unwrap()];
        let run = async |call: &Import, files| world.daemon.import(call, &cli(), files).await;
        bad(run(&call, Vec::new()).await);
        bad(run(&call, [again(), again()].concat_files()).await);
        for count in [1, 3] {
            bad(run(&Import { count, ..call.clone() }, again()).await);
        }
        bad(run(&Import { key: wire(&[0; 32]), ..call.clone() }, again()).await);
        bad(run(&Import { key: wire(&[0; 5]), ..call.clone() }, again()).await);
        bad(run(&call, vec![sealed_file(b"").unwrap()]).await);
        bad(run(&call, vec![tempfile::tempfile().unwrap().into()]).await);
        let too_many = Import { count: u32::try_from(IMPORT_SECRETS_MAX + 1).unwrap(), ..call.clone() };
        assert_eq!(run(&too_many, again()).await, Err(SecretsDenial::ImportTooLarge));
        let huge = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&huge, 1 << 30).unwrap();
        let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&huge, seals | rustix::fs::SealFlags::WRITE).unwrap();
        assert_eq!(run(&call, vec![huge]).await, Err(SecretsDenial::ImportTooLarge));
        assert_eq!(run(&call, again()).await, Ok(2));
    }

    trait Concat {
        fn concat_files(self) -> Vec<OwnedFd>;
    }

    impl Concat for [Vec<OwnedFd>; 2] {
        fn concat_files(self) -> Vec<OwnedFd> {
            self.into_iter().flatten().collect()
        }
    }

    #[tokio::test]
    async fn nobody_imports_what_it_may_not_set_or_compares_what_it_may_not_read() {
        let world = World::with_vault().await;
        world.set("open", b"x").await.unwrap();
        let (call, file) = packed(&[secret("a", b"1", None)]);
        let backup = sender(Some("backup"));
        let refused = world.daemon.import(&call, &backup, file).await;
        assert!(matches!(refused, Err(SecretsDenial::Identity { .. })));
        let compare = |names: &[&str]| Compare {
            profile: profile("work"),
            secrets: names
                .iter()
                .map(|name| Supposed { name: (*name).to_owned(), value: wire(b"x") })
                .collect(),
        };
        let refused = world.daemon.compare(&compare(&["open"]), &backup).await;
        assert!(matches!(refused, Err(SecretsDenial::Identity { .. })));
        world.outcomes();
        let found = world.daemon.compare(&compare(&["open", "none"]), &cli()).await;
        assert_eq!(found, Ok(vec![Comparison::Same, Comparison::Missing]));
        let asked = |name: &str| (Operation::Compare, Some(name.to_owned()), "done".to_owned());
        assert_eq!(world.outcomes(), [asked("open"), asked("none")]);
        world.write_config("[profiles.work.access.cli]\nget = ['open']\nset = ['open']\n");
        let forbidden = |name: &str| Err(SecretsDenial::ForbiddenName(name.to_owned()));
        assert_eq!(
            import(&world, &[secret("open", b"", Some(1)), secret("b", b"", None)]).await,
            forbidden("b")
        );
        let refused = world.daemon.compare(&compare(&["open", "none"]), &cli()).await;
        assert_eq!(refused, Err(SecretsDenial::ForbiddenName("none".to_owned())));
        assert_eq!(world.get("open").await.unwrap(), b"x");
    }
}
