//! How far images are extended before a convolution, and with what.

use crate::Pair;
use chainrule_core::{Error, Result};

/// How many pixels are added around an image: `1`, `[1, 2]` (height, width), `[[0, 1], [2, 3]]` (top and bottom, left and
/// right), or as many as give an output of a certain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many before and after, along the height and along the width.
    Sides([[usize; 2]; 2]),
    /// So many that the output is as large as the input, the odd one at the end; for stride 1.
    Same,
    /// None: windows lie within the image.
    Valid,
}

/// What the added pixels hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The image mirrored at its outermost pixels, which are not repeated: c b | a b c | b a.
    Reflect,
    /// The outermost pixel repeated: a a | a b c | c c.
    Replicate,
    /// The image repeated: b c | a b c | a b.
    Circular,
}

impl From<usize> for Padding {
    fn from(all: usize) -> Self {
        Self::Sides([[all; 2]; 2])
    }
}

impl From<[usize; 2]> for Padding {
    fn from([h, w]: [usize; 2]) -> Self {
        Self::Sides([[h; 2], [w; 2]])
    }
}

impl From<(usize, usize)> for Padding {
    fn from((h, w): (usize, usize)) -> Self {
        Self::Sides([[h; 2], [w; 2]])
    }
}

impl From<Pair> for Padding {
    fn from(pair: Pair) -> Self {
        Self::Sides([[pair.h; 2], [pair.w; 2]])
    }
}

impl From<[[usize; 2]; 2]> for Padding {
    fn from(sides: [[usize; 2]; 2]) -> Self {
        Self::Sides(sides)
    }
}

impl Padding {
    /// Pixels before and after, for a window that spans `reach` pixels.
    pub(crate) fn sides(self, reach: [usize; 2]) -> [[usize; 2]; 2] {
        match self {
            Self::Sides(sides) => sides,
            Self::Same => reach.map(|reach| [(reach - 1) / 2, reach / 2]),
            Self::Valid => [[0; 2]; 2],
        }
    }
}

impl PaddingMode {
    /// Whether an axis of `n` pixels can be extended by so many, or why not.
    pub(crate) fn check(self, name: &str, n: usize, [before, after]: [usize; 2]) -> Result<()> {
        let (most, what) = match self {
            Self::Zeros | Self::Replicate => return Ok(()),
            Self::Reflect => (n - 1, "a padding below the image's size to reflect it"),
            Self::Circular => (n, "a padding of at most the image's size to repeat it"),
        };
        if before.max(after) > most {
            return Err(Error::shape(format!(
                "{name}: expected {what}, got padding {} on {n} pixels",
                before.max(after)
            )));
        }
        Ok(())
    }

    /// The pixel that each place of an extended axis of `n` pixels copies; `check` has passed.
    pub(crate) fn places(self, n: usize, [before, after]: [usize; 2], out: &mut Vec<usize>) {
        out.clear();
        out.extend((0..before + n + after).map(|i| match self {
            Self::Reflect if i < before => before - i,
            Self::Reflect if i >= before + n => 2 * (n - 1) - (i - before),
            Self::Circular => (i + n - before) % n,
            _ => i.saturating_sub(before).min(n - 1),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(mode: PaddingMode, n: usize, sides: [usize; 2]) -> Vec<usize> {
        let mut out = Vec::new();
        mode.check("Conv2d", n, sides).unwrap();
        mode.places(n, sides, &mut out);
        out
    }

    #[test]
    fn each_mode_continues_the_image_in_its_way() {
        assert_eq!(places(PaddingMode::Reflect, 3, [2, 2]), [2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(places(PaddingMode::Replicate, 3, [2, 4]), [0, 0, 0, 1, 2, 2, 2, 2, 2]);
        assert_eq!(places(PaddingMode::Circular, 3, [3, 2]), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert!(PaddingMode::Reflect.check("Conv2d", 3, [0, 3]).is_err());
        assert!(PaddingMode::Circular.check("Conv2d", 3, [4, 0]).is_err());
    }

    #[test]
    fn same_puts_the_odd_pixel_at_the_end() {
        assert_eq!(Padding::Same.sides([3, 4]), [[1, 1], [1, 2]]);
        assert_eq!(Padding::Same.sides([1, 6]), [[0, 0], [2, 3]]);
    }
}
