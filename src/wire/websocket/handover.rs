//! From the HTTP handler, which answers the handshake, to the task that serves the connection.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::handshake::{Handshake, HandshakeError, Subprotocol};
use super::stream::WebSocket;

/// One for each HTTP connection: attach it to every request, and look at it when the connection has
/// been served (with upgrades).
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<Option<(Subprotocol, OnUpgrade)>>>);

impl Handover {
    /// Completes a handshake: the returned response is to be sent as it is.
    ///
    /// # Errors
    /// As the client is to be told.
    pub fn accept<B>(
        &self,
        request: &mut Request<B>,
        served: &[Subprotocol],
    ) -> Result<Response<()>, HandshakeError> {
        let handshake = Handshake::read(request.method(), request.headers(), served)?;
        let upgrade = hyper::upgrade::on(request);
        *self.slot() = Some((handshake.subprotocol, upgrade));
        Ok(handshake.response())
    }

    /// The WebSocket that the connection has become; `None` if it remained HTTP.
    ///
    /// # Errors
    /// The client was gone before the handshake was complete.
    pub async fn upgraded(
        &self,
    ) -> Result<Option<(Subprotocol, WebSocket<TokioIo<Upgraded>>)>, hyper::Error> {
        let Some((subprotocol, upgrade)) = self.slot().take() else {
            return Ok(None);
        };
        let upgraded = upgrade.await?;
        Ok(Some((subprotocol, WebSocket::new(TokioIo::new(upgraded)))))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Subprotocol, OnUpgrade)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
