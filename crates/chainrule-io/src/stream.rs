//! What a stream remembers, as bytes: a sequence goes on in another process.

use crate::Archive;
use chainrule_core::{Error, Module, Parameters, Result, Session, StreamState};
use std::ops::Deref;

/// The entry that says that the bytes are of a stream, and in which version.
const STREAM: &str = "chainrule.stream";
const CURRENT: &str = "1";

/// What the stream of a session remembers of the sequence so far: states of recurrent layers, keys and values of attention,
/// positions. The weights are not in it. The bytes are those of an [`Archive`] by the layers' paths, and their hash is among them.
///
/// ```
/// use chainrule_core::{Module, Parameters, Session, Tensor};
/// use chainrule_io::{restore_stream, stream_to_bytes};
/// use chainrule_layers::Gru;
/// let model = Gru::<f32>::new(2, 4).init(1)?;
/// let (x, next) = (Tensor::full([1, 5, 2], 0.5), Tensor::full([1, 1, 2], -0.5));
/// let mut session = Session::new(&model);
/// session.stream(&x)?;
/// let bytes = stream_to_bytes(&mut session)?;
///
/// let mut elsewhere = Session::new(&model);
/// restore_stream(&mut elsewhere, &bytes)?;
/// assert_eq!(elsewhere.stream(&next)?, session.stream(&next)?);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
///
/// # Errors
/// A layer lists two parts under one name.
pub fn stream_to_bytes<P: Deref<Target: Module>>(session: &mut Session<P>) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.set(STREAM, CURRENT);
    for (path, value) in session.stream_state()?.iter() {
        archive.put(path.to_owned(), value.clone())?;
    }
    archive.to_bytes()
}

/// Goes on with the sequence of [`stream_to_bytes`]: the model has the weights that it had there, and every further piece gives the same
/// bits. After an error nothing has changed. Bytes from elsewhere cost no more memory than they have, and give an error or a
/// state of the sizes of this model.
///
/// # Errors
/// The bytes are no stream's, are damaged, or are of a model of other layers, sizes or type of values.
pub fn restore_stream<P: Deref<Target: Module>>(session: &mut Session<P>, bytes: &[u8]) -> Result<()> {
    let mut archive = Archive::<<P::Target as Parameters>::T>::read(bytes, false)?;
    match archive.find(STREAM) {
        Some(CURRENT) => {}
        _ => {
            return Err(Error::format(format!(
                "stream: expected an entry `{STREAM}` of {CURRENT}, got none"
            )));
        }
    }
    let mut state = StreamState::new();
    for name in archive.names("") {
        if let Some(value) = archive.remove(&name) {
            state.insert(name, value);
        }
    }
    session.restore_stream(&state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{BoxModule, Context, Scalar, Shape, StateValue, Tensor};
    use chainrule_layers::{
        ConvLstm2d, Dropout, Embedding, Gru, LearnedPosition, Linear, Lstm, MaskKind, MultiheadAttention,
        Residual, Rnn, Rope, ScaledDotProductAttention, Sequential, SinusoidalPosition, TransformerEncoder,
        TransformerEncoderLayer,
    };

    fn tokens(n: usize, t: usize, first: usize) -> Tensor<f32> {
        Tensor::from_fn([n, t], |i| ((i + first) * 7 % 5) as f32)
    }

    /// A model in which much remembers.
    fn model() -> Sequential<f32> {
        let layer = TransformerEncoderLayer::new(8, 2).dim_feedforward(8).causal(true);
        Sequential::new()
            .add(Embedding::new(5, 8))
            .named("place", LearnedPosition::new(40, 8))
            .add(SinusoidalPosition::new(8))
            .named("lstm", Lstm::new(8, 8).num_layers(2))
            .add(Residual::new(MultiheadAttention::new(8, 2).causal(true).rope(1e4, Default::default())))
            .add(Rope::new(8))
            .add(Dropout::new(0.5))
            .named("encoder", TransformerEncoder::new(layer, 2))
            .add(Linear::new(8, 3))
            .init(1)
            .unwrap()
    }

    #[test]
    fn a_stream_goes_on_from_bytes_with_the_same_bits() {
        let model = model();
        let mut session = Session::new(&model);
        let whole = session.run(&tokens(1, 40, 0)).unwrap().clone();
        for cut in [0, 1, 13, 39] {
            session.reset();
            if cut > 0 {
                session.stream(&tokens(1, cut, 0)).unwrap();
            }
            let bytes = stream_to_bytes(&mut session).unwrap();
            let mut other = Session::new(&model);
            restore_stream(&mut other, &bytes).unwrap();
            assert_eq!(stream_to_bytes(&mut other).unwrap(), bytes);
            let y = other.stream(&tokens(1, 40 - cut, cut)).unwrap();
            assert_eq!(y.data(), &whole.data()[3 * cut..], "cut at {cut}");
        }
    }

    #[test]
    fn states_that_are_not_finite_come_back() {
        let attention =
            MultiheadAttention::<f32>::new(4, 2).causal(true).key_padding_mask(MaskKind::Additive);
        let model = attention.init(1).unwrap();
        let (x, mask) = (Tensor::full([2, 3, 4], 0.5), Tensor::from([[0.0, f32::NEG_INFINITY, 1.0]; 2]));
        let mut session = Session::new(&model);
        session.stream([&x, &mask]).unwrap();
        let bytes = stream_to_bytes(&mut session).unwrap();
        let mut other = Session::new(&model);
        restore_stream(&mut other, &bytes).unwrap();
        let next = [&x, &mask];
        assert_eq!(session.stream(next).unwrap(), other.stream(next).unwrap());
    }

    /// Cut anywhere, with any bit changed: an error, and what was there goes on.
    #[test]
    fn damaged_bytes_are_an_error_and_change_nothing() {
        let model = Gru::<f32>::new(1, 1).init(1).unwrap();
        let x = Tensor::full([1, 2, 1], 0.5);
        let mut session = Session::new(&model);
        session.stream(&x).unwrap();
        let bytes = stream_to_bytes(&mut session).unwrap();
        for n in 0..bytes.len() {
            assert!(restore_stream(&mut session, &bytes[..n]).is_err(), "cut at {n}");
            let mut other = bytes.clone();
            other[n] ^= 1 << (n % 8);
            let mut fresh = Session::new(&model);
            if restore_stream(&mut fresh, &other).is_ok() {
                assert_eq!(stream_to_bytes(&mut fresh).unwrap(), bytes, "bit {} of byte {n}", n % 8);
            }
        }
        assert_eq!(stream_to_bytes(&mut session).unwrap(), bytes);
        let error = restore_stream(&mut session, &Archive::<f32>::new().to_bytes().unwrap()).unwrap_err();
        assert!(error.to_string().contains("expected an entry `chainrule.stream`"), "{error}");
    }

    #[test]
    fn the_stream_of_another_model_is_an_error_that_names_the_part() {
        let session = |model: &Sequential<f32>| {
            let mut session = Session::new(Box::new(model.clone()));
            session.stream(&Tensor::full([2, 3, 4], 0.5)).unwrap();
            stream_to_bytes(&mut session).unwrap()
        };
        let small = Sequential::new().named("memory", Gru::new(4, 3)).init(1).unwrap();
        let large = Sequential::new().named("memory", Gru::new(4, 5)).init(1).unwrap();
        let other = Sequential::new().named("other", Gru::new(4, 3)).init(1).unwrap();
        let cells = Sequential::new().named("memory", Lstm::new(4, 3)).init(1).unwrap();
        let bytes = session(&small);
        let text = |model: &Sequential<f32>, bytes: &[u8]| {
            restore_stream(&mut Session::new(model), bytes).unwrap_err().to_string()
        };
        let error = text(&large, &bytes);
        assert!(error.contains("`memory.h`: expected values of shape [1, 2, 5], got [1, 2, 3]"), "{error}");
        assert!(text(&other, &bytes).contains("`other.started`: expected a count, got none"));
        assert!(text(&cells, &bytes).contains("`memory.c`: expected values, got none"));
        assert!(text(&small, &session(&cells)).contains("`memory.c`, which it does not have"));
        // A stream of two rows goes on with two.
        let mut two = Session::new(&small);
        restore_stream(&mut two, &bytes).unwrap();
        let error = two.stream(&Tensor::zeros([3, 1, 4])).unwrap_err().to_string();
        assert!(error.contains("expected the batch of 2 of the stream so far, got 3"), "{error}");
    }

    /// Every count and shape at its extremes, behind a hash that fits: no panic, and no memory that the bytes do not have.
    #[test]
    fn hostile_states_are_errors_or_go_on() {
        fn check(name: &str, model: impl Module<T = f32> + Clone + 'static, xs: &[Tensor<f32>]) {
            let model = BoxModule::new(model).init(1).unwrap();
            let mut session = Session::new(&model);
            session.stream_all(xs).unwrap();
            let saved = session.stream_state().unwrap();
            let large = u64::from(u32::MAX >> 1);
            for (path, value) in saved.iter() {
                let others = match value {
                    StateValue::Count(n) => {
                        [0, 1, n + 1, large, large + 1, u64::MAX].map(StateValue::Count).to_vec()
                    }
                    StateValue::Values(values) => {
                        let wider = values.shape().with(2, values.shape()[2] + 1);
                        let none = values.shape().with(1, 0);
                        [wider, none, Shape::from([0])].map(|s| StateValue::Values(Tensor::zeros(s))).to_vec()
                    }
                };
                for other in others {
                    let mut hostile = saved.clone();
                    let text = format!("{name}: {path}: {other:?}");
                    hostile.insert(path, other);
                    let mut session = Session::new(&model);
                    if session.restore_stream(&hostile).is_ok() {
                        let again = session.stream_all(xs).map(|_| ());
                        if let Err(error) = again {
                            assert!(!error.to_string().is_empty(), "{text}");
                        }
                        let _ = session.stream_state();
                    }
                }
            }
        }
        let x = |shape: &[usize]| Tensor::<f32>::full(Shape::new(shape).unwrap(), 0.5);
        let three = [x(&[2, 3, 4])];
        check("rnn", Rnn::new(4, 3), &three);
        check("lstm", Lstm::new(4, 3).proj_size(2).num_layers(2), &three);
        check("gru with lengths", Gru::new(4, 3).lengths(true), &[x(&[2, 3, 4]), Tensor::from([3.0, 2.0])]);
        check("conv lstm", ConvLstm2d::new(2, 3, 3), &[x(&[2, 3, 2, 4, 5])]);
        check("learned", LearnedPosition::new(9, 4), &three);
        check("sinusoidal", SinusoidalPosition::new(4), &three);
        check("rope", Rope::new(4), &three);
        let attention = || MultiheadAttention::new(4, 2).causal(true);
        check("attention", attention().rope(1e4, Default::default()), &three);
        check("added keys", attention().add_bias_kv(true).add_zero_attn(true).window(2), &three);
        check(
            "alibi",
            attention().alibi(true).key_padding_mask(MaskKind::Boolean),
            &[x(&[2, 3, 4]), Tensor::zeros([2, 3])],
        );
        check(
            "memory",
            MultiheadAttention::new(4, 2).memory(true).causal(true),
            &[x(&[2, 3, 4]), x(&[2, 3, 4])],
        );
        let all = [x(&[2, 3, 5, 4]), x(&[2, 3, 5, 4]), x(&[2, 3, 5, 4])];
        check("scaled", ScaledDotProductAttention::new().causal(true), &all);
        check("scaled in a window", ScaledDotProductAttention::new().window(2), &all);
        check("a model", model(), &[tokens(2, 5, 0)]);
    }

    #[test]
    fn a_pass_that_is_no_stream_leaves_nothing_to_remember() {
        fn started<T: Scalar>(state: &StreamState<T>) -> bool {
            state.iter().any(|(_, value)| matches!(value, StateValue::Values(_) | StateValue::Count(1..)))
        }
        let model = model();
        let mut session = Session::new(&model);
        session.stream(&tokens(2, 5, 0)).unwrap();
        assert!(started(&session.stream_state().unwrap()));
        session.run(&tokens(2, 5, 0)).unwrap();
        assert!(!started(&session.stream_state().unwrap()));
        let (mut y, mut state) = (Tensor::default(), <Sequential<f32> as Module>::State::default());
        model.apply_one(&tokens(2, 5, 0), &mut y, &mut state, Context::train(1)).unwrap();
        assert!(!started(&StreamState::of(|out| model.remember(&mut state, out)).unwrap()));
    }
}
