//! A drill breaks a cluster on purpose and measures what its clients see. Here are the words of drills and
//! nothing else: the file that says what happens, the report that says what came of it, and the page that
//! shows a report. The simulator runs a file in invented time, the program on a living cluster; both read
//! the same file here and write the same report, so that what one promises the other can check.
//!
//! Nothing here has a clock, a socket or a file: times are handed in, text is handed out.

mod clock_time;
mod condition;
mod course;
mod document;
mod duration;
mod expect;
mod fault;
mod file;
mod operator;
mod page;
mod picture;
mod report;
mod rescue;
mod scale;
mod span;
pub mod timeline;

pub use clock_time::{Blackout, WallTime};
pub use condition::{Direction, FaultKind, LinkModel, Persistence, SuspendedClock};
pub use course::{Course, End, Kind, Mark, Sample, Second};
pub use document::{Document, DocumentError, Signature};
pub use duration::{Duration, MICROSECOND, MILLISECOND, SECOND, Seconds};
pub use expect::{Expect, Facts, Rpo, Share, Since, Swift, Tail, Verdict};
pub use fault::{
    Action, Crash, CrashKind, DiskChange, Fault, FaultPlan, Garble, ModelChange, OneWay, Pause, PlanError,
    RateChange, Rot, Slow, Starve, Trigger, WallJump,
};
pub use file::{Abort, Arrivals, DrillFile, FileError, Load, Topology};
pub use operator::{Errand, Operator};
pub use page::{STYLE, escaped, page, section};
pub use report::{Counts, Outcome, Place, Report, Told, Verification};
pub use rescue::{Deed, Rescue};
pub use span::{Served, Span};
