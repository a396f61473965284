//! The `trefoil` program: reads the command line and hands over to the verb.
fn main() {}
