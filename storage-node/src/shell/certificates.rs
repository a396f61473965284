//! Reads the node's certificate again when its files change, so that a renewed one is used without a
//! restart. A file that cannot be read or used leaves the present certificate in place.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;
use trefoil_transport::OwnCertificate;

const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks at the files now and then, for as long as the node runs.
pub(super) fn watch(own: Arc<OwnCertificate>, certificate: PathBuf, key: PathBuf) {
    tokio::task::spawn_local(async move {
        let mut last = String::new();
        let mut ticks = interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let (Ok(chain), Ok(private)) = (fs::read_to_string(&certificate), fs::read_to_string(&key))
            else {
                tracing::warn!(path = %certificate.display(), "the certificate cannot be read");
                continue;
            };
            if chain == last {
                continue;
            }
            match own.replace(&chain, &private) {
                Ok(()) => last = chain,
                Err(error) => tracing::warn!(path = %certificate.display(), %error, "certificate not taken"),
            }
        }
    });
}
