//! The transport from outside: real sockets on loopback, real handshakes, hostile peers.
#![allow(clippy::disallowed_methods, reason = "tests run on real clocks")]

mod cluster;
mod r090_planes;
mod r091_resumption;
mod r092_certificates;
mod r097_limits;
mod r099_hostile_datagrams;
mod relay;
mod stream_frames;
mod two_links;
