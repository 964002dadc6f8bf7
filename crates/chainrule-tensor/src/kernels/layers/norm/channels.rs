//! The sizes of batch norm, and how channels are grouped.

/// Elements of a group of channels: few enough to stay in the second-level cache from pass to pass.
const GROUP: usize = 1 << 15;
/// Below this length of L, loops run over the C·L columns.
pub(super) const NARROW: usize = 16;
/// Most columns of a group where L is narrow, most channels elsewhere.
pub(super) const WIDE: usize = 256;

/// The sizes of a tensor (N, C, L): N images of C channels with L values each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Channels {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Values of one channel of one image.
    pub l: usize,
}

impl Channels {
    /// All elements; `usize::MAX`, which is no length of a slice, where that overflows.
    pub fn volume(self) -> usize {
        self.n.saturating_mul(self.c).saturating_mul(self.l)
    }

    /// Values that a channel's statistics are made of.
    pub fn count(self) -> usize {
        self.n * self.l
    }

    /// Channels of one group, by sizes alone.
    pub(super) fn per_group(self) -> usize {
        let ideal = GROUP / self.count().max(1);
        match self.l {
            0..NARROW => ideal.clamp((64 / self.l.max(1)).max(1), WIDE / self.l.max(1)),
            _ => ideal.clamp(1, WIDE),
        }
    }
}

/// The γ and β of y = x̂ γ + β, (C) each, or fewer that are repeated; absent ones are 1 and 0.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, T> {
    /// γ
    pub weight: Option<&'a [T]>,
    /// β
    pub bias: Option<&'a [T]>,
}
