//! Sines and cosines of the position, added.
//!
//! ```text
//! y_t = x_t + p_t,   p_{t,2i} = sin(t/10000^(2i/E)),   p_{t,2i+1} = cos(t/10000^(2i/E))        ∂E/∂x = ∂E/∂y
//! ```
//!
//! Keeps nothing; the table is kept from call to call. Derivation: docs/layers/attention/sinusoidal_position.md.

use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Memory, Result, Scalar, Shape, Spec,
    Tensor,
};
use chainrule_tensor::kernels::elementwise::{add_assign, copy};
use std::marker::PhantomData;

const KIND: &str = "SinusoidalPosition";

/// y = x + p, where p_t are sines and cosines of the position t, with wavelengths from 2π to 10000 · 2π. Vaswani et al., 2017.
///
/// # Shapes
/// x and y (…, T, E): the position is that along T. Under [`Context::stream`] positions run on from piece to piece.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::SinusoidalPosition;
/// let y = SinusoidalPosition::new(2).infer(&Tensor::<f32>::zeros([1, 2, 2]))?;
/// assert!(y.data()[..2] == [0.0, 1.0] && (y.data()[2] - 1f32.sin()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct SinusoidalPosition<T = f32> {
    dim: usize,
    of: PhantomData<T>,
}

/// The table of a layer, and the positions that a stream has seen.
#[derive(Debug)]
pub struct SinusoidalCache<T> {
    /// (rows, E) of the positions from the first number on.
    table: Vec<T>,
    of: Option<[usize; 3]>,
    past: usize,
}

impl<T> Default for SinusoidalCache<T> {
    fn default() -> Self {
        Self { table: Vec::new(), of: None, past: 0 }
    }
}

impl<T: Scalar> SinusoidalPosition<T> {
    /// Positions of vectors of `dim` elements.
    pub fn new(dim: usize) -> Self {
        Self { dim, of: PhantomData }
    }

    fn fill(&self, cache: &mut SinusoidalCache<T>, first: usize, rows: usize) {
        let of = [self.dim, first, rows];
        if cache.of == Some(of) {
            return;
        }
        cache.of = None;
        cache.table.clear();
        for (t, e) in (first..first + rows).flat_map(|t| (0..self.dim).map(move |e| (t, e))) {
            let angle = t as f64 * 1e4f64.powf(-((e / 2 * 2) as f64) / self.dim as f64);
            cache.table.push(T::from_f64(if e % 2 == 0 { angle.sin() } else { angle.cos() }));
        }
        cache.of = Some(of);
    }
}

impl<T: Scalar> Layer for SinusoidalPosition<T> {
    type T = T;
    type Cache = SinusoidalCache<T>;

    fn check(&self) -> Result<()> {
        if (1..1 << 31).contains(&self.dim) {
            return Ok(());
        }
        Err(Error::value(format!("{KIND}: expected from 1 to 2³¹ − 1 elements, got {}", self.dim)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match input {
            [.., _, e] if *e == self.dim => Shape::new(input),
            _ => Err(Error::shape(format!("{KIND}: expected input (.., T, {}), got {input:?}", self.dim))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let y = y.reset(shape);
        copy(x.data(), y);
        let t = shape[shape.len() - 2];
        let first = if cx.streaming() { cache.past } else { 0 };
        cache.past = if cx.streaming() { first + t } else { 0 };
        if !y.is_empty() {
            self.fill(cache, first, t);
            y.chunks_exact_mut(t * self.dim).for_each(|y| add_assign(y, &cache.table)); // y = x + p
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        }
        Ok(())
    }

    fn memory(&self, cache: &mut Self::Cache, out: &mut Memory<'_, T>) -> Result<()> {
        out.count("past", &mut cache.past)
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(KIND).with("dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for SinusoidalPosition<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("x + (sin t/10000^(2i/E), cos t/10000^(2i/E))")
        .page("layers/attention/sinusoidal_position.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(4).spec(), [[2, 3, 4]]),
            Example::new(Self::new(3).spec(), [[5, 3]]),
            Example::bench(Self::new(256).spec(), [[16, 256, 256]]),
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
        ) {
            layer: SinusoidalPosition::new(dim),
            input: [rows.clone(), vec![time, dim]].concat(),
            sequence: rows.len(),
            wrong: [rows.clone(), vec![time, dim + 1]].concat(),
            wrong: [dim],
        }
    }

    /// E = 3: the angles of position 2 are 2, 2 and 2/10000^(2/3): x = 1 gives 1 + sin 2, 1 + cos 2, 1 + sin 0.00430887.
    #[test]
    pub fn by_hand() {
        let y = SinusoidalPosition::<f64>::new(3).infer(&Tensor::full([3, 3], 1.0)).unwrap();
        let want = [1.0 + 2f64.sin(), 1.0 + 2f64.cos(), 1.004308856];
        assert!(y.row(2).iter().zip(want).all(|(y, w)| (y - w).abs() < 1e-8), "{y:?}");
        assert_eq!(y.row(0), [1.0, 2.0, 1.0]);
    }
}
