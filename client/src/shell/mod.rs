//! The client as a program uses it: profiles, connections, streams of plaintext, files.
//!
//! Decisions are the core's; this module does what it says, over QUIC and with the system's clock.

mod certificate;
mod client;
mod connections;
mod copies;
mod download;
mod drive;
mod keyring;
mod listing;
mod network;
mod profile;
mod put;
mod read;
mod source;
mod spool;
mod tokens;
mod upload;
mod write;

pub use certificate::{Trust, TrustFileError, verify_certificate, verify_loss_list};
pub use client::{Client, ConnectError, Settings};
pub use download::{Download, Head};
pub use listing::{Listed, Page, Pages};
pub use profile::{Profile, ProfileError, ProfileFile, ProfileRole};
pub use put::{Hidden, Padding, PutOptions, Restored, Spool, Stored};
pub use read::Staleness;
pub use source::{FileSource, IntoSource, MemorySource, ReaderSource, Source};
