//! A hub of an example, as its back end sees it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use http::StatusCode;
use http::header::AUTHORIZATION;
use rehome_testing::device::{Key, Trust};
use rehome_testing::installation::Twin;
use serde_json::{Value, json};

use crate::shell::Shell;

const API_VERSION: &str = "2021-04-12";

pub(crate) struct Hub {
    pub(crate) host: String,
    policy: String,
    key: Key,
    client: reqwest::Client,
    address: IpAddr,
}

impl Hub {
    /// That hub of that namespace, with the credentials that the operator uses.
    pub(crate) async fn of(shell: &Shell, namespace: &str, name: &str) -> Result<Self> {
        let secret = async |name: &str, key: &str| {
            let path = key.replace('.', "\\.");
            shell.run(&format!("kubectl -n {namespace} get secret {name} -o 'jsonpath={{.data.{path}}}' | base64 -d")).await
        };
        let connection = secret(&format!("iothub-{name}-key"), "connectionString").await?;
        let part = |name: &str| {
            let found = connection
                .split(';')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.with_context(|| format!("no {name} in the connection string"))
        };
        let host = part("HostName")?.to_owned();
        let trust = Trust::new(&secret("iothub-ca", "ca.crt").await?)?;
        let service = format!(
            "kubectl -n {namespace} get service iothub-{name} -o 'jsonpath={{.spec.clusterIP}}'"
        );
        let address: IpAddr = shell.run(&service).await?.parse()?;
        Ok(Self {
            policy: part("SharedAccessKeyName")?.to_owned(),
            key: Key::from_base64(part("SharedAccessKey")?)?,
            client: trust.http_client(&host, SocketAddr::new(address, 443))?,
            host,
            address,
        })
    }

    /// Where devices connect, for whoever is on the node.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        SocketAddr::new(self.address, 8883)
    }

    /// Where services connect.
    pub(crate) fn https(&self) -> SocketAddr {
        SocketAddr::new(self.address, 443)
    }

    /// The twin of a device without versions and times; `None` if there is none.
    pub(crate) async fn twin(&self, device: &str) -> Result<Option<Value>> {
        let Some(twin) = self.get(&format!("twins/{device}")).await? else {
            return Ok(None);
        };
        let Twin {
            tags,
            desired,
            reported,
        } = Twin::of(&twin);
        Ok(Some(
            json!({ "tags": tags, "desired": desired, "reported": reported }),
        ))
    }

    /// The identity of a device; `None` if there is none.
    pub(crate) async fn identity(&self, device: &str) -> Result<Option<Value>> {
        self.get(&format!("devices/{device}")).await
    }

    /// Merges into the twin, as a back end does.
    pub(crate) async fn patch_twin(&self, device: &str, patch: &Value) -> Result<()> {
        let url = self.url(&format!("twins/{device}"));
        let request = self
            .client
            .patch(&url)
            .header(AUTHORIZATION, self.token()?)
            .json(patch);
        let response = request.send().await.with_context(|| url.clone())?;
        let status = response.status();
        if status != StatusCode::OK {
            bail!(
                "PATCH {url} was answered {status}: {}",
                response.text().await?
            );
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Option<Value>> {
        let url = self.url(path);
        let response = self
            .client
            .get(&url)
            .header(AUTHORIZATION, self.token()?)
            .send()
            .await;
        let response = response.with_context(|| url.clone())?;
        match response.status() {
            StatusCode::OK => Ok(Some(response.json().await?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!(
                "GET {url} was answered {status}: {}",
                response.text().await?
            ),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/{path}?api-version={API_VERSION}", self.host)
    }

    fn token(&self) -> Result<String> {
        self.key.token(&self.host, Some(&self.policy))
    }
}
