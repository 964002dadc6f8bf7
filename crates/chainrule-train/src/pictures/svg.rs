//! A picture as text.

use chainrule_core::Result;
use std::{
    fmt::{self, Write},
    path::Path,
};

/// A finished picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// Writes it to a file, atomically.
    ///
    /// # Errors
    /// The operating system refuses; an older file is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        chainrule_io::write_atomically(path, self.0.as_bytes())
    }

    /// The text of the picture.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a text begins, or ends.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn; x runs to the right and y down, in pixels.
pub(super) struct Canvas(String);

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        ))
    }

    pub(super) fn finish(mut self) -> Svg {
        self.0.push_str("</svg>\n");
        Svg(self.0)
    }

    fn add(&mut self, element: fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("writing to a string cannot fail");
    }

    pub(super) fn rect(&mut self, [x, y, width, height]: [f64; 4], style: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" {style}/>"
        ));
    }

    pub(super) fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], style: &str) {
        self.add(format_args!("<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" {style}/>"));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], style: &str) {
        let mut text = String::new();
        for (x, y) in points {
            write!(text, "{x:.2},{y:.2} ").expect("writing to a string cannot fail");
        }
        self.add(format_args!("<polyline points=\"{}\" fill=\"none\" {style}/>", text.trim_end()));
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, style: &str) {
        self.add(format_args!("<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" {style}/>"));
    }

    pub(super) fn path(&mut self, path: &str, style: &str) {
        self.add(format_args!("<path d=\"{path}\" {style}/>"));
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: f64, style: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\" font-size=\"{size}\" {style}>{}</text>",
            escaped(text)
        ));
    }
}

/// Text that cannot be taken for markup; control characters, which XML forbids, become spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_markup() {
        assert_eq!(escaped("<b> & \u{1}"), "&lt;b&gt; &amp;  ");
        let mut canvas = Canvas::new(10.0, 20.0);
        canvas.text((1.0, 2.0), Anchor::Middle, 9.0, "", "a < b");
        let svg = canvas.finish().to_string();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(">a &lt; b</text>"));
    }
}
