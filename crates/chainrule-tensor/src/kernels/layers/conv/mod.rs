//! Convolutions over any number of axes, forward and backward: of images (N, C, H, W) and, as images of height 1, of sequences
//! (N, C, L); of volumes (N, C, D, H, W), as images of stacked slices (`volume`).
//!
//! ```text
//! y[n, k, i, j] = b[k] + Σ over c, r, s of w[k, c, r, s] · x[n, c, i·stride + r·dilation − before, j·stride + s·dilation − before]
//! ```
//!
//! with zeros outside the image, and c over the channels of k's group.
//!
//! im2col is never materialised. An image is copied once into a frame with its zero padding (not even that where there
//! is none); there tap t of window p is at place(p) + off(t), so all products are of the form Σ a·x[place + off]. Their
//! vectors run along the rows of the image (`along`, and `taps` for ∂W), along the filters (`spread`, for all three), or,
//! where both leave many lanes empty and there are many images, along the batch (`stack`, for y and ∂X). ∂X is a convolution too, one for each
//! phase of the stride. Kernels of 3 × 3 at stride 1 over enough channels go by `winograd`.

mod along;
mod correlate;
mod direct;
mod frame;
mod geometry;
mod gradient;
mod layout;
mod spread;
mod stack;
mod taps;
#[cfg(test)]
mod tests;
mod volume;
mod windows;
mod winograd;

pub use geometry::Geometry;

use crate::{
    Scalar, compiled,
    kernels::{Isa, gemm::Buffer, isa, lanes::lanes},
    par,
};
use correlate::{Correlation, Packed};
use gradient::{Gradient, Plan};
use stack::{Stack, Stacked};
use windows::{Target, Windows};

/// Multiply-adds below which a convolution stays in its thread: at the peak of a Zen 4 core (59 a nanosecond) they take 18 µs, and
/// waking another thread takes 7 µs.
const SERIAL: u64 = 1 << 20;
/// Multiply-adds of a piece at least: 1 µs at that peak, where handing it out takes 0.3 µs.
const PIECE: u64 = SERIAL / 16;

/// Filters, and a version that is another one whenever their values may have changed. What [`conv`] derives from the filters
/// is kept under it; without a version it is derived anew in every call.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a, T> {
    values: &'a [T],
    version: Option<[u64; 2]>,
}

impl<'a, T> Filters<'a, T> {
    /// Filters that may be others in the next call.
    #[must_use]
    pub fn new(values: &'a [T]) -> Self {
        Self { values, version: None }
    }

    /// Filters that are the same as in every other call with this version.
    #[must_use]
    pub fn versioned(values: &'a [T], version: [u64; 2]) -> Self {
        Self { values, version: Some(version) }
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
    volumes: volume::Memory<T>,
    sums: Buffer<T>,
    slots: Vec<Slot<T>>,
}

/// What tables are made for: sizes but for the number of images, and vectors.
type Key = (Geometry<2>, Target);

/// Memory of a piece.
struct Slot<T> {
    frame: Buffer<T>,
    strip: Buffer<T>,
    temp: Buffer<T>,
    levels: gradient::Levels<T>,
}

impl<T: Scalar> Default for Slot<T> {
    fn default() -> Self {
        Self { frame: Buffer::new(), strip: Buffer::new(), temp: Buffer::new(), levels: Default::default() }
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
            volumes: Default::default(),
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
/// If the geometry does not pass [`Geometry::check`], or a slice is not as long as it says.
pub fn conv<T: Scalar, const R: usize>(
    g: &Geometry<R>,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    match g.over() {
        Some(g) => images_forward(&g, x, w, bias, y, work),
        None => volumes_forward(&volumes(g), x, w, bias, y, work),
    }
}

/// dx = wᵀ ⋆ dy, overwritten.
///
/// # Panics
/// If the geometry does not pass [`Geometry::check`], or a slice is not as long as it says.
pub fn conv_input_gradient<T: Scalar, const R: usize>(
    g: &Geometry<R>,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    match g.over() {
        Some(g) => images_input_gradient(&g, w, dy, dx, work),
        None => volumes_input_gradient(&volumes(g), w, dy, dx, work),
    }
}

/// dw += dy ⋆ x.
///
/// # Panics
/// If the geometry does not pass [`Geometry::check`], or a slice is not as long as it says.
pub fn conv_weight_gradient<T: Scalar, const R: usize>(
    g: &Geometry<R>,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    match g.over() {
        Some(g) => images_weight_gradient(&g, addends(&g), x, dy, dw, work),
        None => volumes_weight_gradient(&volumes(g), x, dy, dw, work),
    }
}

fn volumes<const R: usize>(g: &Geometry<R>) -> Geometry<3> {
    g.over().expect("at most three axes")
}

compiled! {
    fn images_forward[T](
        g: &Geometry<2>,
        x: &[T],
        w: Filters<'_, T>,
        bias: Option<&[T]>,
        y: &mut [T],
        work: &mut Workspace<T>,
    ) {
        forward(isa(), g, x, w, bias, y, work);
    }
}

compiled! {
    fn images_input_gradient[T](
        g: &Geometry<2>,
        w: &[T],
        dy: &[T],
        dx: &mut [T],
        work: &mut Workspace<T>,
    ) {
        input_gradient(isa(), g, w, dy, dx, work);
    }
}

compiled! {
    fn images_weight_gradient[T](
        g: &Geometry<2>,
        addends: usize,
        x: &[T],
        dy: &[T],
        dw: &mut [T],
        work: &mut Workspace<T>,
    ) {
        weight_gradient(isa(), g, addends, x, dy, dw, work);
    }
}

compiled! {
    fn volumes_forward[T](
        g: &Geometry<3>,
        x: &[T],
        w: Filters<'_, T>,
        bias: Option<&[T]>,
        y: &mut [T],
        work: &mut Workspace<T>,
    ) {
        let [sparse, _] = g.expect(x, w.values, y);
        assert!(bias.is_none_or(|b| b.len() == g.filters), "a bias has one element a filter");
        if y.is_empty() {
        } else if sparse {
            direct::forward(g, x, w.values, bias, y);
        } else if let Some(g) = volume::as_images(g) {
            images_forward(&g, x, w, bias, y, work);
        } else {
            volume::forward(g, x, w, bias, y, work);
        }
    }
}

compiled! {
    fn volumes_input_gradient[T](
        g: &Geometry<3>,
        w: &[T],
        dy: &[T],
        dx: &mut [T],
        work: &mut Workspace<T>,
    ) {
        let [_, sparse] = g.expect(dx, w, dy);
        if dx.is_empty() || dy.is_empty() {
            dx.fill(T::ZERO);
        } else if sparse {
            direct::input_gradient(g, w, dy, dx);
        } else if let Some(g) = volume::as_images(g) {
            images_input_gradient(&g, w, dy, dx, work);
        } else {
            volume::input_gradient(g, w, dy, dx, work);
        }
    }
}

compiled! {
    fn volumes_weight_gradient[T](
        g: &Geometry<3>,
        x: &[T],
        dy: &[T],
        dw: &mut [T],
        work: &mut Workspace<T>,
    ) {
        let [sparse, _] = g.expect(x, dw, dy);
        if dy.is_empty() || dw.is_empty() {
        } else if sparse {
            direct::weight_gradient(g, x, dy, dw);
        } else if let Some(g) = volume::as_images(g) {
            images_weight_gradient(&g, addends(&g), x, dy, dw, work);
        } else {
            volume::weight_gradient(g, x, dy, dw, work);
        }
    }
}

/// Bytes of a [`Workspace`] after [`conv`] in training, and the gradients of the weights and of the input if they are wanted:
/// all but small tables. It depends on the number of threads.
pub fn workspace_bytes<T: Scalar, const R: usize>(g: &Geometry<R>, [weights, input]: [bool; 2]) -> usize {
    let (stacks, g) = match g.over() {
        Some(images) => (0, images),
        None => volume_bytes::<T>(&volumes(g), weights),
    };
    if g.images == 0 {
        return 0;
    }
    let (isa, target) = (isa(), target::<T>(isa()));
    let (serves, serves_input) = (winograd::serves(&g), winograd::serves_input_gradient(&g));
    let (mut slot, mut sums) = (0, 0);
    if !serves {
        slot = slot_len::<T>(&g, target, false);
        if weights {
            slot = slot.max(frame_len(&g, false));
            sums = gradient::sums_len::<T>(&g);
        }
    }
    if input && !serves_input {
        slot = slot.max(slot_len::<T>(&g, target, true));
    }
    let packed = if serves && (serves_input || !input) { 0 } else { g.w_len() };
    let windows = slot.saturating_mul(pieces(&g)).saturating_add(packed).saturating_add(sums);
    let blocks =
        if serves { winograd::workspace_bytes::<T>(isa, &g, par::threads(), [weights, input]) } else { 0 };
    windows.saturating_mul(size_of::<T>()).saturating_add(blocks).saturating_add(stacks)
}

/// Bytes of the stacks of slices, and the geometry of their convolution.
fn volume_bytes<T: Scalar>(g: &Geometry<3>, weights: bool) -> (usize, Geometry<2>) {
    match volume::as_images(g) {
        Some(images) => (0, images),
        None => volume::memory::<T>(g, weights),
    }
}

/// Elements of a piece's memory for y, or for ∂X.
fn slot_len<T: Scalar>(g: &Geometry<2>, target: Target, gradient: bool) -> usize {
    /// A stack has a table of each row and each column; beyond so many an image is no image.
    const SIDES: usize = 1 << 16;
    let small = g.input.iter().chain(&g.output()).all(|&n| n <= SIDES);
    if T::WIDE && small && stack::enough(g, target) && (!gradient || g.stride == [1, 1]) {
        let mut stack = Stack::default();
        if gradient {
            stack.input_gradient(g, target)
        } else {
            stack.forward(g, target)
        }
        if stack.pays(g.images, target) {
            return stack.slot_len(target.lanes);
        }
    }
    frame_len(g, gradient)
}

/// Elements of the frame around an image of x, or of dy; an image without a border is read where it is.
fn frame_len(g: &Geometry<2>, gradient: bool) -> usize {
    let (channels, size, border) = if gradient {
        let around = |i: usize| 2 * (g.kernel[i] - 1).saturating_mul(g.dilation[i]);
        (g.group_filters(), g.output(), [around(0), around(1)])
    } else {
        (g.group_channels(), g.input, g.padding.map(|[before, after]| before.saturating_add(after)))
    };
    if border == [0; 2] {
        return 0;
    }
    let sides = [0, 1].map(|i| size[i].saturating_add(border[i]));
    channels.saturating_mul(sides[0]).saturating_mul(sides[1])
}

/// [`conv`] of images. Sums over windows check the sizes themselves, as in the two gradients.
pub(in crate::kernels) fn forward<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    if !winograd::serves(g) {
        return windows_forward(isa, g, x, w.values, bias, y, work);
    }
    g.expect(x, w.values, y);
    let pass = winograd::Pass::forward(g);
    let done = if let Some(version) = w.version {
        let key = Some((version, g.channels, g.filters));
        if work.prepared_for != key {
            work.prepared_for = None; // as long as they are not prepared
            winograd::prepare(isa, &pass, w.values, &mut work.prepared);
            work.prepared_for = key;
        }
        let w = (w.values, &work.prepared);
        winograd::forward_prepared(isa, &pass, x, w, bias, y, &mut work.winograd)
    } else {
        winograd::forward(isa, &pass, x, w.values, bias, y, &mut work.winograd)
    };
    if !done {
        windows_forward(isa, g, x, w.values, bias, y, work);
    }
}

/// [`conv_input_gradient`] of images.
pub(in crate::kernels) fn input_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    if winograd::serves_input_gradient(g) {
        g.expect(dx, w, dy);
        let pass = winograd::Pass::input_gradient(g);
        if winograd::forward(isa, &pass, dy, w, None, dx, &mut work.winograd) {
            return;
        }
    }
    windows_input_gradient(isa, g, w, dy, dx, work);
}

/// How many products an element of dW is the sum of.
fn addends<const R: usize>(g: &Geometry<R>) -> usize {
    g.output().into_iter().fold(g.images, usize::saturating_mul)
}

/// [`conv_weight_gradient`] of images, or of a part of them: `addends` are the products that an element of the whole dW is the sum of.
pub(in crate::kernels) fn weight_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    addends: usize,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    if winograd::serves(g) {
        g.expect(x, dw, dy);
        winograd::weight_gradient(isa, &winograd::Pass::forward(g), x, dy, dw, &mut work.winograd);
    } else {
        windows_weight_gradient(isa, g, addends, x, dy, dw, work);
    }
}

/// Sums over windows of x, by the definition where the image is little of them.
fn windows_forward<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    let [sparse, _] = g.expect(x, w, y);
    assert!(bias.is_none_or(|b| b.len() == g.filters), "a bias has one element a filter");
    if y.is_empty() {
        return;
    }
    if sparse {
        return direct::forward(g, x, w, bias, y);
    }
    let tables = Tables {
        stack: Some((&mut work.forward_stack, Stack::forward)),
        windows: (&mut work.forward, Windows::forward::<T>),
    };
    // SAFETY: the slices were checked against the geometry, y is borrowed exclusively, and the processor has `isa`.
    unsafe { tables.sum(isa, g, (w, bias), (x, y), &mut work.packed, &mut work.slots) };
}

/// Sums over windows of dy, by the definition where the image is little of them.
fn windows_input_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    let [_, sparse] = g.expect(dx, w, dy);
    if dx.is_empty() || dy.is_empty() {
        return dx.fill(T::ZERO);
    }
    if sparse {
        return direct::input_gradient(g, w, dy, dx);
    }
    let stacked = g.stride == [1, 1];
    let tables = Tables {
        stack: stacked.then_some((&mut work.input_stack, Stack::input_gradient)),
        windows: (&mut work.input, Windows::input_gradient::<T>),
    };
    // SAFETY: the slices were checked against the geometry, dx is borrowed exclusively, and the processor has `isa`.
    unsafe { tables.sum(isa, g, (w, None), (dy, dx), &mut work.packed, &mut work.slots) };
}

/// Tables that are kept for a geometry, and what makes them.
type Kept<'w, V> = (&'w mut (Option<Key>, V), fn(&mut V, &Geometry<2>, Target));

/// The tables of a sum over windows, forward or backward.
struct Tables<'w> {
    /// Those of images that lie along the vectors, where that is possible.
    stack: Option<Kept<'w, Stack>>,
    windows: Kept<'w, Windows>,
}

impl Tables<'_> {
    /// to = Σ w ⋆ from (+ b), by stacks of images where that pays.
    ///
    /// # Safety
    /// The slices are as long as the geometry says, and the processor has `isa`.
    unsafe fn sum<T: Scalar>(
        self,
        isa: Isa,
        g: &Geometry<2>,
        (w, bias): (&[T], Option<&[T]>),
        (from, to): (&[T], &mut [T]),
        packed: &mut Packed<T>,
        slots: &mut Vec<Slot<T>>,
    ) {
        let target = target::<T>(isa);
        let (source, result) = (from.as_ptr(), to.as_mut_ptr());
        // f64, which is for checking, does without stacks: they are compiled for one type alone.
        if let Some((kept, set)) = self.stack.filter(|_| T::WIDE && stack::enough(g, target)) {
            renew(target, g, kept, |stack| set(stack, g, target));
            let stack = &kept.1;
            if stack.pays(g.images, target) {
                stack.pack(isa, target, g.groups, w, packed);
                let stacked = Stacked { isa, target, stack, g, packed, bias, source, result };
                // SAFETY: the caller vouches for the slices, `to` is borrowed exclusively, and the processor has `isa`.
                return unsafe { stacked.run(pieces(g), slots) };
            }
        }
        let g = &g.flat(target.lanes);
        let (kept, set) = self.windows;
        renew(target, g, kept, |windows| set(windows, g, target));
        let windows = &kept.1;
        packed.set(isa, target.lanes, windows, g.groups, w, bias);
        let correlation = Correlation { isa, target, windows, g, packed, source, result };
        // SAFETY: the caller vouches for the slices, `to` is borrowed exclusively, and the processor has `isa`.
        unsafe { correlation.run(pieces(g), slots) };
    }
}

/// Sums over windows, of which those of the whole have so many addends.
fn windows_weight_gradient<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    addends: usize,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    let [sparse, _] = g.expect(x, dw, dy);
    if dy.is_empty() || dw.is_empty() {
        return;
    }
    if sparse {
        return direct::weight_gradient(g, x, dy, dw);
    }
    let target = target::<T>(isa);
    let g = &g.flat(T::LANES);
    renew(target, g, &mut work.weight, |plan| plan.set::<T>(g));
    let gradient = Gradient { isa, lanes: target.lanes, g, addends, plan: &work.weight.1, x, dy };
    // SAFETY: the slices were checked against the geometry, and the processor has `isa`.
    unsafe { gradient.run(pieces(g), dw, &mut work.sums, &mut work.slots) };
}

fn target<T: Scalar>(isa: Isa) -> Target {
    Target { lanes: lanes::<T>(isa), wide: isa == Isa::Avx512 && T::WIDE }
}

/// Makes tables anew if they were made for other sizes.
fn renew<V>(target: Target, g: &Geometry<2>, (of, tables): &mut (Option<Key>, V), set: impl FnOnce(&mut V)) {
    let key = (Geometry { images: 0, ..*g }, target);
    if *of != Some(key) {
        *of = None; // tables that a panic left half made are those of no geometry
        set(tables);
        *of = Some(key);
    }
}

/// Into how many pieces a pass is cut at most. Each has memory of its own, so that none is smaller than it is worth.
fn pieces(g: &Geometry<2>) -> usize {
    let work = g.multiply_adds();
    if work < SERIAL { 1 } else { par::threads().min((work / PIECE) as usize) }
}
