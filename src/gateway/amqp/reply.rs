//! What a request is answered with. Pure.

use serde_json::Value;

use crate::gateway::error::{Problem, RETRY_AFTER};
use crate::gateway::service::{Answer, Request};
use crate::wire::amqp::{Message, Outcome, Reply};

const OPERATION: &str = "iotdps-operation-type";
const OPERATION_ID: &str = "iotdps-operation-id";
/// Under the names of every SDK.
const RETRY_NAMES: [&str; 2] = ["retry-after", "Retry-After"];

/// What a message asks. Who asks is never in it.
pub(super) fn request(message: &Message) -> Result<Request, Problem> {
    let body = || message.body.clone().into();
    match message.property(OPERATION) {
        Some("iotdps-register") => Ok(Request::Register { body: body() }),
        Some("iotdps-get-registration") => Ok(Request::Lookup { body: body() }),
        Some("iotdps-get-operationstatus") => {
            let operation_id = message.property(OPERATION_ID).unwrap_or_default();
            Ok(Request::Poll {
                operation_id: operation_id.to_owned(),
            })
        }
        _ => Err(Problem::BadRequest(format!(
            "the application property {OPERATION} is missing or unknown"
        ))),
    }
}

/// What becomes of the message, and the message that answers it, if one does.
pub(super) fn answer(
    served: Result<Answer, (Problem, Value)>,
    correlation_id: Vec<u8>,
    in_body: bool,
) -> (Outcome, Option<Reply>) {
    let reply = |body: &Value, retry_after: Option<u32>| Reply {
        correlation_id,
        properties: retry(retry_after),
        body: body.to_string().into_bytes(),
    };
    match served {
        Ok(Answer::Operation(shown)) => {
            let running = Some(RETRY_AFTER).filter(|_| !shown.is_final());
            (Outcome::Accepted, Some(reply(&shown.body, running)))
        }
        Ok(Answer::Registration(body)) => (Outcome::Accepted, Some(reply(&body, None))),
        // The service challenges over HTTPS only.
        Ok(Answer::Challenge(body)) => {
            let rejected = Outcome::Rejected {
                condition: "amqp:unauthorized-access",
                description: body.to_string(),
                info: Vec::new(),
            };
            (rejected, None)
        }
        Err((problem, body)) if in_body => {
            (Outcome::Accepted, Some(reply(&body, problem.retry_after())))
        }
        Err((problem, body)) => {
            let rejected = Outcome::Rejected {
                condition: problem.condition(),
                description: body.to_string(),
                info: retry(problem.retry_after()),
            };
            (rejected, None)
        }
    }
}

fn retry(seconds: Option<u32>) -> Vec<(&'static str, i32)> {
    let Some(seconds) = seconds.and_then(|seconds| i32::try_from(seconds).ok()) else {
        return Vec::new();
    };
    RETRY_NAMES.map(|name| (name, seconds)).to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_application_properties() {
        let message = |pairs: &[(&str, &str)]| Message {
            properties: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: b"{}".to_vec(),
            ..Message::default()
        };
        let register = request(&message(&[(OPERATION, "iotdps-register")])).unwrap();
        assert!(matches!(register, Request::Register { body } if body == "{}"));
        let poll = message(&[
            (OPERATION, "iotdps-get-operationstatus"),
            (OPERATION_ID, "5.a"),
        ]);
        let poll = request(&poll).unwrap();
        assert!(matches!(poll, Request::Poll { operation_id } if operation_id == "5.a"));
        let lookup = request(&message(&[(OPERATION, "iotdps-get-registration")])).unwrap();
        assert!(matches!(lookup, Request::Lookup { .. }));
        for other in [&[][..], &[(OPERATION, "iotdps-dance")]] {
            assert_eq!(request(&message(other)).unwrap_err().code(), 400_001);
        }
    }

    #[test]
    fn r22_retry_after_is_under_both_names_in_replies_and_rejections() {
        let both = vec![("retry-after", 3), ("Retry-After", 3)];
        let throttled = || Err((Problem::Throttled, json!({ "errorCode": 429_001 })));
        let (outcome, reply) = answer(throttled(), vec![], false);
        let expected = Outcome::Rejected {
            condition: "com.microsoft:device-container-throttled",
            description: "{\"errorCode\":429001}".to_owned(),
            info: both.clone(),
        };
        assert_eq!((outcome, reply), (expected, None));
        // Java.
        let (outcome, reply) = answer(throttled(), vec![0x41], true);
        let reply = reply.unwrap();
        assert_eq!((outcome, reply.properties), (Outcome::Accepted, both));
        assert_eq!(reply.body, b"{\"errorCode\":429001}");
        assert_eq!(reply.correlation_id, [0x41]);
    }
}
