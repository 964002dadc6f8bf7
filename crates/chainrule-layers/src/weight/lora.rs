//! Low-rank adapters: a weight that stays as it is, and a learned product of two thin matrices beside it.
//!
//! ```text
//! W = W₀ + s B A,   s = α/r        A (r, in), B (out, r)
//! ```
//!
//! In training with dropout, A ⊙ m/(1 − p) stands for A, with one m for each column. Given D = ∂E/∂W:
//!
//! ```text
//! ∂E/∂B = s D Aᵀ        ∂E/∂A = s Bᵀ D        ∂E/∂W₀ = D, if it is not frozen
//! ```
//!
//! Keeps nothing; with dropout, A ⊙ m/(1 − p). Derivation: docs/layers/weight/lora.md.

use super::{
    parametrized::{Parametrized, from_args},
    rule::WeightRule,
    slices::scale_slices,
};
use crate::{Conv2d, Linear};
use chainrule_core::{
    Args, BoxModule, Context, Error, Example, Facts, FromSpec, Grads, Init, Module, Noise, Param, Parameters,
    Params, ParamsMut, Result, Scalar, Shape, Spec,
};
use chainrule_tensor::{
    compiled,
    kernels::{
        elementwise,
        gemm::{Mat, MatMut, matmul},
        layers::noise::dropout,
    },
};

/// A layer with frozen parameters and a learned adapter of rank r: W = W₀ + (α/r) B A (Hu et al., 2022). B starts as zeros,
/// so that the layer starts as the inner one.
///
/// The weight is seen as (out, in): its first axis, and all others. All parameters of the inner layer are frozen when the adapter
/// is put around it; `set_frozen` thaws what shall learn too.
///
/// **Dropout** drops columns of A in training, and scales the others by 1/(1 − p). A column belongs to an input feature (of
/// a convolution, to a channel at a place of the window), and one mask serves the whole batch: the weight is computed once
/// a step. Other implementations drop elements of x, for each sample anew.
///
/// # Shapes
/// Those of the inner layer. Its parameters keep their names; beside its `weight` stand `lora_A` (r, in) and `lora_B`
/// (out, r). An adapter of another parameter has its name before, as in `weight_hh_lora_A`.
///
/// # Examples
/// An adapter around a layer that is trained; `merge` gives a plain layer with W:
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, Lora};
/// let trained = Linear::new(64, 64).init(1)?;
/// let adapted = Lora::new(trained, 4).alpha(8.0).start(2)?;
/// let (x, merged) = (Tensor::<f32>::full([1, 64], 1.0), adapted.merge()?);
/// assert_eq!(adapted.infer(&x)?, merged.infer(&x)?);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub type Lora<T = f32> = Parametrized<LoraRule<T>, T>;

/// The rule of [`Lora`].
#[derive(Clone, Debug)]
pub struct LoraRule<T> {
    rank: usize,
    /// r, if it was not set.
    alpha: Option<f64>,
    dropout: f64,
    /// (r, in)
    a: Param<T>,
    /// (out, r)
    b: Param<T>,
    names: [String; 2],
}

impl<T: Scalar> Lora<T> {
    /// An adapter of rank r around a layer, with α = r: a scale of 1.
    pub fn new(inner: impl Module<T = T> + Clone + 'static, rank: usize) -> Self {
        Self::with_rule(LoraRule::of(rank), inner).with_frozen_base()
    }

    fn with_frozen_base(mut self) -> Self {
        self.inner.set_frozen(true, &|_| true);
        self
    }

    /// Another α: the adapter's product is scaled by α/r.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.rule.alpha = Some(alpha);
        self
    }

    /// The probability that a column of A is dropped for a step of training, 0 by default.
    #[must_use]
    pub fn dropout(mut self, p: f64) -> Self {
        self.rule.dropout = p;
        self
    }

    /// The inner layer with W₀ + s B A as its weight: the same function at the cost of the inner layer. Its parameters learn
    /// again.
    ///
    /// # Errors
    /// As [`Parametrized::plain`].
    pub fn merge(&self) -> Result<BoxModule<T>> {
        let mut merged = self.plain()?;
        merged.set_frozen(false, &|_| true);
        Ok(merged)
    }

    /// The inverse of [`Lora::merge`]: this adapter around a layer whose weight has its product in it, which is taken
    /// off. W₀ comes back but for rounding.
    ///
    /// # Errors
    /// The layer has no such parameter, or a parameter is not initialised.
    pub fn unmerge(&self, merged: BoxModule<T>) -> Result<Self> {
        let mut new = Self::around(self.rule.clone(), merged).on(self.name());
        let v = new.v()?;
        if v.shape() != self.v()?.shape() {
            let (expected, got) = (*self.v()?.shape(), *v.shape());
            return Err(Error::shape(format!("Lora: expected a merged weight {expected}, got {got}")));
        }
        let mut w = v.tensor().cloned().unwrap_or_default();
        v.value()?;
        self.rule.add_product(w.data_mut(), self.rule.a.value()?, -self.rule.scale())?; // W₀ = W − s B A
        let id = v.id();
        new.inner.try_visit_mut(&mut |_, p| if p.id() == id { p.set(w.clone()) } else { Ok(()) })?;
        new.rule = self.rule.clone();
        Ok(new.with_frozen_base())
    }
}

impl<T: Scalar> LoraRule<T> {
    fn of(rank: usize) -> Self {
        let empty = || Param::new("", [], Init::ZEROS);
        Self { rank, alpha: None, dropout: 0.0, a: empty(), b: empty(), names: Default::default() }
    }

    fn scale(&self) -> T {
        T::from_f64(self.alpha.map_or(1.0, |alpha| alpha / self.rank as f64))
    }

    /// (out, in)
    fn sizes(&self) -> (usize, usize) {
        (self.b.volume() / self.rank.max(1), self.a.volume() / self.rank.max(1))
    }

    /// W += by B A
    fn add_product(&self, w: &mut [T], a: &[T], by: T) -> Result<()> {
        let ((o, i), r) = (self.sizes(), self.rank);
        let (a, b) = (Mat::new(a, r, i), Mat::new(self.b.value()?, o, r));
        matmul(by, b, a, T::ONE, MatMut::new(w, o, i));
        Ok(())
    }
}

/// (out, in) of a weight.
fn matrix(shape: &[usize]) -> (usize, usize) {
    shape.split_first().map_or((1, 1), |(&first, rest)| (first, rest.iter().product()))
}

/// What [`LoraRule`] keeps.
#[derive(Debug, Default)]
pub struct LoraCache<T> {
    /// m/(1 − p) of each column, and what the kernel of dropout makes it of.
    columns: Vec<T>,
    ones: Vec<T>,
    /// A ⊙ m/(1 − p)
    dropped: Vec<T>,
    /// Scratch space: s Bᵀ D.
    da: Vec<T>,
}

compiled! {
    /// `y[j, i] += x[j, i] c[i]`
    fn add_columns[T](x: &[T], c: &[T], y: &mut [T]) {
        for (y, x) in y.chunks_exact_mut(c.len()).zip(x.chunks_exact(c.len())) {
            y.iter_mut().zip(x).zip(c).for_each(|((y, &x), &c)| *y += x * c);
        }
    }
}

impl<T: Scalar> WeightRule<T> for LoraRule<T> {
    type Cache = LoraCache<T>;

    const KIND: &'static str = "Lora";

    fn attach(&mut self, v: &Param<T>) {
        let (o, i) = matrix(v.shape());
        self.a = Param::new("lora_A", [self.rank, i], Init::torch_default(i));
        self.b = Param::new("lora_B", [o, self.rank], Init::ZEROS);
        let before = if v.name() == "weight" { String::new() } else { format!("{}_", v.name()) };
        self.names = ["lora_A", "lora_B"].map(|name| format!("{before}{name}"));
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        if shape.len() < 2 {
            return Err(Error::value(format!(
                "Lora: expected a weight of two or more axes, which have a rank, got {shape}"
            )));
        }
        let ((o, i), r) = (matrix(shape), self.rank);
        if r == 0 || r > o.min(i) {
            return Err(Error::value(format!(
                "Lora: expected a rank of 1 to {}, the most that a weight of {o} × {i} has, got {r}",
                o.min(i)
            )));
        }
        match self.alpha {
            Some(alpha) if !(alpha > 0.0 && alpha.is_finite()) => {
                return Err(Error::value(format!("Lora: expected alpha > 0, got {alpha}")));
            }
            _ => {}
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::value(format!("Lora: expected dropout in [0, 1), got {}", self.dropout)));
        }
        Ok(())
    }

    fn list<'a>(&'a self, v: &'a Param<T>, out: &mut Params<'_, 'a, T>) {
        out.add(v);
        out.add_as(&self.names[0], &self.a);
        out.add_as(&self.names[1], &self.b);
    }

    fn list_mut<'a>(&'a mut self, v: &'a mut Param<T>, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(v);
        out.add_as(&self.names[0], &mut self.a);
        out.add_as(&self.names[1], &mut self.b);
    }

    fn noise(&self, cx: Context) -> Option<Noise> {
        cx.child(1).noise().filter(|noise| self.dropout * noise.scale > 0.0)
    }

    fn weight(&self, v: &Param<T>, w: &mut [T], cache: &mut Self::Cache, noise: Option<Noise>) -> Result<()> {
        let (a, (_, i)) = (self.a.value()?, self.sizes());
        let LoraCache { columns, ones, dropped, .. } = cache;
        let a = match noise {
            None => a,
            Some(Noise { key, scale, .. }) => {
                ones.resize(i, T::ONE);
                columns.resize(i, T::ZERO);
                dropped.resize(a.len(), T::ZERO);
                dropout(ones, columns, key, self.dropout * scale);
                scale_slices(a, columns, dropped, 1);
                dropped
            }
        };
        elementwise::copy(v.value()?, w);
        self.add_product(w, a, self.scale()) // W = W₀ + s B A
    }

    fn backward(
        &self,
        v: &Param<T>,
        dw: &[T],
        cache: &mut Self::Cache,
        noise: Option<Noise>,
        grads: &mut Grads<T>,
    ) -> Result<()> {
        let ((o, i), r, s) = (self.sizes(), self.rank, self.scale());
        let (d, b) = (Mat::new(dw, o, i), Mat::new(self.b.value()?, o, r));
        let LoraCache { columns, dropped, da: scratch, .. } = cache;
        if let Some(db) = grads.of(&self.b) {
            let a = if noise.is_some() { &dropped[..] } else { self.a.value()? };
            matmul(s, d, Mat::new(a, r, i).t(), T::ONE, MatMut::new(db, o, r)); // dB += s D Aᵀ
        }
        if let Some(da) = grads.of(&self.a) {
            if noise.is_some() {
                scratch.resize(r * i, T::ZERO);
                matmul(s, b.t(), d, T::ZERO, MatMut::new(scratch, r, i));
                add_columns(scratch, columns, da); // dA += s Bᵀ D ⊙ m/(1 − p)
            } else {
                matmul(s, b.t(), d, T::ONE, MatMut::new(da, r, i)); // dA += s Bᵀ D
            }
        }
        if let Some(dv) = grads.of(v) {
            elementwise::add_assign(dv, dw); // dW₀ += D
        }
        Ok(())
    }

    fn cache_bytes(&self, _: &Shape) -> usize {
        if self.dropout == 0.0 {
            return 0;
        }
        let (_, i) = self.sizes();
        self.a.volume().saturating_add(i).saturating_mul(2 * size_of::<T>())
    }

    fn spec(&self) -> Spec {
        let spec = Spec::new(Self::KIND).with("r", self.rank);
        spec.with("lora_alpha", self.alpha.unwrap_or(self.rank as f64)).with("lora_dropout", self.dropout)
    }
}

impl<T: Scalar> FromSpec<T> for Lora<T> {
    const FACTS: Facts = Facts::new("Lora")
        .family("weight")
        .formula("f(x), its weight W₀ + α/r B A")
        .page("layers/weight/lora.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layer =
            from_args(|| Ok(LoraRule::of(args.get("r")?)), args)?.dropout(args.or("lora_dropout", 0.0)?);
        let layer = match args.optional("lora_alpha")? {
            Some(alpha) => layer.alpha(alpha),
            None => layer,
        };
        Ok(layer.with_frozen_base())
    }

    fn examples() -> Vec<Example> {
        let conv = Conv2d::<T>::new(3, 4, 2);
        vec![
            Example::new(Self::new(Linear::<T>::new(4, 3), 2).to_spec(), [[2, 4]]),
            Example::new(Self::new(conv, 1).alpha(4.0).dropout(0.5).to_spec(), [[2, 3, 3, 3]]),
            Example::bench(Self::new(Linear::<T>::new(784, 128), 8).alpha(16.0).to_spec(), [[128, 784]]),
            Example::bench(
                Self::new(Conv2d::<T>::new(64, 64, 3).padding(1), 8).to_spec(),
                [[16, 64, 32, 32]],
            ),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Bilinear, Sequential, SpectralNorm, Tanh, WeightNorm, weight::weight_norm::tests::pass};
    use chainrule_core::Tensor;
    use chainrule_gradcheck::laws;

    fn thawed<T: Scalar>(mut layer: Lora<T>, thaw: bool) -> Lora<T> {
        if thaw {
            layer.set_frozen(false, &|_| true);
        }
        layer
    }

    laws! {
        obeys_the_laws(
            rows in 1..5usize, (inputs, outputs, rank) in (1..7usize, 1..7usize)
                .prop_flat_map(|(i, o)| (Just(i), Just(o), 1..=i.min(o))),
            alpha in option::of(0.1..20.0f64), p in prop_oneof![Just(0.0), 0.1..0.9f64], thaw in any::<bool>(),
        ) {
            layer: {
                let layer = Lora::new(Linear::<T>::new(inputs, outputs), rank).dropout(p);
                thawed(match alpha { Some(alpha) => layer.alpha(alpha), None => layer }, thaw)
            },
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
        convolutions_obey_the_laws(
            rows in 1..3usize, inputs in 1..4usize, outputs in 2..4usize, rank in 1..3usize,
            p in prop_oneof![Just(0.0), 0.1..0.9f64],
        ) {
            layer: Lora::new(Conv2d::<T>::new(inputs, outputs, [2, 3]), rank).dropout(p).alpha(3.0),
            input: [rows, inputs, 4, 3],
        }
        modules_of_two_inputs_obey_the_laws(rows in 1..4usize, left in 1..4usize, right in 2..4usize) {
            layer: Lora::new(Bilinear::<T>::new(left, right, 2), 2),
            inputs: [[rows, left], [rows, right]],
        }
        adapters_around_other_rules_obey_the_laws(rows in 1..4usize, width in 2..5usize, p in 0.0..0.5) {
            layer: Lora::new(WeightNorm::new(SpectralNorm::new(Linear::<T>::new(width, 3)).on("weight"))
                .on("parametrizations.weight.original"), 2)
                .on("parametrizations.weight.parametrizations.weight.original1")
                .dropout(p),
            input: [rows, width],
        }
        adapters_of_several_parameters_obey_the_laws(rows in 1..4usize, width in 2..5usize) {
            layer: Lora::new(
                Lora::new(
                    Sequential::<T>::of().add(Linear::new(width, 3)).add(Tanh::new()).add(Linear::new(3, 2)),
                    1,
                )
                .on("0.weight"),
                2,
            )
            .on("2.weight"),
            input: [rows, width],
        }
    }

    fn set(layer: &mut Lora<f64>, values: impl IntoIterator<Item = Tensor<f64>>) -> Vec<String> {
        let (mut values, mut names) = (values.into_iter(), Vec::new());
        layer.visit_mut(&mut |path, p| {
            names.push(path.to_string());
            p.set(values.next().unwrap()).unwrap();
        });
        names
    }

    /// W₀ = (1 0; 0 1), A = (1 2), B = (3; 4), α = 2, so s = 2: W = (1 + 6, 12; 8, 1 + 16) = (7 12; 8 17).
    /// x = (1, −1): y = (−5, −9). For ∂E/∂y = (1, 1), D = (1 −1; 1 −1): ∂B = 2 D (1; 2) = (−2; −2),
    /// ∂A = 2 (3 4) D = (14 −14), ∂x = (15, 29); W₀ is frozen.
    #[test]
    pub fn by_hand() {
        let mut layer = Lora::<f64>::new(Linear::new(2, 2).bias(false), 1).alpha(2.0);
        let names = set(
            &mut layer,
            [
                Tensor::from([[1.0, 0.0], [0.0, 1.0]]),
                Tensor::from([[1.0, 2.0]]),
                Tensor::from([[3.0], [4.0]]),
            ],
        );
        assert_eq!(names, ["weight", "lora_A", "lora_B"]);
        let (y, dx, grads) = pass(&layer, &Tensor::from([[1.0, -1.0]]));
        assert_eq!((y, dx), (vec![-5.0, -9.0], vec![15.0, 29.0]));
        assert_eq!(grads, [0.0, 0.0, 0.0, 0.0, 14.0, -14.0, -2.0, -2.0]);
    }

    #[test]
    fn merging_and_unmerging_are_inverse() {
        let mut layer = Lora::<f64>::new(Linear::new(5, 4), 2).alpha(3.0).init(1).unwrap();
        layer.visit_mut(&mut |_, p| p.value_mut().unwrap().iter_mut().for_each(|v| *v += 0.25));
        let (x, y) = (Tensor::from_fn([3, 5], |i| i as f64), |m: &BoxModule<f64>, x| m.infer(x).unwrap());
        let merged = layer.merge().unwrap();
        assert_eq!(y(&merged, &x), layer.infer(&x).unwrap());
        let mut frozen = 0;
        merged.visit(&mut |_, p| frozen += usize::from(!p.trainable()));
        assert_eq!((frozen, merged.to_spec().kind()), (0, "Linear"));
        let again = layer.unmerge(merged).unwrap();
        for (a, b) in y(again.inner(), &x).data().iter().zip(y(layer.inner(), &x).data()) {
            assert!((a - b).abs() < 1e-12, "{a} for {b}");
        }
        for (a, b) in again.infer(&x).unwrap().data().iter().zip(layer.infer(&x).unwrap().data()) {
            assert!((a - b).abs() < 1e-12, "{a} for {b}");
        }
        assert!(layer.unmerge(BoxModule::new(Linear::new(4, 5).init(0).unwrap())).is_err());
    }

    #[test]
    fn it_starts_as_the_inner_layer_which_is_frozen() {
        let plain = Linear::<f64>::new(5, 4).init(7).unwrap();
        let layer = Lora::new(plain.clone(), 2).start(1).unwrap();
        let x = Tensor::from_fn([3, 5], |i| i as f64);
        assert_eq!(layer.infer(&x).unwrap(), plain.infer(&x).unwrap());
        let mut learned = Vec::new();
        layer.visit(&mut |path, p| learned.extend(p.trainable().then(|| path.to_string())));
        assert_eq!(learned, ["lora_A", "lora_B"]);
        let again = crate::registry::<f64>().build_module(&layer.to_spec()).unwrap();
        let mut same = Vec::new();
        again.visit(&mut |path, p| same.extend(p.trainable().then(|| path.to_string())));
        assert_eq!(same, learned);
    }

    #[test]
    fn senseless_settings_are_errors_that_say_why() {
        let layer = |rank| Lora::<f32>::new(Linear::new(4, 3), rank);
        let text = |layer: Lora<f32>| {
            assert!(layer.output_shapes(&[[1, 4].into()]).is_err());
            layer.init(0).map(drop).unwrap_err().to_string()
        };
        assert_eq!(
            text(layer(4)),
            "Lora: expected a rank of 1 to 3, the most that a weight of 3 × 4 has, got 4"
        );
        assert!(text(layer(0)).ends_with("got 0"));
        assert!(text(layer(usize::MAX)).contains("expected a rank"));
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(text(layer(2).alpha(alpha)).contains("expected alpha > 0"));
        }
        for p in [1.0, -0.1, f64::NAN] {
            assert!(text(layer(2).dropout(p)).contains("expected dropout in [0, 1)"));
        }
        assert!(text(layer(1).on("bias")).contains("two or more axes"));
    }
}
