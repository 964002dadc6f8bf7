//! Cases of recurrent layers: with states, and with a batch.

use crate::case::{Array, Case, Input};
use chainrule_core::{Result, Shape, Tensor};

/// Gives a case of a recurrent layer what ours takes: states as inputs and outputs, zeros where PyTorch's are left out, and a batch of one
/// where the case has none.
pub fn prepare(case: &mut Case) -> Result<()> {
    if !["RNN", "LSTM", "GRU"].contains(&&*case.module) {
        return Ok(());
    }
    case.args.set_default("states", true.into());
    case.args.set_default("batch_first", false.into());
    let batch = usize::from(!case.args.is_on("batch_first"));
    let arrays = case.inputs.iter_mut().filter_map(|(_, input)| match input {
        Input::Array(array) => Some(array),
        Input::Numbers(_) | Input::Other(_) => None,
    });
    let mut arrays: Vec<&mut Array> = arrays.collect();
    if arrays.first().is_some_and(|x| x.values.shape().len() == 2) {
        // x and y, and the states behind each.
        for list in [
            arrays.iter_mut().map(|array| &mut **array).collect(),
            case.outputs.iter_mut().collect::<Vec<_>>(),
        ] {
            for (k, array) in list.into_iter().enumerate() {
                with_axis(&mut array.values, if k == 0 { batch } else { 1 })?;
            }
        }
    }
    if case.inputs.len() == 1 {
        for state in case.outputs.iter().skip(1) {
            let zeros = Array { values: Tensor::zeros(*state.values.shape()), float: true };
            case.inputs.push((None, Input::Array(zeros)));
        }
    }
    Ok(())
}

/// One more axis, of length 1.
fn with_axis(t: &mut Tensor<f64>, axis: usize) -> Result<()> {
    let mut axes = t.shape().to_vec();
    axes.insert(axis.min(axes.len()), 1);
    t.reshape(Shape::new(&axes)?)
}
