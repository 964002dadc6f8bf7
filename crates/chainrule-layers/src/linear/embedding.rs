//! A table of vectors.
//!
//! ```text
//! y = W[x]        ∂E/∂W[i] = Σ over the n with xₙ = i of ∂E/∂yₙ
//! ```
//!
//! With a largest norm m, a row w with ‖w‖ > m is s w with s = m/(‖w‖ + 10⁻⁷), and g = ∂E/∂y adds to its gradient
//!
//! ```text
//! s g − s²/m (g · w) ∂‖w‖/∂w
//! ```
//!
//! x are row indices, which have no derivative: dx is 0. Keeps nothing. Derivation: docs/layers/linear/embedding.md.

use crate::rank::check_shape;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::embedding::{gather, row_indices, scatter_add},
    position,
};

/// Row xₙ of a learned table, for integers xₙ ≥ 0 stored as the tensor's scalar type.
///
/// # Shapes
/// x (…), y (…, D); `weight` (rows, D), which starts as standard normal values.
///
/// # Errors
/// Forward if an element of x is not an integer below the number of rows; the error has its position and value.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Embedding;
/// let words = Embedding::new(10_000, 64).padding_idx(0).init(1)?;
/// let y = words.infer(&Tensor::from([[17.0f32, 4.0, 0.0]]))?;
/// assert_eq!(y.shape()[..], [1, 3, 64]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Embedding<T = f32> {
    rows: usize,
    width: usize,
    padding: Option<usize>,
    max_norm: Option<f64>,
    norm_type: f64,
    by_frequency: bool,
    weight: Param<T>,
}

/// Scratch space of both passes.
#[derive(Debug, Default)]
pub struct EmbeddingCache<T> {
    /// x as row indices.
    ids: Vec<u32>,
    /// Whether they are those of a training pass, after which their rows are brought to the largest norm.
    training: bool,
    /// What each id adds to its row of ∂E/∂W, where that is not ∂E/∂y.
    shares: Vec<T>,
    /// How often each row is named, 0 of all between calls.
    counts: Vec<u32>,
}

impl<T: Scalar> Embedding<T> {
    const INIT: Init = Init::Normal { mean: 0.0, std: 1.0 };

    /// A table of `rows` vectors of `width` elements.
    pub fn new(rows: usize, width: usize) -> Self {
        let weight = Param::new("weight", [rows, width], Self::INIT);
        Self { rows, width, padding: None, max_norm: None, norm_type: 2.0, by_frequency: false, weight }
    }

    /// The row of the padding index: it starts as zeros and never learns.
    #[must_use]
    pub fn padding_idx(mut self, row: impl Into<Option<usize>>) -> Self {
        self.padding = row.into();
        self.weight.set_zero_row(self.padding);
        self
    }

    /// The largest norm of a row: one that is larger is scaled to it where it is looked up, and after a training step in the table.
    #[must_use]
    pub fn max_norm(self, max_norm: impl Into<Option<f64>>) -> Self {
        Self { max_norm: max_norm.into(), ..self }
    }

    /// The p of that norm, (Σ |w|ᵖ)^(1/p), 2 by default; infinite for the largest |w|.
    #[must_use]
    pub fn norm_type(self, norm_type: f64) -> Self {
        Self { norm_type, ..self }
    }

    /// Whether the gradient of a row is divided by how often the batch names it, as PyTorch does it.
    #[must_use]
    pub fn scale_grad_by_freq(self, scale: bool) -> Self {
        Self { by_frequency: scale, ..self }
    }

    /// Another initialiser for the table.
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }

    fn ids<'c>(&self, x: &Tensor<T>, cache: &'c mut EmbeddingCache<T>) -> Result<&'c [u32]> {
        cache.ids.resize(x.len(), 0);
        row_indices(x.data(), self.rows, &mut cache.ids).map_err(|at| {
            Error::index(format!(
                "Embedding: expected integers in 0..{}, got {} at {:?}",
                self.rows,
                x.data()[at],
                position(x.shape(), at)
            ))
        })?;
        Ok(&cache.ids)
    }
}

/// (Σ |w|ᵖ)^(1/p), in f64.
#[inline(always)]
fn norm<T: Scalar>(w: &[T], p: f64) -> f64 {
    let sizes = w.iter().map(|w| w.to_f64().abs());
    if p == 2.0 {
        sizes.map(|w| w * w).sum::<f64>().sqrt()
    } else if p == 1.0 {
        sizes.sum()
    } else if p == f64::INFINITY {
        sizes.fold(0.0, f64::max)
    } else {
        sizes.map(|w| w.powf(p)).sum::<f64>().powf(1.0 / p)
    }
}

/// What is added to a norm that is divided by, as in PyTorch.
const ABOVE: f64 = 1e-7;

compiled! {
    /// Scales each row with ‖w‖ > max by max/(‖w‖ + 10⁻⁷).
    pub(super) fn renormalize[T](rows: &mut [T], d: usize, max: f64, p: f64) {
        for w in rows.chunks_exact_mut(d) {
            let norm = norm(w, p);
            if norm > max {
                let s = T::from_f64(max / (norm + ABOVE));
                w.iter_mut().for_each(|w| *w *= s);
            }
        }
    }
}

compiled! {
    /// g = s g − s²/max (g · w) ∂‖w‖/∂w for each id whose row w has ‖w‖ > max.
    pub(super) fn renormalize_gradient[T](table: &[T], ids: &[u32], d: usize, g: &mut [T], max: f64, p: f64) {
        for (g, &id) in g.chunks_exact_mut(d).zip(ids) {
            let w = &table[id as usize * d..][..d];
            let norm = norm(w, p);
            // A norm that is NaN is scaled by nothing, as in `renormalize`.
            if norm.is_nan() || norm <= max {
                continue;
            }
            let s = max / (norm + ABOVE);
            let dot: f64 = g.iter().zip(w).map(|(g, w)| g.to_f64() * w.to_f64()).sum();
            let largest = w.iter().position(|w| w.to_f64().abs() == norm);
            for (j, (g, w)) in g.iter_mut().zip(w).enumerate() {
                let w = w.to_f64();
                // ∂‖w‖/∂w = sign(w) (|w|/‖w‖)^(p − 1)
                let of_norm = if p == f64::INFINITY {
                    if largest == Some(j) { w.signum() } else { 0.0 }
                } else {
                    w.signum() * (w.abs() / norm).powf(p - 1.0)
                };
                *g = T::from_f64(s * g.to_f64() - s * s / max * dot * of_norm);
            }
        }
    }
}

compiled! {
    /// Divides what each id adds by how often it is named. The counts are 0 before and afterwards.
    pub(super) fn divide[T](ids: &[u32], d: usize, shares: &mut [T], counts: &mut [u32]) {
        ids.iter().for_each(|&id| counts[id as usize] += 1);
        for (share, &id) in shares.chunks_exact_mut(d).zip(ids) {
            let by = T::ONE / T::from_usize(counts[id as usize] as usize);
            share.iter_mut().for_each(|v| *v *= by);
        }
        ids.iter().for_each(|&id| counts[id as usize] = 0);
    }
}

/// Whether rows can be brought to such a norm.
pub(super) fn check_norm(layer: &str, max_norm: Option<f64>, p: f64) -> Result<()> {
    if let Some(max) = max_norm.filter(|max| !(*max > 0.0 && max.is_finite())) {
        return Err(Error::value(format!("{layer}: expected max_norm > 0, got {max}")));
    }
    if p.is_nan() || p < 1.0 {
        return Err(Error::value(format!("{layer}: expected norm_type ≥ 1, got {p}")));
    }
    Ok(())
}

/// Brings the rows of these ids, each of `d` elements, to the largest norm.
pub(super) fn renormalize_rows<T: Scalar>(weight: &mut Param<T>, ids: &[u32], d: usize, max: f64, p: f64) {
    let Ok(weight) = weight.value_mut() else { return };
    for &id in ids {
        if let Some(row) = (id as usize).checked_mul(d).and_then(|at| weight.get_mut(at..)?.get_mut(..d)) {
            renormalize(row, d, max, p);
        }
    }
}

/// Whether a table of such sizes can be, and ids of all its rows.
pub(super) fn check_table<T: Scalar>(
    layer: &str,
    rows: usize,
    width: usize,
    padding: Option<usize>,
) -> Result<()> {
    if rows == 0 || width == 0 {
        return Err(Error::value(format!(
            "{layer}: expected at least one row and one column, got {rows} rows and {width} columns"
        )));
    }
    // Every integer up to 2/ε is exact.
    let most = (2.0 / T::EPSILON.to_f64()).min(f64::from(u32::MAX)) as usize;
    if rows > most {
        return Err(Error::value(format!(
            "{layer}: expected at most {most} rows, the integers that {} holds exactly, got {rows}",
            T::NAME
        )));
    }
    match padding {
        Some(row) if row >= rows => {
            Err(Error::value(format!("{layer}: expected padding_idx below {rows}, got {row}")))
        }
        _ => check_shape(layer, Shape::new(&[rows, width])),
    }
}

/// The attribute `padding_idx`: counted from the end if negative; one before the first row is as wrong as one behind the last.
pub(super) fn padding_row<T: Scalar>(args: &Args<'_, T>, rows: usize) -> Result<Option<usize>> {
    Ok(args.optional::<isize>("padding_idx")?.map(|row| match usize::try_from(row) {
        Ok(row) => row,
        Err(_) => rows.checked_add_signed(row).unwrap_or(usize::MAX),
    }))
}

impl<T: Scalar> Layer for Embedding<T> {
    type T = T;
    type Cache = EmbeddingCache<T>;

    fn check(&self) -> Result<()> {
        check_norm("Embedding", self.max_norm, self.norm_type)?;
        check_table::<T>("Embedding", self.rows, self.width, self.padding)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?.push(self.width)
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut EmbeddingCache<T>,
        cx: Context,
    ) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.training = cx.training();
        let (y, ids) = (y.reset(shape), self.ids(x, cache)?);
        gather(self.weight.value()?, self.width, ids, y); // yₙ = W[xₙ]
        if let Some(max) = self.max_norm {
            renormalize(y, self.width, max, self.norm_type); // yₙ = s yₙ
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut EmbeddingCache<T>,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        self.ids(call.x, cache)?;
        let EmbeddingCache { ids, shares, counts, .. } = cache;
        let (d, padding) = (self.width, self.padding.map(|row| row as u32));
        if let Some(dw) = grads.of_rows(&self.weight, ids, d) {
            let mut rows = call.dy.data();
            if self.max_norm.is_some() || self.by_frequency {
                shares.resize(rows.len(), T::ZERO);
                shares.copy_from_slice(rows);
                if let Some(max) = self.max_norm {
                    renormalize_gradient(self.weight.value()?, ids, d, shares, max, self.norm_type);
                }
                if self.by_frequency {
                    counts.resize(self.rows, 0);
                    divide(ids, d, shares, counts);
                }
                rows = shares;
            }
            scatter_add(ids, None, rows, d, padding, dw); // dW[xₙ] += dyₙ
        }
        if let Some(dx) = dx {
            dx.reset(*call.x.shape()).fill(T::ZERO); // dx = 0
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }

    /// The rows of a training pass are brought to the largest norm.
    fn absorb(&mut self, cache: &Self::Cache) {
        let Some(max) = self.max_norm.filter(|_| cache.training && self.weight.trainable()) else { return };
        renormalize_rows(&mut self.weight, &cache.ids, self.width, max, self.norm_type);
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let ids = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        let shares = if self.max_norm.is_some() || self.by_frequency { self.width } else { 0 };
        let each = shares.saturating_mul(size_of::<T>()).saturating_add(size_of::<u32>());
        let counts = if self.by_frequency { self.rows } else { 0 };
        ids.saturating_mul(each).saturating_add(counts.saturating_mul(size_of::<u32>()))
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("num_embeddings", self.rows)
            .with("embedding_dim", self.width)
            .with("padding_idx", self.padding)
            .with_unless(None, "max_norm", self.max_norm)
            .with_unless(2.0, "norm_type", self.norm_type)
            .with_unless(false, "scale_grad_by_freq", self.by_frequency)
            .with_unless(Self::INIT, "weight_init", self.weight.initializer())
    }
}

impl<T: Scalar> FromSpec<T> for Embedding<T> {
    const FACTS: Facts = Facts::new("Embedding")
        .family("linear")
        .formula("row x of W")
        .page("layers/linear/embedding.md")
        .torch("Embedding");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rows: usize = args.get("num_embeddings")?;
        args.value("sparse"); // without effect
        Ok(Self::new(rows, args.get("embedding_dim")?)
            .padding_idx(padding_row(args, rows)?)
            .max_norm(args.optional::<f64>("max_norm")?)
            .norm_type(args.or("norm_type", 2.0)?)
            .scale_grad_by_freq(args.or("scale_grad_by_freq", false)?)
            .weight_init(args.or("weight_init", Self::INIT)?))
    }

    fn examples() -> Vec<Example> {
        let other = Self::new(4, 2).padding_idx(1).weight_init(Init::xavier_normal());
        vec![
            Example::new(Self::new(5, 3).spec(), [[2, 4]]).ids(5),
            Example::new(other.spec(), [[6]]).ids(4),
            Example::new(
                Self::new(4, 3).max_norm(1.0).norm_type(3.0).scale_grad_by_freq(true).spec(),
                [[2, 3]],
            )
            .ids(4),
            Example::bench(Self::new(10_000, 256).spec(), [[4096]]).ids(10_000),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..9usize, width in 1..7usize, shape in collection::vec(1..4usize, 1..4)) {
            layer: Embedding::new(rows, width),
            input: shape,
            values: Values::Indices(0..rows),
        }
        obeys_the_laws_beside_a_padding_row(rows in 2..9usize, width in 1..7usize, n in 1..6usize) {
            layer: Embedding::new(rows, width).padding_idx(rows - 1),
            input: [n],
            values: Values::Indices(0..rows - 1),
        }
    }

    laws! {
        obeys_the_laws_with_a_largest_norm(
            rows in 1..5usize, width in 1..5usize, n in 1..6usize, max in 0.5..2.0f64,
            p in prop_oneof![Just(1.0), Just(2.0), Just(f64::INFINITY), 1.5..4.0f64],
        ) {
            layer: Embedding::new(rows, width).max_norm(max).norm_type(p),
            input: [n],
            values: Values::Indices(0..rows),
        }
    }

    /// W = (3 4; 0 1), m = 2: ‖W[0]‖ = 5, y = 2/5 (3 4) = (1.2 1.6), and W[1] as it is. For g = (1 0) of W[0]:
    /// s g − s²/m (g · w) w/‖w‖ = 0.4 (1 0) − 0.08·3·(0.6 0.8) = (0.256 −0.192). After the step W[0] is (1.2 1.6).
    #[test]
    fn a_row_above_the_largest_norm_is_scaled_to_it() {
        let mut layer = Embedding::<f64>::new(2, 2).max_norm(2.0);
        layer.weight.set(Tensor::from([[3., 4.], [0., 1.]])).unwrap();
        let (x, dy) = (Tensor::from([0., 1.]), Tensor::from([[1., 0.], [0., 0.]]));
        let (mut y, mut cache, mut grads) =
            (Tensor::default(), EmbeddingCache::default(), Grads::new(&layer));
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        layer.backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, None).unwrap();
        layer.absorb(&cache);
        let near = |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-7);
        assert!(near(y.data(), &[1.2, 1.6, 0., 1.]), "{y:?}");
        assert!(near(grads.values(), &[0.256, -0.192, 0., 0.]), "{:?}", grads.values());
        assert!(near(layer.weight.value().unwrap(), &[1.2, 1.6, 0., 1.]));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Embedding::<f32>::new(2, 2).max_norm(bad).check().is_err());
        }
        for bad in [0.0, 0.5, f64::NAN, f64::NEG_INFINITY] {
            assert!(Embedding::<f32>::new(2, 2).norm_type(bad).check().is_err());
        }
    }

    /// The id 2 is named twice: its gradient (1 2) + (5 6) is halved.
    #[test]
    fn gradients_are_divided_by_how_often_an_id_is_named() {
        let layer = Embedding::<f64>::new(3, 2).scale_grad_by_freq(true).init(0).unwrap();
        let (x, dy) = (Tensor::from([2., 0., 2.]), Tensor::from([[1., 2.], [3., 4.], [5., 6.]]));
        let (y, mut grads) = (layer.infer(&x).unwrap(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut EmbeddingCache::default(), &mut grads, None).unwrap();
        assert_eq!(grads.values(), [3., 4., 0., 0., 3., 4.]);
    }

    /// W = (1 2; 3 4; 5 6), x = (2, 0, 2): y = (5 6; 1 2; 5 6).
    /// For g = (1 2; 3 4; 5 6): ∂W[0] = (3 4), ∂W[1] = 0, ∂W[2] = (1 2) + (5 6) = (6 8).
    #[test]
    pub fn by_hand() {
        let mut layer = Embedding::<f64>::new(3, 2);
        let w = Tensor::from([[1., 2.], [3., 4.], [5., 6.]]);
        layer.weight.set(w.clone()).unwrap();
        let x = Tensor::from([2., 0., 2.]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[5., 6.], [1., 2.], [5., 6.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let call = Call::new(&layer, &x, &y, &w).unwrap();
        layer.backward(call, &mut EmbeddingCache::default(), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(grads.values(), [3., 4., 0., 0., 6., 8.]);
        assert_eq!(dx, Tensor::from([0.; 3]));
    }

    #[test]
    fn the_padding_row_starts_as_zeros_and_learns_nothing() {
        let layer = Embedding::<f64>::new(3, 2).padding_idx(1).init(5).unwrap();
        let w = layer.weight.value().unwrap();
        assert!(w[2..4] == [0.0; 2] && w[..2].iter().chain(&w[4..]).all(|&v| v != 0.0));
        let x = Tensor::from([1., 2.]);
        let y = layer.infer(&x).unwrap();
        let (mut grads, dy) = (Grads::new(&layer), Tensor::from([[1.; 2]; 2]));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut EmbeddingCache::default(), &mut grads, None).unwrap();
        assert_eq!(grads.values(), [0., 0., 0., 0., 1., 1.]);
    }

    #[test]
    fn what_is_no_row_index_is_named_with_its_position() {
        let layer = Embedding::<f32>::new(3, 2).init(0).unwrap();
        let text = |v: f32| layer.infer(&Tensor::from([[0., 1.], [2., v]])).unwrap_err().to_string();
        assert_eq!(text(3.), "Embedding: expected integers in 0..3, got 3 at [1, 1]");
        assert!(text(-1.).contains("got -1 at") && text(0.5).contains("got 0.5 at"));
        assert!(text(f32::NAN).contains("got NaN at"));
    }

    #[test]
    fn any_rank_gains_an_axis() {
        let layer = Embedding::<f32>::new(3, 2).init(0).unwrap();
        for (shape, want) in [(&[][..], &[2][..]), (&[4], &[4, 2]), (&[2, 0, 3], &[2, 0, 3, 2])] {
            let x = Tensor::zeros(Shape::new(shape).unwrap());
            assert_eq!(layer.infer(&x).unwrap().shape()[..], *want);
        }
        assert!(layer.output_shape(&[1; 8]).is_err());
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        assert!(Embedding::<f32>::new(0, 2).init(0).is_err() && Embedding::<f32>::new(2, 0).init(0).is_err());
        assert!(Embedding::<f32>::new(2, 1).padding_idx(2).init(0).is_err());
        let many = (1 << 24) + 1;
        assert!(
            Embedding::<f32>::new(many, 1).check().unwrap_err().to_string().contains("at most 16777216 rows")
        );
        assert!(Embedding::<f64>::new(many, 1).check().is_ok());
    }
}
