//! The topics of the registration API. Pure.

use percent_encoding::percent_decode_str;

/// The only filter that may be subscribed to.
pub(super) const ANSWERS: &str = "$dps/registrations/res/#";

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
const POLL: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";
/// Longest request id: SDKs send a number or a UUID.
const RID: usize = 128;

/// What a device asks by publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// Comes back with the answer, byte for byte.
    pub(super) rid: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Register,
    Poll { operation_id: String },
}

/// Reads the topic of a request; `None` when it is not one.
pub(super) fn ask(topic: &str) -> Option<Ask> {
    let (parameters, poll) = match topic.strip_prefix(REGISTER) {
        Some(parameters) => (parameters, false),
        None => (topic.strip_prefix(POLL)?, true),
    };
    let parameter = |wanted: &str| {
        let mut pairs = parameters
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let rid = parameter("$rid")
        .filter(|rid| !rid.is_empty() && rid.len() <= RID)?
        .to_owned();
    let what = if poll {
        let operation_id = percent_decode_str(parameter("operationId")?)
            .decode_utf8()
            .ok()?;
        What::Poll {
            operation_id: operation_id.into_owned(),
        }
    } else {
        What::Register
    };
    Some(Ask { rid, what })
}

/// The topic of an answer. SDKs cut it at fixed places: `$rid` first, `retry-after` last.
pub(super) fn answer(status: u16, rid: &str, retry_after: Option<u32>) -> String {
    let retry_after = retry_after
        .map(|seconds| format!("&retry-after={seconds}"))
        .unwrap_or_default();
    format!("$dps/registrations/res/{status}/?$rid={rid}{retry_after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_sdks_are_understood() {
        for (topic, rid, operation) in [
            ("$dps/registrations/PUT/iotdps-register/?$rid=1", "1", None),
            (
                "$dps/registrations/PUT/iotdps-register/?$rid=a%20-b",
                "a%20-b",
                None,
            ),
            (
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.a.b-c",
                "2",
                Some("5.a.b-c"),
            ),
            (
                "$dps/registrations/GET/iotdps-get-operationstatus/?operationId=5%2Ea&$rid=2",
                "2",
                Some("5.a"),
            ),
        ] {
            let ask = ask(topic).unwrap();
            assert_eq!(ask.rid, rid, "{topic}");
            let expected = operation.map_or(What::Register, |operation_id| What::Poll {
                operation_id: operation_id.to_owned(),
            });
            assert_eq!(ask.what, expected, "{topic}");
        }
    }

    #[test]
    fn anything_else_is_not_a_request() {
        let long = format!("{REGISTER}$rid={}", "1".repeat(129));
        for topic in [
            "",
            "telemetry",
            "$dps/registrations/res/202/?$rid=1",
            "$dps/registrations/PUT/iotdps-register/",
            "$dps/registrations/PUT/iotdps-register/?",
            "$dps/registrations/PUT/iotdps-register/?$rid=",
            "$dps/registrations/PUT/iotdps-get-operationstatus/?$rid=1",
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1",
            "$dps/registrations/GET/iotdps-get-operationstatus/?operationId=1",
            &long,
        ] {
            assert_eq!(ask(topic), None, "{topic}");
        }
    }

    #[test]
    fn r07_the_topic_of_an_answer_is_literal() {
        assert_eq!(
            answer(202, "1", Some(3)),
            "$dps/registrations/res/202/?$rid=1&retry-after=3"
        );
        assert_eq!(
            answer(200, "x-y", None),
            "$dps/registrations/res/200/?$rid=x-y"
        );
    }
}
