//! Kinks are recognised, skipped and counted.

use chainrule_core::{Call, Context, Grads, Layer, Result, Shape, Tensor};
use chainrule_gradcheck::{Check, check};

/// y = slope |x|, whose backward uses the slopes ±1 whatever the slope is.
#[derive(Clone)]
struct Absolute(f64);

impl Layer for Absolute {
    type T = f64;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<f64>, y: &mut Tensor<f64>, _: &mut (), _: Context) -> Result<()> {
        y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = self.0 * x.abs());
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, f64>,
        _: &mut (),
        _: &mut Grads<f64>,
        dx: Option<&mut Tensor<f64>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let pairs = call.x.data().iter().zip(call.dy.data());
        dx.reset(*call.x.shape()).iter_mut().zip(pairs).for_each(|(dx, (&x, &dy))| {
            *dx = if x > 0.0 { dy } else { -dy };
        });
        Ok(())
    }
}

fn values(zeros: usize) -> Tensor<f64> {
    Tensor::from_fn([40], |i| if i < zeros { 0.0 } else { i as f64 - 19.5 })
}

#[test]
fn one_kink_in_twenty_is_skipped_and_counted() {
    let report = check(&Absolute(1.0), &values(2)).unwrap();
    assert_eq!((report.checked(), report.skipped()), (38, 2));
    assert!(report.to_string().ends_with("2 skipped at kinks"), "{report}");
}

#[test]
fn more_kinks_fail() {
    let text = check(&Absolute(1.0), &values(3)).unwrap_err().to_string();
    assert!(text.ends_with("3 skipped at kinks, which is more than 5 %"), "{text}");
}

#[test]
fn a_kink_beside_the_point_is_none_of_it_and_a_wrong_slope_is_no_kink() {
    let near = Tensor::from([3e-6, -3e-6, 1.0, 5e-7]);
    let report = Check::new().module(&Absolute(1.0), &near).unwrap();
    assert_eq!((report.checked(), report.skipped()), (4, 0), "{report}");
    let report = Check::new().module(&Absolute(2.0), &values(0)).unwrap();
    assert_eq!((report.disagreements().count(), report.skipped()), (40, 0));
}
