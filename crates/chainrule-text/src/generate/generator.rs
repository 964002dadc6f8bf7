//! Tokens one after another.

use super::{
    Text,
    run::{Ended, Generated, Run, Stops, session},
    sampler::Sampler,
};
use crate::Tokenizer;
use chainrule_core::{Error, Module, Parameters, Result, Session, Tensor};
use std::{fmt, ops::Deref};

/// Continues prompts by a model that maps token ids (N, T) to logits (N, T, V).
///
/// It runs the model under [`Context::stream`](chainrule_core::Context::stream): after the prompt each token is one step of T = 1,
/// and layers with memory keep what they need. As [`Session`], it holds a reference to the model, or shares or owns it.
///
/// Several prompts are one batch. They are aligned at their first tokens, and those of a longer prompt are fed one by one while shorter
/// ones are being continued; nothing is padded, so that each gives what it gives alone, up to the rounding of the logits, as long as the
/// model computes each row of a batch by itself. Row i draws from the stream of random numbers (seed, i), a single prompt from (seed, 0), whatever else is in the
/// batch: [`Generator::first`] sets the number of the first.
///
/// # Errors
/// Settings that make no sense and empty prompts are refused when a generation starts; logits that are NaN, +∞ or all −∞ when they
/// come up.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters};
/// use chainrule_layers::{Embedding, Linear, Sequential};
/// use chainrule_text::{Ended, Generator};
/// let model = Sequential::new().add(Embedding::<f32>::new(10, 4)).add(Linear::new(4, 10)).init(1)?;
/// let mut generator = Generator::new(&model)?.temperature(0.9).top_p(0.95).seed(3).max_tokens(5).stop_token(0);
/// for token in generator.tokens(&[4, 7])? {
///     println!("{}", token?);
/// }
/// let all = generator.generate([&[4, 7][..], &[1]])?; // two prompts, one batch
/// assert!(all.iter().all(|g| g.ids.len() == 5 || g.ended == Ended::Token(0)));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub struct Generator<P: Deref<Target: Module>> {
    session: Session<P>,
    x: Tensor<<P::Target as Parameters>::T>,
    sampler: Sampler,
    seed: u64,
    first: u64,
    stops: Stops,
}

impl<P: Deref<Target: Module>> Generator<P> {
    /// A generator that draws from the model's distribution, with the seed 0, of at most 256 tokens.
    ///
    /// # Errors
    /// The model has several inputs or outputs.
    pub fn new(model: P) -> Result<Self> {
        Ok(Self {
            session: session(model)?,
            x: Tensor::default(),
            sampler: Sampler::new(),
            seed: 0,
            first: 0,
            stops: Stops {
                max_tokens: 256,
                context: None,
                tokens: Vec::new(),
                strings: Vec::new(),
                condition: None,
            },
        })
    }

    /// Draws by this sampler.
    #[must_use]
    pub fn sampler(self, sampler: Sampler) -> Self {
        Self { sampler, ..self }
    }

    /// Takes the most probable token.
    #[must_use]
    pub fn greedy(self) -> Self {
        self.temperature(0.0)
    }

    /// As [`Sampler::temperature`].
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.sampler = self.sampler.temperature(temperature);
        self
    }

    /// As [`Sampler::top_k`].
    #[must_use]
    pub fn top_k(mut self, k: impl Into<Option<usize>>) -> Self {
        self.sampler = self.sampler.top_k(k);
        self
    }

    /// As [`Sampler::top_p`].
    #[must_use]
    pub fn top_p(mut self, p: f64) -> Self {
        self.sampler = self.sampler.top_p(p);
        self
    }

    /// As [`Sampler::repetition_penalty`], over prompt and continuation.
    #[must_use]
    pub fn repetition_penalty(mut self, penalty: f64) -> Self {
        self.sampler = self.sampler.repetition_penalty(penalty);
        self
    }

    /// The seed of the random numbers.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The number of the first sequence among those of a seed, 0 by default.
    #[must_use]
    pub fn first(self, sequence: u64) -> Self {
        Self { first: sequence, ..self }
    }

    /// The most tokens of a continuation.
    #[must_use]
    pub fn max_tokens(mut self, count: usize) -> Self {
        self.stops.max_tokens = count;
        self
    }

    /// The most positions that the model takes, prompt included; none by default.
    #[must_use]
    pub fn context(mut self, positions: impl Into<Option<usize>>) -> Self {
        self.stops.context = positions.into();
        self
    }

    /// Ends before this token, and those that were named before.
    #[must_use]
    pub fn stop_token(mut self, id: u32) -> Self {
        self.stops.tokens.push(id);
        self
    }

    /// Ends before this string in the text, and those that were named before: for [`Generator::text`], [`Generator::write`] and
    /// [`Generator::write_all`].
    #[must_use]
    pub fn stop_string(mut self, string: impl Into<String>) -> Self {
        self.stops.strings.push(string.into());
        self
    }

    /// Ends after the token with which `condition` holds for the tokens after the prompt.
    #[must_use]
    pub fn stop_when(mut self, condition: impl FnMut(&[u32]) -> bool + Send + 'static) -> Self {
        self.stops.condition = Some(Box::new(condition));
        self
    }

    /// Another seed for the next generation.
    pub fn reseed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// The model.
    pub fn model(&self) -> &P::Target {
        self.session.model()
    }

    /// The tokens that follow a prompt, each computed when it is asked for.
    ///
    /// # Errors
    /// A setting makes no sense, or the prompt is empty or longer than the context.
    pub fn tokens(&mut self, prompt: &[u32]) -> Result<Tokens<'_, P>> {
        self.start(vec![prompt.to_vec()], None).map(Tokens)
    }

    /// What follows each of some prompts, as one batch.
    ///
    /// # Errors
    /// As [`Generator::tokens`], and as the model and [`Sampler::sample`].
    pub fn generate<I: AsRef<[u32]>>(
        &mut self,
        prompts: impl IntoIterator<Item = I>,
    ) -> Result<Vec<Generated>> {
        let prompts = prompts.into_iter().map(|prompt| prompt.as_ref().to_vec()).collect();
        self.start(prompts, None)?.all()
    }

    /// The text that follows a prompt, in pieces that come when they are complete.
    ///
    /// ```
    /// # use chainrule_core::{Module, Parameters};
    /// # use chainrule_layers::{Embedding, Linear, Sequential};
    /// # use chainrule_text::{Bytes, Generator};
    /// # let model = Sequential::new().add(Embedding::<f32>::new(256, 4)).add(Linear::new(4, 256)).init(1)?;
    /// let mut generator = Generator::new(&model)?.max_tokens(10).stop_string("\n");
    /// for piece in generator.text(&Bytes::new(), "Once")? {
    ///     print!("{}", piece?);
    /// }
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Generator::tokens`] and [`Tokenizer::encode`].
    pub fn text<'g>(&'g mut self, tokenizer: &'g dyn Tokenizer, prompt: &str) -> Result<Text<'g, P>> {
        self.start(vec![tokenizer.encode(prompt)?], Some(tokenizer)).map(Text)
    }

    /// The text that follows a prompt.
    ///
    /// # Errors
    /// As [`Generator::text`] and [`Generator::generate`].
    pub fn write(&mut self, tokenizer: &dyn Tokenizer, prompt: &str) -> Result<String> {
        self.text(tokenizer, prompt)?.collect()
    }

    /// What follows each of some prompts, as one batch, with its text.
    ///
    /// # Errors
    /// As [`Generator::text`] and [`Generator::generate`].
    pub fn write_all<S: AsRef<str>>(
        &mut self,
        tokenizer: &dyn Tokenizer,
        prompts: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Generated>> {
        let prompts = prompts.into_iter().map(|prompt| tokenizer.encode(prompt.as_ref()));
        let prompts = prompts.collect::<Result<_>>()?;
        self.start(prompts, Some(tokenizer))?.all()
    }

    fn start<'g>(
        &'g mut self,
        prompts: Vec<Vec<u32>>,
        tokenizer: Option<&'g dyn Tokenizer>,
    ) -> Result<Steps<'g, P>> {
        self.sampler.check()?;
        let Self { session, x, sampler, seed, first, stops } = self;
        let run = Run::new(prompts, tokenizer, stops, (*seed, *first))?;
        session.reset();
        Ok(Steps { run, session, x, sampler, stops, failed: false })
    }
}

impl<P: Deref<Target: Module>> fmt::Debug for Generator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("session", &self.session)
            .field("sampler", &self.sampler)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// A generation that is under way.
pub(super) struct Steps<'g, P: Deref<Target: Module>> {
    pub(super) run: Run<'g>,
    session: &'g mut Session<P>,
    x: &'g mut Tensor<<P::Target as Parameters>::T>,
    sampler: &'g Sampler,
    pub(super) stops: &'g mut Stops,
    failed: bool,
}

impl<P: Deref<Target: Module>> Steps<'_, P> {
    /// One step; `None` after the end, and after an error.
    pub(super) fn step(&mut self) -> Option<Result<()>> {
        if self.failed || self.run.done() {
            return None;
        }
        let done = self.run.step(self.session, self.x, self.sampler, self.stops);
        self.failed = done.is_err();
        Some(done)
    }

    fn all(mut self) -> Result<Vec<Generated>> {
        while let Some(done) = self.step() {
            done?;
        }
        let rows = self.run.rows.into_iter();
        rows.map(|mut row| {
            let ended = row.ended.take().ok_or_else(|| Error::value("Generator: a sequence did not end"))?;
            let text = row.writing.take().map(|writing| writing.text).unwrap_or_default();
            Ok(Generated { ids: row.new_ids().to_vec(), text, ended })
        })
        .collect()
    }
}

/// The tokens that follow a prompt; see [`Generator::tokens`].
pub struct Tokens<'g, P: Deref<Target: Module>>(Steps<'g, P>);

impl<P: Deref<Target: Module>> Tokens<'_, P> {
    /// Why there are no more tokens, once there are none.
    pub fn ended(&self) -> Option<&Ended> {
        self.0.run.rows[0].ended.as_ref()
    }

    /// The tokens so far, without the prompt.
    pub fn ids(&self) -> &[u32] {
        self.0.run.rows[0].new_ids()
    }
}

impl<P: Deref<Target: Module>> Iterator for Tokens<'_, P> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        let before = self.ids().len();
        match self.0.step()? {
            Ok(()) => self.ids().get(before).copied().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

impl<P: Deref<Target: Module>> fmt::Debug for Tokens<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("ids", &self.ids())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

impl<P: Deref<Target: Module>> fmt::Debug for Text<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("ids", &self.ids()).field("ended", &self.ended()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bigram, causal};
    use super::*;
    use crate::{Bytes, Chars};
    use chainrule_core::Context;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The definition: the whole sequence anew for each token.
    fn plain(
        model: &impl Module<T = f64>,
        prompt: &[u32],
        n: usize,
        sampler: &Sampler,
        stream: u64,
    ) -> Vec<u32> {
        let mut ids = prompt.to_vec();
        let mut rng = chainrule_core::Rng::new(chainrule_tensor::noise_key(5, stream));
        for _ in 0..n {
            let y = model.infer(&Tensor::from_fn([1, ids.len()], |i| f64::from(ids[i]))).unwrap();
            let v = y.shape()[2];
            let next = sampler.sample(&y.data()[(ids.len() - 1) * v..], &ids, &mut rng).unwrap();
            ids.push(next);
        }
        ids.split_off(prompt.len())
    }

    proptest! {
        #[test]
        fn each_prompt_of_a_batch_gives_what_it_gives_alone_and_without_a_stream(
            prompts in prop::collection::vec(prop::collection::vec(0u32..6, 1..7), 1..5),
            n in 0usize..8, temperature in prop_oneof![Just(0.0), 0.3f64..2.0], seed in 0u64..100,
        ) {
            let model = causal::<f64>(6, 4, seed);
            let sampler = Sampler::new().temperature(temperature).top_k(4).repetition_penalty(1.2);
            let generator = || Generator::new(&model).unwrap().sampler(sampler.clone()).seed(5).max_tokens(n);
            let all = generator().generate(&prompts).unwrap();
            for (i, (prompt, generated)) in prompts.iter().zip(&all).enumerate() {
                let mut alone = generator().first(i as u64);
                let tokens: Result<Vec<u32>> = alone.tokens(prompt).unwrap().collect();
                prop_assert_eq!(&tokens.unwrap(), &generated.ids);
                prop_assert_eq!(&generated.ended, &Ended::MaxTokens);
                prop_assert_eq!(&plain(&model, prompt, n, &sampler, i as u64), &generated.ids);
            }
        }
    }

    #[test]
    fn the_model_of_the_tests_gives_piece_by_piece_what_it_gives_for_the_whole() {
        let model = causal::<f64>(6, 4, 2);
        let x = Tensor::from([[1.0, 4.0, 2.0, 0.0, 5.0]]);
        let whole = model.infer(&x).unwrap();
        let (mut session, mut pieces) = (Session::new(&model), Vec::new());
        for piece in [&x.data()[..2], &x.data()[2..3], &x.data()[3..]] {
            let piece = Tensor::from_vec([1, piece.len()], piece.to_vec()).unwrap();
            pieces.extend_from_slice(session.stream(&piece).unwrap().data());
        }
        // The product of the last layer takes its sums in an order that depends on the number of rows.
        assert!(pieces.iter().zip(whole.data()).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs())));
        let mut pass = chainrule_core::Pass::new(&model);
        pass.forward(&model, &x, Context::frozen()).unwrap();
    }

    #[test]
    fn a_generator_begins_anew_each_time() {
        let model = Arc::new(causal::<f32>(7, 3, 1));
        let mut generator = Generator::new(model).unwrap().seed(9).max_tokens(30);
        let first = generator.generate([[1, 2]]).unwrap();
        assert_eq!(generator.generate([[1, 2]]).unwrap(), first);
        let some: Vec<u32> = generator.tokens(&[1, 2]).unwrap().take(4).map(Result::unwrap).collect();
        assert_eq!(some, first[0].ids[..4]);
        generator.reseed(10);
        assert_ne!(generator.generate([[1, 2]]).unwrap(), first);
    }

    /// 0 → 1 → 2 → 3 → 0.
    fn cycle() -> chainrule_layers::Sequential<f32> {
        bigram(&[&[0., 9., 0., 0.], &[0., 0., 9., 0.], &[0., 0., 0., 9.], &[9., 0., 0., 0.]])
    }

    #[test]
    fn every_stop_condition_ends_and_says_so() {
        let model = cycle();
        let generator = || Generator::new(&model).unwrap().greedy();
        let one = |mut generator: Generator<_>| generator.generate([[0]]).unwrap().remove(0);
        let ended = |generated: Generated, ids: &[u32], ended| {
            assert_eq!((&generated.ids[..], &generated.ended), (ids, &ended));
        };
        ended(one(generator().max_tokens(0)), &[], Ended::MaxTokens);
        ended(one(generator().max_tokens(3)), &[1, 2, 3], Ended::MaxTokens);
        ended(one(generator().stop_token(9).stop_token(3)), &[1, 2], Ended::Token(3));
        ended(one(generator().stop_when(|ids| ids.ends_with(&[3, 0]))), &[1, 2, 3, 0], Ended::Condition);
        ended(one(generator().context(3)), &[1, 2, 3], Ended::Context);
        assert_eq!(one(generator()).ids.len(), 256);
        // Rows end by themselves.
        let all = generator().stop_token(3).max_tokens(2).generate([&[2][..], &[0], &[3, 0, 1]]).unwrap();
        let ids: Vec<_> = all.iter().map(|g| &g.ids[..]).collect();
        assert_eq!(ids, [&[][..], &[1, 2], &[2]]);
        let mut generator = generator().stop_token(3);
        let mut tokens = generator.tokens(&[0]).unwrap();
        assert!(tokens.ended().is_none());
        assert_eq!(tokens.by_ref().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
        assert!(tokens.next().is_none() && tokens.ended() == Some(&Ended::Token(3)));
    }

    #[test]
    fn text_ends_before_a_string_that_stops() {
        let model = cycle();
        let chars = Chars::fit("abcd").unwrap();
        let generator = || Generator::new(&model).unwrap().greedy().max_tokens(9);
        assert_eq!(generator().write(&chars, "a").unwrap(), "bcdabcdab");
        let all = generator().stop_string("da").stop_string("cdab").write_all(&chars, ["a", "dab"]).unwrap();
        let text: Vec<_> = all.iter().map(|g| (g.text.as_str(), &g.ids[..], g.ended.clone())).collect();
        let da = || Ended::Text("da".into());
        assert_eq!(text, [("bc", &[1, 2, 3, 0][..], da()), ("c", &[2, 3, 0], da())]);
        // What may be the start of a string is held back until it is known not to be.
        let mut generator = generator().stop_string("cdx");
        let pieces: Vec<String> = generator.text(&chars, "a").unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces, ["b", "cda", "b", "cda", "b"]);
        let mut text = generator.text(&chars, "a").unwrap();
        assert!(text.by_ref().all(|piece| piece.is_ok()));
        assert_eq!((text.ended(), text.ids().len()), (Some(&Ended::MaxTokens), 9));
    }

    #[test]
    fn wrong_prompts_models_and_settings_are_errors() {
        let model = cycle();
        let generator = || Generator::new(&model).unwrap();
        let text = |result: Result<Vec<Generated>>| result.unwrap_err().to_string();
        assert!(text(generator().generate([[0u32; 0]])).contains("got none in prompt 0"));
        assert!(text(generator().generate(Vec::<Vec<u32>>::new())).contains("at least one prompt"));
        assert!(
            text(generator().context(1).generate([[0, 1]])).contains("at most 1 tokens, the context, got 2")
        );
        assert!(text(generator().generate([[4]])).contains("Embedding: expected integers in 0..4, got 4"));
        assert!(text(generator().top_k(0).generate([[0]])).contains("top-k of at least 1"));
        assert!(text(generator().stop_string("a").generate([[0]])).contains("expected a tokenizer"));
        assert!(text(generator().stop_string("").write_all(&Bytes::new(), ["\0"])).contains("an empty one"));
        let nan = bigram(&[&[0., 9.], &[f32::NAN, 0.]]);
        let mut generator = Generator::new(&nan).unwrap();
        let mut tokens = generator.tokens(&[0]).unwrap();
        let error = tokens.by_ref().find_map(Result::err).unwrap().to_string();
        assert!(error.contains("sequence 0, after ") && error.contains("got NaN of token 0"), "{error}");
        assert!(tokens.next().is_none());
        let flat = chainrule_layers::Linear::<f32>::new(1, 4).init(0).unwrap();
        assert!(
            text(Generator::new(&flat).unwrap().generate([[0]]))
                .contains("expected logits (N, T, V) = (1, 1, V)")
        );
    }
}
