//! Values of a file as values of a model.

use chainrule_core::Scalar;
use safetensors::Dtype;

/// The type that a scalar is saved as.
pub(crate) fn of<T: Scalar>() -> Dtype {
    if T::NAME == "F32" { Dtype::F32 } else { Dtype::F64 }
}

/// Whether a parameter can be read from values of this type.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// Decodes little-endian values of a floating-point type.
pub(crate) fn decode<T: Scalar>(dtype: Dtype, bytes: &[u8]) -> Vec<T> {
    fn each<const N: usize, T: Scalar>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|&b| T::from_f64(f(b))).collect()
    }
    match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f32::from_le_bytes(b).into()),
        Dtype::BF16 => each(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16).into()),
        Dtype::F16 => each(bytes, |b| half(u16::from_le_bytes(b))),
        _ => Vec::new(),
    }
}

/// A count as a scalar, if the scalar holds it exactly.
pub(crate) fn count<T: Scalar>(count: i64) -> Option<T> {
    let value = T::from_f64(count as f64);
    (value.to_index()? == usize::try_from(count).ok()?).then_some(value)
}

/// A value of 1 sign bit, 5 bits of exponent and 10 of fraction (IEEE 754, 2008, binary16).
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    sign * match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction) * 2f64.powi(exponent - 15),
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
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0x8000).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn every_type_is_decoded_in_little_endian_order() {
        assert_eq!(decode::<f32>(Dtype::F64, &0.1f64.to_le_bytes()), [0.1f32]);
        assert_eq!(decode::<f64>(Dtype::F32, &0.5f32.to_le_bytes()), [0.5]);
        assert_eq!(decode::<f64>(Dtype::BF16, &[0x80, 0x3f, 0x40, 0xc0]), [1.0, -3.0]);
        assert_eq!(decode::<f32>(Dtype::F16, &[0x00, 0x3c]), [1.0]);
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
