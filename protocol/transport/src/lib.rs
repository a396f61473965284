//! The only crate that knows QUIC: identities, connections over both links, streams.
