//! `kubectl rehome`: what it says for every reason, and what it does on a real cluster.

#![cfg(test)]

mod case;
mod checks;
mod cluster;
mod completion;
mod krew;
mod objects;
mod people;
mod reasons;
mod scenes;
mod states;
mod thousand;
mod transcripts;
