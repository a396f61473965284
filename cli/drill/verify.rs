//! What is looked at when all is healed: that everything acknowledged is there, that what was deleted is not, and every
//! copy of every object, each read from its own node.

use std::collections::BTreeSet;

use indicatif::ProgressBar;
use tokio::task::JoinSet;
use trefoil_client::{Client, ReadError};
use trefoil_drill::Verification;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;

use super::book::{Book, Entry, Finding, Value, Wrong};
use super::load::read;

/// Objects that are looked at together.
const AT_ONCE: usize = 8;

/// Copies of every object.
const COPIES: usize = 3;

/// What was found of one object.
#[derive(Default)]
struct Look {
    copies: u64,
    wrong: Option<Wrong>,
    damaged: Vec<String>,
    unreadable: Vec<String>,
}

/// Looks at every key of the books.
pub(crate) async fn verify(
    clients: &[Client],
    books: Vec<(usize, Book)>,
    bar: &ProgressBar,
    findings: &mut Findings,
) {
    let keys = books
        .into_iter()
        .flat_map(|(tenant, book)| book.into_iter().map(move |(key, entry)| (tenant, key, entry)));
    let mut waiting = keys.collect::<Vec<_>>().into_iter();
    bar.set_length(waiting.len() as u64);
    let mut looking = JoinSet::new();
    loop {
        while looking.len() < AT_ONCE
            && let Some((tenant, key, entry)) = waiting.next()
        {
            let client = clients[tenant].clone();
            looking.spawn(async move { look(&client, &key, &entry).await });
        }
        let Some(done) = looking.join_next().await else { return };
        let Look { copies, wrong, damaged, unreadable } = done.expect("a look does not panic");
        bar.inc(1);
        let found = &mut findings.found;
        found.objects += 1;
        found.copies += copies;
        found.damaged.extend(damaged);
        found.unreadable.extend(unreadable);
        findings.take(wrong);
    }
}

/// What was found wrong, but for what operators let volumes go on without.
pub(crate) struct Findings {
    pub(crate) found: Verification,
    /// Versions that are listed as lost.
    pub(crate) listed: BTreeSet<VersionId>,
    /// What is wrong because of them.
    pub(crate) excused: BTreeSet<String>,
}

impl Findings {
    /// Puts what is wrong where it belongs.
    pub(crate) fn take(&mut self, wrong: Option<Wrong>) {
        let Some(Wrong { finding, what, version }) = wrong else { return };
        if version.is_some_and(|version| self.listed.contains(&version)) {
            self.excused.insert(what);
            return;
        }
        let list = match finding {
            Finding::Lost => &mut self.found.lost,
            Finding::Back => &mut self.found.violations,
        };
        if !list.contains(&what) {
            list.push(what);
        }
    }
}

async fn look(client: &Client, key: &ObjectKey, entry: &Entry) -> Look {
    let mut look = Look::default();
    match read(client, key).await {
        Ok(value) => {
            look.wrong = entry.judge(key, value);
            if value != Value::Absent {
                look.at_copies(client, key).await;
            }
        }
        Err(error @ ReadError::Integrity(_)) => look.wrong = Some(entry.lost(format!("{key}: {error}"))),
        Err(error) => look.unreadable.push(format!("{key}: {error}")),
    }
    look
}

impl Look {
    async fn at_copies(&mut self, client: &Client, key: &ObjectKey) {
        let head = match client.head(key).await {
            Ok(head) => head,
            Err(error) => return self.unreadable.push(format!("{key}: {error}")),
        };
        let copies = &head.view.copies;
        let centres: BTreeSet<_> = copies.iter().map(|copy| copy.dc).collect();
        if copies.len() < COPIES || centres.len() < 2 {
            let (count, centres) = (copies.len(), centres.len());
            self.damaged.push(format!("{key} has {count} copies in {centres} data centres"));
        }
        for copy in copies {
            match client.check_copy(&head, copy.node).await {
                Ok(()) => self.copies += 1,
                // Who cannot be asked has said nothing about the copy.
                Err(error @ ReadError::Unavailable(_)) => {
                    self.unreadable.push(format!("{key} at {}: {error}", copy.node));
                }
                Err(error) => self.damaged.push(format!("{key} at {}: {error}", copy.node)),
            }
        }
    }
}

/// Deletes what the load left.
pub(crate) async fn clear(clients: &[Client], books: &[(usize, Book)]) {
    let mut clearing = JoinSet::new();
    for (tenant, book) in books {
        for key in book.keys() {
            if clearing.len() >= AT_ONCE {
                clearing.join_next().await;
            }
            let (client, key) = (clients[*tenant].clone(), key.clone());
            // What cannot be deleted now is a drill's litter, and harmless.
            clearing.spawn(async move { drop(client.delete(&key).await) });
        }
    }
    while clearing.join_next().await.is_some() {}
}
