//! Places in the picture: along its time, up its panels, and labels that do not lie on each other.

/// Left of this stand the names of panels and lanes.
pub(crate) const LEFT: u64 = 120;

/// So wide is the time.
pub(crate) const WIDTH: u64 = 1_040;

/// Right of the time.
pub(crate) const RIGHT: u64 = 40;

/// So wide is a letter of a label at most, in tenths.
const LETTER_TENTHS: u64 = 62;

/// Steps between marks of the time, in seconds.
const STEPS: [u64; 11] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800];

/// Places along the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    ends_ms: u64,
}

impl Scale {
    /// So long is the time.
    pub(crate) fn new(ends_ms: u64) -> Self {
        Self { ends_ms: ends_ms.max(1) }
    }

    /// Where a moment stands.
    pub(crate) fn x(self, at_ms: u64) -> u64 {
        LEFT + at_ms.min(self.ends_ms) * WIDTH / self.ends_ms
    }

    /// The seconds that are written below: at most a dozen, round ones.
    pub(crate) fn ticks(self) -> impl Iterator<Item = u64> {
        let seconds = self.ends_ms / 1_000;
        let step = STEPS.into_iter().find(|step| seconds / step <= 12).unwrap_or(seconds.div_ceil(12).max(1));
        (0..=seconds).step_by(usize::try_from(step).unwrap_or(1))
    }
}

/// How high a value stands in a panel of a height.
pub(crate) fn share(value: u64, most: u64, height: u64) -> u64 {
    value.min(most) * height / most.max(1)
}

/// A round number that is not below.
pub(crate) fn round_up(value: u64) -> u64 {
    let power = 10_u64.pow(value.max(1).ilog10());
    let round = [1, 2, 5, 10].into_iter().map(|first| first * power);
    round.into_iter().find(|round| *round >= value).unwrap_or(value)
}

/// A label with its place: which row above the panels, and from where to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// What it says.
    pub(crate) text: String,
    /// The moment it belongs to.
    pub(crate) x: u64,
    /// Its row, counted from above.
    pub(crate) row: u64,
    /// Where its text begins.
    pub(crate) from: u64,
    /// Where it has ended.
    pub(crate) until: u64,
}

/// Puts labels into as few rows as keep them apart. One that would leave the picture moves to the left.
pub(crate) fn labels(texts: impl IntoIterator<Item = (u64, String)>) -> Vec<Label> {
    let mut rows: Vec<u64> = Vec::new();
    let mut placed = Vec::new();
    for (x, text) in texts {
        let width = text.chars().count() as u64 * LETTER_TENTHS / 10 + 8;
        let from = (x + 3).min((LEFT + WIDTH + RIGHT).saturating_sub(width));
        let row = rows.iter().position(|end| *end <= from).unwrap_or(rows.len());
        if row == rows.len() {
            rows.push(0);
        }
        rows[row] = from + width;
        placed.push(Label { text, x, row: row as u64, from, until: from + width });
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::{LEFT, RIGHT, Scale, WIDTH, labels, round_up, share};

    #[test]
    fn no_label_lies_on_another_or_leaves_the_picture() {
        let texts = (0..40).map(|n| (LEFT + n * n * 7 % WIDTH, "restart of a1 a2 a3".to_owned()));
        let mut texts: Vec<_> = texts.collect();
        texts.sort();
        let placed = labels(texts);
        for (place, one) in placed.iter().enumerate() {
            assert!(one.until <= LEFT + WIDTH + RIGHT, "{one:?}");
            for other in &placed[place + 1..] {
                let apart = one.until <= other.from || other.until <= one.from;
                assert!(one.row != other.row || apart, "{one:?} {other:?}");
            }
        }
        assert_eq!(labels([(200, "one".to_owned()), (900, "two".to_owned())])[1].row, 0, "there is room");
    }

    #[test]
    fn times_and_heights_stay_inside() {
        let scale = Scale::new(40_000);
        assert_eq!((scale.x(0), scale.x(40_000), scale.x(99_000)), (LEFT, LEFT + WIDTH, LEFT + WIDTH));
        assert!(scale.ticks().count() <= 13);
        assert_eq!(Scale::new(7_200_000).ticks().count(), 13);
        assert_eq!((share(5, 10, 100), share(50, 10, 100), share(0, 0, 100)), (50, 100, 0));
        assert_eq!([0, 1, 7, 11, 34, 70, 101].map(round_up), [1, 1, 10, 20, 50, 100, 200]);
    }
}
