//! The self-hosted hub as a process: its service API over HTTPS, devices over MQTT and TLS, and
//! what is left of it after SIGKILL. Nothing here runs in the hub's own process.

#![cfg(test)]

mod calls;
mod certificates;
mod device;
mod durability;
mod logs;
mod migration;
mod modules;
mod mqtt;
mod postgres;
mod process;
mod room;
