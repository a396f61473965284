//! The `trefoil` program: reads the command line, hands over to the verb, and exits with the code
//! that the verb's failure asks for. Nothing is decided here.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program is a shell: it runs on real clocks, threads and files"
)]

mod admin;
mod arguments;
mod bench;
mod certificate;
mod config;
mod data;
mod demo;
mod dev;
mod drill;
mod failure;
mod local;
mod output;
mod prepare;
mod process;
mod progress;
mod quantity;
mod restore;
mod rlimits;
mod serve;
mod version;
mod whole_file;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::CommandLine;

fn main() -> ExitCode {
    match CommandLine::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("trefoil: {failure}"));
            ExitCode::from(failure.kind as u8)
        }
    }
}
