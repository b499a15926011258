//! TLS as devices meet it: real sockets, real handshakes.

#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rehome::clock::SystemClock;
use rehome::wire::incidents::{Incident, Incidents};
use rehome::wire::networks::Networks;
use rehome::wire::rate::Rate;
use rehome::wire::tls::{
    AcceptLimits, Acceptor, Certificates, Surroundings, listen, server_config,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

static PROVIDER: Once = Once::new();

struct Server {
    address: SocketAddr,
    certificates: Arc<Certificates>,
    directory: tempfile::TempDir,
    incidents: Arc<Incidents>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// Writes a fresh self-signed certificate and returns it.
fn new_identity(directory: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

async fn server(limits: AcceptLimits) -> (Server, CertificateDer<'static>) {
    server_at(limits, Networks::default(), &[]).await
}

/// A server that says who connected and echoes one line, then waits for the client to leave.
async fn server_at(
    limits: AcceptLimits,
    networks: Networks,
    proxies: &[&str],
) -> (Server, CertificateDer<'static>) {
    let incidents = Incidents::new(Arc::new(SystemClock::start()));
    let surroundings = Surroundings {
        networks: Arc::new(networks),
        proxies: proxies.iter().map(|it| it.parse().unwrap()).collect(),
        incidents: incidents.clone(),
    };
    PROVIDER.call_once(|| drop(default_provider().install_default()));
    let directory = tempfile::tempdir().unwrap();
    let certificate = new_identity(directory.path());
    let certificates = Certificates::load(
        &directory.path().join("tls.crt"),
        &directory.path().join("tls.key"),
    )
    .unwrap();
    let config = server_config(certificates.clone(), &[]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = |mut accepted: rehome::wire::tls::Accepted| async move {
        let peer = &accepted.peer;
        let (proofs, name) = (peer.certificates.len(), &peer.server_name);
        let greeting = format!("{proofs} {name:?} {}\n", peer.address.ip());
        accepted
            .stream
            .write_all(greeting.as_bytes())
            .await
            .unwrap();
        accepted.stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let ended = accepted.stream.read_to_end(&mut rest).await;
        assert!(
            ended.is_ok(),
            "a client that drops TCP ends cleanly: {ended:?}"
        );
    };
    tokio::spawn(
        Acceptor::new(limits, surroundings).run(listener, config, serve, async {
            let _ = stopped.await;
        }),
    );
    (
        Server {
            address,
            certificates,
            directory,
            incidents,
            _stop: stop,
        },
        certificate,
    )
}

/// A client that trusts exactly `trusted`, optionally with a certificate of its own.
async fn dial(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder =
        ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(address).await?;
    shake_hands(tcp, config).await
}

async fn shake_hands(
    tcp: TcpStream,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

async fn line(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn r23_both_versions_are_spoken_and_no_certificate_is_required() {
    let (server, certificate) = server(AcceptLimits::default()).await;
    for version in BOTH {
        let mut stream = dial(server.address, &certificate, &[version], None)
            .await
            .unwrap();
        assert_eq!(line(&mut stream).await, "0 Some(\"localhost\") 127.0.0.1\n");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn r23_a_presented_certificate_is_passed_on_without_judgement() {
    let (server, certificate) = server(AcceptLimits::default()).await;
    let key = KeyPair::generate().unwrap();
    // Nobody trusts this one, and it says CA:TRUE as plain openssl certificates do.
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    for version in BOTH {
        let identity = (
            vec![own.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        );
        let mut stream = dial(server.address, &certificate, &[version], Some(identity))
            .await
            .unwrap();
        assert!(line(&mut stream).await.starts_with("1 "));
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_proves_nothing() {
    #[derive(Debug)]
    struct Stolen(Arc<rustls::sign::CertifiedKey>);
    impl rustls::client::ResolvesClientCert for Stolen {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let (server, certificate) = server(AcceptLimits::default()).await;
    let (victim, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let own = CertificateParams::new(vec![])
        .unwrap()
        .self_signed(&victim)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(thief.serialize_der()));
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(vec![own.der().clone()], signing);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Stolen(Arc::new(stolen))));
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    assert!(
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn new_files_are_used_and_bad_files_are_not() {
    let (server, first) = server(AcceptLimits::default()).await;
    assert!(!server.certificates.refresh().unwrap(), "nothing changed");
    let second = new_identity(server.directory.path());
    assert!(server.certificates.refresh().unwrap());
    assert!(dial(server.address, &first, BOTH, None).await.is_err());
    let mut stream = dial(server.address, &second, BOTH, None).await.unwrap();
    line(&mut stream).await;

    // A certificate whose key has not been written yet: half of a rotation.
    let key = std::fs::read(server.directory.path().join("tls.key")).unwrap();
    new_identity(server.directory.path());
    std::fs::write(server.directory.path().join("tls.key"), key).unwrap();
    let error = server.certificates.refresh().unwrap_err();
    assert!(error.to_string().contains("do not go together"), "{error}");
    for (file, content) in [
        ("tls.crt", ""),
        ("tls.crt", "nonsense"),
        ("tls.key", "nonsense"),
    ] {
        std::fs::write(server.directory.path().join(file), content).unwrap();
        assert!(server.certificates.refresh().is_err());
    }
    dial(server.address, &second, BOTH, None).await.unwrap();
}

#[tokio::test]
async fn the_files_are_watched() {
    let (server, _first) = server(AcceptLimits::default()).await;
    let watching = tokio::spawn(
        server
            .certificates
            .clone()
            .keep_fresh(Duration::from_millis(5)),
    );
    let second = new_identity(server.directory.path());
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while dial(server.address, &second, BOTH, None).await.is_err() {}
    });
    seen.await.expect("the new certificate is served");
    watching.abort();
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let limits = AcceptLimits {
        per_client: 2,
        ..AcceptLimits::default()
    };
    let (server, certificate) = server(limits).await;
    let mut first = dial(server.address, &certificate, BOTH, None)
        .await
        .unwrap();
    let mut second = dial(server.address, &certificate, BOTH, None)
        .await
        .unwrap();
    line(&mut first).await;
    line(&mut second).await;
    assert!(
        dial(server.address, &certificate, BOTH, None)
            .await
            .is_err()
    );
    drop(first);
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        while dial(server.address, &certificate, BOTH, None)
            .await
            .is_err()
        {}
    });
    freed
        .await
        .expect("a closed connection gives its place back");
}

#[tokio::test]
async fn one_address_cannot_take_all_handshakes() {
    let limits = AcceptLimits {
        handshakes_per_client: 1,
        ..AcceptLimits::default()
    };
    let (server, certificate) = server(limits).await;
    // One after the other they may.
    let mut first = dial(server.address, &certificate, BOTH, None)
        .await
        .unwrap();
    line(&mut first).await;
    let slow = TcpStream::connect(server.address).await.unwrap();
    assert!(
        dial(server.address, &certificate, BOTH, None)
            .await
            .is_err()
    );
    drop(slow);
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        while dial(server.address, &certificate, BOTH, None)
            .await
            .is_err()
        {}
    });
    freed
        .await
        .expect("a broken handshake gives its place back");
}

#[tokio::test]
async fn one_address_cannot_open_connections_without_pause() {
    let limits = AcceptLimits {
        new_of_client: Rate {
            burst: 3,
            per_ten_seconds: 1,
        },
        ..AcceptLimits::default()
    };
    let (server, certificate) = server(limits).await;
    for number in 1..=4 {
        // They are closed again at once: only how often they come counts.
        let came = dial(server.address, &certificate, BOTH, None).await;
        assert_eq!(came.is_ok(), number <= 3, "number {number}");
    }
    assert!(server.incidents.count(Incident::TooManyOfClient) >= 1);
}

/// Else a client could connect and be turned away as fast as it likes.
#[tokio::test]
async fn who_is_turned_away_has_to_wait_for_it() {
    let limits = AcceptLimits {
        per_client: 1,
        ..AcceptLimits::default()
    };
    let (server, certificate) = server(limits).await;
    let mut first = dial(server.address, &certificate, BOTH, None)
        .await
        .unwrap();
    line(&mut first).await;
    let begin = Instant::now();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(20), second.read_u8()).await;
    assert!(closed.expect("it is closed in the end").is_err());
    assert!(begin.elapsed() > Duration::from_millis(900));
    assert_eq!(server.incidents.count(Incident::TooManyOfClient), 1);
}

/// A device whose first packet is dropped hears nothing for a second.
#[tokio::test]
async fn connections_wait_while_others_are_turned_away() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let waiting = allowed.trim().parse::<usize>().unwrap().min(3000);
    let connecting = join_all((0..waiting).map(|_| TcpStream::connect(address)));
    let connected = tokio::time::timeout(Duration::from_secs(20), connecting).await;
    let connected = connected.expect("nobody accepts, and all wait in line");
    assert!(connected.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_dropped() {
    let limits = AcceptLimits {
        handshake_within: Duration::from_millis(50),
        ..AcceptLimits::default()
    };
    let (server, _certificate) = server(limits).await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let mut bytes = Vec::new();
    let dropped = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut bytes));
    dropped.await.expect("the server hangs up").ok();
    assert!(bytes.is_empty());
    assert_eq!(server.incidents.count(Incident::SlowHandshake), 1);
}

/// What a load balancer sends before the client's bytes.
const FROM_192_0_2_7: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x1f\x90\x01\xbb";

/// A connection that begins with these bytes.
async fn dial_behind(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    header: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = TcpStream::connect(address).await?;
    tcp.write_all(header).await?;
    shake_hands(tcp, config).await
}

#[tokio::test]
async fn a_trusted_load_balancer_says_whom_it_speaks_for() {
    let limits = AcceptLimits {
        per_client: 1,
        ..AcceptLimits::default()
    };
    let (server, certificate) = server_at(limits, Networks::default(), &["127.0.0.0/8"]).await;
    let mut first = dial_behind(server.address, &certificate, FROM_192_0_2_7)
        .await
        .unwrap();
    assert!(line(&mut first).await.ends_with(" 192.0.2.7\n"));
    // The client is limited, not the load balancer.
    let second = dial_behind(server.address, &certificate, FROM_192_0_2_7).await;
    assert!(second.is_err());
    assert_eq!(server.incidents.count(Incident::TooManyOfClient), 1);
    let mut neighbour = FROM_192_0_2_7.to_vec();
    neighbour[19] = 8;
    let mut third = dial_behind(server.address, &certificate, &neighbour)
        .await
        .unwrap();
    assert!(line(&mut third).await.ends_with(" 192.0.2.8\n"));
    // What it sends without a header is not believed to be its own.
    let bare = dial(server.address, &certificate, BOTH, None).await;
    assert!(bare.is_err());
    assert_eq!(server.incidents.count(Incident::BadProxyHeader), 1);
}

#[tokio::test]
async fn nobody_else_says_whom_it_speaks_for() {
    let (server, certificate) = server_at(
        AcceptLimits::default(),
        Networks::default(),
        &["10.0.0.0/8"],
    )
    .await;
    let liar = dial_behind(server.address, &certificate, FROM_192_0_2_7).await;
    assert!(liar.is_err());
    assert_eq!(server.incidents.count(Incident::FailedHandshake), 1);
}

#[tokio::test]
async fn an_exempt_network_is_not_limited_per_client() {
    let limits = AcceptLimits {
        per_client: 1,
        ..AcceptLimits::default()
    };
    let factory = Networks::new(32, 64, vec!["127.0.0.0/8".parse().unwrap()]);
    let (server, certificate) = server_at(limits, factory, &[]).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(
            dial(server.address, &certificate, BOTH, None)
                .await
                .unwrap(),
        );
    }
    for stream in &mut open {
        line(stream).await;
    }
    assert_eq!(server.incidents.count(Incident::TooManyOfClient), 0);
}
