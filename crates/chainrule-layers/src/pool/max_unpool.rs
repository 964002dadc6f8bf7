//! Values put back to where a max pool found them.
//!
//! ```text
//! y[index[i]] = x[i], the last i of several, and 0 elsewhere        ∂E/∂x[i] = ∂E/∂y[index[i]] if i is the last of its index, else 0
//! ```
//!
//! The indices have no derivative. Keeps nothing but scratch space. Derivation: docs/layers/pool/max_unpool.md.

use super::windows::{Windows, check_positions};
use crate::{
    Sizes,
    container::{inputs_expected, only_gradient, only_output, pull_expected},
    rank::{check_sizes, join, split},
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::{
    embedding::row_indices,
    pool::{max_unpool, max_unpool_gradient},
};
use std::marker::PhantomData;

/// The inverse of a max pool as far as there is one, over R axes and of two inputs: the values, and for each its index in its plane of y,
/// as whole numbers; for a [`crate::Graph`]. Zeiler, Taylor and Fergus, 2011.
///
/// # Shapes
/// x and the indices (N, C, H, W), y (N, C, H′, W′) with H′ = (H − 1)·stride − 2·padding + kernel, or as given by
/// [`MaxUnpool::output_size`].
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::MaxUnpool1d;
/// let x = Tensor::from_vec([1, 1, 2], vec![5.0f32, 7.0])?;
/// let indices = Tensor::from_vec([1, 1, 2], vec![1.0f32, 2.0])?;
/// assert_eq!(MaxUnpool1d::new(2).infer([&x, &indices])?.data(), [0.0, 5.0, 7.0, 0.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaxUnpool<const R: usize, T = f32> {
    windows: Windows<R>,
    output: Option<[usize; R]>,
    scalar: PhantomData<T>,
}

/// Values put back to their places in a sequence.
pub type MaxUnpool1d<T = f32> = MaxUnpool<1, T>;
/// Values put back to their places in an image.
pub type MaxUnpool2d<T = f32> = MaxUnpool<2, T>;
/// Values put back to their places in a volume.
pub type MaxUnpool3d<T = f32> = MaxUnpool<3, T>;

/// Scratch space.
#[derive(Debug, Default)]
pub struct MaxUnpoolState {
    indices: Vec<u32>,
    /// Of each element of y the element of x that is there.
    owners: Vec<u32>,
}

impl<const R: usize, T: Scalar> MaxUnpool<R, T> {
    const NAME: &'static str = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"][R - 1];

    /// The inverse of a max pool with windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(kernel: impl Into<Sizes<R>>) -> Self {
        Self { windows: Windows::new(kernel.into().0), output: None, scalar: PhantomData }
    }

    /// The distance between its windows, the kernel by default.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Sizes<R>>) -> Self {
        self.windows.stride = stride.into().0;
        self
    }

    /// How far its windows extended beyond each end of an axis, 0 by default, at most half the kernel.
    #[must_use]
    pub fn padding(mut self, padding: impl Into<Sizes<R>>) -> Self {
        self.windows.padding = padding.into().0;
        self
    }

    /// The lengths of y's axes: those before the pool, which several lengths were pooled from.
    #[must_use]
    pub fn output_size(self, sizes: impl Into<Sizes<R>>) -> Self {
        Self { output: Some(sizes.into().0), ..self }
    }

    fn output(&self, axes: [usize; R], input: &[usize]) -> Result<[usize; R]> {
        if let Some(sizes) = self.output {
            return Ok(sizes);
        }
        let Windows { kernel, stride, padding, .. } = self.windows;
        let length = |axis: usize| {
            let of = |sizes: [usize; R]| sizes[axis] as i128; // below 2³¹ by `validate`
            let length = (axes[axis] as i128 - 1) * of(stride) - 2 * of(padding) + of(kernel);
            usize::try_from(length).unwrap_or(0)
        };
        let sizes: [usize; R] = std::array::from_fn(length);
        if sizes.contains(&0) {
            let name = Self::NAME;
            return Err(Error::shape(format!(
                "{name}: expected an input of which padding {padding:?} leaves at least one element, got {input:?}"
            )));
        }
        Ok(sizes)
    }

    fn shape(&self, x: &[usize], indices: &[usize]) -> Result<Shape> {
        self.validate()?;
        if x != indices {
            let name = Self::NAME;
            return Err(Error::shape(format!(
                "{name}: expected an index for each of {x:?}, got {indices:?}"
            )));
        }
        let (batch, axes): (_, [usize; R]) = split(Self::NAME, None, x)?;
        let shape = join(batch, self.output(axes, x)?)?;
        check_positions(Self::NAME, &shape)?;
        check_positions(Self::NAME, x)?;
        Ok(shape)
    }

    fn indices<'s>(&self, indices: &Tensor<T>, plane: usize, state: &'s mut Vec<u32>) -> Result<&'s [u32]> {
        state.resize(indices.len(), 0);
        row_indices(indices.data(), plane, state).map_err(|at| {
            let (name, got) = (Self::NAME, indices.data()[at]);
            Error::index(format!("{name}: expected indices in 0..{plane}, got {got} at element {at}"))
        })?;
        Ok(state)
    }
}

impl<const R: usize, T: Scalar> Parameters for MaxUnpool<R, T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        check_sizes(Self::NAME, "output_size", 1, self.output.unwrap_or([1; R]))?;
        self.windows.check(Self::NAME)
    }
}

impl<const R: usize, T: Scalar> Module for MaxUnpool<R, T> {
    type State = MaxUnpoolState;

    fn inputs(&self) -> usize {
        2
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input == 0
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        inputs_expected(Self::NAME, 2, inputs.len())?;
        Ok(vec![self.shape(&inputs[0], &inputs[1])?])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut MaxUnpoolState,
        _: Context,
    ) -> Result<()> {
        inputs_expected(Self::NAME, 2, xs.len())?;
        let shape = self.shape(xs[0].shape(), xs[1].shape())?;
        let plane = shape[2..].iter().product();
        let indices = self.indices(xs[1], plane, &mut state.indices)?;
        max_unpool(xs[0].data(), indices, only_output(ys)?.reset(shape), plane); // y[index] = x
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut MaxUnpoolState,
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected(Self::NAME, 2, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        let shape = *call.xs[0].shape();
        if self.shape(&shape, call.xs[1].shape())? != *y.shape() {
            let name = Self::NAME;
            return Err(Error::not_recorded(format!("{name}: expected y of a forward of these inputs")));
        }
        let [dx, dindices] = dxs else { unreachable!("two places were counted") };
        if let Some(dindices) = dindices {
            dindices.reset(*call.xs[1].shape()).fill(T::ZERO);
        }
        let Some(dx) = dx else { return Ok(()) };
        let dx = dx.reset(shape);
        let Some(dy) = dy else {
            dx.fill(T::ZERO);
            return Ok(());
        };
        let plane = y.shape()[2..].iter().product();
        let indices = self.indices(call.xs[1], plane, &mut state.indices)?;
        state.owners.resize(y.len(), 0);
        max_unpool_gradient(dy.data(), indices, dx, &mut state.owners, plane); // dx = dy[index]
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new(Self::NAME)
            .with("kernel_size", self.windows.kernel)
            .with("stride", self.windows.stride)
            .with("padding", self.windows.padding)
            .with("output_size", self.output)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for MaxUnpool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("y[index] = x, 0 elsewhere")
        .page("layers/pool/max_unpool.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let kernel: [usize; R] = args.get("kernel_size")?;
        let stride = args.optional("stride")?.unwrap_or(kernel);
        let windows = Windows { stride, padding: args.or("padding", [0; R])?, ..Windows::new(kernel) };
        Ok(Self { windows, output: args.optional("output_size")?, scalar: PhantomData })
    }

    fn examples() -> Vec<Example> {
        let sized = |n: usize, c: usize, axis: usize| {
            Shape::new(&[n, c, axis, axis, axis][..R + 2]).unwrap_or_default()
        };
        let bench = [512, 16, 8][R - 1];
        vec![
            Example::new(Self::new(2).to_spec(), [sized(2, 3, 2); 2]).ids(4),
            Example::new(Self::new(3).stride(2).padding(1).output_size(4).to_spec(), [sized(1, 2, 2); 2])
                .ids(4),
            Example::bench(Self::new(2).to_spec(), [sized(4, 64, bench); 2]).ids(1 << 10),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            n in 1..4usize, channels in 1..4usize, rank in 1..4usize, lengths in [1..4usize, 1..4, 1..4], kernel in 2..4usize,
            stride in 1..3usize, padding in 0..2usize,
        ) {
            layer: match rank {
                1 => laws::BoxModule::new(MaxUnpool1d::<T>::new(kernel).stride(stride)),
                2 => laws::BoxModule::new(MaxUnpool2d::<T>::new(kernel).stride(stride + 1).padding(padding)
                    .output_size([lengths[0] + 2, lengths[1]])),
                _ => laws::BoxModule::new(MaxUnpool3d::<T>::new(kernel)),
            },
            inputs: vec![[&[n, channels], &lengths[..rank]].concat(); 2],
            values_of(1): {
                let plane = match rank {
                    1 => (lengths[0] - 1) * stride + kernel,
                    2 => (lengths[0] + 2) * lengths[1],
                    _ => lengths.iter().map(|n| n * kernel).product(),
                };
                laws::Values::Indices(0..plane)
            },
            wrong_inputs: [vec![n, channels, 2, 2], vec![n, channels, 2, 3]],
        }
    }

    /// x = (5 7) at the places 3 and 0 of 4: (7, 0, 0, 5). For g = (1, 2, 3, 4): ∂x = (4, 1).
    #[test]
    pub fn by_hand() {
        let tensor = |v: &[f64]| Tensor::from_vec([1, 1, v.len()], v.to_vec()).unwrap();
        let (x, indices, dy) = (tensor(&[5., 7.]), tensor(&[3., 0.]), tensor(&[1., 2., 3., 4.]));
        let (layer, mut ys, mut state) =
            (MaxUnpool1d::new(2), [Tensor::default()], MaxUnpoolState::default());
        layer.apply(&[&x, &indices], &mut ys, &mut state, Context::frozen()).unwrap();
        assert_eq!(ys[0], tensor(&[7., 0., 0., 5.]));
        let (mut dx, mut grads, xs, dys) =
            (Tensor::default(), Grads::new(&layer), [&x, &indices], [Some(&dy)]);
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut state, &mut grads, &mut [Some(&mut dx), None]).unwrap();
        assert_eq!(dx, tensor(&[4., 1.]));
    }

    #[test]
    fn indices_that_lie_outside_of_their_plane_are_errors() {
        let layer = MaxUnpool1d::<f32>::new(2);
        for bad in [4.0, -1.0, 0.5, f32::NAN, f32::INFINITY] {
            let x = Tensor::from_vec([1, 1, 2], vec![1.0, 2.0]).unwrap();
            let indices = Tensor::from_vec([1, 1, 2], vec![0.0, bad]).unwrap();
            let text = layer.infer([&x, &indices]).unwrap_err().to_string();
            assert!(text.contains("expected indices in 0..4"), "{text}");
        }
        assert!(MaxUnpool2d::<f32>::new(0).validate().is_err());
        assert!(MaxUnpool2d::<f32>::new(2).padding(2).validate().is_err());
        assert!(MaxUnpool2d::<f32>::new(2).output_size([0, 3]).validate().is_err());
    }
}
