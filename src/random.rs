//! The randomness that everything else is handed, so that tests can replay it.

/// A source of random bytes.
pub trait Random: Send + Sync + 'static {
    /// Sixteen of them.
    fn bytes(&self) -> [u8; 16];
}

/// The operating system's, which nobody can predict.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        #[expect(
            clippy::expect_used,
            reason = "without randomness no id and no key is safe; the library itself aborts"
        )]
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
        bytes
    }
}
