//! The hands that a drill has on a local cluster. `dev` lends them to one drill at a time, over a socket in the
//! cluster's folder that only its owner may open: it kills and starts its own processes, and cuts links at the
//! relay. Whoever lets go, however it ends, leaves everything healed.
//!
//! Whoever comes is greeted with a line that begins with `ok`, or with `no` and why. A request is a line, `kill a1`,
//! `start a1`, `pause a1`, `continue a1`, `starve a1 200 20` (milliseconds that it stands still and runs, in turns),
//! `cut 1`, `restore 1`, `model 1 {..}` (a link's behaviour, as JSON), `part a1 b2`, `join a1 b2`, `lose w1`, `regain
//! w1`; its answer is the line `ok`, or `no` and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until};
use trefoil_drill::LinkModel;
use trefoil_protocol::ids::LinkId;

use super::relay::Relay;
use super::{Layout, LocalCluster};
use crate::failure::{Failure, Verdict, at};
use crate::output;

/// Who takes the hands is told whether they reach the links.
pub(crate) const WITH_LINKS: &str = "ok, with links";

const WITHOUT_LINKS: &str = "ok, without links";

/// What hands do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// End a server without warning.
    Kill(String),
    /// Start a server that has ended.
    Start(String),
    /// Let a server stand still.
    Pause(String),
    /// Let it go on.
    Continue(String),
    /// Let a server stand still and run in turns, until it may go on.
    Starve { node: String, still: Duration, runs: Duration },
    /// A link carries nothing any more.
    Cut(LinkId),
    /// It carries again.
    Restore(LinkId),
    /// A link carries, but not as it should.
    Model(LinkId, Box<LinkModel>),
    /// Nothing passes between two nodes, over whatever link.
    Part([String; 2]),
    /// Something passes again.
    Join([String; 2]),
    /// The data of a server that does not run is put aside: its disk is a new one.
    Lose(String),
    /// What was put aside is its data again, whatever was begun since; the server has not been started.
    Regain(String),
}

impl Deed {
    /// The word for it, in requests and in command templates.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Start(_) => "start",
            Self::Pause(_) => "pause",
            Self::Continue(_) => "continue",
            Self::Starve { .. } => "starve",
            Self::Cut(_) => "cut",
            Self::Restore(_) => "restore",
            Self::Model(..) => "model",
            Self::Part(_) => "part",
            Self::Join(_) => "join",
            Self::Lose(_) => "lose",
            Self::Regain(_) => "regain",
        }
    }

    /// To whom.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Kill(name)
            | Self::Start(name)
            | Self::Pause(name)
            | Self::Continue(name)
            | Self::Lose(name)
            | Self::Regain(name) => name.clone(),
            Self::Starve { node, .. } => node.clone(),
            Self::Cut(link) | Self::Restore(link) | Self::Model(link, _) => link.number().to_string(),
            Self::Part(pair) | Self::Join(pair) => pair.join(" "),
        }
    }

    /// What it takes besides, as it stands behind the target.
    pub(crate) fn measure(&self) -> Option<String> {
        match self {
            Self::Starve { still, runs, .. } => Some(format!("{} {}", still.as_millis(), runs.as_millis())),
            Self::Model(_, model) => Some(serde_json::to_string(model).expect("numbers are JSON")),
            _ => None,
        }
    }

    /// Whether it is done to a link or to a path over both.
    pub(crate) fn is_at_the_relay(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Restore(_) | Self::Model(..) | Self::Part(_) | Self::Join(_))
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.word(), self.target())?;
        self.measure().map_or(Ok(()), |measure| write!(f, " {measure}"))
    }
}

impl FromStr for Deed {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, target) = line.split_once(' ').unwrap_or((line, ""));
        let (target, measure) = match word {
            "starve" | "model" => target.split_once(' ').unwrap_or((target, "")),
            _ => (target, ""),
        };
        let link = || LinkId::ALL.into_iter().find(|link| link.number().to_string() == target);
        let no_link = || format!("there is no link {target}");
        match word {
            "kill" => Ok(Self::Kill(target.to_owned())),
            "start" => Ok(Self::Start(target.to_owned())),
            "pause" => Ok(Self::Pause(target.to_owned())),
            "continue" => Ok(Self::Continue(target.to_owned())),
            "starve" => {
                starve(target, measure).ok_or_else(|| format!("{measure}: not two numbers of milliseconds"))
            }
            "cut" => link().map(Self::Cut).ok_or_else(no_link),
            "restore" => link().map(Self::Restore).ok_or_else(no_link),
            "model" => {
                let model = serde_json::from_str(measure).map_err(|error| error.to_string())?;
                link().map(|link| Self::Model(link, Box::new(model))).ok_or_else(no_link)
            }
            "part" => pair(target).map(Self::Part).ok_or_else(|| format!("{target}: not two nodes")),
            "lose" => Ok(Self::Lose(target.to_owned())),
            "regain" => Ok(Self::Regain(target.to_owned())),
            "join" => pair(target).map(Self::Join).ok_or_else(|| format!("{target}: not two nodes")),
            _ => Err(format!(
                "{word}: hands know kill, start, pause, continue, starve, cut, restore, model, part, join, lose and \
                 regain"
            )),
        }
    }
}

fn pair(target: &str) -> Option<[String; 2]> {
    target.split_once(' ').map(|(one, other)| [one, other].map(str::to_owned))
}

fn starve(node: &str, measure: &str) -> Option<Deed> {
    let (still, runs) = measure.split_once(' ')?;
    let millis = |text: &str| text.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    Some(Deed::Starve { node: node.to_owned(), still: millis(still)?, runs: millis(runs)? })
}

/// A server that stands still and runs in turns.
#[derive(Clone, Copy, Debug)]
struct Turns {
    still: Duration,
    runs: Duration,
    stands: bool,
    until: Instant,
}

impl Turns {
    /// The other turn begins; says the signal for it.
    fn change(&mut self, now: Instant) -> Signal {
        self.stands = !self.stands;
        self.until = now + if self.stands { self.still } else { self.runs };
        if self.stands { Signal::STOP } else { Signal::CONT }
    }
}

/// The socket, and who has the hands now.
pub(crate) struct Hands {
    listener: UnixListener,
    relay: Option<Relay>,
    holder: Option<Holder>,
    damage: Damage,
}

struct Holder {
    lines: Lines<BufReader<OwnedReadHalf>>,
    answers: OwnedWriteHalf,
}

/// What is to be healed when the holder lets go.
#[derive(Default)]
struct Damage {
    killed: BTreeSet<String>,
    paused: BTreeSet<String>,
    starved: BTreeMap<String, Turns>,
    lost: BTreeSet<String>,
}

/// What came over the socket.
pub(crate) enum Request {
    /// Somebody wants the hands.
    Comes(UnixStream),
    /// Whoever has them asks for something.
    Asks(String),
    /// They are free again.
    LetsGo,
    /// A server that is starved is to stand still, or to go on.
    Turn,
}

impl Hands {
    /// Opens the socket in the cluster's folder.
    pub(crate) fn open(layout: &Layout, relay: Option<Relay>) -> Verdict<Self> {
        let path = layout.hands();
        // A socket that an earlier run left.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(short(&path)?.path).map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
        Ok(Self { listener, relay, holder: None, damage: Damage::default() })
    }

    /// What comes next over the socket. Nothing is lost if it is dropped.
    pub(crate) async fn next(&mut self) -> Request {
        let Self { listener, holder, damage, .. } = self;
        let turn = damage.starved.values().map(|turns| turns.until).min();
        loop {
            tokio::select! {
                biased;
                () = due(turn) => return Request::Turn,
                line = next_line(holder) => return line.map_or(Request::LetsGo, Request::Asks),
                come = listener.accept() => match come {
                    Ok((stream, _)) => return Request::Comes(stream),
                    // The next one may fare better.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                },
            }
        }
    }

    /// Does it.
    pub(crate) async fn serve(&mut self, request: Request, cluster: &mut LocalCluster) {
        match request {
            Request::Comes(stream) => self.take(stream).await,
            Request::Asks(line) => {
                let done = line.parse().and_then(|deed| self.act(&deed, cluster));
                let answer = match done {
                    Ok(()) => "ok\n".to_owned(),
                    Err(reason) => format!("no {}\n", reason.replace('\n', " ")),
                };
                if let Some(holder) = &mut self.holder
                    && holder.answers.write_all(answer.as_bytes()).await.is_err()
                {
                    self.let_go(cluster);
                }
            }
            Request::LetsGo => self.let_go(cluster),
            Request::Turn => self.take_turns(cluster),
        }
    }

    async fn take(&mut self, stream: UnixStream) {
        let (read, mut answers) = stream.into_split();
        if self.holder.is_some() {
            // Who is turned away may have gone already.
            let _ = answers.write_all(b"no another drill has the hands\n").await;
            return;
        }
        let greeting = if self.relay.is_some() { WITH_LINKS } else { WITHOUT_LINKS };
        if answers.write_all(format!("{greeting}\n").as_bytes()).await.is_ok() {
            self.holder = Some(Holder { lines: BufReader::new(read).lines(), answers });
        }
    }

    fn take_turns(&mut self, cluster: &LocalCluster) {
        let now = Instant::now();
        for (name, turns) in self.damage.starved.iter_mut().filter(|(_, turns)| turns.until <= now) {
            // One that has ended stands still anyway.
            let _ = cluster.signal(name, turns.change(now));
        }
    }

    fn act(&mut self, deed: &Deed, cluster: &mut LocalCluster) -> Result<(), String> {
        let plain = |failure: Failure| failure.message;
        match deed {
            Deed::Kill(name) => {
                cluster.kill(name).map_err(plain)?;
                self.damage.killed.insert(name.clone());
                self.damage.paused.remove(name);
                self.damage.starved.remove(name);
            }
            Deed::Start(name) => {
                cluster.start_if_missing(name).map_err(plain)?;
                self.damage.killed.remove(name);
                // Whatever it started with is its data from now on.
                self.damage.lost.remove(name);
            }
            Deed::Pause(name) => {
                cluster.signal(name, Signal::STOP).map_err(plain)?;
                self.damage.paused.insert(name.clone());
            }
            Deed::Continue(name) => {
                cluster.signal(name, Signal::CONT).map_err(plain)?;
                self.damage.paused.remove(name);
                self.damage.starved.remove(name);
            }
            Deed::Starve { node, still, runs } => {
                let mut turns = Turns { still: *still, runs: *runs, stands: false, until: Instant::now() };
                cluster.signal(node, turns.change(Instant::now())).map_err(plain)?;
                self.damage.starved.insert(node.clone(), turns);
            }
            Deed::Cut(link) => self.relay()?.cut(*link),
            Deed::Restore(link) => self.relay()?.restore(*link),
            Deed::Model(link, model) => self.relay()?.behave(*link, model.as_ref().clone()),
            Deed::Part(pair) => self.relay()?.part(pair)?,
            Deed::Join(pair) => self.relay()?.join(pair),
            Deed::Lose(name) => {
                cluster.lose_data(name).map_err(plain)?;
                self.damage.lost.insert(name.clone());
            }
            Deed::Regain(name) => {
                cluster.regain_data(name).map_err(plain)?;
                self.damage.lost.remove(name);
            }
        }
        Ok(())
    }

    fn relay(&self) -> Result<&Relay, String> {
        self.relay.as_ref().ok_or_else(|| "links can be cut if `trefoil dev` runs with --relay".to_owned())
    }

    /// Heals what is left of a drill.
    fn let_go(&mut self, cluster: &mut LocalCluster) {
        self.holder = None;
        let Damage { killed, paused, starved, lost } = std::mem::take(&mut self.damage);
        for name in lost {
            if let Err(failure) = cluster.regain_data(&name) {
                output::note(&format!("the data of {name} is not what it was: {failure}"));
            }
        }
        for name in paused.into_iter().chain(starved.into_keys()) {
            // Who has ended needs nothing.
            let _ = cluster.signal(&name, Signal::CONT);
        }
        for name in killed {
            if let Err(failure) = cluster.start_if_missing(&name) {
                output::note(&format!("{name} is not started: {failure}"));
            }
        }
        if let Some(relay) = &self.relay {
            LinkId::ALL.into_iter().for_each(|link| relay.restore(link));
            relay.join_all();
        }
    }
}

/// Waits for a moment, for ever if there is none.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The holder's next line; `None` when it has let go. Waits for ever if nobody has the hands.
async fn next_line(holder: &mut Option<Holder>) -> Option<String> {
    match holder {
        Some(holder) => holder.lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Opens a socket in a cluster's folder.
pub(crate) async fn reach(folder: &Path) -> Verdict<UnixStream> {
    let path = Layout::new(folder.to_owned()).hands();
    let missing = |error| {
        let folder = folder.display();
        Failure::unavailable(format!("{}: {error}; start `trefoil dev --data {folder}`", path.display()))
    };
    UnixStream::connect(short(&path)?.path).await.map_err(missing)
}

/// A path that is short enough for the address of a socket, while the folder stays open.
struct Short {
    path: PathBuf,
    _folder: File,
}

fn short(path: &Path) -> Verdict<Short> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let open = File::open(folder).map_err(at(folder))?;
    let name = path.file_name().expect("a socket has a name");
    Ok(Short { path: Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())).join(name), _folder: open })
}

#[cfg(test)]
mod tests {
    use super::Deed;

    #[test]
    fn a_deed_is_a_line() {
        let model =
            format!("model 2 {}", serde_json::to_string(&trefoil_drill::LinkModel::inside()).unwrap());
        for line in [
            "kill a1",
            "start p-a1",
            "pause w1",
            "continue w1",
            "starve a1 200 20",
            "cut 1",
            "restore 2",
            &model,
            "part a1 b2",
            "join a1 b2",
            "lose w1",
            "regain w1",
        ] {
            assert_eq!(line.parse::<Deed>().map(|deed| deed.to_string()), Ok(line.to_owned()));
        }
        for line in
            ["starve a1", "starve a1 0 20", "starve a1 2", "model 1", "model 1 {\"speed\":1}", "part a1"]
        {
            assert!(line.parse::<Deed>().is_err(), "{line}");
        }
        for (line, reason) in [("cut 3", "no link 3"), ("burn a1", "hands know"), ("", "hands know")] {
            assert!(line.parse::<Deed>().unwrap_err().contains(reason), "{line}");
        }
    }
}
