//! Chance that a seed repeats.

/// A small generator (Knuth's MMIX constants).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Those of one of many who share a seed.
    pub fn of(seed: u64, number: u64) -> Self {
        let mut dice = Self(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // Seeds that differ little give first numbers that differ little.
        for _ in 0..4 {
            dice.roll(2);
        }
        dice
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_neighbours_differ() {
        let rolls = |mut dice: Dice| [(); 8].map(|()| dice.roll(1000));
        assert_eq!(rolls(Dice::new(7)), rolls(Dice::new(7)));
        let mut first: Vec<_> = (0..100)
            .map(|number| rolls(Dice::of(7, number))[0])
            .collect();
        first.sort_unstable();
        assert!(first[10] < 300 && first[90] > 700, "{first:?}");
    }
}
