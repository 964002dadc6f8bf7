//! Everything that is checked looks the same from here: a layer of several inputs.

use chainrule_core::{
    Call, Context, Error, Grads, Layer, MultiCall, MultiLayer, Param, Parameters, Params, ParamsMut, Path,
    Result, Rng, Scalar, Shape, Tensor,
};

/// A layer of one input as a layer of several.
#[derive(Clone, Debug)]
pub struct One<L>(pub L);

fn only<V>(inputs: &[V]) -> Result<&V> {
    match inputs {
        [one] => Ok(one),
        _ => Err(Error::shape(format!("expected one input, got {}", inputs.len()))),
    }
}

impl<T: Scalar, L: Layer<T>> MultiLayer<T> for One<L> {
    type Cache = L::Cache;

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.0.output_shape(only(inputs)?)
    }

    fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut L::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        self.0.forward(only(xs)?, y, cache, cx)
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        cache: &mut L::Cache,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let call = Call { x: only(call.xs)?, y: call.y, dy: call.dy };
        self.0.backward(call, cache, grads, dxs[0].as_deref_mut())
    }

    fn reads_output(&self) -> bool {
        self.0.reads_output()
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.params_mut(out);
    }

    fn absorb(&mut self, cache: &L::Cache) {
        self.0.absorb(cache);
    }
}

/// What is checked, with its parameters in sight.
pub(crate) struct Subject<L>(pub(crate) L);

macro_rules! parameters {
    ($($t:ty),*) => {$(
        impl<L: MultiLayer<$t>> Parameters<$t> for Subject<L> {
            fn visit(&self, f: &mut dyn FnMut(&Path<'_>, &Param<$t>)) {
                self.0.params(&mut Params::new(&mut |path, p| f(path, p)));
            }

            fn visit_mut(&mut self, f: &mut dyn FnMut(&Path<'_>, &mut Param<$t>)) {
                self.0.params_mut(&mut ParamsMut::new(&mut |path, p| f(path, p)));
            }
        }
    )*};
}
// One by one: for every `T` at once they could collide with those of a `Layer`.
parameters!(f32, f64);

/// What one forward and one backward give.
#[derive(Clone, Debug)]
pub(crate) struct Pass<T> {
    pub(crate) y: Tensor<T>,
    pub(crate) dxs: Vec<Tensor<T>>,
    pub(crate) grads: Grads<T>,
}

/// The tensors as references.
pub(crate) fn refs<T>(xs: &[Tensor<T>]) -> Vec<&Tensor<T>> {
    xs.iter().collect()
}

impl<L> Subject<L> {
    /// The shape of y for tensors of these shapes.
    pub(crate) fn shape<T: Scalar>(&self, xs: &[Tensor<T>]) -> Result<Shape>
    where
        L: MultiLayer<T>,
    {
        self.0.output_shape(&xs.iter().map(|x| &x.shape()[..]).collect::<Vec<_>>())
    }

    /// One forward into a fresh cache.
    pub(crate) fn forward<T: Scalar>(
        &self,
        xs: &[Tensor<T>],
        mut cx: Context,
    ) -> Result<(Tensor<T>, L::Cache)>
    where
        L: MultiLayer<T>,
    {
        let (mut y, mut cache) = (Tensor::default(), L::Cache::default());
        self.0.forward(&refs(xs), &mut y, &mut cache, &mut cx)?;
        Ok((y, cache))
    }

    /// Adds to `grads` and overwrites those of `dxs` that are wanted.
    pub(crate) fn backward<T: Scalar>(
        &self,
        (xs, y, dy): (&[Tensor<T>], &Tensor<T>, &Tensor<T>),
        cache: &mut L::Cache,
        grads: &mut Grads<T>,
        dxs: &mut [Tensor<T>],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<()>
    where
        L: MultiLayer<T>,
    {
        let mut dxs: Vec<_> = dxs.iter_mut().enumerate().map(|(i, dx)| wanted(i).then_some(dx)).collect();
        self.0.backward(MultiCall { xs: &refs(xs), y, dy }, cache, grads, &mut dxs)
    }

    /// Forward and backward with everything fresh.
    pub(crate) fn pass<T: Scalar>(&self, xs: &[Tensor<T>], dy: &Tensor<T>, cx: Context) -> Result<Pass<T>>
    where
        L: MultiLayer<T>,
        Self: Parameters<T>,
    {
        let (y, mut cache) = self.forward(xs, cx)?;
        let (mut grads, mut dxs) = (Grads::new(self), vec![Tensor::default(); xs.len()]);
        self.backward((xs, &y, dy), &mut cache, &mut grads, &mut dxs, |_| true)?;
        Ok(Pass { y, dxs, grads })
    }
}

/// Numbers of a size around 1, of both signs, none of them near 0: each output counts in E = Σ R ⊙ Y.
pub(crate) fn weights(shape: Shape, rng: &mut Rng) -> Tensor<f64> {
    Tensor::from_fn(shape, |_| {
        let size = 0.5 + rng.uniform();
        if rng.bits() & 1 == 0 { size } else { -size }
    })
}
