//! The supervisor's own log: few lines, each with the time. Text of the guest's goes in escaped only.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

static FILE: OnceLock<File> = OnceLock::new();
const MAX_CHARACTERS: usize = 2_000;

pub fn open(path: &Path) {
    if let Ok(file) = File::options().create(true).append(true).open(path) {
        let _ = FILE.set(file);
    }
}

pub fn line(message: &str) {
    let Some(mut file) = FILE.get() else { return };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let text: String = message.escape_debug().take(MAX_CHARACTERS).collect();
    // A failure to log can't be reported anywhere.
    let _ =
        file.write_all(format!("{}.{:03} {text}\n", now.as_secs(), now.subsec_millis()).as_bytes());
}
