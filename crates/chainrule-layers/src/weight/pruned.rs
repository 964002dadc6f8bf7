//! Pruning: a mask over the weight.
//!
//! ```text
//! W = V ⊙ M        ∂E/∂V = ∂E/∂W ⊙ M
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/weight/pruned.md.

use super::{
    parametrized::{Parametrized, from_args},
    rule::WeightRule,
    slices::{PIECE, Slices},
};
use crate::{Conv2d, Linear};
use chainrule_core::{
    Args, BoxModule, Error, Example, Facts, FromSpec, Grads, Init, Module, Noise, Param, ParamId, Parameters,
    Params, ParamsMut, Result, Rng, Scalar, Shape, Tensor,
};
use chainrule_tensor::{compiled, kernels::elementwise::map2, par};
use std::collections::HashMap;

/// A layer whose weight is multiplied by a mask, a buffer that starts as ones: where it is 0, W is 0 and does not learn.
/// [`prune`] and [`set_mask`] set it, [`Pruned::remove`] makes it permanent.
///
/// # Shapes
/// Those of the inner layer. In place of its `weight` stand `weight_orig` and the buffer `weight_mask`, of one shape.
///
/// # Examples
/// ```
/// use chainrule_core::Parameters;
/// use chainrule_layers::{Amount, Linear, Pruned, Importance, prune};
/// let mut layer = Pruned::<f32>::new(Linear::new(10, 10)).init(1)?;
/// assert_eq!(prune(&mut layer, |_| true, Importance::Magnitude, Amount::Share(0.3))?, 30);
/// let plain = layer.remove()?; // a Linear with 30 zeros
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub type Pruned<T = f32> = Parametrized<MaskRule<T>, T>;

/// The rule of [`Pruned`].
#[derive(Clone, Debug)]
pub struct MaskRule<T> {
    mask: Param<T>,
    names: [String; 2],
}

impl<T: Scalar> Pruned<T> {
    /// Around a layer, with a mask of ones.
    pub fn new(inner: impl Module<T = T> + Clone + 'static) -> Self {
        Self::with_rule(MaskRule::new(), inner)
    }

    /// The inner layer with zeros in its weight where the mask has them.
    ///
    /// # Errors
    /// As [`Parametrized::plain`].
    pub fn remove(&self) -> Result<BoxModule<T>> {
        self.plain()
    }
}

impl<T: Scalar> MaskRule<T> {
    fn new() -> Self {
        Self { mask: Param::buffer("", [], Init::ONES), names: Default::default() }
    }
}

compiled! {
    fn product[T](x: &[T], y: &[T], z: &mut [T]) {
        map2(x, y, z, |(x, y)| x * y);
    }
}

compiled! {
    fn add_product[T](z: &mut [T], x: &[T], y: &[T]) {
        par::for_chunks(z, PIECE, |i, z| {
            let (x, y) = (&x[i * PIECE..][..z.len()], &y[i * PIECE..][..z.len()]);
            z.iter_mut().zip(x).zip(y).for_each(|((z, &x), &y)| *z += x * y);
        });
    }
}

impl<T: Scalar> WeightRule<T> for MaskRule<T> {
    type Cache = ();

    const KIND: &'static str = "Pruned";

    fn attach(&mut self, v: &Param<T>) {
        self.mask = Param::buffer("mask", *v.shape(), Init::ONES);
        self.names = ["orig", "mask"].map(|end| format!("{}_{end}", v.name()));
    }

    fn check(&self, _: &Shape) -> Result<()> {
        Ok(())
    }

    fn list<'a>(&'a self, v: &'a Param<T>, out: &mut Params<'_, 'a, T>) {
        out.add_as(&self.names[0], v);
        out.add_as(&self.names[1], &self.mask);
    }

    fn list_mut<'a>(&'a mut self, v: &'a mut Param<T>, out: &mut ParamsMut<'_, 'a, T>) {
        out.add_as(&self.names[0], v);
        out.add_as(&self.names[1], &mut self.mask);
    }

    fn weight(&self, v: &Param<T>, w: &mut [T], _: &mut (), _: Option<Noise>) -> Result<()> {
        product(v.value()?, self.mask.value()?, w); // W = V ⊙ M
        Ok(())
    }

    fn backward(
        &self,
        v: &Param<T>,
        dw: &[T],
        _: &mut (),
        _: Option<Noise>,
        grads: &mut Grads<T>,
    ) -> Result<()> {
        let mask = self.mask.value()?;
        if let Some(dv) = grads.of(v) {
            add_product(dv, dw, mask); // dV += D ⊙ M
        }
        Ok(())
    }
}

/// What is pruned first: the least important.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Importance {
    /// Elements by their absolute value.
    Magnitude,
    /// Elements at random, by a seed.
    Random(u64),
    /// Slices along an axis by their norm, (Σ |v|ⁿ)^(1/n); n may be infinite, for the largest absolute value.
    Norm {
        /// n, above 0.
        n: f64,
        /// The axis.
        dim: usize,
    },
    /// Slices along an axis at random.
    RandomSlices {
        /// The seed.
        seed: u64,
        /// The axis.
        dim: usize,
    },
}

/// How many elements, or slices, are pruned of those that are not yet.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Amount {
    /// This share, from 0 to 1, rounded to the nearest number.
    Share(f64),
    /// This number.
    Number(usize),
}

impl Amount {
    fn of(self, left: usize) -> Result<usize> {
        match self {
            Self::Share(share) if (0.0..=1.0).contains(&share) => {
                Ok((share * left as f64).round_ties_even() as usize)
            }
            Self::Share(share) => {
                Err(Error::value(format!("prune: expected a share in [0, 1], got {share}")))
            }
            Self::Number(n) if n <= left => Ok(n),
            Self::Number(n) => {
                Err(Error::value(format!("prune: expected at most the {left} that are left, got {n}")))
            }
        }
    }
}

/// A parameter `…_orig` and its mask `…_mask`.
struct Pair<T> {
    path: String,
    mask: ParamId,
    v: Tensor<T>,
    m: Tensor<T>,
}

/// All masked parameters of a model whose path, without `_orig`, satisfies `which`.
fn pairs<T: Scalar>(
    model: &(impl Parameters<T = T> + ?Sized),
    which: impl Fn(&str) -> bool,
) -> Result<Vec<Pair<T>>> {
    let mut masks: HashMap<String, (ParamId, Option<Tensor<T>>)> = HashMap::new();
    model.visit(&mut |path, p| {
        if let Some(stem) =
            p.is_buffer().then(|| path.to_string()).as_deref().and_then(|p| p.strip_suffix("_mask"))
        {
            masks.insert(stem.to_owned(), (p.id(), p.tensor().cloned()));
        }
    });
    let mut pairs = Vec::new();
    model.try_visit(&mut |path, p| {
        let path = path.to_string();
        let Some(stem) = path.strip_suffix("_orig").filter(|stem| which(stem)) else { return Ok(()) };
        let Some((mask, m)) = masks.get(stem) else { return Ok(()) };
        p.value().map_err(|e| e.in_layer(stem))?;
        let (Some(v), Some(m)) = (p.tensor().cloned(), m.clone()) else {
            return Err(Error::state(format!("prune: the mask of `{stem}` is not initialised")));
        };
        if v.shape() == m.shape() {
            pairs.push(Pair { path: stem.to_owned(), mask: *mask, v, m });
        }
        Ok(())
    })?;
    if pairs.is_empty() {
        return Err(Error::value("prune: expected a parameter of a Pruned layer, got none"));
    }
    Ok(pairs)
}

/// Puts the masks back.
fn store<T: Scalar>(model: &mut (impl Parameters<T = T> + ?Sized), mut pairs: Vec<Pair<T>>) -> Result<()> {
    model.try_visit_mut(&mut |_, p| match pairs.iter().position(|pair| pair.mask == p.id()) {
        Some(at) => p.set(pairs.swap_remove(at).m),
        None => Ok(()),
    })
}

/// Sets masks to 0 where the weight matters least, in each [`Pruned`] layer of a model whose weight's path satisfies
/// `which`, `encoder.0.weight` for instance; returns how many elements that were. What is pruned already stays so, and the
/// amount is of what is left.
///
/// # Errors
/// There is no such layer, it is not initialised, it has no such axis, or the amount makes no sense. The model is as it
/// was then.
pub fn prune<T: Scalar>(
    model: &mut (impl Parameters<T = T> + ?Sized),
    which: impl Fn(&str) -> bool,
    by: Importance,
    amount: Amount,
) -> Result<usize> {
    let (mut pairs, mut pruned) = (pairs(model, which)?, 0);
    for Pair { path, v, m, .. } in &mut pairs {
        pruned += least(v, m, path, by, amount).map_err(|e| e.in_layer(&*path))?;
    }
    store(model, pairs)?;
    Ok(pruned)
}

/// As [`prune`] by magnitude, over all the layers together: what is least in the model is pruned, wherever it stands.
///
/// # Errors
/// As [`prune`].
pub fn prune_globally<T: Scalar>(
    model: &mut (impl Parameters<T = T> + ?Sized),
    which: impl Fn(&str) -> bool,
    amount: Amount,
) -> Result<usize> {
    let mut pairs = pairs(model, which)?;
    let mut left = Vec::new();
    for (k, Pair { v, m, .. }) in pairs.iter().enumerate() {
        let kept = v.data().iter().zip(m.data()).enumerate().filter(|(_, (_, m))| **m != T::ZERO);
        left.extend(kept.map(|(i, (v, _))| (v.to_f64().abs(), (k, i))));
    }
    let n = amount.of(left.len())?;
    for (_, (k, i)) in smallest(&mut left, n) {
        pairs[*k].m.data_mut()[*i] = T::ZERO;
    }
    store(model, pairs)?;
    Ok(n)
}

/// Sets the mask of one [`Pruned`] layer of a model, found by the path of its weight.
///
/// # Errors
/// There is no such layer, or it is not initialised, or the mask has another shape or a value that is not finite.
pub fn set_mask<T: Scalar>(
    model: &mut (impl Parameters<T = T> + ?Sized),
    path: &str,
    mask: Tensor<T>,
) -> Result<()> {
    let mut pairs = pairs(model, |stem| stem == path)?;
    let m = &mut pairs[0].m;
    if mask.shape() != m.shape() {
        return Err(Error::shape(format!("set_mask: expected shape {}, got {}", m.shape(), mask.shape())));
    }
    if let Some(v) = mask.data().iter().find(|v| !v.is_finite()) {
        return Err(Error::value(format!("set_mask: expected finite values, got {v}")));
    }
    *m = mask;
    store(model, pairs)
}

/// The n least, those that come first among equals.
fn smallest<K: Ord + Copy>(all: &mut [(f64, K)], n: usize) -> &[(f64, K)] {
    if n > 0 && n < all.len() {
        all.select_nth_unstable_by(n - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
    &all[..n]
}

/// Sets the mask of one parameter to 0 where it matters least.
fn least<T: Scalar>(
    v: &Tensor<T>,
    m: &mut Tensor<T>,
    path: &str,
    by: Importance,
    amount: Amount,
) -> Result<usize> {
    let dim = match by {
        Importance::Norm { dim, .. } | Importance::RandomSlices { dim, .. } => Some(dim),
        Importance::Magnitude | Importance::Random(_) => None,
    };
    match (by, dim) {
        (_, Some(dim)) if dim >= v.shape().len() => {
            return Err(Error::value(format!(
                "prune: expected an axis of a weight {}, got {dim}",
                v.shape()
            )));
        }
        (Importance::Norm { n, .. }, _) if n.is_nan() || n <= 0.0 => {
            return Err(Error::value(format!("prune: expected a norm n > 0, got {n}")));
        }
        _ => {}
    }
    // Each element, or each slice, is one unit.
    let whole = v.shape().volume();
    let Slices { outer, n: units, inner } = match dim {
        Some(dim) => Slices::new(v.shape(), Some(dim)),
        None => Slices { outer: 1, n: whole, inner: 1 },
    };
    let elements = |unit: usize| {
        (0..outer).flat_map(move |o| (o * units + unit) * inner..(o * units + unit + 1) * inner)
    };
    let mut rng = match by {
        Importance::Random(seed) | Importance::RandomSlices { seed, .. } => Rng::keyed(seed, path),
        _ => Rng::new(0),
    };
    let importance = |unit: usize, rng: &mut Rng| {
        let sizes = elements(unit).map(|i| v.data()[i].to_f64().abs());
        match by {
            Importance::Norm { n, .. } if n.is_infinite() => sizes.fold(0.0, f64::max),
            Importance::Norm { n, .. } => sizes.map(|v| v.powf(n)).sum(), // in the order of the norms
            Importance::Magnitude => sizes.sum(),
            Importance::Random(_) | Importance::RandomSlices { .. } => rng.uniform(),
        }
    };
    let mut left: Vec<(f64, usize)> = (0..units)
        .map(|unit| (importance(unit, &mut rng), unit))
        .filter(|(_, unit)| elements(*unit).any(|i| m.data()[i] != T::ZERO))
        .collect();
    let n = amount.of(left.len())?;
    let mut pruned = 0;
    for (_, unit) in smallest(&mut left, n) {
        for i in elements(*unit) {
            let m = &mut m.data_mut()[i];
            pruned += usize::from(*m != T::ZERO);
            *m = T::ZERO;
        }
    }
    Ok(pruned)
}

impl<T: Scalar> FromSpec<T> for Pruned<T> {
    const FACTS: Facts = Facts::new("Pruned")
        .family("weight")
        .formula("f(x), its weight V ⊙ M")
        .page("layers/weight/pruned.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        from_args(|| Ok(MaskRule::new()), args)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(Linear::<T>::new(4, 3)).to_spec(), [[2, 4]]),
            Example::new(Self::new(Linear::<T>::new(4, 3)).on("bias").to_spec(), [[2, 4]]),
            Example::bench(Self::new(Linear::<T>::new(784, 128)).to_spec(), [[128, 784]]),
            Example::bench(Self::new(Conv2d::<T>::new(64, 64, 3).padding(1)).to_spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BatchNorm2d, Sequential, weight::weight_norm::tests::pass};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, inputs in 1..7usize, outputs in 1..7usize) {
            layer: Pruned::new(Linear::<T>::new(inputs, outputs)),
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
        convolutions_obey_the_laws(rows in 1..3usize, inputs in 1..4usize, outputs in 1..4usize) {
            layer: Pruned::new(Pruned::new(Conv2d::<T>::new(inputs, outputs, [2, 3]))).on("bias"),
            input: [rows, inputs, 4, 3],
        }
        norms_obey_the_laws(rows in 2..4usize, channels in 1..4usize) {
            layer: Pruned::new(BatchNorm2d::<T>::new(channels)),
            input: [rows, channels, 2, 3],
        }
    }

    fn masked(values: &[f64], mask: &[f64], shape: [usize; 2]) -> Pruned<f64> {
        let mut layer = Pruned::new(Linear::new(shape[1], shape[0]).bias(false)).init(0).unwrap();
        layer.visit_mut(&mut |path, p| {
            let values = if path.to_string() == "weight_orig" { values } else { mask };
            p.set(Tensor::from_vec(shape, values.to_vec()).unwrap()).unwrap();
        });
        layer
    }

    fn mask(layer: &Pruned<f64>) -> Vec<f64> {
        layer.rule.mask.value().unwrap().to_vec()
    }

    /// V = (1 2; 3 4), M = (1 0; 0 1): W = (1 0; 0 4), and x = (2, 3) gives y = (2, 12). For ∂E/∂y = (1, 1), D = (2 3; 2 3):
    /// ∂V = (2 0; 0 3), ∂x = (1, 4).
    #[test]
    pub fn by_hand() {
        let layer = masked(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 1.0], [2, 2]);
        let (y, dx, grads) = pass(&layer, &Tensor::from([[2.0, 3.0]]));
        assert_eq!((y, dx, grads), (vec![2.0, 12.0], vec![1.0, 4.0], vec![2.0, 0.0, 0.0, 3.0]));
        let mut removed = Vec::new();
        layer
            .remove()
            .unwrap()
            .visit(&mut |path, p| removed.push((path.to_string(), p.value().unwrap().to_vec())));
        assert_eq!(removed, [("weight".to_owned(), vec![1.0, 0.0, 0.0, 4.0])]);
    }

    #[test]
    fn the_least_of_what_is_left_is_pruned() {
        let values = [1.0, -6.0, 3.0, -2.0, 5.0, 4.0];
        let start = || masked(&values, &[1.0; 6], [2, 3]);
        let pruned = |by, amount| {
            let mut layer = start();
            let n = prune(&mut layer, |path| path == "weight", by, amount).unwrap();
            (n, mask(&layer))
        };
        let magnitude = Importance::Magnitude;
        assert_eq!(pruned(magnitude, Amount::Number(2)), (2, vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0]));
        assert_eq!(pruned(magnitude, Amount::Share(0.5)), (3, vec![0.0, 1.0, 0.0, 0.0, 1.0, 1.0]));
        assert_eq!(pruned(magnitude, Amount::Share(1.0)), (6, vec![0.0; 6]));
        assert_eq!(pruned(magnitude, Amount::Number(0)), (0, vec![1.0; 6]));
        // Rows have Σ|v| 10 and 11 and maxima 6 and 5; columns have Σ v² 5, 61 and 25.
        let rows = |n| Importance::Norm { n, dim: 0 };
        assert_eq!(pruned(rows(1.0), Amount::Number(1)), (3, vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
        assert_eq!(pruned(rows(f64::INFINITY), Amount::Share(0.5)), (3, vec![1.0, 1.0, 1.0, 0.0, 0.0, 0.0]));
        let columns = Importance::Norm { n: 2.0, dim: 1 };
        assert_eq!(pruned(columns, Amount::Number(2)), (4, vec![0.0, 1.0, 0.0, 0.0, 1.0, 0.0]));
        assert_eq!(pruned(Importance::Random(1), Amount::Number(2)).0, 2);
        assert_eq!(pruned(Importance::RandomSlices { seed: 1, dim: 1 }, Amount::Number(1)).0, 2);
        // A second time, of the three that are left; a share of a half of three is two.
        let mut layer = start();
        for want in [vec![0.0, 1.0, 0.0, 0.0, 1.0, 1.0], vec![0.0, 1.0, 0.0, 0.0, 0.0, 0.0]] {
            prune(&mut layer, |_| true, magnitude, Amount::Share(0.5)).unwrap();
            assert_eq!(mask(&layer), want);
        }
    }

    #[test]
    fn layers_in_a_model_are_pruned_by_their_paths_or_together() {
        let linear = |by| Linear::new(2, 2).bias(false).weight_init(Init::Constant(by));
        let model = Sequential::<f64>::of().add(Pruned::new(linear(1.0))).add(Pruned::new(linear(2.0)));
        let mut model = model.add(linear(0.5)).init(0).unwrap();
        let zeros = |model: &Sequential<f64>| {
            let mut zeros = Vec::new();
            model.visit(&mut |_, p| {
                if p.is_buffer() {
                    zeros.push(p.value().unwrap().iter().filter(|v| **v == 0.0).count());
                }
            });
            zeros
        };
        prune(&mut model, |path| path == "1.weight", Importance::Magnitude, Amount::Number(1)).unwrap();
        assert_eq!(zeros(&model), [0, 1]);
        prune_globally(&mut model, |_| true, Amount::Number(5)).unwrap();
        assert_eq!(zeros(&model), [4, 2]);
        set_mask(&mut model, "0.weight", Tensor::full([2, 2], 1.0)).unwrap();
        assert_eq!(zeros(&model), [0, 2]);
        assert!(set_mask(&mut model, "0.weight", Tensor::full([4], 1.0)).is_err());
        assert!(set_mask(&mut model, "0.weight", Tensor::full([2, 2], f64::NAN)).is_err());
        assert!(set_mask(&mut model, "2.weight", Tensor::full([2, 2], 1.0)).is_err());
    }

    #[test]
    fn senseless_amounts_are_errors() {
        let mut layer = masked(&[1.0; 6], &[1.0; 6], [2, 3]);
        let mut error = |by, amount| prune(&mut layer, |_| true, by, amount).unwrap_err().to_string();
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(
                error(Importance::Magnitude, Amount::Share(share)).contains("expected a share in [0, 1]")
            );
        }
        assert!(
            error(Importance::Magnitude, Amount::Number(7)).contains("at most the 6 that are left, got 7")
        );
        assert!(error(Importance::Norm { n: 1.0, dim: 2 }, Amount::Number(1)).contains("expected an axis"));
        for n in [0.0, -1.0, f64::NAN] {
            assert!(error(Importance::Norm { n, dim: 0 }, Amount::Number(1)).contains("a norm n > 0"));
        }
        assert_eq!(mask(&layer), [1.0; 6]);
        let mut fresh = Pruned::new(Linear::<f64>::new(2, 2));
        assert!(prune(&mut fresh, |_| true, Importance::Magnitude, Amount::Number(1)).is_err());
    }
}
