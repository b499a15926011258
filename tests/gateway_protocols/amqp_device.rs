//! The AMQP device of the harness, at a gateway of [`crate::stage`].

use std::sync::Arc;

use rehome_testing::device::amqp;
pub(crate) use rehome_testing::device::amqp::{Answer, Ask, Links, Rejection, Stream, data, types};

use crate::stage::{SCOPE, Sockets, token};

/// A device with the group's key and the current Node SDK.
pub(crate) fn links(id: &str) -> Links {
    Links::like_node(SCOPE, id).with_token(token(id))
}

/// One connection with both links.
pub(crate) struct Amqp {
    device: amqp::Amqp,
    /// The server that it needs, if nobody else keeps it.
    pub(crate) server: Option<Arc<Sockets>>,
}

impl Amqp {
    pub(crate) async fn open(stream: impl Stream, links: &Links) -> Result<Self, String> {
        let opened = amqp::Amqp::open(stream, links).await;
        opened
            .map_err(|error| format!("{error:#}"))
            .map(|device| Self {
                device,
                server: None,
            })
    }

    /// Asks and is answered.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Answer {
        self.device.ask(ask).await.unwrap()
    }

    /// Asks and is answered or rejected.
    pub(crate) async fn try_ask(&mut self, ask: Ask) -> Result<Answer, Rejection> {
        let asked = self.device.ask(ask).await;
        asked.map_err(|error| error.downcast().expect("a rejection"))
    }

    /// Whether the connection ends before there is an answer.
    pub(crate) async fn is_ended(&mut self) -> bool {
        let answer = self.device.answer().await;
        let late = answer.as_ref().is_err_and(|error| {
            error
                .downcast_ref::<tokio::time::error::Elapsed>()
                .is_some()
        });
        answer.is_err() && !late
    }
}
