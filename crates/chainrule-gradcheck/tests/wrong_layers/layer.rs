//! One layer, and the many ways to get it wrong.

use chainrule_core::{
    Call, Context, Error, Grads, Init, Layer, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::{noise, par};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    // In the derivative.
    FactorMissing,
    TransposedWeight,
    BiasGradientMissing,
    MaskRedrawnInBackward,
    GradientScaledAway,
    ConstantInBackward,
    // In what happens to buffers.
    DxAdded,
    GradientsOverwritten,
    GradientsOnlyWithDx,
    FrozenWeightStopsBias,
    StaleCache,
    CacheConsumed,
    OutputReadUnsaid,
    // In shapes.
    WrongOutputShape,
    WrongShapeAccepted,
    WrongShapePanics,
    // In modes and state.
    NoiseInInference,
    InferenceLeavesTheRecording,
    HiddenCounter,
    DuplicateNames,
    UnsavedState,
    // In a cache of another batch, and in a stream.
    CacheOfAnotherBatch,
    StreamRemembers,
    // In multiply-adds.
    CostOfOneSample,
    CostOfAnEmptyBatch,
    CostOverflows,
    // In the lists of parameters.
    BiasMissingInParamsMut,
    BiasMissingInBothLists,
    // In precision and threads.
    CoarseInSinglePrecision,
    DependsOnThreads,
}

/// y = (x ⊙ m) Wᵀ + b, where in training m is 0 for a quarter of the elements and 1 for the others.
#[derive(Clone)]
pub struct Masked<T> {
    fault: Fault,
    size: usize,
    weight: Param<T>,
    bias: Param<T>,
    unsaved: T,
}

#[derive(Default)]
pub struct MaskedCache<T> {
    /// The shape of x, if forward recorded.
    recorded: Option<Shape>,
    key: Option<u64>,
    last: T,
    /// x ⊙ m
    masked: Vec<T>,
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl<T: Scalar> Masked<T> {
    pub fn new(size: usize, fault: Fault) -> Self {
        let name = if fault == Fault::DuplicateNames { "weight" } else { "bias" };
        Self {
            fault,
            size,
            weight: Param::new("weight", [size, size], Init::ONES),
            bias: Param::new(name, [size], Init::ZEROS),
            unsaved: T::ZERO,
        }
    }

    fn mask(key: Option<u64>, i: usize) -> T {
        if key.is_some_and(|key| noise(key, i as u64).is_multiple_of(4)) { T::ZERO } else { T::ONE }
    }
}

impl<T: Scalar> Layer for Masked<T> {
    type T = T;
    type Cache = MaskedCache<T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        match self.fault {
            Fault::WrongShapeAccepted => return Shape::new(input),
            Fault::WrongShapePanics => assert_eq!(input[input.len() - 1], self.size),
            Fault::WrongOutputShape => return Ok(Shape::new(input)?.with(0, input[0] + 1)),
            _ => {}
        }
        match input {
            [_, size] if *size == self.size => Shape::new(input),
            _ => Err(Error::shape(format!("Masked: expected input (N, {}), got {input:?}", self.size))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        if self.fault != Fault::WrongOutputShape {
            self.output_shape(x.shape())?;
        }
        let (w, b, n) = (self.weight.value()?, self.bias.value()?, self.size);
        let noisy = cx.training() || self.fault == Fault::NoiseInInference;
        let key = noisy.then(|| cx.noise_key());
        if self.fault != Fault::InferenceLeavesTheRecording || cx.recording() {
            (cache.recorded, cache.key) = (cx.recording().then_some(*x.shape()), key);
        }
        if self.fault != Fault::StaleCache || cache.masked.len() < x.len() {
            cache.masked.clear();
            cache.masked.extend(x.data().iter().enumerate().map(|(i, &x)| x * Self::mask(key, i)));
        }
        let mut extra = self.unsaved;
        match self.fault {
            Fault::HiddenCounter => extra += T::from_f64(COUNTER.fetch_add(1, Ordering::Relaxed) as f64),
            Fault::CoarseInSinglePrecision => extra += T::EPSILON.sqrt(),
            Fault::DependsOnThreads => extra += T::from_usize(par::threads()),
            Fault::StreamRemembers if cx.streaming() => {
                extra += std::mem::replace(&mut cache.last, x.data().first().copied().unwrap_or(T::ZERO));
            }
            _ => {}
        }
        let masked: Vec<T> = x.data().iter().enumerate().map(|(i, &x)| x * Self::mask(key, i)).collect();
        for (y, x) in y.reset(*x.shape()).chunks_mut(n).zip(masked.chunks(n)) {
            for (o, y) in y.iter_mut().enumerate() {
                *y = b[o] + extra + (0..n).map(|i| w[o * n + i] * x[i]).sum(); // Y = (X ⊙ M) Wᵀ + b
            }
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let same = cache.recorded.as_ref() == Some(call.x.shape());
        if !(same || self.fault == Fault::CacheOfAnotherBatch && cache.recorded.is_some()) {
            return Err(Error::not_recorded("Masked: expected the cache of a recorded forward"));
        }
        let (w, n, fault) = (self.weight.value()?, self.size, self.fault);
        let mut dy = call.dy.data().to_vec();
        if fault == Fault::GradientScaledAway {
            let size = dy.iter().map(|&g| g * g).sum::<T>().sqrt();
            dy.iter_mut().for_each(|g| *g /= size);
        }
        let add = |g: &mut T, v: T| *g = if fault == Fault::GradientsOverwritten { v } else { *g + v };
        let requested = fault != Fault::GradientsOnlyWithDx || dx.is_some();
        let rows = || dy.chunks(n).zip(cache.masked.chunks(n));
        if let Some(dw) = grads.of(&self.weight).filter(|_| requested) {
            for (at, dw) in dw.iter_mut().enumerate() {
                add(dw, rows().map(|(dy, x)| dy[at / n] * x[at % n]).sum()); // dW += dYᵀ (X ⊙ M)
            }
        }
        let stopped = fault == Fault::FrozenWeightStopsBias && !self.weight.trainable();
        let bias = requested && !stopped && fault != Fault::BiasGradientMissing;
        if let Some(db) = grads.of(&self.bias).filter(|_| bias) {
            for (o, db) in db.iter_mut().enumerate() {
                add(db, rows().map(|(dy, _)| dy[o]).sum()); // db += Σₙ dY
            }
        }
        if let Some(dx) = dx {
            let key = cache.key.map(|key| if fault == Fault::MaskRedrawnInBackward { key ^ 1 } else { key });
            let before = (dx.shape() == call.x.shape()).then(|| dx.data().to_vec());
            let dx = dx.reset(*call.x.shape());
            for (at, dx) in dx.iter_mut().enumerate() {
                let (row, i) = (at / n, at % n);
                let weight =
                    |o: usize| if fault == Fault::TransposedWeight { w[i * n + o] } else { w[o * n + i] };
                *dx = Self::mask(key, at) * (0..n).map(|o| dy[row * n + o] * weight(o)).sum(); // dX = (dY W) ⊙ M
                match (fault, &before) {
                    (Fault::FactorMissing, _) => *dx *= T::from_f64(0.5),
                    (Fault::ConstantInBackward, _) => *dx += T::ONE,
                    (Fault::DxAdded, Some(before)) => *dx += before[at],
                    _ => {}
                }
            }
        }
        if let (Fault::OutputReadUnsaid, Some(db)) = (fault, grads.of(&self.bias)) {
            db[0] += call.y.data().iter().map(|&y| y * T::ZERO).sum();
        }
        if fault == Fault::CacheConsumed {
            cache.masked.fill(T::ZERO);
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        self.fault != Fault::OutputReadUnsaid
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let (n, size) = (input[0] as u64, self.size as u64);
        match self.fault {
            Fault::CostOfOneSample => size * size,
            Fault::CostOfAnEmptyBatch => n.max(1).saturating_mul(size * size),
            Fault::CostOverflows => n * size * size,
            _ => n.saturating_mul(size * size),
        }
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
        if self.fault != Fault::BiasMissingInBothLists {
            out.add(&self.bias);
        }
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
        if !matches!(self.fault, Fault::BiasMissingInParamsMut | Fault::BiasMissingInBothLists) {
            out.add(&mut self.bias);
        }
    }

    fn absorb(&mut self, _: &Self::Cache) {
        if self.fault == Fault::UnsavedState {
            self.unsaved += T::ONE;
        }
    }
}
