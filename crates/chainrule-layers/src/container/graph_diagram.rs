//! Graphs as pictures: the text of Graphviz and of Mermaid.

use super::{graph::Graph, graph_plan::Source};
use chainrule_core::{Module, Scalar};

/// What a diagram draws, each with an id, a label, and whether it is a node between inputs and outputs.
struct Diagram {
    boxes: Vec<(String, String, bool)>,
    /// From, to, and which output it is where there are several.
    arrows: Vec<(String, String, Option<usize>)>,
}

impl<T: Scalar> Graph<T> {
    /// The wiring in the language of Graphviz: `dot -Tsvg graph.dot`.
    ///
    /// ```
    /// use chainrule_layers::{Graph, Relu};
    /// let mut graph = Graph::new();
    /// let x = graph.input("x");
    /// graph.add("bend", Relu::new(), x);
    /// assert!(graph.to_dot().contains("n0 [label=\"bend: Relu\" shape=box];"));
    /// ```
    pub fn to_dot(&self) -> String {
        let Diagram { boxes, arrows } = self.diagram();
        let mut out = String::from("digraph {\n");
        for (id, label, node) in boxes {
            let label = label.replace('\\', "\\\\").replace('"', "\\\"");
            out += &format!("  {id} [label=\"{label}\" shape={}];\n", if node { "box" } else { "ellipse" });
        }
        for (from, to, output) in arrows {
            let label = output.map_or(String::new(), |output| format!(" [label=\"{output}\"]"));
            out += &format!("  {from} -> {to}{label};\n");
        }
        out + "}\n"
    }

    /// The wiring in the language of Mermaid, which many viewers of Markdown draw.
    pub fn to_mermaid(&self) -> String {
        let Diagram { boxes, arrows } = self.diagram();
        let mut out = String::from("flowchart TD\n");
        for (id, label, node) in boxes {
            let label = label.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
            let (open, close) = if node { ("[", "]") } else { ("([", "])") };
            out += &format!("  {id}{open}\"{label}\"{close}\n");
        }
        for (from, to, output) in arrows {
            let label = output.map_or(String::new(), |output| format!("|{output}|"));
            out += &format!("  {from} -->{label} {to}\n");
        }
        out
    }

    fn diagram(&self) -> Diagram {
        let arrow = |source: Source, to: String| match source {
            Source::Input(i) => (format!("i{i}"), to, None),
            Source::Value(v) => {
                let (n, output) = self.maker(v);
                (format!("n{n}"), to, (self.nodes[n].outputs > 1).then_some(output))
            }
        };
        let (mut boxes, mut arrows) = (Vec::new(), Vec::new());
        for (i, name) in self.inputs.iter().enumerate() {
            boxes.push((format!("i{i}"), plain(name), false));
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let (key, module) = self.layers.get(node.layer);
            boxes.push((format!("n{n}"), plain(&format!("{key}: {}", module.to_spec().kind())), true));
            arrows.extend(node.edges.iter().map(|edge| arrow(edge.source, format!("n{n}"))));
        }
        for (o, (name, source)) in self.outputs.iter().enumerate() {
            boxes.push((format!("o{o}"), plain(name), false));
            arrows.push(arrow(*source, format!("o{o}")));
        }
        Diagram { boxes, arrows }
    }
}

/// A name on one line, as names from a file may hold anything.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Add, Chunk, Tanh};

    fn graph() -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("the \"x\"");
        let parts = graph.add("parts", Chunk::new(2, 1), x);
        let bent = graph.add("bend", Tanh::new(), parts.at(1));
        let sum = graph.add("sum", Add::new(), [parts, bent]);
        graph.output("y", sum);
        graph
    }

    #[test]
    fn graphviz_names_outputs_and_escapes_quotes() {
        let want = r#"digraph {
  i0 [label="the \"x\"" shape=ellipse];
  n0 [label="parts: Chunk" shape=box];
  n1 [label="bend: Tanh" shape=box];
  n2 [label="sum: Add" shape=box];
  o0 [label="y" shape=ellipse];
  i0 -> n0;
  n0 -> n1 [label="1"];
  n0 -> n2 [label="0"];
  n1 -> n2;
  n2 -> o0;
}
"#;
        assert_eq!(graph().to_dot(), want);
    }

    #[test]
    fn mermaid_names_outputs_and_escapes_quotes() {
        let want = r#"flowchart TD
  i0(["the &quot;x&quot;"])
  n0["parts: Chunk"]
  n1["bend: Tanh"]
  n2["sum: Add"]
  o0(["y"])
  i0 --> n0
  n0 -->|1| n1
  n0 -->|0| n2
  n1 --> n2
  n2 --> o0
"#;
        assert_eq!(graph().to_mermaid(), want);
    }
}
