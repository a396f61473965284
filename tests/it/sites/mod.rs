//! Real processes on four hosts: what happens when wires are cut, sites go dark and processes die,
//! with the kernel's own network between them. A machine that cannot make namespaces says why, and
//! the tests on loopback go on without it.

pub(crate) mod history;
mod net;
mod reader;
mod rows;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Deref;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use toml::Value;

use self::net::{Net, Site};
use crate::outside::{NODES, Outside, PLACEMENT, is_whole};
use crate::places::Place;
use crate::program::{Folder, run, trefoil};

/// A cluster over four hosts. The test's own thread is at the clients' site.
struct Sites {
    outside: Outside,
    net: Net,
    servers: BTreeMap<String, Child>,
}

impl Deref for Sites {
    type Target = Outside;

    fn deref(&self) -> &Outside {
        &self.outside
    }
}

/// Runs a test on four hosts, if this machine can be four hosts.
fn on_sites(name: &str, test: impl FnOnce(&mut Sites) + Send) {
    let _place = Place::take();
    let net = match Net::build() {
        Ok(net) => net,
        Err(reason) => {
            // Past the test harness, which shows what is printed only when a test fails.
            let _ = writeln!(std::io::stderr(), "{name} is skipped: no network namespaces: {reason}");
            return;
        }
    };
    // Servers die with the thread that started them, and a thread that has moved to another host
    // must not run another test.
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            net.move_to(Site::C);
            let mut sites = Sites::start(Folder::new(name), net);
            test(&mut sites);
            sites.nothing_panicked();
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Sites {
    fn start(folder: Folder, net: Net) -> Self {
        let data = folder.path().to_str().unwrap().to_owned();
        let prepare = || run(&["prepare", "--data", &data]).held();
        prepare();
        let plan = folder.join("cluster.toml");
        let mut table: Value = fs::read_to_string(&plan).unwrap().parse::<toml::Table>().unwrap().into();
        settle_on_hosts(&mut table);
        fs::write(&plan, toml::to_string(&table).unwrap()).unwrap();
        prepare();
        let mut sites = Self { outside: Outside::of(folder), net, servers: BTreeMap::new() };
        [PLACEMENT].into_iter().chain(NODES).for_each(|server| sites.begin(server));
        sites.wait_for("every node to come up", |status| {
            status["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "up").count()
                == NODES.len()
        });
        sites.found("acme", "7d");
        sites.wait_for("a whole cluster", is_whole);
        sites
    }

    /// Starts a server at its site.
    fn begin(&mut self, server: &str) {
        if let Some(mut old) = self.servers.remove(server) {
            old.wait().unwrap();
        }
        let verb = if server == PLACEMENT { "placement" } else { "storage-node" };
        let log = OpenOptions::new().append(true).create(true).open(self.path(server).join("log")).unwrap();
        let configuration = self.configuration(server);
        let program = trefoil(&[verb, "--config", configuration.to_str().unwrap()]);
        let mut words = self.net.enter(Site::of_dc(&server[..1])).into_iter();
        let mut command = Command::new(words.next().expect("a word"));
        command.args(words).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.servers.insert(server.to_owned(), child);
    }

    /// `kill -9` of servers, all at once.
    fn kill(&mut self, servers: &[&str]) {
        for server in servers {
            self.signal(server, Signal::KILL);
        }
        for server in servers {
            self.servers.remove(*server).expect("it was started").wait().unwrap();
        }
    }
}

impl Drop for Sites {
    fn drop(&mut self) {
        for child in self.servers.values_mut() {
            // One that has ended needs no signal.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Puts the addresses of the hosts where the plan has this machine's: whatever names a data centre
/// listens there.
fn settle_on_hosts(plan: &mut Value) {
    match plan {
        Value::Array(values) => values.iter_mut().for_each(settle_on_hosts),
        Value::Table(table) => {
            let site = table.get("dc").and_then(Value::as_str).map(Site::of_dc);
            for (name, value) in table.iter_mut() {
                match (site, name.as_str(), &mut *value) {
                    (Some(site), "links", Value::Array(links)) => {
                        for (link, address) in links.iter_mut().zip(site.on_links().expect("a data centre")) {
                            move_to(link, address);
                        }
                    }
                    (Some(site), _, Value::String(text)) if text.starts_with("127.0.0.1:") => {
                        move_to(value, site.address());
                    }
                    _ => settle_on_hosts(value),
                }
            }
        }
        _ => {}
    }
}

fn move_to(value: &mut Value, address: &str) {
    let text = value.as_str().expect("an address");
    let port = text.rsplit_once(':').expect("with a port").1;
    *value = Value::String(format!("{address}:{port}"));
}
