//! X.509 attestation as devices see it: a table, each row over HTTPS, MQTT and AMQP on real TLS
//! sockets.

mod group;
mod individual;
mod pki;
mod possession;
pub(crate) mod scene;

use self::scene::{Scene, Told};

/// What is enrolled and presented, and what the device is told.
pub(crate) type Row = (&'static str, fn() -> Scene, Told);

pub(crate) async fn play(rows: &[Row]) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (row, scene, told) in rows {
        scene().is_told(row, *told).await;
    }
}
