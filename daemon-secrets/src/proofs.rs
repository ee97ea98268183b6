//! Factors as they are presented: looked up, checked for lengths that they can have, and moved into locked memory.

use core_crypto::SecureBytes;
use core_secrets::header::{NewFactor, Proof, VaultHeader};
use core_types::WireSecret;
use core_types::factor::{AgentKeyKind, RECOVERY_CODE_BYTES};
use core_types::limits::{PASSWORD_BYTES_MAX, SIGNATURE_BYTES_MAX};
use core_types::protocol::secrets::{self, FactorKind, FactorProof, SecretsDenial};

use crate::attempt::by_vault;
use crate::crud::Refusal;

/// A secret in locked memory, if it is of a length that a factor of this kind can have.
pub(crate) fn usable(kind: FactorKind, secret: &WireSecret) -> Result<SecureBytes, Refusal> {
    let lengths = match kind {
        FactorKind::Password => 1..=PASSWORD_BYTES_MAX,
        FactorKind::SshAgent => 1..=SIGNATURE_BYTES_MAX,
        FactorKind::Recovery => RECOVERY_CODE_BYTES..=RECOVERY_CODE_BYTES,
    };
    if lengths.contains(&secret.expose().len()) {
        Ok(SecureBytes::copy_of(secret.expose()))
    } else {
        Err(by_vault(SecretsDenial::UnusableFactor(kind)))
    }
}

/// The factors that are presented, each one of the vault's.
pub(crate) fn proofs(header: &VaultHeader, presented: &[FactorProof]) -> Result<Vec<Proof>, Refusal> {
    let proof = |presented: &FactorProof| {
        let factor = header.factors().iter().find(|factor| factor.id == presented.factor);
        let factor = factor.ok_or_else(|| by_vault(SecretsDenial::NoSuchFactor(presented.factor)))?;
        let secret = usable(factor.way.kind(), &presented.secret)?;
        Ok(Proof { factor: factor.id, secret })
    };
    presented.iter().map(proof).collect()
}

/// A factor that is to be added, if it is one that can unlock.
pub(crate) fn new_factor(new: &secrets::NewFactor) -> Result<NewFactor, Refusal> {
    Ok(match new {
        secrets::NewFactor::Password { password } => {
            NewFactor::Password(usable(FactorKind::Password, password)?)
        }
        secrets::NewFactor::SshAgent { key, signature } => {
            AgentKeyKind::of(&key.public_key).map_err(|why| by_vault(SecretsDenial::UnsupportedKey(why)))?;
            let signature = usable(FactorKind::SshAgent, signature)?;
            NewFactor::SshAgent { public_key: key.public_key.clone(), nonce: key.nonce, signature }
        }
        secrets::NewFactor::Recovery { code } => NewFactor::Recovery(usable(FactorKind::Recovery, code)?),
    })
}
