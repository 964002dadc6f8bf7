//! Resizing of sequences, images and volumes by interpolation.
//!
//! ```text
//! y = A₁ A₂ … x: along each axis, y[i] = Σⱼ a_ij x[j]        ∂E/∂x = … A₂ᵀ A₁ᵀ ∂E/∂y
//! s(i) = i (n − 1)/(m − 1) with aligned corners, (i + ½) n/m − ½ without
//! nearest   a_ij = 1 for j = ⌊i n/m⌋
//! linear    a_ij = 1 − t, t for j = ⌊s⌋, ⌊s⌋ + 1,  t = s − ⌊s⌋
//! bicubic   a_ij = w(t + 1), w(t), w(1 − t), w(2 − t) for j = ⌊s⌋ − 1 … ⌊s⌋ + 2, the cubic of Keys with a = −¾
//! ```
//!
//! Keeps nothing; the weights and the sums of all axes but the last are scratch space. Derivation: docs/layers/shape/upsample.md.

use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, FromValue, Grads, Layer, Result, Scalar, Shape,
    Spec, Tensor, Value,
};
use chainrule_tensor::kernels::layers::taps::{Taps, weigh};
use std::marker::PhantomData;

/// How values between elements are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpsampleMode {
    /// The element at ⌊i n/m⌋, of 1 to 3 axes.
    #[default]
    Nearest,
    /// The element at ⌊(i + ½) n/m⌋, of 1 to 3 axes.
    NearestExact,
    /// Linear, of sequences.
    Linear,
    /// Linear along both axes of images.
    Bilinear,
    /// Cubic along both axes of images.
    Bicubic,
    /// Linear along the three axes of volumes.
    Trilinear,
}

impl UpsampleMode {
    const ALL: [Self; 6] =
        [Self::Nearest, Self::NearestExact, Self::Linear, Self::Bilinear, Self::Bicubic, Self::Trilinear];

    fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::NearestExact => "nearest-exact",
            Self::Linear => "linear",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Trilinear => "trilinear",
        }
    }

    /// The one number of axes that it is for.
    fn axes(self) -> Option<usize> {
        match self {
            Self::Nearest | Self::NearestExact => None,
            Self::Linear => Some(1),
            Self::Bilinear | Self::Bicubic => Some(2),
            Self::Trilinear => Some(3),
        }
    }
}

impl From<UpsampleMode> for Value {
    fn from(mode: UpsampleMode) -> Self {
        mode.name().into()
    }
}

impl FromValue for UpsampleMode {
    const WHAT: &'static str =
        "\"nearest\", \"nearest-exact\", \"linear\", \"bilinear\", \"bicubic\" or \"trilinear\"";

    fn from_value(value: &Value) -> Option<Self> {
        let text = String::from_value(value)?;
        Self::ALL.into_iter().find(|mode| mode.name() == text)
    }
}

/// x at another resolution.
///
/// # Shapes
/// x (N, C, …) with one to three more axes, y (N, C, …) with these of the given size, or ⌊n · factor⌋ elements of n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::{Upsample, UpsampleMode};
/// let x = Tensor::from_vec([1, 1, 2], vec![1.0f32, 3.0])?;
/// assert_eq!(Upsample::scale_factor([2.0]).infer(&x)?.data(), [1.0, 1.0, 3.0, 3.0]);
/// let linear = Upsample::size([3]).mode(UpsampleMode::Linear).align_corners(true);
/// assert_eq!(linear.infer(&x)?.data(), [1.0, 2.0, 3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Upsample<T = f32> {
    size: Option<Vec<usize>>,
    scale_factor: Option<Vec<f64>>,
    mode: UpsampleMode,
    align_corners: Option<bool>,
    recompute: Option<bool>,
    of: PhantomData<T>,
}

/// Scratch space of both passes.
#[derive(Debug)]
pub struct UpsampleCache<T> {
    /// The weights along each axis, and their transpose.
    taps: [Taps<T>; 3],
    transpose: Taps<T>,
    /// Resized along some of the axes.
    parts: [Vec<T>; 2],
}

impl<T> Default for UpsampleCache<T> {
    fn default() -> Self {
        Self {
            taps: std::array::from_fn(|_| Taps::default()),
            transpose: Taps::default(),
            parts: [Vec::new(), Vec::new()],
        }
    }
}

impl<T: Scalar> Upsample<T> {
    fn to(size: Option<Vec<usize>>, scale_factor: Option<Vec<f64>>) -> Self {
        let mode = UpsampleMode::Nearest;
        Self { size, scale_factor, mode, align_corners: None, recompute: None, of: PhantomData }
    }

    /// To axes of these lengths; one length is that of every axis.
    pub fn size(size: impl Into<Vec<usize>>) -> Self {
        Self::to(Some(size.into()), None)
    }

    /// To axes that are longer by these factors; one factor is that of every axis.
    pub fn scale_factor(factors: impl Into<Vec<f64>>) -> Self {
        Self::to(None, Some(factors.into()))
    }

    /// How values between elements are made: the nearest element by default.
    #[must_use]
    pub fn mode(self, mode: UpsampleMode) -> Self {
        Self { mode, ..self }
    }

    /// Whether the outermost elements of x and y coincide, or else the outermost borders of theirs, as by default.
    #[must_use]
    pub fn align_corners(self, align: bool) -> Self {
        Self { align_corners: Some(align), ..self }
    }

    /// Whether the distance of two elements of y is taken from the sizes rather than from the factor.
    #[must_use]
    pub fn recompute_scale_factor(self, recompute: bool) -> Self {
        Self { recompute: Some(recompute), ..self }
    }

    /// What was given for axis `axis` of `rank`.
    fn given<V: Copy>(values: &[V], axis: usize, rank: usize) -> Option<V> {
        match values {
            [all] => Some(*all),
            _ if values.len() == rank => Some(values[axis]),
            _ => None,
        }
    }

    /// The length of an axis of n elements.
    fn length(&self, axis: usize, rank: usize, n: usize) -> Option<usize> {
        match (&self.size, &self.scale_factor) {
            (Some(size), _) => Self::given(size, axis, rank),
            (_, Some(factors)) => Self::given(factors, axis, rank).map(|factor| (n as f64 * factor) as usize),
            _ => None,
        }
    }

    /// The weights of an axis of n elements that becomes one of m.
    fn weights(&self, axis: usize, rank: usize, [n, m]: [usize; 2], taps: &mut Taps<T>) {
        taps.clear(n);
        let given = self.scale_factor.as_ref().filter(|_| self.recompute != Some(true));
        let step = match given.and_then(|factors| Self::given(factors, axis, rank)) {
            Some(factor) => 1.0 / factor,
            None => n as f64 / m as f64,
        };
        let aligned = if m > 1 { (n - 1) as f64 / (m - 1) as f64 } else { 0.0 };
        let source = |i: usize| match self.align_corners {
            Some(true) => i as f64 * aligned,
            _ => (i as f64 + 0.5) * step - 0.5,
        };
        let last = n as isize - 1;
        let at = |j: isize| j.clamp(0, last) as usize;
        for i in 0..m {
            match self.mode {
                // In f32, as in PyTorch, where the two differ in rounding.
                UpsampleMode::Nearest => taps.push([(at((i as f32 * step as f32).floor() as isize), 1.0)]),
                UpsampleMode::NearestExact => {
                    taps.push([(at(((i as f32 + 0.5) * step as f32).floor() as isize), 1.0)]);
                }
                UpsampleMode::Bicubic => {
                    let s = source(i);
                    let (j, t) = (s.floor() as isize, s - s.floor());
                    let [near, far] = [
                        |t: f64| (1.25 * t - 2.25) * t * t + 1.0,
                        |t: f64| ((-0.75 * t + 3.75) * t - 6.0) * t + 3.0,
                    ];
                    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
                    taps.push((j - 1..).zip(weights).map(|(j, w)| (at(j), w)));
                }
                _ => {
                    let s = source(i).max(0.0);
                    let (j, t) = (s.floor() as isize, s - s.floor());
                    taps.push([(at(j), 1.0 - t), (at(j + 1), t)]);
                }
            }
        }
    }

    /// The weights of all axes.
    fn prepare(&self, x: &[usize], y: &[usize], taps: &mut [Taps<T>; 3]) {
        let rank = x.len() - 2;
        for axis in 0..rank {
            self.weights(axis, rank, [x[axis + 2], y[axis + 2]], &mut taps[axis]);
        }
    }
}

impl<T: Scalar> Layer for Upsample<T> {
    type T = T;
    type Cache = UpsampleCache<T>;

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::value(format!("Upsample: {what}")));
        match (&self.size, &self.scale_factor) {
            (Some(size), None) => {
                if !(1..=3).contains(&size.len()) || size.iter().any(|n| !(1..1 << 31).contains(n)) {
                    return wrong(format!("expected one to three sizes from 1 to 2³¹ − 1, got {size:?}"));
                }
            }
            (None, Some(factors)) => {
                let fits = |factor: &f64| *factor > 0.0 && *factor < f64::from(1 << 30);
                if !(1..=3).contains(&factors.len()) || !factors.iter().all(fits) {
                    return wrong(format!(
                        "expected one to three scale factors above 0 and below 2³⁰, got {factors:?}"
                    ));
                }
            }
            _ => return wrong("expected either a size or a scale factor".into()),
        }
        if self.align_corners.is_some() && self.mode.axes().is_none() {
            let mode = self.mode.name();
            return wrong(format!(
                "expected align_corners with a mode that interpolates, got mode \"{mode}\""
            ));
        }
        if self.recompute == Some(true) && self.size.is_some() {
            return wrong("expected recompute_scale_factor with a scale factor, got a size".into());
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let shape = Shape::new(input)?;
        let rank = input.len().wrapping_sub(2);
        let fits = (1..=3).contains(&rank) && self.mode.axes().is_none_or(|axes| axes == rank);
        let mut out = shape;
        for axis in 0..if fits { rank } else { 0 } {
            match self.length(axis, rank, input[axis + 2]) {
                Some(length) if length > 0 && input[axis + 2] > 0 => out[axis + 2] = length,
                _ => return Err(self.unfit(input)),
            }
        }
        if !fits {
            return Err(self.unfit(input));
        }
        // Resized along the inner axes alone, as between the passes.
        for axis in 0..rank {
            let mut part = out;
            part[2..axis + 2].copy_from_slice(&input[2..axis + 2]);
            Shape::new(&part)?;
        }
        Shape::new(&out)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let UpsampleCache { taps, parts: [a, b], .. } = cache;
        self.prepare(x.shape(), &shape, taps);
        let (rank, y) = (shape.len() - 2, y.reset(shape));
        // The innermost axis first: y = A₁ (A₂ (A₃ x)).
        let step = |axis: usize, x: &[T], y: &mut [T]| {
            weigh(x, y, &taps[axis], shape[axis + 3..].iter().product());
        };
        let mut sizes = *x.shape();
        let mut grow = |axis: usize| {
            sizes[axis + 2] = shape[axis + 2];
            sizes.volume()
        };
        match rank {
            1 => step(0, x.data(), y),
            2 => {
                a.resize(grow(1), T::ZERO);
                step(1, x.data(), a);
                step(0, a, y);
            }
            _ => {
                a.resize(grow(2), T::ZERO);
                b.resize(grow(1), T::ZERO);
                step(2, x.data(), a);
                step(1, a, b);
                step(0, b, y);
            }
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let (from, to) = (*call.x.shape(), *call.dy.shape());
        let UpsampleCache { taps, transpose, parts: [a, b] } = cache;
        self.prepare(&from, &to, taps);
        let dx = dx.reset(from);
        // The outermost axis first: dx = A₃ᵀ (A₂ᵀ (A₁ᵀ dy)).
        let mut step = |axis: usize, dy: &[T], dx: &mut [T]| {
            transpose.transpose_of(&taps[axis]);
            weigh(dy, dx, transpose, to[axis + 3..].iter().product());
        };
        let mut sizes = to;
        let mut shrink = |axis: usize| {
            sizes[axis + 2] = from[axis + 2];
            sizes.volume()
        };
        match from.len() - 2 {
            1 => step(0, call.dy.data(), dx),
            2 => {
                a.resize(shrink(0), T::ZERO);
                step(0, call.dy.data(), a);
                step(1, a, dx);
            }
            _ => {
                a.resize(shrink(0), T::ZERO);
                b.resize(shrink(1), T::ZERO);
                step(0, call.dy.data(), a);
                step(1, a, b);
                step(2, b, dx);
            }
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let taps = if self.mode == UpsampleMode::Bicubic { 8 } else { 4 };
        self.output_shape(input).map_or(0, |shape| (shape.volume() as u64).saturating_mul(taps))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok(shape) = self.output_shape(input) else { return 0 };
        let mut sizes = shape;
        let mut bytes = shape[2..].iter().fold(0, |sum: usize, &m| sum.saturating_add(m)).saturating_mul(32);
        for axis in 0..shape.len() - 3 {
            sizes[axis + 2] = input[axis + 2];
            bytes = bytes.saturating_add(sizes.volume().saturating_mul(size_of::<T>()));
        }
        bytes
    }

    fn spec(&self) -> Spec {
        Spec::new("Upsample")
            .with("size", self.size.clone())
            .with("scale_factor", self.scale_factor.clone())
            .with("mode", self.mode)
            .with("align_corners", self.align_corners)
            .with("recompute_scale_factor", self.recompute)
    }
}

impl<T: Scalar> Upsample<T> {
    #[cold]
    fn unfit(&self, input: &[usize]) -> Error {
        let given = self.size.as_ref().map(Vec::len).or(self.scale_factor.as_ref().map(Vec::len));
        let axes = match (self.mode.axes(), given) {
            (Some(axes), _) => axes.to_string(),
            (None, Some(axes @ 2..)) => axes.to_string(),
            _ => "1 to 3".into(),
        };
        let mode = self.mode.name();
        Error::shape(format!(
            "Upsample: expected input (N, C, ..) with {axes} more axes that are not empty, before and after, \
             for mode \"{mode}\", got {input:?}"
        ))
    }
}

/// One value or a list of them.
fn list<T: Scalar, V: FromValue>(args: &Args<'_, T>, name: &str) -> Result<Option<Vec<V>>> {
    match args.value(name) {
        None | Some(Value::None) => Ok(None),
        Some(Value::List(_)) => args.get::<Vec<V>>(name).map(Some),
        Some(_) => args.get::<V>(name).map(|all| Some(vec![all])),
    }
}

impl<T: Scalar> FromSpec<T> for Upsample<T> {
    const FACTS: Facts = Facts::new("Upsample")
        .family("shape")
        .formula("x at another resolution, interpolated")
        .page("layers/shape/upsample.md")
        .torch("Upsample");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            size: list(args, "size")?,
            scale_factor: list(args, "scale_factor")?,
            mode: args.or("mode", UpsampleMode::Nearest)?,
            align_corners: args.optional("align_corners")?,
            recompute: args.optional("recompute_scale_factor")?,
            of: PhantomData,
        })
    }

    fn examples() -> Vec<Example> {
        use UpsampleMode::{Bicubic, Bilinear, Linear, Trilinear};
        let (twice, aligned) = (Self::scale_factor([2.0]), |layer: Self| layer.align_corners(true));
        vec![
            Example::new(twice.spec(), [[2, 3, 4]]),
            Example::new(Self::size([5, 2]).spec(), [[2, 1, 3, 4]]),
            Example::new(aligned(Self::size([7]).mode(Linear)).spec(), [[2, 2, 4]]),
            Example::new(Self::scale_factor([1.5, 2.0]).mode(Bilinear).spec(), [[2, 2, 3, 3]]),
            Example::new(Self::size([5, 7]).mode(Bicubic).align_corners(false).spec(), [[1, 2, 3, 4]]),
            Example::new(twice.clone().mode(Trilinear).spec(), [[1, 2, 2, 3, 2]]),
            Example::bench(twice.mode(Bilinear).spec(), [[8, 32, 32, 32]]),
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
            batch in 1..3usize, n in 1..6usize, m in 1..9usize, mode in 0..3usize, align in any::<bool>(),
        ) {
            layer: match mode {
                0 => Upsample::size([m]),
                1 => Upsample::size([m]).mode(UpsampleMode::NearestExact),
                _ => Upsample::size([m]).mode(UpsampleMode::Linear).align_corners(align),
            },
            input: [batch, 2, n],
            wrong: [batch, n], wrong: [batch, 2, n, n, n, n],
        }
        images_obey_the_laws(
            h in 1..5usize, w in 1..5usize, height in 1..7usize, width in 1..7usize, mode in 0..3usize,
            align in any::<bool>(),
        ) {
            layer: match mode {
                0 => Upsample::size([height, width]),
                1 => Upsample::size([height, width]).mode(UpsampleMode::Bilinear).align_corners(align),
                _ => Upsample::size([height, width]).mode(UpsampleMode::Bicubic).align_corners(align),
            },
            input: [2, 1, h, w],
            wrong: [2, 1, h],
        }
        factors_obey_the_laws(h in 1..5usize, w in 1..5usize, factor in 1.0..3.0f64, recompute in any::<bool>()) {
            layer: Upsample::scale_factor([factor, 2.0])
                .mode(UpsampleMode::Bilinear)
                .recompute_scale_factor(recompute),
            input: [2, 1, h, w],
        }
        volumes_obey_the_laws(d in 1..4usize, h in 1..4usize, m in 1..5usize, align in any::<bool>()) {
            layer: Upsample::size([m, 3, 2]).mode(UpsampleMode::Trilinear).align_corners(align),
            input: [1, 2, d, h, 3],
        }
    }

    /// (1, 3) to 4 elements: sources −¼, ¼, ¾, 1¼, of which the first is clamped to 0 and the last lies behind the last element:
    /// y = (1, ¾·1 + ¼·3, ¼·1 + ¾·3, 3) = (1, 1½, 2½, 3). For g = (1, 4, 8, 2): ∂x = (1 + 3 + 2, 1 + 6 + 2) = (6, 9).
    #[test]
    pub fn by_hand() {
        let layer = Upsample::<f64>::scale_factor([2.0]).mode(UpsampleMode::Linear);
        let x = Tensor::from_vec([1, 1, 2], vec![1.0, 3.0]).unwrap();
        let y = layer.infer(&x).unwrap();
        assert_eq!(y.data(), [1.0, 1.5, 2.5, 3.0]);
        let dy = Tensor::from_vec([1, 1, 4], vec![1.0, 4.0, 8.0, 2.0]).unwrap();
        let (mut cache, mut dx) = (UpsampleCache::default(), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [6.0, 9.0]);
    }

    #[test]
    fn a_constant_stays_one_in_every_mode() {
        for mode in UpsampleMode::ALL {
            let layer = Upsample::<f64>::size([7]).mode(mode);
            let shape = [1; 2].into_iter().chain(std::iter::repeat_n(4, mode.axes().unwrap_or(1)));
            let shape: Vec<usize> = shape.collect();
            let y = layer.infer(&Tensor::full(&shape[..], 3.0)).unwrap();
            assert!(y.data().iter().all(|v| (v - 3.0).abs() < 1e-12), "{mode:?} {y:?}");
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for size in [vec![], vec![0], vec![1, usize::MAX], vec![2; 4]] {
            assert!(Upsample::<f32>::size(size).check().is_err());
        }
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(Upsample::<f32>::scale_factor([factor]).check().is_err());
        }
        assert!(Upsample::<f32>::size([2]).align_corners(true).check().is_err());
        assert!(Upsample::<f32>::scale_factor([0.1]).output_shape(&[1, 1, 4]).is_err());
        let text = Upsample::<f32>::size([2, 2]).mode(UpsampleMode::Bilinear).output_shape(&[1, 2, 3]);
        assert!(text.unwrap_err().to_string().contains("with 2 more axes"));
    }
}
