//! Progress reporting.

use crate::{Epoch, clock::Moment, history};
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

/// How progress is reported, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar on a terminal, plain lines otherwise and into a writer of one's own.
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

/// Where progress is reported.
pub(crate) enum Output {
    Stderr,
    Writer(Box<dyn Write + Send>),
}

/// Reports one training. What cannot be written is dropped: training continues without a terminal.
pub(crate) struct Reporter<'w> {
    out: Option<Box<dyn Write + 'w>>,
    bar: bool,
    epochs: usize,
    drawn: Option<Moment>,
}

impl<'w> Reporter<'w> {
    pub(crate) fn new(progress: Progress, out: &'w mut Output, epochs: usize) -> Self {
        let bar = match (progress, &out) {
            (Progress::Auto, Output::Stderr) => io::stderr().is_terminal(),
            (Progress::Bar, _) => true,
            _ => false,
        };
        let out: Box<dyn Write + 'w> = match out {
            Output::Stderr => Box::new(io::stderr()),
            Output::Writer(out) => Box::new(out),
        };
        Self { out: (progress != Progress::Silent).then_some(out), bar, epochs, drawn: None }
    }

    /// Part of an epoch is done: `seen` samples since `begun`, of `all` if that is known, at this mean loss. Without a clock
    /// nothing is drawn: it could not be kept from being drawn at every step.
    pub(crate) fn step(&mut self, epoch: usize, seen: usize, all: Option<usize>, loss: f64, begun: Moment) {
        let Some(out) = self.out.as_mut().filter(|_| self.bar) else { return };
        let recent = |drawn: Moment| drawn.elapsed().is_none_or(|time| time < PAUSE);
        let Some(time) = begun.elapsed().filter(|_| !self.drawn.is_some_and(recent)) else { return };
        self.drawn = Some(Moment::now());
        let (epochs, loss) = (self.epochs, history::number(loss));
        let _ = match all {
            Some(all) => {
                let full = (seen * WIDTH / all.max(1)).min(WIDTH);
                let left = time.as_secs_f64() * (all - seen.min(all)) as f64 / seen.max(1) as f64;
                let (done, open) = ("━".repeat(full), "╌".repeat(WIDTH - full));
                let left = history::seconds(left);
                write!(
                    out,
                    "\r\x1b[Kepoch {epoch}/{epochs} {done}{open} {seen}/{all}  loss {loss}  {left} left"
                )
            }
            None => write!(out, "\r\x1b[Kepoch {epoch}/{epochs}  {seen} samples  loss {loss}"),
        }
        .and_then(|()| out.flush());
    }

    /// An epoch is done.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) {
        let bar = self.bar;
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{}{epoch}", if bar { "\r\x1b[K" } else { "" });
        }
    }

    /// A remark at the end.
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
    use std::sync::{Arc, Mutex};

    /// A writer whose text can be read afterwards.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_draws_over_itself_and_lines_do_not() {
        let shown = |progress, all| {
            let text = Shared::default();
            let mut out = Output::Writer(Box::new(text.clone()));
            let mut reporter = Reporter::new(progress, &mut out, 5);
            reporter.step(2, 32, all, 0.5, Moment::now());
            reporter.step(2, 64, all, 0.5, Moment::now()); // too soon to be drawn
            reporter.note("done");
            drop(reporter);
            String::from_utf8(text.0.lock().unwrap().clone()).unwrap()
        };
        let bar = shown(Progress::Bar, Some(64));
        assert!(bar.starts_with("\r\x1b[Kepoch 2/5 ━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 32/64  loss 0.5000"), "{bar:?}");
        assert!(!bar.contains("64/64"));
        let stream = shown(Progress::Bar, None);
        assert!(stream.starts_with("\r\x1b[Kepoch 2/5  32 samples  loss 0.5000"), "{stream:?}");
        // Whatever standard error is, a writer of one's own gets no control codes unless it is told to.
        assert_eq!(shown(Progress::Auto, Some(64)), "done\n");
        assert_eq!(shown(Progress::Lines, Some(64)), "done\n");
        assert_eq!(shown(Progress::Silent, Some(64)), "");
    }
}
