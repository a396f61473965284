//! The transport from outside: real sockets on loopback, real handshakes, hostile peers.

mod cluster;
mod r090_planes;
mod r091_resumption;
mod r092_certificates;
mod r097_limits;
mod stream_frames;
