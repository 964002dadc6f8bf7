//! A table of vectors.
//!
//! ```text
//! y = W[x]        ∂E/∂W[i] = Σ over the n with xₙ = i of ∂E/∂yₙ
//! ```
//!
//! x are row indices, which have no derivative: dx is 0. Keeps nothing. Derivation: docs/layers/linear/embedding.md.

use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor, Value,
};
use chainrule_tensor::{
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
    weight: Param<T>,
}

/// Scratch space of both passes.
#[derive(Debug, Default)]
pub struct EmbeddingCache {
    /// x as row indices.
    ids: Vec<u32>,
}

impl<T: Scalar> Embedding<T> {
    const INIT: Init = Init::Normal { mean: 0.0, std: 1.0 };

    /// A table of `rows` vectors of `width` elements.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { rows, width, padding: None, weight: Param::new("weight", [rows, width], Self::INIT) }
    }

    /// The row of the padding index: it starts as zeros and never learns.
    #[must_use]
    pub fn padding_idx(mut self, row: impl Into<Option<usize>>) -> Self {
        self.padding = row.into();
        self.weight.set_zero_row(self.padding);
        self
    }

    /// Another initialiser for the table.
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }

    fn ids<'c>(&self, x: &Tensor<T>, cache: &'c mut EmbeddingCache) -> Result<&'c [u32]> {
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
        _ => Shape::new(&[rows, width]).map(drop),
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
    type Cache = EmbeddingCache;

    fn check(&self) -> Result<()> {
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
        cache: &mut EmbeddingCache,
        _: Context,
    ) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let ids = self.ids(x, cache)?;
        gather(self.weight.value()?, self.width, ids, y.reset(shape)); // yₙ = W[xₙ]
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut EmbeddingCache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let ids = self.ids(call.x, cache)?;
        if let Some(dw) = grads.of_rows(&self.weight, ids, self.width) {
            let padding = self.padding.map(|row| row as u32);
            scatter_add(ids, call.dy.data(), self.width, padding, dw); // dW[xₙ] += dyₙ
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
    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        input.iter().fold(size_of::<u32>(), |n, &axis| n.saturating_mul(axis))
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("num_embeddings", self.rows)
            .with("embedding_dim", self.width)
            .with("padding_idx", self.padding)
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
        args.only("max_norm", Value::None)?;
        args.only("scale_grad_by_freq", false)?;
        for without_effect in ["norm_type", "sparse"] {
            args.value(without_effect);
        }
        Ok(Self::new(rows, args.get("embedding_dim")?)
            .padding_idx(padding_row(args, rows)?)
            .weight_init(args.or("weight_init", Self::INIT)?))
    }

    fn examples() -> Vec<Example> {
        let other = Self::new(4, 2).padding_idx(1).weight_init(Init::xavier_normal());
        vec![
            Example::new(Self::new(5, 3).spec(), [[2, 4]]).ids(5),
            Example::new(other.spec(), [[6]]).ids(4),
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
