//! The hands that a drill has on a local cluster. `dev` lends them to one drill at a time, over a socket in the
//! cluster's folder that only its owner may open: it kills and starts its own processes, and cuts links at the
//! relay. Whoever lets go, however it ends, leaves everything healed.
//!
//! Whoever comes is greeted with a line that begins with `ok`, or with `no` and why. A request is a line, `kill a1`, `start a1`, `pause a1`, `continue a1`, `cut 1`, `restore 1`; its answer is the
//! line `ok`, or `no` and why.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
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
    /// A link carries nothing any more.
    Cut(LinkId),
    /// It carries again.
    Restore(LinkId),
}

impl Deed {
    /// The word for it, in requests and in command templates.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Start(_) => "start",
            Self::Pause(_) => "pause",
            Self::Continue(_) => "continue",
            Self::Cut(_) => "cut",
            Self::Restore(_) => "restore",
        }
    }

    /// To whom.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Kill(name) | Self::Start(name) | Self::Pause(name) | Self::Continue(name) => name.clone(),
            Self::Cut(link) | Self::Restore(link) => link.number().to_string(),
        }
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.word(), self.target())
    }
}

impl FromStr for Deed {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, target) = line.split_once(' ').unwrap_or((line, ""));
        let link = || LinkId::ALL.into_iter().find(|link| link.number().to_string() == target);
        let no_link = || format!("there is no link {target}");
        match word {
            "kill" => Ok(Self::Kill(target.to_owned())),
            "start" => Ok(Self::Start(target.to_owned())),
            "pause" => Ok(Self::Pause(target.to_owned())),
            "continue" => Ok(Self::Continue(target.to_owned())),
            "cut" => link().map(Self::Cut).ok_or_else(no_link),
            "restore" => link().map(Self::Restore).ok_or_else(no_link),
            _ => Err(format!("{word}: hands know kill, start, pause, continue, cut and restore")),
        }
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
}

/// What came over the socket.
pub(crate) enum Request {
    /// Somebody wants the hands.
    Comes(UnixStream),
    /// Whoever has them asks for something.
    Asks(String),
    /// They are free again.
    LetsGo,
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
        let Self { listener, holder, .. } = self;
        loop {
            tokio::select! {
                biased;
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

    fn act(&mut self, deed: &Deed, cluster: &mut LocalCluster) -> Result<(), String> {
        let plain = |failure: Failure| failure.message;
        match deed {
            Deed::Kill(name) => {
                cluster.processes.kill(&[name]).map_err(plain)?;
                self.damage.killed.insert(name.clone());
                self.damage.paused.remove(name);
            }
            Deed::Start(name) => {
                cluster.start_if_missing(name).map_err(plain)?;
                self.damage.killed.remove(name);
            }
            Deed::Pause(name) => {
                cluster.processes.signal(name, Signal::STOP).map_err(plain)?;
                self.damage.paused.insert(name.clone());
            }
            Deed::Continue(name) => {
                cluster.processes.signal(name, Signal::CONT).map_err(plain)?;
                self.damage.paused.remove(name);
            }
            Deed::Cut(link) => self.relay()?.cut(*link),
            Deed::Restore(link) => self.relay()?.restore(*link),
        }
        Ok(())
    }

    fn relay(&self) -> Result<&Relay, String> {
        self.relay.as_ref().ok_or_else(|| "links can be cut if `trefoil dev` runs with --relay".to_owned())
    }

    /// Heals what is left of a drill.
    fn let_go(&mut self, cluster: &mut LocalCluster) {
        self.holder = None;
        let Damage { killed, paused } = std::mem::take(&mut self.damage);
        for name in paused {
            // Who has ended needs nothing.
            let _ = cluster.processes.signal(&name, Signal::CONT);
        }
        for name in killed {
            if let Err(failure) = cluster.start_if_missing(&name) {
                output::note(&format!("{name} is not started: {failure}"));
            }
        }
        if let Some(relay) = &self.relay {
            LinkId::ALL.into_iter().for_each(|link| relay.restore(link));
        }
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
        for line in ["kill a1", "start p-a1", "pause w1", "continue w1", "cut 1", "restore 2"] {
            assert_eq!(line.parse::<Deed>().map(|deed| deed.to_string()), Ok(line.to_owned()));
        }
        for (line, reason) in [("cut 3", "no link 3"), ("burn a1", "hands know"), ("", "hands know")] {
            assert!(line.parse::<Deed>().unwrap_err().contains(reason), "{line}");
        }
    }
}
