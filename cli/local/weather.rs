//! What becomes of a datagram on a line that is not well: when it arrives, how often, or that it does not. A
//! pure function of the line's behaviour, a seed and what was carried before; the relay has the sockets and
//! the clock. Datagrams are not messages: one that is lost is gone, and whoever sent it sends it again.

use std::time::Duration;

use trefoil_drill::LinkModel;

/// One direction of a line.
pub(crate) struct Weather {
    draws: blake3::OutputReader,
    /// When a line of limited width has carried all that it was given.
    free_at: Duration,
}

impl Weather {
    /// The weather of a direction is the same for the same seed.
    pub(crate) fn new(seed: &str) -> Self {
        Self { draws: blake3::Hasher::new().update(seed.as_bytes()).finalize_xof(), free_at: Duration::ZERO }
    }

    /// When the copies of a datagram arrive that is sent now: none if it is lost, two if it comes twice.
    /// Those that are held up longer are overtaken.
    pub(crate) fn carry(&mut self, now: Duration, model: &LinkModel, bytes: usize) -> Vec<Duration> {
        let lost = u64::from(model.late_per_million) + u64::from(model.lost_per_million);
        if self.chance(lost) {
            return Vec::new();
        }
        let sent = self.sent_at(now, model, bytes);
        let copies = 1 + usize::from(self.chance(model.twice_per_million.into()));
        (0..copies).map(|_| sent + self.delay(model)).collect()
    }

    /// When the last byte is on the line.
    fn sent_at(&mut self, now: Duration, model: &LinkModel, bytes: usize) -> Duration {
        if model.bytes_per_second == 0 {
            return now;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / model.bytes_per_second as f64);
        self.free_at = self.free_at.max(now) + takes;
        self.free_at
    }

    fn delay(&mut self, model: &LinkModel) -> Duration {
        let spike = if self.chance(model.spike_per_million.into()) { model.spike_mean } else { 0 };
        Duration::from_nanos(model.delay_min) + self.exponential(model.delay_mean) + self.exponential(spike)
    }

    fn chance(&mut self, per_million: u64) -> bool {
        self.draw() % 1_000_000 < per_million
    }

    /// A length with this mean.
    fn exponential(&mut self, mean: u64) -> Duration {
        // From 2^-53 to 1, so that its logarithm is a number.
        let uniform = ((self.draw() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_nanos((-uniform.ln() * mean as f64) as u64)
    }

    fn draw(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.draws.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn fair() -> LinkModel {
        LinkModel {
            delay_min: 0,
            delay_mean: 0,
            spike_per_million: 0,
            spike_mean: 0,
            late_per_million: 0,
            lost_per_million: 0,
            twice_per_million: 0,
            bytes_per_second: 0,
        }
    }

    fn carried(model: &LinkModel, datagrams: u64) -> Vec<(u64, Duration)> {
        let mut weather = Weather::new("x1 towards b");
        let sent = |number| Duration::from_millis(number);
        let arrivals = (0..datagrams).flat_map(|number| {
            weather.carry(sent(number), model, 1_000).into_iter().map(move |at| (number, at))
        });
        arrivals.collect()
    }

    #[test]
    fn in_fair_weather_everything_arrives_at_once_and_in_order() {
        let at_once: Vec<_> = (0..50).map(|number| (number, Duration::from_millis(number))).collect();
        assert_eq!(carried(&fair(), 50), at_once);
    }

    #[test]
    fn loss_copies_delay_and_overtaking_are_as_often_as_is_said_and_the_same_for_a_seed() {
        let model = LinkModel {
            delay_min: 40 * MILLISECOND,
            spike_per_million: 10_000,
            spike_mean: 20 * MILLISECOND,
            late_per_million: 20_000,
            twice_per_million: 5_000,
            ..fair()
        };
        let all = carried(&model, 20_000);
        assert_eq!(all, carried(&model, 20_000));
        let arrived: std::collections::BTreeSet<u64> = all.iter().map(|(number, _)| *number).collect();
        assert!((19_500..=19_700).contains(&arrived.len()), "2 % are lost, {} arrived", arrived.len());
        assert!((60..=140).contains(&(all.len() - arrived.len())), "0.5 % come twice");
        let least = Duration::from_millis(40);
        assert!(all.iter().all(|(number, at)| *at >= Duration::from_millis(*number) + least));
        let overtaken = all.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
        assert!((120..=280).contains(&overtaken), "1 % are held up, {overtaken} were overtaken");
    }

    #[test]
    fn a_narrow_line_carries_one_after_the_other() {
        let narrow = LinkModel { bytes_per_second: 100_000, ..fair() };
        let (_, last) = *carried(&narrow, 100).last().unwrap();
        assert_eq!(last.as_millis(), 1_000, "a hundred thousand bytes");
    }
}
