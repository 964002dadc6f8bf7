//! How far inputs are padded before a convolution, and with what.

use crate::{Sizes, rank::check_sizes};
use chainrule_core::{Error, FromValue, Result, Value};

/// How many elements are added at the ends of each axis: `1`, `[1, 2]` (height, width), `[[0, 1], [2, 3]]` (top and bottom,
/// left and right), or as many as give an output of a certain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding<const R: usize> {
    /// So many before and after, along each axis.
    Sides([[usize; 2]; R]),
    /// So many that the output is as large as the input, the odd one at the end; for stride 1.
    Same,
    /// None: windows lie within the input.
    Valid,
    /// As many before a sequence as its windows span but for one, none after it: outputs see nothing that comes later. For one axis.
    Causal,
}

/// What the added elements hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input mirrored at its outermost elements, which are not repeated: c b | a b c | b a.
    Reflect,
    /// The outermost element repeated: a a | a b c | c c.
    Replicate,
    /// The input repeated: b c | a b c | a b.
    Circular,
}

impl<const R: usize> From<Sizes<R>> for Padding<R> {
    fn from(Sizes(sizes): Sizes<R>) -> Self {
        Self::Sides(sizes.map(|size| [size; 2]))
    }
}

impl<const R: usize> From<usize> for Padding<R> {
    fn from(all: usize) -> Self {
        Sizes::from(all).into()
    }
}

impl<const R: usize> From<[usize; R]> for Padding<R> {
    fn from(sizes: [usize; R]) -> Self {
        Sizes(sizes).into()
    }
}

impl From<(usize, usize)> for Padding<2> {
    fn from(sizes: (usize, usize)) -> Self {
        Sizes::from(sizes).into()
    }
}

impl<const R: usize> From<[[usize; 2]; R]> for Padding<R> {
    fn from(sides: [[usize; 2]; R]) -> Self {
        Self::Sides(sides)
    }
}

impl<const R: usize> From<Padding<R>> for Value {
    fn from(padding: Padding<R>) -> Self {
        match padding {
            Padding::Same => "same".into(),
            Padding::Valid => "valid".into(),
            Padding::Causal => "causal".into(),
            Padding::Sides(sides) if sides.iter().all(|[before, after]| before == after) => {
                sides.map(|[size, _]| size).into()
            }
            Padding::Sides(sides) => sides.into(),
        }
    }
}

impl<const R: usize> FromValue for Padding<R> {
    const WHAT: &'static str = "\"same\", \"valid\", \"causal\", one size, or one or two for each axis";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) if text == "same" => Some(Self::Same),
            Value::Text(text) if text == "valid" => Some(Self::Valid),
            Value::Text(text) if text == "causal" => Some(Self::Causal),
            sides => FromValue::from_value(sides).map(Self::Sides),
        }
    }
}

impl From<PaddingMode> for Value {
    fn from(mode: PaddingMode) -> Self {
        mode.name().into()
    }
}

impl FromValue for PaddingMode {
    const WHAT: &'static str = "\"zeros\", \"reflect\", \"replicate\" or \"circular\"";

    fn from_value(value: &Value) -> Option<Self> {
        let text = String::from_value(value)?;
        [Self::Zeros, Self::Reflect, Self::Replicate, Self::Circular].into_iter().find(|m| m.name() == text)
    }
}

impl<const R: usize> Padding<R> {
    pub(super) fn check(self, layer: &str) -> Result<()> {
        match self {
            Self::Sides(sides) => {
                sides.into_iter().try_for_each(|sides| check_sizes(layer, "padding", 0, sides))
            }
            Self::Causal if R != 1 => {
                Err(Error::value(format!("{layer}: expected causal padding of one axis, got {R} axes")))
            }
            Self::Same | Self::Valid | Self::Causal => Ok(()),
        }
    }

    /// The elements before and after each axis, for a window that spans `span` elements.
    pub(super) fn sides(self, span: [usize; R]) -> [[usize; 2]; R] {
        match self {
            Self::Sides(sides) => sides,
            Self::Same => span.map(|span| [(span - 1) / 2, span / 2]),
            Self::Valid => [[0; 2]; R],
            Self::Causal => span.map(|span| [span - 1, 0]),
        }
    }
}

impl PaddingMode {
    fn name(self) -> &'static str {
        match self {
            Self::Zeros => "zeros",
            Self::Reflect => "reflect",
            Self::Replicate => "replicate",
            Self::Circular => "circular",
        }
    }

    /// Whether an axis of `n` elements can be padded by so many.
    pub(super) fn check(self, layer: &str, n: usize, [before, after]: [usize; 2]) -> Result<()> {
        let (most, what) = match self {
            Self::Zeros | Self::Replicate => return Ok(()),
            Self::Reflect => (n - 1, "below"),
            Self::Circular => (n, "up to"),
        };
        let (size, name) = (before.max(after), self.name());
        if size > most {
            return Err(Error::shape(format!(
                "{layer}: expected padding {what} the axis's length in mode \"{name}\", got padding {size} of {n} elements"
            )));
        }
        Ok(())
    }

    /// The source of element `i` of an axis of `n` elements that begins with `before` padded ones; `check` has passed.
    pub(super) fn source(self, i: usize, n: usize, before: usize) -> usize {
        match self {
            Self::Reflect if i < before => before - i,
            Self::Reflect if i >= before + n => 2 * (n - 1) - (i - before),
            Self::Circular => (i + n - before) % n,
            _ => i.saturating_sub(before).min(n - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(mode: PaddingMode, n: usize, sides: [usize; 2]) -> Vec<usize> {
        mode.check("Conv2d", n, sides).unwrap();
        (0..sides[0] + n + sides[1]).map(|i| mode.source(i, n, sides[0])).collect()
    }

    #[test]
    fn each_mode_continues_the_input_in_its_way() {
        assert_eq!(sources(PaddingMode::Reflect, 3, [2, 2]), [2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(sources(PaddingMode::Replicate, 3, [2, 4]), [0, 0, 0, 1, 2, 2, 2, 2, 2]);
        assert_eq!(sources(PaddingMode::Circular, 3, [3, 2]), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert!(PaddingMode::Reflect.check("Conv2d", 3, [0, 3]).is_err());
        assert!(PaddingMode::Circular.check("Conv2d", 3, [4, 0]).is_err());
    }

    #[test]
    fn same_puts_the_odd_element_at_the_end() {
        assert_eq!(Padding::Same.sides([3, 4]), [[1, 1], [1, 2]]);
        assert_eq!(Padding::Same.sides([1, 6]), [[0, 0], [2, 3]]);
        assert_eq!(Padding::Causal.sides([6]), [[5, 0]]);
    }

    #[test]
    fn paddings_come_back_from_their_values() {
        for padding in [
            Padding::Same,
            Padding::Valid,
            Padding::Causal,
            3.into(),
            (1, 2).into(),
            [[0, 1], [2, 2]].into(),
            Padding::<2>::from([[1, 2], [1, 2]]),
        ] {
            assert_eq!(Padding::from_value(&padding.into()), Some(padding));
        }
        assert_eq!(Padding::<2>::from_value(&Value::Int(1)), Some(1.into()));
        assert_eq!(Padding::<1>::from_value(&[1usize, 2].into()), None);
        assert_eq!(Padding::<2>::from_value(&Value::Int(-1)), None);
        assert_eq!(PaddingMode::from_value(&PaddingMode::Circular.into()), Some(PaddingMode::Circular));
    }
}
