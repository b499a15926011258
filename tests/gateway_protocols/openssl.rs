//! TLS as OpenSSL's client can misuse it, which the one of the other tests cannot.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::stage::{Sockets, Stage};

const PATIENCE: Duration = Duration::from_mins(1);

/// What the client says when it connects with these flags and is told these lines.
async fn openssl(server: &Sockets, flags: &[&str], lines: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.pem");
    let certificate = BASE64_STANDARD.encode(&server.certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n");
    std::fs::write(&file, pem).unwrap();
    let mut client = Command::new("openssl")
        .args(["s_client", "-verify_return_error"])
        .args(["-connect", &server.https.to_string()])
        .args(["-servername", "localhost", "-CAfile"])
        .arg(&file)
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).await.unwrap();
    drop(input);
    let ended = tokio::time::timeout(PATIENCE, client.wait_with_output()).await;
    let output = ended.expect("it ends in time").unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// A handshake is what costs a server most: nobody gets a second one on the same connection.
#[tokio::test]
async fn nothing_is_renegotiated() {
    let server = Stage::new().listen().await;
    let said = openssl(&server, &["-tls1_2"], "R\n").await;
    assert!(said.contains("New, TLSv1.2"), "{said}");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
}

/// A certificate that was proved in one session says nothing in the next.
#[tokio::test]
async fn nothing_is_resumed() {
    let server = Stage::new().listen().await;
    // Five more connections, each of which offers the session of the first.
    let said = openssl(&server, &["-tls1_2", "-reconnect"], "").await;
    assert_eq!(said.matches("\nNew, TLSv1.2").count(), 6, "{said}");
    assert!(!said.contains("Reused"), "{said}");
    let said = openssl(&server, &["-tls1_3"], "").await;
    assert!(said.contains("\nNew, TLSv1.3"), "{said}");
    assert!(!said.contains("New Session Ticket arrived"), "{said}");
}
