//! A variational autoencoder (Kingma and Welling, 2014): noise, two heads beside the reconstruction, and its loss over
//! three predictions.
//!
//! ```text
//! μ = M x,  l = L x,  z = μ + e^{l/2} ε,  ε ~ N(0, 1),  x̂ = D tanh z
//! E = mean (x̂ − t)² + β mean ½(μ² + eˡ − 1 − l)
//! ```
//!
//! Given δx̂, and δμ, δl of the heads:
//!
//! ```text
//! δz = (1 − tanh² z) ⊙ Dᵀ δx̂    δμ += δz    δl += δz ⊙ ½ e^{l/2} ε    ∂D += δx̂ tanh zᵀ    δx = Mᵀ δμ + Lᵀ δl
//! ```

use chainrule_core::{
    Context, Error, Grads, Init, Module, ModuleCall, Objective, Optimizer, Param, Parameters, Params,
    ParamsMut, Pass, Result, Scalar, Shape, Target, Tensor,
};
use chainrule_gradcheck::laws;
use chainrule_tensor::noise;

/// x (N, D) → x̂ (N, D), μ (N, Z), l (N, Z).
#[derive(Clone)]
struct Vae<T> {
    width: usize,
    latent: usize,
    mean: Param<T>,
    log_variance: Param<T>,
    decoder: Param<T>,
}

impl<T: Scalar> Vae<T> {
    fn new(width: usize, latent: usize) -> Self {
        let init = Init::xavier_uniform();
        Self {
            width,
            latent,
            mean: Param::new("mean", [latent, width], init),
            log_variance: Param::new("log_variance", [latent, width], init),
            decoder: Param::new("decoder", [width, latent], init),
        }
    }

    fn rows(&self, shape: &[usize]) -> Result<usize> {
        match shape {
            [n, d] if *d == self.width => Ok(*n),
            _ => Err(Error::shape(format!("Vae: expected input (N, {}), got {shape:?}", self.width))),
        }
    }
}

/// ε and tanh z of a recorded pass, (N, Z) each.
#[derive(Default)]
struct Drawn<T> {
    epsilon: Vec<T>,
    bent: Vec<T>,
    recorded: Option<usize>,
}

/// A standard normal value at a position: the sum of twelve uniform ones, less 6.
fn normal<T: Scalar>(key: u64, position: usize) -> T {
    let uniform = |k| (noise(key, (12 * position + k) as u64) >> 11) as f64 / 2f64.powi(53);
    let sum: f64 = (0..12).map(uniform).sum();
    T::from_f64(sum - 6.0)
}

/// (N, out) = (N, in) Wᵀ.
fn times<T: Scalar>(x: &[T], w: &[T], input: usize) -> Vec<T> {
    let dot = |x: &[T], w: &[T]| x.iter().zip(w).fold(T::ZERO, |sum, (&x, &w)| sum + x * w);
    x.chunks(input).flat_map(|x| w.chunks(input).map(move |w| dot(x, w))).collect()
}

/// dW += Gᵀ X, and dX += G W.
fn back<T: Scalar>(g: &[T], x: &[T], w: &[T], dw: Option<&mut [T]>, dx: &mut [T], input: usize) {
    let output = w.len() / input;
    let mut sums = vec![T::ZERO; w.len()];
    for (row, (g, x)) in g.chunks(output).zip(x.chunks(input)).enumerate() {
        for (k, &g) in g.iter().enumerate() {
            for j in 0..input {
                sums[k * input + j] += g * x[j];
                dx[row * input + j] += g * w[k * input + j];
            }
        }
    }
    dw.into_iter().for_each(|dw| dw.iter_mut().zip(&sums).for_each(|(dw, &s)| *dw += s));
}

impl<T: Scalar> Parameters for Vae<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        [&self.mean, &self.log_variance, &self.decoder].into_iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        [&mut self.mean, &mut self.log_variance, &mut self.decoder].into_iter().for_each(|p| out.add(p));
    }
}

impl<T: Scalar> Module for Vae<T> {
    type State = Drawn<T>;

    fn outputs(&self) -> usize {
        3
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let [input] = inputs else { return Err(Error::shape("Vae: expected one input")) };
        let n = self.rows(input)?;
        let latent = Shape::new(&[n, self.latent])?;
        Ok(vec![*input, latent, latent])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        drawn: &mut Drawn<T>,
        cx: Context,
    ) -> Result<()> {
        let ([x], [y, mean, log_variance]) = (xs, ys) else {
            return Err(Error::shape("Vae: expected one input and three outputs"));
        };
        let n = self.rows(x.shape())?;
        let half = T::from_f64(0.5);
        drawn.recorded = None;
        mean.reset([n, self.latent]).copy_from_slice(&times(x.data(), self.mean.value()?, self.width));
        log_variance.reset([n, self.latent]).copy_from_slice(&times(
            x.data(),
            self.log_variance.value()?,
            self.width,
        ));
        let draw = |i| if cx.training() { normal(cx.noise_key(), i) } else { T::ZERO };
        drawn.epsilon = (0..n * self.latent).map(draw).collect();
        let moments = mean.data().iter().zip(log_variance.data()).zip(&drawn.epsilon);
        drawn.bent = moments.map(|((&m, &l), &e)| (m + (half * l).exp() * e).tanh()).collect();
        y.reset([n, self.width]).copy_from_slice(&times(&drawn.bent, self.decoder.value()?, self.latent));
        if cx.recording() {
            drawn.recorded = Some(n);
        }
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        drawn: &mut Drawn<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let n = self.rows(call.xs[0].shape())?;
        if drawn.recorded != Some(n) {
            return Err(Error::not_recorded("Vae: expected a recorded forward of this batch"));
        }
        let half = T::from_f64(0.5);
        let mut dz = vec![T::ZERO; n * self.latent];
        if let Some(dy) = call.dys[0] {
            let dw = grads.of(&self.decoder);
            back(dy.data(), &drawn.bent, self.decoder.value()?, dw, &mut dz, self.latent);
        }
        dz.iter_mut().zip(&drawn.bent).for_each(|(dz, &b)| *dz *= T::ONE - b * b); // δz = (1 − tanh² z) ⊙ …
        let head = |j: usize, i: usize| call.dys[j].map_or(T::ZERO, |dy| dy.data()[i]);
        let d_mean: Vec<T> = dz.iter().enumerate().map(|(i, &dz)| dz + head(1, i)).collect();
        let l = call.ys[2].data();
        let d_log_variance: Vec<T> = (dz.iter().enumerate())
            .map(|(i, &dz)| head(2, i) + dz * half * (half * l[i]).exp() * drawn.epsilon[i])
            .collect();
        let (x, mut dx) = (call.xs[0].data(), vec![T::ZERO; n * self.width]);
        for (param, g) in [(&self.mean, &d_mean), (&self.log_variance, &d_log_variance)] {
            back(g, x, param.value()?, grads.of(param), &mut dx, self.width);
        }
        if let Some(out) = dxs.first_mut().and_then(Option::as_deref_mut) {
            out.reset(*call.xs[0].shape()).copy_from_slice(&dx);
        }
        Ok(())
    }
}

/// mean (x̂ − t)² + β mean ½(μ² + eˡ − 1 − l).
struct Elbo {
    beta: f64,
}

impl Objective for Elbo {
    type T = f64;

    fn predictions(&self) -> usize {
        3
    }

    fn evaluate(
        &self,
        ys: &[&Tensor<f64>],
        targets: &[Target<'_, f64>],
        loss: &mut Tensor<f64>,
    ) -> Result<()> {
        let t = targets[0].values()?;
        let mean = |sum: f64, n: usize| sum / n as f64;
        let errors = ys[0].data().iter().zip(t.data()).map(|(y, t)| (y - t) * (y - t));
        let moments = ys[1].data().iter().zip(ys[2].data());
        let divergence = moments.map(|(m, l)| 0.5 * (m * m + l.exp() - 1.0 - l));
        loss.reset([])[0] = mean(errors.sum(), t.len()) + self.beta * mean(divergence.sum(), ys[1].len());
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<f64>],
        targets: &[Target<'_, f64>],
        dloss: &Tensor<f64>,
        dys: &mut [Option<&mut Tensor<f64>>],
    ) -> Result<()> {
        let t = targets[0].values()?;
        let shares = [t.len(), ys[1].len(), ys[1].len()].map(|n| dloss.data()[0] / n as f64);
        for (j, dy) in dys.iter_mut().enumerate() {
            let Some(dy) = dy else { continue };
            let dy = dy.reset(*ys[j].shape());
            for (i, dy) in dy.iter_mut().enumerate() {
                *dy = shares[j]
                    * match j {
                        0 => 2.0 * (ys[0].data()[i] - t.data()[i]),
                        1 => self.beta * ys[1].data()[i],
                        _ => self.beta * 0.5 * (ys[2].data()[i].exp() - 1.0),
                    };
            }
        }
        Ok(())
    }
}

laws! {
    a_variational_autoencoder_obeys_the_laws(rows in 1..5usize, width in 1..5usize, latent in 1..4usize) {
        layer: Vae::<T>::new(width, latent),
        inputs: [[rows, width]],
        wrong_inputs: [[rows, width + 1]],
    }
}

/// θ −= η ∂E/∂θ.
struct Descent;

impl Optimizer<f64> for Descent {
    fn step(&mut self, model: &mut dyn Parameters<T = f64>, grads: &Grads<f64>) -> Result<()> {
        model.try_visit_mut(&mut |_, p| {
            let g = grads.get(p).unwrap_or_default().to_vec();
            p.value_mut()?.iter_mut().zip(&g).for_each(|(w, g)| *w -= 0.3 * g);
            Ok(())
        })
    }
    fn learning_rate(&self) -> f64 {
        0.3
    }
    fn set_learning_rate(&mut self, _: f64) {}
}

#[test]
fn it_trains_by_a_loss_over_three_predictions() {
    let mut model = Vae::<f64>::new(4, 2).init(3).unwrap();
    let x = Tensor::from_fn([16, 4], |i| if (i / 4 + i % 4) % 2 == 0 { 0.8 } else { -0.8 });
    let (loss, mut pass, mut losses) = (Elbo { beta: 0.01 }, Pass::new(&model), Vec::new());
    for step in 0..300 {
        pass.forward(&model, &x, Context::train(5).step(step)).unwrap();
        losses.push(pass.loss(&loss, &x).unwrap());
        pass.backward(&model, &x).unwrap();
        pass.update(&mut model, &mut Descent).unwrap();
    }
    assert!(losses[299] < 0.2 * losses[0], "{} after {}", losses[299], losses[0]);
}
