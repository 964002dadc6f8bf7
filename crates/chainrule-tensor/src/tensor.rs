//! The tensor: a contiguous, row-major array that keeps its memory.

use crate::{Error, Result, Scalar, Shape, shape::shape};
use ndarray::{Array, ArrayBase, ArrayViewD, ArrayViewMutD, Data, Dimension, IxDyn};
use std::ops::{Index, IndexMut, Range};

/// A contiguous, row-major array of `f32` (by default) or `f64`.
///
/// A shape is given as an array, a slice or a vector of lengths, or as a [`Shape`]. [`Tensor::reset`] gives another one and
/// keeps the memory, so a buffer that has once been large enough never allocates again.
///
/// ```
/// use chainrule_tensor::Tensor;
/// let mut t: Tensor = Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!(t.shape()[..], [2, 3]);
/// t[[1, 0]] += 10.0;
/// assert_eq!((t.row(1), t.sum(), t.max()), (&[14.0, 5.0, 6.0][..], 31.0, 14.0));
///
/// let read = vec![3, 2]; // lengths that are known at run time alone
/// assert_eq!(Tensor::from_vec(&read, t.data().to_vec())?[[1, 1]], 14.0);
/// # Ok::<(), chainrule_tensor::Error>(())
/// ```
#[derive(Default)]
pub struct Tensor<T = f32> {
    /// The elements from `start` on, and behind them the rest of a larger tensor before: a buffer that alternates between small
    /// and large is not filled again each time.
    memory: Vec<T>,
    /// Where the first cache line begins, unless the vector was the caller's: a vector register that lies across two lines takes
    /// twice as long to load or store.
    start: usize,
    len: usize,
    shape: Shape,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements that memory is longer than its tensor for the first of them to begin a cache line.
const fn spare<T>() -> usize {
    (LINE / size_of::<T>()).saturating_sub(1)
}

/// The first element that begins a cache line.
#[inline]
fn first_line<T>(memory: &[T]) -> usize {
    memory.as_ptr().align_offset(LINE).min(spare::<T>())
}

impl<T> Tensor<T> {
    /// A tensor over a vector as it is.
    fn new(data: Vec<T>, shape: Shape) -> Self {
        Self { start: 0, len: data.len(), memory: data, shape }
    }

    /// A tensor in memory of its own.
    fn copied(data: &[T], shape: Shape) -> Self
    where
        T: Clone,
    {
        let mut memory = Vec::with_capacity(data.len() + spare::<T>());
        if let Some(any) = data.first() {
            memory.resize(first_line(&memory), any.clone());
        }
        let start = memory.len();
        memory.extend_from_slice(data);
        Self { memory, start, len: data.len(), shape }
    }

    /// All elements, row-major.
    #[inline]
    pub fn data(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }

    /// All elements, row-major, mutably.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }
}

impl<T: Clone> Clone for Tensor<T> {
    fn clone(&self) -> Self {
        Self::copied(self.data(), self.shape)
    }
}

impl<T: PartialEq> PartialEq for Tensor<T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.data() == other.data()
    }
}

impl<T: Scalar> Tensor<T> {
    /// A tensor of zeros.
    ///
    /// # Panics
    /// No tensor can have the shape ([`Shape::new`]).
    pub fn zeros(shape: impl TryInto<Shape, Error: Into<Error>>) -> Self {
        Self::full(shape, T::ZERO)
    }

    /// A tensor with every element `value`.
    ///
    /// # Panics
    /// As [`Tensor::zeros`].
    pub fn full(axes: impl TryInto<Shape, Error: Into<Error>>, value: T) -> Self {
        let shape = shape(axes).unwrap_or_else(|error| panic!("{error}"));
        let memory = vec![value; shape.volume() + spare::<T>()];
        Self { start: first_line(&memory), memory, len: shape.volume(), shape }
    }

    /// A tensor whose element at flat position `i` is `f(i)`.
    ///
    /// # Panics
    /// As [`Tensor::zeros`].
    pub fn from_fn(shape: impl TryInto<Shape, Error: Into<Error>>, mut f: impl FnMut(usize) -> T) -> Self {
        let mut tensor = Self::zeros(shape);
        tensor.data_mut().iter_mut().enumerate().for_each(|(i, v)| *v = f(i));
        tensor
    }

    /// A tensor (N, D) of N rows of D elements, such as the samples of a `Vec<Vec<f32>>`.
    ///
    /// # Errors
    /// The rows differ in their lengths.
    ///
    /// ```
    /// use chainrule_tensor::Tensor;
    /// let samples = vec![vec![1.0, 2.0], vec![3.0, 4.0], vec![5.0, 6.0]];
    /// assert_eq!(Tensor::<f32>::from_rows(&samples)?.shape()[..], [3, 2]);
    /// # Ok::<(), chainrule_tensor::Error>(())
    /// ```
    pub fn from_rows(rows: impl IntoIterator<Item: AsRef<[T]>>) -> Result<Self> {
        let (mut data, mut n, mut width) = (Vec::new(), 0, None);
        for row in rows {
            let row = row.as_ref();
            let width = *width.get_or_insert(row.len());
            if row.len() != width {
                return Err(Error::shape(format!(
                    "expected rows of {width} elements, got {} in row {n}",
                    row.len()
                )));
            }
            data.extend_from_slice(row);
            n += 1;
        }
        Self::from_vec([n, width.unwrap_or(0)], data)
    }

    /// A tensor of the given shape over `data`, row-major.
    ///
    /// # Errors
    /// The shape's volume is not the number of elements, or no tensor can have it.
    pub fn from_vec(axes: impl TryInto<Shape, Error: Into<Error>>, data: Vec<T>) -> Result<Self> {
        let shape = shape(axes)?;
        if shape.volume() != data.len() {
            return Err(Error::shape(format!(
                "expected {} elements for shape {shape}, got {}",
                shape.volume(),
                data.len()
            )));
        }
        Ok(Self::new(data, shape))
    }

    /// The shape.
    #[inline]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, without their shape.
    pub fn into_vec(mut self) -> Vec<T> {
        self.memory.truncate(self.start + self.len);
        self.memory.drain(..self.start);
        self.memory
    }

    /// Takes another shape and keeps the memory. The elements are unspecified afterwards: the caller overwrites them.
    #[inline]
    pub fn reset(&mut self, shape: impl Into<Shape>) -> &mut [T] {
        let shape = shape.into();
        let volume = shape.volume();
        if volume > self.memory.len() - self.start {
            self.memory.resize(volume + spare::<T>(), T::ZERO);
            self.start = first_line(&self.memory);
        }
        (self.len, self.shape) = (volume, shape);
        self.data_mut()
    }

    /// Takes another shape of the same volume.
    ///
    /// # Errors
    /// The volumes differ.
    pub fn reshape(&mut self, axes: impl TryInto<Shape, Error: Into<Error>>) -> Result<()> {
        let shape = shape(axes)?;
        if shape.volume() != self.len {
            return Err(Error::shape(format!("expected a shape of {} elements, got {shape}", self.len)));
        }
        self.shape = shape;
        Ok(())
    }

    /// Becomes a copy of `other` and keeps its own memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.reset(other.shape).copy_from_slice(other.data());
    }

    /// Sets every element.
    pub fn fill(&mut self, value: T) {
        self.data_mut().fill(value);
    }

    /// The elements along the first axis from `start` to `end`, as a tensor of its own.
    ///
    /// # Panics
    /// If the tensor is a scalar or the range is out of bounds.
    pub fn rows(&self, start: usize, end: usize) -> Self {
        let width = self.shape[1..].iter().product::<usize>();
        Self::copied(&self.data()[start * width..end * width], self.shape.with(0, end - start))
    }

    /// The elements at index `i` of the first axis.
    ///
    /// # Panics
    /// If the tensor is a scalar or has no such index.
    pub fn row(&self, i: usize) -> &[T] {
        let at = self.row_range(i);
        &self.data()[at]
    }

    /// The elements at index `i` of the first axis, to be changed.
    ///
    /// # Panics
    /// As [`Tensor::row`].
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        let at = self.row_range(i);
        &mut self.data_mut()[at]
    }

    fn row_range(&self, i: usize) -> Range<usize> {
        assert!(
            self.shape.first().is_some_and(|&n| i < n),
            "a tensor of shape {} has no row {i}",
            self.shape
        );
        let width = self.shape[1..].iter().product::<usize>();
        i * width..(i + 1) * width
    }

    /// Where the element at a position stands.
    fn flat<const N: usize>(&self, at: [usize; N]) -> usize {
        assert!(
            N == self.shape.len() && at.iter().zip(&*self.shape).all(|(i, n)| i < n),
            "a tensor of shape {} has no element {at:?}",
            self.shape
        );
        at.iter().zip(&*self.shape).fold(0, |flat, (i, n)| flat * n + i)
    }

    /// The sum of all elements.
    ///
    /// ```
    /// use chainrule_tensor::Tensor;
    /// let mut t = Tensor::from([[1.0f32, 2.0], [3.0, 6.0]]);
    /// assert_eq!((t.sum(), t.mean(), t.max(), t.min()), (12.0, 3.0, 6.0, 1.0));
    /// t.scale(2.0);
    /// assert_eq!(t.row(1), [6.0, 12.0]);
    /// ```
    pub fn sum(&self) -> T {
        T::from_f64(crate::kernels::reduce::sum(self.data()))
    }

    /// The mean of all elements; NaN of none.
    pub fn mean(&self) -> T {
        T::from_f64(crate::kernels::reduce::sum(self.data()) / self.len as f64)
    }

    /// The largest element; −∞ of none, NaN if there is one.
    pub fn max(&self) -> T {
        self.data().iter().fold(T::NEG_INFINITY, |max, &v| if v > max || v.is_nan() { v } else { max })
    }

    /// The smallest element; +∞ of none, NaN if there is one.
    pub fn min(&self) -> T {
        self.data().iter().fold(T::INFINITY, |min, &v| if v < min || v.is_nan() { v } else { min })
    }

    /// Multiplies every element by `factor`.
    pub fn scale(&mut self, factor: T) {
        crate::kernels::elementwise::scale(self.data_mut(), factor);
    }

    /// A tensor of this shape whose elements are `f` of these.
    #[must_use]
    pub fn map(&self, mut f: impl FnMut(T) -> T) -> Self {
        let mut mapped = self.clone();
        mapped.data_mut().iter_mut().for_each(|v| *v = f(*v));
        mapped
    }

    /// The same values in another scalar type.
    pub fn cast<U: Scalar>(&self) -> Tensor<U> {
        Tensor::new(self.data().iter().map(|v| U::from_f64(v.to_f64())).collect(), self.shape)
    }

    /// A view for ndarray.
    ///
    /// # Panics
    /// Never: the data always fill the shape.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(IxDyn(&self.shape), self.data()).expect("data fill the shape")
    }

    /// A mutable view for ndarray.
    ///
    /// # Panics
    /// Never: the data always fill the shape.
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape;
        ArrayViewMutD::from_shape(IxDyn(&shape), self.data_mut()).expect("data fill the shape")
    }

    /// The index of the largest element of each row along the last axis; the first of equals, and of NaN if there is one.
    pub fn argmax_rows(&self) -> Vec<usize> {
        let width = self.shape.last().copied().unwrap_or(1).max(1);
        self.data().chunks(width).map(crate::kernels::reduce::argmax).collect()
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {} ", self.shape)?;
        let data = self.data();
        if data.len() > 64 { write!(f, "{:?} …", &data[..64]) } else { write!(f, "{data:?}") }
    }
}

impl<T: Scalar, const N: usize> Index<[usize; N]> for Tensor<T> {
    type Output = T;
    /// The element at a position, an index for each axis.
    ///
    /// # Panics
    /// There is no such element.
    fn index(&self, at: [usize; N]) -> &T {
        &self.data()[self.flat(at)]
    }
}

impl<T: Scalar, const N: usize> IndexMut<[usize; N]> for Tensor<T> {
    fn index_mut(&mut self, at: [usize; N]) -> &mut T {
        let at = self.flat(at);
        &mut self.data_mut()[at]
    }
}

impl<T: Scalar> From<T> for Tensor<T> {
    /// A scalar: a tensor without axes.
    fn from(value: T) -> Self {
        Self::new(vec![value], Shape::default())
    }
}

impl<T: Scalar, const A: usize> From<[T; A]> for Tensor<T> {
    fn from(a: [T; A]) -> Self {
        Self::new(a.to_vec(), Shape::from([A]))
    }
}

impl<T: Scalar, const A: usize, const B: usize> From<[[T; B]; A]> for Tensor<T> {
    fn from(a: [[T; B]; A]) -> Self {
        Self::new(a.as_flattened().to_vec(), Shape::from([A, B]))
    }
}

impl<T: Scalar, const A: usize, const B: usize, const C: usize> From<[[[T; C]; B]; A]> for Tensor<T> {
    fn from(a: [[[T; C]; B]; A]) -> Self {
        Self::new(a.as_flattened().as_flattened().to_vec(), Shape::from([A, B, C]))
    }
}

impl<T: Scalar, const A: usize, const B: usize, const C: usize, const D: usize> From<[[[[T; D]; C]; B]; A]>
    for Tensor<T>
{
    fn from(a: [[[[T; D]; C]; B]; A]) -> Self {
        let data = a.as_flattened().as_flattened().as_flattened().to_vec();
        Self::new(data, Shape::from([A, B, C, D]))
    }
}

impl<T: Scalar, S: Data<Elem = T>, D: Dimension> TryFrom<&ArrayBase<S, D>> for Tensor<T> {
    type Error = Error;
    /// Copies an ndarray array or view of any layout.
    ///
    /// # Errors
    /// More than [`Shape::MAX_RANK`] axes.
    fn try_from(a: &ArrayBase<S, D>) -> Result<Self> {
        let shape = Shape::new(a.shape())?;
        Ok(Self::new(a.iter().copied().collect(), shape))
    }
}

impl<T: Scalar, D: Dimension> TryFrom<Array<T, D>> for Tensor<T> {
    type Error = Error;
    /// Takes an ndarray array; its memory when it is contiguous and row-major.
    ///
    /// # Errors
    /// More than [`Shape::MAX_RANK`] axes.
    fn try_from(a: Array<T, D>) -> Result<Self> {
        let shape = Shape::new(a.shape())?;
        if !a.is_standard_layout() {
            return Self::try_from(&a);
        }
        match a.into_raw_vec_and_offset() {
            (data, None | Some(0)) if data.len() == shape.volume() => Ok(Self::new(data, shape)),
            (data, offset) => {
                let start = offset.unwrap_or(0);
                Ok(Self::new(data[start..start + shape.volume()].to_vec(), shape))
            }
        }
    }
}

impl<T: Scalar> From<Tensor<T>> for Array<T, IxDyn> {
    fn from(t: Tensor<T>) -> Self {
        Self::from_shape_vec(IxDyn(&t.shape), t.into_vec()).expect("data fill the shape")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    #[test]
    fn reset_keeps_the_memory() {
        let mut t = Tensor::<f32>::zeros([8, 8]);
        let start = t.data().as_ptr();
        t.reset([3, 2]);
        t.reset([64]);
        assert_eq!((t.data().as_ptr(), t.len()), (start, 64));
    }

    #[test]
    fn memory_of_our_own_begins_a_cache_line() {
        let mut grown = Tensor::<f64>::default();
        grown.reset([5]).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let made = Tensor::from_fn([5], |i| 1.0 + i as f64);
        let of_a_caller = Tensor::from([1.0, 2.0, 3.0, 4.0, 5.0]);
        for t in [&grown, &made, &made.clone(), &of_a_caller.clone(), &Tensor::full([5], 1.0)] {
            // Miri may refuse to tell where memory lies.
            assert!(cfg!(miri) || t.data().as_ptr().addr().is_multiple_of(LINE));
        }
        assert_eq!((grown.clone().into_vec(), &grown), (of_a_caller.clone().into_vec(), &made));
        assert_eq!((Tensor::<f32>::zeros([0]).clone().into_vec(), grown.into_vec().len()), (vec![], 5));
    }

    #[test]
    fn the_rest_of_a_larger_tensor_is_not_visible() {
        let mut t = Tensor::full([2, 3], 7.0);
        t.reset([2]).copy_from_slice(&[1.0, 2.0]);
        let small = Tensor::from([1.0, 2.0]);
        assert_eq!((&t, t.clone().into_vec(), t.view().len()), (&small, vec![1.0, 2.0], 2));
        assert_eq!((format!("{t:?}"), t.cast::<f32>()), ("Tensor [2] [1.0, 2.0]".into(), small.cast()));
        assert_eq!(Array::from(t), Array::from(small));
    }

    #[test]
    fn ndarray_round_trip() {
        let a = Array2::from_shape_fn((3, 4), |(i, j)| (4 * i + j) as f64);
        let t = Tensor::try_from(&a.slice(s![.., 1..3])).unwrap();
        assert_eq!(t, Tensor::from([[1., 2.], [5., 6.], [9., 10.]]));
        assert_eq!(t.view()[[2, 1]], 10.0);
        let part = a.clone().slice_move(s![1.., ..]);
        assert_eq!(Tensor::try_from(part).unwrap().data()[0], 4.0);
        assert_eq!(Tensor::try_from(a.clone().reversed_axes()).unwrap().data()[1], 4.0);
        assert_eq!(Array::from(Tensor::try_from(a.clone()).unwrap()), a.into_dyn());
    }

    #[test]
    fn wrong_volumes_are_errors() {
        let text = Tensor::from_vec([2, 3], vec![0.0f32; 5]).unwrap_err().to_string();
        assert_eq!(text, "expected 6 elements for shape [2, 3], got 5");
        assert!(Tensor::<f32>::zeros([4]).reshape([3]).is_err());
        // A volume that wraps around to one element.
        assert!(Tensor::from_vec([usize::MAX, usize::MAX], vec![1.0]).is_err());
        assert!(Tensor::from(1.0).reshape([usize::MAX, usize::MAX]).is_err());
        assert!(Tensor::from_vec(vec![1; 9], vec![1.0]).is_err());
        let text = Tensor::from_rows([&[1.0, 2.0][..], &[3.0]]).unwrap_err().to_string();
        assert_eq!(text, "expected rows of 2 elements, got 1 in row 1");
        assert_eq!(*Tensor::<f32>::from_rows([[0.0; 0]; 0]).unwrap().shape(), Shape::from([0, 0]));
    }

    #[test]
    fn lengths_of_any_kind_are_a_shape() {
        let (axes, array, other) = (vec![2, 3], &[2, 3], Tensor::<f32>::zeros([2, 3]));
        for t in [
            Tensor::zeros(&axes),
            Tensor::zeros(&axes[..]),
            Tensor::zeros(array),
            Tensor::zeros(other.shape()),
            Tensor::full(axes.clone(), 0.0),
            Tensor::from_fn(&axes[..], |_| 0.0),
            Tensor::from_vec(&axes, vec![0.0; 6]).unwrap(),
        ] {
            assert_eq!(t, other);
        }
        let mut t = Tensor::<f32>::zeros(6);
        t.reshape(&axes).unwrap();
        assert_eq!(t, other);
    }

    #[test]
    #[should_panic(expected = "expected at most 8 axes")]
    fn zeros_of_too_many_axes_are_a_panic() {
        Tensor::<f32>::zeros(vec![1; 9]);
    }

    #[test]
    fn elements_and_rows_are_read_and_written_in_place() {
        let mut t = Tensor::from_fn([2, 3, 2], |i| i as f64);
        assert_eq!((t[[1, 2, 0]], t.row(1)[4]), (10.0, 10.0));
        t[[0, 0, 1]] = -1.0;
        t.row_mut(1).fill(0.0);
        assert_eq!((t.sum(), t.map(|v| v * v).sum()), (13.0, 55.0));
        assert_eq!(Tensor::from(3.0)[[]], 3.0);
    }

    #[test]
    #[should_panic(expected = "a tensor of shape [2, 1] has no element [1, 1]")]
    fn an_element_that_is_missing_is_a_panic() {
        let _ = Tensor::<f32>::zeros([2, 1])[[1, 1]];
    }

    #[test]
    #[should_panic(expected = "a tensor of shape [] has no row 0")]
    fn a_scalar_has_no_row() {
        Tensor::from(1.0).row(0);
    }

    #[test]
    fn nan_is_the_largest_and_the_smallest() {
        let t = Tensor::from([1.0, f64::NAN, 3.0]);
        assert!(t.max().is_nan() && t.min().is_nan() && t.sum().is_nan());
        let none = Tensor::<f64>::zeros([0, 3]);
        assert_eq!((none.sum(), none.max(), none.min()), (0.0, f64::NEG_INFINITY, f64::INFINITY));
        assert!(none.mean().is_nan());
    }

    #[test]
    #[should_panic(expected = "a tensor of shape [2, 1] has no row 2")]
    fn a_row_that_is_missing_is_a_panic() {
        Tensor::<f32>::zeros([2, 1]).row(2);
    }
}
