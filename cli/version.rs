//! `trefoil --version`.

use serde::Serialize;

use crate::output::Format;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    /// Whether this build can switch its own guards off. Only builds of the simulator can.
    mutants: bool,
}

/// Tells name and version.
pub(crate) fn tell(format: Format) {
    let version = Version {
        name: "trefoil",
        version: env!("CARGO_PKG_VERSION"),
        mutants: trefoil_protocol::mutant::COMPILED_IN,
    };
    format.answer(&version, |version| format!("{} {}", version.name, version.version));
}
