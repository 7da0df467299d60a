//! A value that one thread replaces now and then and all threads read. The lock is held only while a pointer is copied.

use std::sync::{Arc, PoisonError, RwLock};

/// Cloning gives another handle to the same value. A reading thread keeps no copy of its own, because there are as many
/// readers as connections.
#[derive(Debug)]
pub struct Published<T>(Arc<RwLock<Arc<T>>>);

impl<T> Published<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), value);
        // The old value may be large, so it is freed after the lock is released.
        drop(before);
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_was_read_does_not_change() {
        let published = Published::new(1);
        let (other, before) = (published.clone(), published.get());
        other.set(2);
        assert_eq!((*before, *published.get()), (1, 2));
    }
}
