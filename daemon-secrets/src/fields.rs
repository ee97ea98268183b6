//! Values on their way in and out. With the build feature `ipc-field-encryption` each is encrypted once more, for its
//! profile and name; without it they pass as they are.

use core_crypto::SecureBytes;
use core_types::WireSecret;
use core_types::name::SecretName;
use core_types::protocol::secrets::SecretsDenial;

use crate::crud::Permit;
use crate::vault::Vaults;

#[cfg(not(feature = "ipc-field-encryption"))]
mod plain {
    use super::{Permit, SecretName, SecretsDenial, SecureBytes, Vaults, WireSecret};

    /// Bytes that a value has more on the wire.
    pub(crate) const OVERHEAD: usize = 0;

    /// Values of what a permit is for, on their way.
    pub(crate) struct Fields;

    impl Fields {
        pub(crate) fn of(_: &Vaults, _: &Permit) -> Result<Self, SecretsDenial> {
            Ok(Self)
        }

        /// A value as a part of an answer, which is wiped when it has been sent.
        pub(crate) fn outgoing(
            &self,
            _: &SecretName,
            value: &SecureBytes,
        ) -> Result<WireSecret, SecretsDenial> {
            Ok(WireSecret::new(value.expose().to_vec()))
        }

        /// The value of a request, in memory that is wiped when it is dropped.
        pub(crate) fn incoming(
            &self,
            _: &SecretName,
            value: &WireSecret,
        ) -> Result<SecureBytes, SecretsDenial> {
            Ok(SecureBytes::copy_of(value.expose()))
        }
    }
}

#[cfg(feature = "ipc-field-encryption")]
mod encrypted {
    use core_crypto::field;
    use core_types::ProfileName;
    use core_types::header::Sender;
    use core_types::protocol::secrets::FieldKey;

    use super::{Permit, SecretName, SecretsDenial, SecureBytes, Vaults, WireSecret};
    use crate::acl::Action;
    use crate::neighbours::Neighbours;
    use crate::operations::{about, several};
    use crate::rate_limit::Cost;
    use crate::record::conclude;
    use crate::service::SecretsDaemon;

    /// Bytes that a value has more on the wire.
    pub(crate) use field::OVERHEAD;

    /// Values of what a permit is for, on their way.
    pub(crate) struct Fields {
        key: SecureBytes,
        profile: ProfileName,
    }

    impl Fields {
        pub(crate) fn of(vaults: &Vaults, permit: &Permit) -> Result<Self, SecretsDenial> {
            Ok(Self { key: vaults.field_key(permit)?, profile: permit.profile().clone() })
        }

        /// A value as a part of an answer, encrypted.
        pub(crate) fn outgoing(
            &self,
            name: &SecretName,
            value: &SecureBytes,
        ) -> Result<WireSecret, SecretsDenial> {
            let sealed = field::seal(&self.key, self.profile.as_str(), name.as_str(), value.expose());
            let failed = |error| SecretsDenial::Storage(format!("a value cannot be encrypted: {error}"));
            sealed.map(WireSecret::new).map_err(failed)
        }

        /// The value of a request, decrypted into memory that is wiped when it is dropped.
        pub(crate) fn incoming(
            &self,
            name: &SecretName,
            value: &WireSecret,
        ) -> Result<SecureBytes, SecretsDenial> {
            field::open(&self.key, self.profile.as_str(), name.as_str(), value.expose())
                .map_err(|_| SecretsDenial::ForeignField)
        }
    }

    impl<N: Neighbours> SecretsDaemon<N> {
        /// The key that the values of a profile are encrypted with on the bus, for whoever may ask for its values.
        pub(crate) async fn field_key(
            &self,
            call: &FieldKey,
            sender: &Sender,
        ) -> Result<WireSecret, SecretsDenial> {
            let cost = Cost { tokens: 1, names: 1 };
            let attempt = several(Action::FieldKey, &call.profile, Vec::new(), cost, sender);
            let result = self.authorize(&attempt).await.and_then(|permit| {
                let key = self.vaults.field_key(&permit).map_err(crate::attempt::by_vault)?;
                Ok(WireSecret::new(key.expose().to_vec()))
            });
            conclude(&self.neighbours, about(&attempt, sender, [""; 0]), result).await
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::acl::tests::sender;
        use crate::service::tests::{PASSWORD, World, cli, profile, wire};
        use core_types::protocol::profile::Operation;
        use core_types::protocol::secrets::{Get, GetBatch, Lock, Selection, Set};

        async fn key(world: &World) -> SecureBytes {
            let call = FieldKey { profile: profile("work") };
            SecureBytes::copy_of(world.daemon.field_key(&call, &cli()).await.unwrap().expose())
        }

        fn set(name: &str, value: WireSecret) -> Set {
            let profile = profile("work");
            Set { profile, name: name.to_owned(), value, expires_unix_ms: None, note: None }
        }

        #[tokio::test]
        async fn field_values_travel_encrypted_and_are_stored_as_they_are() {
            let world = World::with_vault().await;
            let key = key(&world).await;
            let sealed = field::seal(&key, "work", "a", b"value").unwrap();
            world.daemon.set(&set("a", WireSecret::new(sealed)), &cli()).await.unwrap();
            let get = Get { profile: profile("work"), name: "a".to_owned(), version: None };
            let answer = world.daemon.get(&get, &cli()).await.unwrap();
            assert_ne!(answer.expose(), b"value");
            assert_eq!(field::open(&key, "work", "a", answer.expose()).unwrap().expose(), b"value");
            let batch = GetBatch { profile: profile("work"), selection: Selection::All, program: None };
            let batch = world.daemon.get_batch(&batch, &cli()).await.unwrap();
            assert_eq!(field::open(&key, "work", "a", batch[0].value.expose()).unwrap().expose(), b"value");
        }

        #[tokio::test]
        async fn a_field_that_is_not_encrypted_or_for_another_name_is_not_stored() {
            let world = World::with_vault().await;
            let elsewhere = field::seal(&key(&world).await, "work", "b", b"value").unwrap();
            for value in [wire(b"value"), wire(b""), WireSecret::new(elsewhere)] {
                let stored = world.daemon.set(&set("a", value), &cli()).await;
                assert_eq!(stored, Err(SecretsDenial::ForeignField));
            }
            let get = Get { profile: profile("work"), name: "a".to_owned(), version: None };
            assert!(matches!(world.daemon.get(&get, &cli()).await, Err(SecretsDenial::NoSuchSecret(_))));
        }

        #[tokio::test]
        async fn the_field_key_passes_the_gates_and_is_recorded() {
            let world = World::with_vault().await;
            key(&world).await;
            let call = FieldKey { profile: profile("work") };
            let stranger = world.daemon.field_key(&call, &sender(Some("daemon-profile"))).await;
            assert!(matches!(stranger, Err(SecretsDenial::Identity { .. })));
            let enrolled = world.daemon.field_key(&call, &sender(Some("backup"))).await;
            assert!(matches!(enrolled, Err(SecretsDenial::Forbidden)));
            world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
            assert!(matches!(world.daemon.field_key(&call, &cli()).await, Err(SecretsDenial::Locked)));
            let recorded: Vec<String> = world
                .outcomes()
                .into_iter()
                .filter(|(operation, _, _)| *operation == Operation::FieldKey)
                .map(|(_, _, outcome)| outcome)
                .collect();
            let expected = ["done", "denied at Identity", "denied at AccessRule", "denied at Lock"];
            assert_eq!(recorded, expected);
            world.unlock("work", PASSWORD).await.unwrap();
        }

        #[tokio::test]
        async fn each_profile_has_a_field_key_of_its_own() {
            let world = World::with_vault().await;
            world.init("home").await.unwrap();
            let other = world.daemon.field_key(&FieldKey { profile: profile("home") }, &cli()).await.unwrap();
            assert!(!key(&world).await.ct_eq(other.expose()));
        }
    }
}

#[cfg(feature = "ipc-field-encryption")]
pub(crate) use encrypted::{Fields, OVERHEAD};
#[cfg(not(feature = "ipc-field-encryption"))]
pub(crate) use plain::{Fields, OVERHEAD};
