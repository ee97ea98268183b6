//! Values on their way to and from `daemon-secrets`. With the build feature `ipc-field-encryption` each is encrypted
//! once more, for its profile and name; without it they pass as they are.

#[cfg(feature = "ipc-field-encryption")]
pub(crate) use encrypted::{opened, sealed};
#[cfg(not(feature = "ipc-field-encryption"))]
pub(crate) use plain::{opened, sealed};

#[cfg(not(feature = "ipc-field-encryption"))]
mod plain {
    use core_types::{ProfileName, WireSecret};

    use crate::error::Failure;
    use crate::session::Session;

    pub(crate) fn opened(
        _: &mut Session,
        _: &ProfileName,
        _: &str,
        value: WireSecret,
    ) -> Result<WireSecret, Failure> {
        Ok(value)
    }

    pub(crate) use opened as sealed;
}

#[cfg(feature = "ipc-field-encryption")]
mod encrypted {
    use core_crypto::{SecureBytes, field};
    use core_types::protocol::secrets::{FieldKey, SecretsDenial};
    use core_types::{ProfileName, WireSecret};

    use crate::error::Failure;
    use crate::session::Session;

    /// A value as it was stored.
    ///
    /// # Errors
    /// There is no field key, or the value was not encrypted for this place.
    pub(crate) fn opened(
        session: &mut Session,
        profile: &ProfileName,
        name: &str,
        value: WireSecret,
    ) -> Result<WireSecret, Failure> {
        let plain = field::open(&key(session, profile)?, profile.as_str(), name, value.expose())
            .map_err(|_| SecretsDenial::ForeignField)?;
        Ok(WireSecret::new(plain.expose().to_vec()))
    }

    /// A value as it travels.
    ///
    /// # Errors
    /// There is no field key, or no random bytes.
    pub(crate) fn sealed(
        session: &mut Session,
        profile: &ProfileName,
        name: &str,
        value: WireSecret,
    ) -> Result<WireSecret, Failure> {
        let sealed = field::seal(&key(session, profile)?, profile.as_str(), name, value.expose());
        Ok(WireSecret::new(sealed.map_err(|_| SecretsDenial::ForeignField)?))
    }

    fn key(session: &mut Session, profile: &ProfileName) -> Result<SecureBytes, Failure> {
        let key = session.call(&FieldKey { profile: profile.clone() })?;
        Ok(SecureBytes::copy_of(key.expose()))
    }
}
