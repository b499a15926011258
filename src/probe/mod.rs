//! `rehome probe`: whether an installation serves, seen from where it runs. `helm test` runs it in a
//! pod, which needs no rights for it.
//!
//! It asks as a device would that nobody has enrolled: the gateway has to show its certificate at each
//! of its ports, and to refuse in the way of the protocol.

mod certificate;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Url, redirect};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::domain::attestation::SymmetricKey;
use crate::domain::sas::SasToken;
use crate::random::Random;
use certificate::CertificateError;

/// Longest time for one try.
const TRY: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// What the registration API answers to a device that nobody has enrolled.
const NOT_ENROLLED: u64 = 404_201;
const API_VERSION: &str = "2021-06-01";
const DEVICE: &str = "probe";

/// Look whether an installation serves devices.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Host at which devices reach the gateway.
    #[arg(long, value_name = "HOST")]
    gateway: String,
    /// Its port for HTTPS.
    #[arg(long, default_value_t = 443)]
    https_port: u16,
    /// Its port for MQTT.
    #[arg(long, default_value_t = 8883)]
    mqtt_port: u16,
    /// Its port for AMQP.
    #[arg(long, default_value_t = 5671)]
    amqp_port: u16,
    /// PEM file that begins with the certificate that the gateway has to show, for whatever name.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// URL that has to be answered with 200, such as the controller's /readyz. May be given more than
    /// once.
    #[arg(long = "ready", value_name = "URL")]
    ready: Vec<Url>,
    /// Seconds within which all of it has to be so.
    #[arg(long, default_value_t = 60)]
    within_seconds: u64,
}

/// Why the installation does not pass.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is not known what to expect.
    #[error("the gateway's certificate is not known")]
    Certificate(#[from] CertificateError),
    /// There is no asking.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// The answers were not those of an installation that serves.
    #[error("{failed} of {all} checks failed, see above")]
    Failed {
        /// Checks that did not hold.
        failed: usize,
        /// Checks in all.
        all: usize,
    },
}

/// One thing that has to be so.
enum Check {
    Refusal,
    Handshake { protocol: &'static str, port: u16 },
    Ready(Url),
}

/// Makes every check, again and again while it does not hold and there is time, and prints how it went.
///
/// # Errors
/// A check did not hold in time.
pub async fn run(
    options: Options,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), ProbeError> {
    let checks: Vec<_> = [
        Check::Refusal,
        Check::Handshake {
            protocol: "MQTT",
            port: options.mqtt_port,
        },
        Check::Handshake {
            protocol: "AMQP",
            port: options.amqp_port,
        },
    ]
    .into_iter()
    .chain(options.ready.iter().cloned().map(Check::Ready))
    .collect();
    let deadline = Instant::now() + Duration::from_secs(options.within_seconds);
    let probe = Probe::new(options, clock, random)?;
    let mut failed = 0;
    for check in &checks {
        match probe.hold(check, deadline).await {
            Ok(said) => println!("ok      {said}"),
            Err(why) => {
                failed += 1;
                println!("failed  {why}");
            }
        }
    }
    if failed > 0 {
        let all = checks.len();
        return Err(ProbeError::Failed { failed, all });
    }
    Ok(())
}

struct Probe {
    gateway: String,
    https_port: u16,
    tls: TlsConnector,
    client: Client,
    /// Nobody's.
    scope: String,
    token: String,
}

impl Probe {
    fn new(options: Options, clock: &dyn Clock, random: &dyn Random) -> Result<Self, ProbeError> {
        let tls = certificate::only(&options.certificate)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(ProbeError::Client)?;
        let unlikely = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
        let scope = format!("probe-{}", unlikely.simple());
        Ok(Self {
            token: token(&scope, clock, random),
            scope,
            gateway: options.gateway,
            https_port: options.https_port,
            tls: TlsConnector::from(Arc::new(tls)),
            client,
        })
    }

    /// Tries at least once.
    async fn hold(&self, check: &Check, deadline: Instant) -> Result<String, String> {
        loop {
            let tried = timeout(TRY, self.try_once(check)).await;
            let tried = tried.unwrap_or_else(|_| Err(format!("no answer in {TRY:?}")));
            if tried.is_ok() || Instant::now() + PAUSE >= deadline {
                let what = self.describe(check);
                return tried
                    .map(|said| format!("{what}: {said}"))
                    .map_err(|why| format!("{what}: {why}"));
            }
            sleep(PAUSE).await;
        }
    }

    fn describe(&self, check: &Check) -> String {
        let gateway = &self.gateway;
        match check {
            Check::Refusal => format!("HTTPS at {gateway}:{}", self.https_port),
            Check::Handshake { protocol, port } => format!("{protocol} at {gateway}:{port}"),
            Check::Ready(url) => url.to_string(),
        }
    }

    async fn try_once(&self, check: &Check) -> Result<String, String> {
        match check {
            Check::Refusal => self.is_refused().await,
            Check::Handshake { port, .. } => self.shakes_hands(*port).await,
            Check::Ready(url) => self.is_ready(url.clone()).await,
        }
    }

    /// Whether a stranger is told what SDKs expect.
    async fn is_refused(&self) -> Result<String, String> {
        let (gateway, port, scope) = (&self.gateway, self.https_port, &self.scope);
        let url = format!(
            "https://{gateway}:{port}/{scope}/registrations/{DEVICE}/register?api-version={API_VERSION}"
        );
        let request = self.client.put(url);
        let request = request.header(http::header::AUTHORIZATION, &self.token);
        let request = request.json(&json!({ "registrationId": DEVICE }));
        let answer = request.send().await.map_err(|error| whole(&error))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| whole(&error))?;
        let code = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|body| body["errorCode"].as_u64());
        if code == Some(NOT_ENROLLED) {
            return Ok(format!(
                "a device that nobody enrolled is refused with {NOT_ENROLLED}"
            ));
        }
        Err(format!(
            "a device that nobody enrolled was answered {status} ({body}) and not {NOT_ENROLLED}; \
             is this a gateway?"
        ))
    }

    /// Whether the certificate is shown there, too.
    async fn shakes_hands(&self, port: u16) -> Result<String, String> {
        let name = ServerName::try_from(self.gateway.clone()).map_err(|error| whole(&error))?;
        let address = (self.gateway.as_str(), port);
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| whole(&error))?;
        let shaken = self.tls.connect(name, stream).await;
        shaken.map_err(|error| whole(&error))?;
        Ok("the gateway shows its certificate".to_owned())
    }

    async fn is_ready(&self, url: Url) -> Result<String, String> {
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|error| whole(&error))?;
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        if status == http::StatusCode::OK {
            return Ok(said.trim().to_owned());
        }
        Err(format!("answered {status}: {}", said.trim()))
    }
}

/// Well formed, and signed by a key that nobody else has.
fn token(scope: &str, clock: &dyn Clock, random: &dyn Random) -> String {
    let resource = format!("{scope}/registrations/{DEVICE}");
    let expires = u64::try_from(clock.now().as_second()).unwrap_or_default() + 600;
    // Sixteen bytes in base64 are a key.
    let key: Option<SymmetricKey> = STANDARD.encode(random.bytes()).parse().ok();
    key.map(|key| SasToken::sign(&resource, &key, expires, Some("registration")))
        .unwrap_or_default()
}

/// An error with its causes, on one line.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
