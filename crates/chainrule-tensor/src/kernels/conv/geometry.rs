//! The sizes of a convolution.

/// The sizes of a convolution of images. Pairs are (along the height, along the width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// N
    pub images: usize,
    /// C, of the input.
    pub channels: usize,
    /// K, channels of the output.
    pub filters: usize,
    /// Groups, which divide both; each sees only its own channels.
    pub groups: usize,
    /// H, W of the input.
    pub input: [usize; 2],
    /// R, S of the kernel.
    pub kernel: [usize; 2],
    /// The distance between windows.
    pub stride: [usize; 2],
    /// The distance between the taps of a window.
    pub dilation: [usize; 2],
    /// Zeros before and after the image, along each axis.
    pub padding: [[usize; 2]; 2],
}

impl Geometry {
    /// Height and width of the output; 0 where a window has no room.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let padded = self.input[axis] + self.padding[axis][0] + self.padding[axis][1];
            match padded.checked_sub(self.reach(axis)) {
                Some(room) => room / self.stride[axis] + 1,
                None => 0,
            }
        })
    }

    /// How many pixels a window spans along an axis.
    #[must_use]
    pub fn reach(&self, axis: usize) -> usize {
        self.dilation[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Channels of a group, C/groups.
    #[must_use]
    pub fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// Filters of a group, K/groups.
    #[must_use]
    pub fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Numbers of x.
    #[must_use]
    pub fn x_len(&self) -> usize {
        self.images * self.channels * self.input[0] * self.input[1]
    }

    /// Numbers of y.
    #[must_use]
    pub fn y_len(&self) -> usize {
        let [oh, ow] = self.output();
        self.images * self.filters * oh * ow
    }

    /// Numbers of w, (K, C/groups, R, S).
    #[must_use]
    pub fn w_len(&self) -> usize {
        self.filters * self.group_channels() * self.kernel[0] * self.kernel[1]
    }

    /// Multiplications with additions of one pass.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let [oh, ow] = self.output();
        (self.images * oh * ow) as u64 * self.w_len() as u64
    }

    /// Whether windows are single pixels that adjoin.
    pub(super) fn is_single(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [[0; 2]; 2]
    }

    /// The same convolution with the image in rows of other lengths, where windows are single pixels that adjoin.
    pub(super) fn flat(&self, lanes: usize) -> Self {
        let pixels = self.input[0] * self.input[1];
        if !self.is_single() || self.input[1].is_multiple_of(lanes) {
            return *self;
        }
        // Rows of whole vectors if that comes out even, so that they can be shared over threads; or else one row.
        let rows = [8, 4, 2].into_iter().find(|rows| pixels.is_multiple_of(rows * lanes)).unwrap_or(1);
        Self { input: [rows, pixels / rows], ..*self }
    }

    pub(super) fn check<T>(&self, x: &[T], w: &[T], y: &[T]) {
        let sizes = [self.x_len(), self.w_len(), self.y_len()];
        assert_eq!([x.len(), w.len(), y.len()], sizes, "x, w and y are as long as {self:?} says");
    }
}
