//! Directories: whether lines can be written there durably, and whether there is room for them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::report::{Check, Section};
use crate::config::size_text;
use crate::exit::Exit;

/// Less room than this is worth a warning.
const LITTLE: u64 = 256 << 20;

/// The state directory. Its lock is not taken: a bridge may be running.
pub(super) fn state(dir: &Path) -> Section {
    let mut section = Section::new("state");
    section.add(directory("directory", dir));
    let letters = dir.join("dead-letters");
    if letters.exists() {
        section.add(directory("dead letters", &letters));
    }
    section
}

/// Writes a file, syncs it and removes it again. What a bridge would create is not created: then the directory above is
/// tried.
pub(super) fn directory(check: &'static str, dir: &Path) -> Check {
    let shown = dir.display().to_string();
    let tried = existing(dir);
    let check_of = |result: Check| result.of(shown.clone());
    if let Err(error) = write_durably(&tried) {
        let (detail, hint) = match error.kind() {
            io::ErrorKind::StorageFull => (format!("no room: {error}"), "make room"),
            _ => {
                (format!("{} cannot be written: {error}", tried.display()), "make it writable for this user")
            }
        };
        return check_of(Check::fail(check, Exit::CantCreate, detail, hint));
    }
    let state = if tried == dir { "written and synced" } else { "does not exist yet, and can be created" };
    match fs4::available_space(&tried) {
        Ok(free) if free < LITTLE => {
            let detail = format!("{state}; {} free", rounded(free));
            check_of(Check::warn(check, detail, "make room: a full disk holds acknowledgements back"))
        }
        Ok(free) => check_of(Check::ok(check, format!("{state}; {} free", rounded(free)))),
        Err(_) => check_of(Check::ok(check, state)),
    }
}

/// Whole MiB or GiB.
fn rounded(bytes: u64) -> String {
    match bytes {
        0..0x0010_0000 => size_text(bytes),
        0x0010_0000..0x2_8000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// The nearest directory that exists.
fn existing(dir: &Path) -> PathBuf {
    let above = dir.ancestors().find(|above| above.exists());
    match above {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn write_durably(dir: &Path) -> io::Result<()> {
    let file = dir.join(format!(".viaduct-check-{}", std::process::id()));
    let written = File::create(&file).and_then(|mut open| {
        open.write_all(b"viaduct check\n")?;
        open.sync_all()
    });
    let removed = fs::remove_file(&file);
    written.and(match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_behind_and_nothing_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let there = directory("directory", dir.path());
        assert!(there.detail.starts_with("written and synced"), "{}", there.detail);
        let missing = directory("directory", &dir.path().join("a/b"));
        assert!(missing.detail.starts_with("does not exist yet"), "{}", missing.detail);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let not_one = directory("directory", &file.join("below"));
        assert!(not_one.detail.contains("cannot be written"), "{}", not_one.detail);
    }
}
