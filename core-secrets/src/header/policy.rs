//! How the factors together wrap the master key: each the key itself, or each its share of a key that does.
//!
//! Under the policy `any` a factor seals the master key. Under every other a random wrapping key seals it, and a factor
//! seals one share of that key, so that too few of them have nothing to unwrap with.

use core_crypto::{SecureBytes, aead, key_schedule, sharing};
use core_types::ProfileName;
use core_types::factor::FactorPolicy;

use super::HeaderError;
use super::factor::Sealed;
use super::file::Content;

/// The key that follows from a factor which was presented.
pub(super) struct Key {
    pub(super) factor: u32,
    pub(super) kek: SecureBytes,
}

/// What the factors of such a vault seal.
pub(super) fn sealed_by(policy: FactorPolicy) -> Sealed {
    match policy {
        FactorPolicy::Any => Sealed::MasterKey,
        FactorPolicy::All | FactorPolicy::Threshold(_) => Sealed::Share,
    }
}

impl Content {
    /// How many factors unlock.
    pub(super) fn needed(&self) -> Result<u8, HeaderError> {
        let factors = self.factors.len();
        self.policy.needed(factors).ok_or(HeaderError::Policy { policy: self.policy, factors })
    }

    /// Wraps the master key anew for all factors, whose keys are all in `keys`.
    pub(super) fn wrap(&mut self, master: &SecureBytes, keys: &[Key]) -> Result<(), HeaderError> {
        match self.policy {
            FactorPolicy::Any => {
                self.shared_master_key = None;
                let each = vec![master.clone(); self.factors.len()];
                self.seal_each(Sealed::MasterKey, &each, keys)
            }
            FactorPolicy::All | FactorPolicy::Threshold(_) => {
                let wrapping = SecureBytes::random(key_schedule::KEY_BYTES)?;
                let shares = u8::try_from(self.factors.len()).unwrap_or(u8::MAX);
                let shares = sharing::split(&wrapping, self.needed()?, shares)?;
                let sealed = aead::seal(&wrapping, &shared_place(&self.profile), master.expose())?;
                self.shared_master_key = Some(sealed);
                self.seal_each(Sealed::Share, &shares, keys)
            }
        }
    }

    fn seal_each(&mut self, what: Sealed, each: &[SecureBytes], keys: &[Key]) -> Result<(), HeaderError> {
        for (factor, sealed) in self.factors.iter_mut().zip(each) {
            let key = keys.iter().find(|key| key.factor == factor.id);
            let key = key.ok_or(HeaderError::NoSuchFactor(factor.id))?;
            factor.seal(&self.profile, &key.kek, what, sealed)?;
        }
        Ok(())
    }

    /// The master key, unwrapped by the factors whose keys these are.
    ///
    /// # Errors
    /// [`HeaderError::WrongFactor`] for the first key that is not its factor's.
    pub(super) fn unwrap(&self, keys: &[Key]) -> Result<SecureBytes, HeaderError> {
        let what = sealed_by(self.policy);
        let opened = keys.iter().map(|key| self.factor(key.factor)?.open(&self.profile, &key.kek, what));
        let mut opened: Vec<SecureBytes> = opened.collect::<Result<_, _>>()?;
        let Some(shared) = &self.shared_master_key else {
            let master = opened.pop().ok_or(HeaderError::Tampered)?;
            let same = opened.iter().all(|other| other.ct_eq(master.expose()));
            return if same { Ok(master) } else { Err(HeaderError::Tampered) };
        };
        // Each share is one that was sealed for its factor, so what does not fit together was put together.
        let wrapping = sharing::combine(&opened).map_err(|_| HeaderError::Tampered)?;
        aead::open(&wrapping, &shared_place(&self.profile), shared).map_err(|_| HeaderError::Tampered)
    }
}

/// Associated data of the master key where the factors hold shares.
fn shared_place(profile: &ProfileName) -> Vec<u8> {
    format!("pds v2 factor\0shared\0{profile}").into_bytes()
}
