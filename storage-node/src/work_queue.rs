//! In which order the disk threads take their work: what an epoch waits for, and probes, stand in front of all
//! others, and no client's work holds them up. The simulator's disks take theirs from here, too.
//!
//! A promise cannot be flushed while an earlier flush of its volume waits: that one moves to the front for it.

use std::collections::VecDeque;

/// Where a piece of work stands among those that wait for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In front of all others: an epoch waits for it, and no client's work may hold that up.
    First,
    /// Behind those that are there.
    Behind,
}

/// Jobs `J` that wait for a thread, those of one `V` (a volume) in their order.
#[derive(Debug)]
pub struct WorkQueue<V, J> {
    first: VecDeque<(Option<V>, J)>,
    behind: VecDeque<(Option<V>, J)>,
    /// How many of those in front go before one of the others; all that are there, if it is not said.
    left: Option<usize>,
}

impl<V, J> Default for WorkQueue<V, J> {
    fn default() -> Self {
        Self { first: VecDeque::new(), behind: VecDeque::new(), left: None }
    }
}

impl<V: PartialEq, J> WorkQueue<V, J> {
    /// Adds a job; one of no volume stays where it is put.
    pub fn add(&mut self, volume: Option<V>, place: Place, job: J) {
        match place {
            Place::First => self.first.push_back((volume, job)),
            Place::Behind => self.behind.push_back((volume, job)),
        }
    }

    /// An epoch waits for what is queued of a volume: it moves to the front.
    pub fn hurry(&mut self, volume: &V) {
        while let Some(at) = self.behind.iter().position(|(of, _)| of.as_ref() == Some(volume)) {
            self.first.extend(self.behind.remove(at));
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.behind.is_empty()
    }

    /// The next job.
    pub fn take(&mut self) -> Option<J> {
        self.take_together(|_, _| 1).pop()
    }

    /// The next job, or as many as `together` says that are done at once, from the next one and how many wait where
    /// it stands. All that are in front go, and then one of the others (or those done with it), so that nobody waits
    /// for ever.
    pub fn take_together(&mut self, together: impl FnOnce(&J, usize) -> usize) -> Vec<J> {
        let left = self.left.unwrap_or(self.first.len());
        let is_front = !self.first.is_empty() && (left > 0 || self.behind.is_empty());
        let others_wait = !self.behind.is_empty();
        let queue = if is_front { &mut self.first } else { &mut self.behind };
        let waiting = queue.len();
        let count = queue.front().map_or(0, |(_, job)| together(job, waiting).min(waiting));
        self.left = (is_front && others_wait).then(|| left.saturating_sub(count));
        queue.drain(..count).map(|(_, job)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(first: &[u32], behind: &[u32]) -> WorkQueue<u32, u32> {
        let mut queue = WorkQueue::default();
        behind.iter().for_each(|job| queue.add(Some(*job), Place::Behind, *job));
        first.iter().for_each(|job| queue.add(Some(*job), Place::First, *job));
        queue
    }

    fn all(mut queue: WorkQueue<u32, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.take()).collect()
    }

    #[test]
    fn those_in_front_go_first_each_in_its_order() {
        assert_eq!(all(queue(&[1, 2], &[11, 12])), [1, 2, 11, 12]);
        assert_eq!(all(WorkQueue::default()), [0; 0]);
    }

    #[test]
    fn what_a_promise_waits_for_moves_to_the_front_and_nothing_else() {
        let mut queue = queue(&[1], &[11, 12, 13]);
        queue.hurry(&12);
        queue.hurry(&12);
        queue.hurry(&99);
        assert_eq!(all(queue), [1, 12, 11, 13]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut queue = queue(&[1, 2], &[11, 12]);
        let mut taken = Vec::new();
        for job in 3..9 {
            taken.extend(queue.take());
            queue.add(None, Place::First, job);
        }
        // Those that come meanwhile wait for one of the others.
        assert_eq!(taken, [1, 2, 11, 3, 4, 5]);
        assert_eq!(all(queue), [12, 6, 7, 8]);
    }

    #[test]
    fn as_many_go_together_as_the_disk_wants() {
        let mut queue = queue(&[1, 2, 3], &[11, 12]);
        assert_eq!(queue.take_together(|job, waiting| *job as usize + waiting - 2), [1, 2]);
        assert_eq!(queue.take_together(|_, waiting| waiting + 5), [3]);
        assert_eq!(queue.take_together(|_, waiting| waiting), [11, 12]);
        assert!(queue.is_empty() && queue.take_together(|_, _| 1).is_empty());
    }
}
