//! A layer with a way around it (He, Zhang, Ren and Sun, 2016).
//!
//! ```text
//! y = x + f(x)
//! ```
//!
//! Given g = ∂E/∂y:
//!
//! ```text
//! ∂E/∂x = g + (∂f/∂x)ᵀ g
//! ```
//!
//! Keeps f(x) where the backward pass of f reads it. Derivation: docs/layers/container/residual.md.

use super::{
    bytes,
    children::{Known, Mark, bounded, one_to_one},
    not_recorded, only,
};
use crate::{Linear, Sequential, Tanh};
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Learning,
    Memory, Mode, Module, Parameters, Params, ParamsMut, Parts, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::{add_assign, map2};
use std::{iter, sync::atomic::Ordering::Relaxed};

/// y = x + f(x). It is transparent: the parameters of f keep their names.
///
/// # Shapes
/// f must keep the shape of x.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, Residual};
/// let block = Residual::new(Linear::new(8, 8)).init(1)?;
/// assert_eq!(block.infer(&Tensor::<f32>::zeros([2, 8]))?.shape()[..], [2, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Residual<T: Scalar = f32> {
    inner: BoxModule<T>,
    /// Whether the backward pass of f reads f(x): then it is kept, since y is another tensor.
    keeps: bool,
    mistake: Option<Error>,
    /// Of f, if it was set for a residual layer that is itself the outermost.
    mode: Mode,
    known: Known,
}

impl<T: Scalar> Residual<T> {
    /// A way around a module of one input and one output; another one is a mistake that `check` and `init` return.
    pub fn new(inner: impl Module<T = T> + Clone + 'static) -> Self {
        Self::around(BoxModule::new(inner))
    }

    fn around(inner: BoxModule<T>) -> Self {
        let mut known = Known::default();
        known.push();
        let (inner, bound) = bounded(inner);
        let (keeps, mistake) = (inner.reads_outputs(), bound.and_then(|()| one_to_one(&inner)).err());
        Self { keeps, mistake, mode: Mode::Training, known, inner }
    }

    #[inline]
    fn verdict(&self) -> Result<()> {
        self.mistake.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// An error unless f keeps the shape.
    fn kept(input: &[usize], output: &Shape) -> Result<()> {
        if output[..] == *input {
            return Ok(());
        }
        Err(Error::shape(format!(
            "Residual: expected the inner layer to keep the shape {input:?}, got {output}"
        )))
    }
}

/// What [`Residual`] keeps.
#[derive(Debug)]
pub struct ResidualCache<T> {
    inner: AnyState,
    /// f(x), of y's shape.
    fx: Tensor<T>,
    /// Whose pass over which shape was recorded, if it was.
    recorded: Option<Mark>,
}

impl<T: Scalar> Default for ResidualCache<T> {
    fn default() -> Self {
        Self { inner: AnyState::default(), fx: Tensor::default(), recorded: None }
    }
}

impl<T: Scalar> Layer for Residual<T> {
    type T = T;
    type Cache = ResidualCache<T>;

    fn check(&self) -> Result<()> {
        self.verdict()?;
        self.inner.validate()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.verdict()?;
        let output = self.inner.output_shapes(&[Shape::new(input)?]).and_then(only)?;
        Self::kept(input, &output)?;
        Ok(output)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        self.verdict()?;
        cache.recorded = None;
        let cx = cx.narrow(self.mode);
        if cx.recording() && self.keeps {
            self.inner.apply_one(x, &mut cache.fx, &mut cache.inner, cx)?;
            Self::kept(x.shape(), cache.fx.shape())?;
            map2(x.data(), cache.fx.data(), y.reset(*x.shape()), |(x, fx)| x + fx); // y = x + f(x)
        } else {
            self.inner.apply_one(x, y, &mut cache.inner, cx)?;
            Self::kept(x.shape(), y.shape())?;
            add_assign(y.data_mut(), x.data()); // y = f(x) + x, the same bits
        }
        cache.recorded = cx.recording().then(|| self.known.mark(x.shape()));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let recorded = cache.recorded.as_ref();
        if !recorded.is_some_and(|mark| mark.is_of_pass(&self.known, call.x.shape())) {
            return Err(not_recorded("Residual"));
        }
        if dx.is_none() && !self.known.active(|| iter::once(&self.inner))[0].load(Relaxed) {
            return Ok(());
        }
        let fx = if self.keeps { &cache.fx } else { call.y };
        let inner = Call::recorded(call.x, fx, call.dy)?;
        if !self.inner.differentiable_input(0) {
            self.inner.pull_one(inner, &mut cache.inner, grads, None)?;
            dx.into_iter().for_each(|dx| dx.copy_from(call.dy)); // dx = dy
            return Ok(());
        }
        self.inner.pull_one(inner, &mut cache.inner, grads, dx.as_deref_mut())?; // dx = (∂f/∂x)ᵀ dy
        if let Some(dx) = dx {
            add_assign(dx.data_mut(), call.dy.data()); // dx += dy
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.inner.list(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.known.lend();
        self.inner.list_mut(out);
    }

    fn learning(&self) -> Learning {
        self.known.learning(|| iter::once(&self.inner))
    }

    fn parts(&mut self, out: &mut Parts<'_, T>) {
        out.inner(&mut self.inner);
    }

    fn switch(&mut self, path: &str, mode: Mode) -> Result<()> {
        if !path.is_empty() {
            return self.inner.set_mode(path, mode);
        }
        self.mode = mode;
        self.inner.set_mode("", Mode::Training)
    }

    fn depth(&self) -> usize {
        self.inner.nesting() + 1
    }

    fn memory(&self, cache: &mut Self::Cache, out: &mut Memory<'_, T>) -> Result<()> {
        self.inner.remember(&mut cache.inner, out)
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        if cache.recorded.is_some_and(|mark| mark.is_of(&self.known)) {
            self.inner.fold(&cache.inner);
        }
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        Shape::new(input).map_or(0, |input| self.inner.cost(&[input]))
    }

    fn spec(&self) -> Spec {
        Spec::new("Residual").child(INNER, self.inner.to_spec())
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.verdict()?;
        let wanted = out.requests(0) && self.inner.differentiable_input(0);
        let inner = out.requesting(&[wanted], |out| self.inner.summarize(&[Shape::new(input)?], out));
        let output = inner.and_then(only)?;
        if self.keeps {
            out.hold_in_training(bytes::<T>(&output)); // f(x)
        }
        Self::kept(input, &output)?;
        Ok(output)
    }
}

/// The name of f in a spec; paths of parameters leave it out.
const INNER: &str = "inner";

impl<T: Scalar> FromSpec<T> for Residual<T> {
    const FACTS: Facts =
        Facts::new("Residual").family("container").formula("x + f(x)").page("layers/container/residual.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut children = args.children()?.into_iter();
        match (children.next(), children.next()) {
            (Some((name, inner)), None) if name == INNER => Ok(Self::around(inner)),
            _ => Err(Error::value(format!("Residual: expected one child, `{INNER}`"))),
        }
    }

    fn examples() -> Vec<Example> {
        let deep = |width| {
            let inner = Sequential::<T>::of().add(Linear::new(width, width)).add(Tanh::new());
            Self::new(inner.add(Linear::new(width, width))).spec()
        };
        vec![
            Example::new(Self::new(Tanh::new()).spec(), [[2, 3]]),
            Example::new(deep(4), [[3, 4]]),
            Example::bench(deep(256), [[64, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BatchNorm1d, Concat, Dropout, Embedding, Sigmoid};
    use chainrule_core::{Init, Kind};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, width in 1..7usize) {
            layer: Residual::new(Linear::<T>::new(width, width)),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
        obeys_the_laws_around_a_layer_that_reads_its_output(shape in collection::vec(1..5usize, 1..4)) {
            layer: Residual::new(Sigmoid::<T>::new()),
            input: shape,
        }
        obeys_the_laws_around_several_layers(rows in 4..8usize, width in 1..7usize, p in 0.0..0.9) {
            layer: Residual::new(
                Sequential::<T>::of()
                    .add(Linear::new(width, 5))
                    .add(BatchNorm1d::new(5))
                    .add(Tanh::new())
                    .add(Dropout::new(p))
                    .add(Linear::new(5, width)),
            ),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
    }

    /// f(x) = 3x at x = 5: y = 5 + 15 = 20. For g = 2: ∂x = 2 + 3·2 = 8, ∂w = g x = 10.
    #[test]
    pub fn by_hand() {
        let inner = Linear::<f64>::new(1, 1).bias(false).weight_init(Init::Constant(3.0));
        let layer = Residual::new(inner).init(0).unwrap();
        let (x, dy) = (Tensor::from([[5.0]]), Tensor::from([[2.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ResidualCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&layer);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[20.0][..], &[8.0][..], &[10.0][..]));
    }

    #[test]
    fn another_shape_and_a_module_of_several_inputs_are_mistakes() {
        let layer = Residual::new(Linear::<f64>::new(3, 4));
        let text = layer.output_shape(&[1, 3]).unwrap_err().to_string();
        assert_eq!(text, "Residual: expected the inner layer to keep the shape [1, 3], got [1, 4]");
        let layer = layer.init(0).unwrap();
        assert!(layer.infer(&Tensor::zeros([1, 3])).is_err());
        let error = Residual::new(Concat::<f64>::new(1)).init(0).unwrap_err();
        assert!(matches!(error.kind(), Kind::Value(_)), "{error}");
    }

    /// ∂E/∂x of ids is never requested, so the way around alone has one: dx = dy.
    #[test]
    fn a_layer_without_a_derivative_leaves_the_way_around() {
        let layer =
            Residual::new(Sequential::<f64>::of().add(Embedding::new(4, 1)).add(crate::Flatten::new()));
        let layer = layer.init(0).unwrap();
        let (x, dy) = (Tensor::from([[1.0, 3.0]]), Tensor::from([[5.0, 7.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ResidualCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&layer);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((dx.data(), grads.values()), (dy.data(), &[0.0, 5.0, 0.0, 7.0][..]));
    }
}
