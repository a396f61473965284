//! The client library: it seals and opens objects, and talks to the stores that keep them.
//!
//! Plaintext and data keys exist in this crate and nowhere else. Its core (everything but the feature `shell`) has no
//! sockets, clocks or randomness of its own, so that the simulator can run it.
//!
//! ```no_run
//! use trefoil_client::{Client, Profile};
//! use trefoil_protocol::key::ObjectKey;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Profile::load("acme.toml")?).await?;
//! let key = ObjectKey::new("reports/2026.txt")?;
//! let stored = client.put(&key, "all is well").await?;
//! assert_eq!(client.get(&key).await?.bytes().await?, "all is well");
//! println!("version {} on {} copies", stored.receipt.version, stored.receipt.copies.len());
//! # Ok(())
//! # }
//! ```

pub mod core;
pub mod entropy;
pub mod failure;
pub mod seal;
pub mod secret;
#[cfg(feature = "shell")]
pub mod shell;

pub use failure::{Damage, FailureKind, ReadError, Trouble, WriteError};
#[cfg(feature = "shell")]
pub use shell::{
    Client, ConnectError, Download, Head, Hidden, Listed, Padding, Page, Pages, Profile, ProfileError,
    PutOptions, Restored, Settings, Source, Spool, Staleness, Stored, Trust, TrustFileError,
    verify_certificate, verify_loss_list,
};
