//! A learned vector for each position, added.
//!
//! ```text
//! y_t = x_t + w_t        ∂E/∂x = ∂E/∂y        ∂E/∂w_t = Σₙ ∂E/∂y_{n,t}
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/attention/learned_position.md.

use crate::rank::{check_shape, check_sizes};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Memory, Param, Params,
    ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::{
    elementwise::{add_assign, copy},
    reduce::add_rows_to,
};

const KIND: &str = "LearnedPosition";

/// y = x + w, where w_t is learned for each position t. Gehring et al., 2017.
///
/// # Shapes
/// x and y (…, T, E), T at most `max_len`; `weight` (`max_len`, E), which starts normal with standard deviation 0.02. Under
/// [`Context::stream`] positions run on from piece to piece.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::LearnedPosition;
/// let layer = LearnedPosition::new(16, 4).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([2, 10, 4]))?.shape()[..], [2, 10, 4]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LearnedPosition<T = f32> {
    max_len: usize,
    dim: usize,
    weight: Param<T>,
}

const INIT: Init = Init::Normal { mean: 0.0, std: 0.02 };

impl<T: Scalar> LearnedPosition<T> {
    /// Vectors of `dim` elements for `max_len` positions.
    pub fn new(max_len: usize, dim: usize) -> Self {
        Self { max_len, dim, weight: Param::new("weight", [max_len, dim], INIT) }
    }

    /// Another initialiser for the vectors.
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }
}

impl<T: Scalar> Layer for LearnedPosition<T> {
    type T = T;
    /// Positions that a stream has seen.
    type Cache = usize;

    fn check(&self) -> Result<()> {
        check_sizes(KIND, "max_len and dim", 1, [self.max_len, self.dim])?;
        check_shape(KIND, Shape::new(&[self.max_len, self.dim]))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match input {
            [.., t, e] if *e == self.dim && *t <= self.max_len => Shape::new(input),
            _ => Err(Error::shape(format!(
                "{KIND}: expected input (.., T, {}) with T at most {}, got {input:?}",
                self.dim, self.max_len
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, past: &mut usize, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let t = shape[shape.len() - 2];
        let first = if cx.streaming() { *past } else { 0 };
        if first + t > self.max_len {
            return Err(Error::shape(format!(
                "{KIND}: expected at most {} positions of a sequence, got {first} and {t} more",
                self.max_len
            )));
        }
        let w = &self.weight.value()?[first * self.dim..][..t * self.dim];
        let y = y.reset(shape);
        copy(x.data(), y);
        if !y.is_empty() {
            y.chunks_exact_mut(t * self.dim).for_each(|y| add_assign(y, w)); // y = x + w
        }
        *past = if cx.streaming() { first + t } else { 0 };
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut usize,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let t = call.x.shape()[call.x.shape().len() - 2];
        if let Some(dw) = grads.of(&self.weight).filter(|_| !call.dy.is_empty()) {
            add_rows_to(call.dy.data(), &mut dw[..t * self.dim]); // dw_t += Σₙ dy
        }
        if let Some(dx) = dx {
            copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        }
        Ok(())
    }

    fn memory(&self, past: &mut usize, out: &mut Memory<'_, T>) -> Result<()> {
        out.count("past", past)
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }

    fn spec(&self) -> Spec {
        Spec::new(KIND).with("max_len", self.max_len).with("dim", self.dim).with_unless(
            INIT,
            "weight_init",
            self.weight.initializer(),
        )
    }
}

impl<T: Scalar> FromSpec<T> for LearnedPosition<T> {
    const FACTS: Facts =
        Facts::new(KIND).family("attention").formula("x + w_t").page("layers/attention/learned_position.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("max_len")?, args.get("dim")?).weight_init(args.or("weight_init", INIT)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(5, 4).spec(), [[2, 3, 4]]),
            Example::new(Self::new(5, 2).weight_init(Init::ZEROS).spec(), [[1, 5, 2]]),
            Example::bench(Self::new(256, 256).spec(), [[16, 256, 256]]),
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
            rows in collection::vec(1..3usize, 0..3), time in prop_oneof![Just(1), Just(3), Just(7usize)], dim in 1..6usize,
            more in 0..3usize,
        ) {
            layer: LearnedPosition::new(time + more, dim),
            input: [rows.clone(), vec![time, dim]].concat(),
            sequence: rows.len(),
            batch_axis_of(0): (!rows.is_empty()).then_some(0),
            large: vec![400, time, dim],
            wrong: [rows.clone(), vec![time, dim + 1]].concat(),
            wrong: [rows.clone(), vec![time + more + 1, dim]].concat(),
        }
    }

    /// w = (1 2; 3 4; 5 6), two samples of two positions, x = 0: y = (1 2; 3 4) of both. For g = 1 everywhere, ∂w = (2 2; 2 2; 0 0).
    #[test]
    pub fn by_hand() {
        let mut layer = LearnedPosition::<f64>::new(3, 2);
        layer.weight.set(Tensor::from([[1., 2.], [3., 4.], [5., 6.]])).unwrap();
        let x = Tensor::zeros([2, 2, 2]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y.data(), [1., 2., 3., 4., 1., 2., 3., 4.]);
        let (mut grads, dy) = (Grads::new(&layer), Tensor::full([2, 2, 2], 1.0));
        layer.backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut 0, &mut grads, None).unwrap();
        assert_eq!(grads.values(), [2., 2., 2., 2., 0., 0.]);
    }

    #[test]
    fn a_stream_that_is_too_long_says_so() {
        use chainrule_core::{Parameters, Session};
        let layer = LearnedPosition::<f32>::new(3, 1).init(0).unwrap();
        let mut session = Session::new(&layer);
        session.stream(&Tensor::zeros([1, 2, 1])).unwrap();
        let error = session.stream(&Tensor::zeros([1, 2, 1])).unwrap_err().to_string();
        assert_eq!(error, "LearnedPosition: expected at most 3 positions of a sequence, got 2 and 2 more");
    }
}
