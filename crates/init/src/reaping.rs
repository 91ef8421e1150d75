//! `init = true`: the namespace's first process stays, passes signals on to the program, and reaps what nobody else
//! waits for. Its end, with the program's exit code, is the task's.

use crate::sys::process::{self, Side};
use crate::sys::tty;
use std::io;

/// Returns only in a child, which is to become the program.
pub fn stay_as_init(terminal: bool) -> io::Result<()> {
    // Before the fork: none may get lost in between.
    process::block_signals();
    match process::fork()? {
        Side::Child => {
            // A group of its own, so that a terminal's signals reach the program and its children.
            process::lead_group()?;
            if terminal {
                tty::put_in_foreground(io::stdin())?;
            }
            Ok(())
        }
        Side::Parent(child) => {
            process::close_from(3);
            run(child)
        }
    }
}

fn run(child: i32) -> ! {
    loop {
        match process::next_signal() {
            Some(libc::SIGCHLD) => {
                while let Some((pid, status)) = process::reap_any() {
                    if pid == child {
                        process::exit_now(process::decode_status(status).0);
                    }
                }
            }
            // The program may have ended just now; that is told next.
            Some(signal) => drop(process::kill(child, signal)),
            None => {}
        }
    }
}
