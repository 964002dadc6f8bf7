//! Rotary positions.
//!
//! ```text
//! (y_a, y_b) = (x_a cos θ − x_b sin θ, x_a sin θ + x_b cos θ),   θ = t base^(−2i/D) of pair i at position t
//! ```
//!
//! Given g = ∂E/∂y, the rotation back, since its matrix is orthogonal:
//!
//! ```text
//! (∂E/∂x_a, ∂E/∂x_b) = (g_a cos θ + g_b sin θ, −g_a sin θ + g_b cos θ)
//! ```
//!
//! Keeps nothing; the table of cosines and sines is kept from call to call. Derivation: docs/layers/attention/rope.md.

use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, FromValue, Grads, Layer, Memory, Result, Scalar,
    Shape, Spec, Tensor, Value,
};
use chainrule_tensor::kernels::{elementwise::copy, layers::attention::rotate};
use std::marker::PhantomData;

const KIND: &str = "Rope";

/// Which elements are rotated together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// i and i + D/2, as LLaMA's and GPT-NeoX's weights expect.
    #[default]
    Halves,
    /// 2i and 2i + 1, as in the paper and in GPT-J.
    Neighbours,
}

impl FromValue for Pairing {
    const WHAT: &'static str = "`halves` or `neighbours`";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) if text == "halves" => Some(Self::Halves),
            Value::Text(text) if text == "neighbours" => Some(Self::Neighbours),
            _ => None,
        }
    }
}

impl From<Pairing> for Value {
    fn from(pairing: Pairing) -> Self {
        match pairing {
            Pairing::Halves => "halves",
            Pairing::Neighbours => "neighbours",
        }
        .into()
    }
}

/// Pairs of elements rotated by angles in proportion to the position, so that q·k depends on the distance alone. Su et al., 2021.
///
/// # Shapes
/// x and y (…, T, D), D even: the position is that along T. Under [`Context::stream`] positions run on from piece to piece.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Rope;
/// let y = Rope::new(2).infer(&Tensor::from([[1.0f32, 0.0], [1.0, 0.0]]))?;
/// assert!(y.data()[..2] == [1.0, 0.0] && (y.data()[2] - 1f32.cos()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Rope<T = f32> {
    dim: usize,
    base: f64,
    pairing: Pairing,
    of: PhantomData<T>,
}

/// cos θ and sin θ of positions and pairs, (rows, D/2), for the last settings.
#[derive(Debug)]
pub struct RopeTable<T> {
    table: Vec<[T; 2]>,
    of: Option<(u64, [usize; 3])>,
    /// Positions that a stream has seen.
    past: usize,
}

impl<T> Default for RopeTable<T> {
    fn default() -> Self {
        Self { table: Vec::new(), of: None, past: 0 }
    }
}

/// An error unless vectors of D elements can be rotated.
pub(super) fn check_rope(layer: &str, d: usize, base: f64) -> Result<()> {
    if d == 0 || !d.is_multiple_of(2) || d >= 1 << 31 {
        return Err(Error::value(format!("{layer}: expected an even number of elements to rotate, got {d}")));
    }
    if !(base > 0.0 && base.is_finite()) {
        return Err(Error::value(format!("{layer}: expected a positive base of angles, got {base}")));
    }
    Ok(())
}

impl<T: Scalar> RopeTable<T> {
    /// Rotates x (N, rows, heads, D), whose first row is at position `past`; back if `inverse`.
    pub(super) fn rotate(
        &mut self,
        x: &mut [T],
        (base, pairing): (f64, Pairing),
        [past, rows, heads, d]: [usize; 4],
        inverse: bool,
    ) {
        let of = (base.to_bits(), [past, rows, d]);
        if self.of != Some(of) {
            self.of = None;
            self.table.clear();
            for (t, i) in (past..past + rows).flat_map(|t| (0..d / 2).map(move |i| (t, i))) {
                let angle = t as f64 * base.powf(-2.0 * i as f64 / d as f64);
                let (sin, cos) = angle.sin_cos();
                self.table.push([T::from_f64(cos), T::from_f64(sin)]);
            }
            self.of = Some(of);
        }
        rotate(x, &self.table, [heads, d], pairing == Pairing::Halves, inverse);
    }
}

impl<T: Scalar> Rope<T> {
    /// A rotation of vectors of `dim` elements.
    pub fn new(dim: usize) -> Self {
        Self { dim, base: 1e4, pairing: Pairing::Halves, of: PhantomData }
    }

    /// The base of the angles, 10000 by default.
    #[must_use]
    pub fn base(self, base: f64) -> Self {
        Self { base, ..self }
    }

    /// Which elements are rotated together, halves by default.
    #[must_use]
    pub fn pairing(self, pairing: Pairing) -> Self {
        Self { pairing, ..self }
    }
}

impl<T: Scalar> Layer for Rope<T> {
    type T = T;
    type Cache = RopeTable<T>;

    fn check(&self) -> Result<()> {
        check_rope(KIND, self.dim, self.base)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match input {
            [.., _, d] if *d == self.dim => Shape::new(input),
            _ => Err(Error::shape(format!("{KIND}: expected input (.., T, {}), got {input:?}", self.dim))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        copy(x.data(), y);
        let t = x.shape()[x.shape().len() - 2];
        let past = if cx.streaming() { cache.past } else { 0 };
        cache.past = if cx.streaming() { past + t } else { 0 };
        cache.rotate(y, (self.base, self.pairing), [past, t, 1, self.dim], false); // y = R x
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            let dx = dx.reset(*call.x.shape());
            copy(call.dy.data(), dx);
            let t = call.x.shape()[call.x.shape().len() - 2];
            cache.rotate(dx, (self.base, self.pairing), [0, t, 1, self.dim], true); // dx = Rᵀ dy
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
        Spec::new(KIND).with("dim", self.dim).with_unless(1e4, "base", self.base).with_unless(
            Pairing::Halves,
            "pairing",
            self.pairing,
        )
    }
}

impl<T: Scalar> FromSpec<T> for Rope<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("pairs rotated by t base^(−2i/D)")
        .page("layers/attention/rope.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?)
            .base(args.or("base", 1e4)?)
            .pairing(args.or("pairing", Pairing::Halves)?))
    }

    fn examples() -> Vec<Example> {
        let other = Self::new(2).base(100.0).pairing(Pairing::Neighbours);
        vec![
            Example::new(Self::new(4).spec(), [[2, 3, 4]]),
            Example::new(other.spec(), [[3, 2]]),
            Example::bench(Self::new(64).spec(), [[32, 256, 64]]),
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
            rows in collection::vec(1..3usize, 0..3), time in prop_oneof![Just(1), Just(3), Just(7usize)],
            half in 1..4usize, base in 2.0..1e4f64, halves in any::<bool>(),
        ) {
            layer: Rope::new(2 * half).base(base).pairing([Pairing::Neighbours, Pairing::Halves][usize::from(halves)]),
            input: [rows.clone(), vec![time, 2 * half]].concat(),
            sequence: rows.len(),
            wrong: [rows.clone(), vec![time, 2 * half + 1]].concat(),
            wrong: [2 * half],
        }
    }

    /// D = 4, base 100: pair 0 turns by t, pair 1 by t/10. At t = 1, of halves, x = (1, 1, 0, 0) gives
    /// (cos 1, cos 0.1, sin 1, sin 0.1); of neighbours, x = (1, 0, 1, 0) gives (cos 1, sin 1, cos 0.1, sin 0.1).
    /// For g = (1, 0, 0, 0), of halves, ∂x = (cos 1, 0, −sin 1, 0).
    #[test]
    pub fn by_hand() {
        let close = |got: &[f64], want: &[f64]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-15), "{got:?} {want:?}");
        };
        let (c, s, c1, s1) = (1f64.cos(), 1f64.sin(), 0.1f64.cos(), 0.1f64.sin());
        let layer = Rope::<f64>::new(4).base(100.0);
        let x = Tensor::from([[1., 1., 0., 0.], [1., 1., 0., 0.]]);
        let y = layer.infer(&x).unwrap();
        close(y.data(), &[1., 1., 0., 0., c, c1, s, s1]);
        let of = Tensor::from([[1., 0., 1., 0.], [1., 0., 1., 0.]]);
        close(layer.pairing(Pairing::Neighbours).infer(&of).unwrap().data(), &[1., 0., 1., 0., c, s, c1, s1]);
        let dy = Tensor::from([[0., 0., 0., 0.], [1., 0., 0., 0.]]);
        let (mut dx, mut grads) = (Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut RopeTable::default(), &mut grads, Some(&mut dx)).unwrap();
        close(dx.data(), &[0., 0., 0., 0., c, 0., -s, 0.]);
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        for layer in [Rope::<f32>::new(0), Rope::new(3), Rope::new(2).base(0.0), Rope::new(2).base(f64::NAN)]
        {
            assert!(layer.check().is_err());
        }
    }
}
