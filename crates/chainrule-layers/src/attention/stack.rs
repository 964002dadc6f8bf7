//! Layers of one kind one behind another, with a norm at the end.

use super::sublayer::{MOST, all_zeros, not_recorded};
use crate::{LayerNorm, norm::LayerNormCache};
use chainrule_core::{
    Call, Context, Error, Grads, Layer, Memory, Module, ModuleCall, Parameters, Params, ParamsMut, Result,
    Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;

/// The most layers of a stack: a spec from a file may name any number.
pub(super) const LAYERS: usize = 1 << 12;

/// `layers.0`, `layers.1`, …, and `norm`. All layers take the inputs behind the first.
#[derive(Clone)]
pub(super) struct Layers<L, T> {
    pub layers: Vec<L>,
    names: Vec<String>,
    /// How many there should be.
    pub count: usize,
    pub norm: Option<LayerNorm<T>>,
}

pub(super) struct LayersCache<T, S> {
    recorded: bool,
    states: Vec<S>,
    /// The inputs of the layers behind the first, and the norm's.
    xs: Vec<Tensor<T>>,
    norm: LayerNormCache<T>,
    /// Gradients of an input and an output of a layer, and of the inputs that all take.
    between: [Tensor<T>; 2],
    parts: [Tensor<T>; MOST],
}

impl<T: Scalar, S> Default for LayersCache<T, S> {
    fn default() -> Self {
        Self {
            recorded: false,
            states: Vec::new(),
            xs: Vec::new(),
            norm: LayerNormCache::default(),
            between: std::array::from_fn(|_| Tensor::default()),
            parts: std::array::from_fn(|_| Tensor::default()),
        }
    }
}

impl<T: Scalar, L: Module<T = T> + Clone> Layers<L, T> {
    /// So many copies of a layer, each of which starts from other values.
    pub(super) fn new(layer: &L, count: usize, norm: Option<LayerNorm<T>>) -> Self {
        let known = count.min(LAYERS);
        let names = (0..known).map(|i| i.to_string()).collect();
        Self { layers: vec![layer.clone(); known], names, count, norm }
    }

    pub(super) fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        let mut layers = out.child("layers");
        for (layer, name) in self.layers.iter().zip(&self.names) {
            layer.list(&mut layers.child(name));
        }
        if let Some(norm) = &self.norm {
            norm.list(&mut out.child("norm"));
        }
    }

    pub(super) fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        let mut layers = out.child("layers");
        for (layer, name) in self.layers.iter_mut().zip(&self.names) {
            layer.list_mut(&mut layers.child(name));
        }
        if let Some(norm) = &mut self.norm {
            norm.list_mut(&mut out.child("norm"));
        }
    }

    pub(super) fn validate(&self, kind: &str) -> Result<()> {
        if !(1..=LAYERS).contains(&self.count) {
            return Err(Error::value(format!("{kind}: expected 1 to {LAYERS} layers, got {}", self.count)));
        }
        self.layers[0].validate().map_err(|e| e.in_layer("layers.0"))?;
        self.norm.iter().try_for_each(|norm| norm.validate().map_err(|e| e.in_layer("norm")))
    }

    pub(super) fn output_shapes(&self, kind: &str, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate(kind)?;
        let shapes = self.layers[0].output_shapes(inputs).map_err(|e| e.in_layer("layers.0"))?;
        if let Some(norm) = &self.norm {
            norm.output_shape(&shapes[0]).map_err(|e| e.in_layer("norm"))?;
        }
        Ok(shapes)
    }

    pub(super) fn cost(&self, inputs: &[Shape]) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.cost(inputs)))
    }

    pub(super) fn apply(
        &self,
        kind: &str,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut LayersCache<T, L::State>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = false;
        self.validate(kind)?;
        let inputs = self.layers[0].inputs();
        let (true, true) = (xs.len() == inputs && inputs <= MOST, ys.len() == 1) else {
            return Err(Error::shape(format!(
                "{kind}: expected {inputs} inputs and one output, got {}",
                xs.len()
            )));
        };
        let LayersCache { states, xs: between, norm, .. } = cache;
        let n = self.layers.len();
        states.resize_with(n, L::State::default);
        between.resize_with(n, Tensor::default);
        let mut routed: [&Tensor<T>; MOST] = std::array::from_fn(|i| xs.get(i).copied().unwrap_or(xs[0]));
        let mut rest = &mut between[..];
        for (i, (layer, state)) in self.layers.iter().zip(states).enumerate() {
            let last = i + 1 == n && self.norm.is_none();
            let (out, others) = rest.split_first_mut().expect("as many as layers");
            rest = others;
            let y = if last { &mut ys[..1] } else { std::slice::from_mut(out) };
            layer
                .apply(&routed[..inputs], y, state, cx.child(i))
                .map_err(|e| e.in_layer(format!("layers.{i}")))?;
            if !last {
                routed[0] = out;
            }
        }
        if let Some(layer) = &self.norm {
            layer.forward(routed[0], &mut ys[0], norm, cx.child(n))?;
        }
        cache.recorded = cx.recording();
        Ok(())
    }

    pub(super) fn memory(&self, cache: &mut LayersCache<T, L::State>, out: &mut Memory<'_, T>) -> Result<()> {
        cache.states.resize_with(self.layers.len(), L::State::default);
        let mut out = out.child("layers");
        for ((layer, name), state) in self.layers.iter().zip(&self.names).zip(&mut cache.states) {
            layer.remember(state, &mut out.child(name))?;
        }
        Ok(())
    }

    pub(super) fn pull(
        &self,
        kind: &str,
        call: ModuleCall<'_, T>,
        cache: &mut LayersCache<T, L::State>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let n = self.layers.len();
        let ([y], [dy], true) = (call.ys, call.dys, call.xs.len() == dxs.len() && dxs.len() <= MOST) else {
            return Err(Error::shape(format!("{kind}: expected places for all ∂E/∂x and one output")));
        };
        let LayersCache { recorded, states, xs: between, norm, between: [d, next], parts } = cache;
        let inputs = call.xs.len();
        let known = |x: &Tensor<T>| n == 1 && self.norm.is_none() || x.shape() == call.xs[0].shape();
        if !*recorded || states.len() != n || !between.first().is_some_and(known) {
            return Err(not_recorded(kind));
        }
        let Some(dy) = dy else {
            all_zeros(call.xs, dxs);
            return Ok(());
        };
        let y = match &self.norm {
            Some(layer) => {
                let last = &between[n - 1];
                layer.backward(Call::recorded(last, y, dy)?, norm, grads, Some(d))?;
                last
            }
            None => {
                d.copy_from(dy);
                y
            }
        };
        let mut dx = dxs[0].take();
        for i in (0..n).rev() {
            let out = if i + 1 == n { y } else { &between[i] };
            let x = if i == 0 { call.xs[0] } else { &between[i - 1] };
            let xs: [&Tensor<T>; MOST] = std::array::from_fn(|j| match j {
                0 => x,
                j => call.xs.get(j).copied().unwrap_or(x),
            });
            let mut requested: [Option<&mut Tensor<T>>; MOST] = [const { None }; MOST];
            for ((to, part), dx) in requested.iter_mut().zip(&mut *parts).zip(dxs.iter_mut()).skip(1) {
                // The last layer's stand where the sum will, those of others are added to it.
                *to = dx.as_deref_mut().map(|dx| if i + 1 == n { dx } else { part });
            }
            requested[0] = if i == 0 { dx.as_deref_mut() } else { Some(&mut *next) };
            let d_out = [Some(&*d)];
            let call = ModuleCall::recorded(&xs[..inputs], std::slice::from_ref(out), &d_out)?;
            self.layers[i]
                .pull(call, &mut states[i], grads, &mut requested[..inputs])
                .map_err(|e| e.in_layer(format!("layers.{i}")))?;
            if i + 1 < n {
                for (dx, part) in dxs.iter_mut().zip(&*parts).skip(1) {
                    if let Some(dx) = dx {
                        add_assign(dx.data_mut(), part.data()); // ∂E/∂m: the sum over layers
                    }
                }
            }
            std::mem::swap(d, next);
        }
        Ok(())
    }
}
