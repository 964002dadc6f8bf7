//! Curves over axes.

use super::svg::{Anchor, Canvas, Svg};
use crate::History;
use chainrule_core::Schedule;

/// The size of a panel, and the margins of its axes.
const SIZE: (f64, f64) = (460.0, 320.0);
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
const LARGEST: f64 = 1e300;
/// Told apart by most colour-blind readers as well (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// Lines over a pair of axes.
///
/// ```
/// use chainrule_train::pictures::Plot;
/// let svg = Plot::new("step size").axes("step", "rate").line("warm-up", [(0.0, 0.0), (10.0, 0.1)]).svg();
/// assert!(svg.as_str().contains("warm-up"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plot {
    title: String,
    labels: (String, String),
    lines: Vec<(String, Vec<(f64, f64)>)>,
    mark: Option<(f64, String)>,
    log: bool,
}

impl Plot {
    /// An empty plot.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// What the axes mean.
    #[must_use]
    pub fn axes(mut self, x: impl Into<String>, y: impl Into<String>) -> Self {
        self.labels = (x.into(), y.into());
        self
    }

    /// Adds a line through points (x, y); a point that is not finite, or beyond ±1e300, leaves a gap, an empty line is left out.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points: Vec<_> = points.into_iter().collect();
        if !points.is_empty() {
            self.lines.push((name.into(), points));
        }
        self
    }

    /// Marks a place on the x axis.
    #[must_use]
    pub fn mark(mut self, x: f64, text: impl Into<String>) -> Self {
        self.mark = Some((x, text.into()));
        self
    }

    /// Whether the y axis is logarithmic; values that are not positive are then left out.
    #[must_use]
    pub fn log(mut self, log: bool) -> Self {
        self.log = log;
        self
    }

    /// The learning rate that a schedule makes of a rate, over a number of steps.
    ///
    /// ```
    /// use chainrule_optim::schedule::{Cosine, LinearWarmup};
    /// use chainrule_train::pictures::Plot;
    /// let schedule = LinearWarmup::new(100).then(100, Cosine::new(900));
    /// let svg = Plot::schedule(&schedule, 1e-3, 1000).svg();
    /// assert!(svg.as_str().contains("learning rate"));
    /// ```
    pub fn schedule(schedule: &dyn Schedule, rate: f64, steps: u64) -> Self {
        // As many points as the plot is wide, the first and the last step among them.
        let (last, points) = (steps.saturating_sub(1), steps.clamp(1, SIZE.0 as u64));
        let at = |i: u64| (u128::from(last) * u128::from(i) / u128::from((points - 1).max(1))) as u64;
        let points = (0..points).map(at).map(|step| (step as f64, rate * schedule.factor(step)));
        let kind = schedule.spec().kind().to_owned();
        Self::new(kind).axes("step", "learning rate").line("", points)
    }

    /// The picture.
    pub fn svg(&self) -> Svg {
        let mut canvas = Canvas::new(SIZE.0, SIZE.1);
        self.draw(&mut canvas, 0.0);
        canvas.finish()
    }

    fn draw(&self, canvas: &mut Canvas, start: f64) {
        let height = |y: f64| if self.log { y.log10() } else { y };
        // Beyond this the length of an axis overflows.
        let shown = |&(x, y): &(f64, f64)| x.abs() <= LARGEST && height(y).abs() <= LARGEST;
        let points = || self.lines.iter().flat_map(|(_, points)| points).filter(|p| shown(p));
        // There is nothing between two epochs.
        let finest = if points().all(|p| p.0.fract() == 0.0) { 1.0 } else { 0.0 };
        let xs = Axis::new(points().map(|p| p.0), 0.0, finest, false);
        let ys = Axis::new(points().map(|p| height(p.1)), 0.03, 0.0, self.log);
        let (left, right) = (start + LEFT, start + SIZE.0 - RIGHT);
        let (top, bottom) = (TOP, SIZE.1 - BOTTOM);
        let at_x = |x: f64| left + xs.share(x) * (right - left);
        let at_y = |y: f64| bottom - ys.share(y) * (bottom - top);

        canvas.text(((left + right) / 2.0, 20.0), Anchor::Middle, 15.0, "font-weight=\"bold\"", &self.title);
        for &(x, ref label) in &xs.ticks {
            let x = at_x(x);
            canvas.line([x, bottom, x, bottom + 4.0], "stroke=\"#444\"");
            canvas.text((x, bottom + 17.0), Anchor::Middle, 11.0, "fill=\"#444\"", label);
        }
        for &(y, ref label) in &ys.ticks {
            let y = at_y(y);
            canvas.line([left, y, right, y], "stroke=\"#e4e4e4\"");
            canvas.line([left - 4.0, y, left, y], "stroke=\"#444\"");
            canvas.text((left - 7.0, y + 4.0), Anchor::End, 11.0, "fill=\"#444\"", label);
        }
        canvas.rect([left, top, right - left, bottom - top], "fill=\"none\" stroke=\"#444\"");
        canvas.text(((left + right) / 2.0, SIZE.1 - 10.0), Anchor::Middle, 12.0, "", &self.labels.0);
        let (x, y) = (start + 14.0, (top + bottom) / 2.0);
        let turned = format!("transform=\"rotate(-90 {x:.2} {y:.2})\"");
        canvas.text((x, y), Anchor::Middle, 12.0, &turned, &self.labels.1);

        if let Some((x, text)) = self.mark.as_ref().filter(|(x, _)| (0.0..=1.0).contains(&xs.share(*x))) {
            let x = at_x(*x);
            canvas.line([x, top, x, bottom], "stroke=\"#888\" stroke-dasharray=\"3 3\"");
            // Above the frame, where no line is; at the right edge it has to end there.
            let (x, anchor) = if x > right - 50.0 { (right, Anchor::End) } else { (x, Anchor::Middle) };
            canvas.text((x, top - 4.0), anchor, 10.0, "fill=\"#666\"", text);
        }
        let mut drawn = Vec::new();
        for ((_, points), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"");
            for piece in points.split(|p| !shown(p)).filter(|piece| !piece.is_empty()) {
                let piece: Vec<_> = piece.iter().map(|&(x, y)| (at_x(x), at_y(height(y)))).collect();
                match piece[..] {
                    [point] => canvas.dot(point, 3.0, &format!("fill=\"{colour}\"")),
                    _ => canvas.polyline(&piece, &style),
                }
                drawn.push(piece);
            }
        }
        self.legend(canvas, &drawn, [left, top, right, bottom]);
    }

    /// In the corner where it hides least.
    fn legend(&self, canvas: &mut Canvas, drawn: &[Vec<(f64, f64)>], [left, top, right, bottom]: [f64; 4]) {
        let longest = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        if longest == 0 {
            return;
        }
        let (width, height) = (longest as f64 * 6.8 + 42.0, self.lines.len() as f64 * 18.0 + 6.0);
        let (near, far, high, low) = (left + 8.0, right - width - 8.0, top + 8.0, bottom - height - 8.0);
        let hidden = |&(x, y): &(f64, f64)| {
            let inside = |&&(px, py): &&(f64, f64)| {
                (x - 4.0..x + width + 4.0).contains(&px) && (y - 4.0..y + height + 4.0).contains(&py)
            };
            drawn.iter().map(|line| between(line).iter().filter(inside).count()).sum::<usize>()
        };
        let corners = [(far, high), (far, low), (near, high), (near, low)];
        let Some((x, y)) = corners.into_iter().min_by_key(hidden) else { return };
        let frame = "fill=\"white\" fill-opacity=\"0.85\" stroke=\"#ccc\"";
        canvas.rect([x, y, width, height], frame);
        for (i, ((name, _), colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let y = y + 12.0 + i as f64 * 18.0;
            let style = format!("stroke=\"{colour}\" stroke-width=\"2.5\"");
            canvas.line([x + 8.0, y, x + 28.0, y], &style);
            canvas.text((x + 34.0, y + 4.0), Anchor::Start, 12.0, "", name);
        }
    }
}

/// Places along a line, its corners and some between them.
fn between(line: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let pairs = line.windows(2).flat_map(|w| {
        (0..8).map(move |i| {
            let share = f64::from(i) / 8.0;
            (w[0].0 + share * (w[1].0 - w[0].0), w[0].1 + share * (w[1].1 - w[0].1))
        })
    });
    pairs.chain(line.last().copied()).collect()
}

/// The range of an axis, and where its ticks are.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// `room`: what is added on both sides, as a share; `finest`: the least distance of two ticks; `log`: the values are
    /// powers of ten.
    fn new(values: impl Iterator<Item = f64>, room: f64, finest: f64, log: bool) -> Self {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= 1e-12 * low.abs().max(high.abs()) {
            let aside = if low == 0.0 || log { 1.0 } else { 0.1 * low.abs() };
            (low, high) = (low - aside, high + aside);
        }
        // A line along the frame would be taken for the frame.
        let (low, high) = (low - room * (high - low), high + room * (high - low));
        let ticks = if log && high - low >= 1.0 {
            (low.ceil() as i64..=high.floor() as i64).map(|e| (e as f64, format!("1e{e}"))).collect()
        } else {
            let step = nice_step(high - low).max(finest);
            let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
            let label = |v: f64| match v {
                v if log => format!("{:.3e}", 10f64.powf(v)),
                v if v.abs() >= 1e6 => format!("{v:.1e}"),
                v => format!("{v:.digits$}"),
            };
            let first = (low / step).ceil();
            // −0 would be written as it is.
            let at = |i: usize| (first + i as f64) * step + 0.0;
            (0..32).map(at).take_while(|&v| v <= high + 1e-9 * step).map(|v| (v, label(v))).collect()
        };
        Self { low, high, ticks }
    }

    /// 0 at the low end, 1 at the high end.
    fn share(&self, v: f64) -> f64 {
        (v - self.low) / (self.high - self.low)
    }
}

/// 1, 2 or 5 times a power of ten: four to ten steps over the range.
fn nice_step(range: f64) -> f64 {
    let power = 10f64.powf((range / 5.0).log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().rev().find(|t| t * power <= range / 4.0);
    power * times.unwrap_or(1.0)
}

/// Loss and metrics over the epochs, training beside validation; a panel each.
///
/// ```
/// use chainrule_train::{History, pictures::learning_curves};
/// let history = History::default(); // of a fit
/// # let folder = std::env::temp_dir();
/// # let path = folder.join(format!("chainrule-curves-{}.svg", std::process::id()));
/// learning_curves(&history).save(&path)?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub fn learning_curves(history: &History) -> Svg {
    let mut names = vec!["loss".to_owned()];
    names.extend(history.last().iter().flat_map(|e| e.train.metrics.iter().map(|score| score.name.clone())));
    let mut canvas = Canvas::new(SIZE.0 * names.len() as f64, SIZE.1);
    for (i, name) in names.iter().enumerate() {
        let (train, validation) = (history.train(name), history.validation(name));
        let values = || train.iter().chain(&validation).map(|p| p.1);
        let (low, high) = values().fold((f64::INFINITY, 0.0), |(l, h): (f64, f64), v| (l.min(v), h.max(v)));
        let log = i == 0 && low > 0.0 && high / low > 50.0;
        let mut plot = Plot::new(name)
            .axes("epoch", if log { format!("{name} (logarithmic)") } else { name.clone() })
            .line("training", train)
            .line("validation", validation)
            .log(log);
        if let Some(best) = history.best() {
            plot = plot.mark(best.number as f64, format!("best: epoch {}", best.number));
        }
        plot.draw(&mut canvas, i as f64 * SIZE.0);
    }
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_optim::schedule::{Cosine, Step};

    #[test]
    fn a_schedule_is_drawn_from_its_first_to_its_last_step() {
        let plot = Plot::schedule(&Step::new(2).gamma(0.5), 0.5, 5);
        assert_eq!(plot.lines[0].1, [(0.0, 0.5), (1.0, 0.5), (2.0, 0.25), (3.0, 0.25), (4.0, 0.125)]);
        let long = Plot::schedule(&Cosine::new(u64::MAX), 1.0, u64::MAX);
        assert_eq!((long.lines[0].1.len(), long.lines[0].1[0]), (SIZE.0 as usize, (0.0, 1.0)));
        assert_eq!(Plot::schedule(&Step::new(2), 1.0, 0).lines[0].1, [(0.0, 1.0)]);
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        let labels = |low: f64, high: f64, log| {
            let axis = Axis::new([low, high].into_iter(), 0.0, 0.0, log);
            assert!(axis.ticks.iter().all(|&(v, _)| v >= low - 1e-9 && v <= high + 1e-9));
            axis.ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(labels(0.0, 1.0, false), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(1.0, 20.0, false), "2 4 6 8 10 12 14 16 18 20");
        assert_eq!(labels(-0.012, 0.013, false), "-0.010 -0.005 0.000 0.005 0.010");
        assert_eq!(labels(0.9, 0.99, false), "0.90 0.92 0.94 0.96 0.98");
        assert_eq!(labels(-4.3, 0.2, true), "1e-4 1e-3 1e-2 1e-1 1e0");
        for (low, high) in [(1.0, 1.0), (0.0, 0.0), (-3e9, 7e9), (1e-9, 2e-9)] {
            let count = Axis::new([low, high].into_iter(), 0.0, 0.0, false).ticks.len();
            assert!((2..=11).contains(&count), "{low} to {high}: {count} ticks");
        }
    }

    #[test]
    fn a_plot_of_anything_is_well_formed() {
        let lines: [&[(f64, f64)]; 6] = [
            &[(0.0, -1e308), (1.0, 1e308), (2.0, 1.0)],
            &[(-1e308, -1e300), (1e308, 1e300), (-1e300, 1e300), (1e300, -1e300)],
            &[],
            &[(1.0, 2.0)],
            &[(0.0, f64::NAN), (1.0, 1.0), (2.0, f64::INFINITY), (3.0, 2.0), (4.0, 2.0)],
            &[(1.0, -1.0), (2.0, 0.0)],
        ];
        for line in lines {
            for log in [false, true] {
                let plot = Plot::new("a").axes("x", "y").line("b", line.iter().copied()).log(log);
                let svg = plot.mark(1.0, "here").svg().to_string();
                assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
