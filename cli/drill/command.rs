//! Hands on a cluster: those that `trefoil dev` lends, or commands that an operator gives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::{Failure, Verdict};
use crate::local::hands::{self, Deed};

/// How long one deed may take.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// Who does what is done to a cluster.
pub(crate) enum Hands {
    /// `trefoil dev`; when this is dropped it heals.
    Lent { lines: Lines<BufReader<OwnedReadHalf>>, requests: OwnedWriteHalf, with_links: bool },
    /// A command for each word, in which `{node}` or `{link}` stands for the target, and `{measure}` for what
    /// it takes besides.
    Commands(BTreeMap<String, String>),
}

impl Hands {
    /// Takes the hands of the cluster in a folder.
    pub(crate) async fn lent(folder: &Path) -> Verdict<Self> {
        let (read, requests) = hands::reach(folder).await?.into_split();
        let mut lines = BufReader::new(read).lines();
        let with_links = answer(&mut lines).await? == hands::WITH_LINKS;
        Ok(Self::Lent { lines, requests, with_links })
    }

    /// Whether every kind of deed can be done.
    pub(crate) fn can(&self, words: &BTreeSet<&'static str>) -> Verdict {
        let commands = match self {
            Self::Lent { with_links: false, .. }
                if ["cut", "model", "part"].iter().any(|word| words.contains(word)) =>
            {
                return Err(Failure::refused(
                    "the drill reaches for the links: run `trefoil dev` with --relay",
                ));
            }
            Self::Lent { .. } => return Ok(()),
            Self::Commands(commands) => commands,
        };
        let missing: Vec<&str> = words.iter().copied().filter(|word| !commands.contains_key(*word)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Failure::refused(format!("the cluster's file gives no command under [hands] for: {missing}")))
    }

    /// Does something; the target is in the cluster's own names.
    pub(crate) async fn act(&mut self, deed: &Deed) -> Verdict {
        let done = timeout(DONE_WITHIN, self.act_patiently(deed)).await;
        done.unwrap_or_else(|_| Err(Failure::failed("no answer within a minute"))).map_err(|f| f.within(deed))
    }

    async fn act_patiently(&mut self, deed: &Deed) -> Verdict {
        match self {
            Self::Lent { lines, requests, .. } => {
                let request = format!("{deed}\n");
                requests.write_all(request.as_bytes()).await.map_err(Failure::failed)?;
                answer(lines).await.map(drop)
            }
            Self::Commands(commands) => {
                let template = commands.get(deed.word());
                let template = template.ok_or_else(|| Failure::failed("there is no command for it"))?;
                run(&filled(template, deed)).await
            }
        }
    }
}

async fn answer(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> Verdict<String> {
    match lines.next_line().await.map_err(Failure::failed)? {
        Some(line) if line.starts_with("ok") => Ok(line),
        Some(no) => Err(Failure::refused(no.strip_prefix("no ").unwrap_or(&no))),
        None => Err(Failure::unavailable("`trefoil dev` has ended")),
    }
}

fn filled(template: &str, deed: &Deed) -> String {
    let measure = deed.measure().unwrap_or_default();
    template
        .replace("{node}", &deed.target())
        .replace("{link}", &deed.target())
        .replace("{measure}", &measure)
}

async fn run(command: &str) -> Verdict {
    let output = Command::new("sh").arg("-c").arg(command).kill_on_drop(true).output().await;
    let output = output.map_err(Failure::failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it said nothing");
    Err(Failure::failed(format!("`{command}` ended with {}: {last}", output.status)))
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::ids::LinkId;

    use super::*;

    #[tokio::test]
    async fn commands_are_filled_in_and_must_succeed() {
        let commands = [("kill", "test {node} = a1"), ("cut", "test {link} = 2")];
        let commands = commands.into_iter().map(|(word, command)| (word.to_owned(), command.to_owned()));
        let mut hands = Hands::Commands(commands.collect());
        assert_eq!(hands.act(&Deed::Kill("a1".to_owned())).await, Ok(()));
        assert_eq!(hands.act(&Deed::Cut(LinkId::Two)).await, Ok(()));
        let failure = hands.act(&Deed::Kill("b1".to_owned())).await.unwrap_err();
        assert!(failure.message.starts_with("kill b1: `test b1 = a1` ended with"), "{failure}");
        assert!(hands.can(&BTreeSet::from(["kill"])).is_ok());
        let failure = hands.can(&BTreeSet::from(["kill", "start"])).unwrap_err();
        assert!(failure.message.ends_with("for: start"), "{failure}");
    }
}
