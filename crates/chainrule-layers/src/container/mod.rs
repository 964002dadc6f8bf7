//! Composition: layers made of layers.

mod add;
mod concat;
mod graph;
mod graph_builder;
mod parallel;
mod residual;
mod sequential;
mod single;

pub use add::Add;
pub use concat::Concat;
pub use graph::{Graph, GraphCache, Node};
pub use parallel::{Parallel, ParallelCache};
pub use residual::{Residual, ResidualCache};
pub use sequential::{Sequential, SequentialCache};

use chainrule_core::{Context, Error, Kind, Result, Scalar, Tensor};
use chainrule_tensor::kernels::reduce::all_finite;

/// Under [`Context::check_finite`], an error if a child's output is infinite or NaN.
fn check_output<T: Scalar>(y: &Tensor<T>, cx: &Context) -> Result<()> {
    if cx.checks_finite() && !all_finite(y.data()) {
        let at = y.data().iter().position(|v| !v.is_finite()).unwrap_or(0);
        return Err(Error::value(format!(
            "expected a finite output, got {} at position {at} of an output of shape {}",
            y.data()[at],
            y.shape()
        )));
    }
    Ok(())
}

/// Two children of one name cannot be told apart in a file.
fn check_name<'a>(name: &str, mut others: impl Iterator<Item = &'a str>) -> Result<()> {
    if name.is_empty() || name.contains('.') {
        return Err(Error::value(format!("expected a name without dots, got `{name}`")));
    }
    if others.any(|other| other == name) {
        return Err(Error::value(format!("two children are named `{name}`")));
    }
    Ok(())
}

/// The first error of a chain of additions, told when the container is checked.
fn first_error(kept: &Option<String>) -> Result<()> {
    kept.as_ref().map_or(Ok(()), |text| Err(Error::value(text.clone())))
}

/// Keeps an error's text if none was kept before.
fn keep(kept: &mut Option<String>, result: Result<()>) {
    if let Err(error) = result {
        debug_assert!(!matches!(error.kind(), Kind::Io(..)));
        kept.get_or_insert_with(|| error.to_string());
    }
}
