//! y = x Wᵀ + b whose bits do not depend on the number of rows, so that a stream gives those of the whole.

use chainrule_core::{Grads, Init, Param, Params, ParamsMut, Result, Scalar};
use chainrule_tensor::kernels::{
    gemm::{Epilogue, Mat, MatMut, PackedB, matmul, matmul_steady},
    reduce::add_rows_to,
};

/// Wᵀ in the layout of products, as long as W has the values that it was made of.
pub(crate) struct Packed<T> {
    panels: PackedB<T>,
    of: Option<[u64; 2]>,
}

impl<T: Scalar> Default for Packed<T> {
    fn default() -> Self {
        Self { panels: PackedB::new(), of: None }
    }
}

impl<T: Scalar> Packed<T> {
    /// Y = X Wᵀ + b of n rows; the version is that of W.
    pub(crate) fn project(
        &mut self,
        (x, n): (&[T], usize),
        (w, version): (&[T], [u64; 2]),
        b: Option<&[T]>,
        y: &mut [T],
        [inputs, outputs]: [usize; 2],
    ) {
        if self.of != Some(version) {
            self.of = None;
            self.panels.pack(Mat::new(w, outputs, inputs).t());
            self.of = Some(version);
        }
        let epilogue = Epilogue { row: b, ..Epilogue::default() };
        let (x, y) = (Mat::new(x, n, inputs), MatMut::new(y, n, outputs));
        matmul_steady(T::ONE, x, &self.panels, T::ZERO, y, epilogue); // Y = X Wᵀ + b
    }
}

/// Adds dW and db, and makes dX = `beta` dX + dY W.
pub(crate) fn project_gradient<T: Scalar>(
    (x, dy, n): (&[T], &[T], usize),
    w: &[T],
    dw: Option<&mut [T]>,
    db: Option<&mut [T]>,
    dx: Option<(&mut [T], T)>,
    [inputs, outputs]: [usize; 2],
) {
    let d = Mat::new(dy, n, outputs);
    if let Some(dw) = dw {
        let dw = MatMut::new(dw, outputs, inputs);
        matmul(T::ONE, d.t(), Mat::new(x, n, inputs), T::ONE, dw); // dW += dYᵀ X
    }
    if let Some(db) = db {
        add_rows_to(dy, db); // db += Σₙ dY
    }
    if let Some((dx, beta)) = dx {
        let w = Mat::new(w, outputs, inputs);
        matmul(T::ONE, d, w, beta, MatMut::new(dx, n, inputs)); // dX = β dX + dY W
    }
}

/// The parameters `weight` (out, in) and `bias` (out) of a map inside a layer.
#[derive(Clone)]
pub(crate) struct Dense<T> {
    pub(crate) sizes: [usize; 2],
    pub(crate) weight: Param<T>,
    pub(crate) bias: Option<Param<T>>,
}

impl<T: Scalar> Dense<T> {
    /// As [`crate::Linear`], uniform in ±1/√in, unless the bias begins with something else.
    pub(crate) fn new([inputs, outputs]: [usize; 2], bias: Option<Init>) -> Self {
        Self {
            sizes: [inputs, outputs],
            weight: Param::new("weight", [outputs, inputs], Init::torch_default(inputs)),
            bias: bias.map(|init| Param::new("bias", [outputs], init)),
        }
    }

    pub(crate) fn forward(&self, x: &[T], n: usize, y: &mut [T], packed: &mut Packed<T>) -> Result<()> {
        let bias = self.bias.as_ref().map(Param::value).transpose()?;
        packed.project((x, n), (self.weight.value()?, self.weight.version()), bias, y, self.sizes);
        Ok(())
    }

    pub(crate) fn backward(
        &self,
        (x, dy, n): (&[T], &[T], usize),
        grads: &mut Grads<T>,
        dx: Option<&mut [T]>,
    ) -> Result<()> {
        let w = self.weight.value()?;
        project_gradient((x, dy, n), w, grads.of(&self.weight), None, dx.map(|dx| (dx, T::ZERO)), self.sizes);
        if let Some(db) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            add_rows_to(dy, db); // db += Σₙ dY
        }
        Ok(())
    }

    pub(crate) fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
        self.bias.iter().for_each(|bias| out.add(bias));
    }

    pub(crate) fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
        self.bias.iter_mut().for_each(|bias| out.add(bias));
    }
}
