//! A self-hosted hub: its process, and its service API as a back end uses it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::addresses::Place;
use super::calls::Calls;
use super::{START, Server};
use crate::certificates::Authority;
use crate::device::{Key, Trust};
use crate::network::{free_port, loopback};
use crate::process::Process;

pub(super) const API_VERSION: &str = "2021-04-12";
/// The policy whose key the controller and the back end use.
pub(super) const POLICY: &str = "service";

/// A hub on which devices can live.
pub struct Hub {
    /// Such as `hub-west`: the name of its `IoTHub`.
    pub name: String,
    pub place: Place,
    pub process: Process,
    /// Where it says how it is, and serves its metrics.
    pub health: SocketAddr,
    pub(super) key: Key,
    trust: Trust,
    directory: PathBuf,
    binary: PathBuf,
}

/// What a twin says, without versions and times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Twin {
    pub tags: Value,
    pub desired: Value,
    pub reported: Value,
}

impl Hub {
    pub(super) async fn start(
        name: &str,
        place: Place,
        server: &Server<'_>,
        authority: &Authority,
    ) -> Result<Self> {
        let directory = server.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        let key = Key::random()?;
        let policies = json!({ "policies": [{
            "name": POLICY,
            "permissions": ["RegistryRead", "RegistryWrite", "ServiceConnect"],
            "primaryKey": key.to_base64(),
            "secondaryKey": Key::random()?.to_base64(),
        }] });
        std::fs::write(directory.join("policies.json"), policies.to_string())?;
        server.write_certificate(&directory, authority, place)?;
        let health = (loopback(1), free_port(loopback(1))?).into();
        let mut hub = Self {
            name: name.to_owned(),
            place,
            process: spawn(name, place, health, &directory, server.binary)?,
            health,
            key,
            trust: Trust::new(&authority.cert_pem())?,
            directory,
            binary: server.binary.to_owned(),
        };
        hub.wait_until_it_serves().await?;
        Ok(hub)
    }

    /// The name that devices are told.
    pub fn host(&self) -> String {
        self.place.host()
    }

    /// What a service needs to connect.
    pub fn connection_string(&self) -> String {
        format!(
            "HostName={};SharedAccessKeyName={POLICY};SharedAccessKey={}",
            self.host(),
            self.key.to_base64()
        )
    }

    /// The Secret and the `IoTHub` that make it known to a namespace.
    pub fn manifests(&self) -> [Value; 2] {
        let credentials = format!("{}-credentials", self.name);
        [
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": credentials },
                "stringData": { "connectionString": self.connection_string() },
            }),
            json!({
                "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
                "metadata": { "name": self.name },
                "spec": {
                    "hostName": self.host(),
                    "connection": {
                        "connectionStringSecretRef": { "name": credentials },
                        "endpoint": self.endpoint(),
                        "caBundle": self.trust.pem(),
                    },
                },
            }),
        ]
    }

    /// The identity in the registry, with its keys; `None` if there is none.
    pub async fn identity(&self, device_id: &str) -> Result<Option<Value>> {
        self.read(&format!("devices/{device_id}")).await
    }

    /// The twin as the service API shows it; `None` if there is none.
    pub async fn full_twin(&self, device_id: &str) -> Result<Option<Value>> {
        self.read(&format!("twins/{device_id}")).await
    }

    /// What the twin says; `None` if there is none.
    pub async fn twin(&self, device_id: &str) -> Result<Option<Twin>> {
        Ok(self.full_twin(device_id).await?.map(|twin| Twin::of(&twin)))
    }

    /// Merges into `tags` and `properties.desired`, as a back end does.
    pub async fn patch_twin(&self, device_id: &str, patch: &Value) -> Result<()> {
        let path = format!("twins/{device_id}");
        let (status, body) = self.call(Method::PATCH, &path, Some(patch)).await?;
        if status != StatusCode::OK {
            bail!("{}: PATCH /{path} was answered {status}: {body}", self.name);
        }
        Ok(())
    }

    /// Removes the identity with its twin, as a person does who knows nothing of registrations.
    pub async fn delete_device(&self, device_id: &str) -> Result<()> {
        let path = format!("devices/{device_id}");
        let (status, body) = self.call(Method::DELETE, &path, None).await?;
        if status != StatusCode::NO_CONTENT {
            bail!(
                "{}: DELETE /{path} was answered {status}: {body}",
                self.name
            );
        }
        Ok(())
    }

    /// Starts the process again over the same store, after it was ended or killed.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = spawn(
            &self.name,
            self.place,
            self.health,
            &self.directory,
            &self.binary,
        )?;
        self.wait_until_it_serves().await
    }

    /// The requests to its service API since it was started, this crate's own among them.
    pub async fn calls(&self) -> Result<Calls> {
        let url = format!("http://{}/metrics", self.health);
        let response = reqwest::get(&url).await.with_context(|| url.clone())?;
        Calls::parse(&response.error_for_status()?.text().await?)
    }

    async fn wait_until_it_serves(&mut self) -> Result<()> {
        self.process
            .wait_for_port(self.place.https(), START)
            .await?;
        self.process.wait_for_port(self.place.mqtt(), START).await
    }

    pub(super) fn endpoint(&self) -> String {
        format!("https://{}:{}", self.host(), self.place.https().port())
    }

    pub(super) fn client(&self) -> Result<reqwest::Client> {
        self.trust.http_client(&self.host(), self.place.https())
    }

    async fn read(&self, path: &str) -> Result<Option<Value>> {
        match self.call(Method::GET, path, None).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => bail!("{}: GET /{path} was answered {status}: {body}", self.name),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let client = self.client()?;
        let url = format!("{}/{path}?api-version={API_VERSION}", self.endpoint());
        let token = self.key.token(&self.host(), Some(POLICY))?;
        let deletes = method == Method::DELETE;
        let mut request = client.request(method, &url);
        request = request.header(http::header::AUTHORIZATION, token);
        if deletes {
            request = request.header(http::header::IF_MATCH, "*");
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| url.clone())?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok((status, Value::Null));
        }
        Ok((status, response.json().await.with_context(|| url)?))
    }
}

impl Twin {
    /// Takes it out of the JSON of the service API.
    pub fn of(twin: &Value) -> Self {
        let plain = |section: &Value| {
            let members = section.as_object().into_iter().flatten();
            let members = members.filter(|(name, _)| !name.starts_with('$'));
            Value::Object(
                members
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect::<Map<_, _>>(),
            )
        };
        Self {
            tags: plain(&twin["tags"]),
            desired: plain(&twin["properties"]["desired"]),
            reported: plain(&twin["properties"]["reported"]),
        }
    }
}

fn spawn(
    name: &str,
    place: Place,
    health: SocketAddr,
    directory: &Path,
    binary: &Path,
) -> Result<Process> {
    let file = |name: &str| directory.join(name).display().to_string();
    let arguments = [
        "hub".to_owned(),
        format!("--host-name={}", place.host()),
        format!("--https-address={}", place.https()),
        format!("--mqtt-address={}", place.mqtt()),
        format!("--health-address={health}"),
        format!("--tls-cert={}", file("tls.crt")),
        format!("--tls-key={}", file("tls.key")),
        format!("--policies={}", file("policies.json")),
        format!("--store={}", file("devices")),
    ];
    let log = directory.with_extension("log");
    Process::spawn(name, binary, arguments, [("", ""); 0], log)
}
