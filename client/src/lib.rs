//! The client library: seal and open, routing, operations, retries, certificate verification.
