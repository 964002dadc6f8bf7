//! The matrix product of two inputs, one for each element of the batch.
//!
//! ```text
//! Y = A B        ∂E/∂A = ∂E/∂Y Bᵀ        ∂E/∂B = Aᵀ ∂E/∂Y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/mat_mul.md.

use super::{inputs_expected, not_recorded, only_gradient, only_output, pull_expected};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::gemm::{Mat, MatMut, matmul};
use std::marker::PhantomData;

/// Y = A B of the last two axes, for each index of the axes before; for a [`super::Graph`].
///
/// # Shapes
/// A (…, M, K) and B (…, K, N) with the same axes before the last two, Y (…, M, N).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::MatMul;
/// let (a, b) = (Tensor::<f32>::zeros([8, 2, 3]), Tensor::zeros([8, 3, 5]));
/// assert_eq!(MatMul::new().infer([&a, &b])?.shape()[..], [8, 2, 5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct MatMul<T = f32> {
    scalar: PhantomData<T>,
}

/// The sizes of a batch of products (M, K)(K, N).
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
}

impl<T: Scalar> MatMul<T> {
    /// A product of two inputs.
    pub fn new() -> Self {
        Self { scalar: PhantomData }
    }
}

fn sizes(a: &Shape, b: &Shape) -> Result<(Sizes, Shape)> {
    match (&a[..], &b[..]) {
        ([of_a @ .., m, k], [of_b @ .., rows, n]) if of_a == of_b && k == rows => {
            let mut out = *a;
            out[a.len() - 1] = *n;
            let batch = of_a.iter().product();
            Ok((Sizes { batch, m: *m, k: *k, n: *n }, Shape::new(&out)?))
        }
        _ => Err(Error::shape(format!("MatMul: expected inputs (.., M, K) and (.., K, N), got {a} and {b}"))),
    }
}

impl<T: Scalar> Parameters for MatMul<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}
}

impl<T: Scalar> Module for MatMul<T> {
    type State = ();

    fn inputs(&self) -> usize {
        2
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        inputs_expected("MatMul", 2, inputs.len())?;
        Ok(vec![sizes(&inputs[0], &inputs[1])?.1])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("MatMul", 2, xs.len())?;
        let (Sizes { batch, m, k, n }, shape) = sizes(xs[0].shape(), xs[1].shape())?;
        let (a, b, y) = (xs[0].data(), xs[1].data(), only_output(ys)?.reset(shape));
        for i in 0..batch {
            let (a, b) = (&a[i * m * k..][..m * k], &b[i * k * n..][..k * n]);
            let y = MatMut::new(&mut y[i * m * n..][..m * n], m, n);
            matmul(T::ONE, Mat::new(a, m, k), Mat::new(b, k, n), T::ZERO, y); // Y = A B
        }
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("MatMul", 2, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        let (Sizes { batch, m, k, n }, shape) = sizes(call.xs[0].shape(), call.xs[1].shape())?;
        if shape != *y.shape() {
            return Err(not_recorded("MatMul"));
        }
        let (a, b) = (call.xs[0].data(), call.xs[1].data());
        for (which, dx) in dxs.iter_mut().enumerate() {
            let Some(dx) = dx else { continue };
            let dx = dx.reset(*call.xs[which].shape());
            let Some(dy) = dy else {
                dx.fill(T::ZERO);
                continue;
            };
            for i in 0..batch {
                let dy = Mat::new(&dy.data()[i * m * n..][..m * n], m, n);
                if which == 0 {
                    let (b, dx) = (&b[i * k * n..][..k * n], &mut dx[i * m * k..][..m * k]);
                    matmul(T::ONE, dy, Mat::new(b, k, n).t(), T::ZERO, MatMut::new(dx, m, k)); // dA = dY Bᵀ
                } else {
                    let (a, dx) = (&a[i * m * k..][..m * k], &mut dx[i * k * n..][..k * n]);
                    matmul(T::ONE, Mat::new(a, m, k).t(), dy, T::ZERO, MatMut::new(dx, k, n)); // dB = Aᵀ dY
                }
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let [a, b] = inputs else { return 0 };
        sizes(a, b).map_or(0, |(s, _)| {
            [s.m, s.k, s.n].iter().fold(s.batch as u64, |c, &n| c.saturating_mul(n as u64))
        })
    }

    fn to_spec(&self) -> Spec {
        Spec::new("MatMul")
    }
}

impl<T: Scalar> FromSpec<T> for MatMul<T> {
    const FACTS: Facts =
        Facts::new("MatMul").family("container").formula("A B").page("layers/container/mat_mul.md");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new())
    }

    fn examples() -> Vec<Example> {
        let spec = || Self::new().to_spec();
        vec![
            Example::new(spec(), [[2, 3, 4], [2, 4, 2]]),
            Example::new(spec(), [[2, 1, 3, 2], [2, 1, 2, 3]]),
            Example::bench(spec(), [[16, 128, 64], [16, 64, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            batch in collection::vec(1..4usize, 1..3), m in 1..5usize, k in 1..5usize, n in 1..5usize,
        ) {
            layer: MatMul::<T>::new(),
            inputs: [[batch.clone(), vec![m, k]].concat(), [batch.clone(), vec![k, n]].concat()],
            wrong_inputs: [[batch.clone(), vec![m, k]].concat(), [batch.clone(), vec![k + 1, n]].concat()],
            wrong_inputs: [[batch.clone(), vec![m, k]].concat()],
        }
    }

    /// A = (1 2), B = (3; 4): Y = 11. For g = 2: ∂A = 2 (3 4) = (6 8), ∂B = 2 (1; 2) = (2; 4).
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::<f64>::from([[1.0, 2.0]]), Tensor::from([[3.0], [4.0]]));
        let (xs, mut ys, dy) = ([&a, &b], [Tensor::default()], Tensor::from([[2.0]]));
        let product = MatMul::new();
        product.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0], Tensor::from([[11.0]]));
        let (mut da, mut db) = (Tensor::default(), Tensor::default());
        let (mut grads, dys) = (Grads::new(&product), [Some(&dy)]);
        let call = ModuleCall::new(&product, &xs, &ys, &dys).unwrap();
        product.pull(call, &mut (), &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!((da, db), (Tensor::from([[6.0, 8.0]]), Tensor::from([[2.0], [4.0]])));
    }

    #[test]
    fn wrong_shapes_say_what_was_expected() {
        let [a, b] = [Shape::from([2, 3]), Shape::from([2, 3])];
        let text = MatMul::<f32>::new().output_shapes(&[a, b]).unwrap_err().to_string();
        assert_eq!(text, "MatMul: expected inputs (.., M, K) and (.., K, N), got [2, 3] and [2, 3]");
    }
}
