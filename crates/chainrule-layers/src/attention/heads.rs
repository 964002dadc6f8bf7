//! What layers of attention share: from queries, keys and values to outputs, and back.

use super::masks::{MaskKind, blind};
use chainrule_core::{Noise, Result, Scalar};
use chainrule_tensor::kernels::layers::attention::{
    Mask, Recorded, Rows, Scores, Sizes, backward, deltas, forward, mask_gradients, weights,
};

/// What is done to the scores, masks that are inputs excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub causal: bool,
    pub window: Option<usize>,
    pub dropout: f64,
    /// The factor of q·k; 1/√D if there is none.
    pub scale: Option<f64>,
}

/// Masks that are inputs, as (elements, kind).
pub(super) struct Masks<'a, T> {
    /// With the distance from sample to sample.
    pub keys: Option<(&'a [T], MaskKind, usize)>,
    /// And whether there is one for each head.
    pub pairs: Option<(&'a [T], MaskKind, bool)>,
}

impl Rules {
    /// The scores of a pass; `noise` is that of the pass, if there is any.
    pub(super) fn scores<'a, T: Scalar>(
        &self,
        d: usize,
        [past, extra]: [usize; 2],
        slopes: &'a [T],
        masks: &Masks<'a, T>,
        noise: Option<Noise>,
    ) -> Scores<'a, T> {
        let (keys, keys_stride) = masks.keys.map_or((Mask::None, 0), |(mask, kind, by)| (kind.of(mask), by));
        let (pairs, pairs_by_head) =
            masks.pairs.map_or((Mask::None, false), |(mask, kind, by_head)| (kind.of(mask), by_head));
        Scores {
            scale: T::from_f64(self.scale.unwrap_or(1.0 / (d as f64).sqrt())),
            past,
            extra,
            causal: self.causal,
            window: self.window,
            slopes,
            keys,
            keys_stride,
            pairs,
            pairs_by_head,
            dropout: noise.map(|noise| (noise.key, self.dropout * noise.scale)).filter(|(_, p)| *p > 0.0),
        }
    }
}

/// What a pass keeps for backward, and its scratch memory.
#[derive(Debug)]
pub(super) struct Heads<T> {
    pub stats: Vec<[T; 2]>,
    delta: Vec<T>,
    /// ∂E/∂q (N, H, T, D), ∂E/∂k and ∂E/∂v (N, Hk, S, D).
    pub gradients: [Vec<T>; 3],
    scratch: Vec<T>,
    sums: Vec<f64>,
}

impl<T> Default for Heads<T> {
    fn default() -> Self {
        Self {
            stats: Vec::new(),
            delta: Vec::new(),
            gradients: [const { Vec::new() }; 3],
            scratch: Vec::new(),
            sums: Vec::new(),
        }
    }
}

impl<T: Scalar> Heads<T> {
    /// o (N, T, H dv), and the weights (N, H, T, S), or their mean (N, T, S) if the flag says so.
    pub(super) fn forward(
        &mut self,
        layer: &str,
        sizes: Sizes,
        rows: [Rows<'_, T>; 3],
        scores: &Scores<'_, T>,
        o: &mut [T],
        of_weights: Option<(&mut [T], bool)>,
    ) -> Result<()> {
        self.stats.resize(sizes.n * sizes.t * sizes.heads, [T::ZERO; 2]);
        if let Some(at) = forward(sizes, rows, scores, o, &mut self.stats, &mut self.scratch) {
            return Err(blind(layer, at, sizes.t, sizes.heads));
        }
        if let Some((out, mean)) = of_weights {
            weights(sizes, rows, scores, &self.stats, mean, out, &mut self.scratch);
        }
        Ok(())
    }

    /// The gradients of q, k and v into `gradients`, and those of additive masks that are requested: of keys, of pairs.
    pub(super) fn backward(
        &mut self,
        sizes: Sizes,
        rows: [Rows<'_, T>; 3],
        scores: &Scores<'_, T>,
        (o, d_o): (&[T], &[T]),
        dw: Option<(&[T], bool)>,
        [keys, pairs]: [Option<&mut [T]>; 2],
    ) {
        let Self { stats, delta, gradients, scratch, sums } = self;
        let call = Recorded { rows, o, stats, d_o, dw };
        delta.resize(sizes.n * sizes.t * sizes.heads, T::ZERO);
        deltas(sizes, call, scores, delta, scratch);
        let Sizes { n, t, s, heads, kv_heads, d, dv } = sizes;
        let lengths = [n * heads * t * d, n * kv_heads * s * d, n * kv_heads * s * dv];
        gradients.iter_mut().zip(lengths).for_each(|(g, length)| g.resize(length, T::ZERO));
        let [dq, dk, dvs] = gradients;
        backward(sizes, call, scores, delta, [dq, dk, dvs], scratch);
        if keys.is_some() || pairs.is_some() {
            mask_gradients(sizes, call, scores, delta, pairs, keys, scratch, sums);
        }
    }
}
