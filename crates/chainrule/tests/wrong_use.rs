//! Wrong use of sequences, attention and graphs: an error that names the place, whether in a whole model or alone.

use chainrule::{
    core::{BoxModule, Value},
    models::{Bert, Gpt},
    prelude::*,
    registry,
};

/// The error of what must fail.
fn error<V>(result: Result<V>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in `{text}`");
    }
}

#[test]
fn heads_that_do_not_divide() {
    holds(
        &error(MultiheadAttention::<f32>::new(6, 4).init(0)),
        &["MultiheadAttention", "heads that divide embed_dim 6, got 4"],
    );
    let model = Sequential::new().named("body", TransformerEncoderLayer::new(6, 4));
    holds(&error(model.init(0)), &["in layer `body", "nhead that divides d_model 6, got 4"]);
    let gpt = Gpt { layers: 2, ..Gpt::new(5, 8, 6, 4) };
    holds(&error(gpt.build::<f32>().init(0)), &["transformer.h.0", "nhead that divides d_model 6, got 4"]);
    let groups = MultiheadAttention::<f32>::new(8, 4).num_kv_heads(3);
    holds(&error(groups.init(0)), &["heads of keys that divide the 4 heads, got 3"]);
}

#[test]
fn a_mask_of_another_shape_or_of_only_masked_keys() {
    let x = Tensor::zeros([2, 3, 4]);
    let layer = MultiheadAttention::<f32>::new(4, 2).key_padding_mask(MaskKind::Boolean).init(0).unwrap();
    holds(&error(layer.infer([&x, &Tensor::zeros([3, 2])])), &["key_padding_mask [2, 3], got [3, 2]"]);
    let hidden = Tensor::from([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]);
    holds(&error(layer.infer([&x, &hidden])), &["expected masks that leave every query a key", "sample 1"]);

    let pairs = MultiheadAttention::<f32>::new(4, 2).attn_mask(MaskKind::Additive).init(0).unwrap();
    holds(&error(pairs.infer([&x, &Tensor::zeros([4, 3])])), &["attn_mask", "[4, 3]"]);
    let mut none = Tensor::zeros([3, 3]);
    none.data_mut()[3..6].fill(f32::NEG_INFINITY);
    holds(&error(pairs.infer([&x, &none])), &["leave every query a key, got none for query 1 of sample 0"]);

    // In a whole model, by name.
    let bert = Bert { layers: 2, ..Bert::new(9, 6, 4, 2, 3) }.build::<f32>().init(0).unwrap();
    let (tokens, types) = (Tensor::full([2, 5], 3.0), Tensor::zeros([2, 5]));
    let shown = Tensor::from_fn([2, 5], |i| if i < 5 { 1.0 } else { 0.0 });
    holds(
        &error(bert.infer_all([&tokens, &types, &shown])),
        &["in layer `bert.encoder.layer.0", "leave every query a key", "sample 1"],
    );
    let short = Tensor::full([2, 4], 1.0);
    holds(
        &error(bert.infer_all([&tokens, &types, &short])),
        &["in layer `bert.encoder.layer.0", "key_padding_mask [2, 5], got [2, 4]"],
    );
}

#[test]
fn a_state_of_another_batch_size() {
    let x = Tensor::zeros([3, 2, 4]);
    let states = Gru::<f32>::new(4, 5).states(true).init(0).unwrap();
    holds(&error(states.infer_all([&x, &Tensor::zeros([1, 2, 5])])), &["Gru", "(1, N, 5)", "[1, 2, 5]"]);
    let cell = LstmCell::<f32>::new(4, 5).init(0).unwrap();
    let (one, h, c) = (Tensor::zeros([3, 4]), Tensor::zeros([3, 5]), Tensor::zeros([2, 5]));
    holds(&error(cell.infer_all([&one, &h, &c])), &["LstmCell", "[2, 5]"]);

    fn other_batch(model: BoxModule<f32>, place: &str) {
        let mut session = Session::new(Box::new(model.init(0).unwrap()));
        session.stream(&Tensor::zeros([3, 2, 4])).unwrap();
        let text = error(session.stream(&Tensor::zeros([2, 2, 4])).map(drop));
        holds(&text, &["in layer `memory", place, "so far, got 2"]);
    }
    fn row<M: Module<T = f32> + Clone + 'static>(layer: M) -> BoxModule<f32> {
        BoxModule::new(Sequential::new().add(Linear::new(4, 4)).named("memory", layer))
    }
    other_batch(row(Rnn::new(4, 4)), "Rnn: expected the batch of 3");
    other_batch(row(Lstm::new(4, 4)), "Lstm: expected the batch of 3");
    other_batch(row(Gru::new(4, 4)), "Gru: expected the batch of 3");
    other_batch(row(MultiheadAttention::new(4, 2).causal(true)), "expected the 3 samples");
    other_batch(row(TransformerEncoderLayer::new(4, 2).causal(true)), "expected the 3 samples");
}

#[test]
fn rows_of_a_stream_that_there_are_not() {
    let model = Sequential::new().named("memory", Gru::new(4, 4)).init(0).unwrap();
    let mut session = Session::new(&model);
    session.stream(&Tensor::zeros([3, 2, 4])).unwrap();
    holds(&error(session.reorder(&[0, 3])), &["`memory.batch`", "rows of a batch of 3, got 3"]);
    session.reorder(&[2, 2]).unwrap();
    session.stream(&Tensor::zeros([2, 1, 4])).unwrap();
}

#[test]
fn lengths_that_do_not_fit() {
    let layer = Lstm::<f32>::new(2, 3).lengths(true).init(0).unwrap();
    let x = Tensor::zeros([2, 4, 2]);
    for wrong in [0.0, 5.0, 1.5, f32::NAN] {
        let text = error(layer.infer_all([&x, &Tensor::from([4.0, wrong])]));
        holds(&text, &["Lstm: expected a whole number from 1 to 4 as the length of row 1"]);
    }
    holds(&error(layer.infer_all([&x, &Tensor::from([4.0])])), &["Lstm: expected inputs", "[1]"]);
    // More positions than there are.
    let gpt = Gpt { layers: 1, ..Gpt::new(5, 4, 4, 2) }.build::<f32>().init(0).unwrap();
    holds(&error(gpt.infer(&Tensor::zeros([1, 5]))), &["LearnedPosition", "at most 4", "5"]);
    let mut session = Session::new(&gpt);
    session.stream(&Tensor::zeros([1, 3])).unwrap();
    holds(
        &error(session.stream(&Tensor::zeros([1, 2])).map(drop)),
        &["at most 4 positions", "got 3 and 2 more"],
    );
}

#[test]
fn a_cycle_in_a_graph() {
    // A node that reads itself, and one that reads a later one.
    let list = |values: Vec<Value>| Value::List(values);
    let node = |key: &str, of: i64| list(vec![key.into(), Value::Int(of)]);
    for nodes in [vec![node("bend", 1)], vec![node("bend", 2), node("other", 1)]] {
        let spec = Spec::new("Graph")
            .with("inputs", list(vec!["x".into()]))
            .with("nodes", list(nodes))
            .with("outputs", list(vec![]))
            .child("bend", Spec::new("Tanh"))
            .child("other", Spec::new("Tanh"));
        let text = error(registry::<f32>().build_module(&spec));
        holds(&text, &["in layer `bend`", "expected one of the 1 values before"]);
    }
}

#[test]
fn an_unused_or_doubly_named_node() {
    let mut graph = Graph::<f32>::of();
    let x = graph.input("x");
    let y = graph.add("body", Linear::new(2, 2), x);
    graph.add("forgotten", Linear::new(2, 2), y);
    graph.output("y", y);
    holds(&error(graph.clone().all_used()), &["in layer `forgotten`", "leads to an output"]);
    graph.add("body", Relu::new(), y);
    holds(&error(graph.clone().build([1, 2])), &["two children are named `body`"]);
    holds(&error(graph.init(0)), &["two children are named `body`"]);

    let mut graph = Graph::<f32>::of();
    let x = graph.input("x");
    graph.input("unread");
    let y = graph.add("body", Linear::new(2, 2), x);
    graph.output("y", y);
    holds(&error(graph.all_used()), &["`unread`, which nothing reads"]);

    let mut whole = Graph::<f32>::of();
    let x = whole.input("x");
    let y = whole.add("body", Linear::new(2, 2), x);
    whole.output("y", y);
    whole.all_used().unwrap().build([1, 2]).unwrap();
}
