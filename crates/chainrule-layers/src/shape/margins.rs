//! What paddings of all kinds share: how far each axis grows or shrinks, and the ways of filling.

use crate::{
    Sizes,
    rank::{join, split},
};
use chainrule_core::{Call, Error, FromValue, Result, Scalar, Shape, Tensor, Value};
use chainrule_tensor::kernels::layers::pad::{pad, pad_gradient, pad_gradient_long, place};

/// Elements that are added before and after each of R axes, outermost axis first; negative ones are taken away. From `1` (at every
/// side), `[1, 2]` (both sides of height, of width) or `[[0, 1], [2, -3]]` (top and bottom, left and right).
///
/// ```
/// use chainrule_layers::Margins;
/// assert_eq!(Margins::<2>::from(1), Margins([[1, 1], [1, 1]]));
/// assert_eq!(Margins::from([1, 2]), Margins([[1, 1], [2, 2]]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins<const R: usize>(pub [[isize; 2]; R]);

impl<const R: usize> From<isize> for Margins<R> {
    fn from(all: isize) -> Self {
        Self([[all; 2]; R])
    }
}

impl<const R: usize> From<[isize; R]> for Margins<R> {
    fn from(sizes: [isize; R]) -> Self {
        Self(sizes.map(|size| [size; 2]))
    }
}

impl<const R: usize> From<[[isize; 2]; R]> for Margins<R> {
    fn from(sides: [[isize; 2]; R]) -> Self {
        Self(sides)
    }
}

impl<const R: usize> From<Sizes<R>> for Margins<R> {
    fn from(Sizes(sizes): Sizes<R>) -> Self {
        Self::from(sizes.map(|size| isize::try_from(size).unwrap_or(isize::MAX)))
    }
}

/// In PyTorch's order, the innermost axis first: (left, right, top, bottom).
impl<const R: usize> From<Margins<R>> for Value {
    fn from(Margins(sides): Margins<R>) -> Self {
        let first = sides[0][0];
        if sides.iter().flatten().all(|&side| side == first) {
            return first.into();
        }
        Self::List(sides.iter().rev().flatten().map(|&side| side.into()).collect())
    }
}

impl<const R: usize> FromValue for Margins<R> {
    const WHAT: &'static str = "one margin, or two for each axis, the innermost axis first";

    fn from_value(value: &Value) -> Option<Self> {
        if let Some(all) = isize::from_value(value) {
            return Some(Self::from(all));
        }
        let Value::List(sides) = value else { return None };
        let mut out = [[0; 2]; R];
        if sides.len() != 2 * R {
            return None;
        }
        for (out, side) in out.iter_mut().rev().flatten().zip(sides) {
            *out = isize::from_value(side)?;
        }
        Some(Self(out))
    }
}

impl<const R: usize> Margins<R> {
    /// Margins that are taken away.
    pub(super) fn negated(self) -> Self {
        Self(self.0.map(|sides| sides.map(|side| side.saturating_neg())))
    }

    pub(super) fn check(self, layer: &str) -> Result<()> {
        let most = 1 << 31;
        match self.0.iter().flatten().find(|side| side.unsigned_abs() >= most) {
            Some(side) => {
                Err(Error::value(format!("{layer}: expected margins between −2³¹ and 2³¹, got {side}")))
            }
            None => Ok(()),
        }
    }

    /// The axes with their margins.
    fn grown(self, layer: &str, axes: [usize; R]) -> Result<[usize; R]> {
        let mut out = axes;
        for (out, [before, after]) in out.iter_mut().zip(self.0) {
            let grown = out.checked_add_signed(before).and_then(|n| n.checked_add_signed(after));
            *out = grown.filter(|&n| n > 0).ok_or_else(|| {
                let sides = self.0;
                Error::shape(format!(
                    "{layer}: expected axes with an element at least within margins {sides:?}, got lengths {axes:?}"
                ))
            })?;
        }
        Ok(out)
    }

    pub(super) fn output_shape(self, layer: &str, input: &[usize]) -> Result<Shape> {
        self.check(layer)?;
        let (batch, axes) = split::<R>(layer, None, input)?;
        join(batch, self.grown(layer, axes)?)
    }

    fn before(self) -> [isize; R] {
        self.0.map(|[before, _]| before)
    }

    /// y = x within its margins, which hold `value`.
    pub(super) fn fill<T: Scalar>(
        self,
        layer: &str,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        value: T,
    ) -> Result<()> {
        let shape = self.output_shape(layer, x.shape())?;
        let (_, from) = split::<R>(layer, None, x.shape())?;
        let to = self.grown(layer, from)?;
        place(x.data(), y.reset(shape), [from, to], self.before(), value);
        Ok(())
    }

    /// dx = dy without its margins; 0 where x was cropped.
    pub(super) fn fill_gradient<T: Scalar>(
        self,
        layer: &str,
        call: Call<'_, T>,
        dx: &mut Tensor<T>,
    ) -> Result<()> {
        let (_, to) = split::<R>(layer, None, call.x.shape())?;
        let from = self.grown(layer, to)?;
        let back = self.before().map(|before| before.saturating_neg());
        place(call.dy.data(), dx.reset(*call.x.shape()), [from, to], back, T::ZERO);
        Ok(())
    }
}

/// How margins repeat what lies within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// Mirrored at the outermost element, which is not repeated.
    Reflect,
    /// The outermost element.
    Replicate,
    /// From the other end.
    Circular,
}

impl Copies {
    /// Whether an axis of `n` elements can have such margins.
    fn check(self, layer: &str, n: usize, [before, after]: [isize; 2]) -> Result<()> {
        let cropped = before.min(0).unsigned_abs() + after.min(0).unsigned_abs();
        let (most, what) = match self {
            Self::Replicate => return Ok(()),
            Self::Reflect => (n - 1, "below"),
            Self::Circular => (n.saturating_sub(cropped), "up to"),
        };
        let margin = before.max(after).max(0).unsigned_abs();
        if margin <= most {
            return Ok(());
        }
        Err(Error::shape(format!(
            "{layer}: expected a margin {what} the axis's length, got {margin} of {n} elements"
        )))
    }

    /// The source of element `i` of an axis that was of `n` elements; `check` has passed.
    fn source(self, i: usize, n: usize, [before, after]: [isize; 2]) -> usize {
        let (n, at) = (n as isize, i as isize - before);
        let source = match self {
            Self::Reflect if at < 0 => -at,
            Self::Reflect if at >= n => 2 * (n - 1) - at,
            Self::Reflect => at,
            Self::Replicate => at.clamp(0, n - 1),
            Self::Circular => {
                let (first, last) = (-before.min(0), n + after.min(0));
                first + (at - first).rem_euclid(last - first)
            }
        };
        source as usize
    }
}

/// Scratch space of paddings that repeat: the source of each element of each axis, and sums over the copies of an element.
#[derive(Clone, Debug)]
pub struct CopyPadCache<const R: usize> {
    places: [Vec<usize>; R],
    sums: Vec<f64>,
}

impl<const R: usize> Default for CopyPadCache<R> {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Vec::new()), sums: Vec::new() }
    }
}

/// Copies of an element whose gradients are summed in the scalar type.
const FEW: usize = 32;

/// Margins that repeat what lies within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyPad<const R: usize> {
    pub(super) copies: Copies,
    pub(super) margins: Margins<R>,
}

impl<const R: usize> CopyPad<R> {
    pub(super) fn output_shape(self, layer: &str, input: &[usize]) -> Result<Shape> {
        let shape = self.margins.output_shape(layer, input)?;
        let (_, axes) = split::<R>(layer, None, input)?;
        axes.into_iter().zip(self.margins.0).try_for_each(|(n, sides)| self.copies.check(layer, n, sides))?;
        Ok(shape)
    }

    fn places(self, axes: [usize; R], out: &[usize], places: &mut [Vec<usize>; R]) {
        for (axis, places) in places.iter_mut().enumerate() {
            places.clear();
            places.extend((0..out[axis]).map(|i| self.copies.source(i, axes[axis], self.margins.0[axis])));
        }
    }

    /// `y[…, i, …] = x[…, source(i), …]`
    pub(super) fn forward<T: Scalar>(
        self,
        layer: &str,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut CopyPadCache<R>,
    ) -> Result<()> {
        let shape = self.output_shape(layer, x.shape())?;
        let (_, axes) = split::<R>(layer, None, x.shape())?;
        self.places(axes, &shape[2..], &mut cache.places);
        pad(x.data(), y.reset(shape), axes, cache.places.each_ref().map(|places| &places[..]));
        Ok(())
    }

    /// `dx[…, j, …] = Σ dy[…, i, …]` over the i with source j.
    pub(super) fn backward<T: Scalar>(
        self,
        layer: &str,
        call: Call<'_, T>,
        cache: &mut CopyPadCache<R>,
        dx: &mut Tensor<T>,
    ) -> Result<()> {
        let (_, axes) = split::<R>(layer, None, call.x.shape())?;
        let CopyPadCache { places, sums } = cache;
        self.places(axes, &call.dy.shape()[2..], places);
        let places = places.each_ref().map(|places| &places[..]);
        let dx = dx.reset(*call.x.shape());
        // Replication copies the outermost element into the whole margin; the other ways, one into each margin.
        let most = self.margins.0.iter().fold(1, |most: usize, sides| {
            let [before, after] = sides.map(|side| side.max(0).unsigned_abs());
            let copies = if self.copies == Copies::Replicate { 1 + before + after } else { 3 };
            most.saturating_mul(copies)
        });
        if most <= FEW {
            pad_gradient(call.dy.data(), dx, axes, places);
        } else {
            sums.resize(dx.len(), 0.0);
            pad_gradient_long(call.dy.data(), dx, sums, axes, places);
        }
        Ok(())
    }

    pub(super) fn cache_bytes(self, input: &[usize]) -> usize {
        let Ok(shape) = self.output_shape("padding", input) else { return 0 };
        let places = shape[2..].iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
        places.saturating_mul(size_of::<usize>())
    }
}

/// The padding layers of ranks 1 to 3 that repeat what lies within: type, aliases, `Layer` and `FromSpec`.
macro_rules! copy_pads {
    (
        $(#[$doc:meta])*
        $pad:ident, $copies:ident, $formula:literal, $page:literal, $bench:expr;
        $($(#[$rank_doc:meta])* $name:ident = $rank:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $pad<const R: usize, T = f32> {
            pad: CopyPad<R>,
            of: PhantomData<T>,
        }

        impl<const R: usize, T: Scalar> $pad<R, T> {
            const NAME: &'static str = [$(stringify!($name)),*][R - 1];

            /// With so many elements added around each axis.
            pub fn new(padding: impl Into<Margins<R>>) -> Self {
                let pad = CopyPad { copies: Copies::$copies, margins: padding.into() };
                Self { pad, of: PhantomData }
            }
        }

        impl<const R: usize, T: Scalar> Layer for $pad<R, T> {
            type T = T;
            type Cache = CopyPadCache<R>;

            fn check(&self) -> Result<()> {
                self.pad.margins.check(Self::NAME)
            }

            fn output_shape(&self, input: &[usize]) -> Result<Shape> {
                self.pad.output_shape(Self::NAME, input)
            }

            fn forward(
                &self,
                x: &Tensor<T>,
                y: &mut Tensor<T>,
                cache: &mut Self::Cache,
                _: Context,
            ) -> Result<()> {
                self.pad.forward(Self::NAME, x, y, cache) // y[i] = x[source(i)]
            }

            fn backward(
                &self,
                call: Call<'_, T>,
                cache: &mut Self::Cache,
                _: &mut Grads<T>,
                dx: Option<&mut Tensor<T>>,
            ) -> Result<()> {
                let Some(dx) = dx else { return Ok(()) };
                self.pad.backward(Self::NAME, call, cache, dx) // dx[source(i)] += dy[i]
            }

            fn reads_output(&self) -> bool {
                false
            }

            fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
                self.pad.cache_bytes(input)
            }

            fn spec(&self) -> Spec {
                Spec::new(Self::NAME).with("padding", self.pad.margins)
            }
        }

        $(
            $(#[$rank_doc])*
            pub type $name<T = f32> = $pad<$rank, T>;

            impl<T: Scalar> FromSpec<T> for $pad<$rank, T> {
                const FACTS: Facts = Facts::new(stringify!($name))
                    .family("shape")
                    .formula($formula)
                    .page($page)
                    .torch(stringify!($name));

                fn from_spec(args: &Args<'_, T>) -> Result<Self> {
                    Ok(Self::new(args.get::<Margins<$rank>>("padding")?))
                }

                fn examples() -> Vec<Example> {
                    crate::shape::margins::examples::<$rank>(|margins| Self::new(margins).spec(), $bench)
                }
            }
        )*
    };
}
pub(super) use copy_pads;

/// Cases of a padding: one margin for all sides, and sides of their own.
pub(super) fn examples<const R: usize>(
    spec: impl Fn(Margins<R>) -> chainrule_core::Spec,
    bench: isize,
) -> Vec<chainrule_core::Example> {
    use chainrule_core::Example;
    let small = [2, 3, 4, 5, 4];
    let large: [usize; 5] = [[8, 64, 4096, 0, 0], [8, 64, 64, 64, 0], [2, 16, 32, 32, 32]][R - 1];
    let shape = |axes: [usize; 5]| Shape::new(&axes[..R + 2]).expect("a shape of at most five axes");
    let sides = std::array::from_fn(|axis| if axis == R - 1 { [-1, 2] } else { [1, 0] });
    vec![
        Example::new(spec(Margins::from(1)), [shape(small)]),
        Example::new(spec(Margins(sides)), [shape(small)]),
        Example::bench(spec(Margins::from(bench)), [shape(large)]),
    ]
}
