//! How much of a node's disk goes to what nobody waits for: repair, backfill, scrub, volumes that move. While
//! clients have work, a fifth of all that is done, or the floor if that is more: a fifth of what a slow disk can
//! do. What is overdue gets as much as clients do. While they have no work, it gets all.
//!
//! Work is counted in operations and bytes. It says yes or no, and whoever is put off comes back by itself.

use std::time::Duration;

use trefoil_protocol::time::BootTime;

/// An operation weighs as much as so many bytes.
pub(crate) const OPERATION: u64 = 64 << 10;
/// Clients' work earns one part in four of its weight: then it is four fifths of all.
const EARNED: (i64, i64) = (1, 4);
/// And what is overdue, all of its weight.
const EARNED_OVERDUE: (i64, i64) = (1, 1);
/// What may be saved up: more would be a burst.
const SAVED_MAX: i64 = 4 << 20;
/// Clients have work until they had none for this long.
const LULL: Duration = Duration::from_millis(100);
/// Clients or not, there is no lull while flushes wait this long for their turn: what an epoch needs waits, too.
const BACKLOG: Duration = Duration::from_millis(500);
/// Who was put off comes back after this long.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Something for the disk to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Operations.
    pub(crate) operations: u64,
    /// Bytes read or written.
    pub(crate) bytes: u64,
}

impl Work {
    /// One operation on so many bytes.
    pub(crate) fn one(bytes: u64) -> Self {
        Self { operations: 1, bytes }
    }

    /// In bytes.
    pub(crate) fn weight(self) -> u64 {
        self.operations * OPERATION + self.bytes
    }

    fn debt(self) -> i64 {
        i64::try_from(self.weight()).unwrap_or(i64::MAX)
    }

    /// And this too.
    pub(crate) fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
    }
}

/// What right some work has that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It waits for clients.
    Patient,
    /// It has waited for so long that it gets its share by force.
    Overdue,
}

/// Who gets the disk.
#[derive(Debug, Default)]
pub(crate) struct Yielding {
    /// What patient work may still do, by its weight; owed if negative.
    patient: i64,
    /// What overdue work may still do.
    overdue: i64,
    /// Weight that both earn in a second, whatever clients do.
    floor: u64,
    /// Up to when they have earned it.
    earned_until: BootTime,
    clients_at: Option<BootTime>,
    /// When a flush ended that had waited long for its turn.
    backlog_at: Option<BootTime>,
    /// In this run: of clients, and of all that nobody waits for, and how much of that by force.
    clients: Work,
    yielded: Work,
    forced: Work,
    /// How often something was put off.
    put_off: u64,
}

impl Yielding {
    /// With a floor, in bytes a second.
    pub(crate) fn with_floor(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    /// What time alone earns: few small requests a second must not keep a disk that could do much from it.
    fn earn_by_time(&mut self, now: BootTime) {
        let passed = now.since(self.earned_until).as_micros().min(1_000_000) as u64;
        let earned = (self.floor * passed / 1_000_000) as i64;
        if earned > 0 {
            self.patient = (self.patient + earned).min(SAVED_MAX);
            self.overdue = (self.overdue + earned).min(SAVED_MAX);
            self.earned_until = now;
        }
    }

    /// Something was done that a client waits for.
    pub(crate) fn clients_did(&mut self, work: Work, now: BootTime) {
        let earned = |(part, whole): (i64, i64)| work.debt() / whole * part;
        self.patient = (self.patient + earned(EARNED)).min(SAVED_MAX);
        self.overdue = (self.overdue + earned(EARNED_OVERDUE)).min(SAVED_MAX);
        self.clients.add(work);
        self.clients_at = Some(now);
    }

    /// A flush that ended had waited so long for its turn.
    pub(crate) fn flushes_wait(&mut self, waited: Duration, now: BootTime) {
        self.backlog_at = (waited >= BACKLOG).then_some(now);
    }

    /// Whether nobody else needs the disk.
    fn is_lull(&self, now: BootTime) -> bool {
        let long_ago = |at: Option<BootTime>, lull| at.is_none_or(|at| now.since(at) >= lull);
        long_ago(self.clients_at, LULL) && long_ago(self.backlog_at, BACKLOG)
    }

    /// Lets work be done that nobody waits for, or puts it off.
    pub(crate) fn take(&mut self, work: Work, claim: Claim, now: BootTime) -> bool {
        self.earn_by_time(now);
        let saved = match claim {
            Claim::Patient => self.patient,
            Claim::Overdue => self.patient.max(self.overdue),
        };
        let is_lull = self.is_lull(now);
        if !is_lull && saved <= 0 {
            self.put_off += 1;
            return false;
        }
        if !is_lull {
            if claim == Claim::Overdue && self.patient <= 0 {
                self.forced.add(work);
            }
            // What one of them did, the other does not do as well.
            self.patient -= work.debt();
            self.overdue -= work.debt();
        }
        self.yielded.add(work);
        true
    }

    /// What clients did and what yielded to them, in this run.
    #[cfg(test)]
    pub(crate) fn done(&self) -> (Work, Work) {
        (self.clients, self.yielded)
    }

    /// Bytes that were done for nobody who waits, how many of them by force, and how often it was put off.
    pub(crate) fn report(&self) -> (u64, u64, u64) {
        (self.yielded.bytes, self.forced.bytes, self.put_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    /// A minute of clients at work, with repair that wants all it can get.
    fn minute(claim: Claim) -> Yielding {
        let mut yielding = Yielding::default();
        for millis in 0..60_000 {
            if millis % 10 == 0 {
                yielding.clients_did(Work::one(100_000), at(millis));
            }
            yielding.take(Work::one(1 << 20), claim, at(millis));
        }
        yielding
    }

    #[test]
    fn r050_repair_has_a_fifth_of_operations_and_bytes_while_clients_work() {
        let yielding = minute(Claim::Patient);
        let (clients, yielded) = yielding.done();
        let all = clients.weight() + yielded.weight();
        let part = yielded.weight() * 1000 / all;
        assert!((180..=206).contains(&part), "{part} in a thousand");
        assert!(yielding.put_off > 50_000 && yielding.forced == Work::default());
    }

    #[test]
    fn r050_what_is_overdue_gets_its_share_by_force() {
        let yielding = minute(Claim::Overdue);
        let (clients, yielded) = yielding.done();
        let part = yielded.weight() * 1000 / (clients.weight() + yielded.weight());
        assert!((450..=506).contains(&part), "{part} in a thousand");
        assert!(yielding.forced.bytes > 0);
    }

    #[test]
    fn r050_few_requests_leave_repair_its_floor() {
        let mut yielding = Yielding::with_floor(8 << 20);
        let mut done = 0;
        for millis in 0..10_000 {
            if millis % 50 == 0 {
                yielding.clients_did(Work::one(100), at(millis));
            }
            done += u64::from(yielding.take(Work::one(1 << 20), Claim::Patient, at(millis)));
        }
        // Each of them weighs a sixteenth more than its bytes.
        assert!((70..=85).contains(&done), "{done} MiB in ten seconds");
    }

    #[test]
    fn r050_nobody_is_put_off_while_clients_have_no_work() {
        let mut yielding = Yielding::default();
        assert!(yielding.take(Work::one(1 << 30), Claim::Patient, at(0)), "none was ever there");
        yielding.clients_did(Work::one(4096), at(1));
        assert!(yielding.take(Work::one(1 << 30), Claim::Patient, at(2)), "what was saved is used");
        assert!(!yielding.take(Work::one(1), Claim::Patient, at(3)));
        assert!(yielding.take(Work::one(1), Claim::Patient, at(101)));
    }

    #[test]
    fn r050_repair_makes_no_queue_that_epochs_wait_behind() {
        let mut yielding = Yielding::with_floor(1 << 20);
        assert!(yielding.take(Work::one(1 << 30), Claim::Patient, at(1_000)), "there is nobody else");
        yielding.flushes_wait(Duration::from_secs(3), at(2_000));
        let done = (2_000..2_500)
            .filter(|at_millis| yielding.take(Work::one(1 << 20), Claim::Patient, at(*at_millis)));
        let done = done.count();
        assert!((1..=3).contains(&done), "{done} MiB: its floor and no more, although no client has work");
        assert!(yielding.take(Work::one(1 << 30), Claim::Patient, at(2_500)));
        yielding.flushes_wait(Duration::from_secs(3), at(2_600));
        yielding.flushes_wait(Duration::from_millis(3), at(2_700));
        assert!(yielding.take(Work::one(1 << 30), Claim::Patient, at(2_700)), "the queue is gone");
    }
}
