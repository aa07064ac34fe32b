//! Secrets that are read when they are needed and never printed.

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

/// A secret value, or where it is read from.
///
/// It is read again on each token refresh, so a rotated file is picked up without a restart. `Debug` shows nothing of
/// it.
#[derive(Clone)]
pub struct Secret(Arc<Reader>);

type Reader = dyn Fn() -> Result<SecretString, String> + Send + Sync;

impl Secret {
    /// A fixed value.
    pub fn literal(value: impl Into<String>) -> Self {
        let value = SecretString::from(value.into());
        Self(Arc::new(move || Ok(value.clone())))
    }

    /// A value that `read` fetches each time; its error is one sentence that names the place, never the value.
    pub fn reader(read: impl Fn() -> Result<SecretString, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The value now.
    ///
    /// # Errors
    /// The reader's sentence.
    pub fn read(&self) -> Result<SecretString, String> {
        (self.0)()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn debug_shows_nothing_and_read_gives_the_value() {
        let secret = Secret::literal("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(secret.read().unwrap().expose_secret(), "hunter2");
    }

    #[test]
    fn a_reader_is_asked_every_time() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = asked.clone();
        let secret = Secret::reader(move || {
            let n = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(format!("v{n}").into())
        });
        assert_eq!(secret.read().unwrap().expose_secret(), "v0");
        assert_eq!(secret.clone().read().unwrap().expose_secret(), "v1");
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
