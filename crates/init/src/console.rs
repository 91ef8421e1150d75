//! Log lines as kernel messages, so that they are in order with the kernel's own and reach the console if there is one.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

static KMSG: OnceLock<Option<File>> = OnceLock::new();

/// The longest record that /dev/kmsg takes is a little under 1 KiB.
const MAX_CHARACTERS: usize = 900;

fn write(level: u8, message: &str) {
    let kmsg = KMSG.get_or_init(|| File::options().write(true).open("/dev/kmsg").ok());
    if let Some(mut kmsg) = kmsg.as_ref() {
        let text: String = message.escape_debug().take(MAX_CHARACTERS).collect();
        // A failure to log can't be reported anywhere.
        let _ = kmsg.write_all(format!("<{level}>litegix-init: {text}\n").as_bytes());
    }
}

pub fn info(message: &str) {
    write(6, message);
}

pub fn warn(message: &str) {
    write(4, message);
}

/// Logs an error with the action that failed, and goes on.
pub fn warn_on_error<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    if let Err(error) = result {
        warn(&format!("{what}: {error}"));
    }
}
