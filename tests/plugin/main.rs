//! `kubectl rehome`: what it says for every reason.

#![cfg(test)]

mod case;
mod objects;
mod reasons;
mod states;
mod transcripts;
