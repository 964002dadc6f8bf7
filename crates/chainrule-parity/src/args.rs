//! A constructor's arguments, asked for by name. What nobody asked for, and is not off, is not covered.

use crate::{Step, Stop, case::Array};
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeMap};

/// The arguments of one case.
#[derive(Debug)]
pub struct Args {
    values: Value,
    tensors: BTreeMap<String, Array>,
    asked: RefCell<Vec<String>>,
}

/// Whole numbers above it are of no network.
const LARGEST: u64 = u32::MAX as u64;

impl Args {
    pub fn new(values: Value, tensors: BTreeMap<String, Array>) -> Self {
        Self { values, tensors, asked: RefCell::default() }
    }

    /// Arguments without tensors.
    pub fn plain(values: &Value) -> Self {
        Self::new(values.clone(), BTreeMap::new())
    }

    /// An argument as it stands. The cases have all of them, defaults included: one that is missing is a failure.
    pub fn value(&self, name: &str) -> Step<&Value> {
        self.ignore(&[name]);
        self.values.get(name).ok_or_else(|| Stop::Fail(format!("the case has no argument {name}")))
    }

    /// The value of an argument if it is of the kind that the library knows.
    fn parse<'a, V>(&'a self, name: &str, what: &str, f: impl FnOnce(&'a Value) -> Option<V>) -> Step<V> {
        let v = self.value(name)?;
        f(v).ok_or_else(|| Stop::Skip(format!("argument {name} = {v}, not {what}")))
    }

    pub fn is_none(&self, name: &str) -> Step<bool> {
        Ok(self.value(name)?.is_null())
    }

    pub fn usize(&self, name: &str) -> Step<usize> {
        self.parse(name, "a size", size)
    }

    pub fn isize(&self, name: &str) -> Step<isize> {
        self.parse(name, "a whole number", |v| v.as_i64().map(|v| v as isize))
    }

    pub fn f64(&self, name: &str) -> Step<f64> {
        self.parse(name, "a number", Value::as_f64)
    }

    /// One number of a list.
    pub fn at(&self, name: &str, index: usize) -> Step<f64> {
        self.parse(name, "a list of numbers", |v| v.get(index).and_then(Value::as_f64))
    }

    pub fn bool(&self, name: &str) -> Step<bool> {
        self.parse(name, "true or false", Value::as_bool)
    }

    pub fn str(&self, name: &str) -> Step<&str> {
        self.parse(name, "a text", Value::as_str)
    }

    /// A number or several.
    pub fn list(&self, name: &str) -> Step<Vec<usize>> {
        self.parse(name, "sizes", |v| match v {
            Value::Array(items) => items.iter().map(size).collect(),
            one => size(one).map(|n| vec![n]),
        })
    }

    /// A number, or one for each of two axes.
    pub fn pair(&self, name: &str) -> Step<[usize; 2]> {
        match self.list(name)?[..] {
            [n] => Ok([n, n]),
            [a, b] => Ok([a, b]),
            _ => Err(Stop::Fail(format!("argument {name}: expected one or two sizes"))),
        }
    }

    /// A number, or one for each of two axes, any of which may be None.
    pub fn optional_pair(&self, name: &str) -> Step<(Option<usize>, Option<usize>)> {
        let one = |v: &Value| if v.is_null() { Some(None) } else { size(v).map(Some) };
        self.parse(name, "one or two sizes", |v| match v {
            Value::Array(items) if items.len() == 2 => Some((one(&items[0])?, one(&items[1])?)),
            Value::Array(items) if items.len() == 1 => one(&items[0]).map(|n| (n, n)),
            single => one(single).map(|n| (n, n)),
        })
    }

    /// An argument that is a tensor; `None` if it is off.
    pub fn tensor(&self, name: &str) -> Step<Option<&Array>> {
        if self.is_none(name)? {
            return Ok(None);
        }
        let missing = || Stop::Fail(format!("argument {name}: expected a tensor"));
        self.tensors.get(name).map(Some).ok_or_else(missing)
    }

    /// Names arguments that say how PyTorch runs or stores, not what it computes.
    pub fn ignore(&self, names: &[&str]) {
        self.asked.borrow_mut().extend(names.iter().map(|n| (*n).to_owned()));
    }

    /// Whatever was not asked for must be off.
    pub fn finish(&self) -> Step<()> {
        for (name, value) in self.values.as_object().into_iter().flatten() {
            let off = matches!(value, Value::Null | Value::Bool(false));
            if !off && !self.asked.borrow().contains(name) {
                return Err(Stop::Skip(format!("argument {name} = {value}")));
            }
        }
        Ok(())
    }
}

fn size(v: &Value) -> Option<usize> {
    v.as_u64().filter(|&n| n <= LARGEST).map(|n| n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn why(step: Step<()>) -> String {
        match step {
            Ok(()) => "covered".into(),
            Err(Stop::Skip(why)) => format!("skipped: {why}"),
            Err(Stop::Fail(why)) => format!("failed: {why}"),
        }
    }

    #[test]
    fn what_nobody_asked_for_is_not_covered_unless_it_is_off() {
        let a = Args::plain(&json!({"size": 3, "inplace": false, "device": null, "p": 2}));
        assert!(a.usize("size").is_ok_and(|n| n == 3));
        assert_eq!(why(a.finish()), "skipped: argument p = 2");
        a.ignore(&["p"]);
        assert_eq!(why(a.finish()), "covered");
    }

    #[test]
    fn a_missing_argument_fails_and_one_of_another_kind_is_not_covered() {
        let a = Args::plain(&json!({"dim": "x", "size": 18446744073709551615u64, "pair": [1, 2, 3]}));
        assert_eq!(why(a.usize("axis").map(drop)), "failed: the case has no argument axis");
        assert_eq!(why(a.isize("dim").map(drop)), "skipped: argument dim = \"x\", not a whole number");
        assert!(why(a.usize("size").map(drop)).starts_with("skipped"));
        assert!(why(a.pair("pair").map(drop)).starts_with("failed"));
    }

    #[test]
    fn pairs_are_one_number_or_two() {
        let a = Args::plain(&json!({"one": 3, "two": [1, 2], "half": [4, null]}));
        assert!(a.pair("one").is_ok_and(|p| p == [3, 3]) && a.pair("two").is_ok_and(|p| p == [1, 2]));
        assert!(a.optional_pair("half").is_ok_and(|p| p == (Some(4), None)));
    }
}
