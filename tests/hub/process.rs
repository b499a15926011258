//! A real `rehome hub`, and a service's way to speak to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rehome::domain::sas::SasToken;
use rehome_testing::{Authority, Postgres, Process, SmallDisk, free_port, scratch};
use reqwest::{Certificate, Client, Method, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::mqtt::Identity;

pub(crate) const HOST: &str = "hub-west.test";
pub(crate) const POLICY_KEY: &str = "cHJpbWFyeS1rZXktMDEyMw==";
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);

/// A hub that can be stopped, killed and started again over the same files.
pub(crate) struct HubProcess {
    folder: PathBuf,
    pub(crate) authority: String,
    /// Stands behind devices' certificates.
    pub(crate) device_authority: Authority,
    pub(crate) https: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) health: SocketAddr,
    /// Where its file is, if not in the folder.
    disk: Option<SmallDisk>,
    /// File with the URL of the database that holds its devices, instead of a file.
    database: Option<PathBuf>,
    process: Option<Process>,
}

/// Speaks the service API with all permissions.
#[derive(Clone)]
pub(crate) struct Service {
    client: Client,
}

pub(crate) fn unix_now() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "tokens for a process with the real clock"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// SHA-256 of a certificate, as identities name it.
pub(crate) fn thumbprint(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let digest = digest::digest(&digest::SHA256, &der);
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|it| b"0123456789ABCDEF"[usize::from(it)]);
    String::from_utf8(digest.as_ref().iter().flat_map(digits).collect()).unwrap()
}

impl HubProcess {
    pub(crate) async fn start() -> Self {
        let mut hub = Self::prepared();
        hub.restart().await;
        hub
    }

    /// A hub whose devices are in that database.
    pub(crate) async fn start_in(server: &Postgres) -> Self {
        let mut hub = Self::prepared();
        hub.move_to(server);
        hub.restart().await;
        hub
    }

    /// A hub whose file is on that disk.
    pub(crate) async fn start_on(disk: SmallDisk) -> Self {
        let mut hub = Self::prepared();
        hub.disk = Some(disk);
        hub.restart().await;
        hub
    }

    /// The disk that its file is on.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().unwrap()
    }

    /// From its next start on, its devices are in that database; gives the file with the URL.
    pub(crate) fn move_to(&mut self, server: &Postgres) -> PathBuf {
        self.move_to_url(&server.url())
    }

    pub(crate) fn move_to_url(&mut self, url: &str) -> PathBuf {
        let file = self.folder.join("database");
        std::fs::write(&file, url).unwrap();
        self.database = Some(file.clone());
        file
    }

    /// From its next start on, its devices are in its file.
    pub(crate) fn move_back(&mut self) {
        self.database = None;
    }

    pub(crate) fn prepared() -> Self {
        let folder = scratch("hub").unwrap();
        let authority = Authority::new("Test Root").unwrap();
        let issued = authority.issue(&[HOST]).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("tls.crt", issued.cert_pem.clone());
        write("tls.key", issued.key_pem.clone());
        let device_authority = Authority::new("Test Devices").unwrap();
        write("devices.crt", device_authority.cert_pem());
        let all = [
            "RegistryRead",
            "RegistryWrite",
            "ServiceConnect",
            "DeviceConnect",
        ];
        let owner = json!({ "name": "iothubowner", "permissions": all,
                            "primaryKey": POLICY_KEY, "secondaryKey": POLICY_KEY });
        write("policies.json", json!({ "policies": [owner] }).to_string());
        let address =
            || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()));
        Self {
            folder,
            authority: authority.cert_pem(),
            device_authority,
            https: address(),
            mqtt: address(),
            health: address(),
            disk: None,
            database: None,
            process: None,
        }
    }

    /// Starts the hub over the files of the one before it, which must have ended.
    pub(crate) async fn restart(&mut self) {
        self.begin();
        self.serves().await;
    }

    /// Waits until the hub serves.
    pub(crate) async fn serves(&mut self) {
        let process = self.process.as_mut().unwrap();
        process
            .wait_for_line("the hub serves", START_WITHIN)
            .await
            .unwrap();
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Starts the hub and does not wait for it.
    pub(crate) fn begin(&mut self) {
        let path = |name: &str| self.folder.join(name).to_str().unwrap().to_owned();
        let file = |disk: &SmallDisk| disk.path().join("devices.redb").display().to_string();
        let (where_devices_are, store) = match (&self.database, &self.disk) {
            (None, None) => ("--store", path("devices.redb")),
            (None, Some(disk)) => ("--store", file(disk)),
            (Some(file), _) => ("--store-postgres", file.display().to_string()),
        };
        let (cert, key) = (path("tls.crt"), path("tls.key"));
        let (devices, log_from) = (path("devices.crt"), path("log-filter"));
        let policies = path("policies.json");
        let [https, mqtt, health] =
            [self.https, self.mqtt, self.health].map(|address| address.to_string());
        let arguments = [
            "hub",
            "--host-name",
            HOST,
            where_devices_are,
            &store,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--policies",
            &policies,
            "--device-authorities",
            &devices,
            "--https-address",
            &https,
            "--mqtt-address",
            &mqtt,
            "--log-from",
            &log_from,
            "--health-address",
            &health,
        ];
        let binary = Path::new(env!("CARGO_BIN_EXE_rehome"));
        let environment: [(&str, &str); 0] = [];
        let log = self.folder.join("hub.log");
        let process = match &self.disk {
            Some(disk) => disk.spawn("hub", binary, arguments, &log),
            None => Process::spawn("hub", binary, arguments, environment, &log),
        };
        self.process = Some(process.unwrap());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    /// SIGTERM; returns whether it ended well.
    pub(crate) async fn terminate(&mut self) -> bool {
        let mut process = self.process.take().unwrap();
        process.terminate(START_WITHIN).await.unwrap().success()
    }

    /// What it answers to those who ask how it is: status and text.
    pub(crate) async fn asked(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.health);
        // As for services: the product installs none.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until a line of its log contains `text`, and gives that line.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        let process = self.process.as_mut().unwrap();
        process.wait_for_line(text, START_WITHIN).await.unwrap()
    }

    /// Has it log what `filter` says; without one, what it was started with.
    pub(crate) fn log_only(&self, filter: Option<&str>) {
        let file = self.folder.join("log-filter");
        match filter {
            Some(filter) => std::fs::write(file, filter).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("hub.log")).unwrap()
    }

    pub(crate) fn store(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn service(&self) -> Service {
        // The product installs no default; an error means that another test did.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let client = Client::builder()
            .tls_certs_only([root])
            .resolve(HOST, self.https)
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Service { client }
    }

    /// Posts as a device with that certificate; the status.
    pub(crate) async fn post_as(&self, identity: Identity<'_>, path: &str, body: &str) -> u16 {
        let (cert, key) = identity;
        let root = Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let identity = reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap();
        let client = Client::builder()
            .tls_certs_only([root])
            .identity(identity)
            .resolve(HOST, self.https)
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let url = format!("{}?api-version=2020-09-30", self.service_url(path));
        let sent = client.post(url).body(body.to_owned()).send().await.unwrap();
        sent.status().as_u16()
    }

    pub(crate) fn service_url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.https.port())
    }
}

impl Service {
    /// Like "PUT /devices/a"; the error is one of the connection.
    pub(crate) async fn call(
        &self,
        hub: &HubProcess,
        call: &str,
        body: &Value,
    ) -> reqwest::Result<Response> {
        self.call_url(call, &hub.service_url(""), body).await
    }

    /// As [`Service::call`], for callers that outlive the borrow of the hub.
    pub(crate) async fn call_url(
        &self,
        call: &str,
        base: &str,
        body: &Value,
    ) -> reqwest::Result<Response> {
        let (method, path) = call.split_once(' ').unwrap();
        let key = POLICY_KEY.parse().unwrap();
        let token = SasToken::sign(HOST, &key, unix_now() + 600, Some("iothubowner"));
        self.client
            .request(
                method.parse::<Method>().unwrap(),
                format!("{base}{path}?api-version=2021-04-12"),
            )
            .header("Authorization", token)
            .header("If-Match", "\"*\"")
            .json(body)
            .send()
            .await
    }

    /// Posts a text with headers of its own; the status.
    pub(crate) async fn post(
        &self,
        hub: &HubProcess,
        path: &str,
        headers: &[(&str, &str)],
        text: &str,
    ) -> u16 {
        let key = POLICY_KEY.parse().unwrap();
        let token = SasToken::sign(HOST, &key, unix_now() + 600, Some("iothubowner"));
        let url = format!("{}?api-version=2021-04-12", hub.service_url(path));
        let mut request = self.client.post(url).header("Authorization", token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = request.body(text.to_owned()).send().await.unwrap();
        sent.status().as_u16()
    }

    /// A call that must succeed.
    pub(crate) async fn done(&self, hub: &HubProcess, call: &str, body: &Value) -> Value {
        let response = self.call(hub, call, body).await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{call}: {status} {text}");
        if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        }
    }
}
