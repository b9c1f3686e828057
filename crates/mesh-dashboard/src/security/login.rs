//! One token for all who may see the page; who knows it gets a session.
//!
//! A session is a random name in a cookie that scripts cannot read and other sites cannot send. Sessions live in memory:
//! after a restart one logs in again. Wrong tokens are limited, so that one cannot be guessed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);

/// Sessions at a time; the oldest ends first.
const MOST: usize = 1_000;

/// Wrong tokens that are looked at within [`WINDOW`].
const TRIES: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);

const COOKIE: &str = "mesh_session";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read dashboard.token_file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is too short.
    #[error("the token in {} must be one line of 16 characters or more, e.g. from `openssl rand -hex 16`", .path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// What the login page sends.
#[derive(Debug, Deserialize)]
pub struct LoginForm {
    /// The token.
    pub token: String,
}

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The token is wrong.
    Wrong,
    /// Too many were wrong of late.
    TooMany,
}

/// Knows the token and the sessions.
#[derive(Debug)]
pub struct Login {
    /// Comparing hashes tells by its time nothing about the token.
    token: [u8; 32],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<[u8; 32], Instant>,
    wrong: Vec<Instant>,
}

impl Login {
    /// Reads the token from `path`.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        let token = text.trim();
        if token.len() < 16 || token.contains('\n') {
            return Err(TokenError::Short {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            token: hash(token),
            state: Mutex::default(),
        })
    }

    /// Opens a session for who knows the token, and returns the cookie to set.
    ///
    /// # Errors
    ///
    /// [`NotAdmitted`].
    pub fn open(&self, token: &str, now: Instant) -> Result<String, NotAdmitted> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .wrong
            .retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if state.wrong.len() >= TRIES {
            return Err(NotAdmitted::TooMany);
        }
        if hash(token.trim()) != self.token {
            state.wrong.push(now);
            return Err(NotAdmitted::Wrong);
        }
        let name = random().map_err(|error| {
            tracing::error!(%error, "no session can be made");
            NotAdmitted::TooMany
        })?;
        state
            .sessions
            .retain(|_, since| now.saturating_duration_since(*since) < LASTS);
        if state.sessions.len() >= MOST {
            let oldest = state
                .sessions
                .iter()
                .min_by_key(|(_, since)| **since)
                .map(|(name, _)| *name);
            oldest.map(|name| state.sessions.remove(&name));
        }
        state.sessions.insert(hash(&name), now);
        let seconds = LASTS.as_secs();
        Ok(format!(
            "{COOKIE}={name}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}"
        ))
    }

    /// Whether a request with `headers` has a session, or the token itself.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if bearer.is_some_and(|token| hash(token.trim()) == self.token) {
            return true;
        }
        let cookies = headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        let mut pairs = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let Some((_, name)) = pairs.find(|(name, _)| *name == COOKIE) else {
            return false;
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.sessions.get(&hash(name));
        since.is_some_and(|since| since.elapsed() < LASTS)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// 32 random bytes in hexadecimal.
fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const TOKEN: &str = "a token that is long enough";

    fn login() -> Login {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        Login::load(&path).unwrap()
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )])
    }

    #[test]
    fn who_knows_the_token_has_a_session() {
        let login = login();
        assert!(!login.admits(&HeaderMap::new()));
        let cookie = login.open(TOKEN, Instant::now()).unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        assert!(login.admits(&with("cookie", &format!("theme=dark; {pair}"))));
        assert!(!login.admits(&with("cookie", &format!("{pair}0"))));
        assert!(login.admits(&with("authorization", &format!("Bearer {TOKEN}"))));
        assert!(!login.admits(&with("authorization", "Bearer wrong")));
    }

    #[test]
    fn guessing_is_stopped_for_a_while() {
        let login = login();
        let now = Instant::now();
        for _ in 0..TRIES {
            assert_eq!(login.open("wrong", now), Err(NotAdmitted::Wrong));
        }
        assert_eq!(login.open(TOKEN, now), Err(NotAdmitted::TooMany));
        assert!(login.open(TOKEN, now + WINDOW).is_ok());
    }

    #[test]
    fn a_short_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(Login::load(&path), Err(TokenError::Read { .. })));
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(Login::load(&path), Err(TokenError::Short { .. })));
    }
}
