//! HTTP: a whole connection through the real routes and the real service, also when it becomes a
//! WebSocket, and the body of a request for itself.

use std::sync::Arc;

use rehome::gateway::body::Body;
use rehome::gateway::http::{ConnectionLimits, router, serve};
use rehome::gateway::mqtt::{MqttFront, MqttLimits};
use rehome::gateway::service::Protocol;
use rehome::wire::websocket::Subprotocol;
use tokio::sync::watch;

use super::gateway::{peer, service};
use super::stream::{Client, run};

/// The input is a body.
pub(super) fn body(input: &[u8]) {
    let id = "device-001".parse().expect("an id");
    if let Ok(body) = Body::parse(input, &id) {
        let digest = body.payload_digest.unwrap_or_default();
        assert!(digest.is_empty() || digest.len() == 32, "{digest}");
    }
}

/// The input is everything that a client sends on one connection.
pub(super) fn connection(input: &[u8]) {
    run(async {
        let client = Client::new(&[], input);
        let answers = client.answers();
        let (_stop, stopped) = watch::channel(false);
        let (service, peer) = (service(), Arc::new(peer()));
        let routes = router(service.clone());
        let limits = ConnectionLimits::default();
        let served = serve(client, routes, peer.clone(), limits, stopped.clone());
        // That a connection ends with an error is what connections do.
        if let Ok(Some((Subprotocol::Mqtt, socket))) = served.await {
            let front = MqttFront::new(service, MqttLimits::default());
            let protocol = Protocol::MqttWebSocket;
            front.serve(socket, protocol, &peer, stopped).await;
        }
        let answers = answers.lock().expect("nobody panics while holding it");
        let begins = answers.is_empty() || answers.starts_with(b"HTTP/1.");
        assert!(begins, "{}", String::from_utf8_lossy(&answers));
    });
}
