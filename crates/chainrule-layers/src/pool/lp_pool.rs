//! Norms of windows.
//!
//! ```text
//! s[o] = K · mean over the elements i of window o of x[i]^p,   y[o] = s[o]^(1/p)
//! ∂E/∂x[i] = x[i]^(p − 1) · Σ over the o that contain i of K/m[o] · y[o]^(1 − p) · ∂E/∂y[o]
//! ```
//!
//! K is the size of the kernel and m[o] the number of elements of window o, which is K but for a part of a window at the end. Where
//! y = 0 the gradient is 0. Keeps nothing but scratch space. Derivation: docs/layers/pool/lp_pool.md.

use super::{
    AvgPoolCache,
    windows::{Windows, plenty, sized, stride_and_ceil},
};
use crate::Sizes;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{compiled, par};

/// The p-norm of each window of each channel over R axes: the sum of its elements for p = 1, and close to their maximum for a large p. As
/// PyTorch's, it takes powers of the elements and not of their absolute values: where p is odd their sum may be negative, and its root
/// NaN; for p = 1 there is no root. Sermanet, Chintala and LeCun, 2012.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ = ⌊(H − kernel)/stride⌋ + 1, rounded up with `ceil_mode`.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::LpPool1d;
/// let x = Tensor::from_vec([1, 1, 4], vec![3.0f32, -4.0, 0.0, 2.0])?;
/// assert_eq!(LpPool1d::new(2.0, 2).infer(&x)?.data(), [5.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct LpPool<const R: usize, T = f32> {
    p: f64,
    windows: Windows<R>,
    scalar: std::marker::PhantomData<T>,
}

/// The norm of each window of a sequence.
pub type LpPool1d<T = f32> = LpPool<1, T>;
/// The norm of each window of an image.
pub type LpPool2d<T = f32> = LpPool<2, T>;
/// The norm of each window of a volume.
pub type LpPool3d<T = f32> = LpPool<3, T>;

/// Scratch space; forward leaves nothing in it that backward needs.
#[derive(Debug)]
pub struct LpPoolCache<const R: usize, T> {
    means: AvgPoolCache<R, T>,
    /// The powers of x in forward, and what spreads over the windows in backward.
    powers: Tensor<T>,
    spread: Tensor<T>,
}

impl<const R: usize, T: Scalar> Default for LpPoolCache<R, T> {
    fn default() -> Self {
        Self { means: AvgPoolCache::default(), powers: Tensor::default(), spread: Tensor::default() }
    }
}

impl<const R: usize, T: Scalar> LpPool<R, T> {
    const NAME: &'static str = ["LpPool1d", "LpPool2d", "LpPool3d"][R - 1];
    const TORCH: &'static str = ["LPPool1d", "LPPool2d", "LPPool3d"][R - 1];

    /// The p-norm of windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(p: f64, kernel: impl Into<Sizes<R>>) -> Self {
        Self { p, windows: Windows::new(kernel.into().0), scalar: std::marker::PhantomData }
    }

    stride_and_ceil!();

    /// K, the elements of a whole window.
    fn kernel_size(&self) -> f64 {
        self.windows.kernel.iter().map(|&k| k as f64).product()
    }
}

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;

compiled! {
    /// x^p
    fn power[T](x: T, p: f64) -> T {
        match p {
            0.0 => T::ONE,
            1.0 => x,
            2.0 => x * x,
            0.5 => x.sqrt(),
            _ => T::from_f64(x.to_f64().powf(p)),
        }
    }
}

compiled! {
    /// y = x^p
    fn powers[T](x: &[T], p: f64, y: &mut [T]) {
        par::for_chunks(y, PIECE, |piece, y| {
            let x = &x[piece * PIECE..];
            if p == 2.0 {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * x);
            } else {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = power(x, p));
            }
        });
    }
}

compiled! {
    /// y = (K·y)^(1/p)
    fn roots[T](y: &mut [T], size: f64, p: f64) {
        let size = T::from_f64(size);
        par::for_chunks(y, PIECE, |_, y| {
            if p == 2.0 {
                y.iter_mut().for_each(|y| *y = (size * *y).sqrt());
            } else {
                y.iter_mut().for_each(|y| *y = power(size * *y, p.recip()));
            }
        });
    }
}

compiled! {
    /// q = K·y^(1 − p)·dy, 0 where y is 0
    fn shares[T](y: &[T], dy: &[T], size: f64, p: f64, q: &mut [T]) {
        let size = T::from_f64(size);
        par::for_chunks(q, PIECE, |piece, q| {
            let (y, dy) = (&y[piece * PIECE..], &dy[piece * PIECE..]);
            for (q, (&y, &dy)) in q.iter_mut().zip(y.iter().zip(dy)) {
                let slope = if p == 2.0 { T::ONE / y } else { power(y, 1.0 - p) };
                *q = if y == T::ZERO { T::ZERO } else { size * slope * dy };
            }
        });
    }
}

compiled! {
    /// dx ·= x^(p − 1)
    fn slopes[T](x: &[T], p: f64, dx: &mut [T]) {
        par::for_chunks(dx, PIECE, |piece, dx| {
            let x = &x[piece * PIECE..];
            for (dx, &x) in dx.iter_mut().zip(x) {
                let slope = if p == 2.0 { x } else { power(x, p - 1.0) };
                // An element that no window contains has no slope, whatever it is.
                *dx = if *dx == T::ZERO { T::ZERO } else { *dx * slope };
            }
        });
    }
}

impl<const R: usize, T: Scalar> Layer for LpPool<R, T> {
    type T = T;
    type Cache = LpPoolCache<R, T>;

    fn check(&self) -> Result<()> {
        if !(self.p > 0.0 && self.p.is_finite()) {
            let (name, p) = (Self::NAME, self.p);
            return Err(Error::value(format!("{name}: expected a finite norm_type above 0, got {p}")));
        }
        self.windows.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        self.windows.output_shape(Self::NAME, input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        powers(x.data(), self.p, cache.powers.reset(*x.shape()));
        let span = |axis, o| self.windows.span(axis, o, x.shape()[axis + 2], true);
        cache.means.cut(&shape, span).means(&cache.powers, y, shape, None);
        roots(y.data_mut(), self.kernel_size(), self.p); // y = (K · mean of x^p)^(1/p)
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let (shape, out) = (*call.x.shape(), *call.dy.shape());
        let spread = cache.spread.reset(out);
        shares(call.y.data(), call.dy.data(), self.kernel_size(), self.p, spread); // q = K y^(1 − p) dy
        let span = |axis, o| self.windows.span(axis, o, shape[axis + 2], true);
        cache.means.cut(&out, span).spread(cache.spread.data(), dx, shape, None); // dx[i] = Σ q[o]/m[o]
        slopes(call.x.data(), self.p, dx.data_mut()); // dx ·= x^(p − 1)
        Ok(())
    }

    fn cache_bytes(&self, input: &[usize], dx: bool) -> usize {
        let Ok(output) = self.output_shape(input) else { return 0 };
        let volume = input.iter().fold(1, |n: usize, &axis| n.saturating_mul(axis));
        volume.saturating_add(if dx { output.volume() } else { 0 }).saturating_mul(size_of::<T>())
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
            .with("norm_type", self.p)
            .with("kernel_size", self.windows.kernel)
            .with("stride", self.windows.stride)
            .with("ceil_mode", self.windows.ceil_mode)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for LpPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("(Σ xᵖ)^(1/p) over a window")
        .page("layers/pool/lp_pool.md")
        .torch(Self::TORCH);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let p = args.get("norm_type")?;
        let kernel: [usize; R] = args.get("kernel_size")?;
        let stride: Option<[usize; R]> = args.optional("stride")?;
        let layer = Self::new(p, kernel).ceil_mode(args.or("ceil_mode", false)?);
        Ok(match stride {
            Some(stride) => layer.stride(stride),
            None => layer,
        })
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2.0, 2).spec(), [sized::<R>(2, 3, 4)]),
            Example::new(Self::new(4.0, 3).stride(2).ceil_mode(true).spec(), [sized::<R>(1, 2, 4)]),
            Example::new(Self::new(1.0, 2).stride(1).spec(), [sized::<R>(2, 1, 3)]),
            Example::bench(Self::new(2.0, 2).spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;
    use proptest::prelude::*;

    fn layer<const R: usize, T: Scalar>(p: f64, axes: [[usize; 3]; R], ceil: bool) -> LpPool<R, T> {
        LpPool::new(p, axes.map(|axis| axis[0])).stride(axes.map(|axis| axis[1])).ceil_mode(ceil)
    }

    /// Kernel, stride, length of an axis.
    fn axis() -> impl Strategy<Value = [usize; 3]> {
        [1..4usize, 1..4, 0..4].prop_map(|[kernel, stride, extra]| [kernel, stride, kernel + extra])
    }

    laws! {
        obeys_the_laws(
            p in prop_oneof![Just(1.0), Just(2.0), Just(4.0)], axes in [axis(), axis(), axis()], rank in 1..4usize, n in 1..3usize,
            channels in 1..4usize, ceil in any::<bool>(),
        ) {
            layer: match rank {
                1 => laws::BoxModule::new(layer::<1, T>(p, [axes[0]], ceil)),
                2 => laws::BoxModule::new(layer::<2, T>(p, [axes[0], axes[1]], ceil)),
                _ => laws::BoxModule::new(layer::<3, T>(p, axes, ceil)),
            },
            input: [&[n, channels], &axes.map(|axis| axis[2])[..rank]].concat(),
            wrong: [&[n, channels], &axes.map(|axis| axis[2])[..rank - 1]].concat(),
        }
        of_positive_values_any_norm_obeys_the_laws(
            p in 0.5..5.0f64, axes in [axis(), axis()], n in 1..3usize, channels in 1..4usize, ceil in any::<bool>(),
        ) {
            layer: layer::<2, T>(p, axes, ceil),
            input: [n, channels, axes[0][2], axes[1][2]],
            values: laws::Values::Uniform(0.5..2.0),
        }
    }

    fn row<const W: usize>(values: [f64; W]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, W], values.to_vec()).unwrap()
    }

    /// Windows (3 4) and (0 0) with p = 2: y = (5, 0). For g = (10, 1): ∂x = (10·3/5, 10·4/5, 0, 0).
    #[test]
    pub fn by_hand() {
        let (x, layer) = (row([3., 4., 0., 0.]), LpPool1d::new(2.0, 2));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), LpPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, row([5., 0.]));
        let dy = row([10., 1.]);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, row([6., 8., 0., 0.]));
    }

    /// The part of a window at the end counts as a whole one with its mean: (2 2 | 3) gives √8 and √(2 · 9).
    #[test]
    fn a_part_of_a_window_counts_as_a_whole() {
        let y = LpPool1d::new(2.0, 2).ceil_mode(true).infer(&row([2., 2., 3.])).unwrap();
        assert!(y.data().iter().zip([8f64.sqrt(), 18f64.sqrt()]).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for p in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(LpPool2d::<f32>::new(p, 2).check().is_err());
        }
        assert!(LpPool2d::<f32>::new(2.0, 0).check().is_err());
        assert!(LpPool2d::<f32>::new(2.0, 3).output_shape(&[1, 1, 2, 5]).is_err());
    }
}
