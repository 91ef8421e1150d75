//! The names of the group's other tasks in the task's /etc/hosts. The task may write to the file too. So init replaces
//! only its own lines, and the file stays the one that is mounted over the image's. Init opens it before the task runs
//! and keeps it open: the task could take a lease on a file that is not open elsewhere, which would block each later
//! opening.

use litegix_protocol::guest::Peer;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The mark by which init recognises its lines.
const MARK: &str = "# a task of this group";
/// A larger file is not read into init's memory.
const MAX_BYTES: u64 = 1 << 20;

pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Fails if the file has become too large, and for a peer without a name or address.
pub fn set(mut file: &File, peers: &[Peer]) -> io::Result<()> {
    let mut before = Vec::new();
    file.rewind()?;
    file.take(MAX_BYTES + 1).read_to_end(&mut before)?;
    if before.len() as u64 > MAX_BYTES {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let after = with_peers(&before, peers)?;
    if after == before {
        return Ok(());
    }
    file.write_all_at(&after, 0)?;
    file.set_len(after.len() as u64)
}

fn with_peers(content: &[u8], peers: &[Peer]) -> io::Result<Vec<u8>> {
    let mut result: Vec<u8> = content
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii_end().ends_with(MARK.as_bytes()))
        .flatten()
        .copied()
        .collect();
    if !peers.is_empty() && result.last().is_some_and(|byte| *byte != b'\n') {
        result.push(b'\n');
    }
    for peer in peers {
        let (name, address) = (name(peer)?, address(peer)?);
        result.extend(format!("{address}\t{name}\t{MARK}\n").bytes());
    }
    Ok(result)
}

fn name(peer: &Peer) -> io::Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if peer.name.is_empty() || !peer.name.bytes().all(plain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(&peer.name)
}

fn address(peer: &Peer) -> io::Result<IpAddr> {
    let bytes = peer.address.as_slice();
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use proptest::prelude::*;

    fn peer(name: &str, address: &[u8]) -> Peer {
        Peer {
            name: name.to_owned(),
            address: address.to_vec(),
        }
    }

    #[test]
    fn the_files_other_lines_stay() {
        let path = std::env::temp_dir().join(format!("litegix-peers-{}", std::process::id()));
        std::fs::write(&path, "127.0.0.1\tlocalhost\n10.0.0.1\tmine").expect("write");
        let read = || std::fs::read_to_string(&path).expect("read");
        let file = open(&path).expect("open");
        set(
            &file,
            &[peer("web", &[169, 254, 230, 6]), peer("db", &[0; 16])],
        )
        .expect("set");
        let own = "127.0.0.1\tlocalhost\n10.0.0.1\tmine\n";
        assert_eq!(
            read(),
            format!("{own}169.254.230.6\tweb\t{MARK}\n::\tdb\t{MARK}\n")
        );
        set(&file, &[peer("db", &[1, 2, 3, 4])]).expect("set");
        assert_eq!(read(), format!("{own}1.2.3.4\tdb\t{MARK}\n"));
        set(&file, &[]).expect("set");
        assert_eq!(read(), own);
        std::fs::remove_file(&path).expect("remove");
    }

    #[test]
    fn a_file_that_has_become_too_large_is_left_alone() {
        let file = memfd_create("hosts", MFdFlags::empty()).expect("file");
        let file = File::from(file);
        file.set_len(MAX_BYTES + 1).expect("grow");
        let error = set(&file, &[peer("db", &[1, 2, 3, 4])]).expect_err("large");
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }

    #[test]
    fn what_is_no_line_of_such_a_file_is_refused() {
        for bad in [
            peer("", &[1, 2, 3, 4]),
            peer("a b", &[1, 2, 3, 4]),
            peer("a\n6.6.6.6 b", &[1, 2, 3, 4]),
            peer("a", &[1, 2, 3]),
        ] {
            assert!(
                with_peers(b"", std::slice::from_ref(&bad)).is_err(),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_the_task_wrote_stays(content in proptest::collection::vec(any::<u8>(), 0..200), names in proptest::collection::vec("[a-z]{1,5}", 1..4)) {
            let peers: Vec<Peer> = names.iter().map(|name| peer(name, &[1, 2, 3, 4])).collect();
            let with = with_peers(&content, &peers).expect("with");
            prop_assert!(with.starts_with(&content));
            prop_assert_eq!(with_peers(&with, &peers).expect("again"), with.clone());
            let without = with_peers(&with, &[]).expect("without");
            prop_assert_eq!(without.strip_suffix(b"\n").unwrap_or(&without), content.strip_suffix(b"\n").unwrap_or(&content));
        }
    }
}
