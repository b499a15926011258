//! The two seams where faults come in: the transport to a hub, and a layer in front of the client
//! of the API server.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use kube::client::Body;
use rehome::registry::{Transport, TransportError};
use tower::service_fn;

use crate::fault::Due;
use crate::world::World;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// The controller that the plan follows.
    First,
    /// Another one; held at its first effect.
    Second(Option<Due>),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Hub { hub: usize, request: Request<Bytes> },
    Api(Request<Bytes>),
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// The request did not leave.
    Unreachable,
    Timeout,
}

impl Message {
    /// Whether it changes something that the protocol rests on. Events are words to people.
    pub(crate) fn is_effect(&self) -> bool {
        match self {
            Self::Hub { request, .. } => {
                request.method() != Method::GET && !request.uri().path().ends_with("/query")
            }
            Self::Api(request) => {
                request.method() != Method::GET
                    && request.uri().path().contains("/deviceregistrations/")
            }
        }
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Hub { hub, request } => {
                let host = crate::ground::HUBS[*hub];
                let body = String::from_utf8_lossy(request.body());
                let status = ["\"enabled\"", "\"disabled\""].into_iter();
                let status = status
                    .filter(|status| body.contains(status))
                    .collect::<String>();
                let path = request.uri().path().split('/').nth(1).unwrap_or_default();
                format!("{} {host} {path} {status}", request.method())
            }
            Self::Api(request) => {
                let path = request.uri().path();
                let part = if path.ends_with("/status") {
                    "status"
                } else {
                    "object"
                };
                let body: serde_json::Value =
                    serde_json::from_slice(request.body()).unwrap_or_default();
                let state = body["status"]["state"].as_str().unwrap_or_default();
                let phase = body["status"]["transfer"]["phase"]
                    .as_str()
                    .unwrap_or_default();
                format!("{} {part} {state} {phase}", request.method())
            }
        }
    }
}

struct PlanTransport {
    world: Arc<World>,
    actor: Actor,
    hub: usize,
}

impl Transport for PlanTransport {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let message = Message::Hub {
            hub: self.hub,
            request,
        };
        async move {
            self.world
                .carry(self.actor, message)
                .await
                .map_err(|none| match none {
                    NoReply::Unreachable => {
                        TransportError::Unreachable("connection refused".into())
                    }
                    NoReply::Timeout => TransportError::Timeout,
                })
        }
        .boxed()
    }
}

/// A transport to the plan's hub of that host name.
pub(crate) fn transport(world: &Arc<World>, actor: Actor, host_name: &str) -> Arc<dyn Transport> {
    let hub = world
        .hubs
        .iter()
        .position(|hub| hub.host_name == host_name)
        .unwrap();
    Arc::new(PlanTransport {
        world: Arc::clone(world),
        actor,
        hub,
    })
}

/// A client that acts as the operator's ServiceAccount, through the plan.
pub(crate) fn client(world: &Arc<World>, actor: Actor) -> Client {
    let world = Arc::clone(world);
    let service = service_fn(move |request: Request<Body>| {
        let world = Arc::clone(&world);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let message = Message::Api(Request::from_parts(head, body));
            match world.carry(actor, message).await {
                Ok(reply) => Ok(reply.map(Full::new)),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
    });
    Client::new(service, "default")
}
