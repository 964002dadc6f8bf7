//! A sample of a normal distribution, of which the mean and the variance get a gradient.
//!
//! ```text
//! z = μ + ε exp(v/2)        v = ln σ²
//! ∂E/∂μ = ∂E/∂z        ∂E/∂v = ½ ∂E/∂z ε exp(v/2)        ∂E/∂ε = ∂E/∂z exp(v/2)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/reparametrize.md.

use super::{inputs_expected, not_recorded, only_gradient, only_output, pull_expected, same};
use chainrule_core::{
    Args, Context, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::compiled;
use std::marker::PhantomData;

/// z = μ + ε exp(v/2) of μ, v = ln σ² and standard normal noise ε, in this order (Kingma and Welling, 2014); for a
/// [`super::Graph`]. The noise is an input: so a pass can be repeated, and inference can leave it 0.
///
/// # Shapes
/// All inputs and z have one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Reparametrize;
/// let (mean, log_variance) = (Tensor::from([1.0f32]), Tensor::from([4f32.ln()]));
/// let z = Reparametrize::new().infer([&mean, &log_variance, &Tensor::from([3.0])])?;
/// assert!((z.data()[0] - 7.0).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Reparametrize<T = f32>(PhantomData<T>);

impl<T: Scalar> Reparametrize<T> {
    /// There is nothing to set.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Reparametrize<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Parameters for Reparametrize<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}
}

impl<T: Scalar> Module for Reparametrize<T> {
    type State = ();

    fn inputs(&self) -> usize {
        3
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        inputs_expected("Reparametrize", 3, inputs.len())?;
        Ok(vec![same("Reparametrize", inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Reparametrize", 3, xs.len())?;
        let shape = same("Reparametrize", xs.iter().map(|x| *x.shape()))?;
        sample([xs[0].data(), xs[1].data(), xs[2].data()], only_output(ys)?.reset(shape)); // z = μ + ε exp(v/2)
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Reparametrize", 3, &call, dxs)?;
        let (z, dz) = only_gradient(&call)?;
        if call.xs.iter().any(|x| x.shape() != z.shape()) {
            return Err(not_recorded("Reparametrize"));
        }
        let slopes = dxs.iter_mut().map(|dx| dx.as_mut().map(|dx| dx.reset(*z.shape())));
        let mut slopes: Vec<Option<&mut [T]>> = slopes.collect();
        match dz {
            None => slopes.iter_mut().flatten().for_each(|dx| dx.fill(T::ZERO)),
            Some(dz) => {
                let [dm, dv, de] = [0, 1, 2].map(|i| slopes[i].take());
                gradients([call.xs[1].data(), call.xs[2].data(), dz.data()], [dm, dv, de]);
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Reparametrize")
    }
}

compiled! {
    fn sample[T](inputs: [&[T]; 3], z: &mut [T]) {
        let [mean, log_variance, noise] = inputs;
        for (((z, &m), &v), &e) in z.iter_mut().zip(mean).zip(log_variance).zip(noise) {
            *z = m + e * deviation(v);
        }
    }
}

compiled! {
    fn gradients[T](inputs: [&[T]; 3], slopes: [Option<&mut [T]>; 3]) {
        let ([log_variance, noise, dz], [dm, dv, de]) = (inputs, slopes);
        if let Some(dm) = dm {
            dm.copy_from_slice(dz);
        }
        if let Some(dv) = dv {
            let half = T::from_f64(0.5);
            for (((d, &v), &e), &g) in dv.iter_mut().zip(log_variance).zip(noise).zip(dz) {
                *d = half * g * e * deviation(v);
            }
        }
        if let Some(de) = de {
            for ((d, &v), &g) in de.iter_mut().zip(log_variance).zip(dz) {
                *d = g * deviation(v);
            }
        }
    }
}

/// σ = exp(v/2)
#[inline(always)]
fn deviation<T: Scalar>(v: T) -> T {
    (T::from_f64(0.5) * v).exp()
}

impl<T: Scalar> FromSpec<T> for Reparametrize<T> {
    const FACTS: Facts = Facts::new("Reparametrize")
        .family("container")
        .formula("x₀ + x₂ exp(x₁/2)")
        .page("layers/container/reparametrize.md");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new())
    }

    fn examples() -> Vec<Example> {
        let spec = || Self::new().to_spec();
        vec![Example::new(spec(), [[3, 4]; 3]), Example::bench(spec(), [[64, 1024]; 3])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4)) {
            layer: Reparametrize::<T>::new(),
            inputs: vec![shape.clone(); 3],
            wrong_inputs: vec![shape.clone(); 2],
        }
    }

    /// μ = 1, v = ln 4 so that σ = 2, ε = 3: z = 7. For g = 5: ∂μ = 5, ∂v = ½·5·3·2 = 15, ∂ε = 10.
    #[test]
    pub fn by_hand() {
        let xs = [1.0, 4f64.ln(), 3.0].map(|v| Tensor::from([v]));
        let xs: Vec<&Tensor<f64>> = xs.iter().collect();
        let (mut ys, layer) = ([Tensor::default()], Reparametrize::new());
        layer.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        let (dy, mut dxs) = (Tensor::from([5.0]), [0; 3].map(|_| Tensor::default()));
        let (dys, mut grads) = ([Some(&dy)], Grads::new(&layer));
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        let mut requested: Vec<_> = dxs.iter_mut().map(Some).collect();
        layer.pull(call, &mut (), &mut grads, &mut requested).unwrap();
        for (got, want) in ys.iter().chain(&dxs).zip([7.0, 5.0, 15.0, 10.0]) {
            assert!((got.data()[0] - want).abs() < 1e-14, "{got:?} for {want}");
        }
    }
}
