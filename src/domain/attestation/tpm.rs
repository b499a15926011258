//! TPM 2.0: the device has an endorsement key that nobody can copy, and shows that it has it by using
//! a key that was encrypted to it.
//!
//! Behaviour of the Azure page "TPM attestation". Nothing is remembered between the challenge and its
//! answer: the challenge's key follows from a seed, the device and the hour, so that any replica can
//! judge the answer. The hub's key follows from the same seed. How keys are encrypted to a TPM is in
//! `crate::wire::tpm`.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::symmetric_key::{DeviceKeys, KeyPair, SymmetricKey};
use super::{Claim, Refusal, Unusable};
use crate::api::v1alpha1::TpmSpec;
use crate::domain::ids::RegistrationId;

/// Largest public area in bytes; those of RSA keys of 2048 bits have about 314.
const LARGEST: usize = 1024;
/// How long a challenge's key is given out, in seconds; it is good for as long again.
const WINDOW: u64 = 3600;

/// The public part of a TPM's key, as the TPM writes it (`TPM2B_PUBLIC`). Public.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicArea {
    area: Vec<u8>,
    key: TpmKey,
    symmetric_bits: u16,
}

/// What it takes to encrypt to a TPM's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmKey {
    /// RSA with the exponent 65537: the modulus.
    Rsa(Vec<u8>),
    /// ECDH on NIST P-256: the coordinates of the point.
    P256([u8; 32], [u8; 32]),
}

/// A text that is not the public part of a key that a TPM can decrypt with. For people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPublicArea(&'static str);

/// What an enrollment knows of its device's TPM.
#[derive(Clone)]
pub struct Endorsed {
    endorsement_key: PublicArea,
    seed: SymmetricKey,
}

impl PublicArea {
    /// Reads base64 of a `TPM2B_PUBLIC`.
    pub fn from_base64(text: &str) -> Result<Self, InvalidPublicArea> {
        if text.len() > 2 * LARGEST {
            return Err(InvalidPublicArea(
                "is longer than the public part of any TPM's key",
            ));
        }
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| InvalidPublicArea("is not base64"))?;
        Self::parse(&bytes)
    }

    /// Reads a `TPM2B_PUBLIC` of a restricted decryption key, such as EK and SRK are.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPublicArea> {
        const DAMAGED: InvalidPublicArea =
            InvalidPublicArea("is not a TPM2B_PUBLIC as a TPM writes it");
        let mut outer = Reader(bytes);
        let area = outer
            .sized()
            .filter(|_| outer.0.is_empty())
            .ok_or(DAMAGED)?;
        let mut reader = Reader(area);
        let kind = reader.number().ok_or(DAMAGED)?;
        if reader.number().ok_or(DAMAGED)? != alg::SHA256 {
            return Err(InvalidPublicArea(
                "has a name that is not made with SHA-256",
            ));
        }
        let _attributes = reader.take(4).ok_or(DAMAGED)?;
        let _policy = reader.sized().ok_or(DAMAGED)?;
        if reader.number().ok_or(DAMAGED)? != alg::AES {
            return Err(InvalidPublicArea(
                "is not of a key that protects others with AES",
            ));
        }
        let symmetric_bits = reader.number().ok_or(DAMAGED)?;
        let mode = reader.number().ok_or(DAMAGED)?;
        if !matches!(symmetric_bits, 128 | 256) || mode != alg::CFB {
            return Err(InvalidPublicArea(
                "is not of a key that protects others with AES-CFB",
            ));
        }
        // Storage keys have no scheme of their own.
        if reader.number().ok_or(DAMAGED)? != alg::NULL {
            return Err(InvalidPublicArea(
                "has a scheme, which storage keys do not have",
            ));
        }
        let key = match kind {
            alg::RSA => reader.rsa(),
            alg::ECC => reader.p256(),
            _ => {
                return Err(InvalidPublicArea(
                    "is neither of an RSA key nor of an ECC key",
                ));
            }
        };
        let key = key.ok_or(InvalidPublicArea(
            "must be of an RSA key of 2048 to 4096 bits or of an ECC key on NIST P-256",
        ))?;
        if !reader.0.is_empty() {
            return Err(DAMAGED);
        }
        Ok(Self {
            area: area.to_vec(),
            key,
            symmetric_bits,
        })
    }

    /// The TPM's name for the key.
    pub fn name(&self) -> Vec<u8> {
        let digest = digest::digest(&digest::SHA256, &self.area);
        [&alg::SHA256.to_be_bytes()[..], digest.as_ref()].concat()
    }

    /// The key itself.
    pub fn key(&self) -> &TpmKey {
        &self.key
    }

    /// Bits of the AES keys with which it protects others.
    pub fn symmetric_bits(&self) -> u16 {
        self.symmetric_bits
    }
}

impl fmt::Debug for PublicArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicArea({})", crate::domain::hex(&self.name()))
    }
}

impl fmt::Debug for Endorsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endorsed({:?})", self.endorsement_key)
    }
}

impl Endorsed {
    /// Reads the endorsement key of an Enrollment and the seed of its Secret.
    pub fn read(
        spec: &TpmSpec,
        data: &std::collections::BTreeMap<String, k8s_openapi::ByteString>,
    ) -> Result<Self, Unusable> {
        let endorsement_key = PublicArea::from_base64(&spec.endorsement_key)
            .map_err(|error| Unusable::EndorsementKey(error.to_string()))?;
        let key = spec.secret_ref.key();
        let invalid = |problem: &str| Unusable::Secret {
            key: key.to_owned(),
            problem: problem.to_owned(),
        };
        let wanted = "put the base64 of 32 to 64 random bytes there";
        let value = data
            .get(key)
            .ok_or_else(|| invalid(&format!("is missing; {wanted}")))?;
        let text = std::str::from_utf8(&value.0).map_err(|_| invalid("the seed is not base64"))?;
        let seed: SymmetricKey = text
            .parse()
            .map_err(|_| invalid(&format!("is not the base64 of 32 to 64 bytes; {wanted}")))?;
        if seed.reveal().len() < 32 {
            return Err(invalid(&format!("the seed is too short; {wanted}")));
        }
        Ok(Self {
            endorsement_key,
            seed,
        })
    }

    /// The endorsement key.
    pub fn endorsement_key(&self) -> &PublicArea {
        &self.endorsement_key
    }

    /// The key that a challenge brings to the device, which is to sign its token with it.
    pub fn challenge_key(&self, id: &RegistrationId, now: u64) -> SymmetricKey {
        self.challenge_of(id, now / WINDOW)
    }

    /// The keys at the device's hub. The device is given the primary one; nobody has the other.
    pub fn hub_keys(&self, id: &RegistrationId) -> DeviceKeys {
        KeyPair {
            primary: self.derive("hub primary", id, ""),
            secondary: self.derive("hub secondary", id, ""),
        }
    }

    /// Judges a claim: the token must be signed with the key of a challenge.
    pub fn evaluate(&self, claim: &Claim<'_>) -> Result<DeviceKeys, Refusal> {
        let token = claim.token_on_its_terms()?;
        let window = claim.now / WINDOW;
        let current = token.is_signed_by(&self.challenge_of(claim.id, window));
        let last = token.is_signed_by(&self.challenge_of(claim.id, window.saturating_sub(1)));
        if current | last {
            Ok(self.hub_keys(claim.id))
        } else {
            Err(Refusal::WrongKey)
        }
    }

    fn challenge_of(&self, id: &RegistrationId, window: u64) -> SymmetricKey {
        self.derive("challenge", id, &window.to_string())
    }

    fn derive(&self, purpose: &str, id: &RegistrationId, window: &str) -> SymmetricKey {
        let name = crate::domain::hex(&self.endorsement_key.name());
        let id = id.canonical();
        let text = format!("rehome tpm v1\n{purpose}\n{id}\n{name}\n{window}\n");
        let bytes: Zeroizing<Vec<u8>> = self.seed.mac(text.as_bytes());
        SymmetricKey::from_mac(bytes)
    }
}

/// Numbers of the TPM 2.0 library specification, part 2, `TPM_ALG_ID` and `TPM_ECC_CURVE`.
mod alg {
    pub(super) const RSA: u16 = 0x0001;
    pub(super) const AES: u16 = 0x0006;
    pub(super) const SHA256: u16 = 0x000B;
    pub(super) const NULL: u16 = 0x0010;
    pub(super) const ECC: u16 = 0x0023;
    pub(super) const CFB: u16 = 0x0043;
    pub(super) const NIST_P256: u16 = 0x0003;
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let size = self.number()?;
        self.take(usize::from(size))
    }

    fn rsa(&mut self) -> Option<TpmKey> {
        let bits = self.number()?;
        let exponent = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let modulus = self.sized()?;
        let whole = 8 * modulus.len() == usize::from(bits) && modulus.first()? & 0x80 != 0;
        // 0 stands for 65537.
        let usual = matches!(exponent, 0 | 65537);
        (whole && usual && matches!(bits, 2048 | 3072 | 4096))
            .then(|| TpmKey::Rsa(modulus.to_vec()))
    }

    fn p256(&mut self) -> Option<TpmKey> {
        if self.number()? != alg::NIST_P256 || self.number()? != alg::NULL {
            return None;
        }
        let x = coordinate(self.sized()?)?;
        let y = coordinate(self.sized()?)?;
        Some(TpmKey::P256(x, y))
    }
}

/// With the zeros in front that some TPMs leave away.
fn coordinate(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut whole = [0; 32];
    let start = 32_usize.checked_sub(bytes.len())?;
    whole[start..].copy_from_slice(bytes);
    Some(whole)
}

#[cfg(test)]
#[path = "tpm_tests.rs"]
mod tests;
