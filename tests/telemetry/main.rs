//! What a person sees of a device's way through the real processes: log lines.

#![cfg(test)]

mod logs;
mod stage;
