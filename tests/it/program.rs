//! The program from outside: what it prints, how it exits, and what a cluster of its processes keeps.

mod bytes_in;
mod command_line;
mod failures;
mod local_cluster;
mod memory;
mod objects;
mod scale;
mod show;
mod streaming;
mod tenants;
