//! How a verb fails: one line for the reader and an exit code for scripts. Every error of a library
//! becomes a [`Failure`] here or where the verb knows more; nothing else decides an exit code.

use std::fmt;

/// What kind of failure it is; the number is the program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// It did not work, or a check found a violation.
    Failed = 1,
    /// The command line or a file it names makes no sense.
    Usage = 2,
    /// There is no such thing, or it is gone for good.
    NotFound = 3,
    /// It was understood and will not be done.
    Refused = 4,
    /// It may work later.
    Unavailable = 5,
    /// The bytes are not what they must be.
    Integrity = 6,
}

/// Why a verb did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) kind: Kind,
    /// One line: what, where, and what to do.
    pub(crate) message: String,
}

/// What every verb returns.
pub(crate) type Verdict<T = ()> = Result<T, Failure>;

impl Failure {
    /// It did not work.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Failed, message: message.to_string() }
    }

    /// It makes no sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Usage, message: message.to_string() }
    }

    /// It is not there.
    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self { kind: Kind::NotFound, message: message.to_string() }
    }

    /// It will not be done.
    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Refused, message: message.to_string() }
    }

    /// It may work later.
    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Unavailable, message: message.to_string() }
    }

    /// Says where it happened.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Turns an error of the file system into a failure that names the path.
pub(crate) fn at<P: AsRef<std::path::Path>>(path: P) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| {
        let message = format!("{}: {error}", path.as_ref().display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::usage(message),
            _ => Failure::failed(message),
        }
    }
}
