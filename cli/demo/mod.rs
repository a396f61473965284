//! `trefoil demo`.
use crate::failure::{Failure, Verdict};
use crate::output::Format;
use clap::Args;
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {}
pub(crate) fn run(_: &DemoArguments, _: Format) -> Verdict {
    Err(Failure::failed("x"))
}
