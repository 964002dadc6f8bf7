//! Recurrent layers: memory over time.

mod block;
mod packed;
mod passes;
mod stack;
mod walk;

pub use passes::RecurrentCache;

crate::registry::family! {
    conv_lstm2d => ConvLstm2d;
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

            fn remember(
                &self,
                cache: &mut Self::State,
                out: &mut chainrule_core::Memory<'_, T>,
            ) -> chainrule_core::Result<()> {
                self.stack.remember(cache, out)
            }

            fn cost(&self, inputs: &[chainrule_core::Shape]) -> u64 {
                self.stack.cost(inputs)
            }

            fn to_spec(&self) -> chainrule_core::Spec {
                self.settings()
            }

            fn summarize(
                &self,
                inputs: &[chainrule_core::Shape],
                out: &mut chainrule_core::Summary,
            ) -> chainrule_core::Result<Vec<chainrule_core::Shape>> {
                let outputs = self.output_shapes(inputs)?;
                let [training, inference] = self.stack.held(inputs);
                out.rows_of(self.to_spec().kind(), &outputs, self.cost(inputs), &mut |p| self.stack.list(p));
                out.hold_in_training(training);
                out.hold_in_inference(inference);
                Ok(outputs)
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

            /// Whether the last states are further outputs, also where the first ones are no inputs: what an encoder hands to a
            /// decoder.
            #[must_use]
            pub fn final_states(mut self, final_states: bool) -> Self {
                self.stack.final_states = final_states;
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
                    .with_unless(false, "final_states", s.final_states)
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
                    .final_states(args.or("final_states", false)?)
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

#[cfg(test)]
pub(crate) mod tests;
