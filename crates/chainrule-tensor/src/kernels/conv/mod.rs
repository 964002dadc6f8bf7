//! Convolutions of images, forward and backward, over (N, C, H, W).
//!
//! ```text
//! y[n, k, i, j] = b[k] + Σ over c, r, s of w[k, c, r, s] · x[n, c, i·stride + r·dilation − before, j·stride + s·dilation − before]
//! ```
//!
//! with zeros outside the image, and c over the channels of k's group.
//!
//! Windows are never copied out. An image is copied once into a frame with its zeros around it (not even that where there
//! are none); there tap t of window p stands at place(p) + off(t), so all products are of the form Σ a·x[place + off]. Their
//! vectors run along the rows of the image (`along`, and `taps` for ∂W), along the filters (`spread`, for all three), or,
//! where both leave many lanes empty and there are many images, along those (`stack`, for y and ∂X). ∂X is a convolution too, one for each
//! phase of the stride. Kernels of 3 × 3 at stride 1 over enough channels go by `winograd`.

mod along;
mod correlate;
mod frame;
mod geometry;
mod gradient;
mod layout;
#[cfg(test)]
mod plain;
mod spread;
mod stack;
mod taps;
#[cfg(test)]
mod tests;
mod windows;
mod winograd;

pub use geometry::Geometry;

use super::{Isa, gemm::Buffer, isa};
use crate::{Scalar, par};
use correlate::{Correlation, Packed};
use gradient::{Gradient, Plan};
use stack::{Stack, Stacked};
use windows::{Target, Windows};

/// Multiply-adds below which a convolution stays in its thread: what it does while another wakes up.
const SERIAL: u64 = 1 << 20;

/// Filters, and a stamp that is another one whenever their numbers may have changed. What [`conv2d`] derives from the filters
/// is kept under it; without a stamp it is derived anew in every call.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a, T> {
    numbers: &'a [T],
    stamp: Option<[u64; 2]>,
}

impl<'a, T> Filters<'a, T> {
    /// Filters that may be others in the next call.
    #[must_use]
    pub fn new(numbers: &'a [T]) -> Self {
        Self { numbers, stamp: None }
    }

    /// Filters that are the same as in every other call with this stamp.
    #[must_use]
    pub fn stamped(numbers: &'a [T], stamp: [u64; 2]) -> Self {
        Self { numbers, stamp: Some(stamp) }
    }
}

/// Memory that the kernels keep from one call to the next.
pub struct Workspace<T> {
    forward: (Option<Key>, Windows),
    input: (Option<Key>, Windows),
    forward_stack: (Option<Key>, Stack),
    input_stack: (Option<Key>, Stack),
    weight: (Option<Key>, Plan),
    packed: Packed<T>,
    winograd: winograd::Workspace<T>,
    prepared: winograd::Prepared<T>,
    /// Whose transformed filters `prepared` holds, and of how many channels and filters.
    prepared_for: Option<([u64; 2], usize, usize)>,
    sums: Buffer<T>,
    slots: Vec<Slot<T>>,
}

/// What tables are made for: sizes but for the number of images, and vectors.
type Key = (Geometry, Target);

/// Memory of a piece.
struct Slot<T> {
    frame: Buffer<T>,
    strip: Buffer<T>,
    temp: Buffer<T>,
}

impl<T: Scalar> Default for Slot<T> {
    fn default() -> Self {
        Self { frame: Buffer::new(), strip: Buffer::new(), temp: Buffer::new() }
    }
}

impl<T: Scalar> Default for Workspace<T> {
    fn default() -> Self {
        Self {
            forward: Default::default(),
            input: Default::default(),
            forward_stack: Default::default(),
            input_stack: Default::default(),
            weight: Default::default(),
            packed: Default::default(),
            winograd: Default::default(),
            prepared: Default::default(),
            prepared_for: None,
            sums: Buffer::new(),
            slots: Vec::new(),
        }
    }
}

impl<T: Scalar> Clone for Workspace<T> {
    /// An empty one: nothing in it outlives a call but its memory.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> std::fmt::Debug for Workspace<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}

/// y = w ⋆ x + b, overwritten.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d<T: Scalar>(
    g: &Geometry,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    T::conv2d(g, x, w, bias, y, work);
}

/// dx = wᵀ ⋆ dy, overwritten.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d_input_gradient<T: Scalar>(
    g: &Geometry,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    T::conv2d_input_gradient(g, w, dy, dx, work);
}

/// dw += dy ⋆ x.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d_weight_gradient<T: Scalar>(
    g: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    T::conv2d_weight_gradient(g, x, dy, dw, work);
}

/// The convolutions of each scalar type.
#[expect(private_bounds)]
pub trait ConvScalar: Convolve {}
impl ConvScalar for f32 {}
impl ConvScalar for f64 {}

/// The three passes for one type. As methods of a type they are compiled once, with this crate, and not again in every
/// program that calls them.
trait Convolve: Sized {
    fn conv2d(
        g: &Geometry,
        x: &[Self],
        w: Filters<'_, Self>,
        bias: Option<&[Self]>,
        y: &mut [Self],
        work: &mut Workspace<Self>,
    );
    fn conv2d_input_gradient(
        g: &Geometry,
        w: &[Self],
        dy: &[Self],
        dx: &mut [Self],
        work: &mut Workspace<Self>,
    );
    fn conv2d_weight_gradient(
        g: &Geometry,
        x: &[Self],
        dy: &[Self],
        dw: &mut [Self],
        work: &mut Workspace<Self>,
    );
}

macro_rules! convolve {
    ($t:ty) => {
        impl Convolve for $t {
            fn conv2d(
                g: &Geometry,
                x: &[$t],
                w: Filters<'_, $t>,
                bias: Option<&[$t]>,
                y: &mut [$t],
                work: &mut Workspace<$t>,
            ) {
                if !winograd::serves(g) {
                    return forward(isa(), g, x, w.numbers, bias, y, work);
                }
                g.check(x, w.numbers, y);
                let Some(stamp) = w.stamp else {
                    return winograd::forward(g, x, w.numbers, bias, y, &mut work.winograd);
                };
                let key = Some((stamp, g.channels, g.filters));
                if work.prepared_for != key {
                    winograd::prepare(g, w.numbers, &mut work.prepared);
                    work.prepared_for = key;
                }
                winograd::forward_prepared(g, x, &work.prepared, bias, y, &mut work.winograd);
            }

            fn conv2d_input_gradient(
                g: &Geometry,
                w: &[$t],
                dy: &[$t],
                dx: &mut [$t],
                work: &mut Workspace<$t>,
            ) {
                if winograd::serves_input_gradient(g) {
                    g.check(dx, w, dy);
                    winograd::input_gradient(g, w, dy, dx, &mut work.winograd);
                } else {
                    input_gradient(isa(), g, w, dy, dx, work);
                }
            }

            fn conv2d_weight_gradient(
                g: &Geometry,
                x: &[$t],
                dy: &[$t],
                dw: &mut [$t],
                work: &mut Workspace<$t>,
            ) {
                if winograd::serves_weight_gradient(g) {
                    g.check(x, dw, dy);
                    winograd::weight_gradient(g, x, dy, dw, &mut work.winograd);
                } else {
                    weight_gradient(isa(), g, x, dy, dw, work);
                }
            }
        }
    };
}
convolve!(f32);
convolve!(f64);

fn forward<T: Scalar>(
    isa: Isa,
    g: &Geometry,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    g.check(x, w, y);
    assert!(bias.is_none_or(|b| b.len() == g.filters), "a bias has one number a filter");
    if y.is_empty() {
        return;
    }
    let target = target::<T>(isa);
    // f64, which is for checking, does without stacks: they are compiled for one type alone.
    if T::WIDE && stack::enough(g, target) {
        renew(target, g, &mut work.forward_stack, |stack| stack.forward(g, target));
        let stack = &work.forward_stack.1;
        if stack.pays(g.images, target) {
            stack.pack(isa, target, g.groups, w, &mut work.packed);
            let (packed, source, result) = (&work.packed, x.as_ptr(), y.as_mut_ptr());
            let stacked = Stacked { isa, target, stack, g, packed, bias, source, result };
            // SAFETY: the slices were checked against the geometry; y is borrowed exclusively; `isa` is the processor's.
            return unsafe { stacked.run(pieces(g), &mut work.slots) };
        }
    }
    let g = &g.flat(target.lanes);
    renew(target, g, &mut work.forward, |windows| windows.forward::<T>(g, target));
    let windows = &work.forward.1;
    work.packed.set(isa, target.lanes, windows, g.groups, w, bias);
    let (packed, source, result) = (&work.packed, x.as_ptr(), y.as_mut_ptr());
    let correlation = Correlation { isa, target, windows, g, packed, source, result };
    // SAFETY: the slices were checked against the geometry; y is borrowed exclusively; `isa` is the processor's.
    unsafe { correlation.run(pieces(g), &mut work.slots) };
}

fn input_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    g.check(dx, w, dy);
    if dx.is_empty() || dy.is_empty() {
        return dx.fill(T::ZERO);
    }
    let target = target::<T>(isa);
    if T::WIDE && stack::enough(g, target) && g.stride == [1, 1] {
        renew(target, g, &mut work.input_stack, |stack| stack.input_gradient(g, target));
        let stack = &work.input_stack.1;
        if stack.pays(g.images, target) {
            stack.pack(isa, target, g.groups, w, &mut work.packed);
            let (packed, source, result) = (&work.packed, dy.as_ptr(), dx.as_mut_ptr());
            let stacked = Stacked { isa, target, stack, g, packed, bias: None, source, result };
            // SAFETY: as above.
            return unsafe { stacked.run(pieces(g), &mut work.slots) };
        }
    }
    let g = &g.flat(target.lanes);
    renew(target, g, &mut work.input, |windows| windows.input_gradient::<T>(g, target));
    let windows = &work.input.1;
    work.packed.set(isa, target.lanes, windows, g.groups, w, None);
    let (packed, source, result) = (&work.packed, dy.as_ptr(), dx.as_mut_ptr());
    let correlation = Correlation { isa, target, windows, g, packed, source, result };
    // SAFETY: as above.
    unsafe { correlation.run(pieces(g), &mut work.slots) };
}

fn weight_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    g.check(x, dw, dy);
    if dy.is_empty() || dw.is_empty() {
        return;
    }
    let target = target::<T>(isa);
    let g = &g.flat(target.lanes);
    renew(target, g, &mut work.weight, |plan| plan.set::<T>(g, target));
    let gradient = Gradient { isa, target, g, plan: &work.weight.1, x, dy };
    // SAFETY: as above.
    unsafe { gradient.run(pieces(g), dw, &mut work.sums, &mut work.slots) };
}

fn target<T: Scalar>(isa: Isa) -> Target {
    let wide = isa == Isa::Avx512 && T::WIDE;
    let bytes = match isa {
        Isa::Portable => 16,
        _ if wide => 64,
        _ => 32,
    };
    Target { lanes: bytes / size_of::<T>(), wide }
}

/// Makes tables anew if they were made for other sizes.
fn renew<V>(target: Target, g: &Geometry, (of, tables): &mut (Option<Key>, V), set: impl FnOnce(&mut V)) {
    let key = (Geometry { images: 0, ..*g }, target);
    if *of != Some(key) {
        set(tables);
        *of = Some(key);
    }
}

fn pieces(g: &Geometry) -> usize {
    if g.multiply_adds() < SERIAL { 1 } else { par::threads() }
}
