//! Points in time as IoT Hub writes them: UTC with seven fractional digits.

use jiff::Timestamp;

/// What IoT Hub shows where something never happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// For example `2026-11-23T06:20:33.1234567Z`.
pub(super) fn format(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string()
}

/// As [`format`], or [`NEVER`].
pub(super) fn format_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_fractional_digits_are_kept() {
        let at: Timestamp = "2026-11-23T06:20:33.123456789Z".parse().unwrap();
        assert_eq!(format(at), "2026-11-23T06:20:33.1234567Z");
        assert_eq!(
            format("2026-11-23T06:20:33Z".parse().unwrap()),
            "2026-11-23T06:20:33.0000000Z"
        );
    }
}
