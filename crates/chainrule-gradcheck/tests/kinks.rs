//! Kinks are recognised, skipped and counted.

use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_gradcheck::{Check, check_layer};

/// y = slope |x|, whose backward uses the slopes ±1 whatever the slope is.
#[derive(Clone)]
struct Absolute(f64);

impl<T: Scalar> Layer<T> for Absolute {
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        let slope = T::from_f64(self.0);
        y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = slope * x.abs());
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let pairs = call.x.data().iter().zip(call.dy.data());
        dx.reset(*call.x.shape()).iter_mut().zip(pairs).for_each(|(dx, (&x, &dy))| {
            *dx = if x > T::ZERO { dy } else { -dy };
        });
        Ok(())
    }
}

fn numbers(zeros: usize) -> Tensor<f64> {
    Tensor::from_fn([40], |i| if i < zeros { 0.0 } else { i as f64 - 19.5 })
}

#[test]
fn one_kink_in_twenty_is_skipped_and_counted() {
    let report = check_layer(&Absolute(1.0), &numbers(2)).unwrap();
    assert_eq!((report.checked(), report.skipped()), (38, 2));
    assert!(report.to_string().ends_with("2 skipped at kinks"), "{report}");
}

#[test]
fn more_kinks_fail() {
    let text = check_layer(&Absolute(1.0), &numbers(3)).unwrap_err().to_string();
    assert!(text.ends_with("3 skipped at kinks, which is more than 5 %"), "{text}");
}

#[test]
fn a_kink_beside_the_point_is_none_of_it_and_a_wrong_slope_is_no_kink() {
    let near = Tensor::from([3e-6, -3e-6, 1.0, 5e-7]);
    let report = Check::new().layer(&Absolute(1.0), &near).unwrap();
    assert_eq!((report.checked(), report.skipped()), (4, 0), "{report}");
    let report = Check::new().layer(&Absolute(2.0), &numbers(0)).unwrap();
    assert_eq!((report.disagreements().len(), report.skipped()), (40, 0));
}
