//! What a person sees of a device's way through the real processes: log lines and traces.

#![cfg(test)]

mod collector;
mod logs;
mod stage;
mod traces;
