//! Spectral normalisation: the weight divided by its largest singular value.
//!
//! ```text
//! W = V/σ,   σ = uᵀ V v,   V as a matrix
//! v ← Vᵀ u/‖Vᵀ u‖,   u ← V v/‖V v‖        after each step of training
//! ```
//!
//! Given D = ∂E/∂W, with u and v constant:
//!
//! ```text
//! ∂E/∂V = (D − u vᵀ Σ D W)/σ
//! ```
//!
//! Keeps σ. Derivation: docs/layers/weight/spectral_norm.md.

use super::{
    parametrized::{Parametrized, from_args},
    rule::WeightRule,
    slices::{Slices, scale_slices},
};
use crate::{Conv2d, ConvTranspose2d, Linear};
use chainrule_core::{
    Args, BoxModule, Error, Example, Facts, FromSpec, Grads, Init, Module, Noise, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec,
};
use chainrule_tensor::kernels::{
    elementwise::add_scaled,
    gemm::{Mat, MatMut, matmul},
    reduce::dot,
};

/// A layer whose weight is divided by an estimate of its largest singular value, so that a linear map does not make any
/// vector longer (Miyato, Kataoka, Koyama and Yoshida, 2018).
///
/// The weight is seen as a matrix of one axis by all others. The estimate is uᵀ V v. A power iteration moves u and v after
/// each step of training, as batch norm moves its statistics: so a pass sees u and v that fit the weight of this step, and
/// nothing moves during it. Fifteen iterations make the first ones.
///
/// # Shapes
/// Those of the inner layer. In place of its `weight` stand `parametrizations.weight.original` and the buffers
/// `parametrizations.weight.0._u` (n) and `parametrizations.weight.0._v` (all other axes).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, SpectralNorm};
/// let layer = SpectralNorm::new(Linear::new(2, 2).bias(false)).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::from([[0.6, 0.8]]))?;
/// assert!(y.data().iter().map(|y| y * y).sum::<f32>() <= 1.0 + 1e-4);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub type SpectralNorm<T = f32> = Parametrized<SpectralRule<T>, T>;

/// The rule of [`SpectralNorm`].
#[derive(Clone, Debug)]
pub struct SpectralRule<T> {
    dim: usize,
    iterations: usize,
    eps: f64,
    u: Param<T>,
    v: Param<T>,
}

/// Iterations before the first step, as in PyTorch.
const FIRST: usize = 15;

impl<T: Scalar> SpectralNorm<T> {
    /// Around a layer, by axis 0 of its weight, the output features; axis 1 of transposed convolutions, whose weight is
    /// (in, out, …). One iteration a step, ε = 10⁻¹².
    pub fn new(inner: impl Module<T = T> + Clone + 'static) -> Self {
        let inner = BoxModule::new(inner);
        Self::around(SpectralRule::new(default_dim(&inner)), inner)
    }

    /// Another axis for the rows of the matrix.
    #[must_use]
    pub fn dim(self, dim: usize) -> Self {
        self.set(|rule| rule.dim = dim)
    }

    /// The iterations after each step, 1 by default.
    #[must_use]
    pub fn n_power_iterations(mut self, iterations: usize) -> Self {
        self.rule.iterations = iterations;
        self
    }

    /// The least length that is divided by in an iteration, 10⁻¹² by default.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.rule.eps = eps;
        self
    }
}

fn default_dim<T: Scalar>(inner: &BoxModule<T>) -> usize {
    usize::from(inner.to_spec().kind().starts_with("ConvTranspose"))
}

impl<T: Scalar> SpectralRule<T> {
    fn new(dim: usize) -> Self {
        let vector = |name| Param::buffer(name, [], Init::Normal { mean: 0.0, std: 1.0 });
        Self { dim, iterations: 1, eps: 1e-12, u: vector("_u"), v: vector("_v") }
    }

    fn slices(&self, shape: &Shape) -> Slices {
        Slices::new(shape, Some(self.dim))
    }

    /// Iterations from u on.
    fn iterate(&mut self, weight: &Param<T>, iterations: usize) {
        if self.check(weight.shape()).is_err() {
            return;
        }
        let slices = self.slices(weight.shape());
        let (Ok(matrix), Ok(u), Ok(v)) = (weight.value(), self.u.value_mut(), self.v.value_mut()) else {
            return;
        };
        for _ in 0..iterations {
            times_transposed(slices, matrix, u, v);
            normalize(v, self.eps); // v = Vᵀ u/‖Vᵀ u‖
            times(slices, matrix, v, u);
            normalize(u, self.eps); // u = V v/‖V v‖
        }
    }
}

/// u = V v
fn times<T: Scalar>(Slices { outer, n, inner }: Slices, matrix: &[T], v: &[T], u: &mut [T]) {
    if inner == 1 {
        let matrix = Mat::new(matrix, outer, n).t();
        return matmul(T::ONE, matrix, Mat::new(v, outer, 1), T::ZERO, MatMut::new(u, n, 1));
    }
    for (o, (block, v)) in matrix.chunks_exact(n * inner).zip(v.chunks_exact(inner)).enumerate() {
        let before = if o == 0 { T::ZERO } else { T::ONE };
        matmul(T::ONE, Mat::new(block, n, inner), Mat::new(v, inner, 1), before, MatMut::new(u, n, 1));
    }
}

/// v = Vᵀ u
fn times_transposed<T: Scalar>(Slices { outer, n, inner }: Slices, matrix: &[T], u: &[T], v: &mut [T]) {
    if inner == 1 {
        let matrix = Mat::new(matrix, outer, n);
        return matmul(T::ONE, matrix, Mat::new(u, n, 1), T::ZERO, MatMut::new(v, outer, 1));
    }
    for (block, v) in matrix.chunks_exact(n * inner).zip(v.chunks_exact_mut(inner)) {
        let block = Mat::new(block, n, inner).t();
        matmul(T::ONE, block, Mat::new(u, n, 1), T::ZERO, MatMut::new(v, inner, 1));
    }
}

/// V += a u vᵀ
fn add_outer<T: Scalar>(Slices { outer, n, inner }: Slices, a: T, u: &[T], v: &[T], matrix: &mut [T]) {
    if inner == 1 {
        let (v, u) = (Mat::new(v, outer, 1), Mat::new(u, 1, n));
        return matmul(a, v, u, T::ONE, MatMut::new(matrix, outer, n));
    }
    for (block, v) in matrix.chunks_exact_mut(n * inner).zip(v.chunks_exact(inner)) {
        matmul(a, Mat::new(u, n, 1), Mat::new(v, 1, inner), T::ONE, MatMut::new(block, n, inner));
    }
}

/// x/max(‖x‖, ε)
fn normalize<T: Scalar>(x: &mut [T], eps: f64) {
    let norm = dot(x, x).sqrt().max(eps);
    let by = T::from_f64(1.0 / norm);
    x.iter_mut().for_each(|x| *x *= by);
}

/// What [`SpectralRule`] keeps.
#[derive(Debug, Default)]
pub struct SpectralCache<T> {
    sigma: f64,
    /// Scratch space: V v.
    product: Vec<T>,
}

impl<T: Scalar> WeightRule<T> for SpectralRule<T> {
    type Cache = SpectralCache<T>;

    const KIND: &'static str = "SpectralNorm";

    fn attach(&mut self, v: &Param<T>) {
        let new = Self::new(self.dim);
        (self.u, self.v) = (new.u, new.v);
        if self.check(v.shape()).is_ok() {
            let Slices { outer, n, inner } = self.slices(v.shape());
            let init = self.u.initializer();
            self.u = Param::buffer("_u", [n], init);
            self.v = Param::buffer("_v", [outer * inner], init);
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let Self { dim, iterations, eps, .. } = self;
        if shape.len() < 2 || *dim >= shape.len() {
            return Err(Error::value(format!(
                "SpectralNorm: expected an axis of a weight of two or more, got dim {dim} of {shape}"
            )));
        }
        if !(1..=1000).contains(iterations) {
            return Err(Error::value(format!(
                "SpectralNorm: expected 1 to 1000 power iterations, got {iterations}"
            )));
        }
        if !(*eps > 0.0 && eps.is_finite()) {
            return Err(Error::value(format!("SpectralNorm: expected eps > 0, got {eps}")));
        }
        Ok(())
    }

    fn list<'a>(&'a self, v: &'a Param<T>, out: &mut Params<'_, 'a, T>) {
        let mut out = out.child("parametrizations");
        let mut out = out.child(v.name());
        out.add_as("original", v);
        let mut out = out.child("0");
        out.add(&self.u);
        out.add(&self.v);
    }

    fn list_mut<'a>(&'a mut self, v: &'a mut Param<T>, out: &mut ParamsMut<'_, 'a, T>) {
        let mut out = out.child("parametrizations");
        let mut out = out.child(v.name());
        out.add_as("original", v);
        let mut out = out.child("0");
        out.add(&mut self.u);
        out.add(&mut self.v);
    }

    fn start(&mut self, v: &Param<T>) {
        if self.u.is_fresh() && self.v.is_fresh() {
            self.iterate(v, FIRST);
        }
    }

    fn weight(&self, v: &Param<T>, w: &mut [T], cache: &mut Self::Cache, _: Option<Noise>) -> Result<()> {
        let (slices, matrix, u) = (self.slices(v.shape()), v.value()?, self.u.value()?);
        let SpectralCache { sigma, product } = cache;
        product.resize(slices.n, T::ZERO);
        times(slices, matrix, self.v.value()?, product);
        *sigma = dot(u, product); // σ = uᵀ V v
        scale_slices(matrix, &[T::from_f64(1.0 / *sigma)], w, matrix.len()); // W = V/σ
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
        let (slices, matrix, sigma) = (self.slices(v.shape()), v.value()?, cache.sigma);
        if let Some(dv) = grads.of(v) {
            add_scaled(dv, T::from_f64(1.0 / sigma), dw);
            let by = T::from_f64(-dot(dw, matrix) / (sigma * sigma)); // −Σ D W/σ
            add_outer(slices, by, self.u.value()?, self.v.value()?, dv); // dV += (D − u vᵀ Σ D W)/σ
        }
        Ok(())
    }

    fn advance(&mut self, v: &Param<T>) {
        self.iterate(v, self.iterations);
    }

    fn cache_bytes(&self, _: &Shape) -> usize {
        self.u.volume() * size_of::<T>()
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::KIND)
            .with("n_power_iterations", self.iterations)
            .with("eps", self.eps)
            .with("dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for SpectralNorm<T> {
    const FACTS: Facts = Facts::new("SpectralNorm")
        .family("weight")
        .formula("f(x), its weight V/σ(V)")
        .page("layers/weight/spectral_norm.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layer = from_args(|| Ok(SpectralRule::new(0)), args)?;
        let (iterations, eps) = (args.or("n_power_iterations", 1)?, args.or("eps", 1e-12)?);
        let dim = args.optional("dim")?.unwrap_or_else(|| default_dim(layer.inner()));
        Ok(layer.dim(dim).n_power_iterations(iterations).eps(eps))
    }

    fn examples() -> Vec<Example> {
        let transposed = ConvTranspose2d::<T>::new(3, 2, 2);
        vec![
            Example::new(Self::new(Linear::<T>::new(4, 3)).to_spec(), [[2, 4]]),
            Example::new(Self::new(transposed).n_power_iterations(3).eps(1e-6).to_spec(), [[2, 3, 2, 2]]),
            Example::new(Self::new(Conv2d::<T>::new(2, 3, 2)).dim(3).to_spec(), [[1, 2, 3, 3]]),
            Example::bench(Self::new(Linear::<T>::new(784, 128)).to_spec(), [[128, 784]]),
            Example::bench(Self::new(Conv2d::<T>::new(64, 64, 3).padding(1)).to_spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Embedding, weight::weight_norm::tests::pass};
    use chainrule_core::{Context, Parameters, Pass, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..5usize, inputs in 1..7usize, outputs in 1..7usize, dim in 0..2usize, steps in 1..4usize,
        ) {
            layer: SpectralNorm::new(Linear::<T>::new(inputs, outputs)).dim(dim).n_power_iterations(steps),
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
        convolutions_obey_the_laws(rows in 1..3usize, inputs in 1..4usize, outputs in 1..4usize, dim in 0..4usize) {
            layer: SpectralNorm::new(Conv2d::<T>::new(inputs, outputs, [2, 3])).dim(dim),
            input: [rows, inputs, 4, 3],
        }
        transposed_convolutions_obey_the_laws(rows in 1..3usize, inputs in 1..4usize) {
            layer: SpectralNorm::new(ConvTranspose2d::<T>::new(inputs, 2, [2, 1])),
            input: [rows, inputs, 2, 3],
        }
        tables_obey_the_laws(rows in 1..4usize, width in 1..4usize) {
            layer: SpectralNorm::new(Embedding::<T>::new(5, width)),
            input: [rows, 3],
            values: Values::Indices(0..5),
        }
    }

    fn set<M: Parameters<T = f64>>(
        layer: &mut M,
        values: impl IntoIterator<Item = Tensor<f64>>,
    ) -> Vec<String> {
        let (mut values, mut names) = (values.into_iter(), Vec::new());
        layer.visit_mut(&mut |path, p| {
            names.push(path.to_string());
            p.set(values.next().unwrap()).unwrap();
        });
        names
    }

    fn values<M: Parameters<T = f64>>(layer: &M) -> Vec<Vec<f64>> {
        let mut values = Vec::new();
        layer.visit(&mut |_, p| values.push(p.value().unwrap().to_vec()));
        values
    }

    /// V = (2 0; 0 4), u = (0, 1), v = (0, 1): σ = 4, W = (½ 0; 0 1), and x = (2, 3) gives y = (1, 3).
    /// For ∂E/∂y = (1, 1), D = (2 3; 2 3): Σ D W = 1 + 3 = 4, ∂V = ((2 3; 2 3) − 4 (0 0; 0 1))/4 = (½ ¾; ½ −¼).
    /// ∂x = (½, 1).
    #[test]
    pub fn by_hand() {
        let mut layer = SpectralNorm::<f64>::new(Linear::new(2, 2).bias(false));
        let names = set(
            &mut layer,
            [Tensor::from([[2.0, 0.0], [0.0, 4.0]]), Tensor::from([0.0, 1.0]), Tensor::from([0.0, 1.0])],
        );
        let stem = "parametrizations.weight";
        assert_eq!(names, [format!("{stem}.original"), format!("{stem}.0._u"), format!("{stem}.0._v")]);
        let (y, dx, grads) = pass(&layer, &Tensor::from([[2.0, 3.0]]));
        assert_eq!((y, dx, grads), (vec![1.0, 3.0], vec![0.5, 1.0], vec![0.5, 0.75, 0.5, -0.25]));
    }

    /// V = (3 0; 0 4) and u = (0.6, 0.8): Vᵀ u = (1.8, 3.2), then V v is along (5.4, 12.8).
    #[test]
    fn an_iteration_follows_each_step_of_training() {
        let mut layer = SpectralNorm::<f64>::new(Linear::new(2, 2).bias(false));
        let start =
            [Tensor::from([[3.0, 0.0], [0.0, 4.0]]), Tensor::from([0.6, 0.8]), Tensor::from([1.0, 0.0])];
        set(&mut layer, start);
        let before = values(&layer);
        let x = Tensor::from([[1.0, 1.0]]);
        let mut pass = Pass::new(&layer);
        for cx in [Context::frozen(), Context::infer()] {
            pass.forward(&layer, &x, cx).unwrap();
            layer.fold(pass.state());
            assert_eq!(values(&layer), before, "{cx:?}");
        }
        pass.forward(&layer, &x, Context::train(0)).unwrap();
        layer.fold(pass.state());
        let (v, u) = ((1.8f64.powi(2) + 3.2f64.powi(2)).sqrt(), (5.4f64.powi(2) + 12.8f64.powi(2)).sqrt());
        let after = values(&layer);
        for (got, want) in after[1..].concat().into_iter().zip([5.4 / u, 12.8 / u, 1.8 / v, 3.2 / v]) {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
    }

    /// The singular values of (1 2; 3 4) are √(15 ± √221).
    #[test]
    fn iterations_find_the_largest_singular_value() {
        let mut plain = Linear::<f64>::new(2, 2).bias(false).init(0).unwrap();
        set(&mut plain, [Tensor::from([[1.0, 2.0], [3.0, 4.0]])]);
        let layer = SpectralNorm::new(plain).start(1).unwrap();
        let w = layer.plain().unwrap();
        let sigma = (15.0 + 221f64.sqrt()).sqrt();
        for (got, want) in values(&w).concat().into_iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((got - want / sigma).abs() < 1e-10, "{got} for {want}/σ");
        }
    }

    #[test]
    fn senseless_settings_are_errors() {
        let layer = || SpectralNorm::<f32>::new(Linear::new(2, 2));
        let wrong = [
            layer().dim(2),
            layer().n_power_iterations(0),
            layer().n_power_iterations(usize::MAX),
            layer().eps(0.0),
            layer().eps(f64::NAN),
            layer().eps(f64::INFINITY),
            layer().on("bias"),
        ];
        for layer in wrong {
            assert!(layer.output_shapes(&[[1, 2].into()]).is_err());
            assert!(layer.init(0).is_err());
        }
    }
}
