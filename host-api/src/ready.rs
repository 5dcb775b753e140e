//! Named conditions that the process waits for before it serves. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One condition: down at first, up for good once it was reached.
#[derive(Clone, Debug)]
pub struct Ready {
    name: &'static str,
    up: Arc<AtomicBool>,
}

impl Ready {
    /// A condition that has not been reached.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, up: Arc::default() }
    }

    /// Marks it as reached.
    pub fn up(&self) {
        self.up.store(true, Ordering::Release);
    }

    /// Whether it was reached.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}
