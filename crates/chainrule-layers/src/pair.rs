//! Sizes along height and width.

/// Two sizes, height and width: `3`, `[3, 5]` and `(3, 5)` all become one.
///
/// ```
/// use chainrule_layers::Pair;
/// assert_eq!(Pair::from(3), Pair { h: 3, w: 3 });
/// assert_eq!(Pair::from([3, 5]), Pair::from((3, 5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Along the height.
    pub h: usize,
    /// Along the width.
    pub w: usize,
}

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Self { h: both, w: both }
    }
}

impl From<[usize; 2]> for Pair {
    fn from([h, w]: [usize; 2]) -> Self {
        Self { h, w }
    }
}

impl From<(usize, usize)> for Pair {
    fn from((h, w): (usize, usize)) -> Self {
        Self { h, w }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}, {})", self.h, self.w)
    }
}
