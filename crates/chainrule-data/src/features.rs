//! The inputs of a data set, in the type that they came in.

use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};
use std::sync::OnceLock;

/// One input of all samples, (N, …): values, or bytes that become values when a batch is filled.
#[derive(Clone, Debug, PartialEq)]
pub enum Features<T = f32> {
    /// Values.
    Values(Tensor<T>),
    /// Bytes.
    Bytes(Bytes<T>),
}

/// A tensor of bytes, each of which stands for a value: an eighth of the memory of f64, a quarter of f32.
///
/// ```
/// use chainrule_data::{Bytes, Dataset};
/// let pixels = Bytes::new([2, 1, 2], vec![0, 255, 51, 0], |v| f32::from(v) / 255.0)?;
/// let data = Dataset::classification(pixels, [0, 1], 2)?;
/// assert_eq!(data.x().data(), [0.0, 1.0, 0.2, 0.0]);
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bytes<T = f32> {
    data: Vec<u8>,
    shape: Shape,
    /// The value of each byte.
    table: Box<[T; 256]>,
    /// All values, once they were read as a tensor.
    tensor: OnceLock<Tensor<T>>,
}

impl<T: Scalar> Bytes<T> {
    /// Bytes of a shape, and the value that each of them stands for.
    ///
    /// # Errors
    /// Another number of bytes than the shape has elements.
    pub fn new(shape: impl Into<Shape>, data: Vec<u8>, value: impl Fn(u8) -> T) -> Result<Self> {
        let shape = shape.into();
        if data.len() != shape.volume() {
            return Err(Error::shape(format!(
                "expected {} bytes for {shape}, got {}",
                shape.volume(),
                data.len()
            )));
        }
        let table = Box::new(std::array::from_fn(|byte| value(byte as u8)));
        Ok(Self { data, shape, table, tensor: OnceLock::new() })
    }

    /// The bytes, row-major.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// All values; computed at the first call, and kept.
    pub fn tensor(&self) -> &Tensor<T> {
        self.tensor.get_or_init(|| {
            let mut tensor = Tensor::default();
            self.decode(0..self.data.len(), tensor.reset(self.shape));
            tensor
        })
    }

    pub(crate) fn check_finite(&self, what: &str) -> Result<()> {
        match self.data.iter().find(|&&byte| !self.table[usize::from(byte)].is_finite()) {
            None => Ok(()),
            Some(&byte) => Err(Error::value(format!(
                "{what}: expected bytes that stand for finite values, got {} for {byte}",
                self.table[usize::from(byte)]
            ))),
        }
    }

    fn decode(&self, range: std::ops::Range<usize>, out: &mut [T]) {
        out.iter_mut()
            .zip(&self.data[range])
            .for_each(|(value, &byte)| *value = self.table[usize::from(byte)]);
    }
}

impl<T: PartialEq> PartialEq for Bytes<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.data, self.shape, &self.table) == (&other.data, other.shape, &other.table)
    }
}

impl<T> From<Tensor<T>> for Features<T> {
    fn from(values: Tensor<T>) -> Self {
        Self::Values(values)
    }
}

impl<T> From<Bytes<T>> for Features<T> {
    fn from(bytes: Bytes<T>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T: Scalar> Features<T> {
    /// (N, …).
    pub fn shape(&self) -> &Shape {
        match self {
            Self::Values(values) => values.shape(),
            Self::Bytes(bytes) => &bytes.shape,
        }
    }

    /// All values as one tensor. Bytes are converted at the first call, and both are kept.
    pub fn tensor(&self) -> &Tensor<T> {
        match self {
            Self::Values(values) => values,
            Self::Bytes(bytes) => bytes.tensor(),
        }
    }

    /// All values, the bytes given up.
    pub fn into_tensor(self) -> Tensor<T> {
        match self {
            Self::Values(values) => values,
            Self::Bytes(bytes) => {
                bytes.tensor();
                bytes.tensor.into_inner().expect("just computed")
            }
        }
    }

    /// The bytes of memory that the elements take.
    pub fn memory(&self) -> usize {
        match self {
            Self::Values(values) => size_of_val(values.data()),
            Self::Bytes(bytes) => bytes.data.len() + bytes.tensor.get().map_or(0, |t| size_of_val(t.data())),
        }
    }

    /// The number of elements of one sample.
    fn width(&self) -> usize {
        self.shape()[1..].iter().product()
    }

    /// Overwrites `out` with the values of one sample.
    ///
    /// # Panics
    /// If there is no such sample, or `out` has another length.
    pub fn copy_sample(&self, sample: usize, out: &mut [T]) {
        let width = self.width();
        assert_eq!(out.len(), width, "expected room for the values of one sample");
        let range = sample * width..(sample + 1) * width;
        match self {
            Self::Values(values) => out.copy_from_slice(&values.data()[range]),
            Self::Bytes(bytes) => bytes.decode(range, out),
        }
    }

    /// out = the samples of these positions, which are in range
    pub(crate) fn gather(&self, positions: &[usize], out: &mut Tensor<T>) {
        let width = self.width();
        let out = out.reset(self.shape().with(0, positions.len()));
        if width > 0 {
            out.chunks_exact_mut(width).zip(positions).for_each(|(to, &p)| self.copy_sample(p, to));
        }
    }

    /// The samples of these positions, of the same type.
    pub(crate) fn select(&self, positions: &[usize]) -> Self {
        let width = self.width();
        match self {
            Self::Values(_) => {
                let mut out = Tensor::default();
                self.gather(positions, &mut out);
                Self::Values(out)
            }
            Self::Bytes(bytes) => Self::Bytes(Bytes {
                data: positions.iter().flat_map(|&p| &bytes.data[p * width..][..width]).copied().collect(),
                shape: bytes.shape.with(0, positions.len()),
                table: bytes.table.clone(),
                tensor: OnceLock::new(),
            }),
        }
    }

    pub(crate) fn reshape(&mut self, shape: Shape) -> Result<()> {
        match self {
            Self::Values(values) => values.reshape(shape),
            Self::Bytes(bytes) => {
                if shape.volume() != bytes.data.len() {
                    let n = bytes.data.len();
                    return Err(Error::shape(format!("expected a shape of {n} elements, got {shape}")));
                }
                (bytes.shape, bytes.tensor) = (shape, OnceLock::new());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_bytes_until_they_are_read() {
        let bytes = Bytes::new([3, 2], vec![0, 1, 2, 3, 4, 255], |v| f64::from(v) / 2.0).unwrap();
        let mut features = Features::from(bytes);
        assert_eq!(features.memory(), 6);
        let mut batch = Tensor::default();
        features.gather(&[2, 0], &mut batch);
        assert_eq!(batch, Tensor::from([[2.0, 127.5], [0.0, 0.5]]));
        assert_eq!((features.select(&[2, 0]).memory(), features.memory()), (4, 6));
        assert_eq!(features.select(&[2, 0]).into_tensor(), batch);
        let before = features.clone();
        assert_eq!(features.tensor().data(), [0.0, 0.5, 1.0, 1.5, 2.0, 127.5]);
        assert_eq!((features.memory(), &features), (6 + 48, &before));
        features.reshape(Shape::from([3, 2, 1])).unwrap();
        assert_eq!((features.memory(), &features.tensor().shape()[..]), (6, &[3, 2, 1][..]));
        assert!(features.reshape(Shape::from([7])).is_err());
        assert!(Bytes::new([2], vec![1], f32::from).is_err());
    }
}
