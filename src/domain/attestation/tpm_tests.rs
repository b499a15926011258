//! Public areas as a TPM writes them, and which hour's challenge counts.

use super::*;
use crate::domain::sas::SasToken;

const HOUR: u64 = 500_000;

fn sized(content: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(content.len()).unwrap().to_be_bytes()[..],
        content,
    ]
    .concat()
}

/// The standard template of an RSA endorsement key, with this modulus.
fn rsa(modulus: &[u8]) -> Vec<u8> {
    let area = [
        &[0x00, 0x01, 0x00, 0x0B, 0x00, 0x03, 0x00, 0xB2][..],
        &sized(&[7; 32]),
        &[
            0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0,
        ],
        &sized(modulus),
    ];
    sized(&area.concat())
}

fn endorsed() -> Endorsed {
    Endorsed {
        endorsement_key: PublicArea::parse(&rsa(&[0xC5; 256])).unwrap(),
        seed: STANDARD.encode([7; 32]).parse().unwrap(),
    }
}

#[test]
fn a_public_area_is_read_whole_or_not_at_all() {
    let good = rsa(&[0xC5; 256]);
    let area = PublicArea::parse(&good).unwrap();
    assert_eq!(*area.key(), TpmKey::Rsa(vec![0xC5; 256]));
    assert_eq!(area.symmetric_bits(), 128);
    assert_eq!(
        (area.name().len(), &area.name()[..2]),
        (34, &[0x00, 0x0B][..])
    );
    for cut in 0..good.len() {
        assert!(PublicArea::parse(&good[..cut]).is_err(), "{cut}");
    }
    assert!(PublicArea::parse(&[&good[..], &[0]].concat()).is_err());
    for (position, value, words) in [
        (3, 0x25, "neither"),
        (5, 0x04, "SHA-256"),
        (45, 0x05, "AES"),
        (47, 0x81, "AES-CFB"),
        (49, 0x44, "AES-CFB"),
        (51, 0x14, "scheme"),
        (52, 0x04, "2048 to 4096"),
        (57, 0x03, "2048 to 4096"),
    ] {
        let mut bad = good.clone();
        bad[position] = value;
        let said = PublicArea::parse(&bad).unwrap_err().to_string();
        assert!(said.contains(words), "{position}: {said}");
    }
    assert!(
        PublicArea::parse(&rsa(&[0x45; 256])).is_err(),
        "a modulus of 2047 bits"
    );
    let endless = "A".repeat(1 << 20);
    assert!(PublicArea::from_base64(&endless).is_err());
}

#[test]
fn a_challenge_is_good_for_its_hour_and_the_next() {
    let (scope, id) = ("plant".parse().unwrap(), "Press-7".parse().unwrap());
    let endorsed = endorsed();
    let judge = |token: &str, now| {
        endorsed.evaluate(&Claim {
            token: Some(&SasToken::parse(token).unwrap()),
            chain: None,
            scope: &scope,
            id: &id,
            now,
            skew: std::time::Duration::ZERO,
        })
    };
    let began = HOUR * WINDOW + 1800;
    let key = endorsed.challenge_key(&"press-7".parse().unwrap(), began);
    let token = SasToken::sign("plant/registrations/press-7", &key, u64::MAX, None);
    for (later, good) in [
        (0, true),
        (1800, true),
        (5399, true),
        (5400, false),
        (9000, false),
    ] {
        assert_eq!(judge(&token, began + later).is_ok(), good, "{later}");
    }
    let before = endorsed.challenge_key(&id, began + WINDOW);
    let from_the_future = SasToken::sign("plant/registrations/press-7", &before, u64::MAX, None);
    assert!(judge(&from_the_future, began).is_err());
}

#[test]
fn every_purpose_device_and_seed_has_keys_of_its_own() {
    let endorsed = endorsed();
    let other = Endorsed {
        seed: STANDARD.encode([8; 32]).parse().unwrap(),
        ..endorsed.clone()
    };
    let id = |text: &str| text.parse::<RegistrationId>().unwrap();
    let mut keys = vec![
        endorsed.challenge_key(&id("press-7"), 0),
        endorsed.challenge_key(&id("press-8"), 0),
        other.challenge_key(&id("press-7"), 0),
    ];
    for (whose, of) in [
        (&endorsed, "press-7"),
        (&endorsed, "press-8"),
        (&other, "press-7"),
    ] {
        let pair = whose.hub_keys(&id(of));
        keys.extend([pair.primary, pair.secondary]);
    }
    let distinct: std::collections::HashSet<_> =
        keys.iter().map(|key| key.reveal().to_vec()).collect();
    assert_eq!(distinct.len(), keys.len());
    let (upper, lower) = (
        endorsed.hub_keys(&id("Press-7")),
        endorsed.hub_keys(&id("press-7")),
    );
    assert_eq!(upper.primary.reveal(), lower.primary.reveal());
    assert!(!format!("{endorsed:?}").contains("BwcH"));
}
