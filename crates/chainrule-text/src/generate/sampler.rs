//! A token from logits.
//!
//! ```text
//! l = logits, where a token that stands before is l/r if l > 0 and l r else     repetition penalty r
//! p = softmax(l/τ)                                                               temperature τ
//! the k greatest of them; of these the fewest whose sum is at least P            top-k, top-p
//! ```

use super::check_logits;
use chainrule_core::{Error, Result, Rng, Scalar};
use chainrule_tensor::compiled;

/// How the next token is drawn from logits: greedily, or at random from a distribution that temperature, top-k, top-p and a repetition
/// penalty change, in the order penalty, temperature, top-k, top-p.
///
/// Top-p is nucleus sampling (Holtzman and others, 2020); the penalty is that of CTRL (Keskar and others, 2019).
///
/// # Errors
/// [`Sampler::sample`] fails if a setting makes no sense, or if the logits are NaN, +∞, or all −∞.
///
/// # Examples
/// ```
/// use chainrule_core::Rng;
/// use chainrule_text::Sampler;
/// let logits = [1.0f32, 3.0, 2.0, -1.0];
/// assert_eq!(Sampler::greedy().sample(&logits, &[], &mut Rng::new(1))?, 1);
/// let sampler = Sampler::new().temperature(0.7).top_k(2);
/// let p = sampler.distribution(&logits, &[])?; // of tokens 1 and 2
/// assert!(p.len() == 2 && p[0].0 == 1 && (p[0].1 / p[1].1).ln() - 1.0 / 0.7 < 1e-9);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    top_p: f64,
    repetition_penalty: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// Draws from softmax(logits).
    pub fn new() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: 1.0, repetition_penalty: 1.0 }
    }

    /// Takes the most probable token, the first of those that are as probable.
    pub fn greedy() -> Self {
        Self::new().temperature(0.0)
    }

    /// Divides the logits by τ ≥ 0: below 1 the probable tokens become more probable, and 0 is greedy.
    #[must_use]
    pub fn temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// Draws from the k most probable tokens, k ≥ 1.
    #[must_use]
    pub fn top_k(self, k: impl Into<Option<usize>>) -> Self {
        Self { top_k: k.into(), ..self }
    }

    /// Draws from the fewest tokens whose probabilities sum to at least p, in (0, 1].
    #[must_use]
    pub fn top_p(self, p: f64) -> Self {
        Self { top_p: p, ..self }
    }

    /// Makes tokens that stand before less probable: their logits are divided by r > 0 if they are positive, multiplied else. 1 does
    /// nothing.
    #[must_use]
    pub fn repetition_penalty(self, penalty: f64) -> Self {
        Self { repetition_penalty: penalty, ..self }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A value error that says which one does not.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str, got: f64| Err(Error::value(format!("Sampler: expected {what}, got {got}")));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("a finite temperature of at least 0", self.temperature);
        }
        if self.top_k == Some(0) {
            return wrong("a top-k of at least 1", 0.0);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("a top-p in (0, 1]", self.top_p);
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("a finite repetition penalty above 0", self.repetition_penalty);
        }
        Ok(())
    }

    /// The tokens that may be drawn, with their probabilities, after the tokens `before`: the most probable first under top-k or
    /// top-p, else by their ids.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn distribution<T: Scalar>(&self, logits: &[T], before: &[u32]) -> Result<Vec<(u32, f64)>> {
        self.check()?;
        let mut scratch = Scratch::default();
        let total = self.weigh(logits, before, &mut scratch)?;
        Ok(scratch.tokens.iter().map(|&(token, weight)| (token, weight / total)).collect())
    }

    /// The next token after the tokens `before`.
    ///
    /// # Errors
    /// A setting makes no sense, or the logits are none, NaN, +∞, or all −∞.
    pub fn sample<T: Scalar>(&self, logits: &[T], before: &[u32], rng: &mut Rng) -> Result<u32> {
        self.check()?;
        self.draw(logits, before, rng, &mut Scratch::default())
    }

    /// [`Sampler::sample`] of settings that were checked, in memory that is kept.
    pub(super) fn draw<T: Scalar>(
        &self,
        logits: &[T],
        before: &[u32],
        rng: &mut Rng,
        scratch: &mut Scratch,
    ) -> Result<u32> {
        let total = self.weigh(logits, before, scratch)?;
        let tokens = &scratch.tokens;
        if let [(token, _)] = tokens[..] {
            return Ok(token);
        }
        let mut left = rng.uniform() * total;
        for &(token, weight) in tokens {
            left -= weight;
            if left < 0.0 {
                return Ok(token);
            }
        }
        // Rounding: the last one that can be drawn.
        let last = tokens.iter().rev().find(|(_, weight)| *weight > 0.0);
        last.map(|&(token, _)| token).ok_or_else(|| Error::value("expected a token to draw, got none"))
    }

    /// Fills `scratch.tokens` with the tokens that may be drawn and weights exp((l − max)/τ), and returns the sum of those.
    fn weigh<T: Scalar>(&self, logits: &[T], before: &[u32], scratch: &mut Scratch) -> Result<f64> {
        check_logits(logits)?;
        let Scratch { tokens, penalized } = scratch;
        widen(logits, tokens);
        if self.repetition_penalty != 1.0 {
            penalized.clear();
            penalized.resize(tokens.len(), false);
            for &token in before {
                let Some(done) = penalized.get_mut(token as usize) else { continue };
                if !std::mem::replace(done, true) {
                    let logit = &mut tokens[token as usize].1;
                    if *logit > 0.0 {
                        *logit = (*logit / self.repetition_penalty).min(f64::MAX);
                    } else if logit.is_finite() {
                        *logit = (*logit * self.repetition_penalty).max(-f64::MAX);
                    }
                }
            }
        }
        let first = |best: (u32, f64), next: &(u32, f64)| if next.1 > best.1 { *next } else { best };
        let best = tokens.iter().fold((0, f64::NEG_INFINITY), first);
        if self.temperature == 0.0 {
            tokens.clear();
            tokens.push((best.0, 1.0));
            return Ok(1.0);
        }
        tokens.retain(|(_, logit)| *logit > f64::NEG_INFINITY);
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = self.top_k.filter(|&k| k < tokens.len()) {
            tokens.select_nth_unstable_by(k - 1, order);
            tokens.truncate(k);
        }
        if self.top_k.is_some() || self.top_p < 1.0 {
            tokens.sort_unstable_by(order);
        }
        let mut total = 0.0;
        for (_, logit) in tokens.iter_mut() {
            *logit = ((*logit - best.1) / self.temperature).exp();
            total += *logit;
        }
        if self.top_p < 1.0 {
            let (mut sum, enough) = (0.0, self.top_p * total);
            let kept = tokens.iter().position(|(_, weight)| {
                sum += weight;
                sum >= enough
            });
            if let Some(last) = kept {
                tokens.truncate(last + 1);
                total = sum;
            }
        }
        Ok(total)
    }
}

/// The memory of [`Sampler::draw`].
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Tokens with their logits, then their weights.
    tokens: Vec<(u32, f64)>,
    /// Whether a token's logit is penalised already.
    penalized: Vec<bool>,
}

compiled! {
    fn widen[T](logits: &[T], out: &mut Vec<(u32, f64)>) {
        out.clear();
        out.extend(logits.iter().zip(0u32..).map(|(logit, token)| (token, logit.to_f64())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::Rng;
    use proptest::prelude::*;

    /// Σ (observed − expected)²/expected of n draws against a distribution, and its degrees of freedom.
    fn chi_square(sampler: &Sampler, logits: &[f64], before: &[u32], p: &[f64], seed: u64) -> (f64, f64) {
        const N: usize = 100_000;
        let mut rng = Rng::new(seed);
        let mut counts = vec![0usize; p.len()];
        for _ in 0..N {
            counts[sampler.sample(logits, before, &mut rng).unwrap() as usize] += 1;
        }
        let mut sum = 0.0;
        for (&count, &p) in counts.iter().zip(p) {
            if p == 0.0 {
                assert_eq!(count, 0);
            } else {
                let expected = p * N as f64;
                sum += (count as f64 - expected).powi(2) / expected;
            }
        }
        (sum, p.iter().filter(|&&p| p > 0.0).count() as f64 - 1.0)
    }

    /// Wilson and Hilferty's bound (1931) of χ² with k degrees of freedom at z = 4: passed by chance once in 30,000.
    fn bound(k: f64) -> f64 {
        k * (1.0 - 2.0 / (9.0 * k) + 4.0 * (2.0 / (9.0 * k)).sqrt()).powi(3)
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / sum).collect()
    }

    const LOGITS: [f64; 8] = [0.3, -1.0, 2.0, 0.0, 1.5, f64::NEG_INFINITY, -2.5, 0.9];

    #[test]
    fn draws_are_distributed_as_the_softmax() {
        let (sum, k) = chi_square(&Sampler::new(), &LOGITS, &[], &softmax(&LOGITS), 1);
        assert!(sum < bound(k), "{sum} of {k}");
        // The bound can fail: another temperature is told apart.
        let (sum, k) = chi_square(&Sampler::new().temperature(1.05), &LOGITS, &[], &softmax(&LOGITS), 1);
        assert!(sum > bound(k), "{sum} of {k}");
        let (sum, k) =
            chi_square(&Sampler::new().temperature(0.6), &LOGITS, &[], &softmax(&LOGITS.map(|l| l / 0.6)), 2);
        assert!(sum < bound(k), "{sum} of {k}");
    }

    #[test]
    fn top_k_and_top_p_keep_the_most_probable() {
        // Tokens by probability: 2, 4, 7, 0, 3, 1, 6.
        let kept = |tokens: &[usize]| {
            let logits: Vec<f64> =
                (0..8).map(|i| if tokens.contains(&i) { LOGITS[i] } else { f64::NEG_INFINITY }).collect();
            softmax(&logits)
        };
        let (sum, k) = chi_square(&Sampler::new().top_k(3), &LOGITS, &[], &kept(&[2, 4, 7]), 3);
        assert!(sum < bound(k), "{sum} of {k}");
        // p = 0.431, 0.262, 0.144, …: the first two sum to 0.693.
        let (sum, k) = chi_square(&Sampler::new().top_p(0.69), &LOGITS, &[], &kept(&[2, 4]), 4);
        assert!(sum < bound(k), "{sum} of {k}");
        let (sum, k) = chi_square(&Sampler::new().top_p(0.7), &LOGITS, &[], &kept(&[2, 4, 7]), 5);
        assert!(sum < bound(k), "{sum} of {k}");
        // top-p of what top-k left: 0.622 and 0.378.
        let both = Sampler::new().top_k(2).top_p(0.6).distribution(&LOGITS, &[]).unwrap();
        assert_eq!(both, [(2, 1.0)]);
        let ties = Sampler::new().top_k(2).distribution(&[1.0; 5], &[]).unwrap();
        assert_eq!(ties, [(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn a_repetition_penalty_divides_positive_logits_and_multiplies_others() {
        let sampler = Sampler::new().repetition_penalty(2.0);
        let mut logits = LOGITS;
        (logits[2], logits[1]) = (1.0, -2.0);
        let before = [2, 1, 2, 2, 99, 5];
        let (sum, k) = chi_square(&sampler, &LOGITS, &before, &softmax(&logits), 6);
        assert!(sum < bound(k), "{sum} of {k}");
        assert_eq!(
            Sampler::greedy().repetition_penalty(2.0).sample(&LOGITS, &[2], &mut Rng::new(0)).unwrap(),
            4
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        let wrong = [
            Sampler::new().temperature(f64::NAN),
            Sampler::new().temperature(-0.1),
            Sampler::new().temperature(f64::INFINITY),
            Sampler::new().top_k(0),
            Sampler::new().top_p(0.0),
            Sampler::new().top_p(1.1),
            Sampler::new().top_p(f64::NAN),
            Sampler::new().repetition_penalty(0.0),
            Sampler::new().repetition_penalty(-1.0),
            Sampler::new().repetition_penalty(f64::NAN),
        ];
        for sampler in wrong {
            assert!(sampler.sample(&[0.0, 1.0], &[], &mut Rng::new(0)).is_err(), "{sampler:?}");
        }
        let error = Sampler::new().top_p(1.5).check().unwrap_err().to_string();
        assert_eq!(error, "Sampler: expected a top-p in (0, 1], got 1.5");
    }

    #[test]
    fn logits_without_a_distribution_are_errors() {
        let text =
            |logits: &[f32]| Sampler::new().sample(logits, &[], &mut Rng::new(0)).unwrap_err().to_string();
        assert_eq!(text(&[0.0, f32::NAN]), "expected logits that are finite or -inf, got NaN of token 1");
        assert!(text(&[f32::INFINITY, 0.0]).contains("got inf of token 0"));
        assert!(text(&[f32::NEG_INFINITY; 3]).contains("got -inf of all tokens"));
        assert!(text(&[]).contains("expected a finite logit"));
    }

    proptest! {
        #[test]
        fn any_logits_and_settings_give_a_token_that_is_possible(
            logits in prop::collection::vec(prop_oneof![Just(f64::NEG_INFINITY), -1e308f64..1e308, -3.0f64..3.0], 1..9),
            temperature in prop_oneof![Just(0.0), Just(1e-300), Just(1e300), 0.1f64..3.0],
            k in 1usize..12, p in 1e-9f64..=1.0, penalty in prop_oneof![Just(1.0), Just(1e-300), Just(1e300), 0.5f64..2.0],
            seed: u64,
        ) {
            prop_assume!(logits.iter().any(|l| l.is_finite()));
            let sampler = Sampler::new().temperature(temperature).top_k(k).top_p(p).repetition_penalty(penalty);
            let p = sampler.distribution(&logits, &[0, 1]).unwrap();
            prop_assert!(!p.is_empty() && p.len() <= k.min(logits.len()));
            prop_assert!((p.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
            let token = sampler.sample(&logits, &[0, 1], &mut Rng::new(seed)).unwrap();
            prop_assert!(p.iter().any(|&(t, p)| t == token && p > 0.0));
        }
    }
}
