//! All protocols on their sockets. HTTPS and WebSocket share one port.

use std::sync::Arc;

use axum::Router;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::amqp::{AmqpFront, AmqpLimits};
use super::http::{self, ConnectionLimits};
use super::mqtt::{MqttFront, MqttLimits};
use super::registrations::Registrations;
use super::service::{Protocol, Service};
use crate::wire::incidents::Incident;
use crate::wire::tls::{Accepted, Acceptor, Certificates, Peer, Stream, server_config};
use crate::wire::websocket::Subprotocol;

/// What devices connect to.
pub struct Fronts<R> {
    pub service: Arc<Service<R>>,
    pub certificates: Arc<Certificates>,
    pub acceptor: Arc<Acceptor>,
    pub http: ConnectionLimits,
    pub mqtt: MqttLimits,
    pub amqp: AmqpLimits,
}

/// Where devices connect.
pub struct Listeners {
    /// HTTPS, and MQTT and AMQP over WebSocket.
    pub https: TcpListener,
    pub mqtt: TcpListener,
    pub amqp: TcpListener,
}

/// The connections that are being served.
pub struct Served(mpsc::Receiver<()>);

impl Served {
    /// Resolves when nobody listens any more and the last connection has ended.
    pub async fn ended(mut self) {
        // Each listener and each connection holds a sender; none ever sends.
        let _ = self.0.recv().await;
    }
}

impl<R: Registrations> Fronts<R> {
    /// Listens, in tasks of `parts`, until `stop` becomes true. The bounds on connections hold for
    /// all protocols together.
    ///
    /// # Errors
    /// TLS cannot be configured.
    pub fn listen(
        &self,
        parts: &mut JoinSet<()>,
        listeners: Listeners,
        stop: &watch::Receiver<bool>,
    ) -> Result<Served, rustls::Error> {
        let Listeners { https, mqtt, amqp } = listeners;
        let (serving, served) = mpsc::channel(1);
        let config = server_config(self.certificates.clone(), &["http/1.1"])?;
        let devices = Devices {
            service: self.service.clone(),
            mqtt: Arc::new(MqttFront::new(self.service.clone(), self.mqtt)),
            amqp: Arc::new(AmqpFront::new(self.service.clone(), self.amqp)),
            http: self.http,
            stop: stop.clone(),
            serving,
        };
        let serve = devices.clone().on_https();
        parts.spawn(
            self.acceptor
                .clone()
                .run(https, config, serve, stopped(stop.clone())),
        );
        let config = server_config(self.certificates.clone(), &[])?;
        let serve = devices.clone().on_mqtt();
        parts.spawn(
            self.acceptor
                .clone()
                .run(mqtt, config.clone(), serve, stopped(stop.clone())),
        );
        let serve = devices.on_amqp();
        parts.spawn(
            self.acceptor
                .clone()
                .run(amqp, config, serve, stopped(stop.clone())),
        );
        Ok(Served(served))
    }
}

/// What serves one connection.
type Serve = BoxFuture<'static, ()>;

/// Serves connections; each holds a clone.
struct Devices<R> {
    service: Arc<Service<R>>,
    mqtt: Arc<MqttFront<R>>,
    amqp: Arc<AmqpFront<R>>,
    http: ConnectionLimits,
    stop: watch::Receiver<bool>,
    serving: mpsc::Sender<()>,
}

impl<R> Clone for Devices<R> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            mqtt: self.mqtt.clone(),
            amqp: self.amqp.clone(),
            http: self.http,
            stop: self.stop.clone(),
            serving: self.serving.clone(),
        }
    }
}

impl<R: Registrations> Devices<R> {
    fn on_https(self) -> impl Fn(Accepted) -> Serve + Clone {
        let router = http::router(self.service.clone());
        move |Accepted { stream, peer }| {
            let (this, router) = (self.clone(), router.clone());
            Box::pin(async move { this.https(stream, peer, router).await })
        }
    }

    fn on_mqtt(self) -> impl Fn(Accepted) -> Serve + Clone {
        move |Accepted { stream, peer }| {
            let this = self.clone();
            Box::pin(async move {
                let stop = this.stop.clone();
                this.mqtt.serve(stream, Protocol::Mqtt, &peer, stop).await;
            })
        }
    }

    fn on_amqp(self) -> impl Fn(Accepted) -> Serve + Clone {
        move |Accepted { stream, peer }| {
            let this = self.clone();
            Box::pin(async move {
                let stop = this.stop.clone();
                this.amqp.serve(stream, Protocol::Amqp, &peer, stop).await;
            })
        }
    }

    /// One connection that begins as HTTPS.
    async fn https(&self, stream: Stream, peer: Peer, router: Router) {
        let (address, peer) = (peer.address, Arc::new(peer));
        let counted = self.service.metrics().connection("https");
        let served = http::serve(stream, router, peer.clone(), self.http, self.stop.clone());
        let socket = match served.await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%address, %error, "an HTTPS connection failed");
                if let Some(incident) = incident(&error) {
                    let incidents = self.service.metrics().incidents();
                    incidents.note(incident, address.ip());
                }
                return;
            }
        };
        drop(counted);
        let stop = self.stop.clone();
        match socket {
            None => {}
            Some((Subprotocol::Mqtt, socket)) => {
                let protocol = Protocol::MqttWebSocket;
                self.mqtt.serve(socket, protocol, &peer, stop).await;
            }
            Some((Subprotocol::Amqp, socket)) => {
                let protocol = Protocol::AmqpWebSocket;
                self.amqp.serve(socket, protocol, &peer, stop).await;
            }
        }
    }
}

/// What an HTTP connection failed of, when the client is to blame.
fn incident(error: &hyper::Error) -> Option<Incident> {
    if error.is_timeout() {
        Some(Incident::SlowRequest)
    } else {
        error.is_parse().then_some(Incident::Malformed)
    }
}

/// Resolves when the gateway is to stop; a sender that is gone says so, too.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
