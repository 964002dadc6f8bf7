//! An LSTM forecasts a day of an hourly series from the four days before it, against the forecasts that cost nothing: the last value,
//! and the day or the week before.
//!
//! `cargo run --release --example timeseries [-- EPOCHS]` makes the series itself, and writes a picture of a forecast to
//! `target/timeseries/forecast.svg` and the curves of the loss to `target/timeseries/curves.svg`.

use chainrule::{
    optim::schedule::Cosine,
    prelude::*,
    train::pictures::{self, Plot},
};
use std::{env, f64::consts::TAU, fs, path::Path};

const DAY: usize = 24;
const WEEK: usize = 7 * DAY;
/// Hours that the network sees, and hours that it forecasts.
const PAST: usize = 4 * DAY;
const AHEAD: usize = DAY;
const WEEKS: usize = 60;
/// The last weeks are held back.
const HELD: usize = 12;

/// Power that a small town draws, hour by hour: a shape for working days and another for the week's end, the weather that comes and
/// goes over days and makes mornings and evenings colder, and noise.
fn series(rng: &mut Rng) -> Vec<f64> {
    let peak = |hour: f64, at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
    let mut weather = 0.0;
    (0..WEEKS * WEEK)
        .map(|t| {
            let (hour, working) = ((t % DAY) as f64, t % WEEK < 5 * DAY);
            weather = 0.99 * weather + 0.14 * rng.normal();
            let heating = 0.6 * weather * (1.0 + 0.5 * (TAU * (hour - 5.0) / DAY as f64).cos());
            let use_ = if working {
                3.0 * peak(hour, 8.0, 2.5) + 3.5 * peak(hour, 18.5, 3.0) + 1.2 * peak(hour, 13.0, 4.0)
            } else {
                2.5 * peak(hour, 11.5, 4.0) + 2.0 * peak(hour, 20.0, 3.0)
            };
            10.0 + use_ + heating + 0.15 * rng.normal()
        })
        .collect()
}

/// What is known of an hour: the value, the hour of the day as a point on a circle, and whether this day, and the next one, is a
/// working day.
const FEATURES: usize = 5;

/// The windows whose forecasts begin at `starts`: the past (N, PAST, FEATURES), and how far each hour ahead is from the value a day
/// before (N, AHEAD). What the forecast of the day before already says need not be learnt.
fn windows(scaled: &[f64], starts: impl Iterator<Item = usize>) -> Result<Dataset> {
    let (mut x, mut y, mut n) = (Vec::new(), Vec::new(), 0);
    for start in starts {
        for t in start - PAST..start {
            let angle = TAU * (t % DAY) as f64 / DAY as f64;
            let working = |t: usize| if t % WEEK < 5 * DAY { 1.0 } else { 0.0 };
            let features = [scaled[t], angle.sin(), angle.cos(), working(t), working(t + DAY)];
            x.extend(features.map(|v| v as f32));
        }
        y.extend((start..start + AHEAD).map(|t| (scaled[t] - scaled[t - DAY]) as f32));
        n += 1;
    }
    Dataset::regression(Tensor::from_vec([n, PAST, FEATURES], x)?, Tensor::from_vec([n, AHEAD], y)?)
}

/// The mean of |forecast − value| over the hours ahead of all starts.
fn mean_error(series: &[f64], starts: &[usize], forecast: impl Fn(usize, usize) -> f64) -> f64 {
    let errors = starts.iter().enumerate().flat_map(|(i, &start)| {
        let forecast = &forecast;
        (0..AHEAD).map(move |h| (series[start + h] - forecast(i, h)).abs())
    });
    errors.sum::<f64>() / (starts.len() * AHEAD) as f64
}

fn main() -> Result<()> {
    let epochs = env::args().nth(1).and_then(|epochs| epochs.parse().ok()).unwrap_or(20);
    let folder = Path::new("target/timeseries");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let series = series(&mut Rng::new(1));
    // Scaled by what training sees alone.
    let held = (WEEKS - HELD) * WEEK;
    let mean = series[..held].iter().sum::<f64>() / held as f64;
    let deviation =
        (series[..held].iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / held as f64).sqrt();
    let scaled: Vec<f64> = series.iter().map(|v| (v - mean) / deviation).collect();

    // Forecasts are made at every third hour; in training they end before the held-out weeks begin.
    let train = windows(&scaled, (PAST..=held - AHEAD).step_by(3))?;
    let starts: Vec<usize> = (held + PAST..=series.len() - AHEAD).step_by(3).collect();
    let unseen = windows(&scaled, starts.iter().copied())?;

    let model = Sequential::new()
        .add(Lstm::new(FEATURES, 48).last(true))
        .add(Dropout::new(0.1))
        .add(Linear::new(48, AHEAD))
        .init(1)?;
    println!("{} windows\n{}\n", train.len(), model.summary([64, PAST, FEATURES])?);
    let steps = epochs * train.len().div_ceil(64);
    let mut trainer = Trainer::new(model, Huber::new(), AdamW::new(5e-3))
        .epochs(epochs)
        .batch_size(64)
        .clip_norm(1.0)
        .schedule(Cosine::new(steps as u64))
        .validation(unseen.clone());
    let history = trainer.fit(&train)?;
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;

    let changes = trainer.model().infer(unseen.x())?;
    let lstm = |i: usize, h: usize| {
        series[starts[i] + h - DAY] + deviation * f64::from(changes.data()[i * AHEAD + h])
    };
    let last = |i: usize, _| series[starts[i] - 1];
    let day = |i: usize, h: usize| series[starts[i] + h - DAY];
    let week = |i: usize, h: usize| series[starts[i] + h - WEEK];
    println!("mean absolute error over the {AHEAD} hours ahead, at {} unseen times:", starts.len());
    println!("  LSTM            {:.3}", mean_error(&series, &starts, lstm));
    println!("  last value      {:.3}", mean_error(&series, &starts, last));
    println!("  the day before  {:.3}", mean_error(&series, &starts, day));
    println!("  the week before {:.3}", mean_error(&series, &starts, week));

    // A Saturday, where the day before misleads, from the two days before it on.
    let i = starts.iter().position(|start| start % WEEK == 5 * DAY).unwrap_or(0);
    let shown = starts[i] - 2 * DAY;
    let hours = |from: usize, to: usize, value: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        (from..to).map(|t| ((t - shown) as f64, value(t))).collect()
    };
    let (start, end) = (starts[i], starts[i] + AHEAD);
    Plot::new("a day ahead")
        .axes("hour", "power, MW")
        .line("measured", hours(shown, end, &|t| series[t]))
        .line("LSTM", hours(start, end, &|t| lstm(i, t - start)))
        .line("the day before", hours(start, end, &|t| day(i, t - start)))
        .mark((start - shown) as f64, "forecast")
        .svg()
        .save(folder.join("forecast.svg"))?;
    println!("\npictures: {0}/forecast.svg, {0}/curves.svg", folder.display());
    Ok(())
}
