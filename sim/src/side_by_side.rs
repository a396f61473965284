//! Runs that have nothing to do with each other, each on a thread of its own: as many at once as the machine has cores.
//! What came out is handed on in the order in which it was asked for, so that nothing told depends on who was faster.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Mutex, mpsc};
use std::thread;

/// Does `work` on each of the items and gives `each` what came out, in their order.
///
/// # Panics
/// If `work` does.
pub fn side_by_side<Items, Out: Send>(
    items: Items,
    work: impl Fn(Items::Item) -> Out + Sync,
    mut each: impl FnMut(Out),
) where
    Items: IntoIterator<IntoIter: Send, Item: Send>,
{
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let queue = Mutex::new(items.into_iter().enumerate());
    let (done, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..cores {
            let (done, queue, work) = (done.clone(), &queue, &work);
            scope.spawn(move || {
                let next = || queue.lock().expect("taking the next one does not panic").next();
                while let Some((number, item)) = next() {
                    if done.send((number, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut early, mut next) = (BTreeMap::new(), 0);
        for (number, outcome) in outcomes {
            early.insert(number, outcome);
            while let Some(outcome) = early.remove(&next) {
                each(outcome);
                next += 1;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::side_by_side;

    #[test]
    fn what_comes_out_comes_in_order_whoever_was_first() {
        let mut outcomes = Vec::new();
        side_by_side(
            0..200_u64,
            |item| (0..(200 - item) * 50).fold(item, |sum, _| sum ^ 1),
            |out| outcomes.push(out),
        );
        assert_eq!(outcomes, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn every_core_has_work() {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let all_here = Barrier::new(cores);
        let mut met = 0;
        side_by_side(0..cores, |_| all_here.wait(), |_| met += 1);
        assert_eq!(met, cores);
    }
}
