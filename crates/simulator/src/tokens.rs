//! Access tokens: who holds which, and until when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::generator::uuid;

/// Expired tokens are remembered up to this many, because they still tell who is calling.
const REMEMBERED: usize = 10_000;

/// The tokens given out.
#[derive(Default)]
pub(crate) struct Tokens {
    tokens: HashMap<String, Token>,
    pub(crate) issued: u64,
}

struct Token {
    client: String,
    valid_until: Instant,
}

impl Tokens {
    pub(crate) fn issue(&mut self, client: &str, ttl: Duration, now: Instant) -> String {
        if self.tokens.len() >= REMEMBERED {
            self.tokens.retain(|_, token| token.valid_until > now);
        }
        self.issued += 1;
        let text = uuid(rand::random(), rand::random());
        self.tokens.insert(text.clone(), Token { client: client.to_owned(), valid_until: now + ttl });
        text
    }

    /// The client that a token was given to, valid or not.
    pub(crate) fn client(&self, token: &str) -> Option<&str> {
        self.tokens.get(token).map(|token| token.client.as_str())
    }

    pub(crate) fn is_valid(&self, token: &str, now: Instant) -> bool {
        self.tokens.get(token).is_some_and(|token| token.valid_until > now)
    }

    pub(crate) fn revoke(&mut self, token: &str, now: Instant) {
        if let Some(token) = self.tokens.get_mut(token) {
            token.valid_until = now;
        }
    }

    pub(crate) fn revoke_all(&mut self, now: Instant) {
        for token in self.tokens.values_mut() {
            token.valid_until = now;
        }
    }
}
