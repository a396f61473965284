//! What the control plane promises, one file per concern. Everything here drives the public facade
//! with an in-memory log and a clock that the test moves.
