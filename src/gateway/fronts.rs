//! Both protocols on their sockets.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::http::{self, ConnectionLimits};
use super::mqtt::{MqttFront, MqttLimits};
use super::registrations::Registrations;
use super::service::Service;
use crate::wire::incidents::Incident;
use crate::wire::tls::{Accepted, Acceptor, Certificates, server_config};

/// What devices connect to.
pub struct Fronts<R> {
    pub service: Arc<Service<R>>,
    pub certificates: Arc<Certificates>,
    pub acceptor: Arc<Acceptor>,
    pub http: ConnectionLimits,
    pub mqtt: MqttLimits,
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
    /// both protocols together.
    ///
    /// # Errors
    /// TLS cannot be configured.
    pub fn listen(
        &self,
        parts: &mut JoinSet<()>,
        https: TcpListener,
        mqtt: TcpListener,
        stop: &watch::Receiver<bool>,
    ) -> Result<Served, rustls::Error> {
        let (serving, served) = mpsc::channel(1);
        let config = server_config(self.certificates.clone(), &["http/1.1"])?;
        let serve = self.serve_https(serving.clone(), stop.clone());
        parts.spawn(
            self.acceptor
                .clone()
                .run(https, config, serve, stopped(stop.clone())),
        );
        let config = server_config(self.certificates.clone(), &[])?;
        let serve = self.serve_mqtt(serving, stop.clone());
        parts.spawn(
            self.acceptor
                .clone()
                .run(mqtt, config, serve, stopped(stop.clone())),
        );
        Ok(Served(served))
    }

    fn serve_https(
        &self,
        serving: mpsc::Sender<()>,
        stop: watch::Receiver<bool>,
    ) -> impl Fn(Accepted) -> futures::future::BoxFuture<'static, ()> + Clone + use<R> {
        let router = http::router(self.service.clone());
        let (service, limits) = (self.service.clone(), self.http);
        move |accepted| {
            let (router, stop, serving) = (router.clone(), stop.clone(), serving.clone());
            let service = service.clone();
            let counted = service.metrics().connection("https");
            Box::pin(async move {
                let Accepted { stream, peer } = accepted;
                let address = peer.address;
                let served = http::serve(stream, router, Arc::new(peer), limits, stop);
                if let Err(error) = served.await {
                    tracing::debug!(%address, %error, "an HTTPS connection failed");
                    if let Some(incident) = incident(&error) {
                        service.metrics().incidents().note(incident, address.ip());
                    }
                }
                drop((counted, serving));
            })
        }
    }

    fn serve_mqtt(
        &self,
        serving: mpsc::Sender<()>,
        stop: watch::Receiver<bool>,
    ) -> impl Fn(Accepted) -> futures::future::BoxFuture<'static, ()> + Clone + use<R> {
        let front = Arc::new(MqttFront::new(self.service.clone(), self.mqtt));
        move |accepted| {
            let (front, stop, serving) = (front.clone(), stop.clone(), serving.clone());
            Box::pin(async move {
                let Accepted { stream, peer } = accepted;
                front.serve(stream, &peer, stop).await;
                drop(serving);
            })
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
