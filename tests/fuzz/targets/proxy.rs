//! The PROXY header.

use rehome::wire::proxy;
use tokio::io::AsyncReadExt as _;

use super::stream::{Client, run as run_to_end};

/// The input is what a load balancer sends first, and what follows it.
pub(super) fn run(input: &[u8]) {
    run_to_end(async {
        let mut client = Client::new(&[], input);
        let Ok(source) = proxy::read(&mut client).await else {
            return;
        };
        if let Some(source) = source {
            assert_eq!(source.ip(), source.ip().to_canonical());
        }
        // Nothing behind the header is taken.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("memory");
        let sent = input.get(1..).unwrap_or_default();
        assert!(sent.ends_with(&rest));
        let header = sent.len() - rest.len();
        assert!((16..=16 + 2048).contains(&header), "{header}");
    });
}
