//! A device whose keys are in a TPM: a software TPM (`swtpm`) that is told what to do with
//! `tpm2-tools`, so that nothing of what the product encrypts is decrypted by code of ours.

mod registration;
mod simulator;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use registration::TpmApplicant;
pub use simulator::SimulatedTpm;

use super::key::{encoded, token_end};
use crate::network::{free_ports, loopback};
use crate::process::Process;

/// Longest time for the TPM to serve.
const START: Duration = Duration::from_mins(1);
/// Where official SDKs look for the endorsement key; without one there they make another.
const ENDORSEMENT_HANDLE: &str = "0x81010001";
/// Where they look for the storage root key.
const STORAGE_HANDLE: &str = "0x81000001";

/// What kind of keys a TPM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmKind {
    Rsa,
    Ecc,
}

/// A TPM with an endorsement key and a storage root key.
pub struct Tpm {
    _process: Process,
    directory: tempfile::TempDir,
    /// Where commands are taken, as they are.
    server: SocketAddr,
}

/// A key that an envelope brought into the TPM.
pub struct TpmHeldKey<'a> {
    tpm: &'a Tpm,
    context: PathBuf,
}

impl Tpm {
    /// Makes a TPM with keys of its own.
    pub async fn start(kind: TpmKind) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // `tpm2-tools` take the control port to be the one after the server's.
        let [server, control] = free_ports(loopback(1))?;
        let state = directory.path().join("state");
        std::fs::create_dir(&state)?;
        let arguments = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            format!("--tpmstate=dir={}", state.display()),
            format!("--server=type=tcp,port={server}"),
            format!("--ctrl=type=tcp,port={control}"),
            "--flags=not-need-init,startup-clear".to_owned(),
        ];
        let log = directory.path().join("swtpm.log");
        let program = Path::new("swtpm");
        let mut process = Process::spawn("swtpm", program, &arguments, [("", ""); 0], log)
            .context("swtpm does not start (Debian: apt-get install swtpm tpm2-tools)")?;
        process
            .wait_for_port((loopback(1), control).into(), START)
            .await?;
        let tpm = Self {
            _process: process,
            directory,
            server: (loopback(1), server).into(),
        };
        let (endorsement, storage) = match kind {
            TpmKind::Rsa => ("rsa", "rsa2048:aes128cfb"),
            TpmKind::Ecc => ("ecc", "ecc256:aes128cfb"),
        };
        tpm.run(&[
            "createek",
            "-c",
            "ek.ctx",
            "-G",
            endorsement,
            "-u",
            "ek.pem",
        ])?;
        tpm.run(&["readpublic", "-c", "ek.ctx", "-f", "tss", "-o", "ek.pub"])?;
        let attributes =
            "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
        let primary = [
            "createprimary",
            "-C",
            "o",
            "-G",
            storage,
            "-a",
            attributes,
            "-c",
            "srk.ctx",
        ];
        tpm.run(&primary)?;
        tpm.run(&["readpublic", "-c", "srk.ctx", "-f", "tss", "-o", "srk.pub"])?;
        for (key, handle) in [("ek.ctx", ENDORSEMENT_HANDLE), ("srk.ctx", STORAGE_HANDLE)] {
            tpm.run(&["evictcontrol", "-C", "o", "-c", key, handle])?;
        }
        Ok(tpm)
    }

    /// Base64 of the public part of the endorsement key.
    pub fn endorsement_key(&self) -> Result<String> {
        Ok(STANDARD.encode(self.read("ek.pub")?))
    }

    /// Base64 of the public part of the storage root key.
    pub fn storage_root_key(&self) -> Result<String> {
        Ok(STANDARD.encode(self.read("srk.pub")?))
    }

    /// Opens an `authenticationKey` of the registration API, as the C and .NET SDKs do: activates the
    /// credential, imports the key with it and loads it.
    pub fn activate(&self, authentication_key: &str, name: &str) -> Result<TpmHeldKey<'_>> {
        let blob = STANDARD.decode(authentication_key)?;
        let mut rest = &blob[..];
        let mut next = || -> Result<Vec<u8>> {
            let (size, _) = rest.split_at_checked(2).context("the blob is cut short")?;
            let size = 2 + usize::from(u16::from_be_bytes([size[0], size[1]]));
            let (whole, after) = rest
                .split_at_checked(size)
                .context("the blob is cut short")?;
            rest = after;
            Ok(whole.to_vec())
        };
        let (id_object, activation) = (next()?, next()?);
        let (private, import, public) = (next()?, next()?, next()?);
        next()?;
        ensure!(rest.is_empty(), "the blob goes on for {} bytes", rest.len());
        // The format of tpm2-tools: a magic number, a version, then the two structures.
        let credential = [
            &[0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1][..],
            &id_object,
            &activation,
        ];
        self.write("credential", &credential.concat())?;
        self.write("dup.priv", &private)?;
        self.write("dup.seed", &import)?;
        self.write("dup.pub", &public)?;
        self.run(&["startauthsession", "--policy-session", "-S", "session"])?;
        self.run(&["policysecret", "-S", "session", "-c", "e"])?;
        let activated = self.run(&[
            "activatecredential",
            "-c",
            "srk.ctx",
            "-C",
            "ek.ctx",
            "-i",
            "credential",
            "-o",
            "inner.key",
            "-P",
            "session:session",
        ]);
        self.run(&["flushcontext", "session"])?;
        activated?;
        self.run(&[
            "import",
            "-C",
            "srk.ctx",
            "-i",
            "dup.priv",
            "-u",
            "dup.pub",
            "-s",
            "dup.seed",
            "-k",
            "inner.key",
            "-r",
            "imported.priv",
        ])?;
        let context = PathBuf::from(format!("{name}.ctx"));
        let to = context.display().to_string();
        self.run(&[
            "load",
            "-C",
            "srk.ctx",
            "-u",
            "dup.pub",
            "-r",
            "imported.priv",
            "-c",
            &to,
        ])?;
        Ok(TpmHeldKey { tpm: self, context })
    }

    /// Runs one of the `tpm2_` programs; transient objects are flushed after it, because there is no
    /// resource manager.
    fn run(&self, command: &[&str]) -> Result<()> {
        let (program, arguments) = command.split_first().context("no program")?;
        let output = self.command(program).args(arguments).output();
        let output = output.with_context(|| format!("tpm2_{program} does not run"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("tpm2_{program} {}: {said}", arguments.join(" "));
        }
        let flushed = self.command("flushcontext").arg("-t").status()?;
        ensure!(flushed.success(), "transient objects are not flushed");
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let address = format!("swtpm:host=127.0.0.1,port={}", self.server.port());
        let mut command = Command::new(format!("tpm2_{program}"));
        command
            .current_dir(self.directory.path())
            .env("TPM2TOOLS_TCTI", &address)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.directory.path().join(name), bytes)?)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        std::fs::read(self.directory.path().join(name)).with_context(|| name.to_owned())
    }
}

impl TpmHeldKey<'_> {
    /// A shared access signature of an hour for `resource`, signed inside the TPM.
    pub fn token(&self, resource: &str, policy: Option<&str>) -> Result<String> {
        let (resource, end) = (encoded(resource), token_end()?);
        self.tpm
            .write("text", format!("{resource}\n{end}").as_bytes())?;
        let context = self.context.display().to_string();
        self.tpm
            .run(&["hmac", "-c", &context, "-o", "signature", "text"])?;
        let signature = STANDARD.encode(self.tpm.read("signature")?);
        let policy = policy.map(|name| format!("&skn={}", encoded(name)));
        Ok(format!(
            "SharedAccessSignature sr={resource}&sig={}&se={end}{}",
            encoded(&signature),
            policy.unwrap_or_default()
        ))
    }
}
