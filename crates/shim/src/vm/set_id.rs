//! A filter for a hypervisor that has a file of the host as its own: it may not set the file's set-user-ID or set-group-ID
//! bit. The guest decides the file's bytes, and on the host the file belongs to somebody else, perhaps root. Other users of
//! the host could then run the guest's program as that user. systemd's RestrictSUIDSGID= is about the same.

use litegix_sys::spawn::Filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::io;

/// The number of the mode among the arguments.
const CALLS: [(i64, u8); 4] = [
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    // fchmodat2, Linux 6.6.
    (452, 2),
];
/// The second set of system calls on x86-64, if the kernel has it (x32).
const X32: i64 = 0x4000_0000;

pub fn refused() -> io::Result<Filter> {
    let mut rules = std::collections::BTreeMap::new();
    for (call, argument) in CALLS {
        let either = [libc::S_ISUID, libc::S_ISGID]
            .into_iter()
            .map(|bit| with_bit(argument, u64::from(bit)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        rules.insert(call, either.clone());
        rules.insert(call | X32, either);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::x86_64,
    )
    .and_then(BpfProgram::try_from)
    .map_err(io::Error::other)?;
    let instructions = filter.into_iter().map(|it| libc::sock_filter {
        code: it.code,
        jt: it.jt,
        jf: it.jf,
        k: it.k,
    });
    Ok(Filter(instructions.collect()))
}

fn with_bit(argument: u8, bit: u64) -> seccompiler::Result<SeccompRule> {
    let set = SeccompCmpOp::MaskedEq(bit);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, set, bit);
    condition
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(Into::into)
}
