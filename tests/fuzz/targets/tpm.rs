//! Public areas of TPM keys, which a device shows before it has proved anything, and the envelope that
//! is made for them.

use rehome::domain::attestation::tpm::PublicArea;
use rehome::wire::tpm::envelope;

/// The input is a `TPM2B_PUBLIC`; and, as it is, what should be the base64 of one.
pub(super) fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = PublicArea::from_base64(text);
    }
    let Ok(area) = PublicArea::parse(input) else {
        return;
    };
    assert_eq!(area.name().len(), 34);
    assert!([128, 256].contains(&area.symmetric_bits()));
    // Its numbers may be no key at all: then there is no envelope.
    if let Ok(blob) = envelope(&area, &area, &[7; 32]) {
        assert!(blob.len() < 4096, "{}", blob.len());
    }
}
