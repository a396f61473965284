//! What must hold before anything is broken. Each check says what to do where it does not hold.

use std::collections::BTreeSet;

use trefoil_drill::{DrillFile, MILLISECOND, WallTime};
use trefoil_protocol::message::admin::ClusterStatus;
use trefoil_protocol::time::Millis;

use super::field::Field;
use super::playbook::Playbook;
use crate::admin::status::StatusView;
use crate::failure::{Failure, Verdict};

/// Checks everything, and says so to whoever looks.
pub(crate) async fn check(
    field: &Field,
    file: &DrillFile,
    playbook: &Playbook,
    now: WallTime,
    until: WallTime,
) -> Verdict<StatusView> {
    blackouts(field, file, now, until)?;
    field.hands.can(&playbook.words())?;
    field.rescuer.can(playbook.rescues())?;
    let status = field.admin.status().await?;
    let view = StatusView::of(&status);
    let voters = status.voters.iter().map(|voter| voter.entry.name.to_string());
    let servers = view.nodes.iter().map(|node| node.id.clone()).chain(voters).collect();
    let tenants: Vec<&str> = field.tenants.iter().map(|(name, _)| name.as_str()).collect();
    stands_on(file, &view, &tenants, &field.names(&playbook.servers()), &servers)?;
    has_voters(file, status.voters.len())?;
    deletes_end(file, &status, &tenants)?;
    Ok(view)
}

fn blackouts(field: &Field, file: &DrillFile, now: WallTime, until: WallTime) -> Verdict {
    let mut all = file.blackouts.iter().chain(&field.blackouts);
    match all.find(|blackout| blackout.meets(now, until)) {
        Some(blackout) => Err(Failure::refused(format!(
            "no drill in the blackout window {blackout}; this one would last until {until}"
        ))),
        None => Ok(()),
    }
}

fn has_voters(file: &DrillFile, got: usize) -> Verdict {
    let wanted = file.topology.voters;
    if got >= wanted {
        return Ok(());
    }
    Err(Failure::refused(format!("the drill needs {wanted} voters of the control plane, here are {got}")))
}

/// Deletes that are to be certified end while the drill lasts.
fn deletes_end(file: &DrillFile, status: &ClusterStatus, tenants: &[&str]) -> Verdict {
    let most = Millis(file.topology.window.0 / MILLISECOND);
    let slow =
        status.tenants.iter().find(|entry| tenants.contains(&entry.name.as_str()) && entry.window > most);
    let Some(entry) = slow.filter(|_| file.expect.certified > 0) else { return Ok(()) };
    let (name, wanted) = (entry.name, file.topology.window);
    Err(Failure::refused(format!(
        "the drill expects certified deletes, and those of tenant {name} can be undone for longer than {wanted}: take \
         tenants with a shorter window, or make the cluster with `trefoil dev --delete-window {wanted}`"
    )))
}

/// The cluster is well, and it is what the file asks for.
fn stands_on(
    file: &DrillFile,
    view: &StatusView,
    tenants: &[&str],
    struck: &BTreeSet<String>,
    servers: &BTreeSet<String>,
) -> Verdict {
    if !view.healthy {
        return Err(Failure::unavailable(format!(
            "the cluster is not healthy, no drill makes it so\n{}",
            view.text()
        )));
    }
    if let Some(name) = struck.difference(servers).next() {
        let known: Vec<&str> = servers.iter().map(String::as_str).collect();
        let known = known.join(" ");
        return Err(Failure::refused(format!(
            "the drill strikes {name}, which is none of {known}; give its name here under [names] of --cluster"
        )));
    }
    for tenant in tenants.iter().copied() {
        let volumes: Vec<_> = view.volumes.iter().filter(|volume| volume.tenant == tenant).collect();
        let (got, wanted) = (volumes.len(), file.topology.volumes as usize);
        if got < wanted {
            return Err(Failure::refused(format!(
                "the drill needs {wanted} volumes of tenant {tenant}, it has {got}"
            )));
        }
        let policy = if file.topology.strict { "strict" } else { "available" };
        if let Some(volume) = volumes.iter().find(|volume| volume.policy != policy) {
            let got = volume.policy;
            return Err(Failure::refused(format!(
                "the drill is for tenants that are {policy}, {tenant} is {got}"
            )));
        }
    }
    Ok(())
}
