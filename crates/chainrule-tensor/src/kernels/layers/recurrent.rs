//! Steps of recurrent layers: what is between the products, fused, forward and backward.
//!
//! Of a row whose sequence has ended the state is carried over, and its δa is 0.

use crate::{Scalar, kernels::kernel};

/// The rows of a step.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How many there are.
    pub n: usize,
    /// Elements of a row's state.
    pub h: usize,
    /// From row to row of what stands among the outputs of both directions.
    pub stride: usize,
    /// The step.
    pub t: usize,
    /// The length of each sequence; none where all are as long as the batch.
    pub lengths: &'a [usize],
}

impl Rows<'_> {
    /// Whether the sequence of row r has ended before this step.
    #[inline(always)]
    fn ended(&self, r: usize) -> bool {
        self.lengths.get(r).is_some_and(|&length| length <= self.t)
    }

    /// Where row r stands among the outputs.
    #[inline(always)]
    fn at(&self, r: usize) -> std::ops::Range<usize> {
        r * self.stride..r * self.stride + self.h
    }

    /// Where the state of row r stands.
    #[inline(always)]
    fn own(&self, r: usize) -> std::ops::Range<usize> {
        r * self.h..(r + 1) * self.h
    }
}

/// Elements that are computed together.
const LANES: usize = 32;

/// Elements from `at` on; zeros where the row ends.
#[inline(always)]
fn load<T: Scalar>(row: &[T], at: usize) -> [T; LANES] {
    match row[at..].first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut part = [T::ZERO; LANES];
            part[..row.len() - at].copy_from_slice(&row[at..]);
            part
        }
    }
}

/// Writes elements from `at` on, as many as the row has.
#[inline(always)]
fn store<T: Scalar>(row: &mut [T], at: usize, values: &[T; LANES]) {
    match row[at..].first_chunk_mut() {
        Some(whole) => *whole = *values,
        None => {
            let rest = &mut row[at..];
            rest.copy_from_slice(&values[..rest.len()]);
        }
    }
}

/// The parts of N gates of a row.
#[inline(always)]
fn parts<T, const N: usize>(row: &[T], h: usize) -> [&[T]; N] {
    std::array::from_fn(|k| &row[k * h..(k + 1) * h])
}

kernel! {
    /// h′ = tanh a, or max(a, 0) where `relu`.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn rnn_step[T](rows: Rows<'_>, relu: bool, a: &[T], out: &mut [T]) {
        for r in 0..rows.n {
            let (a, out) = (&a[rows.own(r)], &mut out[rows.at(r)]);
            if relu {
                out.iter_mut().zip(a).for_each(|(y, &a)| *y = if a <= T::ZERO { T::ZERO } else { a });
            } else {
                out.iter_mut().zip(a).for_each(|(y, &a)| *y = a.v_tanh::<FMA>());
            }
        }
    }
}

kernel! {
    /// δa = (δy + δh) f′(a), from h′ = f(a); δh becomes 0.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn rnn_step_gradient[T](
        rows: Rows<'_>,
        relu: bool,
        out: &[T],
        dy: &[T],
        dh: &mut [T],
        da: &mut [T],
    ) {
        for r in 0..rows.n {
            let (y, dy) = (&out[rows.at(r)], &dy[rows.at(r)]);
            let (dh, da) = (&mut dh[rows.own(r)], &mut da[rows.own(r)]);
            if rows.ended(r) {
                da.fill(T::ZERO);
                continue;
            }
            for (((da, dh), &y), &dy) in da.iter_mut().zip(dh).zip(y).zip(dy) {
                let slope = if !relu {
                    T::ONE - y * y
                } else if y > T::ZERO {
                    T::ONE
                } else {
                    y // 0 or NaN
                };
                *da = (dy + *dh) * slope;
                *dh = T::ZERO;
            }
        }
    }
}

kernel! {
    /// Of gates (i f g o) before their functions: c′ = σ(f) c + σ(i) tanh(g), h′ = σ(o) tanh c′. The gates become what their
    /// functions give.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn lstm_step[T](rows: Rows<'_>, gates: &mut [T], before: &[T], cells: &mut [T], out: &mut [T]) {
        let h = rows.h;
        for r in 0..rows.n {
            let (before, cells) = (&before[rows.own(r)], &mut cells[rows.own(r)]);
            let out = &mut out[rows.at(r)];
            if rows.ended(r) {
                cells.copy_from_slice(before);
                out.fill(T::ZERO);
                continue;
            }
            let row = &mut gates[4 * r * h..4 * (r + 1) * h];
            for at in (0..h).step_by(LANES) {
                let [mut i, mut f, mut g, mut o] = parts::<T, 4>(row, h).map(|part| load(part, at));
                let (mut c, mut y) = (load(before, at), [T::ZERO; LANES]);
                for k in 0..LANES {
                    i[k] = i[k].v_sigmoid::<FMA>();
                    f[k] = f[k].v_sigmoid::<FMA>();
                    g[k] = g[k].v_tanh::<FMA>();
                    o[k] = o[k].v_sigmoid::<FMA>();
                    c[k] = f[k] * c[k] + i[k] * g[k]; // c′ = f c + i g
                    y[k] = o[k] * c[k].v_tanh::<FMA>(); // h′ = o tanh c′
                }
                for (part, values) in row.chunks_exact_mut(h).zip([&i, &f, &g, &o]) {
                    store(part, at, values);
                }
                store(cells, at, &c);
                store(out, at, &y);
            }
        }
    }
}

kernel! {
    /// δa of a step from δh′ = δy + δh, δc′ and what [`lstm_step`] made, `cells` being c and c′. δc becomes that of c, and δh 0.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn lstm_step_gradient[T](
        rows: Rows<'_>,
        gates: &[T],
        cells: [&[T]; 2],
        dy: &[T],
        dh: &mut [T],
        dc: &mut [T],
        da: &mut [T],
    ) {
        let h = rows.h;
        for r in 0..rows.n {
            let da = &mut da[4 * r * h..4 * (r + 1) * h];
            if rows.ended(r) {
                da.fill(T::ZERO);
                continue;
            }
            let (row, dy) = (&gates[4 * r * h..4 * (r + 1) * h], &dy[rows.at(r)]);
            let [before, cells] = cells.map(|cells| &cells[rows.own(r)]);
            let (dh, dc) = (&mut dh[rows.own(r)], &mut dc[rows.own(r)]);
            for at in (0..h).step_by(LANES) {
                let [mut i, mut f, mut g, mut o] = parts::<T, 4>(row, h).map(|part| load(part, at));
                let [before, after, dy, of_h] = [before, cells, dy, &*dh].map(|row| load(row, at));
                let mut of_c = load(dc, at);
                for k in 0..LANES {
                    let (dh, bent) = (dy[k] + of_h[k], after[k].v_tanh::<FMA>());
                    let dc = of_c[k] + dh * o[k] * (T::ONE - bent * bent); // δc′ += δh′ o (1 − tanh² c′)
                    of_c[k] = dc * f[k]; // δc = δc′ f
                    let (value_i, value_g) = (i[k], g[k]);
                    i[k] = dc * value_g * value_i * (T::ONE - value_i); // δaᵢ = δc′ g i(1 − i)
                    f[k] = dc * before[k] * f[k] * (T::ONE - f[k]); // δa_f = δc′ c f(1 − f)
                    g[k] = dc * value_i * (T::ONE - value_g * value_g); // δa_g = δc′ i (1 − g²)
                    o[k] = dh * bent * o[k] * (T::ONE - o[k]); // δaₒ = δh′ tanh(c′) o(1 − o)
                }
                for (part, values) in da.chunks_exact_mut(h).zip([&i, &f, &g, &o]) {
                    store(part, at, values);
                }
                store(dc, at, &of_c);
                store(dh, at, &[T::ZERO; LANES]);
            }
        }
    }
}

kernel! {
    /// Of gates (r z n) before their functions, without what the state gives, which is in `hidden`:
    /// h′ = (1 − z) n + z h with r, z ← σ and n = tanh(n + r q), where q is the third part of `hidden`. The gates become what their
    /// functions give; `kept` gets q.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn gru_step[T](
        rows: Rows<'_>,
        gates: &mut [T],
        hidden: &[T],
        before: &[T],
        kept: &mut [T],
        out: &mut [T],
    ) {
        let h = rows.h;
        for row in 0..rows.n {
            let part = 3 * row * h..3 * (row + 1) * h;
            let (gates, hidden) = (&mut gates[part.clone()], &hidden[part]);
            let (before, kept, out) = (&before[rows.at(row)], &mut kept[rows.own(row)], &mut out[rows.at(row)]);
            kept.copy_from_slice(&hidden[2 * h..]);
            for at in (0..h).step_by(LANES) {
                let [mut r, mut z, mut n] = parts::<T, 3>(gates, h).map(|part| load(part, at));
                let [of_r, of_z, q] = parts::<T, 3>(hidden, h).map(|part| load(part, at));
                let mut y = load(before, at);
                for k in 0..LANES {
                    r[k] = (r[k] + of_r[k]).v_sigmoid::<FMA>();
                    z[k] = (z[k] + of_z[k]).v_sigmoid::<FMA>();
                    n[k] = (n[k] + r[k] * q[k]).v_tanh::<FMA>();
                    y[k] = n[k] + z[k] * (y[k] - n[k]); // h′ = (1 − z) n + z h
                }
                for (part, values) in gates.chunks_exact_mut(h).zip([&r, &z, &n]) {
                    store(part, at, values);
                }
                store(out, at, &y);
            }
        }
    }
}

kernel! {
    /// δa of a step from δh′ = δy + δh and what [`gru_step`] made: `da` for what the input gives, `dq` for what the state gives, which
    /// differ in the third part. δh becomes δh′ z, what goes to h past the gates.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn gru_step_gradient[T](
        rows: Rows<'_>,
        gates: &[T],
        before_and_kept: [&[T]; 2],
        dy: &[T],
        dh: &mut [T],
        da: &mut [T],
        dq: &mut [T],
    ) {
        let h = rows.h;
        let [before, kept] = before_and_kept;
        for row in 0..rows.n {
            let part = 3 * row * h..3 * (row + 1) * h;
            let (gates, da, dq) = (&gates[part.clone()], &mut da[part.clone()], &mut dq[part]);
            if rows.ended(row) {
                da.fill(T::ZERO);
                dq.fill(T::ZERO);
                continue;
            }
            let (before, kept, dy) = (&before[rows.at(row)], &kept[rows.own(row)], &dy[rows.at(row)]);
            let dh = &mut dh[rows.own(row)];
            for at in (0..h).step_by(LANES) {
                let [mut r, mut z, mut n] = parts::<T, 3>(gates, h).map(|part| load(part, at));
                let [before, mut q, dy] = [before, kept, dy].map(|row| load(row, at));
                let mut of_h = load(dh, at);
                for k in 0..LANES {
                    let dh = dy[k] + of_h[k];
                    of_h[k] = dh * z[k]; // δh = δh′ z + …
                    let dn = dh * (T::ONE - z[k]) * (T::ONE - n[k] * n[k]); // δaₙ = δh′ (1 − z)(1 − n²)
                    z[k] = dh * (before[k] - n[k]) * z[k] * (T::ONE - z[k]); // δa_z = δh′ (h − n) z(1 − z)
                    let of_r = dn * q[k] * r[k] * (T::ONE - r[k]); // δaᵣ = δaₙ q r(1 − r)
                    (q[k], r[k], n[k]) = (dn * r[k], of_r, dn); // δq = δaₙ r
                }
                for (part, values) in da.chunks_exact_mut(h).zip([&r, &z, &n]) {
                    store(part, at, values);
                }
                for (part, values) in dq.chunks_exact_mut(h).zip([&r, &z, &q]) {
                    store(part, at, values);
                }
                store(dh, at, &of_h);
            }
        }
    }
}

kernel! {
    /// The state of rows whose sequences have ended: h′ = h.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn carry[T](rows: Rows<'_>, before: &[T], out: &mut [T]) {
        for r in (0..rows.n).filter(|&r| rows.ended(r)) {
            out[rows.at(r)].copy_from_slice(&before[rows.at(r)]);
        }
    }
}

kernel! {
    /// δy += δh, and δh becomes 0. Of rows whose sequences have ended, δy becomes 0 and δh stays.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn take_state_gradient[T](rows: Rows<'_>, dy: &mut [T], dh: &mut [T]) {
        for r in 0..rows.n {
            let (dy, dh) = (&mut dy[rows.at(r)], &mut dh[rows.own(r)]);
            if rows.ended(r) {
                dy.fill(T::ZERO);
                continue;
            }
            dy.iter_mut().zip(&*dh).for_each(|(dy, &dh)| *dy += dh);
            dh.fill(T::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that is longer than the lanes, one that ends within them, and a short one.
    #[test]
    fn states_of_any_size_are_those_of_the_definition_and_ended_rows_are_carried() {
        for h in [1, 5, LANES, LANES + 3, 3 * LANES] {
            let rows = Rows { n: 3, h, stride: h + 2, t: 4, lengths: &[5, 4, 9] };
            let value = |i: usize| (i as f64 * 0.37).sin() * 2.0;
            let mut gates: Vec<f64> = (0..12 * h).map(value).collect();
            let before: Vec<f64> = (0..3 * h).map(|i| value(i + 7)).collect();
            let (mut cells, mut out) = (vec![f64::NAN; 3 * h], vec![f64::NAN; 3 * (h + 2)]);
            let a = gates.clone();
            lstm_step(rows, &mut gates, &before, &mut cells, &mut out);
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            for (r, k) in (0..3).flat_map(|r| (0..h).map(move |k| (r, k))) {
                let [i, f, g, o] = [0, 1, 2, 3].map(|part| a[(4 * r + part) * h + k]);
                let c = sigmoid(f) * before[r * h + k] + sigmoid(i) * g.tanh();
                let (c, y) = if r == 1 { (before[r * h + k], 0.0) } else { (c, sigmoid(o) * c.tanh()) };
                assert!((cells[r * h + k] - c).abs() < 1e-14 && (out[r * (h + 2) + k] - y).abs() < 1e-14);
            }
            assert!((0..3).all(|r| out[r * (h + 2) + h].is_nan()));
            let states: Vec<f64> = (0..3 * (h + 2)).map(value).collect();
            carry(rows, &states, &mut out);
            assert!((0..h).all(|k| out[h + 2 + k] == states[h + 2 + k] && out[k] != states[k]));
        }
    }
}
