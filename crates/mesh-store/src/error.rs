//! Why the database does not do what it should, and what that means for who asked.

use std::io;
use std::path::PathBuf;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refuses.
    #[error("cannot {what}")]
    Sqlite {
        /// The operation.
        what: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the database {} up to date", .path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// The cause.
        source: sqlx::migrate::MigrateError,
    },
    /// The database was written by a later version.
    #[error("the database {} was written by a newer version of this program; use that version, or move the file away", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another process writes the database {}; end that one first, or name another file in logs.database", .path.display())]
    Taken {
        /// The database.
        path: PathBuf,
    },
    /// There is no database.
    #[error("there is no database {}; mesh-logs makes it when it starts", .path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// A file cannot be handled.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why lines are not stored as fast as they come, as far as that is the database's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Another process has the database locked; it passes.
    Locked,
    /// There is no room on the disk; it passes when somebody makes some.
    Full,
    /// The disk or the file system fails.
    Disk,
    /// The database is damaged.
    Corrupt,
    /// It is stored, but takes long.
    Slow,
    /// Anything else.
    Other,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Locked,
        Self::Full,
        Self::Disk,
        Self::Corrupt,
        Self::Slow,
        Self::Other,
    ];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Corrupt => "corrupt",
            Self::Slow => "slow",
            Self::Other => "other",
        }
    }
}

impl StoreError {
    /// What it means; see <https://sqlite.org/rescode.html>.
    pub fn trouble(&self) -> Trouble {
        let source = match self {
            Self::Sqlite { source, .. } => source,
            Self::Migrate {
                source: sqlx::migrate::MigrateError::Execute(source),
                ..
            } => source,
            _ => return Trouble::Other,
        };
        match primary_code(source) {
            Some(5 | 6) => Trouble::Locked,
            Some(13) => Trouble::Full,
            Some(10 | 14) => Trouble::Disk,
            Some(11 | 26) => Trouble::Corrupt,
            _ => Trouble::Other,
        }
    }

    /// Whether a row with that key exists already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if primary_code(source) == Some(19))
    }
}

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

/// Names the operation that failed.
pub(crate) trait While<T> {
    fn during(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> While<T> for Result<T, sqlx::Error> {
    fn during(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sqlite { what, source })
    }
}
