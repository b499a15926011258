//! Topics of the device side.

/// What a device publishes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Telemetry,
    TwinGet { rid: &'a str },
    Report { rid: &'a str, version: Option<u64> },
}

/// What a device subscribes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    TwinResponses,
    Desired,
    /// A documented topic that this hub has nothing to send on.
    NotServed,
}

impl<'a> Request<'a> {
    /// `None` for topics that are not documented, or are another device's.
    pub(super) fn parse(topic: &'a str, device_id: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("devices/") {
            let rest = rest
                .strip_prefix(device_id)?
                .strip_prefix("/messages/events")?;
            return (rest.is_empty() || rest.starts_with('/')).then_some(Self::Telemetry);
        }
        let request = topic.strip_prefix("$iothub/twin/")?;
        if let Some(query) = request.strip_prefix("GET/") {
            let (rid, _) = parameters(query);
            return Some(Self::TwinGet { rid: rid? });
        }
        let query = request.strip_prefix("PATCH/properties/reported/")?;
        let (rid, version) = parameters(query);
        let version = match version {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        Some(Self::Report { rid: rid?, version })
    }
}

impl Subscription {
    pub(super) fn parse(filter: &str, device_id: &str) -> Option<Self> {
        match filter {
            "$iothub/twin/res/#" => Some(Self::TwinResponses),
            "$iothub/twin/PATCH/properties/desired/#" => Some(Self::Desired),
            "$iothub/methods/POST/#" => Some(Self::NotServed),
            _ => {
                let rest = filter.strip_prefix("devices/")?.strip_prefix(device_id)?;
                (rest == "/messages/devicebound/#").then_some(Self::NotServed)
            }
        }
    }
}

/// `$rid` and `$version` of `?$rid=1&$version=2`, in any order.
fn parameters(query: &str) -> (Option<&str>, Option<&str>) {
    let find = |name| {
        let mut pairs = query
            .trim_start_matches('?')
            .split('&')
            .filter_map(|it| it.split_once('='));
        pairs.find_map(|(found, value)| (found == name).then_some(value))
    };
    (find("$rid"), find("$version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_topics_are_understood() {
        for (topic, expected) in [
            ("devices/press-7/messages/events", Some(Request::Telemetry)),
            ("devices/press-7/messages/events/", Some(Request::Telemetry)),
            (
                "devices/press-7/messages/events/a=b&%24.mid=1",
                Some(Request::Telemetry),
            ),
            ("devices/press-7/messages/eventsx", None),
            ("devices/press-77/messages/events/", None),
            ("devices/other/messages/events/", None),
            (
                "$iothub/twin/GET/?$rid=12",
                Some(Request::TwinGet { rid: "12" }),
            ),
            (
                "$iothub/twin/GET/?x=1&$rid=a-b",
                Some(Request::TwinGet { rid: "a-b" }),
            ),
            ("$iothub/twin/GET/", None),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7",
                Some(Request::Report {
                    rid: "1",
                    version: Some(7),
                }),
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x",
                None,
            ),
            ("$iothub/twin/PATCH/properties/desired/?$rid=1", None),
            ("$iothub/methods/res/200/?$rid=1", None),
            ("a", None),
        ] {
            assert_eq!(Request::parse(topic, "press-7"), expected, "{topic}");
        }
    }

    #[test]
    fn documented_filters_are_understood() {
        for (filter, expected) in [
            ("$iothub/twin/res/#", Some(Subscription::TwinResponses)),
            (
                "$iothub/twin/PATCH/properties/desired/#",
                Some(Subscription::Desired),
            ),
            ("$iothub/methods/POST/#", Some(Subscription::NotServed)),
            (
                "devices/press-7/messages/devicebound/#",
                Some(Subscription::NotServed),
            ),
            ("devices/other/messages/devicebound/#", None),
            ("devices/+/messages/devicebound/#", None),
            ("#", None),
        ] {
            assert_eq!(Subscription::parse(filter, "press-7"), expected, "{filter}");
        }
    }
}
