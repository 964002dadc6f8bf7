//! Update rules that look at one element at a time, and the sums of those that look at a whole tensor.

use super::PIECE;
use crate::{
    Scalar, compiled,
    disjoint::Disjoint,
    kernels::{kernel, reduce::fold},
    par,
};

/// d = s g + λ w, and w ← c w before the step.
#[derive(Clone, Copy, Debug)]
pub struct Direction<T> {
    /// s: −1 to maximise, else 1.
    pub sign: T,
    /// λ: the factor of w in the gradient.
    pub decay: T,
    /// c: 1 − η λ with decoupled decay, else 1.
    pub shrink: T,
}

/// Cuts w, g and the state into the same pieces, and calls `f` for each.
fn pieces<T: Scalar, const S: usize>(
    w: &mut [T],
    g: &[T],
    state: [&mut [T]; S],
    f: impl Fn(&mut [T], &[T], [&mut [T]; S]) + Sync,
) {
    assert!(
        g.len() == w.len() && state.iter().all(|s| s.len() == w.len()),
        "the gradient and the state have the length of the parameter"
    );
    if w.len() <= PIECE {
        return f(w, g, state);
    }
    let (w, state) = (Disjoint::new(w), state.map(Disjoint::new));
    par::for_each(w.count(PIECE), |i| {
        // SAFETY: `for_each` visits every i < count once, and different pieces of one slice do not overlap.
        let (w, state) = unsafe { (w.chunk(i, PIECE), state.each_ref().map(|s| s.chunk(i, PIECE))) };
        f(w, &g[i * PIECE..][..w.len()], state);
    });
}

/// The coefficients of a step.
macro_rules! coefficients {
    ($($(#[$meta:meta])* $step:ident { $($c:ident: $doc:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $step<T> {
            $(#[doc = $doc] pub $c: T,)*
        }
    )*};
}

/// A step of one pass over w, g and the state: the body sees w, d, the state and the coefficients, all of one element but
/// the last. w has shrunk by then, d is taken before.
macro_rules! rules {
    ($($(#[$meta:meta])* $name:ident($($s:ident),+; $step:ident) |$w:ident, $d:ident, $c:ident| $body:block)*) => {$(
        compiled! {
            $(#[$meta])*
            pub fn $name[T](w: &mut [T], g: &[T], $($s: &mut [T],)+ terms: Direction<T>, step: $step<T>) {
                kernel! {
                    fn piece[T: Scalar](w: &mut [T], g: &[T], $($s: &mut [T],)+ terms: Direction<T>, $c: $step<T>) {
                        let g = &g[..w.len()];
                        $(let $s = &mut $s[..w.len()];)+
                        for i in 0..w.len() {
                            let old = w[i];
                            let $d = terms.sign * g[i] + terms.decay * old;
                            let mut new = terms.shrink * old;
                            {
                                let $w = &mut new;
                                $(let $s = &mut $s[i];)+
                                $body
                            }
                            w[i] = new;
                        }
                    }
                }
                pieces(w, g, [$($s),+], |w, g, [$($s),+]| piece(w, g, $($s,)+ terms, step));
            }
        }
    )*};
}

coefficients! {
    /// The coefficients of RMSprop.
    RmspropStep {
        rate: "η",
        alpha: "α",
        one_minus_alpha: "1 − α",
        momentum: "μ",
        eps: "ε",
    }
    /// The coefficients of Adagrad.
    AdagradStep {
        rate: "η/(1 + (t − 1) η_decay)",
        eps: "ε",
    }
    /// The coefficients of Adadelta.
    AdadeltaStep {
        rate: "η",
        rho: "ρ",
        one_minus_rho: "1 − ρ",
        eps: "ε",
    }
    /// The coefficients of Adamax.
    AdamaxStep {
        rate: "η/(1 − β₁ᵗ)",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        eps: "ε",
    }
    /// The coefficients of rules whose step is (a d + b m)/(√(v r) + ε): NAdam and AdaBelief.
    MomentsStep {
        of_d: "a",
        of_m: "b",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
        root: "√r",
        eps: "ε",
        eps_root: "What is added to v at every step, and kept.",
    }
    /// The coefficients of RAdam.
    RadamStep {
        plain: "The factor of m while the variance is not yet known, else 0.",
        adaptive: "The factor of m/(√v + ε), 0 before.",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
        eps: "ε",
    }
    /// The coefficients of Rprop.
    RpropStep {
        minus: "η⁻: the factor of the step size where the gradient has changed its sign.",
        plus: "η⁺: the factor where it has not.",
        least: "The smallest step size.",
        most: "The largest.",
    }
    /// The coefficients of averaged gradient descent.
    AsgdStep {
        eta: "η",
        keep: "1 − λ η",
        mu: "μ: the weight of the newest parameters in the average.",
    }
    /// The coefficients of Lion.
    LionStep {
        rate: "η",
        beta1: "β₁",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
    }
    /// The coefficients of Adan.
    AdanStep {
        rate: "η",
        of_m: "1/(1 − β₁ᵗ)",
        of_v: "(1 − β₂)/(1 − β₂ᵗ)",
        of_n: "1/(1 − β₃ᵗ)",
        one_minus_beta1: "1 − β₁",
        one_minus_beta2: "1 − β₂",
        one_minus_beta3: "1 − β₃",
        beta3: "β₃",
        change: "0 on the first step, which has no gradient before it, else 1.",
        eps: "ε, outside the root.",
        eps_root: "ε inside it.",
    }
    /// The coefficients of Yogi.
    YogiStep {
        rate: "η/(1 − β₁ᵗ)",
        one_minus_beta1: "1 − β₁",
        one_minus_beta2: "1 − β₂",
        root: "1/√(1 − β₂ᵗ)",
        eps: "ε",
    }
    /// The coefficients of AdEMAMix.
    AdemamixStep {
        of_fast: "η/(1 − β₁ᵗ)",
        of_slow: "η α",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
        one_minus_beta3: "1 − β₃",
        of_v: "1/(1 − β₂ᵗ)",
        eps: "ε, outside the root.",
        eps_root: "ε inside it.",
    }
    /// The coefficients of the schedule-free rules.
    ScheduleFreeStep {
        rate: "η: the step of z.",
        beta: "β: the share of x in y.",
        one_minus_beta: "1 − β",
        c: "c: the weight of the newest z in x.",
        one_minus_c: "1 − c",
        decay: "λ",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
        root: "1/√(1 − β₂ᵗ)",
        eps: "ε",
    }
    /// The coefficients of the moments of LAMB, and of its step.
    LambStep {
        rate: "η r",
        of_m: "1/(1 − β₁ᵗ)",
        of_v: "1/(1 − β₂ᵗ)",
        one_minus_beta1: "1 − β₁",
        beta2: "β₂",
        one_minus_beta2: "1 − β₂",
        decay: "λ",
        eps: "ε, outside the root.",
        eps_root: "ε inside it.",
    }
    /// The coefficients of LARS.
    LarsStep {
        rate: "η r",
        momentum: "μ",
        of_d: "1 to look ahead, else 0.",
        of_b: "μ to look ahead, else 1.",
    }
    /// The coefficients of NovoGrad.
    NovogradStep {
        rate: "η",
        beta1: "β₁; 0 on the first step.",
        scale: "1/(√v + ε)",
        decay: "λ",
    }
}

#[inline(always)]
fn larger<T: Scalar>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

/// −1, 0 or 1; 0 for NaN.
#[inline(always)]
fn sign<T: Scalar>(x: T) -> T {
    let up = if x > T::ZERO { T::ONE } else { T::ZERO };
    if x < T::ZERO { -T::ONE } else { up }
}

rules! {
    /// v = α v + (1 − α) d²,  w −= η d/(√v + ε)
    rmsprop(v; RmspropStep) |w, d, c| {
        *v = c.alpha * *v + c.one_minus_alpha * d * d;
        *w -= c.rate * (d / (v.sqrt() + c.eps));
    }
    /// v as in [`rmsprop`],  b = μ b + d/(√v + ε),  w −= η b
    rmsprop_momentum(v, b; RmspropStep) |w, d, c| {
        *v = c.alpha * *v + c.one_minus_alpha * d * d;
        *b = c.momentum * *b + d / (v.sqrt() + c.eps);
        *w -= c.rate * *b;
    }
    /// v as in [`rmsprop`],  a += (1 − α)(d − a),  w −= η d/(√(v − a²) + ε)
    rmsprop_centered(v, a; RmspropStep) |w, d, c| {
        *v = c.alpha * *v + c.one_minus_alpha * d * d;
        *a += c.one_minus_alpha * (d - *a);
        *w -= c.rate * (d / (larger(*v - *a * *a, T::ZERO).sqrt() + c.eps));
    }
    /// [`rmsprop_centered`] with the velocity of [`rmsprop_momentum`].
    rmsprop_centered_momentum(v, b, a; RmspropStep) |w, d, c| {
        *v = c.alpha * *v + c.one_minus_alpha * d * d;
        *a += c.one_minus_alpha * (d - *a);
        *b = c.momentum * *b + d / (larger(*v - *a * *a, T::ZERO).sqrt() + c.eps);
        *w -= c.rate * *b;
    }
    /// s += d²,  w −= η d/(√s + ε)
    adagrad(s; AdagradStep) |w, d, c| {
        *s += d * d;
        *w -= c.rate * (d / (s.sqrt() + c.eps));
    }
    /// v = ρ v + (1 − ρ) d²,  δ = d √(a + ε)/√(v + ε),  a = ρ a + (1 − ρ) δ²,  w −= η δ
    adadelta(v, a; AdadeltaStep) |w, d, c| {
        *v = c.rho * *v + c.one_minus_rho * d * d;
        let delta = (*a + c.eps).sqrt() / (*v + c.eps).sqrt() * d;
        *a = c.rho * *a + c.one_minus_rho * delta * delta;
        *w -= c.rate * delta;
    }
    /// m += (1 − β₁)(d − m),  u = max(β₂ u, |d| + ε),  w −= η m/u
    adamax(m, u; AdamaxStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        *u = larger(c.beta2 * *u, d.abs() + c.eps);
        *w -= c.rate * (*m / *u);
    }
    /// m += (1 − β₁)(d − m),  v = β₂ v + (1 − β₂) d²,  w −= (a d + b m)/(√v̂ + ε)
    nadam(m, v; MomentsStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        *v = c.beta2 * *v + c.one_minus_beta2 * d * d;
        *w -= (c.of_d * d + c.of_m * *m) / (v.sqrt() * c.root + c.eps);
    }
    /// m as in [`nadam`],  s = β₂ s + (1 − β₂)(d − m)² + ε_root,  w −= (a d + b m)/(√ŝ + ε)
    adabelief(m, s; MomentsStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        let surprise = d - *m;
        *s = c.beta2 * *s + c.one_minus_beta2 * surprise * surprise + c.eps_root;
        *w -= (c.of_d * d + c.of_m * *m) / (s.sqrt() * c.root + c.eps);
    }
    /// m, v as in [`nadam`],  w −= (a + b/(√v + ε)) m
    radam(m, v; RadamStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        *v = c.beta2 * *v + c.one_minus_beta2 * d * d;
        *w -= (c.plain + c.adaptive / (v.sqrt() + c.eps)) * *m;
    }
    /// d p > 0: σ = η⁺ σ;  d p < 0: σ = η⁻ σ, d = 0;  w −= σ sign(d),  p = d
    rprop(p, size; RpropStep) |w, d, c| {
        let agrees = d * *p;
        let shorter = if agrees < T::ZERO { c.minus } else { T::ONE };
        let factor = if agrees > T::ZERO { c.plus } else { shorter };
        let bounded = larger(c.least, *size * factor);
        *size = if bounded > c.most { c.most } else { bounded };
        *p = if agrees < T::ZERO { T::ZERO } else { d };
        *w -= *size * sign(*p);
    }
    /// w = (1 − λ η) w − η d,  a += μ (w − a)
    asgd(a; AsgdStep) |w, d, c| {
        *w = c.keep * *w - c.eta * d;
        *a = if c.mu == T::ONE { *w } else { *a + c.mu * (*w - *a) };
    }
    /// w −= η sign(β₁ m + (1 − β₁) d),  m = β₂ m + (1 − β₂) d
    lion(m; LionStep) |w, d, c| {
        *w -= c.rate * sign(c.beta1 * *m + c.one_minus_beta1 * d);
        *m = c.beta2 * *m + c.one_minus_beta2 * d;
    }
    /// δ = d − p,  m += (1 − β₁)(d − m),  v += (1 − β₂)(δ − v),  n = β₃ n + (1 − β₃)(d + (1 − β₂) δ)²,
    /// w −= η (m̂ + (1 − β₂) v̂)/(√(n̂ + ε_root) + ε),  p = d
    adan(m, v, n, p; AdanStep) |w, d, c| {
        let change = c.change * (d - *p);
        *m += c.one_minus_beta1 * (d - *m);
        *v += c.one_minus_beta2 * (change - *v);
        let ahead = d + c.one_minus_beta2 * change;
        *n = c.beta3 * *n + c.one_minus_beta3 * ahead * ahead;
        *w -= c.rate * ((c.of_m * *m + c.of_v * *v) / ((c.of_n * *n + c.eps_root).sqrt() + c.eps));
        *p = d;
    }
    /// m += (1 − β₁)(d − m),  v −= (1 − β₂) sign(v − d²) d²,  w −= η m̂/(√v̂ + ε)
    yogi(m, v; YogiStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        let square = d * d;
        *v -= c.one_minus_beta2 * sign(*v - square) * square;
        *w -= c.rate * (*m / (v.sqrt() * c.root + c.eps));
    }
    /// m += (1 − β₁)(d − m),  s += (1 − β₃)(d − s),  v as in [`nadam`],  w −= η (m̂ + α s)/(√(v̂ + ε_root) + ε)
    ademamix(m, s, v; AdemamixStep) |w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        *s += c.one_minus_beta3 * (d - *s);
        *v = c.beta2 * *v + c.one_minus_beta2 * d * d;
        *w -= (c.of_fast * *m + c.of_slow * *s) / ((c.of_v * *v + c.eps_root).sqrt() + c.eps);
    }
    /// y is w. z −= η (d + λ y),  y = (1 − c)(y − (1 − β) z_old) + β c z + (1 − β) z
    schedule_free_sgd(z; ScheduleFreeStep) |w, d, c| {
        let old = *z;
        *z -= c.rate * (d + c.decay * *w);
        *w = c.one_minus_c * (*w - c.one_minus_beta * old) + (c.beta * c.c + c.one_minus_beta) * *z;
    }
    /// v = β₂ v + (1 − β₂) d²,  z −= η (d/(√v̂ + ε) + λ y),  y as in [`schedule_free_sgd`]
    schedule_free_adamw(z, v; ScheduleFreeStep) |w, d, c| {
        *v = c.beta2 * *v + c.one_minus_beta2 * d * d;
        let old = *z;
        *z -= c.rate * (d / (v.sqrt() * c.root + c.eps) + c.decay * *w);
        *w = c.one_minus_c * (*w - c.one_minus_beta * old) + (c.beta * c.c + c.one_minus_beta) * *z;
    }
    /// m += (1 − β₁)(d − m),  v = β₂ v + (1 − β₂) d²
    lamb_moments(m, v; LambStep) |_w, d, c| {
        *m += c.one_minus_beta1 * (d - *m);
        *v = c.beta2 * *v + c.one_minus_beta2 * d * d;
    }
    /// w −= η r u,  u = m̂/(√(v̂ + ε_root) + ε) + λ w
    lamb(m, v; LambStep) |w, _d, c| {
        let u = c.of_m * *m / ((c.of_v * *v + c.eps_root).sqrt() + c.eps) + c.decay * *w;
        *w -= c.rate * u;
    }
    /// b = μ b + η r d,  w −= b  or, looking ahead,  η r d + μ b
    lars(b; LarsStep) |w, d, c| {
        let step = c.rate * d;
        *b = c.momentum * *b + step;
        *w -= c.of_d * step + c.of_b * *b;
    }
    /// m = β₁ m + d/(√v + ε) + λ w,  w −= η m
    novograd(m; NovogradStep) |w, d, c| {
        *m = c.beta1 * *m + c.scale * d + c.decay * *w;
        *w -= c.rate * *m;
    }
}

/// Σ f(i) in a fixed order, in eight lanes.
#[inline(always)]
pub(super) fn total(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    for block in 0..n / 8 {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(8 * block + l);
        }
    }
    fold(lanes) + (n / 8 * 8..n).map(f).sum::<f64>()
}

kernel! {
    /// Σ w² and Σ u² with u as in [`lamb`].
    pub fn lamb_norms[T](w: &[T], m: &[T], v: &[T], c: LambStep<T>) -> [f64; 2] {
        let (m, v) = (&m[..w.len()], &v[..w.len()]);
        let of_u = total(w.len(), |i| {
            let u = c.of_m * m[i] / ((c.of_v * v[i] + c.eps_root).sqrt() + c.eps) + c.decay * w[i];
            u.to_f64() * u.to_f64()
        });
        [total(w.len(), |i| w[i].to_f64() * w[i].to_f64()), of_u]
    }
}

kernel! {
    /// Σ w² and Σ d².
    pub fn lars_norms[T](w: &[T], g: &[T], terms: Direction<T>) -> [f64; 2] {
        let g = &g[..w.len()];
        let of_d = total(w.len(), |i| {
            let d = (terms.sign * g[i] + terms.decay * w[i]).to_f64();
            d * d
        });
        [total(w.len(), |i| w[i].to_f64() * w[i].to_f64()), of_d]
    }
}

kernel! {
    /// w = c w − η u
    pub fn shrink_and_step[T](w: &mut [T], u: &[T], shrink: T, rate: T) {
        for (w, &u) in w.iter_mut().zip(u) {
            *w = shrink * *w - rate * u;
        }
    }
}

kernel! {
    /// y += a (x − y): a running mean.
    pub fn lerp[T](y: &mut [T], x: &[T], a: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += a * (x - *y);
        }
    }
}

kernel! {
    /// w = a w + b z
    pub fn averaged[T](w: &mut [T], z: &[T], a: T, b: T) {
        for (w, &z) in w.iter_mut().zip(z) {
            *w = a * *w + b * z;
        }
    }
}

kernel! {
    /// Rounds to the nearest value of bfloat16, ties to even.
    pub fn round_to_bfloat16[T](x: &mut [T]) {
        for x in x.iter_mut() {
            let bits = (x.to_f64() as f32).to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
            if (x.to_f64() as f32).is_finite() {
                *x = T::from_f64(f32::from_bits(rounded).into());
            }
        }
    }
}

kernel! {
    /// w += a g, or a w² g where the step is in units of the weights.
    pub fn sam_ascend[T](w: &mut [T], g: &[T], a: T, adaptive: bool) {
        if adaptive {
            for (w, &g) in w.iter_mut().zip(g) {
                *w += a * *w * *w * g;
            }
        } else {
            for (w, &g) in w.iter_mut().zip(g) {
                *w += a * g;
            }
        }
    }
}

kernel! {
    /// Σ (w g)².
    pub fn sam_squares[T](w: &[T], g: &[T]) -> f64 {
        let g = &g[..w.len()];
        total(w.len(), |i| {
            let p = w[i].to_f64() * g[i].to_f64();
            p * p
        })
    }
}

kernel! {
    /// b += c (d − b),  u = d + a (b − d)
    pub fn muon_update[T](u: &mut [T], b: &mut [T], w: &[T], g: &[T], terms: Direction<T>, c: T, a: T) {
        for (((u, b), &w), &g) in u.iter_mut().zip(b).zip(w).zip(g) {
            let d = terms.sign * g + terms.decay * w;
            *b += c * (d - *b);
            *u = d + a * (*b - d);
        }
    }
}

compiled! {
    /// y = xᵀ of a matrix x whose rows have `columns` elements.
    pub fn transpose[T](x: &[T], y: &mut [T], columns: usize) {
        const TILE: usize = 16;
        let rows = x.len().checked_div(columns).unwrap_or(0);
        assert!(y.len() == x.len() && rows * columns == x.len(), "a matrix of whole rows, and its transpose");
        for i0 in (0..rows).step_by(TILE) {
            for j0 in (0..columns).step_by(TILE) {
                for i in i0..rows.min(i0 + TILE) {
                    for j in j0..columns.min(j0 + TILE) {
                        y[j * rows + i] = x[i * columns + j];
                    }
                }
            }
        }
    }
}
