//! Mosquitto's `password_file`: a line `name:hash` for each user, as `mosquitto_passwd` writes it.
//!
//! The hash is `$7$ITERATIONS$SALT$KEY`: PBKDF2 with HMAC-SHA-512, salt and key in base64 (`mosquitto_passwd(1)`, and
//! `src/password_mosq.c` of Mosquitto 2.0). Every broker since 1.6.13 reads it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::Sha512;

/// As `mosquitto_passwd` does by default. A broker hashes on its only thread whenever a client connects, and a crowd of
/// thousands comes back at once after a failover, so this cannot be as many as elsewhere: a password has to be good.
const ITERATIONS: u32 = 101;

/// Bytes of the salt.
pub const SALT: usize = 12;

/// Bytes of the key: one block of SHA-512.
const KEY: usize = 64;

/// The file's lines, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordFile(Vec<String>);

impl PasswordFile {
    /// The file with this text.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The users.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        let is_user = |line: &&String| !line.starts_with('#');
        self.0
            .iter()
            .filter(is_user)
            .filter_map(|line| Some(line.split_once(':')?.0))
    }

    /// Gives `user` this password, also where there is one already; tells whether there was.
    pub fn set(&mut self, user: &str, password: &str, salt: [u8; SALT]) -> bool {
        let line = format!("{user}:{}", hash(password, salt));
        match self.place(user) {
            Some(place) => {
                self.0[place] = line;
                true
            }
            None => {
                self.0.push(line);
                false
            }
        }
    }

    /// Removes `user`; tells whether there was one.
    pub fn remove(&mut self, user: &str) -> bool {
        let place = self.place(user);
        place.map(|place| self.0.remove(place)).is_some()
    }

    fn place(&self, user: &str) -> Option<usize> {
        let of_user = |line: &String| line.split_once(':').is_some_and(|(name, _)| name == user);
        self.0.iter().position(of_user)
    }
}

fn hash(password: &str, salt: [u8; SALT]) -> String {
    let key: [u8; KEY] = pbkdf2::pbkdf2_hmac_array::<Sha512, KEY>(password.as_bytes(), &salt, ITERATIONS);
    let (salt, key) = (BASE64_STANDARD.encode(salt), BASE64_STANDARD.encode(key));
    format!("$7${ITERATIONS}${salt}${key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_and_go_and_what_else_is_in_the_file_stays() {
        let mut file = PasswordFile::parse("# ours\nann:$7$101$x$y\nbob:$6$x$y\n");
        assert_eq!(file.users().collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(!file.set("eve", "secret", [1; SALT]));
        assert!(file.set("ann", "secret", [2; SALT]));
        assert!(file.remove("bob") && !file.remove("bob"));
        assert_eq!(file.users().collect::<Vec<_>>(), ["ann", "eve"]);
        assert!(file.text().starts_with("# ours\nann:$7$101$AgICAgICAgICAgIC$"));
        assert_eq!(PasswordFile::parse(&file.text()), file);
    }
}
