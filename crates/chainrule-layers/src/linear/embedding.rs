//! A table of vectors.
//!
//! ```text
//! y = W[x]        ∂E/∂W[i] = Σ over the n with xₙ = i of ∂E/∂yₙ
//! ```
//!
//! x are row numbers: there is no gradient in them, and dx is 0. Keeps nothing. Derivation: docs/layers/linear/embedding.md.

use chainrule_core::{
    Call, Context, Error, Grads, Init, Layer, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::embedding::{gather, row_numbers, scatter_add};

/// Row xₙ of a learned table, for whole numbers xₙ ≥ 0 of the tensor's own scalar type.
///
/// # Shapes
/// x (…), y (…, D); `weight` (rows, D), which starts as standard normal numbers.
///
/// # Errors
/// Forward if an element of x is not a whole number below the number of rows; the error has its position and value.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Embedding;
/// let words = Embedding::new(10_000, 64).padding_idx(0).init(1)?;
/// let y = words.infer(&Tensor::from([[17.0f32, 4.0, 0.0]]))?;
/// assert_eq!(y.shape()[..], [1, 3, 64]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Embedding<T = f32> {
    rows: usize,
    width: usize,
    padding: Option<usize>,
    weight: Param<T>,
}

/// Scratch of both passes.
#[derive(Debug, Default)]
pub struct EmbeddingCache {
    /// x as row numbers.
    ids: Vec<u32>,
}

impl<T: Scalar> Embedding<T> {
    /// A table of `rows` vectors of `width` numbers.
    pub fn new(rows: usize, width: usize) -> Self {
        let weight = Param::new("weight", [rows, width], Init::Normal { mean: 0.0, std: 1.0 });
        Self { rows, width, padding: None, weight }
    }

    /// The row of a number that stands for "nothing": it starts as zeros and never learns.
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
        row_numbers(x.data(), self.rows, &mut cache.ids).map_err(|at| {
            let mut place = x.shape().to_vec();
            let mut rest = at;
            for axis in place.iter_mut().rev() {
                (rest, *axis) = (rest / *axis, rest % *axis);
            }
            Error::index(format!(
                "Embedding: expected whole numbers in 0..{}, got {} at {place:?}",
                self.rows,
                x.data()[at]
            ))
        })?;
        Ok(&cache.ids)
    }
}

impl<T: Scalar> Layer<T> for Embedding<T> {
    type Cache = EmbeddingCache;

    fn check(&self) -> Result<()> {
        let Self { rows, width, .. } = self;
        if *rows == 0 || *width == 0 {
            return Err(Error::value(format!(
                "Embedding: expected at least one row and one column, got {rows} and {width}"
            )));
        }
        // Up to 2/ε every whole number is exact.
        let most = (2.0 / T::EPSILON.to_f64()).min(f64::from(u32::MAX)) as usize;
        if *rows > most {
            return Err(Error::value(format!(
                "Embedding: expected at most {most} rows, which {} can number, got {rows}",
                T::NAME
            )));
        }
        match self.padding {
            Some(row) if row >= *rows => {
                Err(Error::value(format!("Embedding: expected padding_idx below {rows}, got {row}")))
            }
            _ => Shape::new(&[*rows, *width]).map(drop),
        }
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?.push(self.width)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut EmbeddingCache,
        _: &mut Context,
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
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn by_hand() {
        let mut layer = Embedding::<f64>::new(3, 2);
        let w = Tensor::from([[1., 2.], [3., 4.], [5., 6.]]);
        layer.weight.set(w.clone()).unwrap();
        let x = Tensor::from([2., 0., 2.]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[5., 6.], [1., 2.], [5., 6.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let call = Call { x: &x, y: &y, dy: &w };
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
        layer
            .backward(Call { x: &x, y: &y, dy: &dy }, &mut EmbeddingCache::default(), &mut grads, None)
            .unwrap();
        assert_eq!(grads.values(), [0., 0., 0., 0., 1., 1.]);
    }

    #[test]
    fn what_is_no_row_number_is_named_with_its_place() {
        let layer = Embedding::<f32>::new(3, 2).init(0).unwrap();
        let text = |v: f32| layer.infer(&Tensor::from([[0., 1.], [2., v]])).unwrap_err().to_string();
        assert_eq!(text(3.), "Embedding: expected whole numbers in 0..3, got 3 at [1, 1]");
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
