//! How training shows that it goes on.

use crate::{Epoch, history};
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How progress is shown, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar on a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// A bar that is drawn over itself, and a line for each epoch.
    Bar,
    /// A line for each epoch.
    Lines,
    /// Nothing.
    Silent,
}

/// The least time between two drawings of the bar.
const PAUSE: Duration = Duration::from_millis(80);
const WIDTH: usize = 24;

/// Shows one training. What cannot be written is not shown: training goes on without a terminal.
pub(crate) struct Reporter<'w> {
    out: Option<&'w mut (dyn Write + Send)>,
    bar: bool,
    epochs: usize,
    drawn: Option<Instant>,
}

impl<'w> Reporter<'w> {
    pub(crate) fn new(progress: Progress, out: &'w mut (dyn Write + Send), epochs: usize) -> Self {
        let bar = match progress {
            Progress::Auto => io::stderr().is_terminal(),
            Progress::Bar => true,
            Progress::Lines | Progress::Silent => false,
        };
        Self { out: (progress != Progress::Silent).then_some(out), bar, epochs, drawn: None }
    }

    /// Part of an epoch is done: `seen` of `all` samples since `begun`, at this mean loss.
    pub(crate) fn step(&mut self, epoch: usize, seen: usize, all: usize, loss: f64, begun: Instant) {
        let Some(out) = self.out.as_mut().filter(|_| self.bar) else { return };
        if self.drawn.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = seen * WIDTH / all.max(1);
        let left = begun.elapsed().as_secs_f64() * (all - seen.min(all)) as f64 / seen.max(1) as f64;
        let _ = write!(
            out,
            "\r\x1b[Kepoch {epoch}/{} {}{} {seen}/{all}  loss {}  {} left",
            self.epochs,
            "━".repeat(full),
            "╌".repeat(WIDTH - full.min(WIDTH)),
            history::number(loss),
            history::seconds(left)
        )
        .and_then(|()| out.flush());
    }

    /// An epoch is done.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) {
        let bar = self.bar;
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{}{epoch}", if bar { "\r\x1b[K" } else { "" });
        }
    }

    /// A word about the end.
    pub(crate) fn note(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{text}");
        }
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        if let (Some(out), true, Some(_)) = (&mut self.out, self.bar, self.drawn) {
            // What is left of a bar would stand before the shell's prompt or an error.
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_draws_over_itself_and_lines_do_not() {
        let shown = |progress| {
            let mut out: Vec<u8> = Vec::new();
            let mut reporter = Reporter::new(progress, &mut out, 5);
            reporter.step(2, 32, 64, 0.5, Instant::now());
            reporter.step(2, 64, 64, 0.5, Instant::now()); // too soon to be drawn
            reporter.note("done");
            drop(reporter);
            String::from_utf8(out).unwrap()
        };
        let bar = shown(Progress::Bar);
        assert!(bar.starts_with("\r\x1b[Kepoch 2/5 ━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 32/64  loss 0.5000"), "{bar:?}");
        assert!(!bar.contains("64/64"));
        assert_eq!(shown(Progress::Lines), "done\n");
        assert_eq!(shown(Progress::Silent), "");
    }
}
