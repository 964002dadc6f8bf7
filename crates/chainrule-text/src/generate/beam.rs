//! The most probable continuations.

use super::{check_logits, check_model, vocabulary_of};
use chainrule_core::{Error, Module, Parameters, Result, Scalar, Session, Tensor};
use std::ops::Deref;

/// Looks for the continuations of a prompt that are the most probable as a whole: at each step those `width` are kept that are it so
/// far.
///
/// A continuation of n tokens scores log p/n^α, α the length penalty: 1 is the mean log-probability of a token, 0 favours short ones.
/// The search ends when no continuation can become better than the `width` that ended with a token that stops.
///
/// It runs the model under [`Context::stream`](chainrule_core::Context::stream), as a [`Generator`](crate::Generator) does: the prompt
/// once, and then one step of T = 1 for each token. Before a step the rows of the stream are reordered to those that the continuations
/// come from ([`Session::reorder`]).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters};
/// use chainrule_layers::{Embedding, Linear, Sequential};
/// use chainrule_text::Beam;
/// let model = Sequential::new().add(Embedding::<f32>::new(10, 4)).add(Linear::new(4, 10)).init(1)?;
/// let found = Beam::new(4).max_tokens(6).stop_token(0).search(&model, &[3, 7])?;
/// assert!(found.len() == 4 && found.is_sorted_by(|a, b| a.score >= b.score));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    width: usize,
    max_tokens: usize,
    length_penalty: f64,
    stop_tokens: Vec<u32>,
}

/// A continuation that a [`Beam`] found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hypothesis {
    /// The tokens after the prompt, without the one that stops.
    pub ids: Vec<u32>,
    /// The logarithm of its probability, that of the token that stops included.
    pub log_probability: f64,
    /// log p/n^α.
    pub score: f64,
    /// The token that stops, if one did.
    pub stopped: Option<u32>,
}

impl Beam {
    /// A beam of a width, of at most 256 tokens, with a length penalty of 1.
    pub fn new(width: usize) -> Self {
        Self { width, max_tokens: 256, length_penalty: 1.0, stop_tokens: Vec::new() }
    }

    /// The most tokens of a continuation.
    #[must_use]
    pub fn max_tokens(self, count: usize) -> Self {
        Self { max_tokens: count, ..self }
    }

    /// α: larger values favour longer continuations.
    #[must_use]
    pub fn length_penalty(self, alpha: f64) -> Self {
        Self { length_penalty: alpha, ..self }
    }

    /// Ends a continuation with this token, and those that were named before.
    #[must_use]
    pub fn stop_token(mut self, id: u32) -> Self {
        self.stop_tokens.push(id);
        self
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A value error that says which one does not.
    pub fn check(&self) -> Result<()> {
        if self.width == 0 {
            return Err(Error::value("Beam: expected a width of at least 1, got 0"));
        }
        if self.max_tokens == 0 {
            return Err(Error::value("Beam: expected at least one token, got 0"));
        }
        if !self.length_penalty.is_finite() {
            return Err(Error::value(format!(
                "Beam: expected a finite length penalty, got {}",
                self.length_penalty
            )));
        }
        Ok(())
    }

    /// The best continuations, at most `width`, the best first.
    ///
    /// # Errors
    /// A setting makes no sense, the prompt is empty, the model has several inputs or outputs or fails, or its logits are NaN, +∞ or all
    /// −∞.
    pub fn search<P: Deref<Target: Module>>(&self, model: P, prompt: &[u32]) -> Result<Vec<Hypothesis>> {
        self.check()?;
        check_model("Beam", &*model)?;
        if prompt.is_empty() {
            return Err(Error::value("Beam: expected at least one token in the prompt, got none"));
        }
        let (mut session, mut x) = (Session::new(model), Tensor::default());
        let mut live = vec![Live { ids: Vec::new(), log_probability: 0.0, from: 0 }];
        let (mut ended, mut candidates) = (Vec::new(), Vec::new());
        for step in 0..self.max_tokens {
            self.expand(&mut session, &mut x, prompt, &live, &mut candidates)?;
            live = self.keep(&live, &candidates, &mut ended);
            if live.is_empty() || self.is_settled(&mut ended, &live, step + 1) {
                live.clear();
                break;
            }
        }
        ended.extend(live.into_iter().map(|live| self.hypothesis(live.ids, live.log_probability, None)));
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended.truncate(self.width);
        Ok(ended)
    }

    /// All continuations by one token that may be among the next ones, the most probable first.
    fn expand<P: Deref<Target: Module>>(
        &self,
        session: &mut Session<P>,
        x: &mut Tensor<<P::Target as Parameters>::T>,
        prompt: &[u32],
        live: &[Live],
        candidates: &mut Vec<Candidate>,
    ) -> Result<()> {
        let (n, seen) = (live.len(), prompt.len() + live[0].ids.len());
        let last = |live: &'_ Live| live.ids.last().map_or(0, |&id| id as usize);
        let t = if live[0].ids.is_empty() {
            let ids = x.reset([1, prompt.len()]).iter_mut().zip(prompt);
            ids.for_each(|(x, &id)| *x = Scalar::from_usize(id as usize));
            prompt.len()
        } else {
            let rows: Vec<usize> = live.iter().map(|live| live.from).collect();
            session.reorder(&rows)?;
            let ids = x.reset([n, 1]).iter_mut().zip(live);
            ids.for_each(|(x, live)| *x = Scalar::from_usize(last(live)));
            1
        };
        let y = session.stream(&*x)?;
        let v = vocabulary_of("Beam", y, n, t)?;
        candidates.clear();
        for (i, live) in live.iter().enumerate() {
            let logits = &y.data()[((i + 1) * t - 1) * v..][..v];
            check_logits(logits).map_err(|e| Error::value(format!("Beam: after {seen} tokens: {e}")))?;
            let max = logits.iter().map(|l| l.to_f64()).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|l| (l.to_f64() - max).exp()).sum();
            let log_sum = sum.ln();
            for (logit, token) in logits.iter().zip(0u32..) {
                let log_p = (logit.to_f64() - max) - log_sum;
                if log_p > f64::NEG_INFINITY {
                    candidates.push(Candidate {
                        log_probability: live.log_probability + log_p,
                        live: i,
                        token,
                    });
                }
            }
        }
        // So many at most end before as many as the beam is wide go on.
        let stops = self.stop_tokens.len().min(v);
        let most = self.width.saturating_mul(stops + 1);
        if most < candidates.len() {
            candidates.select_nth_unstable_by(most - 1, Candidate::order);
            candidates.truncate(most);
        }
        candidates.sort_unstable_by(Candidate::order);
        Ok(())
    }

    /// The next continuations; those that end on the way are added to `ended`.
    fn keep(&self, live: &[Live], candidates: &[Candidate], ended: &mut Vec<Hypothesis>) -> Vec<Live> {
        let mut next = Vec::new();
        for candidate in candidates {
            if next.len() == self.width {
                break;
            }
            let mut ids = live[candidate.live].ids.clone();
            if self.stop_tokens.contains(&candidate.token) {
                ended.push(self.hypothesis(ids, candidate.log_probability, Some(candidate.token)));
            } else {
                ids.push(candidate.token);
                next.push(Live { ids, log_probability: candidate.log_probability, from: candidate.live });
            }
        }
        next
    }

    /// Whether none of the live continuations, of n tokens each, can become one of the best `width`.
    fn is_settled(&self, ended: &mut Vec<Hypothesis>, live: &[Live], n: usize) -> bool {
        if ended.len() < self.width {
            return false;
        }
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended.truncate(self.width);
        // log p ≤ 0 only falls; the divisor is the largest at the end, or now if α < 0.
        let best = live.iter().map(|live| live.log_probability).fold(f64::NEG_INFINITY, f64::max);
        let bound = self.score(best, self.max_tokens).max(self.score(best, n));
        ended.last().is_some_and(|worst| worst.score >= bound)
    }

    fn score(&self, log_probability: f64, n: usize) -> f64 {
        log_probability / (n.max(1) as f64).powf(self.length_penalty)
    }

    fn hypothesis(&self, ids: Vec<u32>, log_probability: f64, stopped: Option<u32>) -> Hypothesis {
        let n = ids.len() + usize::from(stopped.is_some());
        Hypothesis { score: self.score(log_probability, n), ids, log_probability, stopped }
    }
}

/// A continuation that goes on.
struct Live {
    ids: Vec<u32>,
    log_probability: f64,
    /// The row of the stream that it goes on.
    from: usize,
}

/// One by one more token.
#[derive(Clone, Copy)]
struct Candidate {
    log_probability: f64,
    live: usize,
    token: u32,
}

impl Candidate {
    /// The most probable first; where they are as probable, as they come.
    fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        let by_place = (a.live, a.token).cmp(&(b.live, b.token));
        b.log_probability.total_cmp(&a.log_probability).then(by_place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Generator, testing::causal};
    use super::*;
    use chainrule_core::Module;

    /// log p of every token after some tokens.
    fn log_p(model: &impl Module<T = f64>, ids: &[u32]) -> Vec<f64> {
        let x = Tensor::from_fn([1, ids.len()], |i| f64::from(ids[i]));
        let y = model.infer(&x).unwrap();
        let v = y.shape()[2];
        let logits = &y.data()[(ids.len() - 1) * v..];
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l - sum.ln()).collect()
    }

    /// All continuations of at most n tokens that end with token 0 or have n.
    fn all(model: &impl Module<T = f64>, prompt: &[u32], n: usize, alpha: f64) -> Vec<Hypothesis> {
        let (mut done, mut open) = (Vec::new(), vec![(Vec::<u32>::new(), 0.0)]);
        while let Some((ids, so_far)) = open.pop() {
            for (log_p, token) in log_p(model, &[prompt, &ids].concat()).into_iter().zip(0..) {
                let log_probability = so_far + log_p;
                let length = ids.len() + 1;
                let score = log_probability / (length as f64).powf(alpha);
                let with = [&ids[..], &[token]].concat();
                if token == 0 {
                    done.push(Hypothesis { ids: ids.clone(), log_probability, score, stopped: Some(0) });
                } else if length == n {
                    done.push(Hypothesis { ids: with, log_probability, score, stopped: None });
                } else {
                    open.push((with, log_probability));
                }
            }
        }
        done.sort_by(|a, b| b.score.total_cmp(&a.score));
        done
    }

    #[test]
    fn a_beam_that_holds_everything_finds_the_best_of_all() {
        for seed in 0..4 {
            let model = causal::<f64>(4, 3, seed);
            for alpha in [0.0, 1.0, 2.0, -0.5] {
                let expected = all(&model, &[1, 2], 4, alpha);
                let beam = Beam::new(200).max_tokens(4).stop_token(0).length_penalty(alpha);
                let found = beam.search(&model, &[1, 2]).unwrap();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!((&found.ids, found.stopped), (&expected.ids, expected.stopped));
                    assert!((found.score - expected.score).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn stopping_early_does_not_change_what_is_found() {
        // With these many steps most searches settle before the last.
        for seed in 0..6 {
            let model = causal::<f64>(5, 3, seed);
            let beam = Beam::new(2).stop_token(0).stop_token(1).length_penalty(0.5);
            let found = beam.clone().max_tokens(30).search(&model, &[2]).unwrap();
            assert!(found.len() == 2 && found[0].score >= found[1].score);
            for hypothesis in found {
                let mut ids = vec![2];
                let mut sum = 0.0;
                for &token in hypothesis.ids.iter().chain(&hypothesis.stopped) {
                    sum += log_p(&model, &ids)[token as usize];
                    ids.push(token);
                }
                assert!((sum - hypothesis.log_probability).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_width_of_1_is_greedy() {
        let model = causal::<f64>(9, 4, 1);
        let found = Beam::new(1).max_tokens(12).search(&model, &[3]).unwrap();
        let greedy = Generator::new(&model).unwrap().greedy().max_tokens(12).generate([[3]]).unwrap();
        assert_eq!(found[0].ids, greedy[0].ids);
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        let model = causal::<f64>(3, 2, 1);
        for beam in [Beam::new(0), Beam::new(1).max_tokens(0), Beam::new(1).length_penalty(f64::NAN)] {
            assert!(beam.search(&model, &[1]).is_err(), "{beam:?}");
        }
        assert!(Beam::new(1).search(&model, &[]).is_err() && Beam::new(1).search(&model, &[3]).is_err());
        assert_eq!(Beam::new(usize::MAX).max_tokens(1).search(&model, &[1]).unwrap().len(), 3);
    }
}
