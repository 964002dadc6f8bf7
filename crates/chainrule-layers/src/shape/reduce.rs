//! What reductions over axes share: which axes, and how they are brought together.

use super::order::permute_back;
use crate::rank::axis;
use chainrule_core::{Args, Error, FromValue, Result, Scalar, Shape, Tensor, Value};
use chainrule_tensor::kernels::layers::permute::permute;

/// The axes that a reduction is over, and whether they stay, of length 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axes {
    pub(super) dims: Vec<isize>,
    pub(super) keepdim: bool,
}

/// x as (outer, n, inner), reduced along n, after its axes were brought into an order in which the reduced ones are neighbours.
pub(super) struct Plan {
    pub(super) n: usize,
    pub(super) inner: usize,
    pub(super) output: Shape,
    /// The order, unless it is x's own.
    order: Option<Shape>,
}

impl Axes {
    pub(super) fn check(&self, layer: &str) -> Result<()> {
        if self.dims.is_empty() || self.dims.len() > Shape::MAX_RANK {
            let (most, dims) = (Shape::MAX_RANK, &self.dims);
            return Err(Error::value(format!("{layer}: expected 1 to {most} axes, got {dims:?}")));
        }
        Ok(())
    }

    pub(super) fn plan(&self, layer: &str, input: &[usize]) -> Result<Plan> {
        self.check(layer)?;
        let shape = Shape::new(input)?;
        let mut reduced = [false; Shape::MAX_RANK];
        for &dim in &self.dims {
            match axis(dim, shape.len()) {
                Some(at) if !reduced[at] => reduced[at] = true,
                _ => {
                    let dims = &self.dims;
                    return Err(Error::shape(format!(
                        "{layer}: expected an input with axes {dims:?}, each once, got {input:?}"
                    )));
                }
            }
        }
        let (mut output, mut kept) = (Shape::default(), 0);
        let mut axes = [0; Shape::MAX_RANK];
        for at in 0..shape.len() {
            if !reduced[at] {
                (axes[kept], kept) = (at, kept + 1);
            }
            if !reduced[at] || self.keepdim {
                output = output.push(if reduced[at] { 1 } else { shape[at] })?;
            }
        }
        let first = reduced.iter().position(|&r| r).unwrap_or(0);
        let last = reduced.iter().rposition(|&r| r).unwrap_or(0);
        if reduced[first..=last].iter().all(|&r| r) {
            let product = |part: &[usize]| part.iter().product();
            let (n, inner) = (product(&shape[first..=last]), product(&shape[last + 1..]));
            return Ok(Plan { n, inner, output, order: None });
        }
        for at in (0..shape.len()).filter(|&at| reduced[at]) {
            (axes[kept], kept) = (at, kept + 1);
        }
        let n = (0..shape.len()).filter(|&at| reduced[at]).map(|at| shape[at]).product();
        Ok(Plan { n, inner: 1, output, order: Some(Shape::new(&axes[..shape.len()])?) })
    }

    /// [`Axes::plan`] of a reduction that is nothing without an element.
    pub(super) fn plan_of_some(&self, layer: &str, input: &[usize]) -> Result<Plan> {
        let plan = self.plan(layer, input)?;
        if plan.n == 0 {
            return Err(Error::shape(format!("{layer}: expected an element along each axis, got {input:?}")));
        }
        Ok(plan)
    }
}

impl Plan {
    /// x in the plan's order.
    pub(super) fn ordered<'a, T: Scalar>(&self, x: &'a Tensor<T>, scratch: &'a mut Vec<T>) -> &'a [T] {
        let Some(order) = &self.order else { return x.data() };
        scratch.resize(x.len(), T::ZERO);
        permute(x.data(), scratch, x.shape(), order);
        scratch
    }

    /// `f` fills x of this shape in the plan's order.
    pub(super) fn fill<T: Scalar>(
        &self,
        x: &mut Tensor<T>,
        shape: Shape,
        scratch: &mut Vec<T>,
        f: impl FnOnce(&mut [T]),
    ) {
        let x = x.reset(shape);
        let Some(order) = &self.order else { return f(x) };
        scratch.resize(x.len(), T::ZERO);
        f(scratch);
        permute_back(scratch, x, &shape, order);
    }

    /// Bytes of a copy of x in the plan's order.
    pub(super) fn copy_bytes<T>(&self, input: &[usize]) -> usize {
        let volume = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        if self.order.is_some() { volume.saturating_mul(size_of::<T>()) } else { 0 }
    }
}

/// The attributes `dim`, one axis or several, and `keepdim`.
pub(super) fn from_args<T: Scalar>(args: &Args<'_, T>) -> Result<Axes> {
    let dims = match args.value("dim") {
        Some(value @ Value::Int(_)) => isize::from_value(value).map(|dim| vec![dim]),
        _ => None,
    };
    let dims = dims.map_or_else(|| args.get::<Vec<isize>>("dim"), Ok)?;
    Ok(Axes { dims, keepdim: args.or("keepdim", false)? })
}
