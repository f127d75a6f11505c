//! Time as the protocol sees it: milliseconds since the process started, handed in from outside.

/// A moment: milliseconds since the process's own epoch, the same on every reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment plus a number of seconds.
    #[must_use]
    pub fn plus_secs(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to here; 0 if that lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The wheel's tick that this moment falls into.
    pub fn tick(self) -> Tick {
        Tick((self.0 / crate::limits::TICK_MILLIS) as u32)
    }
}

/// A tick of the timing wheels, [`crate::limits::TICK_MILLIS`] long; u32 lasts 34 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// The first tick that is wholly over `millis` milliseconds from now.
    #[must_use]
    pub fn after_millis(self, millis: u64) -> Self {
        let ticks = millis.div_ceil(crate::limits::TICK_MILLIS) + 1;
        Self(
            self.0
                .saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)),
        )
    }
}
