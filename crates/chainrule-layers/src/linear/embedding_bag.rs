//! Sums, means or maxima of rows of a table, one for each bag of ids.
//!
//! ```text
//! y = Σ w W[x], 1/n Σ W[x] or max W[x] over the n ids x of a bag, padding left out
//! ∂E/∂W[i] = Σ over the x = i of w g, g/n, or g where W[i] is the maximum,   g = ∂E/∂y of its bag        ∂E/∂w = g · W[x]
//! ```
//!
//! With a largest norm m, a row w with ‖w‖ > m is s w, as in Embedding. Ids and offsets have no derivative. Keeps the place of each maximum. Derivation: docs/layers/linear/embedding_bag.md.

use super::embedding::{check_norm, renormalize, renormalize_gradient, renormalize_rows};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, FromValue, Grads, Init, Module, ModuleCall, Param,
    Parameters, Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor, Value,
};
use chainrule_tensor::{
    compiled,
    kernels::{
        layers::{
            bag::{Bags, NONE, max_bags, sum_bags},
            embedding::{gather, row_indices, scatter_add},
        },
        reduce::dot,
    },
    position,
};

/// What becomes of the rows of a bag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BagMode {
    /// Their sum, weighted if there are weights.
    Sum,
    /// Their mean.
    #[default]
    Mean,
    /// The maximum of each column.
    Max,
}

impl BagMode {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }
}

impl From<BagMode> for Value {
    fn from(mode: BagMode) -> Self {
        mode.name().into()
    }
}

impl FromValue for BagMode {
    const WHAT: &'static str = "\"sum\", \"mean\" or \"max\"";

    fn from_value(value: &Value) -> Option<Self> {
        let text = String::from_value(value)?;
        [Self::Sum, Self::Mean, Self::Max].into_iter().find(|mode| mode.name() == text)
    }
}

/// The sum, mean or maximum of the rows that the ids of a bag name. An empty bag gives zeros.
///
/// # Shapes
/// Bags of one length: ids (N, L). Bags of any: ids (K) and offsets (N), with [`EmbeddingBag::offsets`], where each bag begins. Then, with
/// [`EmbeddingBag::per_sample_weights`], weights of the shape of the ids. y (N, D); `weight` (rows, D), which starts as standard normal
/// values.
///
/// # Errors
/// Forward if an id is not an integer below the number of rows, or offsets do not ascend from 0.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{BagMode, EmbeddingBag};
/// let words = EmbeddingBag::new(1000, 64).mode(BagMode::Sum).offsets(true).init(1)?;
/// let (ids, offsets) = (Tensor::from([17.0f32, 4.0, 0.0]), Tensor::from([0.0, 2.0]));
/// assert_eq!(words.infer([&ids, &offsets])?.shape()[..], [2, 64]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct EmbeddingBag<T = f32> {
    rows: usize,
    width: usize,
    mode: BagMode,
    padding: Option<usize>,
    offsets: bool,
    include_last: bool,
    weighted: bool,
    by_frequency: bool,
    max_norm: Option<f64>,
    norm_type: f64,
    weight: Param<T>,
}

/// Scratch space of both passes, and the places of the maxima.
#[derive(Debug, Default)]
pub struct EmbeddingBagCache<T> {
    /// The shape of the ids, if the pass was recorded.
    recorded: Option<Shape>,
    ids: Vec<u32>,
    /// Where each bag begins, and where the last ends.
    starts: Vec<usize>,
    /// The position of the maximum of each column of each bag, or `NONE`.
    winners: Vec<usize>,
    /// What each id, or each bag, adds to rows of ∂E/∂W, and the bag of each id.
    shares: Vec<T>,
    of: Vec<u32>,
    /// How often each row is named, 0 of all between calls.
    counts: Vec<u32>,
    /// With a largest norm, the row of each id, brought to it.
    rows: Vec<T>,
    /// Whether the ids are those of a training pass, after which their rows are brought to the largest norm.
    training: bool,
}

impl<T: Scalar> EmbeddingBag<T> {
    const INIT: Init = Init::Normal { mean: 0.0, std: 1.0 };

    /// The means of bags of rows of a table of `rows` vectors of `width` elements.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            rows,
            width,
            mode: BagMode::Mean,
            padding: None,
            offsets: false,
            include_last: false,
            weighted: false,
            by_frequency: false,
            max_norm: None,
            norm_type: 2.0,
            weight: Param::new("weight", [rows, width], Self::INIT),
        }
    }

    /// What becomes of the rows of a bag: their mean by default.
    #[must_use]
    pub fn mode(self, mode: BagMode) -> Self {
        Self { mode, ..self }
    }

    /// The padding id: it is in no bag, and its row starts as zeros and never learns.
    #[must_use]
    pub fn padding_idx(mut self, row: impl Into<Option<usize>>) -> Self {
        self.padding = row.into();
        self.weight.set_zero_row(self.padding);
        self
    }

    /// With a second input that says where each bag begins.
    #[must_use]
    pub fn offsets(self, offsets: bool) -> Self {
        Self { offsets, ..self }
    }

    /// Whether the last offset is the end of the last bag rather than the beginning of one more.
    #[must_use]
    pub fn include_last_offset(self, include: bool) -> Self {
        Self { include_last: include, ..self }
    }

    /// With a last input that has a weight for each id; for sums.
    #[must_use]
    pub fn per_sample_weights(self, weighted: bool) -> Self {
        Self { weighted, ..self }
    }

    /// Whether the gradient of a row is divided by how often the batch names it, as PyTorch does it.
    #[must_use]
    pub fn scale_grad_by_freq(self, scale: bool) -> Self {
        Self { by_frequency: scale, ..self }
    }

    /// The largest norm of a row: one that is larger is scaled to it where it is looked up, and after a training step in the table.
    #[must_use]
    pub fn max_norm(self, max_norm: impl Into<Option<f64>>) -> Self {
        Self { max_norm: max_norm.into(), ..self }
    }

    /// The p of that norm, (Σ |w|ᵖ)^(1/p), 2 by default; infinite for the largest |w|.
    #[must_use]
    pub fn norm_type(self, norm_type: f64) -> Self {
        Self { norm_type, ..self }
    }

    /// Another initialiser for the table.
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }

    /// y's shape from those of the inputs.
    fn shape_of<'s>(&self, inputs: impl ExactSizeIterator<Item = &'s Shape> + Clone) -> Result<Shape> {
        self.validate()?;
        let mut shapes = inputs.clone();
        let wrong = || {
            let ids = if self.offsets { "ids (K), offsets (N)" } else { "ids (N, L)" };
            let weights = if self.weighted { ", weights of the ids' shape" } else { "" };
            let got: Vec<_> = inputs.clone().map(ToString::to_string).collect();
            Error::shape(format!("EmbeddingBag: expected {ids}{weights}, got {}", got.join(", ")))
        };
        if inputs.len() != self.inputs() {
            return Err(wrong());
        }
        let ids = shapes.next().ok_or_else(wrong)?;
        let bags = match (self.offsets, &ids[..]) {
            (true, [_]) => match shapes.next().ok_or_else(wrong)?[..] {
                [n] => n.checked_sub(usize::from(self.include_last)).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            },
            (false, [n, _]) => *n,
            _ => return Err(wrong()),
        };
        if self.weighted && shapes.next() != Some(ids) {
            return Err(wrong());
        }
        Shape::new(&[bags, self.width])
    }

    fn bags<'a>(&self, ids: &'a [u32], starts: &'a [usize]) -> Bags<'a> {
        Bags { ids, starts, skip: self.padding.map(|row| row as u32), gathered: self.max_norm.is_some() }
    }

    /// Whether all rows of a bag have one gradient, by which nothing else is multiplied.
    fn alike(&self) -> bool {
        self.mode != BagMode::Max && !self.weighted && !self.by_frequency && self.max_norm.is_none()
    }

    /// The rows that bags look into: with a largest norm one for each id, brought to it, and else the table.
    fn look_up<'c>(&self, table: &'c [T], ids: &[u32], rows: &'c mut Vec<T>) -> &'c [T] {
        let Some(max) = self.max_norm else { return table };
        rows.resize(ids.len() * self.width, T::ZERO);
        gather(table, self.width, ids, rows);
        renormalize(rows, self.width, max, self.norm_type);
        rows
    }

    /// Fills the ids and the starts of the bags.
    fn prepare(&self, xs: &[&Tensor<T>], cache: &mut EmbeddingBagCache<T>) -> Result<()> {
        let (x, EmbeddingBagCache { ids, starts, .. }) = (xs[0], cache);
        ids.resize(x.len(), 0);
        row_indices(x.data(), self.rows, ids).map_err(|at| {
            Error::index(format!(
                "EmbeddingBag: expected integers in 0..{}, got {} at {:?}",
                self.rows,
                x.data()[at],
                position(x.shape(), at)
            ))
        })?;
        starts.clear();
        if !self.offsets {
            starts.extend((0..=x.shape()[0]).map(|bag| bag * x.shape()[1]));
            return Ok(());
        }
        for &offset in xs[1].data() {
            let (at, last) = (offset.to_index(), starts.last().copied());
            match at {
                Some(at) if at <= ids.len() && last.map_or(at == 0, |last| last <= at) => starts.push(at),
                _ => {
                    return Err(Error::index(format!(
                        "EmbeddingBag: expected offsets that ascend from 0 to at most {}, got {offset} behind {last:?}",
                        ids.len()
                    )));
                }
            }
        }
        if !self.include_last || starts.is_empty() {
            starts.push(ids.len());
        }
        Ok(())
    }
}

/// What a row counts in its bag, weights aside.
fn factor<T: Scalar>(mode: BagMode, bags: Bags<'_>, bag: usize) -> T {
    if mode == BagMode::Mean { T::ONE / T::from_usize(bags.count(bag).max(1)) } else { T::ONE }
}

compiled! {
    /// What each row of a bag adds to its row of ∂E/∂W, where all add the same; `of` is the bag of each id.
    fn share_alike[T](dy: &[T], d: usize, bags: Bags<'_>, mode: BagMode, shares: &mut [T], of: &mut [u32]) {
        for (n, (share, dy)) in shares.chunks_exact_mut(d).zip(dy.chunks_exact(d)).enumerate() {
            let by: T = factor(mode, bags, n);
            share.iter_mut().zip(dy).for_each(|(share, &dy)| *share = by * dy);
            of[bags.starts[n]..bags.starts[n + 1]].fill(n as u32);
        }
    }
}

compiled! {
    /// What each id adds to its row of ∂E/∂W.
    fn share[T](
        dy: &[T],
        d: usize,
        bags: Bags<'_>,
        mode: BagMode,
        weights: Option<&[T]>,
        winners: &[usize],
        shares: &mut [T],
    ) {
        shares.fill(T::ZERO);
        for (n, dy) in dy.chunks_exact(d).enumerate() {
            if mode == BagMode::Max {
                for ((c, &dy), &winner) in dy.iter().enumerate().zip(&winners[n * d..][..d]) {
                    if winner != NONE {
                        shares[winner * d + c] = dy;
                    }
                }
                continue;
            }
            let scale = factor(mode, bags, n);
            for (i, _) in bags.bag(n) {
                let by = weights.map_or(scale, |w| w[i]);
                shares[i * d..][..d].iter_mut().zip(dy).for_each(|(share, &dy)| *share = by * dy);
            }
        }
    }
}

compiled! {
    /// dw_i = dy · W[x_i] of each id.
    fn weight_gradient[T](table: &[T], dy: &[T], d: usize, bags: Bags<'_>, dw: &mut [T]) {
        dw.fill(T::ZERO);
        for (n, dy) in dy.chunks_exact(d).enumerate() {
            for (i, row) in bags.bag(n) {
                dw[i] = T::from_f64(dot(&table[row * d..][..d], dy));
            }
        }
    }
}

impl<T: Scalar> Parameters for EmbeddingBag<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }

    fn validate(&self) -> Result<()> {
        check_norm("EmbeddingBag", self.max_norm, self.norm_type)?;
        super::embedding::check_table::<T>("EmbeddingBag", self.rows, self.width, self.padding)?;
        let wrong = |what: &str| Err(Error::value(format!("EmbeddingBag: {what}")));
        if self.weighted && self.mode != BagMode::Sum {
            return wrong("expected per_sample_weights with mode \"sum\" alone");
        }
        if self.include_last && !self.offsets {
            return wrong("expected include_last_offset with offsets alone");
        }
        Ok(())
    }
}

impl<T: Scalar> Module for EmbeddingBag<T> {
    type State = EmbeddingBagCache<T>;

    fn inputs(&self) -> usize {
        1 + usize::from(self.offsets) + usize::from(self.weighted)
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.weighted && input + 1 == self.inputs()
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        Ok(vec![self.shape_of(inputs.iter())?])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = None;
        let shape = self.shape_of(xs.iter().map(|x| x.shape()))?;
        let [y] = ys else {
            return Err(Error::shape(format!("EmbeddingBag: expected one output, got {}", ys.len())));
        };
        self.prepare(xs, cache)?;
        let weights = self.weighted.then(|| xs[xs.len() - 1].data());
        let EmbeddingBagCache { ids, starts, winners, rows, training, .. } = cache;
        *training = cx.training();
        winners.resize(if self.mode == BagMode::Max { shape.volume() } else { 0 }, NONE);
        let table = self.look_up(self.weight.value()?, ids, rows);
        let (bags, y) = (self.bags(ids, starts), y.reset(shape));
        match self.mode {
            BagMode::Max => max_bags(table, self.width, bags, y, winners), // y = max W[x]
            mode => sum_bags(table, self.width, bags, weights, mode == BagMode::Mean, y), // y = Σ w W[x]
        }
        cache.recorded = cx.recording().then_some(*xs[0].shape());
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let shape = self.shape_of(call.xs.iter().map(|x| x.shape()))?;
        let recorded = cache.recorded == Some(*call.xs[0].shape()) && cache.winners.len() == shape.volume();
        let fits = self.mode != BagMode::Max || recorded;
        let ([y], [dy], true) = (call.ys, call.dys, fits && dxs.len() == call.xs.len()) else {
            return Err(Error::not_recorded("EmbeddingBag: expected the cache of a recorded forward"));
        };
        if shape != *y.shape() {
            return Err(Error::not_recorded("EmbeddingBag: expected y and ∂E/∂y of these inputs"));
        }
        for (x, dx) in call.xs.iter().zip(dxs.iter_mut()) {
            dx.iter_mut().for_each(|dx| dx.reset(*x.shape()).fill(T::ZERO)); // ids and offsets: dx = 0
        }
        let Some(dy) = dy else { return Ok(()) };
        self.prepare(call.xs, cache)?;
        let weights = self.weighted.then(|| call.xs[call.xs.len() - 1].data());
        let EmbeddingBagCache { ids, starts, winners, shares, of, counts, rows, .. } = cache;
        let (d, bags) = (self.width, self.bags(ids, starts));
        if let Some(dw) = grads.of_rows(&self.weight, ids, d) {
            if self.alike() && u32::try_from(starts.len()).is_ok() {
                shares.resize(dy.len(), T::ZERO);
                of.resize(ids.len(), 0);
                share_alike(dy.data(), d, bags, self.mode, shares, of);
                let used = ..starts.last().copied().unwrap_or(0); // the others are in no bag
                scatter_add(&ids[used], Some(&of[used]), shares, d, bags.skip, dw); // dW[x] += dy
                return Ok(());
            }
            shares.resize(ids.len() * d, T::ZERO);
            share(dy.data(), d, bags, self.mode, weights, winners, shares);
            if let Some(max) = self.max_norm {
                renormalize_gradient(self.weight.value()?, ids, d, shares, max, self.norm_type);
            }
            if self.by_frequency {
                counts.resize(self.rows, 0);
                super::embedding::divide(ids, d, shares, counts);
            }
            scatter_add(ids, None, shares, d, bags.skip, dw); // dW[x] += w dy
        }
        if let (true, Some(Some(dw))) = (self.weighted, dxs.last_mut()) {
            let table = self.look_up(self.weight.value()?, ids, rows);
            weight_gradient(table, dy.data(), d, bags, dw.data_mut()); // dw = dy · W[x]
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    /// The rows of a training pass are brought to the largest norm.
    fn fold(&mut self, cache: &Self::State) {
        if let Some(max) = self.max_norm.filter(|_| cache.training && self.weight.trainable()) {
            renormalize_rows(&mut self.weight, &cache.ids, self.width, max, self.norm_type);
        }
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        inputs.first().map_or(0, |ids| (ids.volume() as u64).saturating_mul(self.width as u64))
    }

    fn to_spec(&self) -> Spec {
        Spec::new("EmbeddingBag")
            .with("num_embeddings", self.rows)
            .with("embedding_dim", self.width)
            .with("mode", self.mode)
            .with("padding_idx", self.padding)
            .with("scale_grad_by_freq", self.by_frequency)
            .with("include_last_offset", self.include_last)
            .with("offsets", self.offsets)
            .with("per_sample_weights", self.weighted)
            .with_unless(None, "max_norm", self.max_norm)
            .with_unless(2.0, "norm_type", self.norm_type)
            .with_unless(Self::INIT, "weight_init", self.weight.initializer())
    }
}

impl<T: Scalar> FromSpec<T> for EmbeddingBag<T> {
    const FACTS: Facts = Facts::new("EmbeddingBag")
        .family("linear")
        .formula("sum, mean or max of rows x of W")
        .page("layers/linear/embedding_bag.md")
        .torch("EmbeddingBag");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rows: usize = args.get("num_embeddings")?;
        args.value("sparse"); // without effect
        Ok(Self::new(rows, args.get("embedding_dim")?)
            .mode(args.or("mode", BagMode::Mean)?)
            .padding_idx(super::embedding::padding_row(args, rows)?)
            .scale_grad_by_freq(args.or("scale_grad_by_freq", false)?)
            .include_last_offset(args.or("include_last_offset", false)?)
            .offsets(args.or("offsets", false)?)
            .per_sample_weights(args.or("per_sample_weights", false)?)
            .max_norm(args.optional::<f64>("max_norm")?)
            .norm_type(args.or("norm_type", 2.0)?)
            .weight_init(args.or("weight_init", Self::INIT)?))
    }

    fn examples() -> Vec<Example> {
        let bags = || Self::new(5, 3);
        vec![
            Example::new(bags().to_spec(), [[2, 4]]).ids(5),
            Example::new(bags().mode(BagMode::Max).to_spec(), [[3, 2]]).ids(5),
            Example::new(bags().mode(BagMode::Sum).per_sample_weights(true).to_spec(), [[2, 3]; 2]).ids(5),
            Example::new(bags().max_norm(1.0).norm_type(1.5).to_spec(), [[2, 3]]).ids(5),
            Example::bench(Self::new(10_000, 256).to_spec(), [[256, 16]]).ids(10_000),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    const MODES: [BagMode; 3] = [BagMode::Sum, BagMode::Mean, BagMode::Max];

    laws! {
        obeys_the_laws(
            rows in 1..9usize, width in 1..7usize, bags in 1..4usize, length in 1..5usize, mode in 0..3usize,
        ) {
            layer: EmbeddingBag::new(rows, width).mode(MODES[mode]),
            input: [bags, length],
            values: Values::Indices(0..rows),
            wrong: [bags], wrong: [bags, length, 1],
        }
        weights_obey_the_laws(rows in 1..9usize, width in 1..7usize, bags in 1..4usize, length in 1..5usize) {
            layer: EmbeddingBag::new(rows, width).mode(BagMode::Sum).per_sample_weights(true),
            inputs: [[bags, length]; 2],
            values_of(0): Values::Indices(0..rows),
            wrong_inputs: [[bags, length], [bags, length + 1]],
        }
        obeys_the_laws_with_a_largest_norm(
            rows in 1..5usize, width in 1..5usize, bags in 1..4usize, length in 1..5usize, mode in 0..3usize, max in 0.5..2.0f64,
            p in prop_oneof![Just(1.0), Just(2.0), Just(f64::INFINITY), 1.5..4.0f64], pad in any::<bool>(),
        ) {
            layer: EmbeddingBag::new(rows, width).mode(MODES[mode]).max_norm(max).norm_type(p).padding_idx(pad.then_some(0)),
            input: [bags, length],
            values: Values::Indices(0..rows),
        }
        weights_obey_the_laws_with_a_largest_norm(rows in 1..5usize, width in 1..5usize, bags in 1..4usize, length in 1..5usize) {
            layer: EmbeddingBag::new(rows, width).mode(BagMode::Sum).per_sample_weights(true).max_norm(0.9),
            inputs: [[bags, length]; 2],
            values_of(0): Values::Indices(0..rows),
        }
    }

    fn layer(mode: BagMode) -> EmbeddingBag<f64> {
        let mut layer = EmbeddingBag::new(3, 2).mode(mode).offsets(true);
        layer.weight.set(Tensor::from([[1., 2.], [3., 4.], [5., 0.]])).unwrap();
        layer
    }

    fn pass(
        layer: &EmbeddingBag<f64>,
        xs: &[&Tensor<f64>],
        dy: &Tensor<f64>,
    ) -> (Tensor<f64>, Vec<f64>, Tensor<f64>) {
        let (mut ys, mut cache, mut dw) =
            ([Tensor::default()], EmbeddingBagCache::default(), Tensor::default());
        layer.apply(xs, &mut ys, &mut cache, Context::train(0)).unwrap();
        let (mut grads, dys) = (Grads::new(layer), [Some(dy)]);
        let call = ModuleCall::new(layer, xs, &ys, &dys).unwrap();
        let mut dxs: Vec<_> = xs.iter().map(|_| None).collect();
        if layer.weighted {
            dxs.pop();
            dxs.push(Some(&mut dw));
        }
        layer.pull(call, &mut cache, &mut grads, &mut dxs).unwrap();
        let [y] = ys;
        (y, grads.values().to_vec(), dw)
    }

    /// W = (1 2; 3 4; 5 0), bags (2, 0), () and (2): sums (6 2), 0, (5 0); for g = (1 10; 7 7; 2 20): ∂W[0] = (1 10),
    /// ∂W[2] = (3 30). Means: (3 1), 0, (5 0), ∂W[0] = (½ 5), ∂W[2] = (2½ 25). Maxima: (5 2), 0, (5 0), ∂W[0] = (0 10),
    /// ∂W[2] = (3 20). Weights (2, 3, 4): (2·5 + 3·1, 2·0 + 3·2) = (13 6), 0, (20 0), ∂W[0] = (3 30),
    /// ∂W[2] = (2 + 8, 20 + 80), ∂w = (5, 1 + 20, 10).
    #[test]
    pub fn by_hand() {
        let (ids, offsets) = (Tensor::from([2., 0., 2.]), Tensor::from([0., 2., 2.]));
        let dy = Tensor::from([[1., 10.], [7., 7.], [2., 20.]]);
        let wants = [
            ([6., 2., 0., 0., 5., 0.], [1., 10., 0., 0., 3., 30.]),
            ([3., 1., 0., 0., 5., 0.], [0.5, 5., 0., 0., 2.5, 25.]),
            ([5., 2., 0., 0., 5., 0.], [0., 10., 0., 0., 3., 20.]),
        ];
        for (mode, (y, dw)) in MODES.into_iter().zip(wants) {
            let (got, grads, _) = pass(&layer(mode), &[&ids, &offsets], &dy);
            assert_eq!((got.data(), &grads[..]), (&y[..], &dw[..]), "{mode:?}");
        }
        let (weighted, weights) = (layer(BagMode::Sum).per_sample_weights(true), Tensor::from([2., 3., 4.]));
        let (y, grads, dw) = pass(&weighted, &[&ids, &offsets, &weights], &dy);
        assert_eq!(y.data(), [13., 6., 0., 0., 20., 0.]);
        assert_eq!((&grads[..], dw.data()), (&[3., 30., 0., 0., 10., 100.][..], &[5., 21., 10.][..]));
    }

    /// W[1] = (3 4) of length 5, W[0] = (1 2) and W[2] = (5 0) at m = 5 are as they are; m = 2.5 halves W[1] and W[2]. The bag (1, 2):
    /// (1.5 2) + (2.5 0) = (4 2). For g = (1 0), s = ½, s²/m = 0.1: W[1] gets (½ 0) − 0.1·3·(0.6 0.8) = (0.32 −0.24), W[2]
    /// (½ 0) − 0.1·5·(1 0) = 0; the weights get g · s w = 1.5 and 2.5. After the step W[1] is (1.5 2).
    #[test]
    fn rows_above_the_largest_norm_are_scaled_to_it() {
        let mut bag = layer(BagMode::Sum).per_sample_weights(true).max_norm(2.5);
        let (ids, offsets, weights) = (Tensor::from([1., 2.]), Tensor::from([0.]), Tensor::from([1., 1.]));
        let near = |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6);
        let (y, grads, dw) = pass(&bag, &[&ids, &offsets, &weights], &Tensor::from([[1., 0.]]));
        assert!(near(y.data(), &[4., 2.]) && near(dw.data(), &[1.5, 2.5]), "{y:?} {dw:?}");
        assert!(near(&grads, &[0., 0., 0.32, -0.24, 0., 0.]), "{grads:?}");
        let (mut ys, mut cache) = ([Tensor::default()], EmbeddingBagCache::default());
        bag.apply(&[&ids, &offsets, &weights], &mut ys, &mut cache, Context::infer()).unwrap();
        bag.fold(&cache);
        assert_eq!(bag.weight.value().unwrap()[2..4], [3., 4.]);
        bag.apply(&[&ids, &offsets, &weights], &mut ys, &mut cache, Context::train(0)).unwrap();
        bag.fold(&cache);
        assert!(near(bag.weight.value().unwrap(), &[1., 2., 1.5, 2., 2.5, 0.]));
        // The places of maxima are those among scaled rows: 2 of W[0] and W[1], 2.5 of W[2].
        let largest =
            layer(BagMode::Max).max_norm(2.5).infer([&Tensor::from([0., 1., 2.]), &offsets]).unwrap();
        assert!(near(largest.data(), &[2.5, 2.]), "{largest:?}");
    }

    #[test]
    fn the_last_offset_may_end_the_last_bag() {
        let (ids, offsets) = (Tensor::from([2., 0., 1.]), Tensor::from([0., 1., 2.]));
        let y = layer(BagMode::Sum).include_last_offset(true).infer([&ids, &offsets]).unwrap();
        assert_eq!(y, Tensor::from([[5., 0.], [1., 2.]]));
        for wrong in [[1., 1., 2.], [0., 2., 1.], [0., 1., 4.], [0., 0.5, 1.], [0., f64::NAN, 1.]] {
            assert!(layer(BagMode::Sum).infer([&ids, &Tensor::from(wrong)]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn padding_is_in_no_bag_and_its_row_learns_nothing() {
        let mut padded = layer(BagMode::Mean).padding_idx(1);
        padded.weight.set(Tensor::from([[1., 2.], [9., 9.], [5., 0.]])).unwrap();
        let (ids, offsets) = (Tensor::from([1., 0., 1.]), Tensor::from([0., 2.]));
        let (y, grads, _) = pass(&padded, &[&ids, &offsets], &Tensor::from([[1., 2.], [3., 4.]]));
        assert_eq!((y.data(), &grads[..]), (&[1., 2., 0., 0.][..], &[1., 2., 0., 0., 0., 0.][..]));
    }

    #[test]
    fn gradients_are_divided_by_how_often_an_id_is_named() {
        let (ids, offsets) = (Tensor::from([2., 0., 2.]), Tensor::from([0.]));
        let (_, grads, _) =
            pass(&layer(BagMode::Sum).scale_grad_by_freq(true), &[&ids, &offsets], &Tensor::from([[4., 6.]]));
        assert_eq!(grads, [4., 6., 0., 0., 4., 6.]);
    }

    #[test]
    fn arguments_that_make_no_sense_are_errors() {
        let bag = EmbeddingBag::<f32>::new;
        assert!(
            bag(0, 1).init(0).is_err()
                && bag(1, 0).init(0).is_err()
                && bag(2, 1).padding_idx(2).init(0).is_err()
        );
        assert!(bag(2, 2).per_sample_weights(true).validate().is_err());
        assert!(bag(2, 2).include_last_offset(true).validate().is_err());
        assert!(bag((1 << 24) + 1, 1).validate().is_err());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(bag(2, 2).max_norm(bad).validate().is_err());
        }
        for bad in [0.0, 0.5, f64::NAN, f64::NEG_INFINITY] {
            assert!(bag(2, 2).norm_type(bad).validate().is_err());
        }
    }
}
