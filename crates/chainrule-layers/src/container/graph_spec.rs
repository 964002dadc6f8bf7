//! A graph's wiring as data.

use super::{
    graph::Graph,
    graph_builder::{Node, Place, unknown},
    graph_plan::Source,
};
use crate::{Add, Linear, Tanh};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, FromValue, Module, Result, Scalar, Spec, Value, text,
};

/// A value is named by a number, the inputs' first, then the nodes'; an output other than the first by `(number, output)`.
/// A node is `(key, value, …)`, an output `(name, value)`.
impl<T: Scalar> Graph<T> {
    /// Its spec.
    pub(super) fn wiring(&self) -> Spec {
        // Sources name values; a spec names the nodes that have them.
        let value = |source: Source| match source {
            Source::Input(i) => Value::from(i),
            Source::Value(v) => match self.maker(v) {
                (n, 0) => (self.inputs.len() + n).into(),
                (n, output) => (self.inputs.len() + n, output).into(),
            },
        };
        let nodes = self.nodes.iter().map(|node| {
            let key = Value::from(self.layers.get(node.layer).0);
            Value::List([key].into_iter().chain(node.edges.iter().map(|edge| value(edge.source))).collect())
        });
        let outputs =
            self.outputs.iter().map(|(name, source)| Value::List(vec![name.as_str().into(), value(*source)]));
        let spec = Spec::new("Graph")
            .with("inputs", self.inputs.clone())
            .with("nodes", nodes.collect::<Vec<_>>())
            .with("outputs", outputs.collect::<Vec<_>>());
        self.layers.describe(spec)
    }

    /// The node that makes a value, and which of its outputs it is.
    pub(super) fn maker(&self, value: usize) -> (usize, usize) {
        let n = self.nodes.partition_point(|node| node.first + node.outputs <= value);
        (n, value - self.nodes[n].first)
    }

    /// The node that a spec's value names.
    fn named(&self, value: &Value) -> Result<Node> {
        let [number, output] = match value {
            Value::List(pair) if pair.len() == 2 => [&pair[0], &pair[1]],
            number => [number, &Value::Int(0)],
        }
        .map(usize::from_value);
        let (Some(number), Some(output)) = (number, output) else {
            let value = text::name(&value.to_string());
            return Err(Error::value(format!("Graph: expected a value's number, got {value}")));
        };
        let place = match number.checked_sub(self.inputs.len()) {
            None => Place::Input(number),
            Some(n) if n < self.nodes.len() => Place::Layer(n),
            Some(_) => {
                return Err(Error::value(format!(
                    "Graph: expected one of the {} values before, got {number}",
                    self.inputs.len() + self.nodes.len()
                )));
            }
        };
        Ok(Node { graph: self.id, place, output })
    }
}

/// The name and the values of one entry of a list.
fn entry(value: &Value) -> Result<(&str, &[Value])> {
    if let Value::List(parts) = value
        && let [Value::Text(name), values @ ..] = &parts[..]
    {
        return Ok((name, values));
    }
    let value = text::name(&value.to_string());
    Err(Error::value(format!("Graph: expected a name and values, got {value}")))
}

fn list<'a, T: Scalar>(args: &Args<'a, T>, name: &str) -> Result<&'a [Value]> {
    match args.value(name) {
        Some(Value::List(values)) => Ok(values),
        _ => Err(Error::value(format!("Graph: attribute `{name}`: expected a list"))),
    }
}

impl<T: Scalar> FromSpec<T> for Graph<T> {
    const FACTS: Facts = Facts::new("Graph")
        .family("container")
        .formula("any acyclic arrangement; modules used twice")
        .page("layers/container/graph.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut graph = Self::of();
        for name in args.get::<Vec<String>>("inputs")? {
            graph.input(name);
        }
        args.children()?.into_iter().for_each(|(key, module)| graph.layers.push(key, module));
        for node in list(args, "nodes")? {
            let (key, values) = entry(node)?;
            let layer = graph.layers.find(key).ok_or_else(|| unknown(key))?;
            let inputs = values.iter().map(|value| graph.named(value)).collect::<Result<Vec<_>>>();
            graph.place(layer, &inputs.map_err(|e| e.in_layer(key))?);
        }
        for output in list(args, "outputs")? {
            match entry(output)? {
                (name, [value]) => {
                    let node = graph.named(value).map_err(|e| e.in_layer(name))?;
                    graph.output(name, node);
                }
                (name, values) => {
                    return Err(
                        Error::value(format!("expected one value, got {}", values.len())).in_layer(name)
                    );
                }
            }
        }
        graph.layers.verdict()?;
        Ok(graph)
    }

    fn examples() -> Vec<Example> {
        let around = |width| {
            let mut graph = Self::of();
            let x = graph.input("x");
            let once = graph.add("shared", Linear::new(width, width), x);
            let bent = graph.add("bend", Tanh::new(), once);
            let twice = graph.again("shared", bent);
            let sum = graph.add("sum", Add::new(), [x, twice]);
            graph.output("y", sum);
            graph.to_spec()
        };
        let mut two = Self::of();
        let (left, right) = (two.input("left"), two.input("right"));
        let bent = two.add("bend", Tanh::new(), left);
        two.add("sum", Add::new(), [bent, right]);
        vec![
            Example::new(around(3), [[2, 3]]),
            Example::new(two.to_spec(), [[2, 3]; 2]),
            Example::bench(around(256), [[64, 256]]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chunk, Residual, Sequential};
    use chainrule_core::{Context, Grads, ModuleCall, Parameters, Tensor};

    /// Two inputs, three outputs, a shared layer, containers inside containers.
    fn model<T: Scalar>() -> Graph<T> {
        let mut graph = Graph::of();
        let (x, z) = (graph.input("x"), graph.input("z"));
        let body =
            Sequential::of().add(Linear::new(2, 4)).add(Residual::new(Linear::new(4, 4))).add(Tanh::new());
        let [left, right] = [x, z].map(|input| match input == x {
            true => graph.add("body", body.clone(), input),
            false => graph.again("body", input),
        });
        let parts = graph.add("parts", Chunk::new(2, -1), left);
        let sum = graph.add("sum", Add::new(), [left, right]);
        graph.output("second", parts.at(1));
        graph.output("sum", sum);
        graph.output("x", x);
        graph
    }

    #[test]
    fn a_whole_model_is_built_again_from_its_spec() {
        let spec = model::<f64>().to_spec();
        assert_eq!(
            spec.attributes().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            [
                "inputs=(x, z)",
                "nodes=((body, 0), (body, 1), (parts, 2), (sum, 2, 3))",
                "outputs=((second, (4, 1)), (sum, 5), (x, 0))"
            ]
        );
        let again = crate::registry::<f64>().build_module(&spec).unwrap();
        assert_eq!(again.to_spec(), spec);
        let (model, again) = (model::<f64>().init(3).unwrap(), again.init(3).unwrap());
        let (x, z) = (Tensor::from([[1.0, 2.0]]), Tensor::from([[3.0, -4.0]]));
        assert_eq!(model.infer_all([&x, &z]).unwrap(), again.infer_all([&x, &z]).unwrap());
        // An output that is an input: ∂E/∂x is its ∂E/∂y, and nothing else was used.
        let (xs, mut ys, mut state) = ([&x, &z], vec![Tensor::default(); 3], Default::default());
        model.apply(&xs, &mut ys, &mut state, Context::train(0)).unwrap();
        let (dy, mut dx, mut dz) = (Tensor::from([[5.0, 6.0]]), Tensor::default(), Tensor::default());
        let (dys, mut grads) = ([None, None, Some(&dy)], Grads::new(&model));
        let call = ModuleCall::new(&model, &xs, &ys, &dys).unwrap();
        model.pull(call, &mut state, &mut grads, &mut [Some(&mut dx), Some(&mut dz)]).unwrap();
        assert_eq!((dx.data(), dz.data()), (dy.data(), &[0.0, 0.0][..]));
        assert!(grads.values().iter().all(|&v| v == 0.0));
    }

    #[test]
    fn hostile_specs_give_errors() {
        let list = |values: Vec<Value>| Value::List(values);
        let node = |key: &str, values: &[i64]| {
            list([key.into()].into_iter().chain(values.iter().map(|&v| Value::Int(v))).collect())
        };
        let build = |inputs: Value, nodes: Value, outputs: Value| {
            let spec =
                Spec::new("Graph").with("inputs", inputs).with("nodes", nodes).with("outputs", outputs);
            let spec =
                spec.child("t", Spec::new("Tanh")).child("big", Chunk::<f32>::new(1 << 16, 0).to_spec());
            crate::registry::<f32>().build_module(&spec).map(drop)
        };
        let one = || list(vec!["x".into()]);
        build(one(), list(vec![node("t", &[0])]), list(vec![node("y", &[1])])).unwrap();
        let many = (0..1_000_000).map(|i| Value::from(i.to_string())).collect();
        let huge = |n| list((0..n).map(|_| node("big", &[0])).collect());
        for (inputs, nodes, outputs) in [
            (one(), list(vec![node("t", &[1])]), list(vec![])), // itself
            (one(), list(vec![node("t", &[2]), node("t", &[0])]), list(vec![])), // a later one
            (one(), list(vec![node("t", &[-1])]), list(vec![])),
            (one(), list(vec![node("t", &[i64::MAX])]), list(vec![])),
            (one(), list(vec![node("t", &[0, 0])]), list(vec![])),
            (one(), list(vec![node("t", &[])]), list(vec![])),
            (one(), list(vec![node("none", &[0])]), list(vec![])),
            (one(), list(vec![Value::Int(0)]), list(vec![])),
            (one(), list(vec![list(vec![])]), list(vec![])),
            (
                one(),
                list(vec![list(vec!["t".into(), list(vec![Value::Int(0), Value::Int(1)])])]),
                list(vec![]),
            ),
            (one(), Value::None, list(vec![])),
            (one(), huge(17), list(vec![])),
            (one(), list(vec![]), list(vec![node("y", &[1])])),
            (one(), list(vec![]), list(vec![node("y", &[0]), node("y", &[0])])),
            (one(), list(vec![]), list(vec![node("y", &[])])),
            (list(vec!["x".into(), "x".into()]), list(vec![]), list(vec![])),
            (list(many), list(vec![]), list(vec![])),
            (list(vec![]), list(vec![]), list(vec![])),
        ] {
            let what = format!("{nodes:.60} {outputs:.60}");
            assert!(build(inputs, nodes, outputs).is_err(), "{what}");
        }
        let twice = Spec::new("Sequential").child("0", Spec::new("Tanh")).child("0", Spec::new("Tanh"));
        let none = Spec::new("Residual");
        let several =
            Spec::new("Parallel").with("concat", Value::None).child("0", Add::<f32>::new().to_spec());
        for spec in [twice, none, several] {
            assert!(crate::registry::<f32>().build_module(&spec).is_err(), "{spec}");
        }
    }
}
