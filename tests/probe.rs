//! `rehome probe`, as `helm test` runs it, on a real installation and on what is none.

#![cfg(test)]

use std::path::Path;
use std::process::{Output, Stdio};

use rehome_testing::{Authority, Cluster, Installation, free_port, loopback, scratch};
use tokio::process::Command;

struct Asked {
    host: String,
    ports: [u16; 3],
    certificate: String,
    ready: String,
}

impl Asked {
    async fn run(&self) -> (Output, String) {
        let [https, mqtt, amqp] = self.ports;
        let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
        command
            .arg("probe")
            .arg(format!("--gateway={}", self.host))
            .arg(format!("--https-port={https}"))
            .arg(format!("--mqtt-port={mqtt}"))
            .arg(format!("--amqp-port={amqp}"))
            .arg(format!("--certificate={}", self.certificate))
            .arg(format!("--ready={}", self.ready))
            // What does not hold is tried again, twice at least.
            .arg("--within-seconds=3")
            .stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output, said)
    }

    async fn fails(&self, says: &str) {
        let (output, said) = self.run().await;
        assert!(!output.status.success(), "{said}");
        let failed: Vec<_> = said.lines().filter(|it| it.starts_with("failed")).collect();
        assert!(failed.iter().any(|line| line.contains(says)), "{said}");
        let whole = String::from_utf8_lossy(&output.stderr);
        let count = format!("{} of 4 checks failed", failed.len());
        assert!(whole.contains(&count), "{whole}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_passes_and_what_does_not_serve_does_not() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let mut installation = Installation::start(&cluster, rehome, &[]).await.unwrap();
    let gateway = &installation.registrar;
    let certificate = installation.directory.join("gateway/tls.crt");
    let asked = || Asked {
        host: gateway.host.clone(),
        ports: [gateway.https, gateway.mqtt, gateway.amqp].map(|address| address.port()),
        certificate: certificate.display().to_string(),
        ready: format!("http://{}/readyz", installation.controller_health),
    };
    let (output, said) = asked().run().await;
    assert!(output.status.success(), "{said}");
    let held = said.lines().filter(|line| line.starts_with("ok"));
    assert_eq!(held.count(), 4, "{said}");
    assert!(said.contains("404201"), "{said}");

    let mut elsewhere = asked();
    elsewhere.ports[1] = free_port(loopback(1)).unwrap();
    elsewhere.fails("MQTT at").await;
    let mut unready = asked();
    unready.ready = format!("http://{}/nowhere", installation.controller_health);
    unready.fails("404").await;
    let mut other = asked();
    let folder = scratch("probe").unwrap();
    let issued = Authority::new("Other")
        .unwrap()
        .issue(&[&other.host])
        .unwrap();
    std::fs::write(folder.join("tls.crt"), issued.cert_pem).unwrap();
    other.certificate = folder.join("tls.crt").display().to_string();
    other.fails("shows another certificate").await;
    let asked = asked();
    installation.gateway.kill().unwrap();
    asked.fails("HTTPS at").await;
}
