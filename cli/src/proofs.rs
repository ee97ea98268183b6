//! Presenting the factors of a profile: which of them, and where their secrets come from.

use core_types::protocol::secrets::{FactorEntry, FactorKind, FactorProof, FactorSheet};
use core_types::{ProfileName, WireSecret};

use crate::error::Failure;
use crate::prompt::{PasswordSource, Typed};

/// What is presented for one command.
pub(crate) struct Presenter<'a> {
    pub(crate) profile: &'a ProfileName,
    pub(crate) sheet: &'a FactorSheet,
    proofs: Vec<FactorProof>,
}

impl<'a> Presenter<'a> {
    /// Nothing yet, of the factors of a profile.
    pub(crate) fn new(profile: &'a ProfileName, sheet: &'a FactorSheet) -> Self {
        Self { profile, sheet, proofs: Vec::new() }
    }

    /// The first factor of a kind that has not been presented.
    fn next(&self, kind: FactorKind) -> Option<&'a FactorEntry> {
        let presented = |factor: &FactorEntry| self.proofs.iter().any(|proof| proof.factor == factor.id);
        self.sheet.factors.iter().find(|factor| factor.kind == kind && !presented(factor))
    }

    fn present(&mut self, factor: u32, secret: Typed) {
        self.proofs.push(FactorProof { factor, secret: wire(secret) });
    }

    /// Presents a password, if one is left to present.
    ///
    /// # Errors
    /// There is no password to be had.
    pub(crate) fn password(&mut self, source: PasswordSource) -> Result<(), Failure> {
        if let Some(factor) = self.next(FactorKind::Password) {
            let password = source.existing(&format!("Password for profile '{}': ", self.profile))?;
            self.present(factor.id, password);
        }
        Ok(())
    }

    /// What was presented.
    pub(crate) fn proofs(self) -> Vec<FactorProof> {
        self.proofs
    }
}

/// A secret as part of a message.
pub(crate) fn wire(mut secret: Typed) -> WireSecret {
    WireSecret::new(std::mem::take(&mut *secret))
}
