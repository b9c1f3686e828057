//! The passwords of the mesh's own users.

use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use mesh_model::names::{HEALTH_USER, LINK_USER};

use crate::atomic_file;

/// The file with what an operator shows to mesh-health, beside the passwords.
const OPERATOR: &str = "operator";

/// The passwords of the mesh's own users. `Debug` does not show them.
#[derive(Clone)]
pub struct Secrets {
    /// Password of [`LINK_USER`].
    pub link: String,
    /// Password of [`HEALTH_USER`].
    pub health: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Why there are no passwords.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read.
    #[error("cannot read the password in {}; `meshctl render` makes the files of security.secrets_dir", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be made.
    #[error("cannot make the password file {}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A password is unusable.
    #[error("the password in {} is unusable: it must be one line of 16 to 64 characters of A-Z, a-z, 0-9, - and _", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl Secrets {
    /// Reads the passwords from the files of `folder`, named like the users.
    ///
    /// # Errors
    ///
    /// [`SecretsError::Read`] or [`SecretsError::Unusable`].
    pub fn load(folder: &Path) -> Result<Self, SecretsError> {
        Ok(Self {
            link: read(&folder.join(LINK_USER))?,
            health: read(&folder.join(HEALTH_USER))?,
        })
    }

    /// Like [`Self::load`], but first makes what is missing: the folder, and random passwords, readable by the
    /// owner only.
    ///
    /// # Errors
    ///
    /// Any [`SecretsError`].
    pub fn load_or_create(folder: &Path) -> Result<Self, SecretsError> {
        for user in [LINK_USER, HEALTH_USER] {
            create_missing(folder, user)?;
        }
        Self::load(folder)
    }
}

/// What an operator shows to mesh-health where `security.operators_only` is true.
///
/// # Errors
///
/// [`SecretsError::Read`] or [`SecretsError::Unusable`].
pub fn operator(folder: &Path) -> Result<String, SecretsError> {
    read(&folder.join(OPERATOR))
}

/// Makes what [`operator`] reads, if it is missing, as [`Secrets::load_or_create`] does.
///
/// # Errors
///
/// [`SecretsError::Create`].
pub fn create_operator(folder: &Path) -> Result<(), SecretsError> {
    create_missing(folder, OPERATOR)
}

fn create_missing(folder: &Path, name: &str) -> Result<(), SecretsError> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    create(folder, &path).map_err(|source| SecretsError::Create { path, source })
}

fn create(folder: &Path, path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    atomic_file::write(path, format!("{password}\n").as_bytes(), 0o600)?;
    // Made by root in the folder of a daemon's user, it is for that user.
    if rustix::process::geteuid().is_root() {
        let owner = std::fs::metadata(folder)?;
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, SecretsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (16..=64).contains(&password.len()) && password.chars().all(allowed) {
        Ok(password.to_owned())
    } else {
        Err(SecretsError::Unusable {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn passwords_are_made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        assert!(matches!(Secrets::load(&secrets), Err(SecretsError::Read { .. })));
        let made = Secrets::load_or_create(&secrets).unwrap();
        assert_ne!(made.link, made.health);
        assert_eq!(Secrets::load_or_create(&secrets).unwrap().link, made.link);
        let mode = std::fs::metadata(secrets.join(LINK_USER))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "Secrets(..)");
    }

    #[test]
    fn a_password_that_would_need_quoting_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LINK_USER), "0123456789abcdef\nlistener 1883\n").unwrap();
        std::fs::write(folder.path().join(HEALTH_USER), "0123456789abcdef\n").unwrap();
        assert!(matches!(
            Secrets::load(folder.path()),
            Err(SecretsError::Unusable { .. })
        ));
    }
}
