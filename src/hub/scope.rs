//! What a shared access signature speaks for.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::attestation::DEFAULT_SKEW;
use crate::domain::sas::SasToken;

/// Whether the token's resource is `path` at this hub, or a prefix of it in whole segments. Host
/// names have no case; everything behind them has.
pub(super) fn covers(token: &SasToken, host_name: &str, path: &str) -> bool {
    let mut claimed = token.resource().trim_end_matches('/').split('/');
    if !claimed
        .next()
        .is_some_and(|host| host.eq_ignore_ascii_case(host_name))
    {
        return false;
    }
    let mut wanted = path.trim_start_matches('/').split('/');
    claimed.all(|segment| wanted.next() == Some(segment))
}

/// How long the token still counts, a little past the time that it states, as clocks differ.
/// `None` once it is void.
pub(super) fn remaining(token: &SasToken, now: Timestamp) -> Option<Duration> {
    let ends = token.expires_at().saturating_add(DEFAULT_SKEW.as_secs());
    let left = ends.checked_sub(u64::try_from(now.as_second()).unwrap_or(0))?;
    (left > 0).then(|| Duration::from_secs(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(resource: &str) -> SasToken {
        let key = "cHJpbWFyeS1rZXktMDEyMw==".parse().unwrap();
        SasToken::parse(&SasToken::sign(resource, &key, 1000, None)).unwrap()
    }

    #[test]
    fn a_token_covers_whole_segments() {
        for (resource, path, covered) in [
            ("hub.test", "/devices/a", true),
            ("HUB.test/", "/devices/a", true),
            ("hub.test/devices", "/devices/a", true),
            ("hub.test/devices/a", "/devices/a/modules", true),
            ("hub.test/devices/a", "/devices/ab", false),
            ("hub.test/devices/A", "/devices/a", false),
            ("hub.test/devices/a/b", "/devices/a", false),
            ("other.test", "/devices/a", false),
            ("", "/devices/a", false),
        ] {
            let found = covers(&token(resource), "hub.test", path);
            assert_eq!(found, covered, "{resource} {path}");
        }
    }

    #[test]
    fn a_token_counts_for_five_minutes_past_its_expiry() {
        let left = |now| remaining(&token("hub.test"), Timestamp::from_second(now).unwrap());
        assert_eq!(left(900), Some(Duration::from_secs(400)));
        assert_eq!(left(1299), Some(Duration::from_secs(1)));
        assert_eq!((left(1300), left(9999)), (None, None));
    }
}
