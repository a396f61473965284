//! Faults in the simulator: which ones a seed draws. What a fault is and how it is written is the drills'
//! word, the same for the simulator and for a cluster.

mod generate;

pub use generate::{Budget, Generator};
pub use trefoil_drill::{
    Action, Crash, CrashKind, DiskChange, Duration, Fault, FaultPlan, Garble, ModelChange, OneWay, Pause,
    PlanError, RateChange, Rot, Slow, Starve, Trigger, WallJump,
};
