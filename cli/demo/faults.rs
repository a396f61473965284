//! The steps that break something under load, with signals and a relay, and watch.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use trefoil_protocol::ids::LinkId;

use super::load::Load;
use super::report::Report;
use super::show::{Show, told};
use super::verdict::{self, CentreLost, Cut, Killed, Restored, Told, Window};
use crate::admin::status::StatusView;
use crate::admin::wait;
use crate::failure::Verdict;

/// How long a link stays cut.
const CUT_FOR: Duration = Duration::from_secs(6);

/// How long the load may take to pass a fault, before the verdict is that it did not.
const PATIENCE: Duration = Duration::from_secs(100);

/// How long a return may take.
const RETURN_WITHIN: Duration = Duration::from_secs(180);

/// Objects whose copies are counted after a return.
const LOOKED_AT: usize = 40;

impl Show {
    /// One of the two links stops forwarding.
    pub(super) async fn cut_a_link(&mut self, report: &mut Report) -> Verdict {
        report.begin("One of the two links between the data centres is cut under load");
        let load = self.load().await;
        let before_cut = Instant::now();
        self.relay.cut(LinkId::One);
        let before = self.relay.traffic(LinkId::One);
        report.say("link 1 is cut");
        tokio::time::sleep(CUT_FOR).await;
        load.passed(before_cut, PATIENCE).await;
        let after = self.relay.traffic(LinkId::One);
        self.relay.restore(LinkId::One);
        let window = end(load, before_cut).await;
        report.end(&verdict::link_survived(&Cut { load: window, before, after }));
        Ok(())
    }

    /// The node that leads most volumes dies, and comes back.
    pub(super) async fn kill_a_node(&mut self, report: &mut Report) -> Verdict {
        report.begin("A storage node is killed under load");
        let node = self.busiest(StatusView::primaries).await?;
        let load = self.load().await;
        let fault = Instant::now();
        let ended = self.cluster.processes.kill(&[&node])?;
        report.say(&format!("{node} is dead; waiting until every writer writes again"));
        load.passed(fault, PATIENCE).await;
        let signals = ended.iter().map(ExitStatusExt::signal).collect();
        report.say(&format!("{node} comes back"));
        self.cluster.start(&node)?;
        self.until_whole().await?;
        let window = end(load, fault).await;
        report.end(&verdict::node_loss_survived(&Killed { names: vec![node], signals, load: window }));
        Ok(())
    }

    /// The control plane's only process dies and is started again.
    pub(super) async fn restart_placement(&mut self, report: &mut Report) -> Verdict {
        report.begin("The placement process is killed under load and started again");
        let name = self.cluster.plan.placement[0].id.clone();
        let load = self.load().await;
        let fault = Instant::now();
        let ended = self.cluster.processes.kill(&[&name])?;
        let signals = ended.iter().map(ExitStatusExt::signal).collect();
        self.cluster.start(&name)?;
        load.passed(fault, PATIENCE).await;
        self.until_whole().await?;
        let window = end(load, fault).await;
        report.end(&verdict::placement_restart_survived(&Killed {
            names: vec![name],
            signals,
            load: window,
        }));
        Ok(())
    }

    /// All nodes of the data centre that leads most volumes die at once. Returns its name.
    pub(super) async fn kill_a_data_centre(&mut self, report: &mut Report) -> Verdict<String> {
        report.begin("A whole data centre is lost under load");
        let centre = self.busiest(StatusView::primaries_by_centre).await?;
        let names = self.nodes_of(&centre);
        let load = self.load().await;
        let fault = Instant::now();
        let ended = self.cluster.processes.kill(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        report.say(&format!("data centre {centre} is dead; waiting until every writer writes again"));
        load.passed(fault, PATIENCE).await;
        let window = end(load, fault).await;
        let view = StatusView::of(&self.admin.status().await?);
        let still_up =
            view.nodes.iter().filter(|node| node.dc == centre && node.state == "up").count() as u64;
        let bar = report.bar();
        let read_back =
            self.ledger.read_back(&self.clients, |done| bar.set_message(format!("{done} read back"))).await;
        let signals = ended.iter().map(ExitStatusExt::signal).collect();
        let killed = Killed { names, signals, load: window };
        let protection = view.protection.to_owned();
        report.end(&verdict::centre_loss_survived(&CentreLost { killed, protection, still_up, read_back }));
        Ok(centre)
    }

    /// The lost data centre's nodes are started again, with what their disks hold.
    pub(super) async fn bring_it_back(&mut self, centre: &str, report: &mut Report) -> Verdict {
        report.begin("The data centre comes back");
        let began = Instant::now();
        for name in self.nodes_of(centre) {
            self.cluster.start(&name)?;
        }
        report.say("copies are being restored");
        let mut view = self.until_whole().await?;
        let mut copies = self.told_copies().await?;
        // A volume whole with four members lets one go as its next change.
        while copies.iter().any(|told| told.len() != 3) && began.elapsed() < RETURN_WITHIN {
            tokio::time::sleep(Duration::from_millis(200)).await;
            view = self.until_whole().await?;
            copies = self.told_copies().await?;
        }
        let took = began.elapsed();
        let protection = view.protection.to_owned();
        let short = view.objects_short_of_copies;
        report.end(&verdict::restored(&Restored { took, protection, short, copies }));
        Ok(())
    }

    /// Where some objects of each tenant are.
    async fn told_copies(&self) -> Verdict<Vec<Vec<Told>>> {
        let mut copies = Vec::new();
        for (tenant, client) in self.clients.iter().enumerate() {
            for key in self.ledger.sample(tenant, LOOKED_AT) {
                copies.push(told(&client.head(&key).await?.view.copies));
            }
        }
        Ok(copies)
    }

    /// Starts a load that has reached every volume.
    async fn load(&mut self) -> Load {
        self.round += 1;
        let began = Instant::now();
        let load = Load::start(&self.clients, &self.ledger, self.round);
        load.passed(began, PATIENCE).await;
        load
    }

    /// Whoever leads most.
    async fn busiest(&self, count: impl Fn(&StatusView) -> BTreeMap<String, usize>) -> Verdict<String> {
        let view = StatusView::of(&self.admin.status().await?);
        let counts = count(&view);
        let most = counts.values().max().copied().unwrap_or_default();
        let first = counts.into_iter().find(|(_, count)| *count == most);
        Ok(first.map_or_else(|| "a1".to_owned(), |(name, _)| name))
    }

    fn nodes_of(&self, centre: &str) -> Vec<String> {
        let nodes = self.cluster.plan.nodes.iter().filter(|node| node.dc == centre);
        nodes.map(|node| node.id.clone()).collect()
    }

    async fn until_whole(&mut self) -> Verdict<StatusView> {
        let whole = |view: &StatusView| view.whole() && view.objects_short_of_copies == 0;
        let waiting = wait::until(&self.admin, RETURN_WITHIN, "every volume to be whole", whole);
        self.cluster.processes.watched(waiting).await
    }
}

/// Ends a load and tells what it saw since the fault.
async fn end(load: Load, fault: Instant) -> Window {
    let samples = load.samples();
    load.stop().await;
    samples.window(fault)
}
