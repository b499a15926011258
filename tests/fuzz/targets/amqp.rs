//! AMQP: frames and types, SASL and link addresses, through the gateway's front end.

use rehome::gateway::amqp::{AmqpFront, AmqpLimits};
use rehome::gateway::service::Protocol;
use tokio::sync::watch;

use super::gateway::{peer, service};
use super::stream::{Client, run};

/// The input is everything that a client sends on one connection, behind the byte that says in what
/// pieces.
pub(super) fn front(input: &[u8]) {
    run(async {
        let front = AmqpFront::new(service(), AmqpLimits::default());
        let client = Client::new(&[], input);
        let answers = client.answers();
        let (_stop, stopped) = watch::channel(false);
        front.serve(client, Protocol::Amqp, &peer(), stopped).await;
        let answers = answers.lock().expect("nobody panics while holding it");
        let header = answers.is_empty() || answers.starts_with(b"AMQP");
        assert!(header, "{answers:x?}");
    });
}
