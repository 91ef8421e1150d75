//! Resource limits by docker's names, which are those of setrlimit(2) in lower case.

use crate::machine::step_error::reason;
use crate::program::plan::{Failure, Limit};
use crate::sys::rights;

/// A limit that docker's daemon gives every container: enough files, and as many processes as the control group allows.
fn defaults() -> [Limit; 2] {
    let limit = |name: &str, soft, hard| Limit {
        name: name.to_owned(),
        soft,
        hard,
    };
    [
        limit("nofile", 1024, 524_288),
        limit("nproc", u64::MAX, u64::MAX),
    ]
}

fn number(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

pub fn known(name: &str) -> bool {
    number(name).is_some()
}

/// Sets the defaults and over them the task's own.
pub fn set(own: &[Limit]) -> Result<(), Failure> {
    for limit in defaults().iter().chain(own) {
        let resource = number(&limit.name)
            .ok_or_else(|| Failure::invalid(format!("ulimit {}: unknown", limit.name)))?;
        rights::set_limit(resource, limit.soft, limit.hard).map_err(|error| {
            Failure::invalid(format!(
                "ulimit {} = {}:{}: {}",
                limit.name,
                limit.soft,
                limit.hard,
                reason(&error)
            ))
        })?;
    }
    Ok(())
}
