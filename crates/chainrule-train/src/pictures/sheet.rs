//! Many small images on one sheet.

use super::svg::{Anchor, Canvas, Svg};
use crate::Report;
use chainrule_core::{Error, Result, Scalar};
use chainrule_data::Dataset;
use std::{collections::BTreeMap, fmt::Write};

/// The side of an image on the sheet, and the room around it.
const SIDE: f64 = 76.0;
const GAP: f64 = 10.0;
const CAPTION: f64 = 18.0;
const TITLE: f64 = 40.0;

/// Grayscale images and maps of signed values in rows, each with a caption.
///
/// ```
/// use chainrule_train::pictures::Sheet;
/// let mut sheet = Sheet::new("two by two", [2, 2]);
/// sheet.add(&[0.0f32, 1.0, 0.5, 0.0], "first")?;
/// assert!(sheet.svg().as_str().contains("first"));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sheet {
    title: String,
    size: [usize; 2],
    columns: usize,
    images: Vec<Image>,
}

#[derive(Clone, Debug)]
struct Image {
    pixels: Vec<f64>,
    size: [usize; 2],
    caption: String,
    /// A map of signed values, with a scale of its own.
    map: bool,
}

impl Sheet {
    /// A sheet for images of `[height, width]` pixels.
    pub fn new(title: impl Into<String>, size: [usize; 2]) -> Self {
        Self { title: title.into(), size, columns: 10, images: Vec::new() }
    }

    /// The largest number of images beside each other (default 10).
    #[must_use]
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// Adds an image, row-major; the smallest value on the sheet becomes black and the largest white.
    ///
    /// # Errors
    /// Another number of pixels.
    pub fn add<T: Scalar>(&mut self, pixels: &[T], caption: impl Into<String>) -> Result<()> {
        self.push(pixels, self.size, caption.into(), false)
    }

    /// Adds a map of signed values, row-major, of `[height, width]` of its own: 0 is white, positive values are red, negative ones blue, the
    /// more so the larger; the largest magnitude of the map has the full colour.
    ///
    /// # Errors
    /// Another number of values.
    ///
    /// ```
    /// use chainrule_train::pictures::Sheet;
    /// let mut sheet = Sheet::new("an image and its map", [2, 2]);
    /// sheet.add(&[0.0f32, 1.0, 0.5, 0.0], "image")?;
    /// sheet.add_map(&[0.0f32, 2.0, -2.0, 1.0], [2, 2], "map")?;
    /// assert!(sheet.svg().as_str().contains("#b2182b"));
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    pub fn add_map<T: Scalar>(
        &mut self,
        values: &[T],
        size: [usize; 2],
        caption: impl Into<String>,
    ) -> Result<()> {
        self.push(values, size, caption.into(), true)
    }

    fn push<T: Scalar>(&mut self, pixels: &[T], size: [usize; 2], caption: String, map: bool) -> Result<()> {
        let [height, width] = size;
        if height.checked_mul(width) != Some(pixels.len()) {
            let expected = height.saturating_mul(width);
            return Err(Error::shape(format!(
                "sheet: expected images of {height} × {width} = {expected} pixels, got {}",
                pixels.len()
            )));
        }
        self.images.push(Image { pixels: pixels.iter().map(|v| v.to_f64()).collect(), size, caption, map });
        Ok(())
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The picture.
    pub fn svg(&self) -> Svg {
        let columns = self.columns.min(self.images.len()).max(3);
        let rows = self.images.len().div_ceil(columns);
        let cell = [SIDE + GAP, SIDE + CAPTION + GAP];
        let width = columns as f64 * cell[0] + GAP;
        let mut canvas = Canvas::new(width, TITLE + rows as f64 * cell[1] + GAP);
        canvas.text((width / 2.0, 25.0), Anchor::Middle, 15.0, "font-weight=\"bold\"", &self.title);
        let pixels = self.images.iter().filter(|image| !image.map).flat_map(|image| &image.pixels);
        let pixels = pixels.filter(|v| v.is_finite());
        let (low, high) = pixels.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let grey = |v: f64| {
            ((v - low) / (high - low).max(f64::MIN_POSITIVE) * 255.0).round().clamp(0.0, 255.0) as i32
        };
        for (i, image) in self.images.iter().enumerate() {
            let x = GAP + (i % columns) as f64 * cell[0];
            let y = TITLE + (i / columns) as f64 * cell[1];
            if image.map {
                let largest =
                    image.pixels.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
                let level =
                    |v: f64| (v / largest.max(f64::MIN_POSITIVE) * 255.0).round().clamp(-255.0, 255.0) as i32;
                image.draw(&mut canvas, [x, y], level, signed);
            } else {
                image.draw(&mut canvas, [x, y], grey, |level| format!("#{level:02x}{level:02x}{level:02x}"));
            }
            let under = (x + SIDE / 2.0, y + SIDE + 14.0);
            canvas.text(under, Anchor::Middle, 12.0, "", &image.caption);
        }
        canvas.finish()
    }
}

/// White at 0, to red at 255 and to blue at −255 (the ends of ColorBrewer's RdBu).
fn signed(level: i32) -> String {
    let end = if level > 0 { [0xb2, 0x18, 0x2b] } else { [0x21, 0x66, 0xac] };
    let [r, g, b] = end.map(|end| 255 + (end - 255) * level.abs() / 255);
    format!("#{r:02x}{g:02x}{b:02x}")
}

impl Image {
    /// One path for each colour, made of the runs of that colour in every row.
    fn draw(
        &self,
        canvas: &mut Canvas,
        [x, y]: [f64; 2],
        level: impl Fn(f64) -> i32,
        colour: impl Fn(i32) -> String,
    ) {
        let [height, width] = self.size;
        // A map is framed: its white is that of the sheet.
        let frame = if self.map { " stroke=\"#ccc\"" } else { "" };
        let ground = if self.map { "white" } else { "black" };
        canvas.rect([x, y, SIDE, SIDE], &format!("fill=\"{ground}\"{frame}"));
        if self.pixels.is_empty() {
            return;
        }
        let levels: Vec<i32> = self.pixels.iter().map(|&v| level(v)).collect();
        let mut paths: BTreeMap<i32, String> = BTreeMap::new();
        for (row, levels) in levels.chunks_exact(width).enumerate() {
            let mut column = 0;
            for run in levels.chunk_by(|a, b| a == b) {
                let n = run.len();
                write!(paths.entry(run[0]).or_default(), "M{column} {row}h{n}v1h-{n}z")
                    .expect("writing to a string cannot fail");
                column += n;
            }
        }
        let (sx, sy) = (SIDE / width as f64, SIDE / height as f64);
        // Level 0 is the ground below.
        for (&level, path) in paths.iter().filter(|(level, _)| **level != 0) {
            let style = format!(
                "fill=\"{}\" shape-rendering=\"crispEdges\" \
                 transform=\"translate({x:.2} {y:.2}) scale({sx:.5} {sy:.5})\"",
                colour(level)
            );
            canvas.path(path, &style);
        }
    }
}

/// The images that were predicted wrong, at most `limit` of them, with the true and the predicted class under each.
///
/// # Shapes
/// The data's samples are (H, W) or (1, H, W).
///
/// # Errors
/// Samples of another shape, or a report about other data.
pub fn mistakes<T: Scalar>(report: &Report, data: &Dataset<T>, limit: usize) -> Result<Svg> {
    let &([height, width] | [1, height, width]) = data.sample_shape() else {
        return Err(Error::shape(format!(
            "mistakes: expected images (height, width) or (1, height, width), got {:?}",
            data.sample_shape()
        )));
    };
    if report.predictions().len() != data.len() {
        return Err(Error::shape(format!(
            "mistakes: expected a report about {} samples, got {}",
            data.len(),
            report.predictions().len()
        )));
    }
    let all = report.mistakes().count();
    let shown = if all > limit { format!(", the first {limit}") } else { String::new() };
    let title = format!("{all} of {} predicted wrong{shown} (true → predicted)", data.len());
    let (mut sheet, mut pixels) = (Sheet::new(title, [height, width]), vec![T::ZERO; height * width]);
    for (i, truth, predicted) in report.mistakes().take(limit) {
        let caption = format!("{} → {}", data.class_name(truth), data.class_name(predicted));
        data.inputs()[0].copy_sample(i, &mut pixels);
        sheet.add(&pixels, caption)?;
    }
    Ok(sheet.svg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_one_gray_share_a_path() {
        let mut sheet = Sheet::new("t", [2, 3]);
        sheet.add(&[0.0f64, 4.0, 4.0, 2.0, 0.0, 4.0], "a").unwrap();
        let svg = sheet.svg().to_string();
        assert!(svg.contains("M1 0h2v1h-2zM2 1h1v1h-1z\" fill=\"#ffffff\""), "{svg}");
        assert!(svg.contains("M0 1h1v1h-1z\" fill=\"#808080\""), "{svg}");
        assert!(sheet.add(&[0.0f32; 5], "b").is_err());
        sheet.add_map(&[-4.0f64, 0.0, f64::NAN, 2.0], [1, 4], "m").unwrap();
        let svg = sheet.svg().to_string();
        assert!(svg.contains("M0 0h1v1h-1z\" fill=\"#2166ac\""), "{svg}");
        assert!(svg.contains("M3 0h1v1h-1z\" fill=\"#d98c95\""), "{svg}");
        assert!(sheet.add_map(&[0.0f32; 4], [usize::MAX, 2], "b").is_err());
        assert!(Sheet::new("none", [8, 8]).svg().as_str().contains("none"));
    }
}
