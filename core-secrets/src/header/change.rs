//! The changes a header can go through. Each gives a new header of the next generation; the old one stays as it is until
//! the new one has replaced it in the file.

use core_crypto::kdf::Argon2Params;
use core_crypto::{SecureBytes, key_schedule};
use core_types::factor::{FactorKind, FactorLabel, FactorPolicy};
use core_types::limits::FACTORS_MAX;

use super::factor::{Factor, NewFactor, Way};
use super::file::Content;
use super::policy::{Key, sealed_by};
use super::{HeaderError, Proof, VaultHeader};

/// A change, as far as it decides what has to be presented for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// One password becomes another.
    Password {
        /// Its number.
        factor: u32,
        /// Whether the master key is known already, so that this factor alone has to be proved.
        unlocked: bool,
    },
    /// One factor more.
    Add,
    /// One factor less.
    Remove {
        /// Its number.
        factor: u32,
    },
    /// Others are needed than before.
    Policy(FactorPolicy),
    /// Another master key.
    MasterKey,
}

/// A header after a change.
#[derive(Debug)]
pub struct Changed<T> {
    /// The new header.
    pub header: VaultHeader,
    /// What came of the change besides.
    pub result: T,
}

impl From<VaultHeader> for Changed<()> {
    fn from(header: VaultHeader) -> Self {
        Self { header, result: () }
    }
}

impl VaultHeader {
    /// How many factors have to be presented for a change: one where only one is concerned, all where each has to be
    /// wrapped anew.
    ///
    /// # Errors
    /// The change is not possible, whoever asks.
    pub fn needed_for(&self, change: Change) -> Result<u8, HeaderError> {
        let content = &self.content;
        let (needed, number) = (content.needed()?, content.factors.len());
        let all = u8::try_from(number).unwrap_or(u8::MAX);
        let any = content.policy == FactorPolicy::Any;
        match change {
            Change::Password { factor, unlocked } => match content.factor(factor)?.way {
                Way::Password { .. } => Ok(if unlocked { 1 } else { needed }),
                _ => Err(HeaderError::NotAPassword(factor)),
            },
            Change::Add if number >= FACTORS_MAX => Err(HeaderError::TooManyFactors),
            Change::Add => Ok(if any { 1 } else { all }),
            Change::Remove { factor } => {
                content.factor(factor)?;
                match content.policy.needed(number - 1) {
                    Some(_) => Ok(needed),
                    None if any => Err(HeaderError::LastFactor),
                    None => Err(HeaderError::Policy { policy: content.policy, factors: number - 1 }),
                }
            }
            Change::Policy(policy) => match policy.needed(number) {
                Some(_) => Ok(all),
                None => Err(HeaderError::Policy { policy, factors: number }),
            },
            Change::MasterKey => Ok(all),
        }
    }

    /// Refuses factors that are too few for a change, or a change that is not possible, before anything is derived.
    ///
    /// # Errors
    /// As [`Self::needed_for`], or [`HeaderError::NotEnough`].
    pub fn check_for(&self, change: Change, proofs: &[Proof]) -> Result<(), HeaderError> {
        let needed = self.needed_for(change)?;
        if let Change::Password { factor, .. } = change
            && proofs.iter().all(|proof| proof.factor != factor)
        {
            return Err(HeaderError::WrongFactor(FactorKind::Password));
        }
        self.content.check_enough(proofs, needed)
    }

    /// The same vault with another password in the place of one; its salt is new. `master` is the master key where it
    /// is known already: then that password alone has to be presented. Blocks for as long as Argon2 takes, twice.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn with_password(
        &self,
        factor: u32,
        proofs: &[Proof],
        master: Option<&SecureBytes>,
        new: SecureBytes,
        params: Argon2Params,
    ) -> Result<Self, HeaderError> {
        self.check_for(Change::Password { factor, unlocked: master.is_some() }, proofs)?;
        let keys = self.content.keys(proofs)?;
        let master = match master {
            Some(master) => master.clone(),
            None => self.content.unwrap(&keys)?,
        };
        self.check_authentic(&master)?;
        let old = keys
            .iter()
            .find(|key| key.factor == factor)
            .ok_or(HeaderError::WrongFactor(FactorKind::Password))?;
        let (profile, what) = (&self.content.profile, sealed_by(self.content.policy));
        let sealed = self.content.factor(factor)?.open(profile, &old.kek, what)?;
        let (way, kek) = NewFactor::Password(new).enroll(profile, params)?;
        let mut content = self.content.clone();
        for changed in content.factors.iter_mut().filter(|other| other.id == factor) {
            changed.way = way.clone();
            changed.seal(profile, &kek, what, &sealed)?;
        }
        self.next(content, &master)
    }

    /// The same vault with the cost of each password that was presented raised to `params`, where it was lower;
    /// `None` where none was.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn with_cost(
        &self,
        proofs: &[Proof],
        master: &SecureBytes,
        params: Argon2Params,
    ) -> Result<Option<Self>, HeaderError> {
        let raised_cost = |factor: &Factor| match factor.way {
            Way::Password { argon2, .. } => Argon2Params::from(argon2).raised_to(params),
            Way::SshAgent { .. } | Way::Recovery { .. } => None,
        };
        if self.factors().iter().all(|factor| raised_cost(factor).is_none()) {
            return Ok(None);
        }
        let mut raised: Option<Self> = None;
        for (key, proof) in self.content.keys(proofs)?.into_iter().zip(proofs) {
            let Some(params) = raised_cost(self.content.factor(key.factor)?) else { continue };
            let same = [Proof { factor: key.factor, secret: proof.secret.clone() }];
            let before = raised.as_ref().unwrap_or(self);
            let new = proof.secret.clone();
            raised = Some(before.with_password(key.factor, &same, Some(master), new, params)?);
        }
        Ok(raised)
    }

    /// The same vault with one factor more, and its number. Under a policy other than `any` every factor has to be
    /// presented: each gets a share of a new wrapping key. Blocks for as long as Argon2 takes for each password.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn with_factor(
        &self,
        proofs: &[Proof],
        label: FactorLabel,
        new: NewFactor,
        params: Argon2Params,
    ) -> Result<Changed<u32>, HeaderError> {
        self.check_for(Change::Add, proofs)?;
        if let NewFactor::SshAgent { public_key, .. } = &new {
            self.check_new_key(public_key)?;
        }
        let (master, mut keys) = self.unwrap(proofs)?;
        let mut content = self.content.clone();
        let id = content.next_factor;
        content.next_factor = id.checked_add(1).ok_or(HeaderError::TooManyFactors)?;
        let (way, kek) = new.enroll(&content.profile, params)?;
        let mut added = Factor::new(id, label, way);
        if content.policy == FactorPolicy::Any {
            added.seal(&content.profile, &kek, sealed_by(content.policy), &master)?;
            content.factors.push(added);
        } else {
            content.factors.push(added);
            keys.push(Key { factor: id, kek });
            content.wrap(&master, &keys)?;
        }
        Ok(Changed { header: self.next(content, &master)?, result: id })
    }

    /// Refuses an SSH key that is enrolled already.
    ///
    /// # Errors
    /// [`HeaderError::FactorExists`].
    pub fn check_new_key(&self, new: &[u8]) -> Result<(), HeaderError> {
        let same = self.factors().iter().find(|factor| match &factor.way {
            Way::SshAgent { public_key, .. } => public_key == new,
            Way::Password { .. } | Way::Recovery { .. } => false,
        });
        same.map_or(Ok(()), |factor| Err(HeaderError::FactorExists(factor.id)))
    }

    /// The same vault with one factor less. Under the policy `all` every factor has to be presented.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn without_factor(&self, proofs: &[Proof], id: u32) -> Result<Self, HeaderError> {
        self.check_for(Change::Remove { factor: id }, proofs)?;
        let (master, keys) = self.unwrap(proofs)?;
        let mut content = self.content.clone();
        content.factors.retain(|factor| factor.id != id);
        if content.policy == FactorPolicy::All {
            content.wrap(&master, &keys)?;
        }
        self.next(content, &master)
    }

    /// The same vault with another policy, for which all factors have to be presented.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn with_policy(&self, proofs: &[Proof], policy: FactorPolicy) -> Result<Self, HeaderError> {
        self.check_for(Change::Policy(policy), proofs)?;
        let (master, keys) = self.unwrap(proofs)?;
        let mut content = self.content.clone();
        content.policy = policy;
        content.wrap(&master, &keys)?;
        self.next(content, &master)
    }

    /// The same factors over a new random master key, and that key. All factors have to be presented.
    ///
    /// # Errors
    /// Why there is no such header.
    pub fn with_new_master_key(&self, proofs: &[Proof]) -> Result<Changed<SecureBytes>, HeaderError> {
        self.check_for(Change::MasterKey, proofs)?;
        let (_, keys) = self.unwrap(proofs)?;
        let master = SecureBytes::random(key_schedule::KEY_BYTES)?;
        let mut content = self.content.clone();
        content.wrap(&master, &keys)?;
        Ok(Changed { header: self.next(content, &master)?, result: master })
    }

    /// A header of the next generation with this content.
    fn next(&self, mut content: Content, master: &SecureBytes) -> Result<Self, HeaderError> {
        content.generation = self.content.generation.saturating_add(1);
        Self::authenticated(content, master)
    }
}
