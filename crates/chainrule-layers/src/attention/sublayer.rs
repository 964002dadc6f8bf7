//! A part of a transformer's layer with its norm, its dropout and a way around it.
//!
//! ```text
//! y = x + d(f(n(x))) if the norm comes first, otherwise y = n(x + d(f(x)))
//! ```
//!
//! Given g = ∂E/∂y, with the noise of d linear and the same in both passes:
//!
//! ```text
//! ∂E/∂x = g + nᵀ fᵀ dᵀ g        otherwise, with r = nᵀ g, ∂E/∂x = r + fᵀ dᵀ r
//! ```

use super::masks::zeros;
use crate::{LayerNorm, norm::LayerNormCache};
use chainrule_core::{
    Call, Context, Error, Grads, Layer, Module, ModuleCall, Noise, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::{
    elementwise::{add_assign, map2},
    layers::noise::dropout,
};

/// The most inputs of a part.
pub(super) const MOST: usize = 8;

pub(super) struct Sublayer<'m, T, M> {
    pub kind: &'static str,
    pub inner: &'m M,
    pub norm: &'m LayerNorm<T>,
    pub norm_first: bool,
    pub dropout: f64,
}

/// What a part keeps, and its scratch memory.
#[derive(Debug)]
pub(super) struct SublayerCache<T, S> {
    recorded: Option<(Shape, Option<Noise>)>,
    norm: LayerNormCache<T>,
    pub(super) inner: S,
    /// n(x), or x + d(f(x)).
    h: Tensor<T>,
    f: [Tensor<T>; 1],
    /// d(f) and its gradient; ∂E/∂h.
    noisy: Tensor<T>,
    dh: Tensor<T>,
}

impl<T: Scalar, S: Default> Default for SublayerCache<T, S> {
    fn default() -> Self {
        Self {
            recorded: None,
            norm: LayerNormCache::default(),
            inner: S::default(),
            h: Tensor::default(),
            f: [Tensor::default()],
            noisy: Tensor::default(),
            dh: Tensor::default(),
        }
    }
}

/// The inputs of a part, the first of them another tensor.
fn with_first<'a, T>(first: &'a Tensor<T>, xs: &[&'a Tensor<T>]) -> [&'a Tensor<T>; MOST] {
    std::array::from_fn(|i| if i == 0 { first } else { xs.get(i).copied().unwrap_or(first) })
}

impl<T: Scalar, M: Module<T = T>> Sublayer<'_, T, M> {
    /// The noise, if there is to be any.
    fn noise(&self, cx: Context) -> Option<Noise> {
        cx.child(2).noise().filter(|noise| self.dropout * noise.scale > 0.0)
    }

    /// d(x), which is x without noise.
    fn noisy<'a>(&self, x: &'a Tensor<T>, y: &'a mut Tensor<T>, noise: Option<Noise>) -> &'a Tensor<T> {
        let Some(noise) = noise else { return x };
        dropout(x.data(), y.reset(*x.shape()), noise.key, self.dropout * noise.scale);
        y
    }

    pub(super) fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut SublayerCache<T, M::State>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = None;
        let (x, noise) = (xs[0], self.noise(cx));
        let SublayerCache { norm, inner, h, f, noisy, .. } = cache;
        if self.norm_first {
            self.norm.forward(x, h, norm, cx.child(0))?;
            self.inner.apply(&with_first(h, xs)[..xs.len()], f, inner, cx.child(1))?;
            let d = self.noisy(&f[0], noisy, noise);
            map2(x.data(), d.data(), y.reset(*x.shape()), |(x, d)| x + d); // y = x + d(f(n(x)))
        } else {
            self.inner.apply(xs, f, inner, cx.child(1))?;
            let d = self.noisy(&f[0], noisy, noise);
            map2(x.data(), d.data(), h.reset(*x.shape()), |(x, d)| x + d);
            self.norm.forward(h, y, norm, cx.child(0))?; // y = n(x + d(f(x)))
        }
        cache.recorded = cx.recording().then_some((*x.shape(), noise));
        Ok(())
    }

    /// The output y is that of forward.
    pub(super) fn backward(
        &self,
        xs: &[&Tensor<T>],
        (y, dy): (&Tensor<T>, &Tensor<T>),
        cache: &mut SublayerCache<T, M::State>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let x = xs[0];
        let noise = match cache.recorded {
            Some((shape, noise)) if shape == *x.shape() => noise,
            _ => return Err(not_recorded(self.kind)),
        };
        let SublayerCache { norm, inner, h, f, noisy, dh, .. } = cache;
        if self.norm_first {
            let d = self.noisy(dy, noisy, noise);
            let (mut dx, count) = (dxs[0].take(), dxs.len());
            let mut requested = [const { None }; MOST];
            requested.iter_mut().zip(dxs).skip(1).for_each(|(to, dx)| *to = dx.as_deref_mut());
            requested[0] = Some(&mut *dh);
            let (xs, d) = (with_first(h, xs), [Some(d)]);
            let call = ModuleCall::recorded(&xs[..count], f, &d)?;
            self.inner.pull(call, inner, grads, &mut requested[..count])?; // dh = fᵀ dᵀ dy
            self.norm.backward(Call::recorded(x, h, dh)?, norm, grads, dx.as_deref_mut())?;
            if let Some(dx) = dx {
                add_assign(dx.data_mut(), dy.data()); // dx = nᵀ dh + dy
            }
        } else {
            self.norm.backward(Call::recorded(h, y, dy)?, norm, grads, Some(dh))?; // r = nᵀ dy
            let d = [Some(self.noisy(dh, noisy, noise))];
            let call = ModuleCall::recorded(xs, f, &d)?;
            self.inner.pull(call, inner, grads, dxs)?;
            if let Some(dx) = dxs[0].as_deref_mut() {
                add_assign(dx.data_mut(), dh.data()); // dx = fᵀ dᵀ r + r
            }
        }
        Ok(())
    }
}

#[cold]
pub(super) fn not_recorded(kind: &str) -> Error {
    Error::not_recorded(format!("{kind}: expected the cache of a recorded forward of these inputs"))
}

/// The inputs, or the gradients, that a part takes of those of its layer, by number.
pub(super) fn route<'a, T>(xs: &[&'a Tensor<T>], order: &[usize]) -> [&'a Tensor<T>; MOST] {
    std::array::from_fn(|i| xs[order.get(i).copied().unwrap_or(0)])
}

pub(super) fn route_gradients<'a, 'b, T>(
    dxs: &'a mut [Option<&'b mut Tensor<T>>],
    order: &[usize],
) -> [Option<&'a mut Tensor<T>>; MOST]
where
    'b: 'a,
{
    let mut routed = [const { None }; MOST];
    for (at, dx) in dxs.iter_mut().enumerate() {
        if let Some(to) = order.iter().position(|&from| from == at) {
            routed[to] = dx.as_deref_mut();
        }
    }
    routed
}

/// Overwrites all that is requested with zeros.
pub(super) fn all_zeros<T: Scalar>(xs: &[&Tensor<T>], dxs: &mut [Option<&mut Tensor<T>>]) {
    dxs.iter_mut().zip(xs).for_each(|(dx, x)| zeros(dx.as_deref_mut(), x.shape()));
}
