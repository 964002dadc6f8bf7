//! Maxima over windows whose places are drawn.
//!
//! ```text
//! α = (n − k)/(O − 1),   window o begins at ⌊(o + u) α⌋ − ⌊u α⌋, the last at n − k;   u uniform in [0, 1) for each plane and axis
//! y[o] = max over the elements i of window o of x[i]        ∂E/∂x[i] = Σ over the o of which i is the maximum of ∂E/∂y[o]
//! ```
//!
//! In inference u = ½. Of equal elements the first is the maximum; NaN is above all, the last of several. Keeps the position of each
//! maximum. Derivation: docs/layers/pool/fractional_max_pool.md.

use super::windows::{check_positions, plenty, sized};
use crate::{
    Sizes,
    rank::{axes_of, check_sizes, join, split},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    kernels::layers::pool::{max_pool_gradient, max_pool_starts},
    noise,
};
use std::marker::PhantomData;

/// Maxima over windows of one size, at places that are drawn from [`Context::noise_key`], for each plane and axis: it shrinks an input
/// by any ratio, not by whole numbers alone, and in training is noise as well. Graham, 2014.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) of a given size, or of ⌊ratio·H⌋ and ⌊ratio·W⌋ with [`FractionalMaxPool::of_ratio`].
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::FractionalMaxPool2d;
/// let x = Tensor::<f32>::zeros([8, 3, 20, 30]);
/// assert_eq!(FractionalMaxPool2d::new(2, 13).infer(&x)?.shape()[..], [8, 3, 13, 13]);
/// assert_eq!(FractionalMaxPool2d::of_ratio(2, 0.7).infer(&x)?.shape()[..], [8, 3, 14, 21]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct FractionalMaxPool<const R: usize, T = f32> {
    kernel: [usize; R],
    output: Output<R>,
    scalar: PhantomData<T>,
}

/// Maxima over windows of an image, at places that are drawn.
pub type FractionalMaxPool2d<T = f32> = FractionalMaxPool<2, T>;
/// Maxima over windows of a volume, at places that are drawn.
pub type FractionalMaxPool3d<T = f32> = FractionalMaxPool<3, T>;

/// The size of y, or its ratio to that of x.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Output<const R: usize> {
    Sizes([usize; R]),
    Ratios([f64; R]),
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct FractionalMaxPoolCache {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// The position of each maximum within its plane.
    positions: Vec<u32>,
    /// Where the windows of each plane begin along each axis.
    starts: Vec<usize>,
}

impl<const R: usize, T: Scalar> FractionalMaxPool<R, T> {
    const NAME: &'static str = ["FractionalMaxPool1d", "FractionalMaxPool2d", "FractionalMaxPool3d"][R - 1];

    /// Windows of a size (`2`, `[3, 5]`) that make an output of a size.
    pub fn new(kernel: impl Into<Sizes<R>>, output: impl Into<Sizes<R>>) -> Self {
        let output = Output::Sizes(output.into().0);
        Self { kernel: kernel.into().0, output, scalar: PhantomData }
    }

    /// Windows of a size (`2`, `[3, 5]`) that make an output of this ratio to the input, between 0 and 1.
    pub fn of_ratio(kernel: impl Into<Sizes<R>>, ratio: f64) -> Self {
        Self { kernel: kernel.into().0, output: Output::Ratios([ratio; R]), scalar: PhantomData }
    }

    /// Draws where the windows begin, plane by plane.
    fn draw(&self, input: &[usize], output: &[usize], key: Option<u64>, starts: &mut Vec<usize>) {
        starts.clear();
        let (size, out) = (axes_of::<R>(input), axes_of::<R>(output));
        for plane in 0..input[0] * input[1] {
            starts.extend(std::iter::repeat_n(0, 3 - R));
            for axis in 0..R {
                let u = key.map_or(0.5, |key| uniform(noise(key, (plane * R + axis) as u64)));
                let (last, out) = (size[axis] - self.kernel[axis], out[axis]);
                let step = if out > 1 { last as f64 / (out - 1) as f64 } else { 0.0 };
                let first = (u * step) as usize;
                // Rounded, a sum may be one too large; never beyond the last.
                starts.extend(
                    (1..out).map(|o| (((o - 1) as f64 + u) * step) as usize).map(|at| (at - first).min(last)),
                );
                starts.push(last);
            }
        }
    }
}

/// Random bits as a number from [0, 1).
fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The axes of a volume that has so many last ones.
fn volume<const R: usize>(axes: [usize; R]) -> [usize; 3] {
    std::array::from_fn(|axis| (axis + R).checked_sub(3).map_or(1, |axis| axes[axis]))
}

impl<const R: usize, T: Scalar> Layer for FractionalMaxPool<R, T> {
    type T = T;
    type Cache = FractionalMaxPoolCache;

    fn check(&self) -> Result<()> {
        check_sizes(Self::NAME, "kernel_size", 1, self.kernel)?;
        match self.output {
            Output::Sizes(sizes) => check_sizes(Self::NAME, "output_size", 1, sizes),
            Output::Ratios(ratios) if ratios.iter().all(|&ratio| ratio > 0.0 && ratio < 1.0) => Ok(()),
            Output::Ratios(ratios) => {
                let name = Self::NAME;
                Err(Error::value(format!("{name}: expected an output_ratio between 0 and 1, got {ratios:?}")))
            }
        }
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?;
        let (batch, axes): (_, [usize; R]) = split(Self::NAME, None, input)?;
        check_positions(Self::NAME, input)?;
        let output: [usize; R] = std::array::from_fn(|axis| match self.output {
            Output::Sizes(sizes) => sizes[axis],
            Output::Ratios(ratios) => (axes[axis] as f64 * ratios[axis]) as usize,
        });
        let fits = |axis: usize| output[axis] > 0 && self.kernel[axis] + output[axis] - 1 <= axes[axis];
        if !(0..R).all(fits) {
            return Err(Error::shape(format!(
                "{}: expected an input that holds {output:?} windows of {:?} at different places, got {input:?}",
                Self::NAME,
                self.kernel
            )));
        }
        join(batch, output)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let y = y.reset(shape);
        self.draw(x.shape(), &shape, cx.training().then(|| cx.noise_key()), &mut cache.starts);
        cache.positions.resize(y.len(), 0);
        cache.recorded = cx.recording().then_some(*x.shape());
        let [size, out] = [x.shape(), &shape].map(|shape| volume(axes_of::<R>(shape)));
        // y[o] = max over window o
        max_pool_starts(x.data(), y, &mut cache.positions, size, out, volume(self.kernel), &cache.starts);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let shape = *call.x.shape();
        if cache.recorded != Some(shape) || cache.positions.len() != call.dy.len() {
            let name = Self::NAME;
            return Err(Error::not_recorded(format!(
                "{name}: expected the cache of a recorded forward of this input"
            )));
        }
        if let Some(dx) = dx {
            let plane = shape[2..].iter().product();
            max_pool_gradient(call.dy.data(), &cache.positions, dx.reset(shape), plane); // dx[maximum of o] += dy[o]
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok(output) = self.output_shape(input) else { return 0 };
        let each = volume(axes_of::<R>(&output)).iter().fold(0, |n: usize, &axis| n.saturating_add(axis));
        let starts =
            each.saturating_mul(input[0].saturating_mul(input[1])).saturating_mul(size_of::<usize>());
        output.volume().saturating_mul(size_of::<u32>()).saturating_add(starts)
    }

    fn spec(&self) -> Spec {
        let (sizes, ratios) = match self.output {
            Output::Sizes(sizes) => (Some(sizes), None),
            Output::Ratios(ratios) => (None, Some(ratios)),
        };
        Spec::new(Self::NAME)
            .with("kernel_size", self.kernel)
            .with("output_size", sizes)
            .with("output_ratio", ratios)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for FractionalMaxPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("max over windows at places that are drawn")
        .page("layers/pool/fractional_max_pool.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.only("return_indices", false)?;
        let kernel: [usize; R] = args.get("kernel_size")?;
        let (sizes, ratios) = (args.optional("output_size")?, args.optional("output_ratio")?);
        let output = match (sizes, ratios) {
            (Some(sizes), None) => Output::Sizes(sizes),
            (None, Some(ratios)) => Output::Ratios(ratios),
            _ => {
                let name = Self::NAME;
                return Err(Error::value(format!(
                    "{name}: expected either output_size or output_ratio, got both or none"
                )));
            }
        };
        Ok(Self { kernel, output, scalar: PhantomData })
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2, 3).spec(), [sized::<R>(2, 2, 5)]),
            Example::new(Self::of_ratio(2, 0.6).spec(), [sized::<R>(1, 2, 6)]),
            Example::bench(Self::of_ratio(2, 0.7).spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            n in 1..4usize, channels in 1..4usize, kernel in [1..4usize, 1..4, 1..4], output in [1..5usize, 1..5, 1..5],
            extra in [0..4usize, 0..4, 0..4], flat in any::<bool>(),
        ) {
            layer: if flat {
                laws::BoxModule::new(FractionalMaxPool2d::<T>::new([kernel[0], kernel[1]], [output[0], output[1]]))
            } else {
                laws::BoxModule::new(FractionalMaxPool3d::<T>::new(kernel, output))
            },
            input: {
                let size = |axis: usize| kernel[axis] + output[axis] - 1 + extra[axis];
                if flat { vec![n, channels, size(0), size(1)] } else { vec![n, channels, size(0), size(1), size(2)] }
            },
            wrong: [n, channels, 3],
        }
        with_a_ratio_it_obeys_the_laws(n in 1..4usize, channels in 1..4usize, ratio in 0.2..0.8f64, [h, w] in [7..12usize, 7..12]) {
            layer: FractionalMaxPool2d::of_ratio(2, ratio),
            input: [n, channels, h, w],
            wrong: [n, channels, 1, w],
        }
    }

    /// A row of 5 in three windows of 2: α = 3/2. In inference u = ½: ⌊¾⌋ = 0, so that they begin at 0, ⌊9/4⌋ = 2 and 3.
    /// Over 1 5 2 4 3 the maxima are 5, 4, 4; for g = (1, 2, 4): ∂x = (0, 1, 0, 2 + 4, 0).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 1, 1, 5], vec![1., 5., 2., 4., 3.]).unwrap();
        let layer = FractionalMaxPool2d::new([1, 2], [1, 3]);
        let (mut y, mut dx, mut cache) =
            (Tensor::default(), Tensor::default(), FractionalMaxPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::frozen()).unwrap();
        assert_eq!(y.data(), [5., 4., 4.]);
        let dy = Tensor::from_vec([1, 1, 1, 3], vec![1., 2., 4.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 1., 0., 6., 0.]);
    }

    #[test]
    fn windows_begin_at_different_places_from_the_first_element_to_the_last() {
        let layer = FractionalMaxPool2d::<f32>::new([2, 3], [5, 7]);
        let (input, output) = ([4, 3, 8, 12], [4, 3, 5, 7]);
        let mut seen = Vec::new();
        for key in 0..50 {
            let mut starts = Vec::new();
            layer.draw(&input, &output, Some(key), &mut starts);
            for starts in starts.chunks(1 + 5 + 7) {
                for (axis, last) in [(&starts[1..6], 6), (&starts[6..], 9)] {
                    assert!(
                        axis[0] == 0 && axis.last() == Some(&last) && axis.is_sorted_by(|a, b| a < b),
                        "{axis:?}"
                    );
                }
                seen.push(starts[1..].to_vec());
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4); // at a distance of 3/2 there are two sequences along each axis
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for ratio in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
            assert!(FractionalMaxPool2d::<f32>::of_ratio(2, ratio).check().is_err());
        }
        assert!(FractionalMaxPool2d::<f32>::new(0, 2).check().is_err());
        assert!(FractionalMaxPool2d::<f32>::new(2, 0).check().is_err());
        let text = FractionalMaxPool2d::<f32>::new(2, 4).output_shape(&[1, 1, 4, 5]).unwrap_err().to_string();
        assert!(text.contains("holds [4, 4] windows of [2, 2] at different places"), "{text}");
        let x = Tensor::<f32>::zeros([2, 1, 6, 6]);
        assert!(FractionalMaxPool2d::of_ratio(2, 0.1).infer(&x).is_err());
    }
}
