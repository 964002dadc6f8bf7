//! Convolutions of volumes as convolutions of images: the taps along the depth alone are unrolled.
//!
//! What the windows of one output depth see are KD slices of each channel. Stacked in the order (C, KD) they are an image of C·KD
//! channels, and the filters (K, C/groups, KD, KH, KW) are, where they are, those of a convolution of such images:
//!
//! ```text
//! y[n, k, o] = b[k] + w[k] ⋆ stack(n, o)        stack(n, o)[c, t] = x[n, c, o·stride + t·dilation − before]
//! ```
//!
//! The stacks of some outputs at a time are written into scratch memory; y, ∂X and ∂W of them come from the kernels over images.
//! Where a stack is the volume itself nothing is copied.

use super::{
    Filters, Geometry, Workspace, addends, images_forward, images_input_gradient, images_weight_gradient,
};
use crate::{Scalar, par};
use std::ops::Range;

/// Elements of the stacks of a block: 4 MiB of f32, which stay in the caches that processors share.
const BLOCK: usize = 1 << 20;

/// How much earlier than those of images the sums of ∂W are taken in levels, from 4096 addends on: a volume has more windows than an
/// image and few samples, so that its sums are long at batches of any size; it costs a twentieth of ∂W.
const EARLIER: usize = 16;

/// Elements that a piece of work copies at least.
const PIECE: usize = 1 << 14;

/// Scratch memory of volumes.
#[derive(Debug)]
pub(super) struct Memory<T> {
    /// (outputs of a block, C·KD, H, W)
    stacks: Vec<T>,
    /// (outputs of a block, K, H′, W′)
    results: Vec<T>,
    /// ∂W of a block, and the sum of all.
    dw: Vec<T>,
    sums: Vec<f64>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { stacks: Vec::new(), results: Vec::new(), dw: Vec::new(), sums: Vec::new() }
    }
}

/// The same convolution over images, where that needs no copies: of one slice with all of its rows, or with the depth as channels.
pub(super) fn as_images(g: &Geometry<3>) -> Option<Geometry<2>> {
    let ([d, h, w], [kd, kh, kw]) = (g.input, g.kernel);
    let flat = |axis: usize| g.kernel[axis] == 1 && g.stride[axis] == 1 && g.padding[axis] == [0; 2];
    let of = |v: [usize; 3]| [v[1], v[2]];
    let images = Geometry {
        images: g.images,
        channels: g.channels,
        filters: g.filters,
        groups: g.groups,
        input: [d.saturating_mul(h), w],
        kernel: [kh, kw],
        stride: of(g.stride),
        dilation: of(g.dilation),
        padding: [g.padding[1], g.padding[2]],
    };
    if flat(0) && flat(1) {
        return Some(images);
    }
    let whole = kd == d && g.padding[0] == [0; 2] && (kd == 1 || g.dilation[0] == 1);
    whole.then_some(Geometry { channels: g.channels.saturating_mul(d), input: [h, w], ..images })
}

/// Outputs of some images, or some of the outputs of one image, which are computed together.
#[derive(Clone, Debug)]
struct Block {
    images: Range<usize>,
    depths: Range<usize>,
}

impl Block {
    fn len(&self) -> usize {
        self.images.len() * self.depths.len()
    }

    /// Image n and output depth o of a stack.
    fn at(&self, i: usize) -> (usize, usize) {
        (self.images.start + i / self.depths.len(), self.depths.start + i % self.depths.len())
    }
}

/// The sizes that the copies need.
struct Stacks<'g> {
    g: &'g Geometry<3>,
    /// Images and output depths of a block at most.
    images: usize,
    depths: usize,
    /// Elements of a slice of x and of y.
    slice: usize,
    out: usize,
}

impl<'g> Stacks<'g> {
    fn new(g: &'g Geometry<3>, block: usize) -> Self {
        let [depth, rows, cols] = g.output();
        // The bytes of a workspace are asked of sizes that no slice has.
        let (slice, out) = (g.input[1].saturating_mul(g.input[2]), rows.saturating_mul(cols));
        let stack = g.channels.saturating_mul(g.kernel[0]).saturating_mul(slice);
        let stack = stack.max(g.filters.saturating_mul(out)).max(1);
        let most = (block / stack).max(1);
        let images = (most / depth.max(1)).clamp(1, g.images.max(1));
        Self { g, images, depths: if images > 1 { depth } else { most.min(depth) }, slice, out }
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let (images, depths, depth, step) = (self.g.images, self.depths, self.g.output()[0], self.images);
        (0..images).step_by(step).flat_map(move |n| {
            (0..depth)
                .step_by(depths)
                .map(move |o| Block { images: n..(n + step).min(images), depths: o..(o + depths).min(depth) })
        })
    }

    /// The convolution of the stacks of a block.
    fn geometry(&self, outputs: usize) -> Geometry<2> {
        let g = self.g;
        Geometry {
            images: outputs,
            channels: g.channels.saturating_mul(g.kernel[0]),
            filters: g.filters,
            groups: g.groups,
            input: [g.input[1], g.input[2]],
            kernel: [g.kernel[1], g.kernel[2]],
            stride: [g.stride[1], g.stride[2]],
            dilation: [g.dilation[1], g.dilation[2]],
            padding: [g.padding[1], g.padding[2]],
        }
    }

    /// The slice of x that tap t of output depth o reads.
    fn place(&self, o: usize, t: usize) -> Option<usize> {
        let g = self.g;
        let at = o * g.stride[0] + t * g.dilation[0];
        at.checked_sub(g.padding[0][0]).filter(|&d| d < g.input[0])
    }

    /// stacks[i, c, t] = x[n, c, place]
    fn stack<T: Scalar>(&self, block: &Block, x: &[T], stacks: &mut [T]) {
        let (g, slice) = (self.g, self.slice);
        let (kd, volume) = (g.kernel[0], g.input[0] * slice);
        let per = (PIECE / (kd * slice)).max(1);
        par::for_chunks(stacks, per * kd * slice, |piece, stacks| {
            for (i, stack) in (piece * per..).zip(stacks.chunks_exact_mut(kd * slice)) {
                let ((n, o), c) = (block.at(i / g.channels), i % g.channels);
                let x = &x[(n * g.channels + c) * volume..][..volume];
                for (t, to) in stack.chunks_exact_mut(slice).enumerate() {
                    match self.place(o, t) {
                        Some(d) => to.copy_from_slice(&x[d * slice..][..slice]),
                        None => to.fill(T::ZERO),
                    }
                }
            }
        });
    }

    /// dx[n, c, place] += stacks[i, c, t], where the first block of an image overwrites.
    fn unstack<T: Scalar>(&self, block: &Block, stacks: &[T], dx: &mut [T]) {
        let (g, slice) = (self.g, self.slice);
        let (kd, volume) = (g.kernel[0], g.input[0] * slice);
        let per = (PIECE / volume).max(1);
        let image = g.channels * volume;
        let dx = &mut dx[block.images.start * image..block.images.end * image];
        par::for_chunks(dx, per * volume, |piece, dx| {
            for (plane, dx) in (piece * per..).zip(dx.chunks_exact_mut(volume)) {
                if block.depths.start == 0 {
                    dx.fill(T::ZERO);
                }
                let (n, c) = (plane / g.channels, plane % g.channels);
                for (j, o) in block.depths.clone().enumerate() {
                    let i = (n * block.depths.len() + j) * g.channels + c;
                    for (t, from) in stacks[i * kd * slice..][..kd * slice].chunks_exact(slice).enumerate() {
                        let Some(d) = self.place(o, t) else { continue };
                        dx[d * slice..][..slice].iter_mut().zip(from).for_each(|(dx, &v)| *dx += v);
                    }
                }
            }
        });
    }

    /// y[n, k, o] = results[i, k]
    fn spread<T: Scalar>(&self, block: &Block, results: &[T], y: &mut [T]) {
        let (filters, out) = (self.g.filters, self.out);
        let volume = self.g.output()[0] * out;
        let per = (PIECE / volume).max(1);
        let image = filters * volume;
        let y = &mut y[block.images.start * image..block.images.end * image];
        par::for_chunks(y, per * volume, |piece, y| {
            for (plane, y) in (piece * per..).zip(y.chunks_exact_mut(volume)) {
                let (n, k) = (plane / filters, plane % filters);
                for (j, o) in block.depths.clone().enumerate() {
                    let i = (n * block.depths.len() + j) * filters + k;
                    y[o * out..][..out].copy_from_slice(&results[i * out..][..out]);
                }
            }
        });
    }

    /// results[i, k] = dy[n, k, o]
    fn gather<T: Scalar>(&self, block: &Block, dy: &[T], results: &mut [T]) {
        let (filters, out) = (self.g.filters, self.out);
        let volume = self.g.output()[0] * out;
        let per = (PIECE / out).max(1);
        par::for_chunks(results, per * out, |piece, results| {
            for (i, to) in (piece * per..).zip(results.chunks_exact_mut(out)) {
                let ((n, o), k) = (block.at(i / filters), i % filters);
                to.copy_from_slice(&dy[(n * filters + k) * volume + o * out..][..out]);
            }
        });
    }

    /// Elements of the stacks and of the results of a full block.
    fn lens(&self) -> [usize; 2] {
        let outputs = self.images.saturating_mul(self.depths);
        let stack = self.g.channels.saturating_mul(self.g.kernel[0]).saturating_mul(self.slice);
        [stack, self.g.filters.saturating_mul(self.out)].map(|len| len.saturating_mul(outputs))
    }
}

/// y = w ⋆ x + b. The slices are as long as the geometry says, as in the two gradients, and none is empty.
pub(super) fn forward<T: Scalar>(
    g: &Geometry<3>,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    forward_by(BLOCK, g, x, w, bias, y, work);
}

fn forward_by<T: Scalar>(
    block: usize,
    g: &Geometry<3>,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    let (of, mut memory) = (Stacks::new(g, block), std::mem::take(&mut work.volumes));
    let [stacks, results] = of.lens();
    memory.stacks.resize(stacks, T::ZERO);
    memory.results.resize(results, T::ZERO);
    for block in of.blocks() {
        let images = of.geometry(block.len());
        let (stacks, results) = (&mut memory.stacks[..images.x_len()], &mut memory.results[..images.y_len()]);
        of.stack(&block, x, stacks);
        images_forward(&images, stacks, w, bias, results, work);
        of.spread(&block, results, y);
    }
    work.volumes = memory;
}

/// dx = wᵀ ⋆ dy
pub(super) fn input_gradient<T: Scalar>(
    g: &Geometry<3>,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    input_gradient_by(BLOCK, g, w, dy, dx, work);
}

fn input_gradient_by<T: Scalar>(
    block: usize,
    g: &Geometry<3>,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    work: &mut Workspace<T>,
) {
    let (of, mut memory) = (Stacks::new(g, block), std::mem::take(&mut work.volumes));
    let [stacks, results] = of.lens();
    memory.stacks.resize(stacks, T::ZERO);
    memory.results.resize(results, T::ZERO);
    for block in of.blocks() {
        let images = of.geometry(block.len());
        let (stacks, results) = (&mut memory.stacks[..images.x_len()], &mut memory.results[..images.y_len()]);
        of.gather(&block, dy, results);
        images_input_gradient(&images, w, results, stacks, work);
        of.unstack(&block, stacks, dx);
    }
    work.volumes = memory;
}

/// dw += dy ⋆ x
pub(super) fn weight_gradient<T: Scalar>(
    g: &Geometry<3>,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    weight_gradient_by(BLOCK, g, x, dy, dw, work);
}

fn weight_gradient_by<T: Scalar>(
    block: usize,
    g: &Geometry<3>,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    let (of, mut memory) = (Stacks::new(g, block), std::mem::take(&mut work.volumes));
    let [stacks, results] = of.lens();
    memory.stacks.resize(stacks, T::ZERO);
    memory.results.resize(results, T::ZERO);
    let (one, all) = (of.blocks().nth(1).is_none(), addends(g).saturating_mul(EARLIER));
    if !one {
        memory.dw.resize(dw.len(), T::ZERO);
        memory.sums.clear();
        memory.sums.resize(dw.len(), 0.0);
    }
    for block in of.blocks() {
        let images = of.geometry(block.len());
        let (stacks, results) = (&mut memory.stacks[..images.x_len()], &mut memory.results[..images.y_len()]);
        of.stack(&block, x, stacks);
        of.gather(&block, dy, results);
        if one {
            images_weight_gradient(&images, all, stacks, results, dw, work);
        } else {
            memory.dw.fill(T::ZERO);
            images_weight_gradient(&images, all, stacks, results, &mut memory.dw, work);
            memory.sums.iter_mut().zip(&memory.dw).for_each(|(sum, dw)| *sum += dw.to_f64());
        }
    }
    if !one {
        dw.iter_mut().zip(&memory.sums).for_each(|(dw, &sum)| *dw += T::from_f64(sum));
    }
    work.volumes = memory;
}

/// Bytes of the scratch memory, and the geometry of a full block.
pub(super) fn memory<T>(g: &Geometry<3>, weights: bool) -> (usize, Geometry<2>) {
    let of = Stacks::new(g, BLOCK);
    let copies = of.lens().into_iter().fold(0, usize::saturating_add).saturating_mul(size_of::<T>());
    let several = weights && of.blocks().nth(1).is_some();
    let sums = if several { g.w_len().saturating_mul(size_of::<T>() + size_of::<f64>()) } else { 0 };
    (copies.saturating_add(sums), of.geometry(of.images.saturating_mul(of.depths)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::layers::conv::direct;

    fn values<T: Scalar>(n: usize, seed: usize) -> Vec<T> {
        (0..n).map(|i| T::from_f64(((i * 7919 + seed * 104_729 + 13) % 31 % 9) as f64 - 4.0)).collect()
    }

    /// All ways against the definition.
    fn check<T: Scalar>(g: &Geometry<3>, work: &mut Workspace<T>) {
        g.check().unwrap();
        let [x, w, dy] = [g.x_len(), g.w_len(), g.y_len()].map(|n| values::<T>(n, n));
        let bias = values::<T>(g.filters, 5);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        direct::forward(g, &x, &w, Some(&bias), &mut y);
        direct::input_gradient(g, &w, &dy, &mut dx);
        direct::weight_gradient(g, &x, &dy, &mut dw);
        let nan = T::from_f64(f64::NAN);
        // Blocks of one output, of some, of an image and a half, of all.
        let stack = g.channels * g.kernel[0] * g.input[1] * g.input[2];
        for block in [1, 2 * stack, stack * g.output()[0] * 3 / 2, BLOCK] {
            let (mut got_y, mut got_dx, mut got_dw) = (vec![nan; y.len()], vec![nan; x.len()], w.clone());
            forward_by(block, g, &x, Filters::new(&w), Some(&bias), &mut got_y, work);
            input_gradient_by(block, g, &w, &dy, &mut got_dx, work);
            weight_gradient_by(block, g, &x, &dy, &mut got_dw, work);
            for (got, want, addends) in [
                (&got_y, &y, g.w_len() / g.filters),
                (&got_dx, &dx, g.w_len() / g.channels * g.groups),
                (&got_dw, &dw, g.y_len() / g.filters),
            ] {
                // Products are at most 16; transforms of tiles round.
                let most = 16.0 * addends as f64 * 16.0 * T::EPSILON.to_f64();
                let near = |(&a, &b): (&T, &T)| (a - b).abs().to_f64() <= most;
                assert!(got.iter().zip(want).all(near), "{block} {g:?}");
            }
        }
        if let Some(images) = as_images(g) {
            assert_eq!([images.x_len(), images.w_len(), images.y_len()], [x.len(), w.len(), dy.len()]);
        }
    }

    #[test]
    fn all_blocks_agree_with_the_definition() {
        let base = Geometry {
            images: 3,
            channels: 4,
            filters: 6,
            groups: 1,
            input: [5, 6, 7],
            kernel: [3, 3, 2],
            stride: [1; 3],
            dilation: [1; 3],
            padding: [[0; 2]; 3],
        };
        let (mut single, mut double) = (Workspace::default(), Workspace::default());
        for g in [
            base,
            Geometry { padding: [[1; 2]; 3], ..base },
            Geometry { groups: 2, stride: [2, 1, 2], padding: [[2, 1], [0, 1], [1, 0]], ..base },
            Geometry { groups: 2, dilation: [2, 2, 1], padding: [[2, 2], [1, 1], [0, 0]], ..base },
            Geometry { kernel: [1; 3], ..base },
            Geometry { kernel: [1, 1, 3], padding: [[0, 0], [0, 0], [1, 1]], ..base },
            Geometry { kernel: [5, 3, 3], ..base },
            Geometry { kernel: [5, 1, 1], stride: [3, 1, 1], ..base },
            Geometry {
                channels: 12,
                filters: 12,
                kernel: [3; 3],
                padding: [[1; 2]; 3],
                input: [4, 9, 9],
                ..base
            },
        ] {
            check::<f32>(&g, &mut single);
            check::<f64>(&g, &mut double);
        }
    }
}
