//! What a life is made of, whoever runs the device: the harness's own client ([`Fast`]) or an
//! official SDK in a process of its own ([`Sdk`]).

mod fast;
mod sdk;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use rehome_testing::device::Registrar;

pub(crate) use fast::{API_VERSION, Fast, Proof};
pub(crate) use sdk::{KINDS, Sdk};

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

    /// Reads the twin: the count that it reported last, if it ever has.
    fn count(&mut self) -> impl Future<Output = Result<Option<u64>>> + Send;

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
