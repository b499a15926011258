//! Keys in envelopes that only one TPM can open: what TPM 2.0 calls credential activation and
//! import, the side of it that needs no TPM.
//!
//! Follows the TPM 2.0 library specification, part 1: "Credential Protection" (outer wrapper to the
//! endorsement key, bound to the name of the storage key) and "Duplication" (inner and outer wrapper
//! to the storage key). Knows neither who the device is nor what the key is for.

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::{digest, hmac, rand};
use zeroize::Zeroizing;

use crate::domain::attestation::tpm::{PublicArea, TpmKey};

/// An envelope could not be made: the TPM's key is none, or the system has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be encrypted to the device's TPM")]
pub struct CannotWrap;

impl From<Unspecified> for CannotWrap {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// `key`, an HMAC-SHA256 key of at most 64 bytes, in an envelope that takes the TPM which holds both
/// keys to open; it can use the key then, but not read it.
///
/// The layout is what DPS sends as `authenticationKey`: `TPM2B_ID_OBJECT`, `TPM2B_ENCRYPTED_SECRET`,
/// `TPM2B_PRIVATE`, `TPM2B_ENCRYPTED_SECRET`, `TPM2B_PUBLIC`, and a sized text that clients skip.
pub fn envelope(
    endorsement_key: &PublicArea,
    storage_root_key: &PublicArea,
    key: &[u8],
) -> Result<Vec<u8>, CannotWrap> {
    let inner_key = random::<16>()?;
    let (id_object, activation_secret) =
        make_credential(endorsement_key, &storage_root_key.name(), &*inner_key)?;
    let object = HmacObject::new(key)?;
    let (private, import_secret) = duplicate(storage_root_key, &object, &*inner_key)?;
    Ok([
        sized(&id_object),
        sized(&activation_secret),
        sized(&private),
        sized(&import_secret),
        sized(&object.public),
        sized(&[]),
    ]
    .concat())
}

/// `TPM2_MakeCredential`: the contents of `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`.
fn make_credential(
    to: &PublicArea,
    name: &[u8],
    credential: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), CannotWrap> {
    let (seed, secret) = shared_seed(to, "IDENTITY")?;
    let object = outer_wrapper(to, &seed, name, sized(credential))?;
    Ok((object, secret))
}

/// `TPM2_Duplicate`: the contents of `TPM2B_PRIVATE` and `TPM2B_ENCRYPTED_SECRET`.
fn duplicate(
    to: &PublicArea,
    object: &HmacObject,
    inner_key: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), CannotWrap> {
    let name = object.name();
    let sensitive = Zeroizing::new(sized(&object.sensitive));
    let integrity = digest::digest(&digest::SHA256, &[&sensitive[..], &name].concat());
    let mut inner = [sized(integrity.as_ref()), sensitive.to_vec()].concat();
    aes_cfb(inner_key, &mut inner)?;
    let (seed, secret) = shared_seed(to, "DUPLICATE")?;
    let private = outer_wrapper(to, &seed, &name, inner)?;
    Ok((private, secret))
}

/// Encrypts and authenticates, bound to `name`: the digest, then the ciphertext.
fn outer_wrapper(
    to: &PublicArea,
    seed: &[u8],
    name: &[u8],
    mut content: Vec<u8>,
) -> Result<Vec<u8>, CannotWrap> {
    aes_cfb(
        &kdf_a(seed, "STORAGE", name, to.symmetric_bits()),
        &mut content,
    )?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(seed, "INTEGRITY", &[], 256));
    let digest = hmac::sign(&key, &[&content[..], name].concat());
    Ok([sized(digest.as_ref()), content].concat())
}

/// A seed that the TPM can find again, and what it needs for that.
fn shared_seed(to: &PublicArea, label: &str) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CannotWrap> {
    match to.key() {
        TpmKey::Rsa(modulus) => {
            let seed = random::<32>()?;
            let key = PublicEncryptingKey::from_der(&rsa_spki(modulus)).map_err(|_| CannotWrap)?;
            let key = OaepPublicEncryptingKey::new(key)?;
            let mut secret = vec![0; key.ciphertext_size()];
            // The terminating zero is part of the label.
            let label = [label.as_bytes(), &[0]].concat();
            let length = key
                .encrypt(&OAEP_SHA256_MGF1SHA256, &*seed, &mut secret, Some(&label))?
                .len();
            secret.truncate(length);
            Ok((Zeroizing::new(seed.to_vec()), secret))
        }
        TpmKey::P256(x, y) => {
            let ours = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())?;
            let point = ours.compute_public_key()?;
            // Uncompressed: 4, x, y.
            let (our_x, our_y) = (&point.as_ref()[1..33], &point.as_ref()[33..65]);
            let secret = [sized(our_x), sized(our_y)].concat();
            let theirs = [&[4][..], x, y].concat();
            let theirs = UnparsedPublicKey::new(&ECDH_P256, &theirs);
            let seed =
                agree_ephemeral(ours, theirs, CannotWrap, |z| Ok(kdf_e(z, label, our_x, x)))?;
            Ok((seed, secret))
        }
    }
}

/// A key as a TPM object: what it keeps to itself and what it shows.
struct HmacObject {
    sensitive: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl HmacObject {
    fn new(key: &[u8]) -> Result<Self, CannotWrap> {
        const KEYEDHASH: [u8; 2] = [0x00, 0x08];
        const SHA256: [u8; 2] = [0x00, 0x0B];
        const HMAC: [u8; 2] = [0x00, 0x05];
        // sign | userWithAuth: may be duplicated, and is used with an empty password.
        const ATTRIBUTES: [u8; 4] = [0x00, 0x04, 0x00, 0x40];
        let obfuscation = random::<32>()?;
        let unique = digest::digest(&digest::SHA256, &[&obfuscation[..], key].concat());
        // Type, no password, obfuscation value, key.
        let sensitive = [
            &KEYEDHASH[..],
            &sized(&[]),
            &sized(&*obfuscation),
            &sized(key),
        ]
        .concat();
        // Type, name algorithm, attributes, no policy, scheme, digest of the key.
        let public = [
            &KEYEDHASH[..],
            &SHA256,
            &ATTRIBUTES,
            &sized(&[]),
            &HMAC,
            &SHA256,
            &sized(unique.as_ref()),
        ]
        .concat();
        Ok(Self {
            sensitive: Zeroizing::new(sensitive),
            public,
        })
    }

    fn name(&self) -> Vec<u8> {
        let digest = digest::digest(&digest::SHA256, &self.public);
        [&[0x00, 0x0B][..], digest.as_ref()].concat()
    }
}

/// `KDFa` of the specification with HMAC-SHA256, for at most 256 bits.
fn kdf_a(key: &[u8], label: &str, context: &[u8], bits: u16) -> Zeroizing<Vec<u8>> {
    let text = [
        &1_u32.to_be_bytes()[..],
        label.as_bytes(),
        &[0],
        context,
        &u32::from(bits).to_be_bytes(),
    ]
    .concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &text);
    Zeroizing::new(tag.as_ref()[..usize::from(bits / 8)].to_vec())
}

/// `KDFe` of the specification with SHA-256, for 256 bits.
fn kdf_e(z: &[u8], label: &str, party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let parts = [
        &1_u32.to_be_bytes()[..],
        z,
        label.as_bytes(),
        &[0],
        party_u,
        party_v,
    ];
    let text = Zeroizing::new(parts.concat());
    Zeroizing::new(digest::digest(&digest::SHA256, &text).as_ref().to_vec())
}

fn aes_cfb(key: &[u8], content: &mut [u8]) -> Result<(), CannotWrap> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = EncryptingKey::cfb128(UnboundCipherKey::new(algorithm, key)?)?;
    // The specification wants an IV of zeros; no key is used twice.
    let context = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    key.less_safe_encrypt(content, context)?;
    Ok(())
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, CannotWrap> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(&mut *bytes)?;
    Ok(bytes)
}

/// With its length in front, as a `TPM2B`. Nothing here is longer than a few hundred bytes.
fn sized(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], content].concat()
}

/// An RSA public key with the exponent 65537 as `SubjectPublicKeyInfo`.
fn rsa_spki(modulus: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: [u8; 15] = [
        0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    // The topmost bit is set, so that a zero keeps the number positive.
    let modulus = der(0x02, &[&[0], modulus].concat());
    let exponent = der(0x02, &[0x01, 0x00, 0x01]);
    let key = der(0x30, &[modulus, exponent].concat());
    let bits = der(0x03, &[&[0], &key[..]].concat());
    der(0x30, &[&RSA_ENCRYPTION[..], &bits].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(length.len() - 1);
    let length = &length[significant..];
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        // As many bytes of length follow; never more than eight.
        bytes.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
    }
    bytes.extend_from_slice(length);
    bytes.extend_from_slice(content);
    bytes
}
