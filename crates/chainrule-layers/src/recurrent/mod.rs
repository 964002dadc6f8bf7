//! Recurrent layers: memory over time.

mod stack;
mod walk;

pub use stack::RecurrentCache;

crate::registry::family! {
    gru => Gru;
    gru_cell => GruCell;
    lstm => Lstm;
    lstm_cell => LstmCell;
    rnn => Rnn;
    rnn_cell => RnnCell;
}

/// Implements the parameters and passes of a layer by its field `stack`, and its builder methods: those of every layer, or, after
/// `cell`, of one step.
macro_rules! recurrent {
    (@module $layer:ident) => {
        impl<T: chainrule_core::Scalar> chainrule_core::Parameters for $layer<T> {
            type T = T;

            fn list<'a>(&'a self, out: &mut chainrule_core::Params<'_, 'a, T>) {
                self.stack.list(out);
            }

            fn list_mut<'a>(&'a mut self, out: &mut chainrule_core::ParamsMut<'_, 'a, T>) {
                self.stack.list_mut(out);
            }

            fn validate(&self) -> chainrule_core::Result<()> {
                self.stack.check_settings()
            }
        }

        impl<T: chainrule_core::Scalar> chainrule_core::Module for $layer<T> {
            type State = $crate::recurrent::RecurrentCache<T>;

            fn inputs(&self) -> usize {
                self.stack.inputs()
            }

            fn outputs(&self) -> usize {
                self.stack.outputs()
            }

            fn differentiable_input(&self, input: usize) -> bool {
                self.stack.differentiable_input(input)
            }

            fn output_shapes(
                &self,
                inputs: &[chainrule_core::Shape],
            ) -> chainrule_core::Result<Vec<chainrule_core::Shape>> {
                self.stack.output_shapes(inputs)
            }

            fn apply(
                &self,
                xs: &[&chainrule_core::Tensor<T>],
                ys: &mut [chainrule_core::Tensor<T>],
                cache: &mut Self::State,
                cx: chainrule_core::Context,
            ) -> chainrule_core::Result<()> {
                self.stack.apply(xs, ys, cache, cx)
            }

            fn pull(
                &self,
                call: chainrule_core::ModuleCall<'_, T>,
                cache: &mut Self::State,
                grads: &mut chainrule_core::Grads<T>,
                dxs: &mut [Option<&mut chainrule_core::Tensor<T>>],
            ) -> chainrule_core::Result<()> {
                self.stack.pull(call, cache, grads, dxs)
            }

            fn reads_outputs(&self) -> bool {
                false
            }

            fn cost(&self, inputs: &[chainrule_core::Shape]) -> u64 {
                self.stack.cost(inputs)
            }

            fn to_spec(&self) -> chainrule_core::Spec {
                self.settings()
            }
        }
    };
    ($layer:ident) => {
        $crate::recurrent::recurrent! { @module $layer }

        impl<T: chainrule_core::Scalar> $layer<T> {
            /// How many layers stand on one another, 1 by default; each takes the outputs of the one below.
            #[must_use]
            pub fn num_layers(mut self, layers: usize) -> Self {
                self.stack.layers = layers;
                Self { stack: self.stack.rebuilt() }
            }

            /// With or without the biases `bias_ih` and `bias_hh`.
            #[must_use]
            pub fn bias(mut self, bias: bool) -> Self {
                self.stack.bias = bias;
                Self { stack: self.stack.rebuilt() }
            }

            /// Whether x and y are (N, T, …), as by default, or (T, N, …), as PyTorch's are by default.
            #[must_use]
            pub fn batch_first(mut self, batch_first: bool) -> Self {
                self.stack.batch_first = batch_first;
                self
            }

            /// The probability by which an element between two layers is dropped in training, 0 by default.
            #[must_use]
            pub fn dropout(mut self, dropout: f64) -> Self {
                self.stack.dropout = dropout;
                self
            }

            /// Whether each layer goes through the sequence a second time, from its end, with parameters of its own; its outputs
            /// are those of both directions, side by side.
            #[must_use]
            pub fn bidirectional(mut self, bidirectional: bool) -> Self {
                self.stack.bidirectional = bidirectional;
                Self { stack: self.stack.rebuilt() }
            }

            /// Whether the first states are further inputs and the last ones further outputs. Without them the first states are
            /// zeros.
            #[must_use]
            pub fn states(mut self, states: bool) -> Self {
                self.stack.states = states;
                self
            }

            /// Whether the lengths of the sequences, (N) whole numbers, are a second input.
            #[must_use]
            pub fn lengths(mut self, lengths: bool) -> Self {
                self.stack.lengths = lengths;
                self
            }

            /// Whether y is the last layer's h after the last step alone, (N, D · H): that of the last real step where lengths are
            /// given, and of each direction the one that it ends with. It is what classifiers of sequences read.
            #[must_use]
            pub fn last(mut self, last: bool) -> Self {
                self.stack.last = last;
                self
            }

            /// The spec without what only this layer has.
            fn common(&self, spec: chainrule_core::Spec) -> chainrule_core::Spec {
                let s = &self.stack;
                spec.with("input_size", s.inputs)
                    .with("hidden_size", s.hidden)
                    .with_unless(1, "num_layers", s.layers)
                    .with_unless(true, "bias", s.bias)
                    .with_unless(true, "batch_first", s.batch_first)
                    .with_unless(0.0, "dropout", s.dropout)
                    .with_unless(false, "bidirectional", s.bidirectional)
                    .with_unless(false, "states", s.states)
                    .with_unless(false, "lengths", s.lengths)
                    .with_unless(false, "last", s.last)
            }

            /// The layer without what only this layer has.
            fn from_common(args: &chainrule_core::Args<'_, T>) -> chainrule_core::Result<Self> {
                Ok(Self::new(args.get("input_size")?, args.get("hidden_size")?)
                    .num_layers(args.or("num_layers", 1)?)
                    .bias(args.or("bias", true)?)
                    .batch_first(args.or("batch_first", true)?)
                    .dropout(args.or("dropout", 0.0)?)
                    .bidirectional(args.or("bidirectional", false)?)
                    .states(args.or("states", false)?)
                    .lengths(args.or("lengths", false)?)
                    .last(args.or("last", false)?))
            }
        }
    };
    (cell $layer:ident) => {
        $crate::recurrent::recurrent! { @module $layer }

        impl<T: chainrule_core::Scalar> $layer<T> {
            /// With or without the biases `bias_ih` and `bias_hh`.
            #[must_use]
            pub fn bias(mut self, bias: bool) -> Self {
                self.stack.bias = bias;
                Self { stack: self.stack.rebuilt() }
            }
        }
    };
}
pub(crate) use recurrent;

/// Tests that every kind runs through.
#[cfg(test)]
pub(crate) mod tests {
    use chainrule_core::{Context, Grads, Module, ModuleCall, Parameters, Tensor};

    /// Sets a parameter by its path.
    pub fn set(layer: &mut impl Parameters<T = f64>, path: &str, values: &[f64]) {
        let mut found = 0;
        layer.visit_mut(&mut |at, p| {
            if at.to_string() == path {
                let shape = *p.shape();
                p.set(Tensor::from_vec(shape, values.to_vec()).unwrap()).unwrap();
                found += 1;
            }
        });
        assert_eq!(found, 1, "{path}");
    }

    /// The shapes of the inputs of (N, T, I) for so many states of one or two sizes: x, lengths, states.
    pub fn shapes<const S: usize>(
        [rows, time, inputs]: [usize; 3],
        all: usize,
        sizes: [usize; S],
        [batch_first, lengths, states]: [bool; 3],
    ) -> Vec<Vec<usize>> {
        let x = if batch_first { vec![rows, time, inputs] } else { vec![time, rows, inputs] };
        let states = if states { sizes.map(|size| vec![all, rows, size]).to_vec() } else { Vec::new() };
        [vec![x], if lengths { vec![vec![rows]] } else { Vec::new() }, states].concat()
    }

    /// Forward and backward: outputs, ∂E/∂x of inputs that have one, ∂E/∂θ in the order of the parameters.
    pub fn pass<M: Module<T = f64>>(
        layer: &M,
        xs: &[&Tensor<f64>],
        dys: &[Option<&Tensor<f64>>],
    ) -> (Vec<Tensor<f64>>, Vec<Tensor<f64>>, Vec<f64>) {
        let (mut ys, mut state) = (vec![Tensor::default(); layer.outputs()], M::State::default());
        layer.apply(xs, &mut ys, &mut state, Context::train(0)).unwrap();
        let (mut grads, mut dxs) = (Grads::new(layer), vec![Tensor::default(); xs.len()]);
        let mut requested: Vec<_> =
            dxs.iter_mut().enumerate().map(|(k, dx)| layer.differentiable_input(k).then_some(dx)).collect();
        let call = ModuleCall::new(layer, xs, &ys, dys).unwrap();
        layer.pull(call, &mut state, &mut grads, &mut requested).unwrap();
        (ys, dxs, grads.values().to_vec())
    }

    pub fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12 * want.abs().max(1.0), "{got:?} for {want:?}");
        }
    }
}
