//! Values of a file as values of a model, and back.

use chainrule_core::Scalar;
use safetensors::Dtype;

/// The type that a scalar is saved as.
pub(crate) fn of<T: Scalar>() -> Dtype {
    if T::NAME == "F32" { Dtype::F32 } else { Dtype::F64 }
}

/// Whether a parameter can be read from values of this type.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    use Dtype::{BF16, F8_E4M3, F8_E5M2, F16, F32, F64};
    matches!(dtype, F64 | F32 | BF16 | F16 | F8_E4M3 | F8_E5M2)
}

/// Whether values of this type are numbers, or true and false.
pub(crate) fn is_number(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    is_float(dtype) || matches!(dtype, BOOL | I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64)
}

/// Decodes little-endian values of a type of numbers. Integers must be exact.
pub(crate) fn decode<T: Scalar>(dtype: Dtype, bytes: &[u8], out: &mut Vec<T>) -> Result<(), String> {
    fn each<const N: usize, T: Scalar>(bytes: &[u8], out: &mut Vec<T>, f: impl Fn([u8; N]) -> f64) {
        out.extend(bytes.as_chunks().0.iter().map(|&b| T::from_f64(f(b))));
    }
    fn whole<const N: usize, T: Scalar>(
        bytes: &[u8],
        out: &mut Vec<T>,
        f: impl Fn([u8; N]) -> i128,
    ) -> Result<(), String> {
        for &b in bytes.as_chunks().0 {
            let n = f(b);
            let value = T::from_f64(n as f64);
            // A float of at most 2⁶⁴ is exact as i128.
            if value.to_f64() as i128 != n {
                return Err(format!("expected whole numbers that {} holds exactly, got {n}", T::NAME));
            }
            out.push(value);
        }
        Ok(())
    }
    match dtype {
        Dtype::F64 => each(bytes, out, f64::from_le_bytes),
        Dtype::F32 => each(bytes, out, |b| f32::from_le_bytes(b).into()),
        Dtype::BF16 => each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16).into()),
        Dtype::F16 => each(bytes, out, |b| F16.widen(u16::from_le_bytes(b))),
        Dtype::F8_E5M2 => each(bytes, out, |[b]| F16.widen(u16::from(b) << 8)),
        Dtype::F8_E4M3 => each(bytes, out, |[b]| eight(b)),
        Dtype::BOOL => each(bytes, out, |[b]| f64::from(b != 0)),
        Dtype::I8 => whole(bytes, out, |b| i8::from_le_bytes(b).into())?,
        Dtype::U8 => whole(bytes, out, |b| u8::from_le_bytes(b).into())?,
        Dtype::I16 => whole(bytes, out, |b| i16::from_le_bytes(b).into())?,
        Dtype::U16 => whole(bytes, out, |b| u16::from_le_bytes(b).into())?,
        Dtype::I32 => whole(bytes, out, |b| i32::from_le_bytes(b).into())?,
        Dtype::U32 => whole(bytes, out, |b| u32::from_le_bytes(b).into())?,
        Dtype::I64 => whole(bytes, out, |b| i64::from_le_bytes(b).into())?,
        Dtype::U64 => whole(bytes, out, |b| u64::from_le_bytes(b).into())?,
        _ => return Err(format!("expected numbers, got values of type {dtype}")),
    }
    Ok(())
}

/// A count as a scalar, if the scalar holds it exactly.
pub(crate) fn count<T: Scalar>(count: i64) -> Option<T> {
    let value = T::from_f64(count as f64);
    (value.to_index()? == usize::try_from(count).ok()?).then_some(value)
}

/// A format of 16 bits: a sign, some bits of exponent, and of fraction the rest (IEEE 754-2019, 3.4).
#[derive(Clone, Copy)]
pub(crate) struct Half {
    fraction: i32,
    /// What is added to exponents.
    bias: i32,
}

pub(crate) const F16: Half = Half { fraction: 10, bias: 15 };
pub(crate) const BF16: Half = Half { fraction: 7, bias: 127 };

impl Half {
    /// The value of some bits: (−1)ˢ 2ᵉ⁻ᵇ (1 + f), below the normal ones (−1)ˢ 2¹⁻ᵇ f.
    pub fn widen(self, bits: u16) -> f64 {
        let sign = u64::from(bits >> 15) << 63;
        let exponent = i32::from(bits & 0x7fff) >> self.fraction;
        let fraction = u64::from(bits) & ((1 << self.fraction) - 1);
        let shifted = fraction << (52 - self.fraction);
        if exponent == 2 * self.bias + 1 {
            return f64::from_bits(sign | 0x7ff << 52 | shifted);
        }
        if exponent == 0 {
            let value = fraction as f64 * power(1 - self.bias - self.fraction);
            return f64::from_bits(sign | value.to_bits());
        }
        f64::from_bits(sign | ((exponent - self.bias + 1023) as u64) << 52 | shifted)
    }

    /// The bits of the nearest value, of two that are as near those of the even one. From halfway beyond the largest value on
    /// it is an infinity.
    pub fn round(self, value: f64) -> u16 {
        let bits = value.to_bits();
        let sign = ((bits >> 63) as u16) << 15;
        let infinity = (2 * self.bias + 1) << self.fraction;
        if value.is_nan() {
            return sign | infinity as u16 | 1 << (self.fraction - 1);
        }
        let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
        let lowest = 1 - self.bias;
        // In units of the last place, of which a normal value has 2ᶠ to 2ᶠ⁺¹.
        let unit = exponent.max(lowest) - self.fraction;
        let units =
            if exponent > self.bias { f64::INFINITY } else { (value.abs() * power(-unit)).round_ties_even() };
        if units.is_infinite() {
            return sign | infinity as u16;
        }
        let above = (exponent.max(lowest) - lowest) << self.fraction;
        sign | (above + units as i32).min(infinity) as u16
    }
}

/// 2ⁿ for the exponent of a normal value.
fn power(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// A value of 1 sign bit, 4 bits of exponent and 3 of fraction, without infinities (Micikevicius et al. 2022, E4M3).
fn eight(bits: u8) -> f64 {
    let sign = if bits >> 7 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 7);
    sign * match i32::from(bits >> 3 & 0xf) {
        15 if bits & 7 == 7 => f64::NAN,
        0 => fraction * power(-9),
        exponent => (8.0 + fraction) * power(exponent - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_follows_the_standard() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333251953125),
            (0x7bff, 65504.0),
            (0x0001, 2f64.powi(-24)),
            (0x0400, 2f64.powi(-14)),
            (0xfc00, f64::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(F16.widen(bits), value, "{bits:#06x}");
        }
        assert!(F16.widen(0x7e00).is_nan());
        assert_eq!(F16.widen(0x8000).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn every_value_of_16_bits_comes_back_and_what_is_between_goes_to_the_nearest() {
        for half in [F16, BF16] {
            for bits in 0..=u16::MAX {
                let value = half.widen(bits);
                if value.is_nan() {
                    assert!(half.widen(half.round(value)).is_nan());
                    continue;
                }
                assert_eq!(half.round(value), bits, "{value}");
                if half.fraction == BF16.fraction {
                    assert_eq!(value, f64::from(f32::from_bits(u32::from(bits) << 16)));
                }
                let above = half.widen(bits + 1);
                if bits & 0x7fff == 0x7fff || !value.is_finite() {
                    continue;
                }
                // The largest value and what would be the next one.
                let above = if above.is_infinite() { 2.0 * value - half.widen(bits - 1) } else { above };
                let middle = (value + above) / 2.0;
                assert_eq!(half.round(middle), bits + (bits & 1), "{middle}");
                assert_eq!(half.round(middle.next_up()), bits + u16::from(value >= 0.0 && bits < 0x8000));
                assert_eq!(half.round(middle.next_down()), bits + u16::from(bits >= 0x8000));
            }
            assert_eq!(half.widen(half.round(f64::MAX)), f64::INFINITY);
            assert_eq!(half.round(f64::from_bits(1)), 0);
            assert_eq!(half.round(-f64::MIN_POSITIVE), 0x8000);
        }
    }

    #[test]
    fn values_of_8_bits_follow_their_paper() {
        let cases = [(0x7e, 448.0), (0x08, 2f64.powi(-6)), (0x01, 2f64.powi(-9)), (0xb8, -1.0)];
        for (bits, value) in cases {
            assert_eq!(eight(bits), value);
        }
        assert!(eight(0xff).is_nan());
        let mut out = Vec::<f32>::new();
        decode(Dtype::F8_E5M2, &[0x7b, 0x01, 0xfc], &mut out).unwrap();
        assert_eq!(out, [57344.0, 2f32.powi(-16), f32::NEG_INFINITY]);
    }

    fn decoded<T: Scalar>(dtype: Dtype, bytes: &[u8]) -> Result<Vec<T>, String> {
        let mut out = Vec::new();
        decode(dtype, bytes, &mut out).map(|()| out)
    }

    #[test]
    fn every_type_is_decoded_in_little_endian_order() {
        assert_eq!(decoded::<f32>(Dtype::F64, &0.1f64.to_le_bytes()).unwrap(), [0.1f32]);
        assert_eq!(decoded::<f64>(Dtype::F32, &0.5f32.to_le_bytes()).unwrap(), [0.5]);
        assert_eq!(decoded::<f64>(Dtype::BF16, &[0x80, 0x3f, 0x40, 0xc0]).unwrap(), [1.0, -3.0]);
        assert_eq!(decoded::<f32>(Dtype::F16, &[0x00, 0x3c]).unwrap(), [1.0]);
        assert_eq!(decoded::<f32>(Dtype::I16, &[0xfe, 0xff]).unwrap(), [-2.0]);
        assert_eq!(decoded::<f32>(Dtype::BOOL, &[0, 1]).unwrap(), [0.0, 1.0]);
        assert!(decoded::<f32>(Dtype::I32, &16_777_217i32.to_le_bytes()).is_err());
        assert!(decoded::<f64>(Dtype::U64, &u64::MAX.to_le_bytes()).is_err());
        assert!(decoded::<f32>(Dtype::C64, &[0; 8]).is_err());
    }

    #[test]
    fn a_count_is_exact_or_refused() {
        assert_eq!(count::<f32>(1 << 24), Some(16_777_216.0));
        assert_eq!(count::<f32>((1 << 24) + 1), None);
        assert_eq!(count::<f32>(1 << 40), Some(2f32.powi(40)));
        assert_eq!(count::<f64>((1 << 24) + 1), Some(16_777_217.0));
        assert_eq!(count::<f64>((1 << 53) + 1), None);
        assert_eq!(count::<f64>(-1), None);
        assert_eq!(count::<f64>(i64::MAX), None);
    }
}
