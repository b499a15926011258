//! The protocol of Microsoft's TPM simulator in front of a software TPM: what the TPM libraries of the
//! official SDKs speak to a TPM that is not in the machine.
//!
//! Commands come on one port, and on the next one what a platform does to a TPM: power and the like,
//! which is acknowledged and otherwise none of this TPM's business.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Tpm, two_ports};
use crate::network::loopback;

/// Largest command or answer of any TPM.
const LARGEST: usize = 4096;
/// What is not an error.
const ACKNOWLEDGED: u32 = 0;

/// Requests of the protocol, `TcpTpmProtocol.h` of the simulator.
mod request {
    pub(super) const POWER_ON: u32 = 1;
    pub(super) const SEND_COMMAND: u32 = 8;
    pub(super) const CANCEL_OFF: u32 = 10;
    pub(super) const NV_ON: u32 = 11;
    pub(super) const HANDSHAKE: u32 = 15;
    pub(super) const SESSION_END: u32 = 20;
}

/// A TPM that can be reached as a simulator, until this is dropped.
pub struct Simulator {
    port: u16,
    serving: [JoinHandle<()>; 2],
}

impl Simulator {
    /// Where commands are taken, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Tpm {
    /// Lets programs of this machine use the TPM as a simulator.
    pub async fn simulator(&self) -> Result<Simulator> {
        let (port, platform) = two_ports()?;
        let commands = TcpListener::bind((loopback(1), port)).await?;
        let platform = TcpListener::bind((loopback(1), platform)).await?;
        let tpm = self.server;
        let commands = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = commands.accept().await {
                clients.spawn(async move {
                    if let Err(error) = serve_commands(client, tpm).await {
                        eprintln!("a TPM's client: {error:#}");
                    }
                });
            }
        });
        let platform = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = platform.accept().await {
                clients.spawn(serve_platform(client));
            }
        });
        Ok(Simulator {
            port,
            serving: [commands, platform],
        })
    }
}

/// Until the client goes.
async fn serve_commands(mut client: TcpStream, tpm: SocketAddr) -> Result<()> {
    while let Ok(request) = client.read_u32().await {
        match request {
            request::HANDSHAKE => {
                let version = client.read_u32().await?;
                // The version, and that no platform hardware is to be had.
                client.write_u32(version).await?;
                client.write_u32(0).await?;
                client.write_u32(ACKNOWLEDGED).await?;
            }
            request::SEND_COMMAND => {
                let _locality = client.read_u8().await?;
                let length = usize::try_from(client.read_u32().await?)?;
                ensure!(length <= LARGEST, "a command of {length} bytes");
                let mut command = vec![0; length];
                client.read_exact(&mut command).await?;
                let answer = ask(tpm, &command).await.context("the software TPM")?;
                let length = u32::try_from(answer.len())?.to_be_bytes();
                let end = ACKNOWLEDGED.to_be_bytes();
                client
                    .write_all(&[&length[..], &answer, &end].concat())
                    .await?;
            }
            request::SESSION_END => return Ok(()),
            other => bail!("an unknown request {other}"),
        }
        client.flush().await?;
    }
    Ok(())
}

async fn serve_platform(mut client: TcpStream) {
    while let Ok(request) = client.read_u32().await {
        let known = matches!(
            request,
            request::POWER_ON | request::NV_ON | request::CANCEL_OFF
        );
        if !known || client.write_u32(ACKNOWLEDGED).await.is_err() {
            return;
        }
    }
}

/// One command on a connection of its own: the software TPM serves one client at a time.
async fn ask(tpm: SocketAddr, command: &[u8]) -> Result<Vec<u8>> {
    let mut tpm = TcpStream::connect(tpm).await?;
    tpm.write_all(command).await?;
    // Tag, size of the whole, response code.
    let mut answer = vec![0; 10];
    tpm.read_exact(&mut answer).await?;
    let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]);
    let size = usize::try_from(size)?;
    ensure!((10..=LARGEST).contains(&size), "an answer of {size} bytes");
    answer.resize(size, 0);
    tpm.read_exact(&mut answer[10..]).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::TpmKind;
    use super::*;

    /// Another client of the protocol than the SDKs: the TPM library of Debian.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_tpm_is_the_same_one_through_the_simulators_protocol() {
        let tpm = Tpm::start(TpmKind::Rsa).await.unwrap();
        let simulator = tpm.simulator().await.unwrap();
        let shown = tempfile::NamedTempFile::new().unwrap();
        let through = format!("mssim:host=127.0.0.1,port={}", simulator.port());
        let reading = tokio::process::Command::from(Command::new("tpm2_readpublic"))
            .args(["--tcti", &through, "-c", super::super::ENDORSEMENT_HANDLE])
            .args(["-f", "tss", "-o"])
            .arg(shown.path())
            .output();
        let read = reading.await.unwrap();
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{said}");
        let shown = std::fs::read(shown.path()).unwrap();
        assert_eq!(shown, tpm.read("ek.pub").unwrap());
    }
}
