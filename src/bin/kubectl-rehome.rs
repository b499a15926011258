//! `kubectl rehome`: arguments, wiring, exit codes.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use rehome::clock::SystemClock;
use rehome::plugin::{Arguments, Outcome, run};
use rehome::random::SystemRandom;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let outcome = if error.use_stderr() {
                Outcome::Error
            } else {
                Outcome::Fine
            };
            // Nobody to tell is no reason to fail otherwise.
            let _ = error.print();
            return outcome.code().into();
        }
    };
    // The first to install one wins, and nobody else does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(arguments, Arc::new(SystemClock::start()), &SystemRandom).await {
        Ok(outcome) => outcome.code().into(),
        Err(failure) => {
            anstream::eprintln!("error: {}", failure.whole());
            Outcome::Error.code().into()
        }
    }
}
