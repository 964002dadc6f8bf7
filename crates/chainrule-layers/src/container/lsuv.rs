//! Layer-sequential unit variance: an initialisation by data.
//!
//! ```text
//! W orthogonal;   then, layer by layer:   W ← W/σ,   σ² = var(y), until |σ² − 1| is small
//! ```

use super::Sequential;
use chainrule_core::{BoxModule, Error, Init, Module, Parameters, Result, Rng, Scalar, Tensor};
use chainrule_tensor::kernels::{elementwise::scale, reduce::sum};

/// How near to 1 the variance has to come, and how often a weight is scaled at most: the values of the paper.
const NEAR: f64 = 0.1;
const TRIALS: usize = 10;

impl<T: Scalar> Sequential<T> {
    /// Initialises the model so that each layer with a `weight` of two or more axes gives outputs of variance 1 on a batch
    /// (Mishkin and Matas, "All you need is a good init", 2016): these weights start orthogonal, all other parameters as
    /// [`Parameters::init`] fills them, and layer by layer the weight is divided by the standard deviation of the output.
    /// Layers in containers of other kinds keep their orthogonal weights. An output without any variance is left as it is.
    ///
    /// ```
    /// use chainrule_core::{Module, Rng, Tensor};
    /// use chainrule_layers::{Linear, Relu, Sequential};
    /// let mut x = Tensor::<f32>::zeros([64, 8]);
    /// Rng::new(1).fill_normal(x.data_mut());
    /// let model = Sequential::new().add(Linear::new(8, 32)).add(Relu::new()).add(Linear::new(32, 16)).lsuv(&x, 1)?;
    /// let y = model.infer(&x)?;
    /// let (n, mean) = (y.len() as f32, y.mean());
    /// assert!((y.data().iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / n - 1.0).abs() < 0.1);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Parameters::init`]; a layer does not fit the batch, or gives a value that is not finite.
    pub fn lsuv(self, x: &Tensor<T>, seed: u64) -> Result<Self> {
        let mut model = self.init(seed)?;
        model.visit_mut(&mut |path, p| {
            if p.name() == WEIGHT && p.shape().len() > 1 {
                let usual = p.initializer();
                p.set_initializer(Init::Orthogonal { gain: 1.0 });
                p.fill(&mut Rng::keyed(seed, path));
                p.set_initializer(usual);
            }
        });
        model.to_unit_variance(&mut x.clone())
    }

    /// The layers with their weights scaled; x becomes the output.
    fn to_unit_variance(&self, x: &mut Tensor<T>) -> Result<Self> {
        self.map(|name, layer| {
            if let Some(inner) = layer.downcast_ref::<Self>() {
                return Ok(BoxModule::new(inner.to_unit_variance(x).map_err(|e| e.in_layer(name))?));
            }
            let mut layer = layer.clone();
            let mut y = layer.infer(&*x).map_err(|e| e.in_layer(name))?;
            for _ in 0..TRIALS {
                let variance = variance(y.data());
                if !variance.is_finite() {
                    let text = format!("lsuv: expected finite outputs, got a variance of {variance}");
                    return Err(Error::value(text).in_layer(name));
                }
                if variance == 0.0 || (variance - 1.0).abs() < NEAR || !divide(&mut layer, variance.sqrt())? {
                    break;
                }
                y = layer.infer(&*x).map_err(|e| e.in_layer(name))?;
            }
            *x = y;
            Ok(layer)
        })
    }
}

const WEIGHT: &str = "weight";

/// W ← W/σ, if the layer itself has a weight.
fn divide<T: Scalar>(layer: &mut BoxModule<T>, deviation: f64) -> Result<bool> {
    let mut found = false;
    layer.try_visit_mut(&mut |path, p| {
        if path.to_string() == WEIGHT && p.shape().len() > 1 {
            scale(p.value_mut()?, T::from_f64(1.0 / deviation));
            found = true;
        }
        Ok(())
    })?;
    Ok(found)
}

fn variance<T: Scalar>(y: &[T]) -> f64 {
    let n = y.len().max(1) as f64;
    let mean = sum(y) / n;
    y.iter().map(|y| (y.to_f64() - mean).powi(2)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm1d, Conv2d, Flatten, Linear, Relu, Tanh};

    fn batch() -> Tensor<f64> {
        let mut x = Tensor::zeros([32, 2, 6, 6]);
        Rng::new(3).fill_normal(x.data_mut());
        x.data_mut().iter_mut().for_each(|x| *x = 5.0 * *x + 1.0);
        x
    }

    #[test]
    fn outputs_of_every_layer_with_a_weight_have_variance_one() {
        let body = Sequential::of().add(Conv2d::new(2, 8, 3)).add(Relu::new()).add(Conv2d::new(8, 4, 3));
        let model = Sequential::of().add(body).add(Tanh::new()).add(Flatten::new()).add(Linear::new(16, 8));
        let (model, mut x) = (model.lsuv(&batch(), 1).unwrap(), batch());
        let mut seen = 0;
        for (_, layer) in model.children() {
            let layers: Vec<&BoxModule<f64>> = match layer.downcast_ref::<Sequential<f64>>() {
                Some(body) => body.children().map(|(_, layer)| layer).collect(),
                None => vec![layer],
            };
            for layer in layers {
                x = layer.infer(&x).unwrap();
                if ["Conv2d", "Linear"].contains(&layer.to_spec().kind()) {
                    seen += 1;
                    assert!((variance(x.data()) - 1.0).abs() < NEAR, "{layer:?}");
                }
            }
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn what_has_no_variance_or_no_matrix_stays_and_infinities_are_errors() {
        let norm = Sequential::<f64>::of().add(BatchNorm1d::new(3));
        let x = Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]);
        assert_eq!(
            norm.clone().lsuv(&x, 1).unwrap().infer(&x).unwrap(),
            norm.init(1).unwrap().infer(&x).unwrap()
        );
        let linear = || Sequential::<f64>::of().add(Linear::new(3, 2));
        assert!(linear().lsuv(&Tensor::zeros([4, 3]), 1).is_ok());
        let error = linear().lsuv(&Tensor::full([4, 3], f64::INFINITY), 1).unwrap_err().to_string();
        assert!(error.contains("finite") && error.contains('0'), "{error}");
        assert!(linear().lsuv(&Tensor::zeros([4, 5]), 1).is_err());
    }
}
