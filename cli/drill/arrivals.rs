//! A load that does not wait: so many operations begin in a second, whatever becomes of those before. Each is done by a
//! client that has nothing else to do; if all are waiting for answers, there is one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trefoil_drill::Arrivals;

use super::book::Book;
use super::load::Worker;

/// How often is looked what is due.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When operations begin, and until when.
pub(super) struct Schedule {
    pub(super) rates: Vec<Arrivals>,
    pub(super) began: Instant,
    pub(super) horizon: Duration,
}

impl Schedule {
    /// How many operations have begun by now.
    fn due(&self, now: Duration) -> u64 {
        let now = now.min(self.horizon).as_nanos();
        let ends = self.rates.iter().skip(1).map(|rate| u128::from(rate.from.0)).chain([u128::MAX]);
        let spans = self.rates.iter().zip(ends).map(|(rate, end)| {
            let lasted = now.min(end).saturating_sub(u128::from(rate.from.0));
            u128::from(rate.per_second) * lasted / 1_000_000_000
        });
        u64::try_from(spans.sum::<u128>()).unwrap_or(u64::MAX)
    }

    /// Lets them begin; gives the books when the last one has ended. A worker is made with its number.
    pub(super) async fn run(
        self,
        stop: Arc<AtomicBool>,
        make: impl Fn(u32) -> (usize, Worker),
    ) -> Vec<(usize, Book)> {
        let (mut idle, mut busy) = (Vec::new(), JoinSet::new());
        let (mut begun, mut made) = (0, 0);
        while self.began.elapsed() < self.horizon && !stop.load(Ordering::SeqCst) {
            while let Some(done) = busy.try_join_next() {
                idle.push(done.expect("a client of the load does not panic"));
            }
            while begun < self.due(self.began.elapsed()) {
                let (tenant, mut worker) = idle.pop().unwrap_or_else(|| {
                    made += 1;
                    make(made - 1)
                });
                busy.spawn(async move {
                    worker.operate().await;
                    (tenant, worker)
                });
                begun += 1;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        while let Some(done) = busy.join_next().await {
            idle.push(done.expect("a client of the load does not panic"));
        }
        idle.into_iter().map(|(tenant, worker)| (tenant, worker.into_book())).collect()
    }
}

#[cfg(test)]
mod tests {
    use trefoil_drill::SECOND;

    use super::*;

    #[test]
    fn operations_begin_at_the_rate_of_their_time() {
        let rate = |from, per_second| Arrivals { from: trefoil_drill::Duration(from * SECOND), per_second };
        let rates = vec![rate(0, 10), rate(2, 100), rate(3, 20)];
        let schedule = Schedule { rates, began: Instant::now(), horizon: Duration::from_secs(5) };
        let due = |millis| schedule.due(Duration::from_millis(millis));
        assert_eq!([due(0), due(150), due(2_000), due(2_500), due(4_000)], [0, 1, 20, 70, 140]);
        assert_eq!((due(5_000), due(9_000)), (160, 160), "none begins behind the horizon");
    }
}
