//! The program under test from outside: how it is run, how a run ended, and folders that are gone
//! when they are no longer needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_trefoil");

/// A folder that is gone when the test is over. Kept, with what the servers logged, when it failed.
pub(crate) struct Folder {
    path: PathBuf,
    /// Who removes it, if it must outlive every test.
    janitor: Option<Mutex<ChildStdin>>,
}

impl Folder {
    /// A fresh one.
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        // What a killed run with this process number left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path, janitor: None }
    }

    /// One that goes with the process. No value of a static is ever dropped, so that somebody else
    /// waits for this process's end.
    pub(crate) fn of_the_process(name: &str) -> Self {
        let mut folder = Self::new(name);
        let script = "read -r end; [ \"$end\" = keep ] || { sleep 1; rm -rf \"$0\"; }";
        let janitor = Command::new("sh").args(["-c", script]).arg(&folder.path).stdin(Stdio::piped()).spawn();
        folder.janitor = Some(Mutex::new(janitor.unwrap().stdin.take().expect("piped")));
        folder
    }

    /// The folder is not removed at the end of the process.
    pub(crate) fn keep(&self) {
        use std::io::Write;
        let janitor = self.janitor.as_ref().expect("a folder of the process");
        // A second failure finds the janitor gone: it was told already.
        let _ = janitor.lock().unwrap().write_all(b"keep\n");
        eprintln!("kept for a look: {}", self.path.display());
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub(crate) fn join(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.path.join(inner)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// This run, which must have succeeded.
    #[track_caller]
    pub(crate) fn held(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// The one JSON value on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("{error}: {} {}", String::from_utf8_lossy(&self.stdout), self.stderr)
        })
    }

    /// Standard output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text")
    }

    /// The run failed with this exit code, in words that hold `said`, and without a panic.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, said: &str) {
        assert!(self.code == code && self.stderr.contains(said), "expected {code} and {said:?}: {self:?}");
        assert!(!self.stderr.is_empty() && !self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// The program with arguments, not yet run. A server that it becomes dies with this thread.
pub(crate) fn trefoil(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("TREFOIL_PROFILE").env_remove("TREFOIL_PASSPHRASE");
    command.env("TREFOIL_PARENT", std::process::id().to_string()).stdin(Stdio::null());
    command
}

/// Runs the program.
pub(crate) fn run(arguments: &[&str]) -> Run {
    Run::of(trefoil(arguments).output().unwrap())
}

/// Runs a server that must end by itself.
pub(crate) fn run_until_it_ends(arguments: &[&str], patience: Duration) -> Run {
    let command = trefoil(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = command.unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    let endless = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(!endless, "{arguments:?} still runs after {patience:?}: {}", run.stderr);
    run
}
