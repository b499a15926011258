//! Small changes to inputs, of kinds that parsers stumble over. Deterministic: the same seed gives the
//! same inputs on every machine, so that what is found can be found again.

/// xorshift64*: good enough to choose mutations.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let wide = u128::from(self.next()) * limit as u128;
        usize::try_from(wide >> 64).unwrap_or_default()
    }
}

/// Inputs longer than this are not made: limits on size lie below.
const LONGEST: usize = 128 * 1024;
/// Values at which lengths and numbers go wrong.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'%', b'"'];

/// One input: a seed after one to eight changes, now and then crossed with another seed.
pub(crate) fn mutated(seeds: &[Vec<u8>], words: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = pick(seeds, chance).cloned().unwrap_or_default();
    for _ in 0..=chance.below(8) {
        change(&mut bytes, seeds, words, chance);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    let some = 1 + chance.below(16);
    let span = at..bytes.len().min(at + some);
    match chance.below(12) {
        0 => flip(bytes, at, 1 << chance.below(8)),
        1 => set(bytes, at, EDGES[chance.below(EDGES.len())]),
        2 => set(
            bytes,
            at,
            u8::try_from(chance.below(256)).unwrap_or_default(),
        ),
        3 => bytes.insert(at, u8::try_from(chance.below(256)).unwrap_or_default()),
        4 => drop(bytes.drain(span)),
        5 => {
            let copy = bytes[span].to_vec();
            insert(bytes, at, &copy);
        }
        6 => {
            // Much of the same: nesting, long names, many headers.
            let copy = bytes[span].to_vec();
            let times = 1 << chance.below(12);
            insert(bytes, at, &copy.repeat(times));
        }
        7 => bytes.truncate(at),
        8 => {
            if let Some(word) = pick(words, chance).cloned() {
                insert(bytes, at, &word);
            }
        }
        9 => {
            if let Some(word) = pick(words, chance).cloned() {
                let end = bytes.len().min(at + word.len());
                bytes.splice(at..end, word);
            }
        }
        10 => {
            if let Some(other) = pick(seeds, chance) {
                let from = chance.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        _ => {
            // A big-endian number is one off, or at its end.
            let step = [1, 0xff, 0x80][chance.below(3)];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(step);
            }
        }
    }
}

fn pick<'a>(from: &'a [Vec<u8>], chance: &mut Chance) -> Option<&'a Vec<u8>> {
    if from.is_empty() {
        return None;
    }
    from.get(chance.below(from.len()))
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_few_twice() {
        let seeds = vec![b"GET / HTTP/1.1".to_vec(), Vec::new()];
        let words = vec![b"%2f".to_vec()];
        let inputs = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000)
                .map(|_| mutated(&seeds, &words, &mut chance))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        let distinct: std::collections::BTreeSet<_> = inputs(1).into_iter().collect();
        assert!(distinct.len() > 500, "{}", distinct.len());
        assert_ne!(inputs(1), inputs(2));
    }
}
