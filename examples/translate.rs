//! A transformer reads numbers in words and writes their digits: "three hundred and five" → 305.
//!
//! `cargo run --release --example translate [-- EPOCHS]` makes its own data, and writes the curves of the loss to
//! `target/translate/curves.svg`. In training the decoder sees the right digits before each one; at the end it goes on from its own.

use chainrule::{
    core::Classes,
    optim::schedule::{Cosine, LinearWarmup},
    prelude::*,
    text::{Chars, Tokenizer, Words, WordsTrainer},
    train::{Accuracy, pictures},
};
use std::{collections::HashSet, env, fs, path::Path};

/// Numbers of up to so many digits.
const DIGITS: usize = 6;
const TRAINING: usize = 20_000;
const UNSEEN: usize = 2000;
const BATCH: usize = 100;
const WIDTH: usize = 64;
const PADDING: &str = "<pad>";
const BEGIN: &str = "<begin>";
const END: &str = "<end>";

fn in_words(number: usize) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] =
        ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let and = |rest: usize| match rest {
        0 => String::new(),
        1..100 => format!(" and {}", in_words(rest)),
        _ => format!(" {}", in_words(rest)),
    };
    match number {
        0..20 => SMALL[number].to_owned(),
        20..100 if number.is_multiple_of(10) => TENS[number / 10].to_owned(),
        20..100 => format!("{} {}", TENS[number / 10], SMALL[number % 10]),
        100..1000 => format!("{} hundred{}", SMALL[number / 100], and(number % 100)),
        _ => format!("{} thousand{}", in_words(number / 1000), and(number % 1000)),
    }
}

/// Words and digits as tokens.
struct Language {
    words: Words,
    digits: Chars,
    /// The most words of a number.
    longest: usize,
    begin: u32,
    end: u32,
}

impl Language {
    fn new() -> Result<Self> {
        let all = (0..1000).chain([1000]).map(in_words);
        let words = WordsTrainer::new().special([PADDING]).train(all)?;
        let digits = Chars::fit("0123456789")?.special([BEGIN, END])?;
        let id = |token| digits.id(token).ok_or_else(|| Error::value(format!("no token {token}")));
        let longest = words.encode(&in_words(777_777))?.len();
        let (begin, end) = (id(BEGIN)?, id(END)?);
        Ok(Self { words, digits, longest, begin, end })
    }

    /// The words of some numbers (N, S), and where they are padding (N, S).
    fn read(&self, numbers: &[usize]) -> Result<[Tensor; 2]> {
        let shape = [numbers.len(), self.longest];
        let padding = self.words.id(PADDING).unwrap_or_default() as f32;
        let (mut words, mut padded) = (Tensor::full(shape, padding), Tensor::full(shape, 1.0));
        for (i, &number) in numbers.iter().enumerate() {
            for (j, id) in self.words.encode(&in_words(number))?.into_iter().enumerate() {
                words.data_mut()[i * self.longest + j] = id as f32;
                padded.data_mut()[i * self.longest + j] = 0.0;
            }
        }
        Ok([words, padded])
    }

    /// Samples for teacher forcing: the decoder is given `<begin> 3 0 5`, and is to answer `3 0 5 <end>`.
    fn samples(&self, numbers: &[usize]) -> Result<Dataset> {
        let [words, padded] = self.read(numbers)?;
        let shape = [numbers.len(), DIGITS + 1];
        let mut given = Tensor::full(shape, self.end as f32);
        let mut answers = vec![Classes::IGNORED; given.len()];
        let rows = given.data_mut().chunks_mut(DIGITS + 1).zip(answers.chunks_mut(DIGITS + 1));
        for ((given, answers), number) in rows.zip(numbers) {
            let digits = self.digits.encode(&number.to_string())?;
            given[0] = self.begin as f32;
            for (j, &digit) in digits.iter().enumerate() {
                given[j + 1] = digit as f32;
                answers[j] = digit as usize;
            }
            answers[digits.len()] = self.end as usize;
        }
        let answers = Targets::Classes { indices: answers, shape: shape.into() };
        Dataset::new([words, padded, given], [answers])?.with_classes(0, self.digits.vocab_size())
    }

    /// Words (N, S), padding (N, S) and the digits so far (N, T) → logits of the next digit (N, T, V).
    fn model(&self) -> Graph {
        let embedding =
            |count| Sequential::new().add(Embedding::new(count, WIDTH)).add(SinusoidalPosition::new(WIDTH));
        let transformer = Transformer::new(WIDTH, 4)
            .num_encoder_layers(2)
            .num_decoder_layers(2)
            .dim_feedforward(4 * WIDTH)
            .dropout(0.05)
            .norm_first(true)
            .causal(true)
            .src_key_padding_mask(MaskKind::Boolean)
            .memory_key_padding_mask(MaskKind::Boolean);
        let mut graph = Graph::new();
        let (words, padded, given) = (graph.input("words"), graph.input("padded"), graph.input("given"));
        let source = graph.add("words", embedding(self.words.vocab_size()), words);
        let target = graph.add("digits", embedding(self.digits.vocab_size()), given);
        let decoded = graph.add("transformer", transformer, [source, target, padded, padded]);
        graph.add("next", Linear::new(WIDTH, self.digits.vocab_size()), decoded);
        graph
    }

    /// Greedy decoding: the likeliest digit is taken, and given back for the next one.
    fn translate(&self, model: &Graph, numbers: &[usize]) -> Result<Vec<String>> {
        let [words, padded] = self.read(numbers)?;
        let mut session = Session::new(model);
        let mut written = vec![vec![self.begin]; numbers.len()];
        for t in 1..=DIGITS + 1 {
            let given = written.iter().flatten().map(|&id| id as f32).collect();
            let logits = session.run([&words, &padded, &Tensor::from_vec([numbers.len(), t], given)?])?;
            let likeliest = logits.argmax_rows();
            for (written, likeliest) in written.iter_mut().zip(likeliest.chunks(t)) {
                written.push(likeliest[t - 1] as u32);
            }
        }
        let digits = |ids: &Vec<u32>| {
            let before: Vec<u32> = ids[1..].iter().copied().take_while(|&id| id != self.end).collect();
            self.digits.decode(&before)
        };
        written.iter().map(digits).collect()
    }
}

/// Numbers none of which is there twice, as many of each length as there are.
fn numbers(count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut drawn = HashSet::new();
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let length = 1 + rng.below(DIGITS);
        let number = rng.below(10usize.pow(length as u32));
        if drawn.insert(number) {
            numbers.push(number);
        }
    }
    rng.shuffle(&mut numbers);
    numbers
}

fn main() -> Result<()> {
    let epochs = env::args().nth(1).and_then(|epochs| epochs.parse().ok()).unwrap_or(8);
    let folder = Path::new("target/translate");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let numbers = numbers(TRAINING + UNSEEN, &mut Rng::new(1));
    let (train, unseen) = numbers.split_at(TRAINING);
    let language = Language::new()?;
    let model = language.model().init(1)?;
    let shapes = [[BATCH, language.longest], [BATCH, language.longest], [BATCH, DIGITS + 1]].map(Shape::from);
    println!("{model}\n\n{}\n", model.summary(shapes)?);

    let steps = (epochs * TRAINING.div_ceil(BATCH)) as u64;
    let loss = CrossEntropy::new().classes_last(true).ignore_index(Classes::IGNORED);
    let mut trainer = Trainer::new(model, loss, AdamW::new(2e-3).betas(0.9, 0.98))
        .epochs(epochs)
        .batch_size(BATCH)
        .clip_norm(1.0)
        .schedule(LinearWarmup::new(100).from(0.01).then(100, Cosine::new(steps).minimum(0.02)))
        .metric(Accuracy::new().classes_last(true))
        .validation(language.samples(unseen)?);
    let history = trainer.fit(&language.samples(train)?)?;
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;
    println!("curves: {}/curves.svg\n", folder.display());

    let (mut exact, mut wrong) = (0, Vec::new());
    for numbers in unseen.chunks(250) {
        for (number, answer) in numbers.iter().zip(language.translate(trainer.model(), numbers)?) {
            if answer == number.to_string() {
                exact += 1;
            } else {
                wrong.push((*number, answer));
            }
        }
    }
    let examples = [&unseen[..8], &[7, 305, 90_012, 700_007]].concat();
    for (&number, answer) in examples.iter().zip(language.translate(trainer.model(), &examples)?) {
        println!("{answer:>7}  {}", in_words(number));
    }
    for (number, answer) in wrong.iter().take(5) {
        println!("wrong: {answer}, not {number}, for {}", in_words(*number));
    }
    println!("\n{exact} of {UNSEEN} unseen numbers are exact: {:.4}", exact as f64 / UNSEEN as f64);
    Ok(())
}
