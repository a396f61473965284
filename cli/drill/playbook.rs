//! What a drill does to a cluster, deed by deed, as a pure function of its file: or why it cannot be done to one.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_drill::{Action, CrashKind, Deed as Rescue, DrillFile, Fault, Trigger};
use trefoil_protocol::ids::LinkId;

use crate::failure::Failure;
use crate::local::hands::Deed;

/// What is noted where the simulator would take power away.
const POWER: &str =
    "a cluster keeps its power: where the simulator lets a machine lose power, the process was killed";

/// What is noted where the simulator would change a clock.
const CLOCKS: &str = "clocks were left as they are: only the simulator sets them";

/// What is noted where the simulator would tell clients apart by their data centre.
const CLIENTS: &str =
    "a drill's clients stand in no data centre: what is expected of those in one of them was not looked at";

/// One thing that is done, as one mark of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// So long after the clients begin.
    pub(crate) at: Duration,
    /// In words.
    pub(crate) what: String,
    /// Whether it takes a fault away.
    pub(crate) heals: bool,
    /// In the file's names.
    pub(crate) deeds: Vec<Deed>,
    /// What operators do.
    pub(crate) rescue: Option<Rescue>,
}

/// Everything that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Playbook {
    /// By time.
    pub(crate) steps: Vec<Step>,
    /// What the report must say about it.
    pub(crate) notes: Vec<String>,
}

/// Who is down, standing still or cut at a moment.
#[derive(Default)]
struct Damage {
    down: BTreeSet<String>,
    cut: BTreeSet<LinkId>,
    parted: BTreeSet<[String; 2]>,
}

impl Playbook {
    /// What a file means for a cluster.
    pub(crate) fn of(file: &DrillFile) -> Result<Self, Failure> {
        if file.expect.power_losses > 0 || file.expect.fatal > 0 {
            return Err(only_simulated("it expects `fatal` or `power_losses`, for which there are no hands"));
        }
        if file.load.version > 0 || !file.topology.stale_reads.is_empty() {
            return Err(only_simulated(
                "its clients read versions that may be stale, which tenants must have chosen",
            ));
        }
        let mut timed = Vec::new();
        for (number, fault) in (1..).zip(&file.plan.faults) {
            match &fault.trigger {
                Trigger::At(at) => timed.push((at.0, number, fault)),
                Trigger::When { mark, .. } => {
                    let reason = format!("fault {number} waits for `{mark}`, a moment inside of a process");
                    return Err(only_simulated(&reason));
                }
            }
        }
        timed.sort_by_key(|(at, number, _)| (*at, *number));
        let (mut playbook, mut damage) = (Self::default(), Damage::default());
        if file.expect.during.iter().any(|span| span.clients.is_some()) {
            playbook.note(CLIENTS);
        }
        let unseen = unseen(file);
        if !unseen.is_empty() {
            playbook.note(&format!(
                "nobody sees from outside what is expected of {}: it was not looked at",
                unseen.join(", ")
            ));
        }
        for (at, number, fault) in timed {
            playbook.add(Duration::from_nanos(at), number, fault, &mut damage)?;
        }
        for rates in file.load.arrivals.windows(2) {
            let (before, now) = (rates[0].per_second, rates[1].per_second);
            let (at, what) = (rates[1].from.0, format!("{now} operations a second instead of {before}"));
            let (at, heals) = (Duration::from_nanos(at), now < before);
            playbook.steps.push(Step { at, what, heals, deeds: Vec::new(), rescue: None });
        }
        for rescue in &file.rescues {
            let (at, what) = (Duration::from_nanos(rescue.at.0), rescue.deed.words().to_owned());
            let (heals, rescue) = (rescue.deed.is_healing(), Some(rescue.deed));
            playbook.steps.push(Step { at, what, heals, deeds: Vec::new(), rescue });
        }
        playbook.steps.sort_by_key(|step| step.at);
        playbook.check_rescues()?;
        Ok(playbook)
    }

    fn add(
        &mut self,
        at: Duration,
        number: usize,
        fault: &Fault,
        damage: &mut Damage,
    ) -> Result<(), Failure> {
        let (what, heals) = (fault.action.words(), fault.action.is_healing());
        let step = |deeds| Step { at, what: what.clone(), heals, deeds, rescue: None };
        let deeds = match &fault.action {
            Action::Crash(crash) => {
                if crash.how == CrashKind::Power {
                    self.note(POWER);
                }
                damage.down.extend(crash.nodes.iter().cloned());
                crash.nodes.iter().cloned().map(Deed::Kill).collect()
            }
            Action::Restart(names) => {
                let returning: Vec<String> =
                    damage.down.iter().filter(|name| is_meant(names, name)).cloned().collect();
                damage.down.retain(|name| !returning.contains(name));
                returning.into_iter().map(Deed::Start).collect()
            }
            Action::Pause(pause) => {
                let (name, until) = (&pause.node, at + Duration::from_nanos(pause.lasts.0));
                let (what, deeds) = (format!("goes on: {name}"), vec![Deed::Continue(name.clone())]);
                self.steps.push(Step { at: until, what, heals: true, deeds, rescue: None });
                vec![Deed::Pause(name.clone())]
            }
            Action::Starve(starve) => {
                let (name, until) = (&starve.node, at + Duration::from_nanos(starve.lasts.0));
                let (what, deeds) = (format!("goes on: {name}"), vec![Deed::Continue(name.clone())]);
                self.steps.push(Step { at: until, what, heals: true, deeds, rescue: None });
                let millis = |length: trefoil_drill::Duration| {
                    Duration::from_millis(length.0.div_ceil(1_000_000).max(1))
                };
                vec![Deed::Starve {
                    node: name.clone(),
                    still: millis(starve.stall),
                    runs: millis(starve.run),
                }]
            }
            Action::Model(change) => {
                let links = links(std::slice::from_ref(&change.link), number)?;
                damage.cut.extend(links.iter().copied());
                links.into_iter().map(|link| Deed::Model(link, Box::new(change.to.clone()))).collect()
            }
            Action::Part(pair) => {
                if dc_of(&pair[0]) == dc_of(&pair[1]) {
                    let reason = format!(
                        "fault {number} parts two nodes of one data centre, which hands do not reach"
                    );
                    return Err(only_simulated(&reason));
                }
                damage.parted.insert(pair.clone());
                vec![Deed::Part(pair.clone())]
            }
            Action::Cut(names) => {
                let links = links(names, number)?;
                damage.cut.extend(links.iter().copied());
                links.into_iter().map(Deed::Cut).collect()
            }
            Action::Heal(names) => {
                let meant = |link: &LinkId| is_meant(names, name_of(*link));
                let links: Vec<LinkId> = damage.cut.iter().copied().filter(meant).collect();
                damage.cut.retain(|link| !links.contains(link));
                let joined =
                    if is_meant(names, "all") { std::mem::take(&mut damage.parted) } else { BTreeSet::new() };
                links.into_iter().map(Deed::Restore).chain(joined.into_iter().map(Deed::Join)).collect()
            }
            Action::Rate(_) | Action::Wall(_) => {
                self.note(CLOCKS);
                return Ok(());
            }
            other => {
                let reason = format!("fault {number} is a {}, for which there are no hands", other.kind());
                return Err(only_simulated(&reason));
            }
        };
        self.steps.push(step(deeds));
        Ok(())
    }

    /// Nothing is restored that was not saved and lost before.
    fn check_rescues(&self) -> Result<(), Failure> {
        let mut before = Vec::new();
        for rescue in self.rescues() {
            let wants: &[_] = if rescue == Rescue::Restore { &[Rescue::Backup, Rescue::Lose] } else { &[] };
            if wants.iter().any(|wanted| !before.contains(wanted)) {
                return Err(only_simulated(
                    "it restores what was not saved by `backup` and then lost by `lose`",
                ));
            }
            before.push(rescue);
        }
        match before.contains(&Rescue::Lose) && !before.contains(&Rescue::Restore) {
            true => Err(only_simulated("it loses the control plane's logs and restores nothing")),
            false => Ok(()),
        }
    }

    /// What operators do, in its order.
    pub(crate) fn rescues(&self) -> impl Iterator<Item = Rescue> {
        self.steps.iter().filter_map(|step| step.rescue)
    }

    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// Every server that something is done to.
    pub(crate) fn servers(&self) -> BTreeSet<String> {
        let deeds = self.steps.iter().flat_map(|step| &step.deeds);
        let names = deeds.flat_map(|deed| match deed {
            Deed::Part(pair) | Deed::Join(pair) => pair.to_vec(),
            other if other.is_at_the_relay() => Vec::new(),
            other => vec![other.target()],
        });
        names.collect()
    }

    /// Every kind of deed.
    pub(crate) fn words(&self) -> BTreeSet<&'static str> {
        let words = self.steps.iter().flat_map(|step| &step.deeds).map(Deed::word);
        let rescues = self.rescues().flat_map(|rescue| match rescue {
            Rescue::Lose => ["kill", "lose", "regain"].as_slice(),
            Rescue::Restore => &["start"],
            Rescue::Survive => &["kill", "start"],
            Rescue::Backup | Rescue::AcceptLoss | Rescue::Discard | Rescue::DeclareDead => &[],
        });
        words.chain(rescues.copied()).collect()
    }
}

fn only_simulated(reason: &str) -> Failure {
    Failure::refused(format!("this drill cannot run on a cluster: {reason}; `trefoil-sim` runs it"))
}

/// Expectations of what only the simulator sees.
fn unseen(file: &DrillFile) -> Vec<&'static str> {
    let expect = &file.expect;
    let all = [
        ("stopped", expect.stopped > 0),
        ("joined_again", expect.joined_again > 0),
        ("lease_over", expect.lease_over > 0),
        ("disk_queue", expect.disk_queue.is_some()),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(what, _)| what).collect()
}

/// The drill with those expectations alone that can be looked at from outside.
pub(crate) fn from_outside(file: &DrillFile) -> DrillFile {
    let mut file = file.clone();
    let expect = &mut file.expect;
    (expect.stopped, expect.joined_again, expect.lease_over) = (0, 0, 0);
    expect.disk_queue = None;
    file
}

/// Drills name nodes after their data centre.
fn dc_of(name: &str) -> Option<char> {
    name.chars().next()
}

fn is_meant(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one == name || one == "all")
}

fn links(names: &[String], number: usize) -> Result<Vec<LinkId>, Failure> {
    let link = |name: &String| LinkId::ALL.into_iter().find(|link| name_of(*link) == name);
    let all = |name: &String| {
        link(name).ok_or_else(|| {
            only_simulated(&format!("fault {number} cuts {name}; hands reach the links x1 and x2"))
        })
    };
    names.iter().map(all).collect()
}

/// What files call a link.
fn name_of(link: LinkId) -> &'static str {
    match link {
        LinkId::One => "x1",
        LinkId::Two => "x2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn playbook(faults: &str) -> Result<Playbook, Failure> {
        Playbook::of(&DrillFile::parse(&format!("name = \"x\"\nhorizon = \"60s\"\n{faults}")).unwrap())
    }

    fn deeds(playbook: &Playbook) -> Vec<(u64, Vec<String>)> {
        let words = |step: &Step| step.deeds.iter().map(ToString::to_string).collect();
        playbook.steps.iter().map(|step| (step.at.as_secs(), words(step))).collect()
    }

    #[test]
    fn faults_become_deeds_in_order_of_time() {
        let playbook = playbook(
            "[[fault]]\nat = \"3s\"\npause = { node = \"a1\", for = \"9s\" }\n\
             [[fault]]\nat = \"5s\"\ncrash = { nodes = [\"b1\", \"b2\"] }\n\
             [[fault]]\nat = \"8s\"\nrestart = \"all\"\n\
             [[fault]]\nat = \"9s\"\ncut = [\"x1\", \"x2\"]\n\
             [[fault]]\nat = \"10s\"\nheal = \"x2\"\n\
             [[fault]]\nat = \"11s\"\nrate = { node = \"a1\", ppm = 100 }\n",
        )
        .unwrap();
        let lines = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let expected = [
            (3, lines(&["pause a1"])),
            (5, lines(&["kill b1", "kill b2"])),
            (8, lines(&["start b1", "start b2"])),
            (9, lines(&["cut 1", "cut 2"])),
            (10, lines(&["restore 2"])),
            (12, lines(&["continue a1"])),
        ];
        assert_eq!(deeds(&playbook), expected);
        assert_eq!(
            playbook.steps.iter().map(|step| step.heals).collect::<Vec<_>>(),
            [false, false, true, false, true, true]
        );
        assert_eq!(playbook.notes, [POWER, CLOCKS]);
        assert_eq!(playbook.servers().into_iter().collect::<Vec<_>>(), ["a1", "b1", "b2"]);
    }

    #[test]
    fn links_and_paths_that_are_not_well_and_starved_nodes_are_for_hands() {
        let playbook = playbook(
            "[[fault]]\nat = \"2s\"\nstarve = { node = \"a2\", for = \"6s\", stall = \"200ms\", run = \"20ms\" }\n\
             [[fault]]\nat = \"3s\"\nmodel = { link = \"x1\", to = { delay_min = 1000 } }\n\
             [[fault]]\nat = \"4s\"\npart = [\"a1\", \"b2\"]\n\
             [[fault]]\nat = \"9s\"\nheal = \"all\"\n",
        )
        .unwrap();
        let words: Vec<Vec<&str>> =
            playbook.steps.iter().map(|step| step.deeds.iter().map(Deed::word).collect()).collect();
        assert_eq!(
            words,
            [vec!["starve"], vec!["model"], vec!["part"], vec!["continue"], vec!["restore", "join"]]
        );
        assert_eq!(playbook.servers().into_iter().collect::<Vec<_>>(), ["a1", "a2", "b2"]);
    }

    #[test]
    fn what_operators_do_is_done_in_its_order_and_nothing_is_restored_that_was_not_saved() {
        let rescue = |deeds: &[&str]| -> String {
            let line =
                |(place, deed): (usize, &&str)| format!("[[rescue]]\nat = \"{place}s\"\ndo = \"{deed}\"\n");
            deeds.iter().enumerate().map(line).collect()
        };
        let whole = playbook(&rescue(&["backup", "lose", "restore"])).unwrap();
        assert_eq!(whole.rescues().collect::<Vec<_>>(), [Rescue::Backup, Rescue::Lose, Rescue::Restore]);
        let steps: Vec<bool> = whole.steps.iter().map(|step| step.heals).collect();
        assert_eq!(steps, [true, false, true]);
        assert!(whole.words().contains("lose") && whole.words().contains("regain"));
        for (deeds, reason) in [
            (["backup", "restore"].as_slice(), "not saved by `backup` and then lost"),
            (&["lose", "restore"], "not saved by `backup` and then lost"),
            (&["backup", "lose"], "restores nothing"),
        ] {
            let failure = playbook(&rescue(deeds)).unwrap_err();
            assert!(failure.message.contains(reason), "{failure}");
        }
    }

    #[test]
    fn too_much_work_is_a_step_and_what_nobody_sees_from_outside_is_left_out_and_noted() {
        let rate =
            |from: &str, rate: u64| format!("[[load.arrivals]]\nfrom = \"{from}\"\nper_second = {rate}\n");
        let text = [rate("0s", 10), rate("2s", 90), rate("5s", 10)].concat()
            + "[expect]\ndisk_queue = 10\nlease_over = 1";
        let playbook = playbook(&text).unwrap();
        let steps: Vec<(&str, bool)> =
            playbook.steps.iter().map(|step| (step.what.as_str(), step.heals)).collect();
        let (more, less) = ("90 operations a second instead of 10", "10 operations a second instead of 90");
        assert_eq!(steps, [(more, false), (less, true)]);
        assert!(playbook.notes[0].contains("lease_over, disk_queue"), "{:?}", playbook.notes);
    }

    #[test]
    fn what_only_the_simulator_can_do_is_said() {
        for (fault, reason) in [
            ("[[fault]]\nat = \"1s\"\nslow = { node = \"a1\", times = 9 }", "fault 1 is a slow disk"),
            ("[[fault]]\nat = \"1s\"\ncut = \"wa\"", "fault 1 cuts wa"),
            ("[[fault]]\nat = \"1s\"\npart = [\"a1\", \"a2\"]", "fault 1 parts two nodes of one"),
            ("[[fault]]\nwhen = \"peering\"\ncut = \"x1\"", "waits for `peering`"),
            ("[expect]\nfatal = 1", "expects `fatal`"),
        ] {
            let failure = playbook(fault).unwrap_err();
            assert!(failure.message.contains(reason), "{failure}");
            assert!(failure.message.ends_with("`trefoil-sim` runs it"), "{failure}");
        }
    }
}
