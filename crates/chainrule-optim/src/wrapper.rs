//! What optimizers around another one share.

use chainrule_core::{Args, Error, Optimizer, OptimizerState, Result, Scalar};

/// The optimizer that a spec has for its only child.
pub fn base<T: Scalar>(args: &Args<'_, T>, kind: &str) -> Result<Box<dyn Optimizer<T>>> {
    match args.spec().children() {
        [(_, spec)] => args.registry().build_optimizer(spec),
        children => {
            Err(Error::value(format!("{kind}: expected one optimizer inside, got {}", children.len())))
        }
    }
}

/// Our name for one inside.
pub fn ours<'a>(names: &[(&'a str, &str)], inside: &'a str) -> &'a str {
    names.iter().find(|(_, name)| *name == inside).map_or(inside, |(ours, _)| ours)
}

/// Takes the values with one of our names out of a state, under the names inside.
pub fn split<T: Scalar>(state: &mut OptimizerState<T>, names: &[(&str, &str)]) -> OptimizerState<T> {
    let inside = |name: &str| names.iter().find(|(ours, _)| *ours == name).map(|(_, inside)| *inside);
    let ours: Vec<(String, String)> = state
        .iter()
        .filter(|(_, name, _)| inside(name).is_some())
        .map(|(path, name, _)| (path.to_owned(), name.to_owned()))
        .collect();
    let mut taken = OptimizerState::new();
    for (path, name) in ours {
        if let (Some(value), Some(inside)) = (state.remove(&path, &name), inside(&name)) {
            taken.insert(path, inside, value);
        }
    }
    taken
}
