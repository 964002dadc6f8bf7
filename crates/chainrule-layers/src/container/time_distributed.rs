//! One module at every step of a sequence.
//!
//! ```text
//! y[n, t] = f(x[n, t])
//! ```
//!
//! Given g = ∂E/∂y:
//!
//! ```text
//! ∂E/∂x[n, t] = (∂f/∂x)ᵀ g[n, t]        ∂E/∂θ = Σₙₜ (∂f/∂θ)ᵀ g[n, t]
//! ```
//!
//! Keeps x. Derivation: docs/layers/container/time_distributed.md.

use super::{
    bytes,
    children::{Known, Mark, bounded, one_to_one},
    not_recorded, only,
};
use crate::{Conv2d, Linear, Relu, Sequential};
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Learning, Mode,
    Module, Parameters, Params, ParamsMut, Parts, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use std::iter;

/// A module at every step of (N, T, …), Keras' `TimeDistributed`: the steps of all sequences are one batch (N·T, …) of it. So a
/// convolution goes over each image of a video, and a layer of (N, features) over each step. Its parameters keep their
/// names.
///
/// Each step is a sample: batch norm has statistics over all of them, and in a stream f has no memory from step to step.
///
/// # Shapes
/// x is (N, T, …), y (N, T, …) with what f makes of the rest.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Conv2d, Flatten, Gru, Sequential, TimeDistributed};
/// let image = Sequential::new().add(Conv2d::new(1, 4, 3)).add(Flatten::new());
/// let video = Sequential::new().add(TimeDistributed::new(image)).add(Gru::new(4 * 6 * 6, 16).last(true)).init(1)?;
/// assert_eq!(video.infer(&Tensor::zeros([2, 5, 1, 8, 8]))?.shape()[..], [2, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct TimeDistributed<T: Scalar = f32> {
    inner: BoxModule<T>,
    mistake: Option<Error>,
    /// Of f, if it was set for one that is itself the outermost.
    mode: Mode,
    known: Known,
}

impl<T: Scalar> TimeDistributed<T> {
    /// A module of one input and one output at every step; another one is a mistake that `check` and `init` return.
    pub fn new(inner: impl Module<T = T> + Clone + 'static) -> Self {
        Self::of(BoxModule::new(inner))
    }

    fn of(inner: BoxModule<T>) -> Self {
        let mut known = Known::default();
        known.push();
        let (inner, bound) = bounded(inner);
        let mistake = bound.and_then(|()| one_to_one(&inner)).err();
        Self { inner, mistake, mode: Mode::Training, known }
    }

    #[inline]
    fn verdict(&self) -> Result<()> {
        self.mistake.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// (N, T, …) as (N·T, …).
fn folded(input: &[usize]) -> Result<Shape> {
    let [n, t, rest @ ..] = input else {
        return Err(Error::shape(format!("TimeDistributed: expected input (N, T, …), got {input:?}")));
    };
    let steps = n.checked_mul(*t).ok_or_else(|| {
        Error::shape(format!("TimeDistributed: expected N and T whose product is a size, got {n} and {t}"))
    })?;
    rest.iter().try_fold(Shape::new(&[steps])?, |shape, &axis| shape.push(axis))
}

/// (N·T, …) as (N, T, …) of the input.
fn unfolded(input: &[usize], output: &Shape) -> Result<Shape> {
    let (n, t) = (input[0], input[1]);
    match output.first() {
        Some(&steps) if steps == n * t => {
            output[1..].iter().try_fold(Shape::new(&[n, t])?, |shape, &axis| shape.push(axis))
        }
        _ => Err(Error::shape(format!(
            "TimeDistributed: expected the inner layer to keep the batch of {n} · {t} steps, got {output}"
        ))),
    }
}

/// What [`TimeDistributed`] keeps.
#[derive(Debug)]
pub struct TimeDistributedCache<T> {
    inner: AnyState,
    /// x, y and ∂E/∂y of all steps as one batch.
    x: Tensor<T>,
    y: Tensor<T>,
    dy: Tensor<T>,
    /// Whose pass over which shape was recorded, if it was.
    recorded: Option<Mark>,
}

impl<T: Scalar> Default for TimeDistributedCache<T> {
    fn default() -> Self {
        Self {
            inner: AnyState::default(),
            x: Tensor::default(),
            y: Tensor::default(),
            dy: Tensor::default(),
            recorded: None,
        }
    }
}

/// A copy in another shape of as many elements.
fn copy_as<T: Scalar>(from: &Tensor<T>, shape: Shape, to: &mut Tensor<T>) {
    to.reset(shape).copy_from_slice(from.data());
}

impl<T: Scalar> Layer for TimeDistributed<T> {
    type T = T;
    type Cache = TimeDistributedCache<T>;

    fn check(&self) -> Result<()> {
        self.verdict()?;
        self.inner.validate()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.verdict()?;
        unfolded(input, &self.inner.output_shapes(&[folded(input)?]).and_then(only)?)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        self.verdict()?;
        cache.recorded = None;
        copy_as(x, folded(x.shape())?, &mut cache.x);
        let cx = cx.narrow(self.mode);
        let inner = match (cx.streaming(), cx.checks_finite()) {
            (false, _) => cx,
            (true, false) => Context::infer(),
            (true, true) => Context::infer().check_finite(),
        };
        self.inner.apply_one(&cache.x, y, &mut cache.inner, inner)?; // y[n, t] = f(x[n, t])
        y.reshape(unfolded(x.shape(), y.shape())?)?;
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
        let TimeDistributedCache { inner, x, y, dy, recorded } = cache;
        let recorded = recorded.as_ref();
        if !recorded.is_some_and(|mark| mark.is_of_pass(&self.known, call.x.shape())) {
            return Err(not_recorded("TimeDistributed"));
        }
        let steps = folded(call.y.shape())?;
        copy_as(call.dy, steps, dy);
        let y = if self.inner.reads_outputs() {
            copy_as(call.y, steps, y);
            &*y
        } else {
            &*dy // of the shape of y, and not read
        };
        if let Some(dx) = dx.take_if(|_| !self.inner.differentiable_input(0)) {
            dx.reset(*call.x.shape()).fill(T::ZERO);
        }
        self.inner.pull_one(Call::recorded(x, y, dy)?, inner, grads, dx.as_deref_mut())?; // dx[n, t] = (∂f/∂x)ᵀ dy[n, t]
        dx.map_or(Ok(()), |dx| dx.reshape(*call.x.shape()))
    }

    fn differentiable(&self) -> bool {
        self.inner.differentiable_input(0)
    }

    fn reads_output(&self) -> bool {
        self.inner.reads_outputs()
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

    fn absorb(&mut self, cache: &Self::Cache) {
        if cache.recorded.is_some_and(|mark| mark.is_of(&self.known)) {
            self.inner.fold(&cache.inner);
        }
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        folded(input).map_or(0, |input| self.inner.cost(&[input]))
    }

    fn spec(&self) -> Spec {
        Spec::new("TimeDistributed").child(INNER, self.inner.to_spec())
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.verdict()?;
        let steps = folded(input)?;
        let wanted = out.requests(0) && self.inner.differentiable_input(0);
        let output = out.requesting(&[wanted], |out| self.inner.summarize(&[steps], out)).and_then(only)?;
        let copies = if self.inner.reads_outputs() { 2 } else { 1 };
        out.hold_in_training(bytes::<T>(&steps).saturating_add(bytes::<T>(&output).saturating_mul(copies)));
        out.hold_in_inference(bytes::<T>(&steps));
        unfolded(input, &output)
    }
}

/// The name of f in a spec; paths of parameters leave it out.
const INNER: &str = "inner";

impl<T: Scalar> FromSpec<T> for TimeDistributed<T> {
    const FACTS: Facts = Facts::new("TimeDistributed")
        .family("container")
        .formula("f(x) of every step")
        .page("layers/container/time_distributed.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut children = args.children()?.into_iter();
        match (children.next(), children.next()) {
            (Some((name, inner)), None) if name == INNER => Ok(Self::of(inner)),
            _ => Err(Error::value(format!("TimeDistributed: expected one child, `{INNER}`"))),
        }
    }

    fn examples() -> Vec<Example> {
        let image = |channels: usize| {
            let images = Sequential::<T>::of().add(Conv2d::new(1, channels, 3)).add(Relu::new());
            Self::new(images).spec()
        };
        vec![
            Example::new(Self::new(Linear::new(4, 3)).spec(), [[2, 3, 4]]),
            Example::new(image(2), [[2, 3, 1, 4, 5]]),
            Example::bench(image(16), [[4, 8, 1, 28, 28]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BatchNorm1d, Concat, Dropout, Embedding, Flatten, Gru, Tanh};
    use chainrule_core::{Init, Kind, Session};
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 16]
        obeys_the_laws(rows in 1..4usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], inputs in 1..5usize, outputs in 1..5usize) {
            layer: TimeDistributed::new(Linear::<T>::new(inputs, outputs)),
            input: [rows, time, inputs],
            wrong: [rows, time, inputs + 1],
            wrong: [rows],
        }
        obeys_the_laws_over_images(rows in 1..3usize, time in 1..4usize, channels in 1..3usize, filters in 1..3usize) {
            layer: TimeDistributed::new(
                Sequential::<T>::of().add(Conv2d::new(channels, filters, 3)).add(Tanh::new()).add(Flatten::new()),
            ),
            input: [rows, time, channels, 4, 3],
        }
        obeys_the_laws_with_noise_and_statistics(rows in 2..4usize, time in 2..4usize, width in 1..4usize, p in 0.0..0.9) {
            layer: TimeDistributed::new(
                Sequential::<T>::of().add(BatchNorm1d::new(width)).add(Dropout::new(p)).add(Linear::new(width, 2)),
            ),
            input: [rows, time, width],
        }
        obeys_the_laws_of_ids(rows in 1..4usize, time in 1..4usize, words in 1..4usize) {
            layer: TimeDistributed::new(Sequential::<T>::of().add(Embedding::new(5, 2)).add(Flatten::new())),
            input: [rows, time, words],
            values: Values::Indices(0..5),
        }
        obeys_the_laws_around_a_sequence(rows in 1..3usize, time in 1..4usize, inner in 1..4usize) {
            layer: TimeDistributed::new(Gru::<T>::new(2, 3).last(true)),
            input: [rows, time, inner, 2],
        }
    }

    /// f(x) = 3x at the steps 5 and 7: y = (15, 21). For g = (2, 1): ∂x = (6, 3), ∂w = 2·5 + 1·7 = 17.
    #[test]
    pub fn by_hand() {
        let inner = Linear::<f64>::new(1, 1).bias(false).weight_init(Init::Constant(3.0));
        let layer = TimeDistributed::new(inner).init(0).unwrap();
        let (x, dy) = (Tensor::from([[[5.0], [7.0]]]), Tensor::from([[[2.0], [1.0]]]));
        let (mut y, mut dx, mut cache) =
            (Tensor::default(), Tensor::default(), TimeDistributedCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&layer);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((y.data(), &y.shape()[..]), (&[15.0, 21.0][..], &[1, 2, 1][..]));
        assert_eq!((dx.data(), &dx.shape()[..]), (&[6.0, 3.0][..], &[1, 2, 1][..]));
        assert_eq!(grads.values(), [17.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let layer = TimeDistributed::new(Linear::<f64>::new(3, 4));
        let text = layer.output_shape(&[3]).unwrap_err().to_string();
        assert_eq!(text, "TimeDistributed: expected input (N, T, …), got [3]");
        assert!(layer.output_shape(&[usize::MAX, 2, 3]).is_err());
        let error = TimeDistributed::new(Concat::<f64>::new(1)).init(0).unwrap_err();
        assert!(matches!(error.kind(), Kind::Value(_)), "{error}");
        let flat = TimeDistributed::new(Flatten::<f64>::new().start_dim(0));
        let text = flat.output_shape(&[2, 3, 4]).unwrap_err().to_string();
        assert!(
            text.contains("expected the inner layer to keep the batch of 2 · 3 steps, got [24]"),
            "{text}"
        );
    }

    /// The steps of a stream are samples: as many at once as there are.
    #[test]
    fn a_stream_of_uneven_pieces_goes_through_a_layer_with_memory() {
        let model = TimeDistributed::new(Gru::<f32>::new(2, 3)).init(1).unwrap();
        let x = Tensor::from_fn([1, 3, 4, 2], |i| i as f32 / 10.0);
        let mut session = Session::new(&model);
        let whole = session.run(&x).unwrap().clone();
        let piece = |from: usize, to: usize| {
            Tensor::from_vec([1, to - from, 4, 2], x.data()[8 * from..8 * to].to_vec()).unwrap()
        };
        for (from, to) in [(0, 2), (2, 3)] {
            assert_eq!(session.stream(&piece(from, to)).unwrap().data(), &whole.data()[12 * from..12 * to]);
        }
    }
}
