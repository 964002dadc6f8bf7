//! Weight normalisation: a length and a direction for each slice of the weight.
//!
//! ```text
//! W = g v/‖v‖        for each slice along an axis
//! ```
//!
//! Given D = ∂E/∂W, and sums over a slice:
//!
//! ```text
//! ∂E/∂g = Σ D v/‖v‖        ∂E/∂v = g/‖v‖ (D − v Σ D v/‖v‖²)
//! ```
//!
//! Keeps ‖v‖ and g/‖v‖. Derivation: docs/layers/weight/weight_norm.md.

use super::{
    parametrized::{Parametrized, from_args},
    rule::WeightRule,
    slices::{Slices, add_slices, scale_slices},
};
use crate::{Conv1d, Conv2d, Linear};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Grads, Init, Module, Noise, Param, Params, ParamsMut, Result,
    Scalar, Shape, Spec,
};

/// A layer whose weight is W = g v/‖v‖: a learned length g for each slice along an axis of the weight, and a direction
/// (Salimans and Kingma, 2016). g starts as ‖v‖, so that W starts as the weight of the inner layer. A slice of zeros has no
/// direction: it stays as it is.
///
/// # Shapes
/// Those of the inner layer. In place of its `weight` stand `parametrizations.weight.original0`, which is g, with length 1
/// along all axes but one, and `parametrizations.weight.original1`, which is v.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, WeightNorm};
/// let layer = WeightNorm::new(Linear::new(4, 3)).init(1)?;
/// let (x, plain) = (Tensor::<f32>::full([2, 4], 1.0), layer.plain()?);
/// assert_eq!(layer.infer(&x)?, plain.infer(&x)?);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub type WeightNorm<T = f32> = Parametrized<NormRule<T>, T>;

/// The rule of [`WeightNorm`].
#[derive(Clone, Debug)]
pub struct NormRule<T> {
    dim: Option<usize>,
    g: Param<T>,
}

impl<T: Scalar> WeightNorm<T> {
    /// Around a layer, with a length for each slice along axis 0 of its weight: for each output feature.
    pub fn new(inner: impl Module<T = T> + Clone + 'static) -> Self {
        Self::with_rule(NormRule::along(Some(0)), inner)
    }

    /// Another axis, or `None` for one length of the whole weight.
    #[must_use]
    pub fn dim(self, dim: impl Into<Option<usize>>) -> Self {
        self.set(|rule| rule.dim = dim.into())
    }
}

impl<T: Scalar> NormRule<T> {
    fn along(dim: Option<usize>) -> Self {
        Self { dim, g: Param::new("original0", [], Init::ONES) }
    }

    fn slices(&self, shape: &Shape) -> Slices {
        Slices::new(shape, self.dim)
    }
}

/// What [`NormRule`] keeps.
#[derive(Debug, Default)]
pub struct NormCache<T> {
    /// ‖v‖ of each slice, and g/‖v‖.
    norms: Vec<T>,
    a: Vec<T>,
    /// Scratch space: sums of parts of slices, Σ D v, and what v is multiplied by.
    parts: Vec<T>,
    dots: Vec<T>,
    b: Vec<T>,
}

/// The quotient, 0 for nothing.
fn quotient<T: Scalar>(x: T, norm: T) -> T {
    if norm > T::ZERO { x / norm } else { T::ZERO }
}

impl<T: Scalar> WeightRule<T> for NormRule<T> {
    type Cache = NormCache<T>;

    const KIND: &'static str = "WeightNorm";

    fn attach(&mut self, v: &Param<T>) {
        let shape: Option<Vec<usize>> = match self.dim {
            None => Some(Vec::new()),
            Some(dim) => v
                .shape()
                .get(dim)
                .map(|&n| (0..v.shape().len()).map(|axis| if axis == dim { n } else { 1 }).collect()),
        };
        let shape = shape.and_then(|axes| Shape::new(&axes).ok()).unwrap_or_default();
        self.g = Param::new("original0", shape, Init::ONES);
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        match self.dim {
            Some(dim) if dim >= shape.len() => {
                Err(Error::value(format!("WeightNorm: expected an axis of a weight {shape}, got dim {dim}")))
            }
            _ => Ok(()),
        }
    }

    fn list<'a>(&'a self, v: &'a Param<T>, out: &mut Params<'_, 'a, T>) {
        let mut out = out.child("parametrizations");
        let mut out = out.child(v.name());
        out.add(&self.g);
        out.add_as("original1", v);
    }

    fn list_mut<'a>(&'a mut self, v: &'a mut Param<T>, out: &mut ParamsMut<'_, 'a, T>) {
        let mut out = out.child("parametrizations");
        let mut out = out.child(v.name());
        out.add(&mut self.g);
        out.add_as("original1", v);
    }

    /// g = ‖v‖
    fn start(&mut self, v: &Param<T>) {
        if !self.g.is_fresh() || self.check(v.shape()).is_err() {
            return;
        }
        if let (Ok(values), Ok(g)) = (v.value(), self.g.value_mut()) {
            let (slices, mut norms) = (Slices::new(v.shape(), self.dim), Vec::new());
            slices.dots(values, values, &mut Vec::new(), &mut norms);
            g.iter_mut().zip(norms).for_each(|(g, square)| *g = square.sqrt());
        }
    }

    fn weight(&self, v: &Param<T>, w: &mut [T], cache: &mut Self::Cache, _: Option<Noise>) -> Result<()> {
        let (slices, values) = (self.slices(v.shape()), v.value()?);
        let NormCache { norms, parts, a, .. } = cache;
        slices.dots(values, values, parts, norms);
        norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
        a.clear();
        a.extend(self.g.value()?.iter().zip(&*norms).map(|(&g, &norm)| quotient(g, norm)));
        scale_slices(values, a, w, slices.inner); // W = g v/‖v‖
        Ok(())
    }

    fn backward(
        &self,
        v: &Param<T>,
        dw: &[T],
        cache: &mut Self::Cache,
        _: Option<Noise>,
        grads: &mut Grads<T>,
    ) -> Result<()> {
        let (slices, values) = (self.slices(v.shape()), v.value()?);
        let NormCache { norms, parts, dots, a, b } = cache;
        slices.dots(dw, values, parts, dots); // Σ D v
        if let Some(dg) = grads.of(&self.g) {
            for ((dg, &dot), &norm) in dg.iter_mut().zip(&*dots).zip(&*norms) {
                *dg += quotient(dot, norm); // dg += Σ D v/‖v‖
            }
        }
        if let Some(dv) = grads.of(v) {
            b.clear();
            let scales = a.iter().zip(&*dots).zip(&*norms);
            b.extend(scales.map(|((&a, &dot), &norm)| -a * quotient(quotient(dot, norm), norm)));
            add_slices((dw, values), (a, b), dv, slices.inner); // dv += g/‖v‖ (D − v Σ D v/‖v‖²)
        }
        Ok(())
    }

    fn cache_bytes(&self, _: &Shape) -> usize {
        4 * self.g.volume() * size_of::<T>()
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::KIND).with_unless(Some(0), "dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for WeightNorm<T> {
    const FACTS: Facts = Facts::new("WeightNorm")
        .family("weight")
        .formula("f(x), its weight g v/‖v‖")
        .page("layers/weight/weight_norm.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        from_args(|| Ok(NormRule::along(args.or("dim", Some(0))?)), args)
    }

    fn examples() -> Vec<Example> {
        let conv = Conv1d::<T>::new(2, 3, 3).bias(false);
        vec![
            Example::new(Self::new(Linear::<T>::new(4, 3)).to_spec(), [[2, 4]]),
            Example::new(Self::new(Linear::<T>::new(4, 3)).dim(None).to_spec(), [[2, 4]]),
            Example::new(Self::new(conv).dim(2).to_spec(), [[2, 2, 5]]),
            Example::bench(Self::new(Linear::<T>::new(784, 128)).to_spec(), [[128, 784]]),
            Example::bench(Self::new(Conv2d::<T>::new(64, 64, 3).padding(1)).to_spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BatchNorm1d, Bilinear, ConvTranspose2d, Dropout, Embedding, Sequential};
    use chainrule_core::{Context, Parameters, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, inputs in 1..7usize, outputs in 1..7usize, dim in option::of(0..2usize)) {
            layer: WeightNorm::new(Linear::<T>::new(inputs, outputs)).dim(dim),
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
        convolutions_obey_the_laws(
            rows in 1..3usize, inputs in 1..4usize, outputs in 1..4usize, dim in option::of(0..4usize),
        ) {
            layer: WeightNorm::new(Conv2d::<T>::new(inputs, outputs, [2, 3])).dim(dim),
            input: [rows, inputs, 4, 3],
            wrong: [rows, inputs + 1, 4, 3],
        }
        transposed_convolutions_obey_the_laws(rows in 1..3usize, inputs in 1..4usize, dim in 0..4usize) {
            layer: WeightNorm::new(ConvTranspose2d::<T>::new(inputs, 2, [2, 1])).dim(dim),
            input: [rows, inputs, 2, 3],
        }
        tables_obey_the_laws(rows in 1..4usize, width in 1..4usize) {
            layer: WeightNorm::new(Embedding::<T>::new(5, width)),
            input: [rows, 3],
            values: Values::Indices(0..5),
        }
        modules_of_two_inputs_obey_the_laws(rows in 1..4usize, left in 1..4usize, right in 1..4usize) {
            layer: WeightNorm::new(Bilinear::<T>::new(left, right, 2)),
            inputs: [[rows, left], [rows, right]],
        }
        a_part_of_a_container_obeys_the_laws(rows in 3..6usize, width in 1..5usize, p in 0.0..0.8) {
            layer: WeightNorm::new(
                Sequential::<T>::of()
                    .add(Linear::new(width, 4))
                    .add(BatchNorm1d::new(4))
                    .add(Dropout::new(p))
                    .add(Linear::new(4, 2)),
            )
            .on("3.weight"),
            input: [rows, width],
        }
    }

    /// One row v = (3, 4), ‖v‖ = 5, g = 10: W = (6, 8), and x = (1, 2) gives y = 6 + 16 = 22.
    /// For ∂E/∂y = 1, D = x: Σ D v = 3 + 8 = 11, ∂g = 11/5, ∂v = 10/5 ((1, 2) − (3, 4)·11/25) = (−0.64, 0.48).
    /// ∂x = W.
    #[test]
    pub fn by_hand() {
        let mut layer = WeightNorm::<f64>::new(Linear::new(2, 1).bias(false));
        let values = [Tensor::from([[10.0]]), Tensor::from([[3.0, 4.0]])];
        let mut values = values.into_iter();
        let mut names = Vec::new();
        layer.visit_mut(&mut |path, p| {
            names.push(path.to_string());
            p.set(values.next().unwrap()).unwrap();
        });
        assert_eq!(names, ["parametrizations.weight.original0", "parametrizations.weight.original1"]);
        let (y, dx, grads) = pass(&layer, &Tensor::from([[1.0, 2.0]]));
        for (got, want) in [y, dx, grads].concat().into_iter().zip([22.0, 6.0, 8.0, 2.2, -0.64, 0.48]) {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
    }

    /// y, ∂E/∂x and all gradients for ∂E/∂y = 1.
    pub(crate) fn pass<M: Module<T = f64>>(layer: &M, x: &Tensor<f64>) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (mut y, mut dx, mut state) = (Tensor::default(), Tensor::default(), M::State::default());
        layer.apply_one(x, &mut y, &mut state, Context::train(0)).unwrap();
        let (dy, mut grads) = (Tensor::full(*y.shape(), 1.0), Grads::new(layer));
        let call = chainrule_core::Call::recorded(x, &y, &dy).unwrap();
        layer.pull_one(call, &mut state, &mut grads, Some(&mut dx)).unwrap();
        (y.into_vec(), dx.into_vec(), grads.values().to_vec())
    }

    #[test]
    fn it_starts_as_the_inner_layer() {
        let plain = Linear::<f64>::new(4, 3).init(7).unwrap();
        let x = Tensor::from_fn([2, 4], |i| i as f64 - 3.5);
        let near = |a: &Tensor<f64>, b: &Tensor<f64>| {
            a.data().iter().zip(b.data()).for_each(|(a, b)| assert!((a - b).abs() < 1e-14, "{a} for {b}"));
        };
        for dim in [Some(0), Some(1), None] {
            let layer = WeightNorm::new(plain.clone()).dim(dim).start(1).unwrap();
            near(&layer.infer(&x).unwrap(), &plain.infer(&x).unwrap());
            near(&layer.plain().unwrap().infer(&x).unwrap(), &plain.infer(&x).unwrap());
            let layer = layer.init(3).unwrap();
            layer.visit(&mut |_, p| assert!(p.name() != "original0" || !p.is_fresh()));
        }
    }

    #[test]
    fn slices_without_a_direction_stay_as_they_are() {
        let zeros = Linear::<f64>::new(2, 2).weight_init(Init::ZEROS).init(0).unwrap();
        let layer = WeightNorm::new(zeros).start(0).unwrap();
        let (y, dx, grads) = pass(&layer, &Tensor::from([[1.0, 2.0]]));
        assert!(y.iter().chain(&dx).chain(&grads).all(|v| v.is_finite()));
        assert_eq!((dx, grads[..6].to_vec()), (vec![0.0; 2], vec![0.0; 6]));
    }

    #[test]
    fn what_the_inner_layer_does_not_have_is_an_error() {
        let text = |layer: WeightNorm<f32>| layer.init(0).map(drop).unwrap_err().to_string();
        let linear = || Linear::new(2, 3);
        assert_eq!(
            text(WeightNorm::new(linear()).on("wight")),
            "WeightNorm: expected a parameter `wight` of Linear, got `weight`, `bias`"
        );
        assert_eq!(
            text(WeightNorm::new(crate::Relu::new())),
            "WeightNorm: expected a parameter `weight` of Relu, got none"
        );
        assert_eq!(
            text(WeightNorm::new(linear()).dim(2)),
            "WeightNorm: expected an axis of a weight [3, 2], got dim 2"
        );
        assert!(WeightNorm::new(Linear::<f32>::new(2, 3)).start(0).is_err());
    }
}
