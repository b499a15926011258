//! Who is told of calls to hubs.

use std::time::Duration;

use super::Call;

/// Is told how each call ended, for metrics.
pub trait CallObserver: Send + Sync + 'static {
    /// A call was made. `outcome` is `ok` or a [`super::Cause::class`]; what it took includes waiting
    /// for its turn.
    fn called(&self, call: Call, outcome: &'static str, took: Duration);
}

/// Nobody wants to know.
impl CallObserver for () {
    fn called(&self, _: Call, _: &'static str, _: Duration) {}
}
