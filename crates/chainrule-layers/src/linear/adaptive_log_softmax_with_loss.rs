//! Logarithms of probabilities of many classes, in clusters by how frequent they are.
//!
//! ```text
//! l = ln softmax(W x + b)        of the c₀ most frequent classes and of each cluster of others
//! tᵢ = ln softmax(Bᵢ Aᵢ x)       of the classes within cluster i
//! y = l_k of a frequent class k,   y = l_{c₀+i} + t_{i,k} of class k of cluster i        E = −Σₙ yₙ / N
//! ```
//!
//! Given g = ∂/∂y, that of E included (−1/N each), p = exp l and q = exp tᵢ:
//!
//! ```text
//! δ = g ([k] − p)   ∂W = Σₙ δ xᵀ   ∂b = Σₙ δ   ∂x = Wᵀ δ
//! εᵢ = g ([k] − q) in rows of cluster i   ∂Bᵢ = Σₙ εᵢ (Aᵢ x)ᵀ   ∂Aᵢ = Σₙ Bᵢᵀ εᵢ xᵀ   ∂x += Aᵢᵀ Bᵢᵀ εᵢ
//! ```
//!
//! Keeps l, and of each cluster the rows that it has, their x, Aᵢ x and tᵢ. Derivation: docs/layers/linear/adaptive_log_softmax_with_loss.md.

use super::linear::{Linear, LinearCache};
use crate::rank::{check_shape, check_sizes};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Module, ModuleCall, Parameters,
    Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::{
        embedding::{gather, row_indices, scatter_add},
        softmax::{self, Kind},
    },
    par, position,
};
use std::ops::Range;

const KIND: &str = "AdaptiveLogSoftmaxWithLoss";

/// Softmax over many classes, of which few are frequent: the rare ones stand in clusters, and a row is compared with the classes of a
/// cluster only if its own is one of them. Grave et al., *Efficient softmax approximation for GPUs*, 2017.
///
/// Classes are sorted from the most frequent to the least. Those below the first of the `cutoffs` are in the head; each cutoff begins a
/// cluster. Cluster i has `in_features / div_valueⁱ⁺¹` hidden features, rounded down.
///
/// Outputs are the logarithm of the probability of each row's class, and the loss, the mean of its negative. In training
/// `ActivityPenalty::new().l1(1.0)` over the first output is this loss too. [`Self::log_prob`] and [`Self::predict`] need no classes.
///
/// # Shapes
/// x (…, in), classes (…), outputs (…) and one without axes; `head.weight` (c₀ + clusters, in), `head.bias` with `.head_bias(true)`,
/// `tail.0.0.weight` (hidden, in), `tail.0.1.weight` (classes of the cluster, hidden), and so on. All start uniform in ±1/√inputs, as
/// PyTorch's do.
///
/// # Errors
/// Cutoffs that do not increase from 1 to below the number of classes, or a cluster without a hidden feature: when built. What is no
/// class: in a pass; the error has its position and value.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::AdaptiveLogSoftmaxWithLoss;
/// let layer = AdaptiveLogSoftmaxWithLoss::new(64, 10_000, [1000, 5000]).init(1)?;
/// let x = Tensor::<f32>::zeros([2, 64]);
/// let ys = layer.infer_all([&x, &Tensor::from([3.0, 7000.0])])?;
/// assert_eq!((ys[0].shape()[..].to_vec(), ys[1].len()), (vec![2], 1));
/// assert_eq!(layer.log_prob(&x)?.shape()[..], [2, 10_000]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct AdaptiveLogSoftmaxWithLoss<T = f32> {
    inputs: usize,
    classes: usize,
    cutoffs: Vec<usize>,
    div_value: f64,
    head_bias: bool,
    head: Linear<T>,
    /// Aᵢ and Bᵢ.
    tail: Vec<[Linear<T>; 2]>,
    names: Vec<String>,
}

impl<T: Scalar> AdaptiveLogSoftmaxWithLoss<T> {
    /// Of `in_features` features, with a cluster from each cutoff on; hidden features are 4, 16, … times fewer, and the head has no bias.
    pub fn new(in_features: usize, n_classes: usize, cutoffs: impl Into<Vec<usize>>) -> Self {
        Self {
            inputs: in_features,
            classes: n_classes,
            cutoffs: cutoffs.into(),
            div_value: 4.0,
            head_bias: false,
            head: Linear::new(1, 1),
            tail: Vec::new(),
            names: Vec::new(),
        }
        .built()
    }

    /// By how much hidden features become fewer from cluster to cluster, 4 by default.
    #[must_use]
    pub fn div_value(self, div_value: f64) -> Self {
        Self { div_value, ..self }.built()
    }

    /// Whether the head has a bias; by default it has none.
    #[must_use]
    pub fn head_bias(self, head_bias: bool) -> Self {
        Self { head_bias, ..self }.built()
    }

    /// With the maps that the settings ask for, if they make sense.
    fn built(mut self) -> Self {
        let clusters = if self.sizes().is_ok() { self.cutoffs.len() } else { 0 };
        self.head = Linear::new(self.inputs, self.frequent().saturating_add(clusters)).bias(self.head_bias);
        let map = |inputs, outputs| Linear::new(inputs, outputs).bias(false);
        let tail = |i| [map(self.inputs, self.hidden(i)), map(self.hidden(i), self.range(i).len())];
        self.tail = (0..clusters).map(tail).collect();
        self.names = (0..clusters).map(|i| i.to_string()).collect();
        self
    }

    /// How many classes are in the head.
    fn frequent(&self) -> usize {
        self.cutoffs.first().copied().unwrap_or(0)
    }

    /// The classes of a cluster.
    fn range(&self, cluster: usize) -> Range<usize> {
        self.cutoffs[cluster]..self.cutoffs.get(cluster + 1).copied().unwrap_or(self.classes)
    }

    /// ⌊in / dⁱ⁺¹⌋
    fn hidden(&self, cluster: usize) -> usize {
        let power = i32::try_from(cluster + 1).unwrap_or(i32::MAX);
        let (inputs, by) = (self.inputs as f64, self.div_value.powi(power));
        ((inputs - inputs % by) / by).round() as usize
    }

    /// Whether the settings make sense together.
    fn sizes(&self) -> Result<()> {
        let (inputs, classes, cutoffs) = (self.inputs, self.classes, &self.cutoffs);
        check_sizes(KIND, "in_features and n_classes", 1, [inputs, classes])?;
        let increasing = cutoffs.windows(2).all(|pair| pair[0] < pair[1]);
        match (cutoffs.first(), cutoffs.last()) {
            (Some(1..), Some(&last)) if increasing && last < classes => {}
            _ => {
                return Err(Error::value(format!(
                    "{KIND}: expected cutoffs that increase from at least 1 to below n_classes {classes}, got {cutoffs:?}"
                )));
            }
        }
        if !(self.div_value > 0.0 && self.div_value.is_finite()) {
            return Err(Error::value(format!(
                "{KIND}: expected a div_value above 0, got {}",
                self.div_value
            )));
        }
        match (0..cutoffs.len()).map(|i| (i, self.hidden(i))).find(|(_, n)| !(1..1 << 31).contains(n)) {
            Some((i, hidden)) => Err(Error::value(format!(
                "{KIND}: expected a div_value that leaves each cluster from 1 to 2³¹ − 1 hidden features of {inputs}, got {} and {hidden} for cluster {i}",
                self.div_value
            ))),
            None => Ok(()),
        }
    }

    /// The shape of the first output.
    fn rows(&self, x: &[usize], classes: Option<&Shape>) -> Result<Shape> {
        self.validate()?;
        match x {
            [rows @ .., last] if *last == self.inputs && classes.is_none_or(|of| of[..] == *rows) => {
                Shape::new(rows)
            }
            _ => Err(Error::shape(match classes {
                Some(of) => format!(
                    "{KIND}: expected inputs (.., {}) and (..), a class for each row, got {x:?} and {of}",
                    self.inputs
                ),
                None => format!("{KIND}: expected input (.., {}), got {x:?}", self.inputs),
            })),
        }
    }

    /// ln p of all classes, (…, classes).
    ///
    /// # Errors
    /// A wrong shape, or a parameter that is not initialised.
    pub fn log_prob(&self, x: &Tensor<T>) -> Result<Tensor<T>> {
        let rows = self.rows(x.shape(), None)?;
        let (mut y, mut part, mut cluster) = (Tensor::default(), Part::default(), Cluster::default());
        let y_data = y.reset(rows.push(self.classes)?);
        part.forward(&self.head, x, Context::infer())?;
        let (frequent, width) = (self.frequent(), self.frequent() + self.tail.len());
        copy_columns(part.log_p.data(), width, 0..frequent, None, y_data, (0, self.classes));
        for (i, maps) in self.tail.iter().enumerate() {
            cluster.forward(maps, x, Context::infer())?;
            let (log_p, classes) = (cluster.part.log_p.data(), self.range(i));
            let of = Some((part.log_p.data(), width, frequent + i));
            copy_columns(log_p, classes.len(), 0..classes.len(), of, y_data, (classes.start, self.classes));
        }
        Ok(y)
    }

    /// The likeliest class of each row. Clusters are computed only for rows of which the head finds one the likeliest.
    ///
    /// # Errors
    /// As [`Self::log_prob`].
    pub fn predict(&self, x: &Tensor<T>) -> Result<Vec<usize>> {
        self.rows(x.shape(), None)?;
        let mut part = Part::default();
        part.forward(&self.head, x, Context::infer())?;
        let mut likeliest = part.log_p.argmax_rows();
        let rare: Vec<usize> =
            (0..likeliest.len()).filter(|&row| likeliest[row] >= self.frequent()).collect();
        if !rare.is_empty() {
            let rows = rare.iter().flat_map(|&row| &x.data()[row * self.inputs..][..self.inputs]);
            let rows = Tensor::from_vec([rare.len(), self.inputs], rows.copied().collect())?;
            let classes = self.log_prob(&rows)?.argmax_rows();
            rare.into_iter().zip(classes).for_each(|(row, class)| likeliest[row] = class);
        }
        Ok(likeliest)
    }
}

/// Elements of a piece of work.
const PIECE: usize = 1 << 12;

compiled! {
    /// yₙ += ln p of the class of row n, or sets it where there is no map of rows.
    fn add_chosen[T](log_p: &[T], width: usize, classes: &[u32], rows: Option<&[u32]>, y: &mut [T]) {
        for (i, (log_p, &class)) in log_p.chunks_exact(width).zip(classes).enumerate() {
            match rows {
                None => y[i] = log_p[class as usize],
                Some(rows) => y[rows[i] as usize] += log_p[class as usize],
            }
        }
    }
}

compiled! {
    /// dz = g ([k] − exp ln p) of rows.
    fn logits_gradient[T](log_p: &[T], width: usize, classes: &[u32], g: &[T], dz: &mut [T]) {
        assert!(log_p.len() == dz.len() && classes.len() * width == dz.len() && g.len() == classes.len());
        let rows = (PIECE / width).max(1);
        par::for_chunks(dz, rows * width, |piece, dz| {
            let first = piece * rows;
            for (i, dz) in dz.chunks_exact_mut(width).enumerate() {
                let (row, log_p) = (first + i, &log_p[(first + i) * width..][..width]);
                let g = g[row];
                for (dz, &log_p) in dz.iter_mut().zip(log_p) {
                    *dz = -(g * (-log_p).v_exp_neg::<false>());
                }
                dz[classes[row] as usize] += g;
            }
        });
    }
}

compiled! {
    /// Columns of rows of `width` into others from column `to.0` on of rows of `to.1`, plus one column of other rows.
    fn copy_columns[T](
        x: &[T], width: usize, columns: Range<usize>, plus: Option<(&[T], usize, usize)>, y: &mut [T], to: (usize, usize),
    ) {
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(to.1));
        for (row, (x, y)) in rows.enumerate() {
            let plus = plus.map_or(T::ZERO, |(of, width, column)| of[row * width + column]);
            let y = &mut y[to.0..][..columns.len()];
            y.iter_mut().zip(&x[columns.clone()]).for_each(|(y, &x)| *y = x + plus);
        }
    }
}

/// A map and the softmax of it.
struct Part<T: Scalar> {
    map: LinearCache<T>,
    /// Logits, and in backward ∂E/∂ of them.
    z: Tensor<T>,
    log_p: Tensor<T>,
    g: Vec<T>,
}

impl<T: Scalar> Default for Part<T> {
    fn default() -> Self {
        Self { map: LinearCache::default(), z: Tensor::default(), log_p: Tensor::default(), g: Vec::new() }
    }
}

impl<T: Scalar> Part<T> {
    /// l = ln softmax(W x + b)
    fn forward(&mut self, map: &Linear<T>, x: &Tensor<T>, cx: Context) -> Result<()> {
        map.forward(x, &mut self.z, &mut self.map, cx)?;
        let width = self.z.shape().last().copied().unwrap_or(1);
        softmax::forward(Kind::LogSoftmax, self.z.data(), self.log_p.reset(*self.z.shape()), width, 1);
        Ok(())
    }

    /// Through both, given g = ∂E/∂ of the chosen logarithm of each row.
    fn backward(
        &mut self,
        (map, x): (&Linear<T>, &Tensor<T>),
        classes: &[u32],
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let width = self.z.shape().last().copied().unwrap_or(1);
        logits_gradient(self.log_p.data(), width, classes, &self.g, self.z.data_mut()); // δ = g ([k] − p)
        map.backward(Call::recorded(x, &self.log_p, &self.z)?, &mut self.map, grads, dx)
    }
}

/// The rows of a cluster.
struct Cluster<T: Scalar> {
    /// Which they are, and their classes within the cluster.
    rows: Vec<u32>,
    classes: Vec<u32>,
    x: Tensor<T>,
    map: LinearCache<T>,
    hidden: Tensor<T>,
    part: Part<T>,
    dhidden: Tensor<T>,
    dx: Tensor<T>,
}

impl<T: Scalar> Default for Cluster<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            classes: Vec::new(),
            x: Tensor::default(),
            map: LinearCache::default(),
            hidden: Tensor::default(),
            part: Part::default(),
            dhidden: Tensor::default(),
            dx: Tensor::default(),
        }
    }
}

impl<T: Scalar> Cluster<T> {
    /// t = ln softmax(B A x)
    fn forward(&mut self, [a, b]: &[Linear<T>; 2], x: &Tensor<T>, cx: Context) -> Result<()> {
        a.forward(x, &mut self.hidden, &mut self.map, cx)?;
        self.part.forward(b, &self.hidden, cx)
    }
}

/// What [`AdaptiveLogSoftmaxWithLoss`] keeps.
pub struct AdaptiveCache<T: Scalar> {
    /// The shape of x of a recorded pass.
    recorded: Option<Shape>,
    ids: Vec<u32>,
    /// Of each row, its column in the head.
    columns: Vec<u32>,
    head: Part<T>,
    clusters: Vec<Cluster<T>>,
}

impl<T: Scalar> Default for AdaptiveCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            ids: Vec::new(),
            columns: Vec::new(),
            head: Part::default(),
            clusters: Vec::new(),
        }
    }
}

impl<T: Scalar> std::fmt::Debug for AdaptiveCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdaptiveCache").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

impl<T: Scalar> AdaptiveCache<T> {
    /// Sorts rows by cluster.
    fn sort(&mut self, of: &AdaptiveLogSoftmaxWithLoss<T>, classes: &Tensor<T>) -> Result<()> {
        let Self { ids, columns, clusters, .. } = self;
        if u32::try_from(classes.len()).is_err() {
            return Err(Error::shape(format!("{KIND}: expected fewer than 2³² rows, got {}", classes.len())));
        }
        ids.resize(classes.len(), 0);
        row_indices(classes.data(), of.classes, ids).map_err(|at| {
            Error::index(format!(
                "{KIND}: expected classes, integers in 0..{}, got {} at {:?}",
                of.classes,
                classes.data()[at],
                position(classes.shape(), at)
            ))
        })?;
        clusters.resize_with(of.tail.len(), Cluster::default);
        for cluster in clusters.iter_mut() {
            cluster.rows.clear();
            cluster.classes.clear();
        }
        columns.clear();
        for (row, &id) in (0..).zip(&*ids) {
            // How many cutoffs are not above the class.
            match of.cutoffs.partition_point(|&cutoff| cutoff <= id as usize) {
                0 => columns.push(id),
                past => {
                    let cluster = past - 1;
                    columns.push((of.frequent() + cluster) as u32);
                    clusters[cluster].rows.push(row);
                    clusters[cluster].classes.push(id - of.cutoffs[cluster] as u32);
                }
            }
        }
        Ok(())
    }
}

impl<T: Scalar> Parameters for AdaptiveLogSoftmaxWithLoss<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.head.list(&mut out.child("head"));
        let mut tail = out.child("tail");
        for (name, [a, b]) in self.names.iter().zip(&self.tail) {
            let mut cluster = tail.child(name);
            a.list(&mut cluster.child("0"));
            b.list(&mut cluster.child("1"));
        }
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.head.list_mut(&mut out.child("head"));
        let mut tail = out.child("tail");
        for (name, [a, b]) in self.names.iter().zip(&mut self.tail) {
            let mut cluster = tail.child(name);
            a.list_mut(&mut cluster.child("0"));
            b.list_mut(&mut cluster.child("1"));
        }
    }

    fn validate(&self) -> Result<()> {
        self.sizes()?;
        let head = self.frequent() + self.tail.len();
        check_shape(KIND, Shape::new(&[head, self.inputs]))?;
        (0..self.tail.len()).try_for_each(|i| {
            check_shape(KIND, Shape::new(&[self.hidden(i), self.inputs]))?;
            check_shape(KIND, Shape::new(&[self.range(i).len(), self.hidden(i)]))
        })
    }
}

impl<T: Scalar> Module for AdaptiveLogSoftmaxWithLoss<T> {
    type State = AdaptiveCache<T>;

    fn inputs(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        2
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input == 0
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        match inputs {
            [x, classes] => Ok(vec![self.rows(x, Some(classes))?, Shape::default()]),
            _ => Err(Error::shape(format!("{KIND}: expected 2 inputs, got {}", inputs.len()))),
        }
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = None;
        let ([x, classes], [y, loss]) = (xs, ys) else {
            return Err(Error::shape(format!("{KIND}: expected 2 inputs and 2 outputs, got {}", xs.len())));
        };
        let y = y.reset(self.rows(x.shape(), Some(classes.shape()))?);
        cache.sort(self, classes)?;
        let AdaptiveCache { columns, head, clusters, .. } = cache;
        head.forward(&self.head, x, cx)?;
        add_chosen(head.log_p.data(), self.frequent() + self.tail.len(), columns, None, y); // y = l
        for (i, (cluster, maps)) in clusters.iter_mut().zip(&self.tail).enumerate() {
            if cluster.rows.is_empty() {
                continue;
            }
            let mut rows = std::mem::take(&mut cluster.x);
            gather(x.data(), self.inputs, &cluster.rows, rows.reset([cluster.rows.len(), self.inputs]));
            let done = cluster.forward(maps, &rows, cx);
            cluster.x = rows;
            done?;
            let log_p = cluster.part.log_p.data();
            add_chosen(log_p, self.range(i).len(), &cluster.classes, Some(&cluster.rows), y); // y += t
        }
        let sum: f64 = y.iter().map(|y| y.to_f64()).sum();
        loss.reset([])[0] = T::from_f64(-sum / y.len() as f64); // E = −Σₙ y / N
        cache.recorded = cx.recording().then_some(*x.shape());
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let ([x, _], [dy, dloss], [dx, _]) = (call.xs, call.dys, dxs) else {
            return Err(Error::shape(format!(
                "{KIND}: expected 2 inputs and 2 outputs, got {}",
                call.xs.len()
            )));
        };
        if cache.recorded != Some(*x.shape()) {
            return Err(Error::not_recorded(format!(
                "{KIND}: expected the cache of a recorded pass over these inputs"
            )));
        }
        let AdaptiveCache { columns, head, clusters, .. } = cache;
        let n = columns.len();
        if dy.is_none() && dloss.is_none() {
            if let Some(dx) = dx {
                dx.reset(*x.shape()).fill(T::ZERO);
            }
            return Ok(());
        }
        let of_loss = dloss.map_or(T::ZERO, |dloss| -(dloss.data()[0] / T::from_usize(n)));
        head.g.clear();
        match dy {
            Some(dy) => head.g.extend(dy.data().iter().map(|&dy| dy + of_loss)), // g = ∂y − ∂E / N
            None => head.g.resize(n, of_loss),
        }
        head.backward((&self.head, x), columns, grads, dx.as_deref_mut())?;
        for (Cluster { rows, classes, x, map, hidden, part, dhidden, dx: of_rows }, [a, b]) in
            clusters.iter_mut().zip(&self.tail)
        {
            if rows.is_empty() {
                continue;
            }
            part.g.clear();
            part.g.extend(rows.iter().map(|&row| head.g[row as usize]));
            part.backward((b, hidden), classes, grads, Some(dhidden))?;
            let requested = dx.is_some().then_some(&mut *of_rows);
            a.backward(Call::recorded(x, hidden, dhidden)?, map, grads, requested)?;
            if let Some(dx) = dx {
                scatter_add(rows, None, of_rows.data(), self.inputs, None, dx.data_mut()); // dx += Aᵀ Bᵀ ε
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    /// Of rows whose classes are in the cluster that costs most.
    fn cost(&self, inputs: &[Shape]) -> u64 {
        let rows = inputs
            .get(1)
            .map_or(0, |classes| classes.iter().fold(1u64, |n, &axis| n.saturating_mul(axis as u64)));
        let product = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
        let tails = (0..self.tail.len()).map(|i| {
            let hidden = self.hidden(i);
            product(self.inputs, hidden).saturating_add(product(hidden, self.range(i).len()))
        });
        let head = product(self.inputs, self.frequent() + self.tail.len());
        rows.saturating_mul(head.saturating_add(tails.max().unwrap_or(0)))
    }

    fn to_spec(&self) -> Spec {
        Spec::new(KIND)
            .with("in_features", self.inputs)
            .with("n_classes", self.classes)
            .with("cutoffs", self.cutoffs.clone())
            .with("div_value", self.div_value)
            .with("head_bias", self.head_bias)
    }
}

impl<T: Scalar> FromSpec<T> for AdaptiveLogSoftmaxWithLoss<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("linear")
        .formula("ln softmax(W x)ₖ, or ln softmax(W x)ᵢ + ln softmax(Bᵢ Aᵢ x)ₖ")
        .page("layers/linear/adaptive_log_softmax_with_loss.md")
        .torch("AdaptiveLogSoftmaxWithLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let cutoffs: Vec<usize> = args.get("cutoffs")?;
        Ok(Self::new(args.get("in_features")?, args.get("n_classes")?, cutoffs)
            .div_value(args.or("div_value", 4.0)?)
            .head_bias(args.or("head_bias", false)?))
    }

    fn examples() -> Vec<Example> {
        let small = Self::new(4, 6, [2, 4]).div_value(2.0);
        vec![
            Example::new(small.to_spec(), [Shape::from([5, 4]), 5.into()]).ids(6),
            Example::new(
                Self::new(8, 5, [3]).head_bias(true).to_spec(),
                [Shape::from([2, 3, 8]), [2, 3].into()],
            )
            .ids(5),
            Example::bench(
                Self::new(256, 10_000, [1000, 4000]).to_spec(),
                [Shape::from([1024, 256]), 1024.into()],
            )
            .ids(10_000),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Rng;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in collection::vec(1..5usize, 1..3), inputs in 4..8usize, div in prop_oneof![Just(1.0), Just(1.5), Just(2.0)],
            (classes, cutoffs) in (3..9usize)
                .prop_flat_map(|n| (Just(n), ::proptest::sample::subsequence((1..n).collect::<Vec<_>>(), 1..3))),
            bias in any::<bool>(),
        ) {
            layer: AdaptiveLogSoftmaxWithLoss::new(inputs, classes, cutoffs.clone()).div_value(div).head_bias(bias),
            inputs: [[rows.clone(), vec![inputs]].concat(), rows.clone()],
            values_of(1): Values::Indices(0..classes),
            wrong_inputs: [[rows.clone(), vec![inputs + 1]].concat(), rows.clone()],
            wrong_inputs: [[rows.clone(), vec![inputs]].concat(), [rows.clone(), vec![1]].concat()],
        }
    }

    /// Three classes, the last two of them a cluster; x = 1 of one feature. The head's weights 0 and ln 3 give it p = (¼, ¾). A = 1, and B = (0, ln 2)
    /// gives the cluster q = (⅓, ⅔). So the classes have ¼, ¾ · ⅓ = ¼ and ¾ · ⅔ = ½. Of rows with the classes 0 and 2,
    /// y = (−ln 4, −ln 2) and E = 3/2 ln 2, whose g are −½. Row 0: δ = −½ (¾, −¾) = (−⅜, ⅜). Row 1: δ = −½ (−¼, ¼) = (⅛, −⅛) and
    /// ε = −½ (−⅓, ⅓) = (⅙, −⅙). So ∂W = (−¼, ¼), ∂B = (⅙, −⅙), ∂A = −⅙ ln 2, and ∂x = (⅜ ln 3, −⅛ ln 3 − ⅙ ln 2).
    #[test]
    pub fn by_hand() {
        let (ln2, ln3) = (2f64.ln(), 3f64.ln());
        let mut layer = AdaptiveLogSoftmaxWithLoss::<f64>::new(1, 3, [1]).div_value(1.0);
        layer.visit_mut(&mut |path, p| {
            let values = match path.to_string().as_str() {
                "head.weight" => vec![0.0, ln3],
                "tail.0.0.weight" => vec![1.0],
                "tail.0.1.weight" => vec![0.0, ln2],
                other => panic!("{other}"),
            };
            p.set(Tensor::from_vec(*p.shape(), values).unwrap()).unwrap();
        });
        let near = |got: &[f64], want: &[f64]| {
            assert!(
                got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14),
                "{got:?}"
            );
        };
        let (x, classes) = (Tensor::from([[1.0], [1.0]]), Tensor::from([0.0, 2.0]));
        let (xs, mut ys, mut cache) =
            ([&x, &classes], [Tensor::default(), Tensor::default()], AdaptiveCache::default());
        layer.apply(&xs, &mut ys, &mut cache, Context::train(0)).unwrap();
        near(ys[0].data(), &[-2.0 * ln2, -ln2]);
        near(ys[1].data(), &[1.5 * ln2]);
        let (one, mut dx, mut grads) = (Tensor::from(1.0), Tensor::default(), Grads::new(&layer));
        let dys = [None, Some(&one)];
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut cache, &mut grads, &mut [Some(&mut dx), None]).unwrap();
        near(grads.values(), &[-0.25, 0.25, -ln2 / 6.0, 1.0 / 6.0, -1.0 / 6.0]);
        near(dx.data(), &[0.375 * ln3, -0.125 * ln3 - ln2 / 6.0]);
        near(layer.log_prob(&x).unwrap().row(0), &[-2.0 * ln2, -2.0 * ln2, -ln2]);
        assert_eq!(layer.predict(&x).unwrap(), [2, 2]);
    }

    #[test]
    fn probabilities_of_all_classes_sum_to_one_and_agree_with_the_outputs_and_predictions() {
        for (seed, cutoffs) in [(1, vec![3]), (2, vec![1, 5, 11]), (3, vec![2, 12])] {
            let layer =
                AdaptiveLogSoftmaxWithLoss::<f64>::new(9, 13, cutoffs).div_value(2.0).init(seed).unwrap();
            let (mut rng, mut x) = (Rng::new(seed), Tensor::zeros([4, 13, 9]));
            rng.fill_normal(x.data_mut());
            x.data_mut().iter_mut().for_each(|x| *x *= 10.0);
            let classes = Tensor::from_fn([4, 13], |i| (i % 13) as f64);
            let (all, ys) = (layer.log_prob(&x).unwrap(), layer.infer_all([&x, &classes]).unwrap());
            for (i, row) in all.data().chunks(13).enumerate() {
                assert!((row.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-13);
                assert!((row[i % 13] - ys[0].data()[i]).abs() < 1e-12);
            }
            assert_eq!(layer.predict(&x).unwrap(), all.argmax_rows());
        }
    }

    #[test]
    fn parameters_have_the_names_and_shapes_of_pytorch() {
        let layer =
            AdaptiveLogSoftmaxWithLoss::<f32>::new(16, 20, [5, 10, 15]).div_value(2.0).head_bias(true);
        let mut got = Vec::new();
        layer.visit(&mut |path, p| got.push(format!("{path} {}", p.shape())));
        let want = [
            "head.weight [8, 16]",
            "head.bias [8]",
            "tail.0.0.weight [8, 16]",
            "tail.0.1.weight [5, 8]",
            "tail.1.0.weight [4, 16]",
            "tail.1.1.weight [5, 4]",
            "tail.2.0.weight [2, 16]",
            "tail.2.1.weight [5, 2]",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn settings_that_make_no_sense_and_what_is_no_class_are_errors() {
        let refused = |layer: AdaptiveLogSoftmaxWithLoss| {
            assert!(layer.init(0).is_err());
        };
        for cutoffs in [
            vec![],
            vec![0],
            vec![0, 2],
            vec![3, 2],
            vec![2, 2],
            vec![9],
            vec![usize::MAX],
            vec![2, usize::MAX],
        ] {
            refused(AdaptiveLogSoftmaxWithLoss::new(16, 9, cutoffs));
        }
        for (inputs, classes) in [(0, 9), (16, 0), (16, 2), (usize::MAX, 9), (3, 9), (15, 9)] {
            refused(AdaptiveLogSoftmaxWithLoss::new(inputs, classes, [2, 5]));
        }
        refused(AdaptiveLogSoftmaxWithLoss::new(1 << 30, usize::MAX, [usize::MAX - 1]));
        for div in [0.0, -2.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            refused(AdaptiveLogSoftmaxWithLoss::new(16, 9, [2]).div_value(div));
        }
        let layer = AdaptiveLogSoftmaxWithLoss::new(4, 9, [2]).init(0).unwrap();
        let x = Tensor::<f32>::zeros([2, 4]);
        for class in [9.0, -1.0, 0.5, f32::NAN, f32::INFINITY] {
            let text = layer.infer_all([&x, &Tensor::from([0.0, class])]).unwrap_err().to_string();
            assert!(text.contains("integers in 0..9") && text.contains("[1]"), "{text}");
        }
    }
}
