//! A least rate of what comes over a connection, right above TCP: whoever sends a byte now and then holds nobody up,
//! be it in a TLS record, in a chunk's head or between the parts of an answer.

use std::time::{Duration, Instant};

use ureq::Error as UreqError;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use crate::connect::Step;

/// How much has to come while it is waited for. Time in which nobody reads doesn't count, so whoever reads slowly on
/// purpose isn't the server's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRate {
    /// Bytes that have to come in each stretch of `within`.
    pub bytes: u64,
    /// Length of a stretch of waiting; the wait that reaches it is still finished.
    pub within: Duration,
}

/// What came in the current stretch.
#[derive(Debug, Default)]
struct Stretch {
    bytes: u64,
    waited: Duration,
}

impl Stretch {
    /// Takes note of a wait and of what it brought; `false`: too little came.
    fn add(&mut self, least: LeastRate, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.waited < least.within {
            return true;
        }
        std::mem::take(self).bytes >= least.bytes
    }
}

/// A connection on which too little is an error.
#[derive(Debug)]
pub struct Steady<T> {
    inner: T,
    least: Option<LeastRate>,
    stretch: Stretch,
}

impl<T> Steady<T> {
    pub fn new(inner: T, least: Option<LeastRate>) -> Self {
        Self { inner, least, stretch: Stretch::default() }
    }
}

impl<T: Transport> Transport for Steady<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), UreqError> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, UreqError> {
        let Some(least) = self.least else { return self.inner.await_input(timeout) };
        let (began, before) = (Instant::now(), self.inner.buffers().input().len());
        let progress = self.inner.await_input(timeout)?;
        let came = self.inner.buffers().input().len().saturating_sub(before) as u64;
        match self.stretch.add(least, came, began.elapsed()) {
            true => Ok(progress),
            false => Err(Step::Slow(least).into()),
        }
    }

    /// ureq asks before it uses a kept connection again: what came for the request before counts no more.
    fn is_open(&mut self) -> bool {
        self.stretch = Stretch::default();
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_of_waiting_has_to_bring_enough() {
        let least = LeastRate { bytes: 100, within: Duration::from_secs(10) };
        let mut stretch = Stretch::default();
        let second = Duration::from_secs(1);
        assert!((0..10).all(|_| stretch.add(least, 10, second)), "just enough");
        assert!((0..9).all(|_| stretch.add(least, 0, second)), "it isn't over yet");
        assert!(stretch.add(least, 100, Duration::ZERO), "what needn't be waited for takes no time");
        assert!(stretch.add(least, 0, second));
        assert!((0..9).all(|_| stretch.add(least, 11, second)));
        assert!(!stretch.add(least, 0, second), "99 bytes in 10 s");
        assert!(!stretch.add(least, 99, Duration::from_secs(30)), "a long wait is a stretch by itself");
    }
}
