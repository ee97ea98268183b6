//! The connection to a database file: opened, keyed and set up in the one right order, and its errors made ours.

use std::path::Path;
use std::time::Duration;

use core_crypto::{SecureBytes, key_schedule};
use rusqlite::{Connection, OpenFlags, OptionalExtension, ffi};
use zeroize::Zeroizing;

use super::log_room::CHECKPOINT_FRAMES;
use crate::store::{Damage, StoreError};

/// Settings of the connection that need no answer. `cell_size_check` and `trusted_schema` are SQLite's own advice
/// for files that someone may have changed (<https://sqlite.org/security.html>).
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
";

/// Turns an error of the library into one of ours, leaving out its text: that may quote the statement, and one
/// statement holds the key.
pub(super) fn failed(action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| {
        let code = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code,
            rusqlite::Error::SqlInputError { error, .. } => error.extended_code,
            // A value of another type than the schema has.
            _ => ffi::SQLITE_MISMATCH,
        };
        classify(action, code)
    }
}

fn classify(action: &'static str, code: i32) -> StoreError {
    match code & 0xff {
        ffi::SQLITE_FULL => StoreError::Full,
        // The index of the WAL could not be made larger, which only a full disk does.
        ffi::SQLITE_IOERR if code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => StoreError::Busy,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_MISMATCH => {
            StoreError::Damaged(Damage::Database { code })
        }
        _ => StoreError::Database { action, explanation: ffi::code_to_str(code), code },
    }
}

/// Opens the file, sets the key, proves that it opens the first page, and sets everything else.
pub(super) fn connect(path: &Path, vault_key: &SecureBytes) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("open the database"))?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(failed("open the database"))?;
    require_sqlcipher(&connection)?;
    connection
        .execute_batch("PRAGMA cipher_log_level = NONE; PRAGMA cipher_memory_security = ON;")
        .map_err(failed("protect the database's memory"))?;
    connection.execute_batch(&key_statement(vault_key)?).map_err(failed("set the database's key"))?;
    match connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
        Ok(()) => {}
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(StoreError::WrongKey);
        }
        Err(error) => return Err(failed("read the database")(error)),
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed("turn on the write-ahead log"))?;
    if mode != "wal" {
        return Err(classify("turn on the write-ahead log", ffi::SQLITE_ERROR));
    }
    connection.execute_batch(SETTINGS).map_err(failed("set the database up"))?;
    connection
        .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_FRAMES)
        .map_err(failed("set the database up"))?;
    overwrite_small_blocks(&connection)?;
    Ok(connection)
}

/// Overwrites the connection's pool of small blocks (<https://sqlite.org/malloc.html#lookaside>), where the parser
/// has left the text of the key: else it stays there until the connection is closed.
fn overwrite_small_blocks(connection: &Connection) -> Result<(), StoreError> {
    /// More than there are: 93 of 128 bytes, by the defaults of the library.
    const BLOCKS: usize = 200;
    const LETTERS: usize = 120;
    // The name of each column is held in a block of its own, all of them at once.
    let column = format!("0 AS {}", "o".repeat(LETTERS));
    let statement = format!("SELECT {}", vec![column; BLOCKS].join(", "));
    connection.query_row(&statement, [], |_| Ok(())).map_err(failed("wipe the text of the key"))
}

/// Moves everything from the write-ahead log into the database and empties the log.
pub(super) fn empty_log(connection: &Connection) -> Result<(), StoreError> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(failed("empty the write-ahead log"))
}

/// Refuses to write through a plain SQLite, which would take the key for an unknown setting and ignore it.
fn require_sqlcipher(connection: &Connection) -> Result<(), StoreError> {
    let version: Option<String> = connection
        .query_row("PRAGMA cipher_version", [], |row| row.get(0))
        .optional()
        .map_err(failed("ask for the cipher"))?;
    match version {
        Some(_) => Ok(()),
        None => Err(classify("find SQLCipher in the database library", ffi::SQLITE_MISUSE)),
    }
}

/// The statement that sets a raw key. Anything but exactly 64 hex digits would be taken for a passphrase.
fn key_statement(vault_key: &SecureBytes) -> Result<Zeroizing<String>, StoreError> {
    const DIGITS: usize = 2 * key_schedule::KEY_BYTES;
    let mut digits = Zeroizing::new([0u8; DIGITS]);
    if hex::encode_to_slice(vault_key.expose(), digits.as_mut_slice()).is_err() {
        return Err(StoreError::WrongKey);
    }
    let (before, after) = ("PRAGMA key = \"x'", "'\";");
    let mut statement = Zeroizing::new(String::with_capacity(before.len() + DIGITS + after.len()));
    statement.push_str(before);
    statement.extend(digits.iter().map(|digit| char::from(*digit)).filter(char::is_ascii_hexdigit));
    statement.push_str(after);
    if statement.len() == before.len() + DIGITS + after.len() {
        Ok(statement)
    } else {
        Err(StoreError::WrongKey)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqlCipherStore;
    use super::super::schema::FORMAT;
    use super::super::testing::{Vault, profile, secret};
    use super::*;
    use crate::store::SecretsStore;

    #[test]
    fn the_settings_are_in_force() {
        let vault = Vault::new();
        let numbers = [
            ("PRAGMA synchronous", 2),
            ("PRAGMA secure_delete", 1),
            ("PRAGMA temp_store", 2),
            ("PRAGMA trusted_schema", 0),
            ("PRAGMA cell_size_check", 1),
            ("PRAGMA user_version", FORMAT),
        ];
        for (pragma, expected) in numbers {
            assert_eq!(vault.ask::<i64>(pragma), expected, "{pragma}");
        }
        assert_eq!(vault.ask::<String>("PRAGMA journal_mode"), "wal");
        assert_eq!(vault.ask::<String>("PRAGMA cipher_memory_security"), "1");
    }

    #[test]
    fn only_64_hex_digits_become_a_key() {
        let statement = key_statement(&SecureBytes::copy_of(&[0xab; 32])).unwrap();
        assert_eq!(*statement, format!("PRAGMA key = \"x'{}'\";", "ab".repeat(32)));
        for len in [0, 31, 33, 64] {
            let folder = tempfile::tempdir().unwrap();
            let created =
                SqlCipherStore::create(&folder.path().join("db"), &profile("p"), &SecureBytes::zeroed(len));
            assert!(matches!(created, Err(StoreError::WrongKey)), "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_vault_is_told_apart() {
        let vault = Vault::new();
        vault.store.close().unwrap();
        let replaced_by = |bytes: &[u8]| {
            std::fs::write(vault.path(), bytes).unwrap();
            vault.reopen().unwrap_err()
        };
        assert!(matches!(replaced_by(b""), StoreError::Damaged(Damage::NotAVault)));
        assert!(matches!(replaced_by(&[0x5a; 8192]), StoreError::WrongKey));
        std::fs::remove_file(vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "missing");
        assert!(!vault.path().exists(), "opening makes nothing");
        std::fs::create_dir(vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "a folder");
        std::fs::remove_dir(vault.path()).unwrap();
        std::os::unix::fs::symlink("/dev/null", vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "a link");
    }

    /// One flipped bit in every 64th byte of the file: an error or the right value, never another one.
    #[tokio::test]
    async fn flipped_bits_give_an_error_or_the_right_value() {
        let vault = Vault::new();
        for number in 0..30 {
            vault.set(&format!("name/{number}"), format!("value {number}").repeat(50).as_bytes()).await;
        }
        vault.store.close().unwrap();
        let good = std::fs::read(vault.path()).unwrap();
        let mut errors = 0;
        for position in (0..good.len()).step_by(64) {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << (position / 64 % 8);
            std::fs::write(vault.path(), &bytes).unwrap();
            let store = match vault.reopen() {
                Ok(store) => store,
                Err(StoreError::WrongKey | StoreError::Damaged(_)) => {
                    errors += 1;
                    continue;
                }
                Err(other) => panic!("byte {position}: {other}"),
            };
            for number in 0..30 {
                match store.get(&secret(&format!("name/{number}"))).await {
                    Ok(value) => assert_eq!(value.expose(), format!("value {number}").repeat(50).as_bytes()),
                    Err(StoreError::Damaged(_)) => errors += 1,
                    Err(other) => panic!("byte {position}: {other}"),
                }
            }
            let _ = store.close();
        }
        assert!(errors > 0);
    }

    #[tokio::test]
    async fn a_full_disk_changes_nothing_and_says_so() {
        let vault = Vault::new();
        vault.set("a", b"old").await;
        let pages: i64 = vault.ask("PRAGMA page_count");
        vault.ask::<i64>(&format!("PRAGMA max_page_count = {pages}"));
        let large = SecureBytes::zeroed(1 << 20);
        let written = vault.store.set(&secret("a"), large.clone()).await.unwrap_err();
        assert!(matches!(written, StoreError::Full) && written.is_full());
        assert_eq!(vault.get("a").await.unwrap().expose(), b"old");
        vault.ask::<i64>("PRAGMA max_page_count = 4294967294");
        vault.store.set(&secret("a"), large).await.unwrap();
    }

    #[tokio::test]
    async fn another_writer_is_an_error_of_its_own() {
        let vault = Vault::new();
        let other = connect(&vault.path(), &vault.key).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let written = vault.store.set(&secret("a"), SecureBytes::zeroed(1)).await;
        assert!(matches!(written, Err(StoreError::Busy)));
        other.execute_batch("ROLLBACK").unwrap();
        vault.set("a", b"x").await;
    }
}
