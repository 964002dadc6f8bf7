//! A bilinear form of two inputs for each output.
//!
//! ```text
//! y_o = aᵀ W_o b + c_o,   that is Y = Z Wᵀ + c with z_ij = a_i b_j and W as (out, in1 in2)
//! ∂E/∂W = ∂E/∂Yᵀ Z        ∂E/∂c = Σₙ ∂E/∂y
//! ∂E/∂Z = ∂E/∂Y W         ∂E/∂a_i = Σⱼ ∂E/∂z_ij b_j        ∂E/∂b_j = Σᵢ ∂E/∂z_ij a_i
//! ```
//!
//! Keeps nothing; Z and ∂E/∂Z are scratch space of some rows. Derivation: docs/layers/linear/bilinear.md.

use crate::rank::check_shape;
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Init, Module, ModuleCall, Param, Parameters,
    Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::{
        gemm::{Epilogue, Mat, MatMut, matmul, matmul_with},
        reduce::{add_rows_to, dot},
    },
    par,
};

/// y_o = aᵀ W_o b + c_o.
///
/// # Shapes
/// a (…, in1) and b (…, in2) with the same axes before the last, y (…, out); `weight` (out, in1, in2), `bias` (out). Both start
/// uniform in ±1/√in1, as PyTorch's do.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Bilinear;
/// let layer = Bilinear::new(20, 30, 40).init(1)?;
/// let (a, b) = (Tensor::<f32>::zeros([128, 20]), Tensor::zeros([128, 30]));
/// assert_eq!(layer.infer([&a, &b])?.shape()[..], [128, 40]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Bilinear<T = f32> {
    inputs: [usize; 2],
    outputs: usize,
    weight: Param<T>,
    bias: Option<Param<T>>,
}

/// Scratch space of both passes: Z and ∂E/∂Z of some rows.
#[derive(Debug, Default)]
pub struct BilinearCache<T> {
    z: Vec<T>,
    dz: Vec<T>,
    /// ∂E/∂W of some rows, and the sum over all in f64 where there are more.
    part: Vec<T>,
    sums: Vec<f64>,
}

/// Elements of Z that are made at a time, 1 MiB of f32.
const BLOCK: usize = 1 << 18;
/// Rows beyond which ∂E/∂W is summed in f64, from so many rows at a time.
const LONG: usize = 4096;
const SEGMENT: usize = 64;

impl<T: Scalar> Bilinear<T> {
    /// Forms of `in1` and `in2` features, one for each of `outputs` features, with a bias.
    pub fn new(in1: usize, in2: usize, outputs: usize) -> Self {
        let init = Init::torch_default(in1);
        let weight = Param::new("weight", [outputs, in1, in2], init);
        Self { inputs: [in1, in2], outputs, weight, bias: None }.bias(true)
    }

    /// With or without a bias.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        let init = Init::torch_default(self.inputs[0]);
        let bias = bias.then(|| Param::new("bias", [self.outputs], init));
        Self { bias, ..self }
    }

    fn shape_of(&self, a: &Shape, b: &Shape) -> Result<Shape> {
        self.validate()?;
        let [in1, in2] = self.inputs;
        match (&a[..], &b[..]) {
            ([of_a @ .., i], [of_b @ .., j]) if of_a == of_b && *i == in1 && *j == in2 => {
                Shape::new(&a.with(a.len() - 1, self.outputs))
            }
            _ => Err(Error::shape(format!(
                "Bilinear: expected inputs (.., {in1}) and (.., {in2}) with the same axes before the last, got {a} and {b}"
            ))),
        }
    }

    /// Rows of Z that are made at a time, of n.
    fn rows(&self, n: usize) -> usize {
        let most = if n > LONG { SEGMENT } else { n.max(1) };
        (BLOCK / (self.inputs[0] * self.inputs[1])).clamp(1, most)
    }
}

compiled! {
    /// z_ij = a_i b_j of each row.
    fn outer[T](a: &[T], b: &[T], z: &mut [T], in1: usize, in2: usize) {
        par::for_chunks(z, in1 * in2, |row, z| {
            let (a, b) = (&a[row * in1..][..in1], &b[row * in2..][..in2]);
            for (z, &a) in z.chunks_exact_mut(in2).zip(a) {
                z.iter_mut().zip(b).for_each(|(z, &b)| *z = a * b);
            }
        });
    }
}

compiled! {
    /// da_i = Σⱼ dz_ij b_j of each row.
    fn first_gradient[T](dz: &[T], b: &[T], da: &mut [T], in1: usize, in2: usize) {
        par::for_chunks(da, in1, |row, da| {
            let (dz, b) = (&dz[row * in1 * in2..][..in1 * in2], &b[row * in2..][..in2]);
            da.iter_mut().zip(dz.chunks_exact(in2)).for_each(|(da, dz)| *da = T::from_f64(dot(dz, b)));
        });
    }
}

compiled! {
    /// db_j = Σᵢ dz_ij a_i of each row; overwrites dz.
    fn second_gradient[T](dz: &mut [T], a: &[T], db: &mut [T], in1: usize, in2: usize) {
        par::for_chunks(dz, in1 * in2, |row, dz| {
            for (dz, &a) in dz.chunks_exact_mut(in2).zip(&a[row * in1..][..in1]) {
                dz.iter_mut().for_each(|dz| *dz *= a);
            }
        });
        let dz = &*dz;
        par::for_chunks(db, in2, |row, db| {
            db.fill(T::ZERO);
            add_rows_to(&dz[row * in1 * in2..][..in1 * in2], db);
        });
    }
}

impl<T: Scalar> Parameters for Bilinear<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
        self.bias.iter().for_each(|bias| out.add(bias));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
        self.bias.iter_mut().for_each(|bias| out.add(bias));
    }

    fn validate(&self) -> Result<()> {
        let ([in1, in2], out) = (self.inputs, self.outputs);
        if in1 == 0 || in2 == 0 || out == 0 {
            return Err(Error::value(format!(
                "Bilinear: expected at least one feature of each input and one output, got {in1}, {in2} and {out}"
            )));
        }
        check_shape("Bilinear", Shape::new(&[out, in1, in2]))
    }
}

impl<T: Scalar> Module for Bilinear<T> {
    type State = BilinearCache<T>;

    fn inputs(&self) -> usize {
        2
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        match inputs {
            [a, b] => Ok(vec![self.shape_of(a, b)?]),
            _ => Err(Error::shape(format!("Bilinear: expected 2 inputs, got {}", inputs.len()))),
        }
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut Self::State,
        _: Context,
    ) -> Result<()> {
        let ([a, b], [y]) = (xs, ys) else {
            return Err(Error::shape(format!("Bilinear: expected 2 inputs, got {}", xs.len())));
        };
        let (shape, [in1, in2], o) = (self.shape_of(a.shape(), b.shape())?, self.inputs, self.outputs);
        let (n, y) = (a.len() / in1, y.reset(shape));
        let (per, w) = (self.rows(n), Mat::new(self.weight.value()?, o, in1 * in2));
        let bias = self.bias.as_ref().map(Param::value).transpose()?;
        for at in (0..n).step_by(per) {
            let rows = per.min(n - at);
            cache.z.resize(rows * in1 * in2, T::ZERO);
            outer(&a.data()[at * in1..], &b.data()[at * in2..], &mut cache.z, in1, in2); // z_ij = a_i b_j
            let (z, bias) =
                (Mat::new(&cache.z, rows, in1 * in2), Epilogue { row: bias, ..Epilogue::default() });
            let y = MatMut::new(&mut y[at * o..][..rows * o], rows, o);
            matmul_with(T::ONE, z, w.t(), T::ZERO, y, bias); // Y = Z Wᵀ + c
        }
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let ([a, b], [y], [dy], [da, db]) = (call.xs, call.ys, call.dys, dxs) else {
            return Err(Error::shape(format!("Bilinear: expected 2 inputs, got {}", call.xs.len())));
        };
        let (shape, [in1, in2], o) = (self.shape_of(a.shape(), b.shape())?, self.inputs, self.outputs);
        if shape != *y.shape() {
            return Err(Error::not_recorded("Bilinear: expected y and ∂E/∂y of these inputs"));
        }
        let mut da = da.as_deref_mut().map(|da| da.reset(*a.shape()));
        let mut db = db.as_deref_mut().map(|db| db.reset(*b.shape()));
        let Some(dy) = dy else {
            [da, db].into_iter().flatten().for_each(|dx| dx.fill(T::ZERO));
            return Ok(());
        };
        let n = a.len() / in1;
        if let Some(dc) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            add_rows_to(dy.data(), dc); // dc += Σₙ dY
        }
        let w = Mat::new(self.weight.value()?, o, in1 * in2);
        let BilinearCache { z, dz, part, sums } = cache;
        let per = self.rows(n);
        sums.clear();
        for at in (0..n).step_by(per) {
            let rows = per.min(n - at);
            let (a, b) = (&a.data()[at * in1..][..rows * in1], &b.data()[at * in2..][..rows * in2]);
            let dy = Mat::new(&dy.data()[at * o..][..rows * o], rows, o);
            if let Some(dw) = grads.of(&self.weight) {
                z.resize(rows * in1 * in2, T::ZERO);
                outer(a, b, z, in1, in2);
                let z = Mat::new(z, rows, in1 * in2);
                if per >= n {
                    matmul(T::ONE, dy.t(), z, T::ONE, MatMut::new(dw, o, in1 * in2)); // dW += dYᵀ Z
                } else {
                    part.resize(o * in1 * in2, T::ZERO);
                    sums.resize(part.len(), 0.0);
                    matmul(T::ONE, dy.t(), z, T::ZERO, MatMut::new(part, o, in1 * in2));
                    sums.iter_mut().zip(&*part).for_each(|(sum, part)| *sum += part.to_f64());
                    if at + rows == n {
                        dw.iter_mut().zip(&*sums).for_each(|(dw, &sum)| *dw += T::from_f64(sum));
                    }
                }
            }
            if da.is_none() && db.is_none() {
                continue;
            }
            dz.resize(rows * in1 * in2, T::ZERO);
            matmul(T::ONE, dy, w, T::ZERO, MatMut::new(dz, rows, in1 * in2)); // dZ = dY W
            if let Some(da) = &mut da {
                first_gradient(dz, b, &mut da[at * in1..][..rows * in1], in1, in2); // da_i = Σⱼ dz_ij b_j
            }
            if let Some(db) = &mut db {
                second_gradient(dz, a, &mut db[at * in2..][..rows * in2], in1, in2); // db_j = Σᵢ dz_ij a_i
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let rows = inputs.first().map_or(0, |a| a.volume() / self.inputs[0].max(1)) as u64;
        let sizes = [self.inputs[0], self.inputs[1], self.outputs];
        sizes.iter().fold(rows, |n, &size| n.saturating_mul(size as u64))
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Bilinear")
            .with("in1_features", self.inputs[0])
            .with("in2_features", self.inputs[1])
            .with("out_features", self.outputs)
            .with("bias", self.bias.is_some())
    }
}

impl<T: Scalar> FromSpec<T> for Bilinear<T> {
    const FACTS: Facts = Facts::new("Bilinear")
        .family("linear")
        .formula("aᵀ W b + c")
        .page("layers/linear/bilinear.md")
        .torch("Bilinear");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("in1_features")?, args.get("in2_features")?, args.get("out_features")?)
            .bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2, 3, 4).to_spec(), [[5, 2], [5, 3]]),
            Example::new(Self::new(3, 1, 2).bias(false).to_spec(), [[2, 2, 3], [2, 2, 1]]),
            Example::bench(Self::new(64, 64, 64).to_spec(), [[256, 64]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in collection::vec(1..4usize, 1..3), in1 in 1..5usize, in2 in 1..5usize, out in 1..5usize,
            bias in any::<bool>(),
        ) {
            layer: Bilinear::new(in1, in2, out).bias(bias),
            inputs: [[rows.clone(), vec![in1]].concat(), [rows.clone(), vec![in2]].concat()],
            wrong_inputs: [[rows.clone(), vec![in1 + 1]].concat(), [rows.clone(), vec![in2]].concat()],
            wrong_inputs: [[rows.clone(), vec![in1]].concat(), [rows.clone(), vec![1, in2]].concat()],
        }
    }

    /// a = (1 2), b = (3 4), W = (1 0; 0 1), c = 10: y = 1·3 + 2·4 + 10 = 21. For g = 2: ∂W = 2 a bᵀ = (6 8; 12 16), ∂c = 2,
    /// ∂a = 2 W b = (6 8), ∂b = 2 Wᵀ a = (2 4).
    #[test]
    pub fn by_hand() {
        let mut layer = Bilinear::<f64>::new(2, 2, 1);
        layer.weight.set(Tensor::from_vec([1, 2, 2], vec![1.0, 0.0, 0.0, 1.0]).unwrap()).unwrap();
        layer.bias.as_mut().unwrap().set(Tensor::from([10.0])).unwrap();
        let (a, b) = (Tensor::from([[1.0, 2.0]]), Tensor::from([[3.0, 4.0]]));
        let (xs, mut ys, mut cache) = ([&a, &b], [Tensor::default()], BilinearCache::default());
        layer.apply(&xs, &mut ys, &mut cache, Context::train(0)).unwrap();
        assert_eq!(ys[0], Tensor::from([[21.0]]));
        let (dy, mut da, mut db) = (Tensor::from([[2.0]]), Tensor::default(), Tensor::default());
        let (mut grads, dys) = (Grads::new(&layer), [Some(&dy)]);
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut cache, &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!(grads.values(), [6.0, 8.0, 12.0, 16.0, 2.0]);
        assert_eq!((da, db), (Tensor::from([[6.0, 8.0]]), Tensor::from([[2.0, 4.0]])));
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for (in1, in2, out) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (usize::MAX, 2, 2), (1 << 31, 1 << 31, 1)] {
            assert!(Bilinear::<f32>::new(in1, in2, out).init(0).is_err());
        }
    }
}
