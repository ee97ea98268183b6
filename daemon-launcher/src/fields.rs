//! Values on their way from `daemon-secrets`. With the build feature `ipc-field-encryption` each is encrypted once
//! more, for its profile and name; without it they pass as they are.

use std::time::Instant;

use core_ipc::BusClient;
use core_types::ProfileName;
use core_types::protocol::launcher::LauncherDenial;
use core_types::protocol::secrets::NamedSecret;

/// The secrets of a batch as they were stored.
#[cfg(not(feature = "ipc-field-encryption"))]
pub(crate) async fn opened(
    _: &BusClient,
    _: &ProfileName,
    secrets: Vec<NamedSecret>,
    _: Instant,
) -> Result<Vec<NamedSecret>, LauncherDenial> {
    Ok(secrets)
}

/// The secrets of a batch as they were stored.
#[cfg(feature = "ipc-field-encryption")]
pub(crate) async fn opened(
    bus: &BusClient,
    profile: &ProfileName,
    secrets: Vec<NamedSecret>,
    deadline: Instant,
) -> Result<Vec<NamedSecret>, LauncherDenial> {
    use core_crypto::SecureBytes;
    use core_types::protocol::secrets::FieldKey;

    let key = crate::service::ask(bus, &FieldKey { profile: profile.clone() }, deadline).await?;
    opened_with(&SecureBytes::copy_of(key.expose()), profile, secrets)
}

#[cfg(feature = "ipc-field-encryption")]
fn opened_with(
    key: &core_crypto::SecureBytes,
    profile: &ProfileName,
    secrets: Vec<NamedSecret>,
) -> Result<Vec<NamedSecret>, LauncherDenial> {
    use core_types::WireSecret;
    use core_types::protocol::secrets::SecretsDenial;

    let opened = |NamedSecret { name, value }: NamedSecret| {
        let plain = core_crypto::field::open(key, profile.as_str(), name.as_str(), value.expose())
            .map_err(|_| LauncherDenial::Secrets(SecretsDenial::ForeignField))?;
        Ok(NamedSecret { name, value: WireSecret::new(plain.expose().to_vec()) })
    };
    secrets.into_iter().map(opened).collect()
}

#[cfg(all(test, feature = "ipc-field-encryption"))]
mod tests {
    use core_crypto::{SecureBytes, field};
    use core_types::WireSecret;

    use super::*;

    #[test]
    fn field_values_of_a_batch_are_opened_or_the_whole_batch_is_refused() {
        let key = SecureBytes::copy_of(&[7; 32]);
        let profile: ProfileName = "work".parse().unwrap();
        let secret = |name: &str, sealed_for: &str| NamedSecret {
            name: name.parse().unwrap(),
            value: WireSecret::new(field::seal(&key, "work", sealed_for, name.as_bytes()).unwrap()),
        };
        let opened = opened_with(&key, &profile, vec![secret("a", "a"), secret("b", "b")]).unwrap();
        assert_eq!((opened[0].value.expose(), opened[1].value.expose()), (&b"a"[..], &b"b"[..]));
        let exchanged = opened_with(&key, &profile, vec![secret("a", "a"), secret("b", "a")]);
        assert!(matches!(exchanged, Err(LauncherDenial::Secrets(_))));
    }
}
