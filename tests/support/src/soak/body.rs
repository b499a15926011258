//! What a life is made of, whoever runs the device: the harness's own client ([`Fast`]) or an
//! official SDK in a process of its own ([`Sdk`]).

mod fast;
mod sdk;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rehome_testing::device::Registrar;
use serde_json::Value;

pub(crate) use fast::{API_VERSION, Fast, Proof};
pub(crate) use sdk::{CLIENTS, Sdk};

/// A kind of device: a row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// Whose program it is.
    pub(crate) client: &'static str,
    /// How it speaks to the gateway.
    pub(crate) protocol: &'static str,
}

/// Where a device lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The host name of its hub.
    pub(crate) hub: String,
    pub(crate) device_id: String,
}

/// Why a device is not told where it lives.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The gateway says that it may not.
    Refused(String),
    /// There was no connection, or it ended, or an SDK says something that may mean that.
    Broken(String),
}

/// A device. Errors of what it does at its hub mean that the connection is of no use any more.
pub(crate) trait Body: Send + Sized + 'static {
    fn kind(&self) -> Kind;

    /// Registers, to the end.
    fn register(&mut self, at: &Registrar) -> impl Future<Output = Result<Home, Failure>> + Send;

    /// Connects to the hub.
    fn connect(&mut self, home: &Home) -> impl Future<Output = Result<()>> + Send;

    /// Reads the twin: what it has reported.
    fn reported(&mut self) -> impl Future<Output = Result<Value>> + Send;

    /// Reports the count; done once the hub has it for good.
    fn report(&mut self, count: u64) -> impl Future<Output = Result<()>> + Send;

    /// Sends telemetry, where its program can.
    fn send(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Does nothing for that long, or until it notices that the hub has ended the connection: then
    /// false.
    fn stay(&mut self, time: Duration) -> impl Future<Output = bool> + Send;

    /// Whether the hub ends the connection, which is over then in any case.
    fn is_cut_off(&mut self) -> impl Future<Output = bool> + Send;

    /// Ends the connection.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// The count in reported properties, 0 before there is one. Java's twins have only numbers with a
/// point, and the SDK of 2018 reports and shows texts.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only whole numbers come that far"
)]
pub(crate) fn count_of(reported: &Value) -> Result<u64> {
    let count = &reported["count"];
    if count.is_null() {
        return Ok(0);
    }
    let text = count.as_str().and_then(|text| text.parse::<f64>().ok());
    let number = count.as_f64().or(text);
    let whole = number.filter(|number| *number >= 0.0 && number.fract() == 0.0);
    let whole = whole.with_context(|| format!("the count is {count}"))?;
    Ok(whole as u64)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}, {}", self.client, self.protocol))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(why) | Self::Broken(why)) = self;
        f.write_str(why)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_count_is_read_whatever_an_sdk_makes_of_it() {
        let read = |count: Value| count_of(&json!({ "count": count }));
        for seven in [json!(7), json!(7.0), json!("7"), json!("7.0")] {
            assert_eq!(read(seven).unwrap(), 7);
        }
        assert_eq!(count_of(&json!({})).unwrap(), 0);
        for nonsense in [json!(7.5), json!(-7), json!("seven"), json!([7])] {
            assert!(read(nonsense).is_err());
        }
    }
}
