//! Waits until the cluster is as somebody needs it to be, and says what it saw last if it is not.

use std::time::{Duration, Instant};

use trefoil_protocol::deletion::Signers;

use super::connection::Admin;
use super::status::StatusView;
use crate::failure::{Failure, Verdict};

/// How often the cluster is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until `wanted` holds of the cluster's state.
pub(crate) async fn until(
    admin: &Admin,
    patience: Duration,
    what: &str,
    wanted: impl Fn(&StatusView) -> bool,
) -> Verdict<StatusView> {
    let began = Instant::now();
    loop {
        let answer = admin.status().await.map(|status| StatusView::of(&status));
        if let Ok(view) = &answer
            && wanted(view)
        {
            return answer;
        }
        if began.elapsed() > patience {
            let seen = answer.map_or_else(|failure| failure.message, |view| view.text());
            let waited = patience.as_secs();
            return Err(Failure::unavailable(format!("waited {waited} s in vain for {what}\n{seen}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Everybody who signs or signed, when nobody's key is missing any more.
pub(crate) async fn signers_when_all_are_known(admin: &Admin, within: Duration) -> Verdict<Signers> {
    let began = Instant::now();
    loop {
        let signers = admin.status().await?.signers;
        if signers.terms.iter().all(|term| term.key.is_some()) {
            return Ok(signers);
        }
        if began.elapsed() > within {
            return Err(Failure::unavailable("a voter has not said yet which key it signs with"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
