//! Arguments of `rehome gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::amqp::AmqpLimits;
use super::http::ConnectionLimits;
use super::limits::{Rate, RequestLimits};
use super::mqtt::MqttLimits;
use super::service::Settings;
use crate::cluster::connect::Connection;
use crate::domain::ids::IdScope;
use crate::wire::networks::Networks;
use crate::wire::tls::AcceptLimits;

/// Serve the registration API to devices.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where devices reach the API over HTTPS and WebSocket; they expect port 443.
    #[arg(long, env = "REHOME_HTTPS_LISTEN", default_value = "0.0.0.0:10443")]
    pub https_listen: SocketAddr,

    /// Where devices reach the API over MQTT with TLS; they expect port 8883.
    #[arg(long, env = "REHOME_MQTT_LISTEN", default_value = "0.0.0.0:8883")]
    pub mqtt_listen: SocketAddr,

    /// Where devices reach the API over AMQP with TLS; they expect port 5671.
    #[arg(long, env = "REHOME_AMQP_LISTEN", default_value = "0.0.0.0:5671")]
    pub amqp_listen: SocketAddr,

    /// Plain HTTP for /livez, /readyz and /metrics.
    #[arg(long, env = "REHOME_HEALTH_LISTEN", default_value = "127.0.0.1:8081")]
    pub health_listen: SocketAddr,

    /// PEM file with the server's certificate and its intermediates; read again when it changes.
    #[arg(long, env = "REHOME_TLS_CERT")]
    pub tls_cert: PathBuf,

    /// PEM file with the certificate's private key.
    #[arg(long, env = "REHOME_TLS_KEY")]
    pub tls_key: PathBuf,

    /// How often the certificate's files are looked at, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub tls_poll_seconds: u64,

    /// The API server.
    #[command(flatten)]
    pub connection: Connection,

    /// Serve this namespace only; may be given more than once. Without it: all namespaces.
    #[arg(long = "namespace", env = "REHOME_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// ID scope of a namespace given with --namespace, as NAMESPACE=SCOPE. Without it: the
    /// namespace's name.
    #[arg(long = "id-scope", value_parser = id_scope, requires = "namespaces")]
    pub id_scopes: Vec<(String, IdScope)>,

    /// Open connections in all.
    #[arg(long, default_value_t = 20_000)]
    pub max_connections: usize,

    /// Open connections of one client; a fleet behind one NAT is one client.
    #[arg(long, default_value_t = 4096)]
    pub max_connections_per_client: usize,

    /// New connections of one client in ten seconds.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_connections_per_client: u32,

    /// How much of one processor the handshakes of one client may take, in percent: those of a flood,
    /// or of a fleet that comes back at once, are spread over time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_handshake_percent_per_client: u32,

    /// Failed authentications of one client in ten seconds, after which it has to wait.
    #[arg(long, default_value_t = 1000)]
    pub max_failures_per_client: u32,

    /// IPv4 addresses that agree in so many leading bits are one client.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=32))]
    pub client_prefix_v4: u32,

    /// IPv6 addresses that agree in so many leading bits are one client.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=128))]
    pub client_prefix_v6: u32,

    /// Network, such as 198.51.100.0/24, whose connections and failures are not limited per client:
    /// a factory behind one NAT. May be given more than once.
    #[arg(
        long = "unlimited-network",
        env = "REHOME_UNLIMITED_NETWORKS",
        value_delimiter = ','
    )]
    pub unlimited_networks: Vec<IpNet>,

    /// Network of load balancers whose connections begin with a PROXY protocol header of version 2;
    /// the address in it counts. From elsewhere no such header is taken. May be given more than once.
    #[arg(
        long = "proxy-protocol-from",
        env = "REHOME_PROXY_PROTOCOL_FROM",
        value_delimiter = ','
    )]
    pub proxy_protocol_from: Vec<IpNet>,

    /// Seconds after an operation's end in which the same request is taken for a repetition whose
    /// answer got lost.
    #[arg(long, default_value_t = 60)]
    pub resend_window_seconds: u64,

    /// Seconds after an answer in which a device that comes back unchanged is taken for one that its
    /// hub refuses, so that its home is verified; 0 never does so.
    #[arg(long, default_value_t = 300)]
    pub refused_window_seconds: u64,

    /// Register requests of one device in ten seconds; twice as many at once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_registers_per_device: u32,

    /// Polls of one device in ten seconds, where it can be told when to ask again.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_polls_per_device: u32,

    /// How far devices' clocks may be behind, in seconds.
    #[arg(long, default_value_t = 300)]
    pub clock_skew_seconds: u64,
}

/// All bounds of one gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) accept: AcceptLimits,
    pub(super) http: ConnectionLimits,
    pub(super) mqtt: MqttLimits,
    pub(super) amqp: AmqpLimits,
    pub(super) settings: Settings,
}

impl Options {
    pub(super) fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        bounds.accept.connections = self.max_connections;
        bounds.accept.per_client = self.max_connections_per_client;
        bounds.accept.new_of_client = Rate {
            burst: self.max_new_connections_per_client,
            per_ten_seconds: self.max_new_connections_per_client,
        };
        bounds.accept.handshake_percent = self.max_handshake_percent_per_client;
        bounds.settings.networks = Arc::new(Networks::new(
            self.client_prefix_v4,
            self.client_prefix_v6,
            self.unlimited_networks.clone(),
        ));
        let RequestLimits {
            register,
            poll,
            failures,
            ..
        } = &mut bounds.settings.limits;
        register.burst = 2 * self.max_registers_per_device;
        register.per_ten_seconds = self.max_registers_per_device;
        poll.burst = self.max_polls_per_device;
        poll.per_ten_seconds = self.max_polls_per_device;
        failures.burst = self.max_failures_per_client;
        failures.per_ten_seconds = self.max_failures_per_client;
        let windows = &mut bounds.settings.windows;
        windows.resend = Duration::from_secs(self.resend_window_seconds);
        windows.refused = Duration::from_secs(self.refused_window_seconds);
        bounds.settings.skew = Duration::from_secs(self.clock_skew_seconds);
        bounds
    }

    /// ID scopes, when they are fixed rather than read from Namespaces.
    pub(super) fn fixed_scopes(&self) -> Vec<(String, Option<IdScope>)> {
        let scope = |namespace: &String| {
            let found = self.id_scopes.iter().find(|(of, _)| of == namespace);
            (namespace.clone(), found.map(|(_, scope)| scope.clone()))
        };
        self.namespaces.iter().map(scope).collect()
    }
}

fn id_scope(text: &str) -> Result<(String, IdScope), String> {
    let (namespace, scope) = text.split_once('=').ok_or("expected NAMESPACE=SCOPE")?;
    let scope = scope.parse().map_err(|error| format!("{error}"))?;
    Ok((namespace.to_owned(), scope))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let given = ["gateway", "--tls-cert=c", "--tls-key=k"]
            .iter()
            .chain(arguments);
        Arguments::try_parse_from(given).map(|parsed| parsed.options)
    }

    #[test]
    fn id_scopes_belong_to_namespaces() {
        let options =
            parse(&["--namespace=a", "--namespace=b", "--id-scope=b=0ne000TEST1"]).unwrap();
        let scopes = options.fixed_scopes();
        assert_eq!(scopes[0], ("a".to_owned(), None));
        assert_eq!(scopes[1].1.as_ref().unwrap().as_str(), "0ne000TEST1");
        assert!(parse(&["--namespace=a", "--id-scope=nonsense"]).is_err());
        assert!(parse(&["--id-scope=a=b"]).is_err());
    }

    #[test]
    fn limits_reach_where_they_count() {
        let options = parse(&[
            "--max-connections-per-client=7",
            "--max-new-connections-per-client=70",
            "--max-handshake-percent-per-client=25",
            "--client-prefix-v4=24",
            "--unlimited-network=198.51.100.0/24,2001:db8::/32",
            "--resend-window-seconds=1",
            "--refused-window-seconds=2",
            "--max-registers-per-device=3",
            "--max-polls-per-device=4",
        ]);
        let bounds = options.unwrap().bounds();
        assert_eq!(bounds.accept.per_client, 7);
        assert_eq!(bounds.accept.new_of_client.per_ten_seconds, 70);
        assert_eq!(bounds.accept.handshake_percent, 25);
        let client = |address: &str| {
            let networks = &bounds.settings.networks;
            networks.client(address.parse().unwrap())
        };
        assert_eq!(client("192.0.2.7"), Some([192, 0, 2, 0].into()));
        assert_eq!(client("198.51.100.7"), None);
        assert_eq!(client("2001:db8::1"), None);
        assert_eq!(bounds.settings.windows.resend, Duration::from_secs(1));
        assert_eq!(bounds.settings.windows.refused, Duration::from_secs(2));
        let limits = bounds.settings.limits;
        assert_eq!(
            (limits.register.burst, limits.register.per_ten_seconds),
            (6, 3)
        );
        assert_eq!((limits.poll.burst, limits.poll.per_ten_seconds), (4, 4));
    }

    #[test]
    fn without_flags_the_defaults_of_the_service_hold() {
        let (bounds, defaults) = (parse(&[]).unwrap().bounds(), Bounds::default());
        let show = |bounds: &Bounds| format!("{:?} {:?}", bounds.accept, bounds.settings);
        assert_eq!(show(&bounds), show(&defaults));
    }
}
