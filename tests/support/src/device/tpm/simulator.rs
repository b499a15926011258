//! The protocol of Microsoft's TPM simulator in front of a software TPM: what the TPM libraries of the
//! official SDKs speak to a TPM that is not in the machine.
//!
//! Commands come on one port, and on the next one what a platform does to a TPM: power and the like,
//! which is acknowledged and otherwise none of this TPM's business. Sessions that a client leaves end
//! with its connection, as the kernel's resource manager (`/dev/tpmrm0`) does it: a TPM holds three, and
//! the Java SDK leaves every one.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Tpm, TpmKind};
use crate::network::{free_ports, loopback};

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

/// Commands, `TPM_CC` of the TPM 2.0 library specification, part 2.
mod command {
    pub(super) const FLUSH_CONTEXT: u32 = 0x165;
    pub(super) const START_AUTH_SESSION: u32 = 0x176;
}

/// A TPM that programs of this machine can use as a simulator.
pub struct SimulatedTpm {
    tpm: Tpm,
    port: u16,
    serving: [JoinHandle<()>; 2],
}

impl SimulatedTpm {
    /// Makes a TPM with keys of its own.
    pub async fn start(kind: TpmKind) -> Result<Self> {
        let tpm = Tpm::start(kind).await?;
        let [port, platform] = free_ports(loopback(1))?;
        let commands = TcpListener::bind((loopback(1), port)).await?;
        let platform = TcpListener::bind((loopback(1), platform)).await?;
        let server = tpm.server;
        let commands = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = commands.accept().await {
                clients.spawn(async move {
                    let mut sessions = Sessions::default();
                    let served = serve_commands(client, server, &mut sessions).await;
                    if let Err(error) = served.and(sessions.end(server).await) {
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
        Ok(Self {
            tpm,
            port,
            serving: [commands, platform],
        })
    }

    /// Where commands are taken, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The TPM itself.
    pub fn tpm(&self) -> &Tpm {
        &self.tpm
    }
}

impl Drop for SimulatedTpm {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// Until the client goes.
async fn serve_commands(
    mut client: TcpStream,
    tpm: SocketAddr,
    sessions: &mut Sessions,
) -> Result<()> {
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
                sessions.note(&command, &answer);
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

/// The sessions that a client has, by their handles.
#[derive(Default)]
struct Sessions(Vec<u32>);

impl Sessions {
    /// Takes note of a command and its answer, each of them a tag, a size, a code, and then a handle in
    /// what matters here.
    fn note(&mut self, command: &[u8], answer: &[u8]) {
        if number(answer, 6) != Some(0) {
            return;
        }
        match number(command, 6) {
            Some(command::START_AUTH_SESSION) => self.0.extend(number(answer, 10)),
            Some(command::FLUSH_CONTEXT) => {
                let flushed = number(command, 10);
                self.0.retain(|handle| Some(*handle) != flushed);
            }
            _ => {}
        }
    }

    /// Ends those that are left. Some ended with the command that they were for.
    async fn end(self, tpm: SocketAddr) -> Result<()> {
        for handle in self.0 {
            let code = command::FLUSH_CONTEXT.to_be_bytes();
            let flush = [&[0x80, 1, 0, 0, 0, 14][..], &code, &handle.to_be_bytes()];
            ask(tpm, &flush.concat()).await?;
        }
        Ok(())
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
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
    use std::time::Duration;

    use super::*;
    use crate::wait::expect_ok;

    /// Another client of the protocol than the SDKs: the TPM library of Debian.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_tpm_is_the_same_one_through_the_simulators_protocol() {
        let tpm = SimulatedTpm::start(TpmKind::Rsa).await.unwrap();
        let shown = tempfile::NamedTempFile::new().unwrap();
        let through = format!("mssim:host=127.0.0.1,port={}", tpm.port());
        let reading = tokio::process::Command::from(Command::new("tpm2_readpublic"))
            .args(["--tcti", &through, "-c", super::super::ENDORSEMENT_HANDLE])
            .args(["-f", "tss", "-o"])
            .arg(shown.path())
            .output();
        let read = reading.await.unwrap();
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{said}");
        let shown = std::fs::read(shown.path()).unwrap();
        assert_eq!(shown, tpm.tpm().read("ek.pub").unwrap());
    }
    /// As a program does it that opens the TPM, begins a policy session and goes: the response code.
    async fn leave_a_session(port: u16) -> u32 {
        let nobody = 0x4000_0007_u32.to_be_bytes();
        let nonce = [&[0, 16][..], &[7; 16]].concat();
        // No salt; a policy session, without encryption, with SHA-256.
        let rest = [0, 0, 1, 0, 0x10, 0, 0x0B];
        let code = command::START_AUTH_SESSION.to_be_bytes();
        let begin = [&code[..], &nobody, &nobody, &nonce, &rest].concat();
        let size = u32::try_from(begin.len() + 6).unwrap();
        let command = [&[0x80, 1][..], &size.to_be_bytes(), &begin].concat();
        let mut client = TcpStream::connect((loopback(1), port)).await.unwrap();
        client.write_u32(request::SEND_COMMAND).await.unwrap();
        client.write_u8(0).await.unwrap();
        client.write_u32(size).await.unwrap();
        client.write_all(&command).await.unwrap();
        let length = client.read_u32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut answer).await.unwrap();
        number(&answer, 6).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sessions_end_with_the_connection_of_the_client_that_began_them() {
        let tpm = SimulatedTpm::start(TpmKind::Ecc).await.unwrap();
        for _ in 0..8 {
            // The one before may not have ended yet; three may be there.
            expect_ok(
                "a session",
                Duration::from_secs(10),
                async || match leave_a_session(tpm.port()).await {
                    0 => Ok(()),
                    code => Err(format!("{code:#x}")),
                },
            )
            .await;
        }
    }
}
