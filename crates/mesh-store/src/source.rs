//! How far each source has been read.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::error::{StoreError, While};
use crate::insert::{Forms, Insert, Statement};

/// How far one stream of lines has been read, and what was counted on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Its number, the same for ever.
    pub id: i64,
    /// The name of the source in `mesh.toml`.
    pub name: String,
    /// The file, where a source has many; else empty.
    pub stream: String,
    /// The device of the file read last.
    pub device: u64,
    /// The inode of the file read last.
    pub inode: u64,
    /// How many bytes `head_hash` covers.
    pub head_bytes: u32,
    /// The hash of the first bytes of the file read last.
    pub head_hash: u64,
    /// Bytes read of it.
    pub position: u64,
    /// When it had been modified last, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// journald's cursor.
    pub journal: String,
    /// The key of the last row; see [`crate::id`].
    pub last_key: i64,
    /// Lines read since ever.
    pub lines: u64,
    /// Bytes read since ever.
    pub bytes: u64,
    /// Lines that no parser understood.
    pub unparsed: u64,
    /// How often lines may be missing.
    pub gaps: u64,
    /// When something was read last, in nanoseconds since 1970.
    pub read_ns: i64,
}

// SQLite's integers have a sign; the bits are the same.
const fn signed(bits: u64) -> i64 {
    bits.cast_signed()
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

impl SourceState {
    pub(crate) fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            stream: row.try_get("stream")?,
            device: unsigned(row, "device")?,
            inode: unsigned(row, "inode")?,
            head_bytes: unsigned(row, "head_bytes")? as u32,
            head_hash: unsigned(row, "head_hash")?,
            position: unsigned(row, "position")?,
            modified_ns: row.try_get("modified_ns")?,
            journal: row.try_get("journal")?,
            last_key: row.try_get("last_key")?,
            lines: unsigned(row, "lines")?,
            bytes: unsigned(row, "bytes")?,
            unparsed: unsigned(row, "unparsed")?,
            gaps: unsigned(row, "gaps")?,
            read_ns: row.try_get("read_ns")?,
        })
    }
}

/// How far the streams of a batch were read, in one statement: there may be many.
const PLACES: Statement<'static> = Statement {
    into: "UPDATE source SET device = column2, inode = column3, head_bytes = column4, head_hash = column5, \
           position = column6, modified_ns = column7, journal = column8, last_key = column9, lines = column10, \
           bytes = column11, unparsed = column12, gaps = column13, read_ns = column14 FROM (",
    columns: 14,
    forms: Forms::Filled(&[256, 64, 16, 4, 1]),
    then: ") WHERE id = column1",
};

/// Saves how far each of `sources` was read.
pub(crate) fn places(sources: &[SourceState]) -> impl Iterator<Item = Insert> + '_ {
    PLACES.of(sources, |update, source| {
        update
            .bind(source.id)
            .bind(signed(source.device))
            .bind(signed(source.inode))
            .bind(i64::from(source.head_bytes))
            .bind(signed(source.head_hash))
            .bind(signed(source.position))
            .bind(source.modified_ns)
            .bind(source.journal.clone())
            .bind(source.last_key)
            .bind(signed(source.lines))
            .bind(signed(source.bytes))
            .bind(signed(source.unparsed))
            .bind(signed(source.gaps))
            .bind(source.read_ns)
    })
}

/// Every stream that was ever read and not forgotten.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<SourceState>, StoreError> {
    let rows = sqlx::query("SELECT * FROM source ORDER BY id")
        .fetch_all(connection)
        .await
        .during("read the sources")?;
    let states: Result<_, sqlx::Error> = rows.iter().map(SourceState::read).collect();
    states.during("read the sources")
}
