//! Topics of the device side.

use crate::hub::client::Client;

/// What a client publishes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// With its property bag.
    Telemetry(&'a str),
    TwinGet {
        rid: &'a str,
    },
    Report {
        rid: &'a str,
        version: Option<u64>,
    },
    MethodAnswer {
        rid: &'a str,
        status: i64,
    },
}

/// What a client subscribes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    TwinResponses,
    Desired,
    Methods,
    Messages,
    /// A documented topic that this hub has nothing to send on.
    NotServed,
}

impl<'a> Request<'a> {
    /// `None` for topics that are not documented, or are another client's.
    pub(super) fn parse(topic: &'a str, client: &Client) -> Option<Self> {
        if topic.starts_with("devices/") {
            return telemetry_bag(topic, client).map(Self::Telemetry);
        }
        let request = topic.strip_prefix("$iothub/")?;
        if let Some(answer) = request.strip_prefix("methods/res/") {
            let (status, query) = answer.split_once('/')?;
            let (rid, _) = parameters(query);
            let (status, rid) = (status.parse().ok()?, rid?);
            return Some(Self::MethodAnswer { rid, status });
        }
        let request = request.strip_prefix("twin/")?;
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
    pub(super) fn parse(filter: &str, client: &Client) -> Option<Self> {
        match filter {
            "$iothub/twin/res/#" => Some(Self::TwinResponses),
            "$iothub/twin/PATCH/properties/desired/#" => Some(Self::Desired),
            "$iothub/methods/POST/#" => Some(Self::Methods),
            _ => {
                let rest = filter.strip_prefix("devices/")?;
                let rest = rest.strip_prefix(client.device.as_str())?;
                match (&client.module, rest) {
                    (None, "/messages/devicebound/#") => Some(Self::Messages),
                    (None, _) => None,
                    (Some(module), rest) => {
                        // Routes between modules are IoT Edge's.
                        let rest = rest.strip_prefix("/modules/")?;
                        let rest = rest.strip_prefix(module.as_str())?;
                        matches!(rest, "/#" | "/inputs/#").then_some(Self::NotServed)
                    }
                }
            }
        }
    }
}

/// The property bag of a topic to which the client sends telemetry.
pub(super) fn telemetry_bag<'a>(topic: &'a str, client: &Client) -> Option<&'a str> {
    let rest = topic.strip_prefix("devices/")?;
    let mut rest = rest.strip_prefix(client.device.as_str())?;
    if let Some(module) = &client.module {
        rest = rest.strip_prefix("/modules/")?;
        rest = rest.strip_prefix(module.as_str())?;
    }
    let bag = rest.strip_prefix("/messages/events")?;
    if bag.is_empty() {
        return Some(bag);
    }
    bag.strip_prefix('/')
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

    fn client(name: &str) -> Client {
        let (device, module) = name.split_once('/').unwrap_or((name, ""));
        Client {
            device: device.parse().unwrap(),
            module: module.parse().ok(),
        }
    }

    #[test]
    fn documented_topics_are_understood() {
        let get = |rid| Some(Request::TwinGet { rid });
        let report = |rid, version| Some(Request::Report { rid, version });
        let answer = |rid, status| Some(Request::MethodAnswer { rid, status });
        let telemetry = |bag| Some(Request::Telemetry(bag));
        let reported = "$iothub/twin/PATCH/properties/reported/";
        for (topic, expected) in [
            ("devices/press-7/messages/events", telemetry("")),
            ("devices/press-7/messages/events/", telemetry("")),
            (
                "devices/press-7/messages/events/a=b&%24.mid=1",
                telemetry("a=b&%24.mid=1"),
            ),
            ("devices/press-7/messages/eventsx", None),
            ("devices/press-77/messages/events/", None),
            ("devices/other/messages/events/", None),
            ("devices/press-7/modules/gauge/messages/events/", None),
            ("$iothub/twin/GET/?$rid=12", get("12")),
            ("$iothub/twin/GET/?x=1&$rid=a-b", get("a-b")),
            ("$iothub/twin/GET/", None),
            (
                &format!("{reported}?$rid=1&$version=7"),
                report("1", Some(7)),
            ),
            (&format!("{reported}?$rid=1&$version=x"), None),
            ("$iothub/twin/PATCH/properties/desired/?$rid=1", None),
            ("$iothub/methods/res/200/?$rid=1f", answer("1f", 200)),
            ("$iothub/methods/res/-7/?$rid=1", answer("1", -7)),
            ("$iothub/methods/res/ok/?$rid=1", None),
            ("$iothub/methods/res/200", None),
            ("a", None),
        ] {
            assert_eq!(
                Request::parse(topic, &client("press-7")),
                expected,
                "{topic}"
            );
        }
        for (topic, expected) in [
            (
                "devices/press-7/modules/gauge/messages/events/a=b",
                telemetry("a=b"),
            ),
            ("devices/press-7/modules/other/messages/events/", None),
            ("devices/press-7/messages/events/", None),
            ("$iothub/twin/GET/?$rid=1", get("1")),
        ] {
            let module = client("press-7/gauge");
            assert_eq!(Request::parse(topic, &module), expected, "{topic}");
        }
    }

    #[test]
    fn documented_filters_are_understood() {
        for (name, filter, expected) in [
            (
                "press-7",
                "$iothub/twin/res/#",
                Some(Subscription::TwinResponses),
            ),
            (
                "press-7/gauge",
                "$iothub/twin/PATCH/properties/desired/#",
                Some(Subscription::Desired),
            ),
            (
                "press-7",
                "$iothub/methods/POST/#",
                Some(Subscription::Methods),
            ),
            (
                "press-7",
                "devices/press-7/messages/devicebound/#",
                Some(Subscription::Messages),
            ),
            (
                "press-7/gauge",
                "devices/press-7/messages/devicebound/#",
                None,
            ),
            (
                "press-7/gauge",
                "devices/press-7/modules/gauge/#",
                Some(Subscription::NotServed),
            ),
            (
                "press-7/gauge",
                "devices/press-7/modules/gauge/inputs/#",
                Some(Subscription::NotServed),
            ),
            ("press-7/gauge", "devices/press-7/modules/other/#", None),
            ("press-7", "devices/press-7/modules/gauge/#", None),
            ("press-7", "devices/other/messages/devicebound/#", None),
            ("press-7", "devices/+/messages/devicebound/#", None),
            ("press-7", "#", None),
        ] {
            assert_eq!(
                Subscription::parse(filter, &client(name)),
                expected,
                "{name} {filter}"
            );
        }
    }
}
