//! Four hosts on one machine: a network namespace for each data centre, for the witness's site and
//! for the clients, and wires between them that can be cut, one way or both, slowed down and counted.
//!
//! ```text
//!     ┌──── link1 ────┐
//!     a ──── link2 ── b            10.77.1.x and 10.77.2.x: where storage nodes listen
//!     └─ w-a ─ w ─ w-b┘            10.77.9.x: every site's own address, where placement listens
//!     c-a, c-b, c-w                clients have a wire of their own to everybody
//! ```
//!
//! A namespace lives as long as the process that holds it, which ends with the test's: nothing is
//! left behind, whatever happens.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Data centre a.
    A,
    /// Data centre b.
    B,
    /// The third site.
    W,
    /// Where the clients are.
    C,
}

use Site::{A, B, C, W};

impl Site {
    const ALL: [Self; 4] = [A, B, W, C];

    /// Where a server of this data centre runs.
    pub(crate) fn of_dc(dc: &str) -> Self {
        match dc {
            "a" => A,
            "b" => B,
            "w" => W,
            other => panic!("there is no site {other}"),
        }
    }

    /// The address that is not bound to a wire.
    pub(crate) fn address(self) -> &'static str {
        match self {
            W => "10.77.9.1",
            A => "10.77.9.2",
            B => "10.77.9.3",
            C => "10.77.9.4",
        }
    }

    /// The addresses on link 1 and link 2, in a data centre.
    pub(crate) fn on_links(self) -> Option<[&'static str; 2]> {
        match self {
            A => Some(["10.77.1.1", "10.77.2.1"]),
            B => Some(["10.77.1.2", "10.77.2.2"]),
            W | C => None,
        }
    }

    fn addresses(self) -> impl Iterator<Item = &'static str> {
        self.on_links().into_iter().flatten().chain([self.address()])
    }
}

/// A wire between two hosts, named after its interface at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    Link1,
    Link2,
    WA,
    WB,
    CA,
    CB,
    CW,
}

impl Wire {
    const ALL: [Self; 7] = [Self::Link1, Self::Link2, Self::WA, Self::WB, Self::CA, Self::CB, Self::CW];

    /// Both cross connections.
    pub(crate) const LINKS: [Self; 2] = [Self::Link1, Self::Link2];

    fn name(self) -> &'static str {
        match self {
            Self::Link1 => "link1",
            Self::Link2 => "link2",
            Self::WA => "w-a",
            Self::WB => "w-b",
            Self::CA => "c-a",
            Self::CB => "c-b",
            Self::CW => "c-w",
        }
    }

    /// Who is at its ends, with the address of each on it.
    fn ends(self) -> [(Site, &'static str); 2] {
        match self {
            Self::Link1 => [(A, "10.77.1.1"), (B, "10.77.1.2")],
            Self::Link2 => [(A, "10.77.2.1"), (B, "10.77.2.2")],
            Self::WA => [(W, "10.77.3.1"), (A, "10.77.3.2")],
            Self::WB => [(W, "10.77.4.1"), (B, "10.77.4.2")],
            Self::CA => [(C, "10.77.5.1"), (A, "10.77.5.2")],
            Self::CB => [(C, "10.77.6.1"), (B, "10.77.6.2")],
            Self::CW => [(C, "10.77.7.1"), (W, "10.77.7.2")],
        }
    }
}

/// What is dropped where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Drop {
    /// Everything that comes over a wire.
    All(Site, Wire),
    /// What one UDP port there sends to one port here, over whatever wire.
    Ports(Site, u16, u16),
}

impl Drop {
    fn at(self) -> Site {
        match self {
            Self::All(site, _) | Self::Ports(site, ..) => site,
        }
    }

    fn rule(self) -> String {
        match self {
            Self::All(_, wire) => format!("iifname \"{}\" drop", wire.name()),
            Self::Ports(_, from, to) => format!("udp sport {from} udp dport {to} drop"),
        }
    }
}

/// The hosts and their wires.
pub(crate) struct Net {
    hosts: Vec<(Site, Host)>,
    drops: BTreeSet<Drop>,
}

impl Net {
    /// Builds it, or tells why this machine cannot.
    pub(crate) fn build() -> Result<Self, String> {
        for (tool, package) in [("ip", "iproute2"), ("nft", "nftables"), ("tc", "iproute2")] {
            let found = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.map_err(|error| format!("{tool} (Debian package {package}): {error}"))?;
        }
        let mut hosts = Vec::new();
        for site in Site::ALL {
            hosts.push((site, Host::make()?));
        }
        let net = Self { hosts, drops: BTreeSet::new() };
        net.wire_up()?;
        Ok(net)
    }

    fn wire_up(&self) -> Result<(), String> {
        for wire in Wire::ALL {
            let [(one, _), (other, _)] = wire.ends();
            let (one, other) = (self.host(one).pid().to_string(), self.host(other).pid().to_string());
            let name = wire.name();
            let add =
                ["link", "add", name, "netns", &one, "type", "veth", "peer", "name", name, "netns", &other];
            finished(Command::new("ip").args(add), "")?;
        }
        for site in Site::ALL {
            let mut lines = vec!["link set lo up".to_owned()];
            lines.push(format!("addr add {}/32 dev lo", site.address()));
            let ways = Wire::ALL.into_iter().filter_map(|wire| towards(site, wire));
            for (wire, own, next, theirs) in ways {
                lines.push(format!("addr add {own}/30 dev {}", wire.name()));
                lines.push(format!("link set {} up", wire.name()));
                // A cross connection carries what is bound to it; of what is bound to neither, the first
                // carries all.
                let beyond = next.addresses().filter(|address| match wire {
                    Wire::Link1 | Wire::Link2 => *address == next.address(),
                    _ => true,
                });
                lines.extend(beyond.map(|address| format!("route append {address}/32 via {theirs}")));
            }
            self.host(site).run(&["ip", "-batch", "-"], &lines.join("\n"))?;
        }
        Ok(())
    }

    fn host(&self, site: Site) -> &Host {
        &self.hosts.iter().find(|(of, _)| *of == site).expect("every site is made").1
    }

    /// The words before a command that make it run there.
    pub(crate) fn enter(&self, site: Site) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.host(site).pid())]
    }

    /// Takes this thread, and those that it starts later, to a site.
    pub(crate) fn move_to(&self, site: Site) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.host(site).pid())).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Nothing goes over a wire any more, either way.
    pub(crate) fn cut(&mut self, wire: Wire) {
        for (site, _) in wire.ends() {
            self.drops.insert(Drop::All(site, wire));
        }
        self.apply();
    }

    /// Nothing arrives at `site` over a wire any more; what leaves, leaves.
    pub(crate) fn cut_towards(&mut self, site: Site, wire: Wire) {
        self.drops.insert(Drop::All(site, wire));
        self.apply();
    }

    /// Two servers hear nothing of each other on these ports; everybody else does.
    pub(crate) fn part(&mut self, one: (Site, u16), other: (Site, u16)) {
        self.drops.insert(Drop::Ports(one.0, other.1, one.1));
        self.drops.insert(Drop::Ports(other.0, one.1, other.1));
        self.apply();
    }

    /// Everything is carried again.
    pub(crate) fn mend(&mut self) {
        self.drops.clear();
        self.apply();
    }

    fn apply(&self) {
        for site in Site::ALL {
            let here = self.drops.iter().filter(|drop| drop.at() == site);
            let rules: String = here.map(|drop| drop.rule() + "\n").collect();
            let table = format!(
                "table inet cuts {{}}\ndelete table inet cuts\ntable inet cuts {{\nchain arriving {{\n\
                 type filter hook input priority 0;\n{rules}}}\n}}\n"
            );
            self.host(site).run(&["nft", "-f", "-"], &table).unwrap();
        }
    }

    /// A wire carries so many bits a second and no more, either way.
    pub(crate) fn narrow(&self, wire: Wire, bits: u64) {
        for (site, _) in wire.ends() {
            let rate = format!("{bits}bit");
            let shape = ["tc", "qdisc", "replace", "dev", wire.name(), "root", "tbf", "rate", &rate];
            let shape = [&shape[..], &["burst", "64kbit", "latency", "300ms"]].concat();
            self.host(site).run(&shape, "").unwrap();
        }
    }

    /// A wire is as wide as the machine again.
    pub(crate) fn widen(&self, wire: Wire) {
        for (site, _) in wire.ends() {
            self.host(site).run(&["tc", "qdisc", "del", "dev", wire.name(), "root"], "").unwrap();
        }
    }

    /// What a wire has carried so far, both ways.
    pub(crate) fn carried(&self, wire: Wire) -> Carried {
        let mut sum = Carried::default();
        for (site, _) in wire.ends() {
            let told =
                self.host(site).run(&["ip", "-j", "-s", "link", "show", "dev", wire.name()], "").unwrap();
            let told: Value = serde_json::from_str(&told).unwrap();
            let sent = &told[0]["stats64"]["tx"];
            sum.bytes += sent["bytes"].as_u64().unwrap();
            sum.packets += sent["packets"].as_u64().unwrap();
        }
        sum
    }
}

/// What a wire carried: frames with their Ethernet, IP and UDP headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// The end of a wire at a site: the own address, who is at the other end, and their address.
fn towards(site: Site, wire: Wire) -> Option<(Wire, &'static str, Site, &'static str)> {
    let ends = wire.ends();
    let own = ends.iter().find(|(of, _)| *of == site)?;
    let other = ends.iter().find(|(of, _)| *of != site)?;
    Some((wire, own.1, other.0, other.1))
}

/// A namespace and the process that holds it.
struct Host {
    holder: Child,
}

impl Host {
    fn make() -> Result<Self, String> {
        // The pipe closes when this process ends, however it ends.
        let hold = ["--net", "--", "sh", "-c", "read -r end"];
        let holder = Command::new("unshare").args(hold).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut host = Self { holder: holder.map_err(|error| format!("unshare (util-linux): {error}"))? };
        let own = fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let began = Instant::now();
        while fs::read_link(format!("/proc/{}/ns/net", host.pid())).is_ok_and(|its| its == own) {
            if host.holder.try_wait().is_ok_and(|ended| ended.is_some()) {
                let mut said = String::new();
                let _ =
                    std::io::Read::read_to_string(&mut host.holder.stderr.take().expect("piped"), &mut said);
                return Err(said.trim().to_owned());
            }
            assert!(began.elapsed() < Duration::from_secs(10), "unshare does not unshare");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(host)
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a command there, feeding it `input`; its output, or what it complained about.
    fn run(&self, words: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).args(words);
        finished(&mut command, input)
    }
}

impl std::ops::Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn finished(command: &mut Command, input: &str) -> Result<String, String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    child.stdin.take().expect("piped").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
