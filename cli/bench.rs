//! `trefoil bench`.
use crate::failure::{Failure, Verdict};
use crate::output::Format;
use clap::Subcommand;
#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Run
    Run,
}
pub(crate) async fn run(_: &BenchVerb, _: &trefoil_client::Client, _: Format) -> Verdict {
    Err(Failure::failed("x"))
}
