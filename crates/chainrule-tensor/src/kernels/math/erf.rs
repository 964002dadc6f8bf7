//! The error function, by the rational approximations of W. J. Cody's kind that Sun's fdlibm tabulates (1993):
//!
//! ```text
//! |x| < 0.84375         erf x = x + x R(x²)
//! |x| < 1.25            erf x = c + P(|x| − 1)/Q(|x| − 1)
//! beyond                erf x = 1 − exp(−x² − 0.5625 + R(1/x²)/S(1/x²))/x
//! ```
//!
//! All ranges are computed and one is chosen, so that the loop vectorises. f32 has two ranges: a polynomial in x², and 1 − exp of a
//! polynomial, with the coefficients of N. Juffa (2012).

use super::{Elementary, Sum, poly};

/// erf in f32.
#[inline(always)]
pub fn f32<const FMA: bool>(x: f32) -> f32 {
    let sum = f32::sum::<FMA>;
    let (a, z) = (x.abs(), x * x);
    let near = poly!(sum, z;
        1.283_791_7e-1, -3.761_253_4e-1, 1.128_199_25e-1, -2.676_813_5e-2, 4.991_194_2e-3, -5.967_617e-4);
    let exponent = poly!(sum, a;
        -1.287_175_1e-1, -6.348_466_9e-1, -1.067_778_8e-1, 2.425_462_2e-2, -3.883_964_4e-3, 3.831_971_3e-4,
        -1.728_534_7e-5);
    // The polynomial was fitted up to 4, where erf is 1 in f32.
    let far = 1.0 - sum(-a, exponent, a).v_exp_neg::<FMA>();
    let far = if a > 4.0 { 1.0 } else { far };
    let v = if a > 0.927_734_4 { far } else { a + a * near };
    if x.is_nan() { x } else { v.copysign(x) }
}

/// erf in f64.
#[inline(always)]
pub fn f64<const FMA: bool>(x: f64) -> f64 {
    let a = x.abs();
    let (near, middle, tail) = (near::<FMA>(a), middle::<FMA>(a), 1.0 - tail::<FMA>(a));
    let v = if a < 0.84375 { near } else { middle };
    let v = if a < 1.25 { v } else { tail };
    let v = if a < 6.0 { v } else { 1.0 };
    if x.is_nan() { x } else { v.copysign(x) }
}

#[inline(always)]
fn near<const FMA: bool>(a: f64) -> f64 {
    let sum = f64::sum::<FMA>;
    let z = a * a;
    let p = poly!(sum, z;
        1.283_791_670_955_125_6e-1, -3.250_421_072_470_015e-1, -2.848_174_957_559_851e-2,
        -5.770_270_296_489_442e-3, -2.376_301_665_665_016_3e-5);
    let q = poly!(sum, z;
        1.0, 3.979_172_239_591_553_5e-1, 6.502_224_998_876_729e-2, 5.081_306_281_875_766e-3,
        1.324_947_380_043_216_4e-4, -3.960_228_278_775_368e-6);
    a + a * (p / q)
}

#[inline(always)]
fn middle<const FMA: bool>(a: f64) -> f64 {
    let sum = f64::sum::<FMA>;
    let s = a - 1.0;
    let p = poly!(sum, s;
        -2.362_118_560_752_659_4e-3, 4.148_561_186_837_483_3e-1, -3.722_078_760_357_013e-1,
        3.183_466_199_011_617_4e-1, -1.108_946_942_823_966_8e-1, 3.547_830_432_561_823_6e-2,
        -2.166_375_594_868_790_8e-3);
    let q = poly!(sum, s;
        1.0, 1.064_208_804_008_442_3e-1, 5.403_979_177_021_71e-1, 7.182_865_441_419_627e-2,
        1.261_712_198_087_616_4e-1, 1.363_708_391_202_905_1e-2, 1.198_449_984_679_910_7e-2);
    8.450_629_115_104_675e-1 + p / q
}

/// 1 − erf a.
#[inline(always)]
fn tail<const FMA: bool>(a: f64) -> f64 {
    let sum = f64::sum::<FMA>;
    // Below 1.25 the result is not used; the bound keeps the arithmetic finite.
    let a = if a < 1.25 { 1.25 } else { a };
    let a = if a > 28.0 { 28.0 } else { a };
    let s = 1.0 / (a * a);
    let r1 = poly!(sum, s;
        -9.864_944_034_847_148e-3, -6.938_585_727_071_818e-1, -1.055_862_622_532_329_1e1,
        -6.237_533_245_032_601e1, -1.623_966_694_625_734_7e2, -1.846_050_929_067_11e2,
        -8.128_743_550_630_66e1, -9.814_329_344_169_145);
    let s1 = poly!(sum, s;
        1.0, 1.965_127_166_743_925_7e1, 1.376_577_541_435_190_4e2, 4.345_658_774_752_292_3e2,
        6.453_872_717_332_679e2, 4.290_081_400_275_678e2, 1.086_350_055_417_794_4e2,
        6.570_249_770_319_282, -6.042_441_521_485_81e-2);
    let r2 = poly!(sum, s;
        -9.864_942_924_700_1e-3, -7.992_832_376_805_23e-1, -1.775_795_491_775_475_2e1,
        -1.606_363_848_558_219_2e2, -6.375_664_433_683_896e2, -1.025_095_131_611_077_2e3,
        -4.835_191_916_086_514e2);
    let s2 = poly!(sum, s;
        1.0, 3.033_806_074_348_245_8e1, 3.257_925_129_965_739e2, 1.536_729_586_084_437e3,
        3.199_858_219_508_595_5e3, 2.553_050_406_433_164_4e3, 4.745_285_412_069_554e2,
        -2.244_095_244_658_582e1);
    let ratio = if a < 1.0 / 0.35 { r1 / s1 } else { r2 / s2 };
    // exp(−a²) = exp(−z²) exp((z − a)(z + a)) with z the leading half of a, whose square is exact.
    let z = f64::from_bits(a.to_bits() & 0xffff_ffff_0000_0000);
    (-z * z - 0.5625).v_exp::<FMA>() * ((z - a) * (z + a) + ratio).v_exp::<FMA>() / a
}
