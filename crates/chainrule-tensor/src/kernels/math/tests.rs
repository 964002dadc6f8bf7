use super::*;
use crate::kernels::{Isa, isa};

/// The distance of two values in units in the last place of the reference, which is given in higher precision as a sum.
fn ulps32(got: f32, want: f64) -> f64 {
    let w = want as f32;
    if got == w || (got.is_nan() && w.is_nan()) {
        return 0.0;
    }
    let unit = f64::from(f32::from_bits(w.abs().to_bits() + 1)) - f64::from(w.abs());
    ((f64::from(got) - want) / unit).abs()
}

fn ulps64(got: f64, want: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let unit = f64::from_bits(want.abs().to_bits() + 1) - want.abs();
    ((got - want) / unit).abs()
}

/// The largest error over a sweep of all bit patterns of f32.
fn worst32(f: fn(f32) -> f32, reference: impl Fn(f64) -> f64) -> (f64, f32) {
    let (mut worst, mut at) = (0.0, 0.0);
    for bits in (0..u32::MAX).step_by(1009) {
        let x = f32::from_bits(bits);
        let error = ulps32(f(x), reference(f64::from(x)));
        if error > worst || error.is_nan() {
            (worst, at) = (error, x);
        }
    }
    (worst, at)
}

/// The largest error over a sweep of bit patterns of f64. The reference is libm, itself within one ulp.
fn worst64(f: fn(f64) -> f64, reference: fn(f64) -> f64) -> (f64, f64) {
    let (mut worst, mut at) = (0.0, 0.0);
    let step = u64::MAX / 1_000_003;
    for i in 0..1_000_003u64 {
        // Half of the patterns at random over all exponents, half where the functions bend.
        let x = if i % 2 == 0 {
            f64::from_bits(i * step)
        } else {
            (i as f64 / 1_000_003.0 - 0.5) * if i % 4 == 1 { 60.0 } else { 1500.0 }
        };
        let error = ulps64(f(x), reference(x));
        if error > worst || error.is_nan() {
            (worst, at) = (error, x);
        }
    }
    (worst, at)
}

/// The domain of exp_neg: negative values down to −40, and all others.
fn down<T: Scalar>(x: T) -> T {
    if x < T::from_f64(-40.0) { -x } else { x }
}

fn sigmoid_reference(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

#[test]
fn f32_errors_stay_within_the_stated_ulps() {
    f32_errors::<false>();
    f32_errors::<true>();
}

fn f32_errors<const FMA: bool>() {
    for (name, f, reference, bound) in [
        ("exp", f32::v_exp::<FMA> as fn(f32) -> f32, f64::exp as fn(f64) -> f64, 2.0),
        ("exp_m1", f32::v_exp_m1::<FMA>, f64::exp_m1, 3.0),
        ("ln", f32::v_ln::<FMA>, f64::ln, 3.0),
        ("ln_1p", f32::v_ln_1p::<FMA>, f64::ln_1p, 3.0),
        ("tanh", f32::v_tanh::<FMA>, f64::tanh, 4.0),
        ("sigmoid", f32::v_sigmoid::<FMA>, sigmoid_reference, 4.0),
        ("erf", f32::v_erf::<FMA>, f64::v_erf::<false>, 2.0),
    ] {
        let (worst, at) = worst32(f, reference);
        assert!(worst <= bound, "{name}: {worst} ulp at {at:e}");
    }
}

#[test]
fn f64_errors_stay_within_the_stated_ulps() {
    f64_errors::<false>();
    f64_errors::<true>();
}

fn f64_errors<const FMA: bool>() {
    for (name, f, reference, bound) in [
        ("exp", f64::v_exp::<FMA> as fn(f64) -> f64, f64::exp as fn(f64) -> f64, 2.0),
        ("exp_neg", |x| down(x).v_exp_neg::<FMA>(), |x| (-down(x)).exp(), 2.0),
        ("exp_m1", f64::v_exp_m1::<FMA>, f64::exp_m1, 3.0),
        ("exp_m1_neg", |x| down(x).v_exp_m1_neg::<FMA>(), |x| (-down(x)).exp_m1(), 3.0),
        ("ln", f64::v_ln::<FMA>, f64::ln, 3.0),
        ("ln_1p", f64::v_ln_1p::<FMA>, f64::ln_1p, 3.0),
        ("tanh", f64::v_tanh::<FMA>, f64::tanh, 4.0),
        ("sigmoid", f64::v_sigmoid::<FMA>, sigmoid_reference, 4.0),
    ] {
        let (worst, at) = worst64(f, reference);
        assert!(worst <= bound, "{name}: {worst} ulp at {at:e}");
    }
}

/// exp(−a²), with the square of the leading half taken exactly.
fn gauss(a: f64) -> f64 {
    let z = f64::from(a as f32);
    (-z * z).exp() * (-(a - z) * (a + z)).exp()
}

/// erf by its series 2/√π exp(−x²) Σ 2ᵏ x²ᵏ⁺¹/(2k+1)!!, whose terms are all positive, below 2, and by the continued fraction
/// of erfc beyond.
fn erf_reference(x: f64) -> f64 {
    let a = x.abs();
    let v = if a < 2.0 {
        let mut terms = vec![a];
        for k in 1..120 {
            terms.push(terms[k - 1] * (2.0 * a * a / (2 * k + 1) as f64));
        }
        2.0 / std::f64::consts::PI.sqrt() * gauss(a) * terms.iter().rev().sum::<f64>() // smallest first
    } else {
        let fraction = (1..200).rev().fold(0.0, |fraction, k| f64::from(k) * 0.5 / (a + fraction));
        1.0 - gauss(a) / (std::f64::consts::PI.sqrt() * (a + fraction))
    };
    v.copysign(x)
}

#[test]
fn erf_agrees_with_its_series_and_its_continued_fraction() {
    for i in -70_000..70_000 {
        let x = f64::from(i) * 1e-4;
        // Most of this is the reference's own error: its terms are rounded a hundred times.
        for erf in [x.v_erf::<false>(), x.v_erf::<true>()] {
            let error = ulps64(erf, erf_reference(x));
            assert!(error <= 6.0, "erf({x}): {erf} for {}: {error} ulp", erf_reference(x));
        }
    }
    // Abramowitz and Stegun, table 7.1, and values to all digits.
    assert!((0.5f64.v_erf::<false>() - 0.520_499_877_813_046_5).abs() < 2e-16);
    assert!((1.0f64.v_erf::<false>() - 0.842_700_792_949_714_9).abs() < 2e-16);
    assert!((2.0f64.v_erf::<false>() - 0.995_322_265_018_952_7).abs() < 2e-16);
}

macro_rules! specials {
    ($name:ident, $t:ident) => {
        #[test]
        fn $name() {
            fn both<const FMA: bool>() {
                let (inf, nan) = ($t::INFINITY, $t::NAN);
                assert_eq!(
                    [inf.v_exp::<FMA>(), (-inf).v_exp::<FMA>(), ($t::from(0.0f32)).v_exp::<FMA>()],
                    [inf, 0.0, 1.0]
                );
                assert_eq!([inf.v_exp_neg::<FMA>(), ($t::from(0.0f32)).v_exp_neg::<FMA>()], [0.0, 1.0]);
                assert_eq!([inf.v_exp_m1::<FMA>(), (-inf).v_exp_m1::<FMA>()], [inf, -1.0]);
                assert_eq!(
                    [inf.v_exp_m1_neg::<FMA>(), ($t::from(0.0f32)).v_exp_m1_neg::<FMA>()],
                    [-1.0, 0.0]
                );
                assert_eq!(
                    [inf.v_ln::<FMA>(), ($t::from(0.0f32)).v_ln::<FMA>(), ($t::from(1.0f32)).v_ln::<FMA>()],
                    [inf, -inf, 0.0]
                );
                assert_eq!([inf.v_ln_1p::<FMA>(), ($t::from(-1.0f32)).v_ln_1p::<FMA>()], [inf, -inf]);
                assert_eq!([inf.v_tanh::<FMA>(), (-inf).v_tanh::<FMA>()], [1.0, -1.0]);
                assert_eq!([inf.v_sigmoid::<FMA>(), (-inf).v_sigmoid::<FMA>()], [1.0, 0.0]);
                assert_eq!([inf.v_erf::<FMA>(), (-inf).v_erf::<FMA>()], [1.0, -1.0]);
                let negative = $t::from(-1.5f32);
                for v in [
                    nan.v_exp::<FMA>(),
                    nan.v_exp_neg::<FMA>(),
                    nan.v_exp_m1::<FMA>(),
                    nan.v_exp_m1_neg::<FMA>(),
                    nan.v_ln::<FMA>(),
                    nan.v_ln_1p::<FMA>(),
                    nan.v_tanh::<FMA>(),
                    nan.v_sigmoid::<FMA>(),
                    nan.v_erf::<FMA>(),
                ] {
                    assert!(v.is_nan());
                }
                assert!(negative.v_ln::<FMA>().is_nan() && negative.v_ln_1p::<FMA>().is_nan());
                let tiny = $t::from_bits(3);
                assert_eq!(
                    [
                        tiny.v_exp_m1::<FMA>(),
                        -tiny.v_exp_m1_neg::<FMA>(),
                        tiny.v_ln_1p::<FMA>(),
                        tiny.v_tanh::<FMA>()
                    ],
                    [tiny; 4]
                );
                assert!((-($t::from(0.0f32))).v_tanh::<FMA>().is_sign_negative());
            }
            both::<false>();
            both::<true>();
        }
    };
}
specials!(nan_infinities_and_denormals_in_f32, f32);
specials!(nan_infinities_and_denormals_in_f64, f64);

#[test]
fn a_slice_gives_the_bits_of_its_elements() {
    let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.037).collect();
    let mut y = vec![0.0; x.len()];
    let fused = isa() != Isa::Portable;
    for (slice, one) in [
        (exp as fn(&[f32], &mut [f32]), [f32::v_exp::<false> as fn(f32) -> f32, f32::v_exp::<true>]),
        (tanh, [f32::v_tanh::<false>, f32::v_tanh::<true>]),
        (sigmoid, [f32::v_sigmoid::<false>, f32::v_sigmoid::<true>]),
        (erf, [f32::v_erf::<false>, f32::v_erf::<true>]),
    ] {
        for start in [0, 1, 7] {
            slice(&x[start..], &mut y[start..]);
            assert!(
                x[start..]
                    .iter()
                    .zip(&y[start..])
                    .all(|(&x, y)| one[usize::from(fused)](x).to_bits() == y.to_bits())
            );
        }
    }
}
