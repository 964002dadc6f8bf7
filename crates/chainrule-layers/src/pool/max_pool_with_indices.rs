//! Maxima over windows, and where they were found.
//!
//! ```text
//! y[o] = max over the elements i of window o of x[i]        index[o] = that i        ∂E/∂x[i] = Σ over the o with index[o] = i of ∂E/∂y[o]
//! ```
//!
//! The indices have no derivative. Keeps them as u32. Derivation: docs/layers/pool/max_pool2d.md.

use super::{
    MaxPool,
    windows::{plenty, sized},
};
use crate::{
    container::{inputs_expected, pull_expected},
    rank::axes_of,
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Layer, Module, ModuleCall, Parameters, Params,
    ParamsMut, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::pool::{max_pool, max_pool_gradient},
};

/// A [`MaxPool`] with a second output: for each maximum its index in its plane of x, row by row, as a whole number; for a
/// [`crate::MaxUnpool`] in a [`crate::Graph`]. Made by [`MaxPool::with_indices`].
///
/// # Shapes
/// x (N, C, H, W), y and the indices (N, C, H′, W′) as of [`MaxPool`]. The index of a window that lies in the padding alone is −1.
///
/// # Errors
/// A plane of more elements than the scalar type holds integers exactly: 2²⁴ of f32.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::{Graph, MaxPool1d, MaxUnpool1d};
/// let mut graph = Graph::new();
/// let x = graph.input("x");
/// let pool = graph.add("pool", MaxPool1d::new(2).with_indices(), x);
/// graph.add("unpool", MaxUnpool1d::new(2), [pool.at(0), pool.at(1)]);
/// let x = Tensor::from_vec([1, 1, 4], vec![5.0f32, 1.0, 2.0, 7.0])?;
/// assert_eq!(graph.infer(&x)?.data(), [5.0, 0.0, 0.0, 7.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaxPoolWithIndices<const R: usize, T = f32> {
    pool: MaxPool<R, T>,
}

/// The largest element of each window of a sequence, and where it was found.
pub type MaxPool1dWithIndices<T = f32> = MaxPoolWithIndices<1, T>;
/// The largest element of each window of an image, and where it was found.
pub type MaxPool2dWithIndices<T = f32> = MaxPoolWithIndices<2, T>;
/// The largest element of each window of a volume, and where it was found.
pub type MaxPool3dWithIndices<T = f32> = MaxPoolWithIndices<3, T>;

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct MaxPoolWithIndicesState {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// The index of each maximum within its plane.
    positions: Vec<u32>,
}

impl<const R: usize, T: Scalar> MaxPool<R, T> {
    /// The same pool with the index of each maximum as a second output.
    #[must_use]
    pub fn with_indices(self) -> MaxPoolWithIndices<R, T> {
        MaxPoolWithIndices { pool: self }
    }
}

compiled! {
    /// The positions as whole numbers, −1 for none.
    fn numbers[T](positions: &[u32], indices: &mut [T]) {
        for (index, &position) in indices.iter_mut().zip(positions) {
            *index = if position == u32::MAX { -T::ONE } else { T::from_usize(position as usize) };
        }
    }
}

impl<const R: usize, T: Scalar> MaxPoolWithIndices<R, T> {
    const NAME: &'static str =
        ["MaxPool1dWithIndices", "MaxPool2dWithIndices", "MaxPool3dWithIndices"][R - 1];

    /// The shape of both outputs.
    fn shape(&self, input: &[usize]) -> Result<Shape> {
        let shape = self.pool.output_shape(input)?;
        // Every integer up to 2/ε is exact.
        let (plane, most) = (input[2..].iter().product::<usize>(), 2.0 / T::EPSILON.to_f64());
        if plane as f64 > most {
            let name = Self::NAME;
            return Err(Error::shape(format!(
                "{name}: expected at most {most} elements per channel, the integers that {} holds exactly, got {input:?}",
                T::NAME
            )));
        }
        Ok(shape)
    }
}

impl<const R: usize, T: Scalar> Parameters for MaxPoolWithIndices<R, T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        self.pool.windows.check(Self::NAME)
    }
}

impl<const R: usize, T: Scalar> Module for MaxPoolWithIndices<R, T> {
    type State = MaxPoolWithIndicesState;

    fn outputs(&self) -> usize {
        2
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected(Self::NAME, 1, inputs.len())?;
        Ok(vec![self.shape(&inputs[0])?; 2])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut MaxPoolWithIndicesState,
        cx: Context,
    ) -> Result<()> {
        self.validate()?;
        inputs_expected(Self::NAME, 1, xs.len())?;
        let (x, shape) = (xs[0], self.shape(xs[0].shape())?);
        let [y, indices] = ys else {
            let name = Self::NAME;
            return Err(Error::shape(format!("{name}: expected two outputs, got {}", ys.len())));
        };
        let positions = &mut state.positions;
        positions.resize(shape.volume(), 0);
        max_pool(x.data(), y.reset(shape), Some(&mut *positions), &self.pool.window(axes_of(x.shape())));
        numbers(positions, indices.reset(shape));
        state.recorded = cx.recording().then_some(*x.shape());
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut MaxPoolWithIndicesState,
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected(Self::NAME, 1, &call, dxs)?;
        let (shape, kept) = (*call.xs[0].shape(), state.positions.len());
        let fits = |dy: &Option<&Tensor<T>>| dy.is_none_or(|dy| dy.len() == kept);
        let (true, [dy, _]) = (state.recorded == Some(shape) && call.dys.iter().all(fits), call.dys) else {
            let name = Self::NAME;
            return Err(Error::not_recorded(format!(
                "{name}: expected the state of a recorded pass of this input"
            )));
        };
        let Some(Some(dx)) = dxs.first_mut() else { return Ok(()) };
        let (plane, dx) = (shape[2..].iter().product(), dx.reset(shape));
        match dy {
            Some(dy) => max_pool_gradient(dy.data(), &state.positions, dx, plane), // dx[index of o] += dy[o]
            None => dx.fill(T::ZERO),
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        let pool = self.pool.spec();
        pool.attributes()
            .iter()
            .fold(Spec::new(Self::NAME), |spec, (name, value)| spec.with(name.as_str(), value.clone()))
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        let outputs = self.output_shapes(inputs)?;
        out.rows_of(Self::NAME, &outputs, 0, &mut |p| self.list(p));
        let bytes = outputs[0].volume().saturating_mul(size_of::<u32>());
        out.hold_in_training(bytes);
        out.hold_in_inference(bytes);
        Ok(outputs)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for MaxPoolWithIndices<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("max over a window, and its place")
        .page("layers/pool/max_pool2d.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.only("return_indices", true)?;
        Ok(MaxPool::from_args(args)?.with_indices())
    }

    fn examples() -> Vec<Example> {
        let overlapping = MaxPool::<R, T>::new(3).stride(2).padding(1).dilation(2).ceil_mode(true);
        vec![
            Example::new(MaxPool::<R, T>::new(2).with_indices().to_spec(), [sized::<R>(2, 3, 4)]),
            Example::new(overlapping.with_indices().to_spec(), [sized::<R>(1, 2, 5)]),
            Example::bench(MaxPool::<R, T>::new(2).with_indices().to_spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Graph, MaxPool1d, MaxPool2d, MaxPool3d, MaxUnpool2d};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (kernel, padding, size) in crate::pool::windows::tests::windows(), stride in 1..4usize, dilation in 1..3usize,
            n in 1..4usize, channels in 1..4usize, ceil in any::<bool>(), rank in 1..4usize,
        ) {
            layer: match rank {
                1 => laws::BoxModule::new(MaxPool1d::<T>::new([kernel[0]]).stride(stride).padding([padding[0]])
                    .dilation(dilation).ceil_mode(ceil).with_indices()),
                2 => laws::BoxModule::new(MaxPool2d::<T>::new(kernel).stride(stride).padding(padding).dilation(dilation)
                    .ceil_mode(ceil).with_indices()),
                _ => laws::BoxModule::new(MaxPool3d::<T>::new([1, kernel[0], kernel[1]]).stride(stride)
                    .padding([0, padding[0], padding[1]]).dilation(dilation).ceil_mode(ceil).with_indices()),
            },
            // Room for a window that is dilated.
            input: {
                let [h, w] = [size[0] + kernel[0], size[1] + kernel[1]];
                match rank {
                    1 => vec![n, channels, h],
                    2 => vec![n, channels, h, w],
                    _ => vec![n, channels, 2, h, w],
                }
            },
            wrong: [n, channels],
        }
    }

    /// Windows (1 5; 2 5) and (0 3; 7 −1) of rows of 4: maxima 5, the first of two, at 1 and 7 at 6. The gradient goes there.
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 1, 2, 4], vec![1., 5., 0., 3., 2., 5., 7., -1.]).unwrap();
        let pair = |a: f64, b: f64| Tensor::from_vec([1, 1, 1, 2], vec![a, b]).unwrap();
        let (layer, mut ys) = (MaxPool2d::new(2).with_indices(), [Tensor::default(), Tensor::default()]);
        let mut state = MaxPoolWithIndicesState::default();
        layer.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
        assert_eq!(ys, [pair(5., 7.), pair(1., 6.)]);
        let (dy, of_indices, mut dx) = (pair(10., 20.), pair(3., 4.), Tensor::default());
        let (xs, dys) = ([&x], [Some(&dy), Some(&of_indices)]);
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut state, &mut Grads::new(&layer), &mut [Some(&mut dx)]).unwrap();
        assert_eq!(dx.data(), [0., 10., 0., 0., 0., 0., 20., 0.]);
    }

    #[test]
    fn an_unpool_puts_the_maxima_back_and_their_gradients_come_back() {
        let mut graph = Graph::of();
        let x = graph.input("x");
        let pool = graph.add("pool", MaxPool2d::new(2).with_indices(), x);
        graph.add("unpool", MaxUnpool2d::new(2), [pool.at(0), pool.at(1)]);
        let x = Tensor::from_vec([1, 1, 2, 4], vec![1., 5., 0., 3., 2., 4., 7., -1.]).unwrap();
        let (mut ys, mut state) = ([Tensor::default()], <Graph<f64> as Module>::State::default());
        graph.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
        assert_eq!(ys[0].data(), [0., 5., 0., 0., 0., 0., 7., 0.]);
        let (dy, mut dx) = (x.clone(), Tensor::default());
        let (xs, dys) = ([&x], [Some(&dy)]);
        let call = ModuleCall::new(&graph, &xs, &ys, &dys).unwrap();
        graph.pull(call, &mut state, &mut Grads::new(&graph), &mut [Some(&mut dx)]).unwrap();
        assert_eq!(dx, ys[0]);
    }

    /// A window of 2 elements 2 apart over one element, with padding 1, sees the padding alone.
    #[test]
    fn a_window_in_the_padding_alone_has_the_index_minus_one() {
        let layer = MaxPool1d::<f32>::new(2).padding(1).dilation(2).with_indices();
        let ys = layer.infer_all(&Tensor::from_vec([1, 1, 1], vec![3.0]).unwrap()).unwrap();
        assert_eq!((ys[0].data(), ys[1].data()), (&[f32::NEG_INFINITY][..], &[-1.0][..]));
    }

    #[test]
    fn planes_whose_indices_are_not_exact_are_refused() {
        let shapes = |side: usize| [Shape::from([1, 1, side, 1 << 12])];
        let (single, double) =
            (MaxPool2d::<f32>::new(2).with_indices(), MaxPool2d::<f64>::new(2).with_indices());
        assert!(single.output_shapes(&shapes(1 << 12)).is_ok());
        let text = single.output_shapes(&shapes((1 << 12) + 1)).unwrap_err().to_string();
        assert!(text.contains("at most 16777216 elements"), "{text}");
        assert!(double.output_shapes(&shapes((1 << 12) + 1)).is_ok());
        assert!(MaxPool2d::<f32>::new(0).with_indices().validate().is_err());
    }
}
