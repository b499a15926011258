//! Devices that run unmodified official SDKs.
//!
//! A process for each SDK ([`Programs`] starts it) runs any number of devices side by side and is
//! told by lines of JSON what they shall do ([`Driver`]). A [`Device`] is one of them.

mod device;
mod driver;
mod programs;

pub use device::{Answer, Credential, Device, Transport};
pub use driver::Driver;
pub use programs::{Programs, folder};
